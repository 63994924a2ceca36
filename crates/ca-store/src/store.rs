//! The trait that the backends of the signers' database implement.

use std::time::Duration;

use async_trait::async_trait;
use pki::Timestamp;

use crate::{
    AbandonOutcome, Abandonment, AccountFilter, AccountMembers, AccountRecord, AccountRow, AccountSelector,
    AccountUpdate, AuditEvent, AuditHead, AuditRecord, Authority, AuthorityChanges, AuthoritySelector,
    BeginCrl, BlockedAfter, BlockedKeyRow, CertificateQuery, CrlDraft, CrlEdits, CrlEntries, CrlJournal,
    CrlPiece, CrlShardRow, CrlSince, Digest, Evidence, FollowMembers, ImportCrl, ImportOutcome, ImportedCrl,
    IncidentMember, IncidentRow, IntentOutcome, JoinTokenRow, JournalEntry, JournalKey, LedgerEntry, Limit,
    MemberCount, NewAccount, NewIntent, NewMember, NewRevocation, NodeRow, Page, Paged, PublishCrl,
    PublishOutcome, PutOutcome, RecordOutcome, RefusalCount, RegisterOutcome, RegistrationRow, Registry,
    RevokeOutcome, Revoked, RevokedAfter, Sealed, SignedRow, StoreError, UpdateOutcome,
};

/// The signers' database. See the crate's documentation for what all methods promise.
///
/// Every write can be repeated after [`StoreError::OutcomeUnknown`]: the second time it answers
/// with what the first left.
#[async_trait]
pub trait CaStore: Send + Sync + 'static {
    // The database itself

    /// What the database is.
    async fn info(&self) -> Result<Info, StoreError>;

    /// Raises the high-water mark of time to `now`, and says what the database's own clock shows.
    /// The mark that is answered is the one *before*: when it is later than `now`, time went
    /// backwards, and the mark stays (DESIGN §2.10).
    async fn advance_clock(&self, now: Timestamp) -> Result<Clock, StoreError>;

    /// Begins a new epoch, after a backup was restored: revisions and CRL numbers of all shards
    /// jump, EAB keys of older epochs are void (DESIGN §5). `random` tells two restores of one
    /// backup apart.
    async fn begin_epoch(&self, random: [u8; 16], audit: Vec<AuditEvent>) -> Result<Epoch, StoreError>;

    /// Claims, extends, or with a `ttl` of zero gives up, the lease of this name for this
    /// incarnation, by the database's clock.
    async fn claim_lease(&self, name: &str, ttl: Duration) -> Result<LeaseOutcome, StoreError>;

    // Authority

    /// Tenants, directories, profiles and issuers, all of them.
    async fn registry(&self) -> Result<Registry, StoreError>;

    /// Writes rows that grant or take authority: all of them, or none.
    async fn put_authority(&self, changes: AuthorityChanges) -> Result<PutOutcome, StoreError>;

    /// A registration with everything that hangs on it, from one snapshot.
    async fn authority(&self, selector: &AuthoritySelector) -> Result<Option<Authority>, StoreError>;

    /// Registrations, by id; only those of `directory` if given.
    async fn registrations(
        &self,
        directory: Option<&str>,
        page: &Page,
    ) -> Result<Paged<Sealed<RegistrationRow>>, StoreError>;

    /// All nodes, revoked ones included.
    async fn nodes(&self) -> Result<Vec<Sealed<NodeRow>>, StoreError>;

    /// The join token with this digest.
    async fn join_token(&self, digest: &Digest) -> Result<Option<Sealed<JoinTokenRow>>, StoreError>;

    /// Those of these keys that are blocked.
    async fn blocked_keys(&self, keys: &[Digest]) -> Result<Vec<BlockedKeyRow>, StoreError>;

    /// Those of these authorizations that were deactivated.
    async fn deactivated(&self, authorizations: &[String]) -> Result<Vec<String>, StoreError>;

    /// The keys that were blocked last, ascending by time and key.
    async fn blocked_after(&self, after: &BlockedAfter) -> Result<Vec<BlockedKeyRow>, StoreError>;

    // Accounts

    /// Registers an account with its first key and, if given, one use of an EAB key.
    async fn register_account(&self, account: NewAccount) -> Result<RegisterOutcome, StoreError>;

    /// An account with its keys in time, from one snapshot.
    async fn account(&self, selector: &AccountSelector) -> Result<Option<AccountRecord>, StoreError>;

    /// Accounts, oldest first.
    async fn accounts(
        &self,
        filter: &AccountFilter,
        page: &Page,
    ) -> Result<Paged<Sealed<AccountRow>>, StoreError>;

    /// Changes an account, its key included, once for each request.
    async fn update_account(&self, update: AccountUpdate) -> Result<UpdateOutcome, StoreError>;

    // The journal

    /// Commits intents with their evidence, names and audit rows, after re-checking in the same
    /// transaction what they cite. One outcome an intent, in order.
    async fn commit_intents(&self, intents: Vec<NewIntent>) -> Result<Vec<IntentOutcome>, StoreError>;

    /// Records signatures, each if its entry has none and was not abandoned. One outcome a row, in
    /// order.
    async fn record_certificates(&self, rows: Vec<SignedRow>) -> Result<Vec<RecordOutcome>, StoreError>;

    /// Gives intents up. One outcome a row, in order.
    async fn abandon(&self, rows: Vec<Abandonment>) -> Result<Vec<AbandonOutcome>, StoreError>;

    /// Takes over up to `limit` intents whose lease has run out, whoever's they were, oldest first.
    /// Their rows are claims until their MAC is verified.
    async fn claim_orphans(&self, lease: Duration, limit: u32) -> Result<Vec<JournalEntry>, StoreError>;

    /// Extends the leases of those of these intents that are still this incarnation's; answers how
    /// many are.
    async fn extend_leases(&self, serials: &[pki::Serial], lease: Duration) -> Result<u64, StoreError>;

    /// Entries by key, with their revocation, from one snapshot.
    async fn journal(&self, key: &JournalKey) -> Result<Vec<JournalEntry>, StoreError>;

    /// What the entries of a serial rest on.
    async fn evidence(&self, serial: &pki::Serial) -> Result<Option<Evidence>, StoreError>;

    /// For each of these limits, if it is reached: when the entry was intended that has to leave before there is room for
    /// another, the `most`-th newest.
    async fn reached_limits(&self, limits: &[Limit]) -> Result<Vec<Option<Timestamp>>, StoreError>;

    /// Certificates.
    async fn certificates(&self, query: &CertificateQuery) -> Result<Paged<JournalEntry>, StoreError>;

    // Revocation

    /// Revokes, raising the revision of each shard concerned in the same transaction. One outcome a
    /// revocation, in order.
    async fn revoke(&self, revocations: Vec<NewRevocation>) -> Result<Vec<RevokeOutcome>, StoreError>;

    /// Where all shards stand, or those of one issuer.
    async fn crl_shards(&self, issuer: Option<&str>) -> Result<Vec<CrlShardRow>, StoreError>;

    /// The entries with any of these serials, each with its revocation and its shard's revision: all
    /// from one snapshot.
    async fn ledger(&self, serials: &[pki::Serial]) -> Result<Vec<LedgerEntry>, StoreError>;

    /// What was revoked in a shard, or revoked for another reason, after a revision; ascending by
    /// revision.
    async fn revoked_after(&self, after: &RevokedAfter) -> Result<Vec<Revoked>, StoreError>;

    /// Allocates the next number of a shard's CRL and takes the snapshot's revision, in one
    /// transaction.
    async fn begin_crl(&self, begin: BeginCrl) -> Result<CrlDraft, StoreError>;

    /// A piece of the entries of a CRL. The same answer at any later time.
    async fn crl_entries(&self, entries: &CrlEntries) -> Result<CrlPiece, StoreError>;

    /// What has become of an earlier CRL's entries in a later one; `None` when that is more than the limit, or the earlier one
    /// is not journaled. The same answer at any later time.
    async fn crl_edits(&self, since: &CrlSince) -> Result<Option<CrlEdits>, StoreError>;

    /// Makes a CRL durable before it is signed. Repeating it with the same row changes nothing;
    /// another row of the same number is [`StoreError::Refused`], as is one whose number or revision
    /// [`begin_crl`](CaStore::begin_crl) did not give out.
    async fn journal_crl(&self, crl: CrlJournal) -> Result<(), StoreError>;

    /// Publishes a CRL by compare-and-swap: its number and `thisUpdate` are greater than those of
    /// the shard's published CRL of the same kind, its revision is not less.
    async fn publish_crl(&self, publish: PublishCrl) -> Result<PublishOutcome, StoreError>;

    /// Keeps the CRL of an authority whose key is elsewhere, if its number and `thisUpdate` are greater than those of the
    /// one that is there.
    async fn import_crl(&self, import: ImportCrl) -> Result<ImportOutcome, StoreError>;

    /// The CRLs that were imported last, one an authority.
    async fn imported_crls(&self) -> Result<Vec<ImportedCrl>, StoreError>;

    // Incidents

    /// An incident.
    async fn incident(&self, id: &str) -> Result<Option<Sealed<IncidentRow>>, StoreError>;

    /// Incidents, newest first; only those that are collecting or open if `current`.
    async fn incidents(&self, current: bool, page: &Page) -> Result<Paged<Sealed<IncidentRow>>, StoreError>;

    /// Adds members to an incident that is collecting: those that it has not yet; answers how many those were, or nothing if it
    /// is not collecting. `audit` is written with them, if there are any.
    async fn add_members(
        &self,
        incident: &str,
        members: Vec<NewMember>,
        audit: Vec<AuditEvent>,
    ) -> Result<Option<u64>, StoreError>;

    /// Members of an incident by serial, in that order; only those that are left if `left`.
    async fn members(
        &self,
        incident: &str,
        left: bool,
        page: &Page,
    ) -> Result<Paged<IncidentMember>, StoreError>;

    /// Notes what has become of members since; answers with all of them as they are now. They are looked for as readers do;
    /// only what has changed is written.
    async fn follow_members(&self, follow: FollowMembers) -> Result<Vec<IncidentMember>, StoreError>;

    /// How many members an incident has, by wave and state.
    async fn member_counts(&self, incident: &str) -> Result<Vec<MemberCount>, StoreError>;

    /// How many members each account has, by account.
    async fn account_members(&self, incident: &str, page: &Page)
    -> Result<Paged<AccountMembers>, StoreError>;

    /// The open incidents in which a certificate is a member that is left, with the member.
    async fn incidents_of(
        &self,
        serial: &pki::Serial,
    ) -> Result<Vec<(Sealed<IncidentRow>, IncidentMember)>, StoreError>;

    // Audit

    /// Appends events that no other transaction reports, and counts refusals.
    async fn append_audit(
        &self,
        events: Vec<AuditEvent>,
        refusals: Vec<RefusalCount>,
    ) -> Result<(), StoreError>;

    /// The rows of an incarnation's chain (by its number), from after a sequence on.
    async fn audit(&self, incarnation: u64, after: u64, limit: u32) -> Result<Vec<AuditRecord>, StoreError>;

    /// The heads of all chains, by number.
    async fn audit_heads(&self) -> Result<Vec<AuditHead>, StoreError>;

    /// Refusals of the hours from `since` on.
    async fn refusals(&self, since: Timestamp) -> Result<Vec<RefusalCount>, StoreError>;

    // Other signers

    /// Hears, from the answer on, of what other incarnations change.
    async fn watch(&self) -> Result<Box<dyn Changes>, StoreError>;

    /// Waits for writes that were accepted, refuses new ones, closes the database.
    async fn close(&self);
}

/// What other incarnations change that copies are kept of, once it is durable. Hints: they say where to look again, and
/// nothing else.
#[async_trait]
pub trait Changes: Send {
    /// Waits for the next. After an error something may have been missed: watch anew, and keep no copies from before.
    /// Nothing is lost when the wait is given up.
    async fn next(&mut self) -> Result<StoreChange, StoreError>;
}

/// Something that another incarnation changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// An account, or its keys (its id).
    Account(String),
    /// A shard's CRL was published.
    Crl(crate::CrlShard),
    /// Something was revoked in a shard.
    Revoked(crate::CrlShard),
    /// Nodes.
    Nodes,
    /// A CRL was imported.
    ImportedCrl,
}

/// What the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The greatest migration that was applied.
    pub schema: u64,
    /// The epoch.
    pub epoch: Epoch,
    /// The number that the store gave to this incarnation.
    pub incarnation: u64,
}

/// A life of the database between two restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Counted from 1.
    pub number: u64,
    /// Tells epochs of the same number apart.
    pub random: [u8; 16],
}

/// Two clocks to compare one's own with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The database's clock, in milliseconds since the epoch.
    pub database_ms: i64,
    /// The latest time that any signer had seen before.
    pub high_water: Timestamp,
}

/// Whose a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// This incarnation's, until then (milliseconds since the epoch, database's clock).
    Held {
        /// Until when.
        until_ms: i64,
    },
    /// Another's.
    Taken {
        /// The number of the incarnation.
        owner: u64,
        /// Until when.
        until_ms: i64,
    },
}
