//! Authorizations that count for another request than their own: reuse (RFC 8555 §7.1.4), pre-authorization (§7.4.1), domains
//! above names (RFC 9444). One question to the database for all names of a request.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use acme::authorization::{Authorization, Basis, State};
use acme::challenge;
use pki::{DnsName, Name, Period, Timestamp};
use rpc::Account;

use crate::directory::Directory;
use crate::refusal::Refusal;
use crate::service::Front;
use crate::stored::{self, Versioned};
use crate::validation::peek;

/// An authorization is used again only if it lasts so much longer: an order that ends while its client makes a CSR helps
/// nobody.
const MARGIN: Period = Period::from_seconds(600);
/// How much older receipts can be than the record of their outcome: a try, and its way into the database.
const RECEIPT_AGE: Period = Period::from_seconds(60);
/// Domains above a name that are looked for, the nearest first: a name has up to 126.
const DOMAINS_ABOVE: usize = 8;

/// The valid authorizations of an account that a request may rest on.
#[derive(Debug, Default)]
pub(crate) struct Held {
    by_name: HashMap<Name, Authorization>,
    /// Whether those of domains above may count.
    subdomains: bool,
}

/// One that a new order uses again.
#[derive(Debug, Clone)]
pub(crate) struct Reused<'a> {
    pub(crate) authorization: &'a Authorization,
    /// The domain that it is for, where that is one above the name.
    pub(crate) ancestor: Option<DnsName>,
    /// Until when the signer accepts it for another order than its own.
    pub(crate) end: Timestamp,
}

impl Held {
    /// All that the account has for these names.
    pub(crate) async fn find(
        front: &Front,
        directory: &Directory,
        account: &Account,
        names: impl IntoIterator<Item = &Name>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let mut wanted = BTreeSet::new();
        for name in names {
            if let (true, Name::Dns(below)) = (directory.subdomains(), name) {
                wanted.extend(above(below).map(Name::Dns));
            }
            wanted.insert(name.clone());
        }
        let identifiers: Vec<_> = wanted.iter().map(stored::identifier).collect();
        let rows = front.store.reusable_authorizations(&account.id.to_string(), &identifiers, now).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let Versioned { object, .. } = stored::authorization(row)?;
            if object.facts.directory == directory.name {
                found.insert(object.facts.name.clone(), object);
            }
        }
        Ok(Self { by_name: found, subdomains: directory.subdomains() })
    }

    /// The authorization of the name itself.
    pub(crate) fn exact(&self, name: &Name) -> Option<&Authorization> {
        self.by_name.get(name)
    }

    /// Those of domains above that count for the name, the nearest first: made for all that is below, or of the domain that
    /// the client named.
    pub(crate) fn ancestors<'a>(
        &'a self,
        name: &'a Name,
        named: Option<&'a DnsName>,
    ) -> impl Iterator<Item = (DnsName, &'a Authorization)> {
        let below = match name {
            Name::Dns(below) if self.subdomains => Some(below),
            _ => None,
        };
        let candidates = below.into_iter().flat_map(above);
        candidates.filter_map(move |domain| {
            let authorization = self.by_name.get(&Name::Dns(domain.clone()))?;
            let counts = authorization.facts.id.scope().subdomains || named == Some(&domain);
            let shown = method(authorization).is_some_and(challenge::Method::covers_subdomains);
            (counts && shown).then_some((domain, authorization))
        })
    }

    /// What a new order may use again for the name.
    pub(crate) fn reuse<'a>(
        &'a self,
        directory: &Directory,
        name: &'a Name,
        named: &'a BTreeMap<Name, DnsName>,
        now: Timestamp,
    ) -> Option<Reused<'a>> {
        let lasting = |authorization, ancestor| {
            let end = end_of_reuse(authorization, directory).filter(|end| *end >= now.plus(MARGIN))?;
            Some(Reused { authorization, ancestor, end })
        };
        let exact = self.exact(name).and_then(|authorization| lasting(authorization, None));
        exact.or_else(|| {
            let mut above = self.ancestors(name, named.get(name));
            above.find_map(|(domain, authorization)| lasting(authorization, Some(domain)))
        })
    }
}

/// The domains above, the nearest first. (Nobody in particular has one of a single label.)
fn above(name: &DnsName) -> impl Iterator<Item = DnsName> {
    let parents = std::iter::successors(name.parent(), DnsName::parent);
    parents.filter(|domain| domain.as_str().contains('.')).take(DOMAINS_ABOVE)
}

fn method(authorization: &Authorization) -> Option<challenge::Method> {
    match &authorization.state {
        State::Valid(valid) => match &valid.basis {
            Basis::Challenge { challenge, .. } => Some(challenge.method),
            Basis::Grant { .. } => None,
        },
        _ => None,
    }
}

/// Only what a challenge has shown, by a method that still counts, and only within the directory's time. Grants are asked
/// for anew each time: an operator may have taken one back.
fn end_of_reuse(authorization: &Authorization, directory: &Directory) -> Option<Timestamp> {
    let State::Valid(valid) = &authorization.state else { return None };
    let Basis::Challenge { challenge, .. } = &valid.basis else { return None };
    let challenge::State::Valid { validated, .. } = &challenge.state else { return None };
    if !directory.methods.contains(&challenge.method) {
        return None;
    }
    // The receipts, from which the signer counts, are a little older than the outcome's record.
    let finished = validated.minus(RECEIPT_AGE);
    if directory.validations_since.is_some_and(|since| finished < since) {
        return None;
    }
    let receipts: Vec<_> = valid.receipts().iter().filter_map(|compact| peek(compact)).collect();
    // The directory may ask for more perspectives by now.
    if !directory.quorum.is_met(&receipts) {
        return None;
    }
    // A persistent record is relied upon no longer than its TTL.
    let reuse = receipts
        .iter()
        .filter_map(|receipt| receipt.persisted)
        .map(|record| Period::from_seconds(record.ttl_seconds.into()))
        .fold(directory.reuse_of(&authorization.facts.id), Period::min);
    Some(finished.plus(reuse).min(valid.expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_above_are_whole_labels_and_not_too_many() {
        let name = |text: &str| DnsName::parse(text).unwrap();
        let of = |text: &str| above(&name(text)).map(|domain| domain.to_string()).collect::<Vec<_>>();
        assert_eq!(of("a.b.example.org"), ["b.example.org", "example.org"]);
        assert_eq!(of("example.org"), [""; 0]);
        assert_eq!(of("localhost"), [""; 0]);
        assert_eq!(of(&format!("{}example.org", "a.".repeat(40))).len(), DOMAINS_ABOVE);
    }
}
