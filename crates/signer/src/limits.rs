//! Limits that signers count (RFC 8555 §6.6; DESIGN §5, "Limits by trust"): certificates of a registered domain, of exactly
//! the same names, of an account, of a registration. The journal counts them, in the transaction of an intent; newOrder asks
//! before, so that nobody proves control of names for a certificate that he does not get.

use std::collections::BTreeSet;

use acme::DirectoryName;
use acme::limit::{LimitName, LimitSettings, Limits, Rate, Reached};
use ca_store::{Limit, LimitScope};
use pki::{DnsName, Name, NameSet, Period, Timestamp};

use crate::ca::Ca;
use crate::refusal::{Outcome, Reason, Refusal};
use crate::registrant::Registrant;
use crate::request::ClientRequest;

/// Names that a client is told in one line.
const NAMES_TOLD: usize = 5;

/// A limit in which a certificate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    limit: LimitName,
    rate: Rate,
    /// For the client; empty for its account and registration.
    of: String,
    scope: LimitScope,
}

impl Counted {
    /// Those of a certificate with these names.
    pub(crate) fn of(
        limits: &Limits,
        account: &str,
        registration: Option<&str>,
        names: &NameSet,
    ) -> Vec<Self> {
        let mut all = Vec::new();
        let mut count = |limit: LimitName, of: String, scope: LimitScope| {
            all.extend(limits.of(limit).map(|rate| Self { limit, rate, of, scope }));
        };
        let account = LimitScope::Account(account.to_owned());
        count(LimitName::certificates_per_account(), String::new(), account);
        if let Some(registration) = registration {
            let registration = LimitScope::Registration(registration.to_owned());
            count(LimitName::certificates_per_registration(), String::new(), registration);
        }
        if limits.duplicate_certificates.is_some() {
            let exactly = names.iter().map(ToString::to_string).collect();
            count(LimitName::duplicate_certificates(), told(names), LimitScope::Names(exactly));
        }
        if limits.certificates_per_domain.is_some() {
            for domain in owners(names) {
                count(LimitName::certificates_per_domain(), domain.clone(), LimitScope::Domain(domain));
            }
        }
        all
    }

    /// As the journal counts it at a time: an entry leaves when it is as old as the period is long.
    pub(crate) fn at(&self, directory: &DirectoryName, now: Timestamp) -> Limit {
        let since = now.minus(self.rate.period).plus(Period::from_seconds(1));
        let directory = directory.to_string();
        Limit { directory, scope: self.scope.clone(), since, most: self.rate.most }
    }

    /// It is reached, until this entry leaves.
    fn reached(&self, oldest: Timestamp) -> Reached {
        let Self { limit, rate, of, .. } = self;
        Reached { limit: *limit, rate: *rate, of: of.clone(), free_at: oldest.plus(rate.period) }
    }
}

impl Ca {
    /// The limit that is reached for longest, if any is.
    ///
    /// # Errors
    /// By the store.
    pub(crate) async fn reached_limit(
        &self,
        directory: &DirectoryName,
        counted: &[Counted],
        now: Timestamp,
    ) -> Outcome<Option<Reached>> {
        if counted.is_empty() {
            return Ok(None);
        }
        let limits: Vec<Limit> = counted.iter().map(|counted| counted.at(directory, now)).collect();
        let oldest = self.store.reached_limits(&limits).await?;
        let reached = counted.iter().zip(oldest).filter_map(|(counted, at)| Some(counted.reached(at?)));
        Ok(reached.max_by_key(|reached| reached.free_at))
    }
}

/// The limits that hold for an account: its directory's, and its registration's in their place.
pub(crate) fn limits_of(request: &ClientRequest, registrant: Option<&Registrant>) -> Limits {
    let own = registrant.map(Registrant::limits).unwrap_or_default();
    request.directory().policy.limits_of(&own)
}

/// Whose the names are, where that is counted: a registration without a limit of its own fills others' too.
pub(crate) fn domains(request: &ClientRequest, limits: &Limits, names: &NameSet) -> Vec<String> {
    let of_others = request.directory().policy.limits_of(&LimitSettings::default());
    if [limits, &of_others].iter().any(|limits| limits.certificates_per_domain.is_some()) {
        return owners(names).into_iter().collect();
    }
    Vec::new()
}

/// The refusal: which limit, whose, and when it frees.
pub(crate) fn rate_limited(request: &ClientRequest, reached: &Reached, now: Timestamp) -> Refusal {
    let left = reached.free_at.since(now).seconds().max(1);
    metrics::counter!("chancery_limited_total", "limit" => reached.limit.as_str()).increment(1);
    let mut refusal = Refusal::with_problem(Reason::RateLimited, reached.problem())
        .directory(request.directory().name().as_str());
    refusal.retry_after = Some(Period::from_seconds(left).duration());
    refusal
}

fn told(names: &NameSet) -> String {
    let first: Vec<String> = names.iter().take(NAMES_TOLD).map(ToString::to_string).collect();
    match names.len().saturating_sub(NAMES_TOLD) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Whose the names are: registered domains, and addresses each by itself.
fn owners(names: &NameSet) -> BTreeSet<String> {
    let owner = |name: &Name| match name {
        Name::Ip(address) => Some(address.to_string()),
        Name::Dns(base) | Name::Wildcard(base) => domain_of(base),
    };
    names.iter().filter_map(owner).collect()
}

/// The registered domain. Below a suffix that the list does not have, in private networks, its rule for all others: two labels.
/// A public suffix is nobody's: what others have below it is not its.
fn domain_of(name: &DnsName) -> Option<String> {
    if name.is_public_suffix() || name.is_above_public_suffixes() {
        return None;
    }
    if let Some(domain) = name.registered_domain() {
        return Some(domain.to_string());
    }
    let mut labels: Vec<&str> = name.labels().rev().take(2).collect();
    labels.reverse();
    Some(labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> NameSet {
        NameSet::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    #[test]
    fn names_are_of_registered_domains() {
        let of = |texts: &[&str]| owners(&names(texts)).into_iter().collect::<Vec<_>>();
        assert_eq!(
            of(&["www.example.co.uk", "*.a.example.co.uk", "example.org", "a.example.org"]),
            ["example.co.uk", "example.org"]
        );
        assert_eq!(
            of(&["a.b.corp.internal", "c.corp.internal", "host.internal"]),
            ["corp.internal", "host.internal"]
        );
        assert_eq!(of(&["192.0.2.1", "2001:db8::1", "printer"]), ["192.0.2.1", "2001:db8::1", "printer"]);
        // Nobody is held to what everybody has below a suffix.
        assert_eq!(of(&["co.uk", "*.co.uk", "kawasaki.jp"]), [""; 0]);
        assert_eq!(of(&["www.city.kawasaki.jp"]), ["city.kawasaki.jp"]);
    }

    #[test]
    fn a_certificate_counts_in_each_limit_that_there_is() {
        let names = names(&["a.example.org", "b.example.net"]);
        let of = |limits: &Limits, registration| {
            let counted = Counted::of(limits, "account", registration, &names);
            counted.iter().map(|it| format!("{}: {}", it.limit.as_str(), it.of)).collect::<Vec<_>>()
        };
        assert_eq!(of(&Limits::default(), Some("r")), [""; 0]);
        let public = [
            "duplicate_certificates: a.example.org, b.example.net",
            "certificates_per_domain: example.net",
            "certificates_per_domain: example.org",
        ];
        assert_eq!(of(&Limits::PUBLIC, Some("r")), public);
        let rate = "3 in 1h".parse().ok();
        let of_owners = Limits {
            certificates_per_account: rate,
            certificates_per_registration: rate,
            ..Limits::default()
        };
        assert_eq!(
            of(&of_owners, Some("r")),
            ["certificates_per_account: ", "certificates_per_registration: "]
        );
        assert_eq!(of(&of_owners, None), ["certificates_per_account: "]);
    }

    #[test]
    fn an_entry_leaves_when_it_is_as_old_as_the_period() {
        let limits = Limits { certificates_per_account: "3 in 1h".parse().ok(), ..Limits::default() };
        let counted = Counted::of(&limits, "account", None, &names(&["a.example"])).remove(0);
        let at = Timestamp::from_unix;
        let reached = counted.reached(at(1_000_000));
        assert_eq!(reached.free_at, at(1_003_600));
        let directory = "open".parse().unwrap();
        assert!(counted.at(&directory, at(1_003_599)).since <= at(1_000_000));
        assert!(counted.at(&directory, reached.free_at).since > at(1_000_000));
    }

    #[test]
    fn many_names_are_told_in_one_line() {
        let many: Vec<String> = (1..=7).map(|number| format!("n{number}.example.org")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(told(&names(&many)).ends_with(", n5.example.org and 2 more"));
        assert!(told(&names(&many[..5])).ends_with(", n5.example.org"));
    }
}
