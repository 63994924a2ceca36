//! ACME accounts and their keys in time (RFC 8555 §7.3).

use pki::Timestamp;

use crate::{
    AuditEvent, AuthorityChange, Digest, Sealed,
    canonical::{sealed_row, word_enum},
};

word_enum! {
    /// RFC 8555 §7.1.2.
    pub enum AccountStatus {
        /// In use.
        Valid = "valid",
        /// Given up by its client.
        Deactivated = "deactivated",
        /// Taken away by an operator.
        Revoked = "revoked",
    }
}

sealed_row! {
    /// An account.
    pub struct AccountRow in "accounts" by (id) {
        /// Hash of directory and first key; the key.
        pub id: String,
        /// The directory.
        pub directory: String,
        /// Its status.
        pub status: AccountStatus,
        /// Contact URLs.
        pub contacts: Vec<String>,
        /// When its client agreed to terms of service, last.
        pub terms_agreed_at: Option<Timestamp>,
        /// To which: their URL.
        pub terms_agreed: Option<String>,
        /// The registration that it belongs to.
        pub registration: Option<String>,
        /// The EAB key that it came with.
        pub eab_kid: Option<String>,
        /// The thumbprint of its key in force: no other of its keys is.
        pub key: Digest,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

sealed_row! {
    /// A key that is, or was, an account's. A thumbprint exists once in a directory, for ever: a
    /// former key never returns, neither to its account nor to another.
    pub struct AccountKeyRow in "account_keys" by (directory, thumbprint) {
        /// The directory; with the thumbprint the key.
        pub directory: String,
        /// RFC 7638 thumbprint.
        pub thumbprint: Digest,
        /// The account's id.
        pub account: String,
        /// The public key as canonical JWK.
        pub jwk: String,
        /// From when it was the account's key.
        pub valid_from: Timestamp,
        /// Until when; absent while it is.
        pub valid_until: Option<Timestamp>,
    }
}

/// An account with all its keys, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account.
    pub account: Sealed<AccountRow>,
    /// Its keys in time.
    pub keys: Vec<Sealed<AccountKeyRow>>,
}

/// Which account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountSelector {
    /// By id.
    Id(String),
    /// By a key that is or was its.
    Key {
        /// The directory.
        directory: String,
        /// The key's thumbprint.
        thumbprint: Digest,
    },
}

/// Which accounts to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountFilter {
    /// Those of a directory.
    Directory(String),
    /// Those of a registration.
    Registration(String),
}

/// A registration of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// The account, version 1.
    pub account: Sealed<AccountRow>,
    /// Its first key.
    pub key: Sealed<AccountKeyRow>,
    /// The EAB key with one use more, by compare-and-swap; its registration cannot be disabled in
    /// between without raising that row's version, so add it as a change to itself where that matters.
    pub eab: Option<AuthorityChange>,
    /// Rows that the decision rests on; each must still be as it was read.
    pub cites: Vec<crate::Citation>,
    /// What to report if it is created.
    pub audit: Vec<AuditEvent>,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// The account exists now, and did not before.
    Created,
    /// The key is the one in force of this account (perhaps made by another registration a moment
    /// ago, or by this one whose answer was lost). Nothing was written.
    Exists(Box<AccountRecord>),
    /// The key was once an account's, and is so no longer. Nothing was written.
    KeyRetired,
    /// The EAB key was used or changed in between: read it again. Nothing was written.
    EabUnavailable,
    /// A cited row changed in between, by its place in the list. Nothing was written.
    AuthorityChanged(usize),
}

/// A change of an account: contacts, terms, deactivation, key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountUpdate {
    /// The account as it shall be, its version one more.
    pub account: Sealed<AccountRow>,
    /// The version that it replaces.
    pub expected: u64,
    /// The digest of the client's JWS (`protected.payload`), remembered for ever: a request is good
    /// once. Absent when an operator asked.
    pub request: Option<Digest>,
    /// The change of key, if this is one.
    pub key: Option<KeyChange>,
    /// What to report if it is made.
    pub audit: Vec<AuditEvent>,
}

/// RFC 8555 §7.3.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key in force until now, its `valid_until` set.
    pub retired: Sealed<AccountKeyRow>,
    /// The new one.
    pub key: Sealed<AccountKeyRow>,
}

/// What became of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// It was made.
    Updated,
    /// This very request was accepted before; the account as it is now.
    Replayed(Box<AccountRecord>),
    /// The account has another version; as it is now.
    Conflict(Box<AccountRecord>),
    /// The new key is, or was, one of this account (its id).
    KeyInUse(String),
    /// There is no such account.
    Unknown,
}
