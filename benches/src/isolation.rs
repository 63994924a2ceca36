//! What clients feel while others misbehave: slow requests, oversized bodies, a flood of newOrder, names whose name server never
//! answers. Clients ask at a pace, each from an address of its own; those who misbehave are another process, of the lowest
//! priority, since they would have machines of their own, and come from addresses of theirs.

mod attack;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::connection::Server;
use crate::load::{self, Measured, Round, Target};
use crate::processes::Demo;
use crate::responder::Responder;
use attack::Attack;

/// What is measured.
#[derive(Debug, clap::Parser)]
pub struct Arguments {
    /// Seconds of each round.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Well-behaved clients.
    #[arg(long, default_value_t = 6)]
    pub clients: usize,
    /// Milliseconds from one certificate of such a client to its next.
    #[arg(long, default_value_t = 250)]
    pub every_milliseconds: u64,
    /// Connections of those who misbehave; each has an account of its own where it needs one.
    #[arg(long, default_value_t = 64)]
    pub attackers: usize,
    /// Connections that send an octet a second: a third of them of a handshake, a third of a header, a third of a body.
    #[arg(long, default_value_t = 999)]
    pub slow: usize,
    /// Addresses that they come from.
    #[arg(long, default_value_t = 4)]
    pub hosts: u8,
    /// Names without a name server of each attacker: together more than a validator looks at once.
    #[arg(long, default_value_t = 16)]
    pub silent_names: usize,
    /// This process is the one that misbehaves.
    #[arg(long, hide = true, requires_all = ["directory", "root"])]
    attack: Option<Attack>,
    #[arg(long, hide = true)]
    directory: Option<String>,
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
}

/// How much longer others' clients may wait than in a quiet round.
const MOST: f64 = 3.0;
/// Names under it get no answer from the demo's name server.
const SILENT: &str = "silent.test";

/// Measures each attack beside a quiet round of the same run; or is one.
///
/// # Errors
///
/// When a well-behaved client does not get its certificates.
pub async fn run(arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    if let (Some(attack), Some(directory), Some(root)) =
        (arguments.attack, &arguments.directory, &arguments.root)
    {
        attack::run(attack, arguments, directory, root).await?;
        return Ok(Map::new());
    }
    let folder = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let responder = Responder::start(port).await?;
    let demo = Demo::start(folder.path(), port, &["--front-limits".to_owned()])?;
    let server = Server::new(authority(&demo.facts.directory)?.parse()?, &demo.facts.root)?;
    let costs = || demo.costs();
    let target = Target {
        directory: &demo.facts.directory,
        server: &server,
        responder: &responder,
        costs: &costs,
        disk: None,
    };
    silence(folder.path(), arguments)?;
    let every = Duration::from_millis(arguments.every_milliseconds);
    let round = Round { clients: arguments.clients, names: 1, seconds: arguments.seconds, every };
    // Warm.
    load::run(Round { seconds: 5, ..round }, &target).await?;
    println!("{:<16}{:>10}{:>10}{:>10}{:>8}{:>14}", "", "certs/s", "p50 ms", "p99 ms", "ratio", "attacks/s");
    let quiet = load::run(round, &target).await?;
    print("quiet", &quiet, None, 0.0);
    let mut figures = Map::new();
    figures.insert("quiet_p99_ms".to_owned(), crate::rounded(quiet.p99_ms));
    for attack in Attack::ALL {
        let attackers = Attackers::start(attack, arguments, &demo).await?;
        let measured = load::run(round, &target).await;
        let made = attackers.stop().await? / arguments.seconds as f64;
        let measured = measured?;
        let ratio = measured.p99_ms / quiet.p99_ms;
        print(attack.name(), &measured, Some(ratio), made);
        figures.insert(format!("{}_p99_ratio", attack.name()), crate::rounded(ratio));
        figures.insert(format!("{}_per_s", attack.name()), json!(made.round()));
    }
    Ok(figures)
}

/// What the figures promise (handed over to the one who prints them first).
///
/// # Errors
///
/// When an attack has others wait more than three times as long as in quiet.
pub fn judge(figures: &Map<String, Value>) -> anyhow::Result<()> {
    for (name, figure) in figures.iter().filter(|(name, _)| name.ends_with("_p99_ratio")) {
        let ratio = figure.as_f64().unwrap_or(f64::INFINITY);
        ensure!(ratio <= MOST, "{name} is {ratio}: more than {MOST}");
    }
    Ok(())
}

fn print(name: &str, measured: &Measured, ratio: Option<f64>, made: f64) {
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    println!(
        "{name:<16}{:>10.1}{:>10.1}{:>10.1}{ratio:>8}{made:>14.1}",
        measured.per_second, measured.p50_ms, measured.p99_ms
    );
}

fn authority(directory: &str) -> anyhow::Result<&str> {
    directory.split('/').nth(2).context("the directory's host")
}

/// Names that the demo's name server keeps quiet about.
fn silence(state: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    for name in (0..arguments.attackers).flat_map(|number| silent_names(number, arguments)) {
        std::fs::write(state.join("names").join(name), "SILENT\n")?;
    }
    Ok(())
}

fn silent_names(attacker: usize, arguments: &Arguments) -> impl Iterator<Item = String> + use<> {
    (0..arguments.silent_names).map(move |at| format!("n{attacker}x{at}.{SILENT}"))
}

/// The address of an attacker.
fn address(number: usize, arguments: &Arguments) -> IpAddr {
    let host = number % usize::from(arguments.hosts.max(1));
    IpAddr::from([127, 0, 2, u8::try_from(host + 1).unwrap_or(u8::MAX)])
}

/// The process that misbehaves.
struct Attackers {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Attackers {
    /// When it is ready to begin, it has begun.
    async fn start(attack: Attack, arguments: &Arguments, demo: &Demo) -> anyhow::Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe()?);
        command.args(["--attack", attack.name(), "--directory", &demo.facts.directory]);
        command.arg("--root").arg(&demo.facts.root);
        for (name, value) in [
            ("--attackers", arguments.attackers),
            ("--slow", arguments.slow),
            ("--hosts", arguments.hosts.into()),
            ("--silent-names", arguments.silent_names),
        ] {
            command.arg(name).arg(value.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("nice")?;
        let mut said = BufReader::new(child.stdout.take().context("its output")?).lines();
        let first = said.next_line().await?;
        ensure!(first.as_deref() == Some("ready"), "{} did not begin", attack.name());
        Ok(Self { child, said })
    }

    /// How often they did it.
    async fn stop(mut self) -> anyhow::Result<f64> {
        // It goes on for as long as its input is open.
        drop(self.child.stdin.take());
        let made = self.said.next_line().await?.context("it ended too soon")?;
        self.child.wait().await?;
        Ok(made.parse()?)
    }
}
