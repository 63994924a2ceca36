//! What clients feel while others misbehave: slow requests, oversized bodies, a flood of newOrder, names whose resolver never
//! answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::acme_client::Client;
use crate::connection::Server;
use crate::load::{self, Measured, Round, Target};
use crate::processes::Demo;
use crate::responder::Responder;

/// What is measured.
#[derive(clap::Parser)]
pub struct Arguments {
    /// Seconds of each round.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Well-behaved clients.
    #[arg(long, default_value_t = 4)]
    pub clients: usize,
    /// Connections of those who misbehave: each kind at once.
    #[arg(long, default_value_t = 64)]
    pub attackers: usize,
    /// Connections that send a header an octet at a time.
    #[arg(long, default_value_t = 1000)]
    pub slow: usize,
}

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    None,
    /// Headers that come an octet at a time.
    SlowLoris,
    /// Bodies of a megabyte.
    Oversized,
    /// newOrder, as fast as it goes.
    Flood,
    /// Validations of names whose name server never answers.
    DeadResolver,
}

const ATTACKS: [(Attack, &str); 5] = [
    (Attack::None, "quiet"),
    (Attack::SlowLoris, "slow_loris"),
    (Attack::Oversized, "oversized"),
    (Attack::Flood, "flood"),
    (Attack::DeadResolver, "dead_resolver"),
];

/// Names under it get no answer from the demo's name server.
const SILENT: &str = "silent.test";

/// Measures each attack beside quiet rounds of the same run.
///
/// # Errors
///
/// When a well-behaved client does not get its certificates.
pub async fn run(arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    let folder = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let responder = Responder::start(port).await?;
    let demo = Demo::start(folder.path(), port, &[])?;
    let authority = demo.facts.directory.split('/').nth(2).context("the directory's host")?;
    let server = Server::new(authority.parse()?, &demo.facts.root)?;
    let costs = || demo.costs();
    let target = Target {
        directory: &demo.facts.directory,
        server: &server,
        responder: &responder,
        costs: &costs,
        disk: None,
    };
    silence(folder.path(), arguments.attackers)?;
    let round = Round { clients: arguments.clients, names: 1, seconds: arguments.seconds };
    // Warm.
    load::run(Round { seconds: 3, ..round }, &target).await?;
    println!("{:<16}{:>10}{:>10}{:>10}{:>14}", "", "certs/s", "p50 ms", "p99 ms", "attacks/s");
    let mut figures = Map::new();
    let mut quiet: Option<Measured> = None;
    for (attack, name) in ATTACKS {
        let attackers = Attackers::start(attack, arguments, &server, &demo.facts.directory).await?;
        let measured = load::run(round, &target).await;
        let made = attackers.stop().await;
        let measured = measured?;
        println!(
            "{name:<16}{:>10.1}{:>10.1}{:>10.1}{:>14.1}",
            measured.per_second,
            measured.p50_ms,
            measured.p99_ms,
            made / arguments.seconds as f64
        );
        match &quiet {
            None => {
                figures.insert("quiet_p99_ms".to_owned(), crate::rounded(measured.p99_ms));
                quiet = Some(measured);
            }
            Some(quiet) => {
                figures.insert(format!("{name}_p99_ratio"), crate::rounded(measured.p99_ms / quiet.p99_ms));
                figures.insert(format!("{name}_per_s"), json!((made / arguments.seconds as f64).round()));
            }
        }
    }
    Ok(figures)
}

/// Names that the demo's name server keeps quiet about.
fn silence(state: &Path, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        std::fs::write(state.join("names").join(format!("n{number}.{SILENT}")), "SILENT\n")?;
    }
    Ok(())
}

/// Those who misbehave.
struct Attackers {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Attackers {
    async fn start(
        attack: Attack,
        arguments: &Arguments,
        server: &Server,
        directory: &str,
    ) -> anyhow::Result<Self> {
        let mut it = Self { stop: Arc::default(), made: Arc::default(), tasks: JoinSet::new() };
        let count = match attack {
            Attack::None => 0,
            Attack::SlowLoris => arguments.slow,
            Attack::Oversized | Attack::Flood | Attack::DeadResolver => arguments.attackers,
        };
        for number in 0..count {
            let (stop, made) = (Arc::clone(&it.stop), Arc::clone(&it.made));
            match attack {
                Attack::None => {}
                Attack::SlowLoris => {
                    let server = server.clone();
                    it.tasks.spawn(async move {
                        while !stop.load(Ordering::Relaxed) {
                            drop(slow(&server, &stop, &made).await);
                        }
                    });
                }
                Attack::Oversized => {
                    let server = server.clone();
                    let path = format!("{}/new-order", path_of(directory));
                    it.tasks.spawn(async move {
                        let body = Bytes::from(vec![b' '; 1 << 20]);
                        while !stop.load(Ordering::Relaxed) {
                            if let Ok(mut connection) = server.connect().await {
                                drop(connection.send(&path, Some(body.clone())).await);
                                made.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
                Attack::Flood | Attack::DeadResolver => {
                    let mut client = Client::register(server, directory).await?;
                    it.tasks.spawn(async move {
                        let name = match attack {
                            Attack::Flood => format!("f{number}.bench.test"),
                            _ => format!("n{number}.{SILENT}"),
                        };
                        while !stop.load(Ordering::Relaxed) {
                            let asked = match attack {
                                Attack::Flood => client.order(&name).await.map(drop),
                                _ => client.begin_validation(&name).await,
                            };
                            made.fetch_add(1, Ordering::Relaxed);
                            if asked.is_err() {
                                // Refused: those who flood try again at once, and not in no time at all.
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                        }
                    });
                }
            }
        }
        Ok(it)
    }

    /// How often they did it.
    async fn stop(mut self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.made.load(Ordering::Relaxed) as f64
    }
}

/// One connection that says a header an octet a second, as long as it is let.
async fn slow(server: &Server, stop: &AtomicBool, made: &AtomicU64) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(server.address()).await?;
    // Half of them do not even finish a handshake.
    let text: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    made.fetch_add(1, Ordering::Relaxed);
    for octet in text.iter().cycle().take(600) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[*octet]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn path_of(directory: &str) -> String {
    let rest = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| rest.split_at(at).1);
    path.trim_end_matches("/directory").to_owned()
}
