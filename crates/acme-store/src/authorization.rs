//! Authorizations (RFC 8555 §7.1.4).

use pki::Timestamp;

use crate::word::word_enum;

word_enum! {
    /// RFC 8555 §7.1.6.
    pub enum AuthorizationStatus {
        /// Waits for a challenge.
        Pending = "pending",
        /// Shown, or granted.
        Valid = "valid",
        /// A challenge failed.
        Invalid = "invalid",
        /// Given up by its client.
        Deactivated = "deactivated",
        /// Its time is over.
        Expired = "expired",
        /// Taken away.
        Revoked = "revoked",
    }
}

/// What an authorization is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier {
    /// A name or an address, without `*.`.
    pub value: String,
    /// Whether it is for the wildcard.
    pub wildcard: bool,
}

/// An authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRow {
    /// Its id, made by a signer.
    pub id: String,
    /// The directory.
    pub directory: String,
    /// The account's id.
    pub account: String,
    /// What it is for.
    pub identifier: Identifier,
    /// Its status; `pending` and `valid` end at `expires_at` without a change of the row.
    pub status: AuthorizationStatus,
    /// Everything else, as the front's JSON: challenges, attempts, receipts, errors.
    pub state: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be used; afterwards it is purged.
    pub expires_at: Timestamp,
    /// Rises with every change, from 1.
    pub version: u64,
}

/// A change of an authorization. What is not named here never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationChange {
    /// Which.
    pub id: String,
    /// The version that it replaces; the new one is one more.
    pub expected: u64,
    /// Its status from now on.
    pub status: AuthorizationStatus,
    /// Its state from now on.
    pub state: String,
    /// Its end from now on.
    pub expires_at: Timestamp,
}
