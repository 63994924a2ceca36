//! The signers' database `ca`: its rows, the trait that its backends implement, and the contract
//! suite that they pass.
//!
//! Rows are plain data. A row that grants authority, or that a signature may follow from, comes and
//! goes as [`Sealed`]: it carries a MAC under the tier secret, and its contents count only after
//! [`RowMacKeys::verify`]. Backends store rows and never hold a key: whoever administers the
//! database can lose or replay rows, but not make one (DESIGN §5).
//!
//! [`CaStore`] is coarse and set-oriented. What the trait promises, whatever the backend:
//!
//! - **One transaction a method.** An effect, its audit rows and every re-check that it depends on
//!   are durable together, or not at all.
//! - **Group commit.** Writes that arrive while a commit runs share the next one. No timer.
//! - **One bad row does not fail its neighbours**: outcomes are for each row, in the order given.
//! - **An answer means durable.** An error of class `Transient` means nothing about durability
//!   unless it is [`StoreError::Unavailable`]: see [`StoreError::OutcomeUnknown`].
//! - **No clock.** Times are arguments; leases alone use the database's clock.
//!
//! Never here: keys, SQL, policy. What a row *means* is the signer's business.

mod account;
mod audit;
mod authority;
mod canonical;
#[cfg(feature = "contract")]
pub mod contract;
mod error;
mod imported;
mod incident;
mod journal;
mod node;
mod page;
mod registry;
mod revocation;
mod row_mac;
mod store;

pub use account::{
    AccountFilter, AccountKeyRow, AccountRecord, AccountRow, AccountSelector, AccountStatus, AccountUpdate,
    KeyChange, KeyTaken, NewAccount, RegisterOutcome, UpdateOutcome,
};
pub use audit::{
    AuditChain, AuditError, AuditEvent, AuditHead, AuditRecord, Incarnation, RefusalCount, verify_chain,
};
pub use authority::{
    Authority, AuthorityChange, AuthorityChanges, AuthorityRow, AuthoritySelector, DeactivationRow,
    EabKeyRow, EabState, GrantRow, NameScope, PermitRow, PutOutcome, RegistrationRow, State,
};
pub use canonical::{Canonical, Column};
pub use error::StoreError;
pub use imported::{ImportCrl, ImportOutcome, ImportedCrl};
pub use incident::{
    AccountMembers, FollowMembers, IncidentMember, IncidentRow, IncidentState, MemberCount, MemberState,
    NEWEST_LOOKED_AT, NewMember,
};
pub use journal::{
    AbandonOutcome, Abandonment, CertificateFilter, CertificateQuery, Citation, CitedTable, Evidence,
    IntentOutcome, JournalEntry, JournalKey, JournalKind, JournalRow, Lease, Limit, LimitScope, NewIntent,
    RecordOutcome, SignedRow, TimeRange, indexed_name,
};
pub use node::{BlockedAfter, BlockedKeyRow, JoinTokenRow, NodeRow, NodeState};
pub use page::{Cursor, Page, Paged};
/// Types of [`pki`] that rows are made of, for backends.
pub use pki::{ErrorClass, Reason, Serial, Timestamp};
pub use registry::{DirectoryRow, IssuerRow, IssuerState, ProfileRow, Registry, TenantRow};
pub use revocation::{
    BeginCrl, CrlDraft, CrlEdits, CrlEntries, CrlEntry, CrlJournal, CrlKey, CrlPiece, CrlRow, CrlShard,
    CrlShardRow, CrlSince, EPOCH_JUMP, LedgerEntry, NewRevocation, PublishCrl, PublishOutcome, RevocationRow,
    RevokeOutcome, Revoked, RevokedAfter, Upgrade,
};
pub use row_mac::{MacError, RowMac, RowMacKeys, Sealable, Sealed};
pub use store::{CaStore, Changes, Clock, Epoch, Info, LeaseOutcome, StoreChange};

/// A SHA-256 digest.
pub type Digest = [u8; 32];
