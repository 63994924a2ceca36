//! Clients that ask for certificates: the next one when the last is there, or at a pace.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::acme_client::Client;
use crate::connection::Server;
use crate::disk::{Disk, Written};
use crate::processes::{Costs, cost_of};
use crate::responder::Responder;

/// What a round is.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Clients at once, each with a connection and an account of its own.
    pub clients: usize,
    /// Names in each certificate.
    pub names: usize,
    /// Seconds.
    pub seconds: u64,
    /// How often each client asks; zero: again as soon as it has its certificate, and all from one address. Else each has an
    /// address of its own.
    pub every: Duration,
}

/// What a round came to.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Certificates.
    pub count: f64,
    /// Certificates a second.
    pub per_second: f64,
    /// The median of the time from newOrder to the downloaded chain, milliseconds.
    pub p50_ms: f64,
    /// Its 99th percentile.
    pub p99_ms: f64,
    /// HTTPS requests a certificate.
    pub requests: f64,
    /// CPU a certificate by role, milliseconds; without the generator.
    pub cpu_ms: Vec<(String, f64)>,
    /// CPU of the generator and its http-01 answers.
    pub generator_ms: f64,
    /// A certificate's share of what the disk wrote, if that is known.
    pub disk: Option<Written>,
}

impl Measured {
    /// CPU a certificate, of all roles, milliseconds.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.cpu_ms.iter().map(|(_, milliseconds)| milliseconds).sum()
    }
}

/// The CA under load.
pub struct Target<'a> {
    /// The directory's URL.
    pub directory: &'a str,
    /// The way to it.
    pub server: &'a Server,
    /// The clients' http-01 answers.
    pub responder: &'a Responder,
    /// What its processes have used so far.
    pub costs: &'a (dyn Fn() -> Costs + Sync),
    /// Where its databases are.
    pub disk: Option<&'a Disk>,
}

/// Runs a round.
///
/// # Errors
///
/// When a client does not get a certificate.
pub async fn run(round: Round, target: &Target<'_>) -> anyhow::Result<Measured> {
    let mut ready = Vec::new();
    for number in 0..round.clients {
        let server = match round.every {
            Duration::ZERO => target.server.clone(),
            _ => target.server.from(Ipv4Addr::new(127, 0, 1, u8::try_from(number + 1)?).into()),
        };
        let client = Client::register(&server, target.directory).await?;
        let name = format!("c{}x{}x{number}", round.clients, round.names);
        target.responder.add(&name, client.thumbprint());
        ready.push((name, client));
    }
    let own = || cost_of(std::process::id()).cpu_seconds;
    let (before, own_before) = ((target.costs)(), own());
    let written = target.disk.and_then(Disk::written);
    let started = Instant::now();
    let end = started + Duration::from_secs(round.seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for (name, mut client) in ready {
        tasks.spawn(async move {
            let mut times = Vec::new();
            let before = client.requests();
            while Instant::now() < end {
                let number = times.len();
                let wanted: Vec<_> =
                    (0..round.names).map(|at| format!("{name}-{number}-{at}.bench.test")).collect();
                let began = Instant::now();
                times.push(client.certificate(&wanted).await?);
                tokio::time::sleep_until((began + round.every).into()).await;
            }
            anyhow::Ok((times, client.requests() - before))
        });
    }
    let (mut times, mut requests) = (Vec::new(), 0);
    while let Some(task) = tasks.join_next().await {
        let (of_client, made) = task??;
        times.extend(of_client);
        requests += made;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let count = times.len().max(1) as f64;
    let after = (target.costs)();
    let spent = |role: &str, now: f64| now - before.get(role).map_or(0.0, |cost| cost.cpu_seconds);
    let cpu_ms = after
        .iter()
        .map(|(role, cost)| (role.clone(), spent(role, cost.cpu_seconds) * 1000.0 / count))
        .collect();
    let disk = written.zip(target.disk.and_then(Disk::written)).map(|(before, after)| Written {
        bytes: (after.bytes - before.bytes) / count,
        flushes: (after.flushes - before.flushes) / count,
    });
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 - 1.0) * share).round().max(0.0) as usize;
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    Ok(Measured {
        count,
        per_second: count / elapsed,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        requests: requests as f64 / count,
        cpu_ms,
        generator_ms: (own() - own_before) * 1000.0 / count,
        disk,
    })
}
