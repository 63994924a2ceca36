//! Those who misbehave.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::{Arguments, address, authority, silent_names};
use crate::acme_client::Client;
use crate::connection::Server;

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Attack {
    /// Octets one by one.
    SlowLoris,
    /// Bodies of a megabyte.
    Oversized,
    /// newOrder, as fast as it goes.
    Flood,
    /// Validations of names whose name server never answers.
    DeadResolver,
}

impl Attack {
    pub(super) const ALL: [Self; 4] = [Self::SlowLoris, Self::Oversized, Self::Flood, Self::DeadResolver];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SlowLoris => "slow_loris",
            Self::Oversized => "oversized",
            Self::Flood => "flood",
            Self::DeadResolver => "dead_resolver",
        }
    }
}

/// Those who are refused try again at once, and not in no time at all.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);
const REGISTER_TRIES: u32 = 30;
const OCTET_PAUSE: Duration = Duration::from_secs(1);

/// Says "ready", misbehaves until the input ends, and says how often.
pub(super) async fn run(
    attack: Attack,
    arguments: &Arguments,
    directory: &str,
    root: &Path,
) -> anyhow::Result<()> {
    let server = Server::new(authority(directory)?.parse()?, root)?;
    let made = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let path = format!("{}/new-order", path_of(directory));
    let count = if attack == Attack::SlowLoris { arguments.slow } else { arguments.attackers };
    let servers: Vec<_> = (0..count).map(|number| server.from(address(number, arguments))).collect();
    // Before anybody begins: those who attack use up the share of their address.
    let mut clients = Vec::new();
    if matches!(attack, Attack::Flood | Attack::DeadResolver) {
        for server in &servers {
            clients.push(register(server, directory).await?);
        }
    }
    let mut clients = clients.into_iter();
    for (number, server) in servers.into_iter().enumerate() {
        let made = Arc::clone(&made);
        let path = path.clone();
        match (attack, clients.next()) {
            (Attack::SlowLoris, _) => tasks.spawn(async move {
                loop {
                    made.fetch_add(1, Ordering::Relaxed);
                    drop(slow(&server, number, &path).await);
                    tokio::time::sleep(OCTET_PAUSE).await;
                }
            }),
            (Attack::Flood, Some(client)) => {
                tasks.spawn(ask(client, vec![format!("f{number}.bench.test")], attack, made))
            }
            (Attack::DeadResolver, Some(client)) => {
                tasks.spawn(ask(client, silent_names(number, arguments).collect(), attack, made))
            }
            _ => tasks.spawn(async move {
                let body = Bytes::from(vec![b' '; 1 << 20]);
                loop {
                    if let Ok(mut connection) = server.connect().await {
                        made.fetch_add(1, Ordering::Relaxed);
                        drop(connection.send(&path, Some(body.clone())).await);
                    }
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }),
        };
    }
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    tasks.abort_all();
    println!("{}", made.load(Ordering::Relaxed));
    Ok(())
}

/// newOrder again and again, and with it a validation where the name server is the victim.
async fn ask(mut client: Client, names: Vec<String>, attack: Attack, made: Arc<AtomicU64>) {
    for name in names.iter().cycle() {
        let asked = match attack {
            Attack::DeadResolver => client.begin_validation(name).await,
            _ => client.order(name).await.map(drop),
        };
        made.fetch_add(1, Ordering::Relaxed);
        if asked.is_err() {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

/// An account, after what the round before has used up of its address' share has come back.
async fn register(server: &Server, directory: &str) -> anyhow::Result<Client> {
    let mut tries = 0;
    loop {
        match Client::register(server, directory).await {
            Ok(client) => return Ok(client),
            Err(error) if tries == REGISTER_TRIES => return Err(error),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A connection that says as little as it can, for as long as it is let.
async fn slow(server: &Server, number: usize, path: &str) -> anyhow::Result<()> {
    let filler = b"x".iter().cycle().take(600);
    match number % 3 {
        // A handshake's record that announces 512 octets.
        0 => {
            let octets = b"\x16\x03\x01\x02\x00".iter().chain(filler);
            dribble(&mut server.connect_plainly().await?, octets).await
        }
        1 => {
            let mut stream = server.shake_hands().await?;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: ca.test\r\nx-slow: ").as_bytes()).await?;
            dribble(&mut stream, filler).await
        }
        _ => {
            let mut stream = server.shake_hands().await?;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: ca.test\r\ncontent-type: application/jose+json\r\ncontent-length: 600\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            dribble(&mut stream, filler).await
        }
    }
}

async fn dribble(
    stream: &mut (impl AsyncWrite + Unpin),
    octets: impl Iterator<Item = &u8>,
) -> anyhow::Result<()> {
    for octet in octets {
        stream.write_all(&[*octet]).await?;
        stream.flush().await?;
        tokio::time::sleep(OCTET_PAUSE).await;
    }
    Ok(())
}

fn path_of(directory: &str) -> String {
    let rest = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| rest.split_at(at).1);
    path.trim_end_matches("/directory").to_owned()
}
