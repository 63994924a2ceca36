//! dns-01 (RFC 8555 §8.4, BR 3.2.2.4.7): looks for a TXT record with the digest of the key authorization.
//!
//! Aliases are followed by the resolver. Of several values any one may be the right one: a zone may hold those of other
//! orders and of the wildcard beside it.

use std::time::Duration;

use acme::base64url;
use aws_lc_rs::digest::{SHA256, digest};
use pki::DnsName;

use crate::failure::{Ending, Failure, FailureKind, LocalFault, excerpt};
use crate::resolver::{Resolver, TextRecords};

/// What the DNS methods may do; see the fields of [`crate::Config`] for the defaults.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// TXT records looked at. More of them are no answer.
    pub records: usize,
    /// For the whole attempt.
    pub total_timeout: Duration,
}

/// The method, ready to run.
pub struct Dns01 {
    settings: DnsSettings,
    resolver: Resolver,
}

impl Dns01 {
    /// A method that asks this resolver.
    #[must_use]
    pub fn new(settings: DnsSettings, resolver: Resolver) -> Self {
        Self { settings, resolver }
    }

    /// Looks below `name`, which is a wildcard's base.
    ///
    /// # Errors
    /// What was found instead of the digest.
    pub async fn observe(&self, name: &DnsName, key_authorization: &str) -> Result<(), Ending> {
        let place = format!("{LABEL}.{name}");
        let expected = base64url::encode(digest(&SHA256, key_authorization.as_bytes()));
        let found = self.records(&place).await?;
        judge(&place, &expected, &found).map_err(Ending::from)
    }

    async fn records(&self, place: &str) -> Result<TextRecords, Ending> {
        let limit = self.settings.records;
        match tokio::time::timeout(self.settings.total_timeout, self.resolver.texts(place)).await {
            Ok(Ok(found)) if found.values.len() > limit => {
                let detail = format!("{place} has {} TXT records, more than {limit}", found.values.len());
                Err(Failure::new(FailureKind::IncorrectResponse, detail).into())
            }
            Ok(outcome) => outcome,
            Err(_) if !self.resolver.answers().await => Err(LocalFault::Resolver.into()),
            Err(_) => {
                let detail = format!("looking up TXT of {place}: no answer in time");
                Err(Failure::new(FailureKind::Dns, detail).into())
            }
        }
    }
}

const LABEL: &str = "_acme-challenge";
/// Values that a problem repeats.
const SHOWN: usize = 3;

/// RFC 8555 §8.4: octet by octet.
fn judge(place: &str, expected: &str, found: &TextRecords) -> Result<(), Failure> {
    if found.values.iter().any(|value| value == expected.as_bytes()) {
        return Ok(());
    }
    let shown: Vec<_> = found.values.iter().take(SHOWN).map(|value| excerpt(value)).collect();
    let more = found.values.len().saturating_sub(SHOWN);
    let mut detail = match found.values.len() {
        0 => format!("{place} has no TXT record; {expected:?} is expected"),
        count => {
            format!("none of the {count} TXT records of {place} is {expected:?}, but {}", shown.join(", "))
        }
    };
    if more > 0 {
        detail.push_str(&format!(" and {more} more"));
    }
    Err(Failure::new(FailureKind::Unauthorized, detail))
}
