//! Audit rows and the hash chain over them (DESIGN §5).
//!
//! Each start of a signer is an *incarnation* with a chain of its own, so that signers need not
//! wait for each other. The store appends to the chain of its own incarnation inside the
//! transaction of what is reported; a signer's commits are one after another anyway.

use aws_lc_rs::digest;
use pki::{ErrorClass, Timestamp};

use crate::{Canonical, Digest};

/// One life of one signer: who writes, and whose leases are whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Random, made at the start of the process.
    pub id: [u8; 16],
    /// The node's name, for people.
    pub node: String,
}

/// Something to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// When, by the signer's clock.
    pub at: Timestamp,
    /// What happened: a dotted word of the signer's closed list (`certificate.intended`).
    pub kind: String,
    /// Who asked for it: an account id, an operator, a node; empty for the signer itself.
    pub actor: String,
    /// To what: a serial, an account id, a registration id.
    pub subject: String,
    /// The rest, as a JSON object; empty when there is nothing to add.
    pub detail: String,
}

/// An event in its place in the chain of an incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Counted from 1.
    pub sequence: u64,
    /// What is reported.
    pub event: AuditEvent,
    /// [`AuditChain`]'s digest over the hash before it and this event.
    pub hash: Digest,
}

/// The head of an incarnation's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// The store's number of the incarnation, rising with time.
    pub number: u64,
    /// The incarnation.
    pub incarnation: Incarnation,
    /// How many rows its chain has.
    pub sequence: u64,
    /// The hash of the last of them, or the chain's first value when there is none.
    pub hash: Digest,
}

/// How many requests were refused for one reason, for a batch: refusals have no transaction of
/// their own, and a hostile front must not be able to fill the database with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalCount {
    /// The hour, as the time of its beginning; any time within it will do.
    pub hour: Timestamp,
    /// A word of the signer's closed list.
    pub reason: String,
    /// The directory; empty when the request named none that exists.
    pub directory: String,
    /// How many more.
    pub count: u64,
}

/// The chain of one incarnation, as its writer or its verifier goes along it.
///
/// A hash is SHA-256 over the canonical encoding of: label, incarnation id, hash before, sequence,
/// at, kind, actor, subject, detail. The hash before the first row is SHA-256 over label,
/// incarnation id and node name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditChain {
    incarnation: [u8; 16],
    sequence: u64,
    hash: Digest,
}

impl AuditChain {
    /// The chain of an incarnation that has reported nothing yet.
    #[must_use]
    pub fn start(incarnation: &Incarnation) -> Self {
        let mut canonical = Canonical::new();
        canonical.column(LABEL);
        canonical.column(&incarnation.id);
        canonical.column(&incarnation.node);
        Self { incarnation: incarnation.id, sequence: 0, hash: sha256(canonical.as_bytes()) }
    }

    /// The chain of an incarnation that has reported something already, from its head.
    #[must_use]
    pub const fn resume(head: &AuditHead) -> Self {
        Self { incarnation: head.incarnation.id, sequence: head.sequence, hash: head.hash }
    }

    /// The place of `event` after everything so far.
    pub fn append(&mut self, event: AuditEvent) -> AuditRecord {
        self.sequence += 1;
        self.hash = self.next_hash(&event);
        AuditRecord { sequence: self.sequence, event, hash: self.hash }
    }

    /// Goes over one stored row.
    ///
    /// # Errors
    /// When it is not the row that was written in this place.
    pub fn check(&mut self, record: &AuditRecord) -> Result<(), AuditError> {
        let expected = self.sequence + 1;
        if record.sequence != expected {
            return Err(AuditError::Missing { expected, found: record.sequence });
        }
        self.sequence = expected;
        let hash = self.next_hash(&record.event);
        if hash != record.hash {
            return Err(AuditError::Changed { sequence: expected });
        }
        self.hash = hash;
        Ok(())
    }

    /// How many rows there are.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The head's hash.
    #[must_use]
    pub const fn hash(&self) -> &Digest {
        &self.hash
    }

    fn next_hash(&self, event: &AuditEvent) -> Digest {
        let mut canonical = Canonical::new();
        canonical.column(LABEL);
        canonical.column(&self.incarnation);
        canonical.column(&self.hash);
        canonical.column(&self.sequence);
        canonical.column(&event.at);
        canonical.column(&event.kind);
        canonical.column(&event.actor);
        canonical.column(&event.subject);
        canonical.column(&event.detail);
        sha256(canonical.as_bytes())
    }
}

/// Why a chain is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Rows are missing, or in another order.
    #[error("audit row {found} stands where row {expected} belongs")]
    Missing {
        /// The sequence that belongs there.
        expected: u64,
        /// The sequence that was found.
        found: u64,
    },
    /// A row is not what was written.
    #[error("audit row {sequence} was changed")]
    Changed {
        /// Its sequence.
        sequence: u64,
    },
    /// Rows at the end are missing.
    #[error("the audit chain ends with row {found}, not {expected}")]
    Truncated {
        /// The last sequence by the head.
        expected: u64,
        /// The last that was found.
        found: u64,
    },
}

impl AuditError {
    /// How this error is to be treated.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        ErrorClass::Fatal
    }
}

/// Checks the whole chain of an incarnation against a head that was kept elsewhere (a checkpoint),
/// or that the store has.
///
/// # Errors
/// At the first row that is missing or changed.
pub fn verify_chain<'a>(
    head: &AuditHead,
    records: impl IntoIterator<Item = &'a AuditRecord>,
) -> Result<(), AuditError> {
    let mut chain = AuditChain::start(&head.incarnation);
    for record in records {
        chain.check(record)?;
        if chain.sequence == head.sequence && chain.hash != head.hash {
            return Err(AuditError::Changed { sequence: head.sequence });
        }
    }
    if chain.sequence < head.sequence {
        return Err(AuditError::Truncated { expected: head.sequence, found: chain.sequence });
    }
    Ok(())
}

fn sha256(octets: &[u8]) -> Digest {
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest::digest(&digest::SHA256, octets).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

const LABEL: &str = "chancery audit v1";
