//! The journal: everything that was, or may have been, signed (DESIGN §2.1, §3 steps 9 to 11).
//!
//! One row a certificate, written before a key touches its bytes and completed afterwards. The
//! certificate itself is not stored again: it is `pki::assemble(tbs, algorithm, signature)`.

use std::{net::IpAddr, time::Duration};

use pki::{Serial, Timestamp};

use crate::{
    AuditEvent, Cursor, Digest, Page, RevocationRow, Sealed,
    canonical::{sealed_row, word_enum},
};

word_enum! {
    /// What kind of certificate.
    pub enum JournalKind {
        /// A subscriber's certificate.
        Final = "final",
        /// A subscriber's precertificate (RFC 6962): same serial and order as its final.
        Precertificate = "pre",
        /// The HTTPS certificate of one of our own servers.
        Server = "server",
        /// A node's certificate, from the node CA.
        Node = "node",
        /// A certificate of a delegated OCSP responder.
        Responder = "responder",
        /// A CA certificate.
        Authority = "ca",
    }
}

sealed_row! {
    /// A certificate: intended while `signature` is absent, then issued or abandoned. Its MAC is
    /// made anew with each of these steps. Columns that grant nothing (owner, lease) are outside.
    pub struct JournalRow in "journal" by (serial, kind) {
        /// The serial; with the kind the key.
        pub serial: Serial,
        /// The kind.
        pub kind: JournalKind,
        /// The order that it answers: at most one entry of a kind that is not abandoned.
        pub order: Option<String>,
        /// The digest of the newOrder JWS (`protected.payload`): likewise at most one.
        pub new_order: Option<Digest>,
        /// The directory.
        pub directory: Option<String>,
        /// The account.
        pub account: Option<String>,
        /// The issuer's id.
        pub issuer: String,
        /// The profile's name.
        pub profile: String,
        /// The CRL shard, fixed for ever.
        pub shard: u32,
        /// SHA-256 of the subject public key info.
        pub spki_sha256: Digest,
        /// SHA-256 of the CSR: the same order with the same CSR gets the same bytes.
        pub csr_sha256: Option<Digest>,
        /// First second of validity.
        pub not_before: Timestamp,
        /// Last second of validity.
        pub not_after: Timestamp,
        /// The exact bytes to be signed.
        pub tbs: Vec<u8>,
        /// When it was intended.
        pub created_at: Timestamp,
        /// The signature, X.509-encoded; absent until it is recorded.
        pub signature: Option<Vec<u8>>,
        /// When it was recorded.
        pub signed_at: Option<Timestamp>,
        /// When it was given up. It can still be revoked and is still answered by OCSP: it may
        /// have been signed.
        pub abandoned_at: Option<Timestamp>,
        /// The serial of the certificate that it replaces (RFC 9773 §5): at most one entry of a kind
        /// that is not abandoned.
        pub replaces: Option<Serial>,
        /// Whether limits count it: not where it renewed a certificate at its time (RFC 9773 §5).
        pub counted: bool,
    }
}

/// What a certificate rests on. Stored apart, never read on the way to a signature. Each part
/// vouches for itself: the JWSs and receipts are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The newOrder JWS as it came.
    pub new_order: Vec<u8>,
    /// The finalize JWS as it came; the CSR is in it.
    pub finalize: Vec<u8>,
    /// The receipts and grants, a JSON list.
    pub receipts: Vec<u8>,
    /// The lints that ran and what they found, a JSON document.
    pub lints: Vec<u8>,
}

/// A certificate to be intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewIntent {
    /// The row, without signature.
    pub row: Sealed<JournalRow>,
    /// The names of the certificate as text, for the index; they are not stored otherwise.
    pub names: Vec<String>,
    /// Whose the names are, as limits count them ([`LimitScope::Domain`]): registered domains. Empty where no limit does.
    pub domains: Vec<String>,
    /// What it rests on.
    pub evidence: Option<Evidence>,
    /// Rows that the decision rests on; each must still be exactly as it was read.
    pub cites: Vec<Citation>,
    /// Authorizations that the decision rests on: none may have been deactivated.
    pub authorizations: Vec<String>,
    /// SHA-256 of the JWK that the certificate's key would be as an account's (RFC 7638 §3), if it can be one: no account
    /// of any directory may have, or have had, it (RFC 8555 §11.1). That the row's key is not blocked is always checked.
    pub account_key: Option<Digest>,
    /// MACs of entries of the order that are abandoned or of another kind, and that the decision has verified: any other
    /// stands in the way, or who administers the database could free an order by a word.
    pub past: Vec<[u8; 32]>,
    /// Limits, counted in the journal inside the transaction.
    pub limits: Vec<Limit>,
    /// For how long, by the database's clock, the intent is this incarnation's.
    pub lease: Duration,
    /// What to report if it is committed.
    pub audit: Vec<AuditEvent>,
}

/// A sealed row that a decision rests on, named by the MAC that it had when it was read. Any change
/// of the row changes its MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// The row's table.
    pub table: CitedTable,
    /// The row's key.
    pub key: String,
    /// The row's MAC as read.
    pub mac: [u8; 32],
}

word_enum! {
    /// Tables that can be cited.
    pub enum CitedTable {
        /// By account id.
        Account = "accounts",
        /// By registration id.
        Registration = "registrations",
        /// By kid.
        EabKey = "eab_keys",
        /// By permit id.
        Permit = "permits",
        /// By grant id.
        Grant = "grants",
        /// By directory name.
        Directory = "directories",
        /// By profile name.
        Profile = "profiles",
        /// By issuer id.
        Issuer = "issuers",
    }
}

/// At most `most` entries since `since` in the scope, the one that asks included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose entries are counted: a directory's.
    pub directory: String,
    /// What is counted: entries of kind [`JournalKind::Final`] that are [`counted`](JournalRow::counted) and were not
    /// abandoned.
    pub scope: LimitScope,
    /// From when on.
    pub since: Timestamp,
    /// How many. Not 0.
    pub most: u32,
}

/// What a limit counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// Entries of an account.
    Account(String),
    /// Entries of all accounts of a registration.
    Registration(String),
    /// Entries of which this is one of the [`domains`](NewIntent::domains).
    Domain(String),
    /// Entries with exactly these names.
    Names(Vec<String>),
}

/// What became of an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntentOutcome {
    /// It is durable: its bytes may be signed. Also when this very intent was committed before by
    /// this incarnation, its answer lost, and nobody else has touched it since.
    Committed,
    /// The order has an entry of this kind already: answer with that.
    OrderTaken(Box<JournalEntry>),
    /// The newOrder JWS has an entry of this kind already, of another order.
    NewOrderTaken(Box<JournalEntry>),
    /// The serial has an entry already that does not belong to this order: make another serial.
    SerialTaken(Box<JournalEntry>),
    /// The certificate that it would replace has a successor already.
    AlreadyReplaced,
    /// The order has entries, abandoned or of another kind, that [`NewIntent::past`] does not name: look at them.
    OrderHasPast,
    /// The row's key is blocked.
    KeyBlocked,
    /// The row's key is, or was, an account's.
    KeyOfAccount,
    /// A cited row changed or vanished, by its place in the list: decide anew.
    AuthorityChanged(usize),
    /// An authorization was deactivated, by its place in the list.
    AuthorizationDeactivated(usize),
    /// A limit is reached, by its place in the list.
    LimitReached(usize),
}

/// A signature to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRow {
    /// The row, its signature and `signed_at` set.
    pub row: Sealed<JournalRow>,
    /// What to report if it is recorded.
    pub audit: Vec<AuditEvent>,
}

/// What became of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It is the certificate's.
    Recorded,
    /// The entry was signed before (by another, or by this record whose answer was lost) or
    /// abandoned: the signature is to be forgotten, the entry says what to answer.
    Lost(Box<JournalEntry>),
    /// There is no such entry.
    Unknown,
}

/// An intent to be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandonment {
    /// The row, its `abandoned_at` set.
    pub row: Sealed<JournalRow>,
    /// What to report if it is abandoned.
    pub audit: Vec<AuditEvent>,
}

/// What became of an abandonment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbandonOutcome {
    /// No signature will ever be recorded for it; its order is free again.
    Abandoned,
    /// It was signed, or abandoned, before.
    Lost(Box<JournalEntry>),
    /// There is no such entry.
    Unknown,
}

/// An entry with what else is known about its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The row.
    pub row: Sealed<JournalRow>,
    /// Who works on it; absent once it is signed or abandoned.
    pub lease: Option<Lease>,
    /// Its revocation.
    pub revocation: Option<RevocationRow>,
}

/// Who works on an intent, and until when others keep off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The number of the incarnation ([`Info::incarnation`](crate::Info)).
    pub owner: u64,
    /// Milliseconds since the epoch, by the database's clock.
    pub until_ms: i64,
}

/// Which entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalKey {
    /// Those with a serial: one, or a precertificate and its final.
    Serial(Serial),
    /// Those of an order, abandoned ones last.
    Order(String),
    /// Those of a newOrder JWS, abandoned ones last.
    NewOrder(Digest),
    /// Those that replace a certificate and are not abandoned.
    Replacing(Serial),
}

/// Which certificates to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFilter {
    /// All.
    All,
    /// Of an account.
    Account(String),
    /// Of an issuer.
    Issuer(String),
    /// With a key.
    Key(Digest),
    /// With a name.
    Name(String),
    /// With a name at or under a domain.
    Domain(String),
}

/// A name as backends index it: a domain's labels reversed (`org.example.www`), so that what is at
/// or under a domain is `name = d OR name > d || '.' AND name < d || '/'`. Addresses stay as they are.
#[must_use]
pub fn indexed_name(name: &str) -> String {
    if name.parse::<IpAddr>().is_ok() {
        return name.to_owned();
    }
    let mut labels: Vec<&str> = name.split('.').collect();
    labels.reverse();
    labels.join(".")
}

/// From `from` on, before `before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// The first second.
    pub from: Timestamp,
    /// The second after the last.
    pub before: Timestamp,
}

/// A page of certificates, in an order that is the same from page to page. The filter is answered
/// from an index; the rest narrows it. With [`CertificateFilter::Domain`] a certificate that has
/// several names there may come again on a later page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateQuery {
    /// Which.
    pub filter: CertificateFilter,
    /// Intended in this time. With [`CertificateFilter::All`] and [`CertificateFilter::Account`]
    /// answered from an index.
    pub created: Option<TimeRange>,
    /// Whose validity ends in this time. With [`CertificateFilter::All`], if neither time of intent
    /// nor profile is given, and [`CertificateFilter::Issuer`] answered from an index.
    pub expires: Option<TimeRange>,
    /// Of this profile. With [`CertificateFilter::All`] answered from an index.
    pub profile: Option<String>,
    /// Which of them now.
    pub page: Page,
}

impl CertificateQuery {
    /// The first `limit` of a filter.
    #[must_use]
    pub const fn first(filter: CertificateFilter, limit: u32) -> Self {
        Self { filter, created: None, expires: None, profile: None, page: Page::first(limit) }
    }

    /// The same query, going on after `cursor`.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.page.after = Some(cursor);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_indexed_by_domain() {
        for (name, indexed) in [
            ("www.example.org", "org.example.www"),
            ("*.example.org", "org.example.*"),
            ("org", "org"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(indexed_name(name), indexed);
        }
    }
}
