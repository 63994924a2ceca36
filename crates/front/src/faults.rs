//! Failing on purpose, for those who test ACME clients: a file says how, and it is read again when it changes. A front
//! whose configuration names no such file never fails on purpose; one that has it says so in every answer.
//!
//! Nothing here weakens a check: a fault refuses, delays, or says something odd about when to renew.

use std::path::Path;
use std::time::Duration;

use acme::problem::{ErrorType, Problem};
use acme::renewal::CertificateId;
use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use runtime::{Invalid, Version};
use serde::Deserialize;

use crate::config::LimitsSection;
use crate::refusal::Refusal;

/// Which file is in force: the first 64 bits of its SHA-256, hexadecimal.
const MARK: HeaderName = HeaderName::from_static("chancery-faults");

/// The longest delay; a mistyped one must not look like a front that hangs.
const MAXIMUM_DELAY_MILLISECONDS: u64 = 60_000;

/// The file: `version = 1`, and what is to fail. Requests are chosen by chance. Percentages are whole numbers from 0 to 100.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    /// The file's format: 1.
    version: Version,
    /// Of requests with a good nonce, how many are refused with `badNonce` and a fresh nonce (RFC 8555 §6.5). Percent, default 0.
    refuse_nonces_percent: u8,
    /// Of signed requests, how many are answered 500 `serverInternal`, before anything is done. Percent, default 0.
    internal_errors_percent: u8,
    /// Of signed requests, how many are answered 429 `rateLimited` with Retry-After, before anything is done. Percent, default 0.
    rate_limited_percent: u8,
    /// What that Retry-After says. Seconds, default 0.
    retry_after_seconds: u32,
    /// How long every answer is held back. Milliseconds, at most 60000; default 0.
    delay_milliseconds: u64,
    /// How long an order stays in `processing` before the signer is asked for its certificate. Milliseconds, at most a third
    /// of `limits.processing_lease_seconds`; default 0.
    processing_milliseconds: u64,
    /// Certificates whose renewal information is not the signers'. None by default.
    #[serde(rename = "renewal_info")]
    renewal_infos: Vec<RenewalInfo>,
}

/// What is said of one certificate's renewal in place of the signers' answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewalInfo {
    /// Its id (RFC 9773 §4.1).
    certificate: CertificateId,
    /// The answer's body; it need not be JSON.
    body: String,
}

/// A file as it was read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct InForce {
    file: File,
    mark: Option<HeaderValue>,
}

/// What fails on purpose at the moment.
#[derive(Debug)]
pub(crate) struct Faults(ArcSwap<InForce>);

impl Faults {
    /// Nothing, and nothing is said.
    pub(crate) fn none() -> Self {
        Self(ArcSwap::from_pointee(InForce::default()))
    }

    /// What a file says.
    ///
    /// # Errors
    /// When it cannot be read, or asks for what no front may do.
    pub(crate) fn read(path: &Path, limits: &LimitsSection) -> Result<Self, Invalid> {
        let wrong = |reason: String| Invalid::new("faults", format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: File = runtime::config::parse(&text, path).map_err(|error| wrong(error.to_string()))?;
        for (key, percent) in [
            ("refuse_nonces_percent", file.refuse_nonces_percent),
            ("internal_errors_percent", file.internal_errors_percent),
            ("rate_limited_percent", file.rate_limited_percent),
        ] {
            if percent > 100 {
                return Err(wrong(format!("{key}: at most 100")));
            }
        }
        if file.delay_milliseconds > MAXIMUM_DELAY_MILLISECONDS {
            return Err(wrong(format!("delay_milliseconds: at most {MAXIMUM_DELAY_MILLISECONDS}")));
        }
        let longest = limits.processing_lease_seconds.saturating_mul(1_000) / 3;
        if file.processing_milliseconds > longest {
            return Err(wrong(format!("processing_milliseconds: at most {longest}, a third of the lease")));
        }
        let mark = HeaderValue::try_from(mark(&text)).ok();
        Ok(Self(ArcSwap::from_pointee(InForce { file, mark })))
    }

    /// From now on as the other says.
    pub(crate) fn replace(&self, other: Self) {
        self.0.store(other.0.into_inner());
        self.warn();
    }

    /// Says aloud that this front is for tests.
    pub(crate) fn warn(&self) {
        let now = self.0.load();
        if now.file == File::default() {
            tracing::info!("a file of faults is configured; it says none");
        } else {
            tracing::warn!(faults = ?now.file, "this front fails on purpose: it is for tests of clients");
        }
    }

    /// Says in an answer which file is in force.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if let Some(mark) = &self.0.load().mark {
            headers.insert(MARK, mark.clone());
        }
    }

    /// Holds a request back, and refuses some; nothing was done for it yet, its nonce is good still.
    pub(crate) async fn strike(&self, method: &Method) -> Result<(), Refusal> {
        let now = self.0.load_full();
        if now.file.delay_milliseconds > 0 {
            tokio::time::sleep(Duration::from_millis(now.file.delay_milliseconds)).await;
        }
        if *method != Method::POST {
            return Ok(());
        }
        if chance(now.file.internal_errors_percent) {
            return Err(Problem::new(ErrorType::ServerInternal, "an internal error, on purpose").into());
        }
        if chance(now.file.rate_limited_percent) {
            return Err(Refusal::TooFast { seconds: now.file.retry_after_seconds });
        }
        Ok(())
    }

    /// Whether a good nonce is refused.
    pub(crate) fn refuses_nonce(&self) -> bool {
        chance(self.0.load().file.refuse_nonces_percent)
    }

    /// How long an order is left in `processing`.
    pub(crate) fn processing(&self) -> Duration {
        Duration::from_millis(self.0.load().file.processing_milliseconds)
    }

    /// What is said of a certificate's renewal instead of the signers' word.
    pub(crate) fn renewal_info(&self, id: &CertificateId) -> Option<String> {
        let now = self.0.load();
        now.file.renewal_infos.iter().find(|info| info.certificate == *id).map(|info| info.body.clone())
    }
}

/// Whether a front with these limits would take this file of faults.
///
/// # Errors
/// Why it would not.
pub fn check(file: &Path, limits: &LimitsSection) -> Result<(), Invalid> {
    Faults::read(file, limits).map(|_| ())
}

/// The first 64 bits of a text's SHA-256.
fn mark(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().take(8).map(|octet| format!("{octet:02x}")).collect()
}

/// True so many times in a hundred. Without randomness, which the operating system does not run out of, nothing fails.
fn chance(percent: u8) -> bool {
    let mut random = [0; 4];
    percent > 0
        && aws_lc_rs::rand::fill(&mut random).is_ok()
        && u32::from_be_bytes(random) % 100 < u32::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Faults, Invalid> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faults.toml");
        std::fs::write(&path, text).unwrap();
        Faults::read(&path, &LimitsSection::default())
    }

    #[test]
    fn chance_is_never_always_and_about_half() {
        assert!((0..2_000).all(|_| !chance(0)));
        assert!((0..2_000).all(|_| chance(100)));
        // 1000 ± 22: further off than ten times that does not happen.
        let half = (0..2_000).filter(|_| chance(50)).count();
        assert!((780..1_220).contains(&half), "{half} of 2000");
    }

    #[test]
    fn what_no_front_may_do_is_refused_by_its_key() {
        read("version = 1\nprocessing_milliseconds = 5000\ndelay_milliseconds = 60000\n").unwrap();
        for (text, said) in [
            ("refuse_nonces_percent = 101", "refuse_nonces_percent: at most 100"),
            ("internal_errors_percent = 101", "internal_errors_percent: at most 100"),
            ("rate_limited_percent = 200", "rate_limited_percent: at most 100"),
            ("delay_milliseconds = 60001", "delay_milliseconds: at most 60000"),
            ("processing_milliseconds = 5001", "processing_milliseconds: at most 5000"),
            ("refuse_nonce_percent = 1", "unknown field `refuse_nonce_percent`"),
            ("[[renewal_info]]\ncertificate = \"x\"\nbody = \"\"", "not a certificate's id"),
        ] {
            let error = read(&format!("version = 1\n{text}\n")).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("faults.toml"), "{text}: {error}");
        }
    }

    #[test]
    fn every_answer_says_which_file_is_in_force() {
        let mut headers = HeaderMap::new();
        Faults::none().mark(&mut headers);
        assert!(headers.is_empty());
        let faults = read("version = 1\n").unwrap();
        faults.mark(&mut headers);
        let first = headers.get(MARK).unwrap().clone();
        // printf 'version = 1\n' | sha256sum | cut -c 1-16
        assert_eq!(first, "dbab12665d98aef0");
        faults.replace(read("version = 1\nrefuse_nonces_percent = 1\n").unwrap());
        faults.mark(&mut headers);
        assert_ne!(headers.get(MARK).unwrap(), first);
    }
}
