//! Certificates a second of the whole path: real programs, HTTPS, http-01, keys in SoftHSM, everything durable; on SQLite and on
//! PostgreSQL, beside the ceilings of this machine. docs/performance.md explains the figures.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use benches::ceilings::{self, Ceiling};
use benches::connection::Server;
use benches::disk::Disk;
use benches::load::{self, Measured, Round, Target};
use benches::processes::{Costs, Demo, postgres_cost};
use benches::responder::Responder;
use benches::stored::{self, Stored};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};
use testkit::{Cluster, ClusterSettings};

/// Certificates a second over the whole path.
#[derive(Parser)]
struct Arguments {
    /// Seconds that each round is measured for.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    clients: Vec<usize>,
    /// Names in each certificate; the first number is what the figures of the last line are about.
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    names: Vec<usize>,
    /// Databases.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sqlite,postgres")]
    databases: Vec<Database>,
    /// One round more with the most clients, until so many certificates are there: whether memory stays flat, and what a
    /// certificate takes in the database.
    #[arg(long, value_name = "CERTIFICATES")]
    flat: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Database {
    /// Files on this host.
    Sqlite,
    /// A server on this host, fsync on.
    Postgres,
}

/// The single costs.
struct Ceilings {
    token: Ceiling,
    verification: Ceiling,
    request: Ceiling,
}

/// ES256 verifications of a certificate at front and signer: one for each signed request at the front; newOrder, finalize,
/// CSR and the certificate itself at the signer.
const SIGNER_VERIFICATIONS: f64 = 4.0;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let ceilings = Ceilings {
        token: ceilings::token("ecdsa-p256", 1)?,
        verification: ceilings::verifications()?,
        request: ceilings::tls_requests(folder.path()).await?,
    };
    println!("Ceilings, each alone          a second   CPU µs each");
    for (what, ceiling) in [
        ("C_Sign, P-256, one thread", ceilings.token),
        ("ES256 verification, one thread", ceilings.verification),
        ("TLS request, empty handler", ceilings.request),
    ] {
        row(what, ceiling);
    }
    let mut all = Map::new();
    for database in &arguments.databases {
        let (name, figures) = match database {
            Database::Sqlite => ("sqlite", sqlite(&arguments, folder.path(), &ceilings).await?),
            Database::Postgres => ("postgres", postgres(&arguments, folder.path(), &ceilings).await?),
        };
        all.insert(name.to_owned(), figures);
    }
    println!("{}", Value::from(all));
    Ok(())
}

fn row(what: &str, ceiling: Ceiling) {
    println!("{what:<30}{:>8.0}{:>14.1}", ceiling.per_second, ceiling.cpu_us);
}

async fn sqlite(arguments: &Arguments, folder: &Path, ceilings: &Ceilings) -> anyhow::Result<Value> {
    let state = folder.join("sqlite");
    let commit = ceilings::sqlite_commits(folder).await?;
    let (port, responder) = responder().await?;
    let demo = Demo::start(&state, port, &[])?;
    let costs = || demo.costs();
    let stored = async || stored::sqlite(&state).await;
    let rounds =
        Rounds { arguments, demo: &demo, responder: &responder, costs: &costs, disk: Disk::of(&state) };
    println!("\nSQLite");
    row("commit of one row", commit);
    rounds.all(&stored, commit, ceilings).await
}

async fn postgres(arguments: &Arguments, folder: &Path, ceilings: &Ceilings) -> anyhow::Result<Value> {
    let settings = ClusterSettings {
        durable: true,
        settings: vec!["max_wal_size=4GB".to_owned()],
        ..ClusterSettings::default()
    };
    let cluster = tokio::task::spawn_blocking(move || Cluster::start_with(&settings)).await?;
    let program = std::env::current_exe()?.with_file_name("chancery");
    let migrated =
        Command::new(program).args(["database", "migrate", "--url", &cluster.owner_url()]).output()?;
    ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
    cluster.sql("postgres", "CREATE ROLE bench_signer LOGIN IN ROLE chancery_signer");
    cluster.sql("postgres", "CREATE ROLE bench_front LOGIN IN ROLE chancery_front");
    let commit = ceilings::postgres_commits(&cluster.owner_url(), || postgres_cost().cpu_seconds).await?;
    let (port, responder) = responder().await?;
    let more = [
        "--signer-database".to_owned(),
        cluster.url("postgres", "bench_signer"),
        "--front-database".to_owned(),
        cluster.url("postgres", "bench_front"),
    ];
    let demo = Demo::start(&folder.join("postgres"), port, &more)?;
    let costs = || {
        let mut costs = demo.costs();
        costs.insert("postgres".to_owned(), postgres_cost());
        costs
    };
    let owner = cluster.owner_url();
    let stored = async || stored::postgres(&owner).await;
    let disk = Disk::of(cluster.folder());
    let rounds = Rounds { arguments, demo: &demo, responder: &responder, costs: &costs, disk };
    println!("\nPostgreSQL");
    row("commit of one row", commit);
    rounds.all(&stored, commit, ceilings).await
}

async fn responder() -> anyhow::Result<(u16, Responder)> {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    Ok((port, Responder::start(port).await?))
}

/// One database's rounds.
struct Rounds<'a> {
    arguments: &'a Arguments,
    demo: &'a Demo,
    responder: &'a Responder,
    costs: &'a (dyn Fn() -> Costs + Sync),
    disk: Option<Disk>,
}

impl Rounds<'_> {
    async fn all(
        &self,
        stored: &impl AsyncFn() -> anyhow::Result<Stored>,
        commit: Ceiling,
        ceilings: &Ceilings,
    ) -> anyhow::Result<Value> {
        let authority = self.demo.facts.directory.split('/').nth(2).context("the directory's host")?;
        let server = Server::new(authority.parse()?, &self.demo.facts.root)?;
        let target = Target {
            directory: &self.demo.facts.directory,
            server: &server,
            responder: self.responder,
            costs: self.costs,
            disk: self.disk.as_ref(),
        };
        let mut figures = Map::new();
        println!(
            "{:>6}{:>8}{:>10}{:>9}{:>9}{:>9}{:>8}{:>9}{:>11}",
            "names", "clients", "certs/s", "p50 ms", "p99 ms", "CPU ms", "flushes", "requests", "kB written"
        );
        for (at, names) in self.arguments.names.iter().enumerate() {
            let before = stored().await?;
            let mut certificates = 0.0;
            for clients in &self.arguments.clients {
                let round = Round {
                    clients: *clients,
                    names: *names,
                    seconds: self.arguments.seconds,
                    every: Duration::ZERO,
                };
                let measured = load::run(round, &target).await?;
                certificates += measured.count;
                show(round, &measured);
                if at == 0 {
                    keep(&mut figures, *clients, &measured, commit, ceilings);
                }
            }
            let kept = stored().await?.since(before, certificates);
            println!(
                "       a certificate keeps {:.0} bytes in the databases, and {:.0} of evidence",
                kept.bytes, kept.evidence
            );
            if at == 0 {
                figures.insert("bytes_kept_per_cert".to_owned(), json!(kept.bytes.round()));
                figures.insert("evidence_bytes_per_cert".to_owned(), json!(kept.evidence.round()));
            }
        }
        if let Some(certificates) = self.arguments.flat {
            self.flat(&target, stored, certificates, &mut figures).await?;
        }
        let mut memory = Map::new();
        for (role, cost) in (self.costs)() {
            memory.insert(role, json!(cost.peak_mib.round()));
        }
        println!("       peak memory, MiB: {}", Value::from(memory.clone()));
        figures.insert("peak_mib".to_owned(), Value::from(memory));
        Ok(Value::from(figures))
    }

    async fn flat(
        &self,
        target: &Target<'_>,
        stored: &impl AsyncFn() -> anyhow::Result<Stored>,
        certificates: u64,
        figures: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let clients = self.arguments.clients.iter().copied().max().unwrap_or(32);
        let (before, mut made, mut steps) = (stored().await?, 0.0, Vec::new());
        while made < certificates as f64 {
            let round = Round { clients, names: 1, seconds: 30, every: Duration::ZERO };
            let measured = load::run(round, target).await?;
            made += measured.count;
            let resident: Map<String, Value> =
                (self.costs)().into_iter().map(|(role, cost)| (role, json!(cost.now_mib.round()))).collect();
            println!(
                "{made:>10.0} certificates, {:.0} a second; MiB: {}",
                measured.per_second,
                Value::from(resident.clone())
            );
            steps.push(
                json!({ "certificates": made, "certs_per_s": measured.per_second.round(), "mib": resident }),
            );
        }
        let kept = stored().await?.since(before, made);
        figures.insert("flat".to_owned(), json!(steps));
        figures.insert("flat_bytes_kept_per_cert".to_owned(), json!(kept.bytes.round()));
        Ok(())
    }
}

fn show(round: Round, measured: &Measured) {
    let disk = measured.disk.unwrap_or_default();
    println!(
        "{:>6}{:>8}{:>10.1}{:>9.2}{:>9.2}{:>9.2}{:>8.2}{:>9.2}{:>11.1}",
        round.names,
        round.clients,
        measured.per_second,
        measured.p50_ms,
        measured.p99_ms,
        measured.cpu(),
        disk.flushes,
        measured.requests,
        disk.bytes / 1000.0
    );
    let roles: Vec<_> =
        measured.cpu_ms.iter().map(|(role, milliseconds)| format!("{role} {milliseconds:.2}")).collect();
    println!("       CPU ms: {}, generator {:.2}", roles.join(", "), measured.generator_ms);
}

fn keep(
    figures: &mut Map<String, Value>,
    clients: usize,
    measured: &Measured,
    commit: Ceiling,
    ceilings: &Ceilings,
) {
    let mut insert = |name: String, value: f64| figures.insert(name, json!((value * 100.0).round() / 100.0));
    insert(format!("certs_per_s_{clients}"), measured.per_second);
    insert(format!("p99_ms_{clients}"), measured.p99_ms);
    insert(format!("cpu_ms_per_cert_{clients}"), measured.cpu());
    if let Some(disk) = measured.disk {
        insert(format!("flushes_per_cert_{clients}"), disk.flushes);
        insert(format!("bytes_written_per_cert_{clients}"), disk.bytes);
    }
    // The last number of clients is what these two are about: 32, unless another was asked for.
    insert("cpu_ms_per_cert".to_owned(), measured.cpu());
    let flushes = measured.disk.map_or(1.0, |disk| disk.flushes);
    let least_us = ceilings.token.cpu_us
        + (measured.requests + SIGNER_VERIFICATIONS) * ceilings.verification.cpu_us
        + measured.requests * ceilings.request.cpu_us
        + flushes * commit.cpu_us;
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let ceiling = cores * 1e6 / least_us;
    insert("single_costs_us".to_owned(), least_us);
    insert("share_of_ceiling".to_owned(), measured.per_second / ceiling);
}
