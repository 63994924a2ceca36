//! What an operator allowed to whom: the registration of an account with its permits and grants.

use ca_store::{
    AuthoritySelector, Citation, CitedTable, GrantRow, NameScope, PermitRow, RegistrationRow, Sealable,
    Sealed, State,
};
use ipnet::IpNet;
use pki::{DnsName, Name, Timestamp};

use crate::account::Account;
use crate::ca::Ca;
use crate::operator::RegistrationSettings;
use crate::refusal::{Failure, Outcome, Reason};
use crate::request::ClientRequest;

/// A registration whose rows are good and count now, each with its citation.
#[derive(Debug)]
pub(crate) struct Registrant {
    registration: (RegistrationRow, Citation),
    permits_only: bool,
    permits: Vec<(PermitRow, Citation)>,
    grants: Vec<(GrantRow, Citation)>,
}

impl Registrant {
    /// The row that everything which is decided from this must cite.
    #[must_use]
    pub(crate) const fn citation(&self) -> &Citation {
        &self.registration.1
    }

    /// Whether the registration may ask for the name: by a permit, or because it has none at all.
    ///
    /// # Errors
    /// When no permit covers it.
    pub(crate) fn permit(&self, name: &Name) -> Result<Option<&Citation>, NotPermitted> {
        if self.permits.is_empty() && !self.permits_only {
            return Ok(None);
        }
        let covers = |(row, _): &&(PermitRow, Citation)| covers(row.scope, &row.name, name);
        self.permits.iter().find(covers).map(|(_, citation)| Some(citation)).ok_or(NotPermitted)
    }

    /// The grant that replaces the challenge for the name.
    #[must_use]
    pub(crate) fn grant(&self, name: &Name) -> Option<(&str, &Citation)> {
        let covers = |(row, _): &&(GrantRow, Citation)| covers(row.scope, &row.name, name);
        self.grants.iter().find(covers).map(|(row, citation)| (row.id.as_str(), citation))
    }
}

/// No permit covers the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the registration may not ask for this name")]
pub(crate) struct NotPermitted;

/// Whether a permit or grant for `pattern` is about `name`. A pattern that cannot be read covers nothing.
#[must_use]
pub fn covers(scope: NameScope, pattern: &str, name: &Name) -> bool {
    match (scope, name) {
        (NameScope::Exact, Name::Dns(name)) => DnsName::parse(pattern).is_ok_and(|pattern| pattern == *name),
        (NameScope::Exact, Name::Ip(_)) => Name::parse_ip(pattern).is_ok_and(|pattern| pattern == *name),
        (NameScope::Wildcard, Name::Wildcard(base)) => {
            DnsName::parse(pattern).is_ok_and(|pattern| pattern == *base)
        }
        (NameScope::Subtree, Name::Dns(base) | Name::Wildcard(base)) => {
            DnsName::parse(pattern).is_ok_and(|pattern| base.is_within(&pattern))
        }
        (NameScope::IpRange, Name::Ip(address)) => {
            pattern.parse::<IpNet>().is_ok_and(|range| range.contains(address))
        }
        (NameScope::Exact, Name::Wildcard(_))
        | (NameScope::Wildcard, Name::Dns(_) | Name::Ip(_))
        | (NameScope::Subtree, Name::Ip(_))
        | (NameScope::IpRange, Name::Dns(_) | Name::Wildcard(_)) => false,
    }
}

impl Ca {
    /// The registration of an account; `None` for an account of an open directory that came without one.
    ///
    /// # Errors
    /// A refusal when the registration is disabled, or the directory demands one.
    pub(crate) async fn registrant(
        &self,
        request: &ClientRequest,
        account: &Account,
        now: Timestamp,
    ) -> Outcome<Option<Registrant>> {
        let Some(id) = &account.row.registration else {
            if request.directory().policy.external_account_required {
                let detail = "this directory demands an external account binding, and the account has none";
                return Err(request.refuse(Reason::EabRequired, detail).into());
            }
            return Ok(None);
        };
        let selector = AuthoritySelector::Registration(id.clone());
        let Some(authority) = self.store.authority(&selector).await? else {
            let detail = format!("registration {id} of an account is missing");
            return Err(Failure::Unreadable { table: "registrations", detail });
        };
        let registration = self.cited(authority.registration, CitedTable::Registration, |row| &row.id)?;
        if registration.0.state != State::Active || registration.0.directory != account.row.directory {
            return Err(request.refuse(Reason::RegistrationInactive, "the registration is disabled").into());
        }
        let mut permits = Vec::new();
        for permit in authority.permits {
            let (row, citation) = self.cited(permit, CitedTable::Permit, |row| &row.id)?;
            if row.state == State::Active && row.registration == *id {
                permits.push((row, citation));
            }
        }
        let mut grants = Vec::new();
        for grant in authority.grants {
            let (row, citation) = self.cited(grant, CitedTable::Grant, |row| &row.id)?;
            let in_time = row.expires_at.is_none_or(|until| now < until);
            if row.state == State::Active && row.registration == *id && in_time {
                grants.push((row, citation));
            }
        }
        // In public trust no grant replaces a validation.
        if request.directory().policy.public_trust {
            grants.clear();
        }
        let permits_only = RegistrationSettings::of(&registration.0).permits_only;
        Ok(Some(Registrant { registration, permits_only, permits, grants }))
    }

    fn cited<T: Sealable>(
        &self,
        sealed: Sealed<T>,
        table: CitedTable,
        key: impl Fn(&T) -> &String,
    ) -> Outcome<(T, Citation)> {
        let mac = sealed.mac().mac;
        let row = self.secrets.rows.open(sealed)?;
        let citation = Citation { table, key: key(&row).clone(), mac };
        Ok((row, citation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn each_scope_covers_what_it_says_and_nothing_else() {
        let names =
            ["example.org", "a.example.org", "*.example.org", "*.a.example.org", "xexample.org", "192.0.2.7"];
        let expected = [
            (NameScope::Exact, "example.org", vec!["example.org"]),
            (NameScope::Exact, "192.0.2.7", vec!["192.0.2.7"]),
            (NameScope::Wildcard, "example.org", vec!["*.example.org"]),
            (
                NameScope::Subtree,
                "example.org",
                vec!["example.org", "a.example.org", "*.example.org", "*.a.example.org"],
            ),
            (NameScope::IpRange, "192.0.2.0/24", vec!["192.0.2.7"]),
            (NameScope::IpRange, "198.51.100.0/24", vec![]),
            (NameScope::Exact, "*.example.org", vec![]),
            (NameScope::Subtree, "", vec![]),
            (NameScope::IpRange, "example.org", vec![]),
        ];
        for (scope, pattern, covered) in expected {
            let found: Vec<_> =
                names.into_iter().filter(|text| covers(scope, pattern, &name(text))).collect();
            assert_eq!(found, covered, "{scope} {pattern:?}");
        }
    }
}
