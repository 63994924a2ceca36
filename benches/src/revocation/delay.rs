//! From an operator's word to what relying parties see: the time until the status node's CRL has the serial, and until its OCSP
//! answer says revoked. Each certificate's answer was `good`, and kept, before.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pki::ocsp::{self, CertStatus};
use rpc::proto::admin::v1::RevokeCertificateRequest;
use serde_json::{Map, Value, json};

use super::plain::Plain;
use super::{Arguments, Scene, World};
use crate::load::Round;
use crate::rounded;

/// What relying parties waited for, milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Delays {
    /// Until the CRL, ascending.
    pub crl: Vec<f64>,
    /// Until OCSP, ascending.
    pub ocsp: Vec<f64>,
}

/// Waits between two looks: what it adds to a figure is half of it.
const LOOK: Duration = Duration::from_millis(1);
/// A CRL is larger.
const CRL_LOOK: Duration = Duration::from_millis(4);
/// More than this is a failure and no figure.
const PATIENCE: Duration = Duration::from_secs(30);

/// thisUpdate has whole seconds, and rises with each CRL of a shard: revocations that are further apart do not wait for each
/// other's. At no round fraction of a second, so that they come at all times of it.
const APART: Duration = Duration::from_millis(1237);
/// Clients register, before the first revocation.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures; prints a table and answers the figures.
///
/// # Errors
///
/// When something that is measured does not work.
pub async fn run(arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    let world = World::start(&[]).await?;
    let serials = world.certificates(arguments.revocations + arguments.streamed).await?;
    let (apart, streamed) = serials.split_at(arguments.revocations);
    let pause = Duration::from_millis(arguments.pause_ms);
    let (mut figures, mut issued) = (Map::new(), 0.0);
    for (prefix, what, serials, pause) in
        [("revoke", "apart", apart, APART), ("revoke_stream", "in a stream", streamed, pause)]
    {
        let paused = pause * u32::try_from(serials.len())?;
        let seconds = (SETTLE * 2 + paused).as_secs().max(1);
        let round = Round { clients: arguments.clients, names: 1, seconds, every: Duration::ZERO };
        let delays = async {
            tokio::time::sleep(SETTLE).await;
            measure(&world.scene, serials, pause).await
        };
        let (load, delays) = tokio::join!(world.issue(round), delays);
        let (load, delays) = (load?, delays?);
        issued = load.per_second;
        println!(
            "\n{} revocations {what}, {:.1} a second, while {:.0} certificates a second are issued",
            serials.len(),
            1.0 / pause.as_secs_f64(),
            load.per_second
        );
        println!("{:34}{:>10}{:>10}{:>10}", "from the operator's word until", "p50 ms", "p99 ms", "most ms");
        for (name, times) in [("crl", &delays.crl), ("ocsp", &delays.ocsp)] {
            let (p50, p99, most) = (at(times, 0.5), at(times, 0.99), at(times, 1.0));
            let place = format!("the status node's {}", name.to_uppercase());
            println!("{place:34}{p50:>10.1}{p99:>10.1}{most:>10.1}");
            figures.insert(format!("{prefix}_to_{name}_p50_ms"), rounded(p50));
            figures.insert(format!("{prefix}_to_{name}_p99_ms"), rounded(p99));
        }
    }
    figures.insert("revoke_load_certs_per_s".to_owned(), json!(issued.round()));
    Ok(figures)
}

/// The share's place in an ascending list.
#[must_use]
pub fn at(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * share).round().max(0.0) as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Revokes these certificates, `pause` apart, each watched by itself.
///
/// # Errors
///
/// When a revocation is refused, or is not seen within half a minute.
pub async fn measure(scene: &Scene, serials: &[pki::Serial], pause: Duration) -> anyhow::Result<Delays> {
    let mut tasks = tokio::task::JoinSet::new();
    for serial in serials {
        let (scene, serial) = (scene.clone(), *serial);
        tasks.spawn(async move { one(scene, serial).await });
        tokio::time::sleep(pause).await;
    }
    let mut delays = Delays::default();
    while let Some(task) = tasks.join_next().await {
        let (crl, ocsp) = task??;
        delays.crl.push(crl.as_secs_f64() * 1000.0);
        delays.ocsp.push(ocsp.as_secs_f64() * 1000.0);
    }
    delays.crl.sort_by(f64::total_cmp);
    delays.ocsp.sort_by(f64::total_cmp);
    Ok(delays)
}

async fn one(scene: Scene, serial: pki::Serial) -> anyhow::Result<(Duration, Duration)> {
    let request = scene.request(&serial);
    let mut connection = Plain::connect(&scene.authority).await?;
    ensure!(!is_revoked(&connection.ask(&scene.path, Some(request.clone())).await?)?, "revoked already");
    let mut operator = scene.operator.clone();
    let began = Instant::now();
    let asked = RevokeCertificateRequest { serial: serial.to_string(), reason: 4 };
    let revoked = tokio::spawn(async move { operator.revoke_certificate(asked).await });
    let crl = tokio::spawn(until_crl(scene.clone(), serial, began));
    let ocsp = loop {
        if is_revoked(&connection.ask(&scene.path, Some(request.clone())).await?)? {
            break began.elapsed();
        }
        ensure!(began.elapsed() < PATIENCE, "OCSP still says good");
        tokio::time::sleep(LOOK).await;
    };
    revoked.await??;
    Ok((crl.await??, ocsp))
}

async fn until_crl(scene: Scene, serial: pki::Serial, began: Instant) -> anyhow::Result<Duration> {
    let mut connection = Plain::connect(&scene.authority).await?;
    let needle = serial.as_bytes().to_vec();
    loop {
        let crl = connection.ask(&scene.crl, None).await?;
        if crl.windows(needle.len()).any(|window| window == needle) {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < PATIENCE, "the CRL still lacks it");
        tokio::time::sleep(CRL_LOOK).await;
    }
}

fn is_revoked(answer: &[u8]) -> anyhow::Result<bool> {
    match ocsp::read(answer)? {
        ocsp::Answer::Successful(response) => {
            let single = response.singles().first().context("no single response")?;
            Ok(matches!(single.status, CertStatus::Revoked { .. }))
        }
        ocsp::Answer::Error(code) => anyhow::bail!("OCSP error {code}"),
    }
}
