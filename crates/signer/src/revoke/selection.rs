//! Which certificates an operator means, and the way through them a page at a time.
//!
//! One condition is answered from an index of the journal; all of them are then compared with what the rows themselves say,
//! whose MACs vouch for them. A page costs the same wherever it is, so that a run is linear in what it looks at.

use std::collections::BTreeSet;

use ca_store::{
    CertificateFilter, CertificateQuery, Cursor, Digest, JournalKey, JournalKind, JournalRow, TimeRange,
};
use pki::{Certificate, DnsName, Name, NameSet, Reason as Because, Serial, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Found, Opened, shares_keys};
use crate::ca::Ca;
use crate::issue::issued;
use crate::refusal::{Outcome, Reason, Refusal};

/// The most serials and certificates that one request names.
const MOST_SERIALS: usize = 1000;

/// Which certificates: every condition that is given holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    /// With one of these serials, or one of `certificates`.
    pub(crate) serials: Vec<Serial>,
    /// These very certificates.
    pub(crate) certificates: Vec<Certificate>,
    /// With this key: SHA-256 of its SubjectPublicKeyInfo.
    pub(crate) key: Option<Digest>,
    /// Of this account.
    pub(crate) account: Option<String>,
    /// With this very name.
    pub(crate) name: Option<Name>,
    /// With a name that is this domain or below it.
    pub(crate) under: Option<DnsName>,
    /// Of this profile.
    pub(crate) profile: Option<String>,
    /// Of this issuer.
    pub(crate) issuer: Option<String>,
    /// Intended in this time.
    pub(crate) issued: Option<TimeRange>,
}

impl Selector {
    /// # Errors
    /// A refusal when it selects everything, or names too many.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let refuse = |detail: &str| Refusal::new(Reason::OperatorRequest, detail);
        if self.serials.len() + self.certificates.len() > MOST_SERIALS {
            return Err(refuse("at most 1000 serials and certificates in one request"));
        }
        let narrowed = self.key.is_some()
            || self.account.is_some()
            || self.name.is_some()
            || self.under.is_some()
            || self.profile.is_some()
            || self.issuer.is_some()
            || self.issued.is_some();
        if !narrowed && !self.names_certificates() {
            return Err(refuse("give at least one condition: this would be every certificate there is"));
        }
        Ok(())
    }

    fn names_certificates(&self) -> bool {
        !(self.serials.is_empty() && self.certificates.is_empty())
    }

    /// For the audit trail. Serials are counted: each has a row of its own.
    pub(super) fn to_json(&self) -> Value {
        let named = self.serials.len() + self.certificates.len();
        let members = [
            ("serials", (named > 0).then(|| json!(named))),
            ("key_sha256", self.key.map(|key| hex::encode(key).into())),
            ("account", self.account.as_ref().map(|it| json!(it))),
            ("name", self.name.as_ref().map(|it| json!(it))),
            ("under", self.under.as_ref().map(|it| json!(it.as_str()))),
            ("profile", self.profile.as_ref().map(|it| json!(it))),
            ("issuer", self.issuer.as_ref().map(|it| json!(it))),
            ("issued_after", self.issued.map(|it| json!(it.from.unix()))),
            (
                "issued_before",
                self.issued.filter(|it| it.before != Timestamp::MAX).map(|it| json!(it.before.unix())),
            ),
        ];
        members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// The condition that leaves the fewest, answered from its index.
    fn query(&self, limit: u32) -> CertificateQuery {
        let filter = if let Some(key) = self.key {
            CertificateFilter::Key(key)
        } else if let Some(name) = &self.name {
            CertificateFilter::Name(name.to_string())
        } else if let Some(domain) = &self.under {
            CertificateFilter::Domain(domain.to_string())
        } else if let Some(account) = &self.account {
            CertificateFilter::Account(account.clone())
        } else if self.profile.is_none() && self.issued.is_none() {
            self.issuer.clone().map_or(CertificateFilter::All, CertificateFilter::Issuer)
        } else {
            CertificateFilter::All
        };
        let mut query = CertificateQuery::first(filter, limit);
        // Only where an index has it too: a page looks at so many rows and no more.
        match query.filter {
            CertificateFilter::All => {
                query.profile.clone_from(&self.profile);
                query.created = self.issued;
            }
            CertificateFilter::Account(_) => query.created = self.issued,
            _ => {}
        }
        query
    }

    fn matches(&self, row: &JournalRow) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        self.key.is_none_or(|key| row.spki_sha256 == key)
            && is(&self.account, row.account.as_deref())
            && is(&self.profile, Some(&row.profile))
            && is(&self.issuer, Some(&row.issuer))
            && self.issued.is_none_or(|time| time.from <= row.created_at && row.created_at < time.before)
            && self.matches_names(row)
    }

    fn matches_names(&self, row: &JournalRow) -> bool {
        if self.name.is_none() && self.under.is_none() {
            return true;
        }
        let Some(names) = names_of(row) else { return false };
        let below = |domain: &DnsName| {
            names.iter().any(|name| name.base().is_some_and(|base| base.is_within(domain)))
        };
        self.name.as_ref().is_none_or(|name| names.contains(name)) && self.under.as_ref().is_none_or(below)
    }
}

/// The names of a certificate, or of what would be one.
pub(crate) fn names_of(row: &JournalRow) -> Option<NameSet> {
    let tbs = pki::Tbs::from_der(&row.tbs).ok()?;
    let der = pki::assemble(&tbs, row.signature.as_deref().unwrap_or(&[0]));
    Certificate::from_der(&der).ok()?.names().cloned()
}

/// Where a run is: a page of what is selected, or, with `key`, how far it has come with the others that share the page's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The store's cursor; of named certificates, how many came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The store's cursor in the key's certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl Position {
    /// # Errors
    /// A refusal when no page before said so.
    pub(super) fn read(token: &str) -> Result<Self, Refusal> {
        if token.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(token)
            .map_err(|_| Refusal::new(Reason::OperatorRequest, "the page token is none of this signer's"))
    }

    pub(super) fn to_token(&self) -> String {
        json!(self).to_string()
    }

    /// Whether a page of what is selected begins here.
    pub(super) const fn is_page(&self) -> bool {
        self.key.is_none()
    }
}

/// A page of what is selected.
#[derive(Default)]
pub(super) struct Primary {
    pub(super) opened: Opened,
    pub(super) unknown: Vec<Serial>,
    next: Option<String>,
}

impl Primary {
    /// Its keys, each once, and the one that is asked for.
    pub(super) fn keys(&self, selector: &Selector) -> Vec<Digest> {
        let mut seen = BTreeSet::new();
        let found = self.opened.found.iter().map(|found| found.row.spki_sha256);
        found.chain(selector.key).filter(|key| seen.insert(*key)).collect()
    }

    /// The page after it.
    pub(super) fn next(&self) -> Option<Position> {
        self.next.clone().map(|at| Position { at: Some(at), ..Position::default() })
    }
}

impl Ca {
    /// The page that begins at a position.
    pub(super) async fn primary(&self, selector: &Selector, at: &Position, limit: u32) -> Outcome<Primary> {
        let page = if selector.names_certificates() {
            self.named(selector, at, limit).await?
        } else {
            let mut query = selector.query(limit);
            query.page.after = at.at.clone().map(Cursor);
            let page = self.store.certificates(&query).await?;
            let is_meant =
                |kind| matches!(kind, JournalKind::Final | JournalKind::Precertificate | JournalKind::Server);
            let opened = self.open_each(page.items, is_meant);
            Primary { opened, unknown: Vec::new(), next: page.next.map(|cursor| cursor.0) }
        };
        let Primary { mut opened, unknown, next } = page;
        // A precertificate and its final are one certificate to be revoked.
        let mut seen = BTreeSet::new();
        opened.found.retain(|found| selector.matches(&found.row) && seen.insert(found.row.serial));
        Ok(Primary { opened, unknown, next })
    }

    /// Certificates that are named, from a position on.
    async fn named(&self, selector: &Selector, at: &Position, limit: u32) -> Outcome<Primary> {
        let from: usize = at.at.as_deref().and_then(|at| at.parse().ok()).unwrap_or(0);
        let count = selector.serials.len() + selector.certificates.len();
        let serials = selector.serials.iter().map(|serial| (*serial, None));
        let certificates = selector.certificates.iter().map(|it| (it.serial(), Some(it)));
        let until = from.saturating_add(usize::try_from(limit).unwrap_or(usize::MAX));
        let mut page = Primary { next: (until < count).then(|| until.to_string()), ..Primary::default() };
        for (serial, certificate) in serials.chain(certificates).take(until).skip(from) {
            let mut entries = self.store.journal(&JournalKey::Serial(serial)).await?;
            // Whatever may have been signed can be revoked, whosever it is; nodes are revoked as nodes.
            entries.retain(|entry| entry.row.unverified().kind != JournalKind::Node);
            entries.truncate(1);
            let opened = self.open_each(entries, |_| true);
            let is_it = |found: &Found| {
                certificate.is_none_or(|it| {
                    found.row.signature.is_some()
                        && issued(&found.row).is_ok_and(|issued| issued.certificate == it.der())
                })
            };
            page.opened.tampered.extend(&opened.tampered);
            match opened.found.into_iter().next() {
                Some(found) if is_it(&found) => page.opened.found.push(found),
                None if !opened.tampered.is_empty() => {}
                _ => page.unknown.push(serial),
            }
        }
        Ok(page)
    }

    /// Other certificates with the page's keys, from a position on, and where to go on: fewer than twice `limit` of them.
    pub(super) async fn sharing(
        &self,
        primary: &Primary,
        keys: &[Digest],
        at: &Position,
        limit: u32,
    ) -> Outcome<(Opened, Option<Position>)> {
        let mut seen: BTreeSet<_> = primary.opened.found.iter().map(|found| found.row.serial).collect();
        let enough = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut others = Opened::default();
        // Keys before the position are done.
        let begun = at.key.as_ref().and_then(|begun| keys.iter().position(|key| hex::encode(key) == *begun));
        let mut after = at.after.clone().map(Cursor).filter(|_| begun.is_some());
        let mut keys = keys.iter().skip(begun.unwrap_or(0)).peekable();
        while let Some(key) = keys.peek().copied() {
            if others.found.len() >= enough {
                let (key, after) = (Some(hex::encode(key)), after.map(|cursor| cursor.0));
                return Ok((others, Some(Position { at: at.at.clone(), key, after })));
            }
            let mut query = CertificateQuery::first(CertificateFilter::Key(*key), limit);
            query.page.after = after;
            let page = self.store.certificates(&query).await?;
            let mut opened = self.open_each(page.items, shares_keys);
            opened.found.retain(|found| seen.insert(found.row.serial));
            others.found.append(&mut opened.found);
            others.tampered.append(&mut opened.tampered);
            after = page.next;
            if after.is_none() {
                keys.next();
            }
        }
        Ok((others, None))
    }
}

/// Whether other certificates with the same keys are meant as well.
pub(super) fn reaches_others(reason: Because) -> bool {
    reason == Because::KeyCompromise
}
