//! What an operator granted to whom: registrations, EAB keys, permits, grants; and the one way in
//! which every row that grants or takes authority is written.

use pki::Timestamp;

use crate::{
    AuditEvent, BlockedKeyRow, DirectoryRow, IncidentRow, IssuerRow, JoinTokenRow, NodeRow, ProfileRow,
    Sealed, TenantRow,
    canonical::{sealed_row, word_enum},
};

word_enum! {
    /// Whether a row counts.
    pub enum State {
        /// It does.
        Active = "active",
        /// It was taken back. Rows are never deleted: what they once granted stays explicable.
        Disabled = "disabled",
    }
}

sealed_row! {
    /// A client that an operator knows.
    pub struct RegistrationRow in "registrations" by (id) {
        /// The key.
        pub id: String,
        /// The directory that it may register at.
        pub directory: String,
        /// For people.
        pub title: String,
        /// Quotas and overrides: a JSON document that the signer reads.
        pub settings: String,
        /// Whether its accounts may do anything.
        pub state: State,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

word_enum! {
    /// Whether an EAB key can be used.
    pub enum EabState {
        /// As long as it has uses left and has not expired.
        Active = "active",
        /// No longer.
        Revoked = "revoked",
    }
}

sealed_row! {
    /// An external account binding key (RFC 8555 §7.3.4). The key itself is derived, never stored.
    pub struct EabKeyRow in "eab_keys" by (kid) {
        /// The key.
        pub kid: String,
        /// The registration that it activates.
        pub registration: String,
        /// The version of the tier secret that it derives from.
        pub secret_version: u32,
        /// The epoch of the database that it derives from.
        pub epoch: u64,
        /// How often it can be used; without end when absent.
        pub max_uses: Option<u32>,
        /// How often it was.
        pub uses: u32,
        /// Whether it can be used.
        pub state: EabState,
        /// Until when it can be used.
        pub expires_at: Option<Timestamp>,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

word_enum! {
    /// Which names a permit or a grant is about.
    pub enum NameScope {
        /// The name.
        Exact = "exact",
        /// The wildcard directly under the name.
        Wildcard = "wildcard",
        /// The name and everything under it, wildcards included.
        Subtree = "subtree",
        /// The addresses of a range.
        IpRange = "ip-range",
    }
}

sealed_row! {
    /// Restricts the names that a registration may ask for.
    pub struct PermitRow in "permits" by (id) {
        /// The key.
        pub id: String,
        /// The registration's id.
        pub registration: String,
        /// How `name` is meant.
        pub scope: NameScope,
        /// A name or an address range.
        pub name: String,
        /// Whether it counts.
        pub state: State,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

sealed_row! {
    /// Replaces the challenge for the names that it covers.
    pub struct GrantRow in "grants" by (id) {
        /// The key.
        pub id: String,
        /// The registration's id.
        pub registration: String,
        /// How `name` is meant.
        pub scope: NameScope,
        /// A name or an address range.
        pub name: String,
        /// Whether it counts.
        pub state: State,
        /// Until when it counts.
        pub expires_at: Option<Timestamp>,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

sealed_row! {
    /// An authorization that its account deactivated (RFC 8555 §7.5.2): receipts for it no longer
    /// count, whatever a front says.
    pub struct DeactivationRow in "deactivations" by (authorization) {
        /// The key.
        pub authorization: String,
        /// Whose it is.
        pub account: String,
        /// The account's JWS that asked for it.
        pub request: Vec<u8>,
        /// When.
        pub at: Timestamp,
    }
}

/// A registration with everything that hangs on it, disabled and expired rows included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The registration.
    pub registration: Sealed<RegistrationRow>,
    /// Its EAB keys.
    pub eab_keys: Vec<Sealed<EabKeyRow>>,
    /// Its permits.
    pub permits: Vec<Sealed<PermitRow>>,
    /// Its grants.
    pub grants: Vec<Sealed<GrantRow>>,
}

/// Whose authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthoritySelector {
    /// The registration of this id.
    Registration(String),
    /// The registration of the EAB key with this kid.
    EabKey(String),
}

/// A row that grants or takes authority.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after its row")]
pub enum AuthorityRow {
    Tenant(Sealed<TenantRow>),
    Directory(Sealed<DirectoryRow>),
    Profile(Sealed<ProfileRow>),
    Issuer(Sealed<IssuerRow>),
    Registration(Sealed<RegistrationRow>),
    EabKey(Sealed<EabKeyRow>),
    Permit(Sealed<PermitRow>),
    Grant(Sealed<GrantRow>),
    Deactivation(Sealed<DeactivationRow>),
    Node(Sealed<NodeRow>),
    JoinToken(Sealed<JoinTokenRow>),
    Incident(Sealed<IncidentRow>),
    BlockedKey(BlockedKeyRow),
}

/// A row to be written, by compare-and-swap on its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityChange {
    /// The row as it shall be.
    pub row: AuthorityRow,
    /// The version that it replaces; absent when there must be no such row yet. Ignored for rows
    /// without a version (deactivations, blocked keys): of those the first stays, and writing one
    /// again changes nothing.
    pub expected: Option<u64>,
}

/// What became of a set of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// All of them were made.
    Applied,
    /// None was: this one (by its place in the set) found another version than it expected.
    Conflict(usize),
}

/// Changes that are made together, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorityChanges {
    /// The rows.
    pub changes: Vec<AuthorityChange>,
    /// What to report if they are made.
    pub audit: Vec<AuditEvent>,
}
