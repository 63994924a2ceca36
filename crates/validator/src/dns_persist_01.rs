//! dns-persist-01 (draft-ietf-acme-dns-persist-00, BR 3.2.2.4.22): looks for a TXT record that names this CA and the account,
//! for good or until a time. There is no token in it: what it proves, it proves for as long as it stands.

use acme::AccountUrl;
use pki::{DnsName, Name, Timestamp};

use crate::dns_01::TextLookUp;
use crate::failure::{Ending, Failure, FailureKind, excerpt};
use crate::issue_value::{IssueValue, TWICE};

/// Whom a record must name.
#[derive(Debug, Clone, Copy)]
pub struct PersistedQuestion<'a> {
    /// The name, a wildcard perhaps.
    pub name: &'a Name,
    /// The names of this CA, as the challenge lists them.
    pub issuers: &'a [DnsName],
    /// The account.
    pub account_url: &'a AccountUrl,
    /// The time now.
    pub now: Timestamp,
}

/// The method, ready to run.
pub struct DnsPersist01 {
    look_up: TextLookUp,
}

const LABEL: &str = "_validation-persist";

impl DnsPersist01 {
    /// A method that asks this way.
    #[must_use]
    pub fn new(look_up: TextLookUp) -> Self {
        Self { look_up }
    }

    /// Looks, and answers with the record's TTL, seconds.
    ///
    /// # Errors
    /// What was found instead of such a record.
    pub async fn observe(&self, question: &PersistedQuestion<'_>) -> Result<u32, Ending> {
        let Some(base) = question.name.base() else {
            return Err(Failure::new(FailureKind::Dns, "the method is not for addresses").into());
        };
        let place = format!("{LABEL}.{base}");
        let found = self.look_up.texts(&place).await?;
        let mut first = None;
        for value in &found.values {
            match judge(value, question) {
                Ok(()) => return Ok(found.ttl_seconds),
                Err(Some(why)) => first = first.or(Some((value, why))),
                // Of another CA.
                Err(None) => {}
            }
        }
        let detail = match first {
            Some((value, why)) => format!("{place}: {}: {why}", excerpt(value)),
            None => {
                let issuers: Vec<_> = question.issuers.iter().map(DnsName::as_str).collect();
                format!("{place} has no TXT record for {}", issuers.join(" or "))
            }
        };
        Err(Failure::new(FailureKind::Unauthorized, detail).into())
    }
}

/// Why a record does not count; nothing to say about those of others.
fn judge(value: &[u8], question: &PersistedQuestion<'_>) -> Result<(), Option<&'static str>> {
    let value = IssueValue::parse(value).filter(|value| value.names(question.issuers)).ok_or(None)?;
    if value.has_duplicates() {
        return Err(Some(TWICE));
    }
    if value.parameter("accounturi") != Some(question.account_url.as_str()) {
        return Err(Some("accounturi is not this account's"));
    }
    if let Some(until) = value.parameter("persistUntil") {
        let digits = !until.is_empty() && until.bytes().all(|octet| octet.is_ascii_digit());
        let until = digits.then(|| until.parse().ok()).flatten();
        let until: u64 = until.ok_or(Some("persistUntil is not a time"))?;
        if question.now.unix() > until {
            return Err(Some("persistUntil is over"));
        }
    }
    let wildcard = value.parameter("policy").is_some_and(|policy| policy.eq_ignore_ascii_case("wildcard"));
    if question.name.is_wildcard() && !wildcard {
        return Err(Some("policy=wildcard is needed for a wildcard"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "https://ca.example/acme/open/account/1";

    fn fits(value: &str, name: &str) -> Result<(), Option<&'static str>> {
        let issuers = ["authority.example", "ca.example"].map(|issuer| DnsName::parse(issuer).unwrap());
        let (name, account_url) = (name.parse().unwrap(), ACCOUNT.parse().unwrap());
        let now = Timestamp::from_unix(1_780_272_000);
        judge(
            value.as_bytes(),
            &PersistedQuestion { name: &name, issuers: &issuers, account_url: &account_url, now },
        )
    }

    #[test]
    fn g8_a_record_names_this_ca_and_this_account() {
        for good in [
            format!("authority.example; accounturi={ACCOUNT}"),
            format!("CA.example;accounturi={ACCOUNT};unknown=1"),
            format!("ca.example; policy=other; AccountURI={ACCOUNT}; persistUntil=1780272000"),
        ] {
            assert_eq!(fits(&good, "example.org"), Ok(()), "{good}");
        }
        for (bad, ours) in [
            (String::new(), false),
            ("ca.example".to_owned(), true),
            (format!("other.example; accounturi={ACCOUNT}"), false),
            (format!("; accounturi={ACCOUNT}"), false),
            (format!("ca.example accounturi={ACCOUNT}"), false),
            (format!("ca.example; accounturi={ACCOUNT}/"), true),
            (format!("ca.example; accounturi={ACCOUNT}; accounturi={ACCOUNT}"), true),
            (format!("ca.example; accounturi={ACCOUNT}; persistUntil=1780271999"), true),
            (format!("ca.example; accounturi={ACCOUNT}; persistUntil=-1"), true),
            (format!("ca.example; accounturi={ACCOUNT}; persistUntil="), true),
            (format!("ca.example; accounturi={ACCOUNT}; persistUntil=1e12"), true),
            (format!("ca.example; accounturi={ACCOUNT}; persistUntil=99999999999999999999999"), true),
        ] {
            assert_eq!(fits(&bad, "example.org").map_err(|why| why.is_some()), Err(ours), "{bad}");
        }
    }

    #[test]
    fn g8_a_wildcard_needs_its_policy() {
        for (policy, fit) in
            [("", false), ("; policy=wildcard", true), ("; Policy=WildCard", true), ("; policy=x", false)]
        {
            let value = format!("ca.example; accounturi={ACCOUNT}{policy}");
            assert_eq!(fits(&value, "*.example.org").is_ok(), fit, "{policy}");
            assert_eq!(fits(&value, "example.org"), Ok(()));
        }
    }
}
