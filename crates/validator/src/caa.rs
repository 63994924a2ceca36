//! CAA (RFC 8659, RFC 8657, BR 3.2.2.8): whether the owner of a name lets this CA issue for it.
//!
//! The climb begins at the name itself and ends at its top-level domain; the first record set decides. Aliases are the
//! resolver's to follow. What cannot be looked up is no permission: there is no exception here for name servers that fail.

mod record;

use std::time::Duration;

use acme::AccountUrl;
use acme::challenge::Method;
use acme::receipt::Caa as Said;
use pki::{DnsName, Name};
use runtime::SharedClock;

pub use self::record::CaaRecord;
use self::record::{Applicant, Verdict, judge};
use crate::failure::{Ending, Failure, FailureKind, LocalFault};
use crate::resolver::Resolver;

/// The look-up, ready to run.
pub struct Caa {
    resolver: Resolver,
    clock: SharedClock,
    total_timeout: Duration,
}

/// Who wants to issue, and what for.
#[derive(Debug, Clone, Copy)]
pub struct CaaQuestion<'a> {
    /// The name, a wildcard perhaps.
    pub name: &'a Name,
    /// By which names records refer to this CA.
    pub identities: &'a [DnsName],
    /// For which account (RFC 8657 §3).
    pub account_url: &'a AccountUrl,
    /// After which validation (RFC 8657 §4).
    pub method: Method,
}

impl Caa {
    /// A look-up that asks this resolver, and takes so long at most for a whole climb.
    #[must_use]
    pub fn new(resolver: Resolver, clock: SharedClock, total_timeout: Duration) -> Self {
        Self { resolver, clock, total_timeout }
    }

    /// What CAA says; none for a name that has none, such as an address. The failure beside it is why it does not permit.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn ask(&self, question: &CaaQuestion<'_>) -> Result<Option<(Said, Option<Failure>)>, Ending> {
        let Some(base) = question.name.base().filter(|_| !question.identities.is_empty()) else {
            return Ok(None);
        };
        let checked = self.clock.now().into();
        let found = match tokio::time::timeout(self.total_timeout, self.climb(base)).await {
            Ok(found) => found?,
            Err(_) if !self.resolver.answers().await => return Err(LocalFault::Resolver.into()),
            Err(_) => {
                let detail = format!("looking up CAA of {base}: no answer in time");
                return Err(Failure::new(FailureKind::Dns, detail).into());
            }
        };
        let (found_at, records, ttl_seconds) = match found {
            Some((place, set)) => (Some(place), set.records, set.ttl_seconds),
            // How long an absence lasts is not told alike by all resolvers: no longer than the rules let anything last.
            None => (None, Vec::new(), 0),
        };
        let CaaQuestion { identities, account_url, method, .. } = *question;
        let applicant = Applicant { identities, account_url, method, wildcard: question.name.is_wildcard() };
        let failure = match judge(&records, &applicant) {
            Verdict::Permitted => None,
            Verdict::Forbidden(why) => {
                let place = found_at.as_ref().map_or(base.as_str(), DnsName::as_str);
                let detail =
                    format!("CAA records at {place} forbid the issuance for {}: {why}", question.name);
                Some(Failure::new(FailureKind::Caa, detail))
            }
        };
        let said = Said {
            permitted: failure.is_none(),
            identities: identities.to_vec(),
            found_at: found_at.map(|place| place.to_string()),
            ttl_seconds,
            checked,
        };
        Ok(Some((said, failure)))
    }

    /// RFC 8659 §3.
    async fn climb(&self, base: &DnsName) -> Result<Option<(DnsName, CaaSet)>, Ending> {
        let mut next = Some(base.clone());
        while let Some(place) = next {
            if let Some(set) = self.resolver.caa(place.as_str()).await? {
                return Ok(Some((place, set)));
            }
            next = place.parent();
        }
        Ok(None)
    }
}

/// The CAA records of one name: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaSet {
    /// The records.
    pub records: Vec<CaaRecord>,
    /// The shortest of their TTLs, and of those of the aliases that led to them.
    pub ttl_seconds: u32,
}
