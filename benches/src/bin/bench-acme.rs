//! Certificates a second of the whole path: real programs, HTTPS, http-01, keys in SoftHSM, everything durable. A closed
//! loop: each client asks for its next certificate when it has the last one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use benches::acme_client::Client;
use benches::connection::Server;
use benches::processes::{Demo, cost_of};
use benches::responder::Responder;
use clap::Parser;
use serde_json::json;

/// Certificates a second over the whole path.
#[derive(Parser)]
struct Arguments {
    /// Seconds that each number of clients is measured for.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    clients: Vec<usize>,
    /// Names in each certificate.
    #[arg(long, default_value_t = 1)]
    names: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let demo = Demo::start(&folder.path().join("state"), port)?;
    let responder = Responder::start(port).await?;
    let authority = demo.facts.directory.split('/').nth(2).context("the directory's host")?;
    let server = Server::new(authority.parse()?, &demo.facts.root)?;

    println!("{:>8} {:>9} {:>9} {:>9} {:>12}", "clients", "certs/s", "p50 ms", "p99 ms", "CPU ms/cert");
    let mut figures = serde_json::Map::new();
    for clients in &arguments.clients {
        let run = measure(&arguments, *clients, &demo, &responder, &server).await?;
        println!(
            "{clients:>8} {:>9.1} {:>9.2} {:>9.2} {:>12.2}",
            run.per_second, run.p50_ms, run.p99_ms, run.cpu_ms
        );
        figures.insert(format!("certs_per_s_{clients}"), json!(round(run.per_second)));
        figures.insert(format!("p99_ms_{clients}"), json!(round(run.p99_ms)));
        figures.insert(format!("cpu_ms_per_cert_{clients}"), json!(round(run.cpu_ms)));
        for (role, milliseconds) in &run.by_role {
            println!("{:>8} {role:<12} {milliseconds:.2} ms CPU a certificate", "");
        }
    }
    println!("{}", json!({ "sqlite": figures }));
    Ok(())
}

struct Run {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_ms: f64,
    by_role: Vec<(String, f64)>,
}

async fn measure(
    arguments: &Arguments,
    clients: usize,
    demo: &Demo,
    responder: &Responder,
    server: &Server,
) -> anyhow::Result<Run> {
    let mut ready = Vec::new();
    for number in 0..clients {
        let client = Client::register(server, &demo.facts.directory).await?;
        let name = format!("c{clients}x{number}");
        responder.add(&name, client.thumbprint());
        ready.push((name, client));
    }
    let (before, own_before) = (demo.costs(), cost_of(std::process::id()));
    let names = arguments.names;
    let started = Instant::now();
    let end = started + Duration::from_secs(arguments.seconds);
    let responder = Arc::new(responder.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for (name, mut client) in ready {
        let _keep = Arc::clone(&responder);
        tasks.spawn(async move {
            let mut times = Vec::new();
            let mut count = 0_u64;
            while Instant::now() < end {
                let wanted: Vec<_> = (0..names).map(|at| format!("{name}-{count}-{at}.bench.test")).collect();
                times.push(client.certificate(&wanted).await?);
                count += 1;
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    let count = times.len().max(1) as f64;
    let after = demo.costs();
    let mut by_role: Vec<_> = after
        .iter()
        .map(|(role, cost)| {
            let earlier = before.get(role).map_or(0.0, |cost| cost.cpu_seconds);
            (role.clone(), (cost.cpu_seconds - earlier) * 1000.0 / count)
        })
        .collect();
    let cpu_ms = by_role.iter().map(|(_, milliseconds)| milliseconds).sum();
    let own = (cost_of(std::process::id()).cpu_seconds - own_before.cpu_seconds) * 1000.0 / count;
    by_role.push(("generator".to_owned(), own));
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 - 1.0) * share).round().max(0.0) as usize;
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    Ok(Run { per_second: count / elapsed, p50_ms: at(0.5), p99_ms: at(0.99), cpu_ms, by_role })
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
