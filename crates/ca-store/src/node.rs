//! Nodes of the tiers, the tokens with which they join, and keys that may not be certified.

use pki::Timestamp;

use crate::{
    Digest,
    canonical::{sealed_row, word_enum},
};

word_enum! {
    /// Whether a node is one of ours.
    pub enum NodeState {
        /// It is.
        Active = "active",
        /// No longer; its connections are cut.
        Revoked = "revoked",
    }
}

sealed_row! {
    /// A process of a role: its identity is `chancery://role/name`. Its certificates are in the
    /// journal, with kind `node`.
    pub struct NodeRow in "nodes" by (role, name) {
        /// `front`, `validator`, `signer`, `status`, `operator`; with the name the key.
        pub role: String,
        /// Its name.
        pub name: String,
        /// What an operator's role allows, a validator's perspective: a JSON document.
        pub settings: String,
        /// A validator's Ed25519 key for receipts.
        pub receipt_key: Option<Vec<u8>>,
        /// Names that its certificates may have as servers.
        pub server_names: Vec<String>,
        /// Whether it is one of ours.
        pub state: NodeState,
        /// When it joined.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

sealed_row! {
    /// A single-use token with which a node joins. Redeemed by writing it, used, together with the
    /// node ([`put_authority`](crate::CaStore::put_authority)).
    pub struct JoinTokenRow in "join_tokens" by (digest) {
        /// SHA-256 of the token; the key.
        pub digest: Digest,
        /// The role that it gives.
        pub role: String,
        /// The name that it gives.
        pub name: String,
        /// Names that the node's certificates may have as servers.
        pub server_names: Vec<String>,
        /// The new node's settings.
        pub settings: String,
        /// Until when it can be used.
        pub expires_at: Timestamp,
        /// When it was.
        pub used_at: Option<Timestamp>,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

/// Which blocked keys, in the order in which they were blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedAfter {
    /// Only keys that were blocked at this time or later…
    pub at: Timestamp,
    /// …and of those that were blocked at this time only keys after this one.
    pub key: Digest,
    /// At most how many.
    pub limit: u32,
}

/// A key that no certificate may have. It grants nothing, so it has no MAC; the first row of a key
/// stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedKeyRow {
    /// SHA-256 of the subject public key info; the key.
    pub spki_sha256: Digest,
    /// `keyCompromise`, or why else.
    pub reason: String,
    /// Who said so: a serial, an operator, a list.
    pub source: String,
    /// When.
    pub at: Timestamp,
}
