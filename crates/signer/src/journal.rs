//! The journal: what must be durable before a key touches it (DESIGN §2.1, §3 steps 9 and 11).
//!
//! [`Journaled`] is made here and nowhere else, and only from bytes that the store has called committed. An issuer's
//! key accepts nothing else: see [`crate::doors`].

use std::sync::Arc;
use std::time::Duration;

use ca_store::{
    AbandonOutcome, Abandonment, AuditEvent, CaStore, Citation, Evidence, IntentOutcome, JournalEntry,
    JournalKey, JournalKind, JournalRow, Limit, NewIntent, RecordOutcome, RowMacKeys, Sealed, SignedRow,
    StoreError,
};
use hsm::{Job, Lane};
use pki::{Serial, SignatureAlgorithm, Timestamp};

use crate::refusal::{Failure, Outcome};

mod crl;
mod own;

pub use crl::{CrlDigester, CrlIntent};
pub(crate) use own::OwnCertificate;

/// Something durable, with the exact bytes that may now be signed. There is no way to make one but through [`Journal`].
#[derive(Debug)]
pub struct Journaled<T>(T);

impl<T> Journaled<T> {
    /// What was journaled.
    #[must_use]
    pub const fn intent(&self) -> &T {
        &self.0
    }
}

/// A certificate that is intended.
#[derive(Debug)]
pub struct CertificateIntent {
    row: Box<JournalRow>,
}

impl CertificateIntent {
    /// The journal's row; `tbs` is what is signed.
    #[must_use]
    pub const fn row(&self) -> &JournalRow {
        &self.row
    }
}

/// What an issuer's key signs. Implemented for the two kinds of intent and closed to others.
pub trait IssuerObject: sealed::Sealed {
    /// The issuer's identity in `ca`.
    fn issuer(&self) -> &str;
    /// Whether this is for an issuer's door at all, and not for the node CA's.
    fn is_for_issuers(&self) -> bool;
    /// What the token is asked for.
    fn job(&self, algorithm: SignatureAlgorithm) -> Job;
    /// Who waits for it.
    fn lane(&self) -> Lane;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::CertificateIntent {}
    impl Sealed for super::CrlIntent {}
}

impl IssuerObject for CertificateIntent {
    fn issuer(&self) -> &str {
        &self.row.issuer
    }

    fn is_for_issuers(&self) -> bool {
        matches!(
            self.row.kind,
            JournalKind::Final | JournalKind::Precertificate | JournalKind::Server | JournalKind::Responder
        )
    }

    fn job(&self, algorithm: SignatureAlgorithm) -> Job {
        Job::for_message(algorithm, &self.row.tbs)
    }

    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

/// A node's certificate: the one thing that the node CA's key signs.
#[derive(Debug)]
pub struct NodeRequest(Journaled<CertificateIntent>);

impl NodeRequest {
    /// The journaled intent.
    #[must_use]
    pub const fn journaled(&self) -> &Journaled<CertificateIntent> {
        &self.0
    }

    pub(crate) fn job(&self, algorithm: SignatureAlgorithm) -> Job {
        Job::for_message(algorithm, &self.0.intent().row.tbs)
    }
}

impl Journaled<CertificateIntent> {
    /// For the node CA's door.
    ///
    /// # Errors
    /// The intent itself when it is of another kind than [`JournalKind::Node`].
    pub fn into_node_request(self) -> Result<NodeRequest, Self> {
        if self.0.row.kind == JournalKind::Node { Ok(NodeRequest(self)) } else { Err(self) }
    }
}

/// A certificate to be intended: the row without MAC, and all that its commit depends on.
#[derive(Debug)]
pub struct CertificateDraft {
    /// The row; neither signed nor abandoned.
    pub row: JournalRow,
    /// The certificate's names, for the index.
    pub names: Vec<String>,
    /// Whose they are, where a limit counts that.
    pub domains: Vec<String>,
    /// What it rests on.
    pub evidence: Option<Evidence>,
    /// Rows that must be unchanged.
    pub cites: Vec<Citation>,
    /// Authorizations that must not be deactivated.
    pub authorizations: Vec<String>,
    /// The thumbprint that its key would have as an account's (RFC 7638): no account's may be the same.
    pub account_key: Option<[u8; 32]>,
    /// MACs of entries of the order that are no obstacle, and whose rows were verified.
    pub past: Vec<[u8; 32]>,
    /// Limits that must not be reached.
    pub limits: Vec<Limit>,
    /// What to report.
    pub audit: Vec<AuditEvent>,
}

/// What became of a draft.
#[derive(Debug)]
pub enum Commit {
    /// Durable.
    Committed(Journaled<CertificateIntent>),
    /// The order has an entry already.
    OrderTaken(Box<JournalEntry>),
    /// The newOrder JWS has an entry already, of another order.
    NewOrderTaken(Box<JournalEntry>),
    /// Another certificate has the serial.
    SerialTaken,
    /// The certificate that it would replace has a successor already.
    AlreadyReplaced,
    /// The order has entries that are no obstacle if their rows are good: verify them.
    OrderHasPast,
    /// The key is blocked.
    KeyBlocked,
    /// The key is, or was, an account's.
    KeyOfAccount,
    /// A cited row changed, by its place.
    AuthorityChanged(usize),
    /// An authorization was deactivated, by its place.
    AuthorizationDeactivated(usize),
    /// A limit is reached, by its place.
    LimitReached(usize),
}

/// What became of a signature.
#[derive(Debug)]
pub enum Record {
    /// The certificate, whoever signed it. Its signature is set.
    Issued(Box<JournalRow>),
    /// The intent was given up in the meantime.
    Abandoned,
}

/// The way to intents and records. Rows are sealed and verified here.
#[derive(Clone)]
pub struct Journal {
    store: Arc<dyn CaStore>,
    keys: Arc<RowMacKeys>,
    lease: Duration,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Waits between tries to record a signature: the signature exists, so giving up early would waste it.
const RECORD_RETRIES: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(200), Duration::from_millis(1000)];

impl Journal {
    /// The journal of this store; `lease` is how long an intent is this process' own.
    #[must_use]
    pub fn new(store: Arc<dyn CaStore>, keys: Arc<RowMacKeys>, lease: Duration) -> Self {
        Self { store, keys, lease }
    }

    /// Commits an intent. Concurrent callers share a transaction: that is the store's doing.
    ///
    /// # Errors
    /// When the store did not answer: the intent may then be durable, and is found again by its order.
    pub async fn commit(&self, draft: CertificateDraft) -> Outcome<Commit> {
        let row = self.keys.seal(draft.row);
        let intent = NewIntent {
            row: row.clone(),
            names: draft.names,
            domains: draft.domains,
            evidence: draft.evidence,
            cites: draft.cites,
            authorizations: draft.authorizations,
            account_key: draft.account_key,
            past: draft.past,
            limits: draft.limits,
            lease: self.lease,
            audit: draft.audit,
        };
        fail::fail_point!("signer.intent.before-commit");
        let committed = self.store.commit_intents(vec![intent]).await;
        fail::fail_point!("signer.intent.after-commit");
        let outcome = match committed {
            Ok(outcomes) => only(outcomes)?,
            Err(error) if error.may_be_durable() && self.holds(&row).await? => IntentOutcome::Committed,
            Err(error) => return Err(error.into()),
        };
        Ok(match outcome {
            IntentOutcome::Committed => Commit::Committed(self.committed(row)?),
            // An earlier try's answer was lost: it is this very row.
            IntentOutcome::OrderTaken(entry) | IntentOutcome::SerialTaken(entry) if entry.row == row => {
                Commit::Committed(self.committed(row)?)
            }
            IntentOutcome::OrderTaken(entry) => Commit::OrderTaken(entry),
            IntentOutcome::NewOrderTaken(entry) => Commit::NewOrderTaken(entry),
            IntentOutcome::SerialTaken(_) => Commit::SerialTaken,
            IntentOutcome::AlreadyReplaced => Commit::AlreadyReplaced,
            IntentOutcome::OrderHasPast => Commit::OrderHasPast,
            IntentOutcome::KeyBlocked => Commit::KeyBlocked,
            IntentOutcome::KeyOfAccount => Commit::KeyOfAccount,
            IntentOutcome::AuthorityChanged(place) => Commit::AuthorityChanged(place),
            IntentOutcome::AuthorizationDeactivated(place) => Commit::AuthorizationDeactivated(place),
            IntentOutcome::LimitReached(place) => Commit::LimitReached(place),
        })
    }

    fn committed(&self, row: Sealed<JournalRow>) -> Outcome<Journaled<CertificateIntent>> {
        Ok(Journaled(CertificateIntent { row: Box::new(self.keys.open(row)?) }))
    }

    /// Whether the store has this very row.
    async fn holds(&self, row: &Sealed<JournalRow>) -> Result<bool, StoreError> {
        let serial = row.unverified().serial;
        Ok(self.store.journal(&JournalKey::Serial(serial)).await?.iter().any(|entry| entry.row == *row))
    }

    /// Makes an entry that the store has, and that nobody else works on, ready to be signed: its MAC is verified first.
    ///
    /// # Errors
    /// [`Failure::Tampered`] when the row is not what a signer wrote. `None` when there is nothing left to sign.
    pub fn adopt(&self, entry: JournalEntry) -> Outcome<Option<Journaled<CertificateIntent>>> {
        let row = self.keys.open(entry.row)?;
        let open = row.signature.is_none() && row.abandoned_at.is_none();
        Ok(open.then(|| Journaled(CertificateIntent { row: Box::new(row) })))
    }

    /// Verifies the row of an entry.
    ///
    /// # Errors
    /// [`Failure::Tampered`].
    pub fn open(&self, entry: JournalEntry) -> Outcome<JournalRow> {
        Ok(self.keys.open(entry.row)?)
    }

    /// Takes over intents whose lease has run out. What comes is a claim until [`Journal::adopt`] has verified it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn claim_orphans(&self, limit: u32) -> Result<Vec<JournalEntry>, StoreError> {
        self.store.claim_orphans(self.lease, limit).await
    }

    /// Keeps intents that are being worked on.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn extend(&self, serials: &[Serial]) -> Result<u64, StoreError> {
        self.store.extend_leases(serials, self.lease).await
    }

    /// How long an intent is this process' own.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// Records a signature: the first one counts, whoever made it.
    ///
    /// # Errors
    /// When the store does not answer, after several tries. The certificate then never leaves: it is signed again from
    /// the journal.
    pub async fn record(
        &self,
        intent: &Journaled<CertificateIntent>,
        signature: Vec<u8>,
        at: Timestamp,
    ) -> Outcome<Record> {
        let signed =
            JournalRow { signature: Some(signature), signed_at: Some(at), ..(*intent.0.row).clone() };
        let row = self.keys.seal(signed);
        let mut retries = RECORD_RETRIES.into_iter();
        let outcome = loop {
            let record = SignedRow { row: row.clone(), audit: Vec::new() };
            fail::fail_point!("signer.record.before-commit");
            let recorded = self.store.record_certificates(vec![record]).await;
            fail::fail_point!("signer.record.after-commit");
            match recorded {
                Ok(outcomes) => break only(outcomes)?,
                Err(error) if error.class() == pki::ErrorClass::Transient => match retries.next() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        };
        match outcome {
            RecordOutcome::Recorded => Ok(Record::Issued(Box::new(self.keys.open(row)?))),
            RecordOutcome::Lost(entry) => {
                let row = self.keys.open(entry.row)?;
                Ok(if row.signature.is_some() { Record::Issued(Box::new(row)) } else { Record::Abandoned })
            }
            RecordOutcome::Unknown => {
                let detail = "an intent vanished between commit and record".to_owned();
                Err(Failure::Unreadable { table: "journal", detail })
            }
        }
    }

    /// Gives an intent up: its order is free again, and its serial still counts as one that may have been signed.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn abandon(
        &self,
        intent: Journaled<CertificateIntent>,
        at: Timestamp,
        audit: Vec<AuditEvent>,
    ) -> Outcome<AbandonOutcome> {
        let row = self.keys.seal(JournalRow { abandoned_at: Some(at), ..*intent.0.row });
        only(self.store.abandon(vec![Abandonment { row, audit }]).await?)
    }
}

/// The outcome of a set of one.
fn only<T>(outcomes: Vec<T>) -> Outcome<T> {
    outcomes.into_iter().next().ok_or_else(|| Failure::Unreadable {
        table: "journal",
        detail: "the store answered with no outcome".to_owned(),
    })
}
