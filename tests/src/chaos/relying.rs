//! Relying parties: what the status node's OCSP says of certificates, between the kills and after them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pki::ocsp::{self, Answer, CertId, CertIdHash, CertStatus, IssuerHashes};
use pki::{Certificate, Serial, Timestamp};

use super::http;
use super::load::Held;
use crate::demo::Facts;

/// One that asks.
#[derive(Clone)]
pub struct Relying {
    url: String,
    issuer: Certificate,
    hashes: std::sync::Arc<IssuerHashes>,
}

/// How long a revocation, or an answer about a certificate that is new, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of those that were revoked before the last audit, so many of the latest are asked for again.
const REMEMBERED: usize = 100;

impl Relying {
    /// Of the CA of a demo.
    ///
    /// # Errors
    ///
    /// When it answers no OCSP.
    pub fn of(facts: &Facts) -> anyhow::Result<Self> {
        let url = facts.ocsp.clone().context("the demo answers no OCSP")?;
        let issuer = pki::chain::from_pem(&std::fs::read_to_string(&facts.issuer)?)?;
        let issuer = issuer.into_iter().next().context("no issuer")?;
        let hashes = IssuerHashes::of(&issuer).into();
        Ok(Self { url, issuer, hashes })
    }

    /// What a verified answer says; none while nobody knows.
    ///
    /// # Errors
    ///
    /// When what comes is no answer, or not a true one.
    pub async fn ask(&self, serial: &[u8]) -> anyhow::Result<Option<CertStatus>> {
        let serial = Serial::from_bytes(serial).map_err(|_| anyhow::anyhow!("no serial"))?;
        let id = CertId::new(CertIdHash::Sha256, &self.hashes, &serial);
        let request = ocsp::encode_request(&[id], None);
        // Whoever does not answer has said nothing.
        let Ok(der) = http::post(&self.url, "application/ocsp-request", &request).await else {
            return Ok(None);
        };
        match ocsp::read(&der).map_err(|error| anyhow::anyhow!("no OCSP answer: {error}"))? {
            Answer::Successful(response) => {
                let now = Timestamp::from_unix(now());
                let sound = response.verify(&self.issuer, now);
                sound.map_err(|error| anyhow::anyhow!("an OCSP answer that does not verify: {error}"))?;
                Ok(Some(response.singles().first().context("no single response")?.status))
            }
            // internalError and tryLater.
            Answer::Error(2 | 3) => Ok(None),
            Answer::Error(code) => anyhow::bail!("OCSP error {code} about a certificate of this CA"),
        }
    }

    /// What OCSP says wrongly, or not at all, of the certificates that clients hold.
    ///
    /// # Errors
    ///
    /// By [`Relying::ask`].
    pub async fn audit(&self, held: &Held) -> anyhow::Result<Vec<String>> {
        let revoked: HashSet<&[u8]> = held.revoked.iter().map(Vec::as_slice).collect();
        let earlier = held.revoked.iter().rev().take(REMEMBERED).map(Vec::as_slice);
        let asked: HashSet<&[u8]> =
            held.fresh.iter().map(|got| got.serial.as_slice()).chain(earlier).collect();
        let end = Instant::now() + PATIENCE;
        let mut faults = Vec::new();
        for serial in asked {
            loop {
                let status = self.ask(serial).await?;
                let is_revoked = revoked.contains(serial);
                let fault = match status {
                    Some(CertStatus::Good) if !is_revoked => break,
                    Some(CertStatus::Revoked { .. }) if is_revoked => break,
                    // A notice that is on its way; a signer that has just been started.
                    None | Some(CertStatus::Good) if Instant::now() < end => None,
                    said => Some(format!("OCSP says {said:?} of {}", hex::encode(serial))),
                };
                if let Some(fault) = fault {
                    faults.push(fault);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(faults)
    }
}

#[expect(clippy::disallowed_methods, reason = "the programs under test live in real time")]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
