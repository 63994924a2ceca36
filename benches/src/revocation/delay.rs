//! From an operator's word to what relying parties see: the time until the status node's CRL has the serial, and until its OCSP
//! answer says revoked. Each certificate's answer was `good`, and kept, before.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pki::ocsp::{self, CertStatus};
use rpc::proto::admin::v1::RevokeCertificateRequest;

use super::Scene;
use super::plain::Plain;

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
