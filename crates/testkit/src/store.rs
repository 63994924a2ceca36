//! The signers' database around a real one, with faults and with hands that change what it answers: a crash at every
//! call, and a database administrator who wants more than is his.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ca_store::{
    AbandonOutcome, Abandonment, AccountFilter, AccountMembers, AccountRecord, AccountRow, AccountSelector,
    AccountUpdate, AuditEvent, AuditHead, AuditRecord, Authority, AuthorityChanges, AuthoritySelector,
    BeginCrl, BlockedAfter, BlockedKeyRow, CaStore, CertificateQuery, Changes, Clock, CrlDraft, CrlEdits,
    CrlEntries, CrlJournal, CrlPiece, CrlShardRow, CrlSince, Epoch, Evidence, FollowMembers, ImportCrl,
    ImportOutcome, ImportedCrl, IncidentMember, IncidentRow, Info, IntentOutcome, JoinTokenRow, JournalEntry,
    JournalKey, LeaseOutcome, LedgerEntry, Limit, MemberCount, NewAccount, NewIntent, NewMember,
    NewRevocation, NodeRow, Page, Paged, PublishCrl, PublishOutcome, PutOutcome, RecordOutcome, RefusalCount,
    RegisterOutcome, RegistrationRow, Registry, RevokeOutcome, Revoked, RevokedAfter, Sealed, SignedRow,
    StoreError, UpdateOutcome,
};
use parking_lot::Mutex;
use pki::{Serial, Timestamp};
use runtime::Clock as _;

use crate::TestClock;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing was written.
    Failed,
    /// It was done, and the answer was lost.
    FailedButPersisted,
}

/// A database that fails when a test says so.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn CaStore>,
    state: Arc<State>,
}

/// Which calls fail, and which there were.
#[derive(Default)]
pub(crate) struct Faults {
    planned: Mutex<VecDeque<(&'static str, Option<StoreFault>)>>,
    calls: Mutex<Vec<&'static str>>,
}

impl Faults {
    pub(crate) fn plan(&self, method: &'static str, calls: usize, fault: StoreFault) {
        self.planned.lock().extend((0..calls).map(|_| (method, None)).chain([(method, Some(fault))]));
    }

    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().clone()
    }

    /// Notes a call; how it fails.
    pub(crate) fn next(&self, method: &'static str) -> Option<StoreFault> {
        self.calls.lock().push(method);
        let mut planned = self.planned.lock();
        let place = planned.iter().position(|(of, _)| *of == method)?;
        planned.remove(place).and_then(|(_, fault)| fault)
    }
}

#[derive(Default)]
struct State {
    faults: Faults,
    clock: Mutex<Option<TestClock>>,
    hands: Mutex<Hands>,
}

/// What changes answers before the signer sees them.
#[derive(Default)]
struct Hands {
    journal: Hand<Vec<JournalEntry>>,
    account: Hand<Option<AccountRecord>>,
    authority: Hand<Option<Authority>>,
    nodes: Hand<Vec<Sealed<NodeRow>>>,
    registry: Hand<Registry>,
    leases: Hand<LeaseOutcome>,
    shards: Hand<Vec<CrlShardRow>>,
    ledger: Hand<Vec<LedgerEntry>>,
    certificates: Hand<Paged<JournalEntry>>,
    edits: Hand<Option<CrlEdits>>,
}

type Hand<T> = Option<Arc<dyn Fn(T) -> T + Send + Sync>>;

impl FaultyStore {
    /// Around a real database.
    #[must_use]
    pub fn new(inner: Arc<dyn CaStore>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Lets the next call of a method fail; several are used up in order.
    pub fn fail_next(&self, method: &'static str, fault: StoreFault) {
        self.fail_after(method, 0, fault);
    }

    /// Lets a later call of a method fail: the one after so many that do not.
    pub fn fail_after(&self, method: &'static str, calls: usize, fault: StoreFault) {
        self.state.faults.plan(method, calls, fault);
    }

    /// The methods that were called, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.state.faults.calls()
    }

    /// Lets the database's clock show a test's time.
    pub fn follow(&self, clock: &TestClock) {
        *self.state.clock.lock() = Some(clock.clone());
    }

    /// Changes what `journal` and `claim_orphans` answer, and the entries that stand in an intent's way.
    pub fn alter_journal(
        &self,
        hand: impl Fn(Vec<JournalEntry>) -> Vec<JournalEntry> + Send + Sync + 'static,
    ) {
        self.state.hands.lock().journal = Some(Arc::new(hand));
    }

    /// Changes what `account` answers.
    pub fn alter_account(
        &self,
        hand: impl Fn(Option<AccountRecord>) -> Option<AccountRecord> + Send + Sync + 'static,
    ) {
        self.state.hands.lock().account = Some(Arc::new(hand));
    }

    /// Changes what `authority` answers.
    pub fn alter_authority(
        &self,
        hand: impl Fn(Option<Authority>) -> Option<Authority> + Send + Sync + 'static,
    ) {
        self.state.hands.lock().authority = Some(Arc::new(hand));
    }

    /// Changes what `nodes` answers.
    pub fn alter_nodes(
        &self,
        hand: impl Fn(Vec<Sealed<NodeRow>>) -> Vec<Sealed<NodeRow>> + Send + Sync + 'static,
    ) {
        self.state.hands.lock().nodes = Some(Arc::new(hand));
    }

    /// Changes what `registry` answers.
    pub fn alter_registry(&self, hand: impl Fn(Registry) -> Registry + Send + Sync + 'static) {
        self.state.hands.lock().registry = Some(Arc::new(hand));
    }

    /// Changes what `claim_lease` answers.
    pub fn alter_leases(&self, hand: impl Fn(LeaseOutcome) -> LeaseOutcome + Send + Sync + 'static) {
        self.state.hands.lock().leases = Some(Arc::new(hand));
    }

    /// Changes what `crl_shards` answers.
    pub fn alter_shards(&self, hand: impl Fn(Vec<CrlShardRow>) -> Vec<CrlShardRow> + Send + Sync + 'static) {
        self.state.hands.lock().shards = Some(Arc::new(hand));
    }

    /// Changes what `ledger` answers.
    pub fn alter_ledger(&self, hand: impl Fn(Vec<LedgerEntry>) -> Vec<LedgerEntry> + Send + Sync + 'static) {
        self.state.hands.lock().ledger = Some(Arc::new(hand));
    }

    /// Changes what `certificates` answers.
    pub fn alter_certificates(
        &self,
        hand: impl Fn(Paged<JournalEntry>) -> Paged<JournalEntry> + Send + Sync + 'static,
    ) {
        self.state.hands.lock().certificates = Some(Arc::new(hand));
    }

    /// Changes what `crl_edits` answers.
    pub fn alter_edits(&self, hand: impl Fn(Option<CrlEdits>) -> Option<CrlEdits> + Send + Sync + 'static) {
        self.state.hands.lock().edits = Some(Arc::new(hand));
    }

    /// Takes all hands off.
    pub fn leave_alone(&self) {
        *self.state.hands.lock() = Hands::default();
    }

    fn obstacles(&self, outcomes: Vec<IntentOutcome>) -> Vec<IntentOutcome> {
        let Some(hand) = self.state.hands.lock().journal.clone() else { return outcomes };
        let altered = |entry: Box<JournalEntry>| hand(vec![*entry]).pop().map(Box::new);
        let alter = |outcome| match outcome {
            IntentOutcome::OrderTaken(entry) => altered(entry).map(IntentOutcome::OrderTaken),
            IntentOutcome::NewOrderTaken(entry) => altered(entry).map(IntentOutcome::NewOrderTaken),
            IntentOutcome::SerialTaken(entry) => altered(entry).map(IntentOutcome::SerialTaken),
            other => Some(other),
        };
        outcomes.into_iter().filter_map(alter).collect()
    }

    fn dated(&self, clock: Clock) -> Clock {
        match &*self.state.clock.lock() {
            None => clock,
            Some(test) => {
                let milliseconds = test.now().unix_timestamp_nanos() / 1_000_000;
                Clock { database_ms: i64::try_from(milliseconds).unwrap_or(i64::MAX), ..clock }
            }
        }
    }
}

/// A change of an answer's row that a database administrator can make: the MAC stays what it was.
#[must_use]
pub fn forged<T: Clone>(sealed: &Sealed<T>, change: impl FnOnce(&mut T)) -> Sealed<T> {
    let mut row = sealed.unverified().clone();
    change(&mut row);
    Sealed::from_stored(row, sealed.mac().clone())
}

pub(crate) fn lost() -> Box<dyn std::error::Error + Send + Sync> {
    "a fault of the test".into()
}

/// Every method of the trait but `close`: fails on request, else passes on; some answers go through a hand.
macro_rules! passed_on {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty $(, by $hand:ident)? $(, then $then:ident)?;)*) => {
        #[async_trait]
        impl CaStore for FaultyStore {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                let fault = self.state.faults.next(stringify!($name));
                if fault == Some(StoreFault::Failed) {
                    return Err(StoreError::Unavailable(lost()));
                }
                let answer = self.inner.$name($($argument),*).await?;
                if fault == Some(StoreFault::FailedButPersisted) {
                    return Err(StoreError::OutcomeUnknown(lost()));
                }
                $(let hand = self.state.hands.lock().$hand.clone();
                let answer = match hand {
                    Some(hand) => hand(answer),
                    None => answer,
                };)?
                $(let answer = self.$then(answer);)?
                Ok(answer)
            })*

            async fn close(&self) {
                self.inner.close().await;
            }
        }
    };
}

passed_on! {
    fn info() -> Info;
    fn advance_clock(now: Timestamp) -> Clock, then dated;
    fn begin_epoch(random: [u8; 16], audit: Vec<AuditEvent>) -> Epoch;
    fn claim_lease(name: &str, ttl: Duration) -> LeaseOutcome, by leases;
    fn registry() -> Registry, by registry;
    fn put_authority(changes: AuthorityChanges) -> PutOutcome;
    fn authority(selector: &AuthoritySelector) -> Option<Authority>, by authority;
    fn registrations(directory: Option<&str>, page: &Page) -> Paged<Sealed<RegistrationRow>>;
    fn nodes() -> Vec<Sealed<NodeRow>>, by nodes;
    fn join_token(digest: &ca_store::Digest) -> Option<Sealed<JoinTokenRow>>;
    fn blocked_keys(keys: &[ca_store::Digest]) -> Vec<BlockedKeyRow>;
    fn deactivated(authorizations: &[String]) -> Vec<String>;
    fn blocked_after(after: &BlockedAfter) -> Vec<BlockedKeyRow>;
    fn register_account(account: NewAccount) -> RegisterOutcome;
    fn account(selector: &AccountSelector) -> Option<AccountRecord>, by account;
    fn accounts(filter: &AccountFilter, page: &Page) -> Paged<Sealed<AccountRow>>;
    fn update_account(update: AccountUpdate) -> UpdateOutcome;
    fn commit_intents(intents: Vec<NewIntent>) -> Vec<IntentOutcome>, then obstacles;
    fn record_certificates(rows: Vec<SignedRow>) -> Vec<RecordOutcome>;
    fn abandon(rows: Vec<Abandonment>) -> Vec<AbandonOutcome>;
    fn claim_orphans(lease: Duration, limit: u32) -> Vec<JournalEntry>, by journal;
    fn extend_leases(serials: &[Serial], lease: Duration) -> u64;
    fn journal(key: &JournalKey) -> Vec<JournalEntry>, by journal;
    fn evidence(serial: &Serial) -> Option<Evidence>;
    fn certificates(query: &CertificateQuery) -> Paged<JournalEntry>, by certificates;
    fn revoke(revocations: Vec<NewRevocation>) -> Vec<RevokeOutcome>;
    fn crl_shards(issuer: Option<&str>) -> Vec<CrlShardRow>, by shards;
    fn ledger(serials: &[Serial]) -> Vec<LedgerEntry>, by ledger;
    fn revoked_after(after: &RevokedAfter) -> Vec<Revoked>;
    fn begin_crl(begin: BeginCrl) -> CrlDraft;
    fn crl_entries(entries: &CrlEntries) -> CrlPiece;
    fn crl_edits(since: &CrlSince) -> Option<CrlEdits>, by edits;
    fn reached_limits(limits: &[Limit]) -> Vec<Option<Timestamp>>;
    fn journal_crl(crl: CrlJournal) -> ();
    fn publish_crl(publish: PublishCrl) -> PublishOutcome;
    fn import_crl(import: ImportCrl) -> ImportOutcome;
    fn imported_crls() -> Vec<ImportedCrl>;
    fn incident(id: &str) -> Option<Sealed<IncidentRow>>;
    fn incidents(current: bool, page: &Page) -> Paged<Sealed<IncidentRow>>;
    fn add_members(incident: &str, members: Vec<NewMember>, audit: Vec<AuditEvent>) -> Option<u64>;
    fn members(incident: &str, left: bool, page: &Page) -> Paged<IncidentMember>;
    fn follow_members(follow: FollowMembers) -> Vec<IncidentMember>;
    fn member_counts(incident: &str) -> Vec<MemberCount>;
    fn account_members(incident: &str, page: &Page) -> Paged<AccountMembers>;
    fn incidents_of(serial: &Serial) -> Vec<(Sealed<IncidentRow>, IncidentMember)>;
    fn append_audit(events: Vec<AuditEvent>, refusals: Vec<RefusalCount>) -> ();
    fn audit(incarnation: u64, after: u64, limit: u32) -> Vec<AuditRecord>;
    fn audit_heads() -> Vec<AuditHead>;
    fn refusals(since: Timestamp) -> Vec<RefusalCount>;
    fn watch() -> Box<dyn Changes>;
}
