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

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation() -> Incarnation {
        Incarnation { id: [3; 16], node: "signer-1".to_owned() }
    }

    fn event(n: u8) -> AuditEvent {
        AuditEvent {
            at: Timestamp::from_unix(u64::from(n)),
            kind: "test".to_owned(),
            actor: "a".to_owned(),
            subject: "s".to_owned(),
            detail: "{}".to_owned(),
        }
    }

    fn chain() -> (AuditHead, Vec<AuditRecord>) {
        let mut chain = AuditChain::start(&incarnation());
        let records: Vec<_> = (0..6).map(|n| chain.append(event(n))).collect();
        let head = AuditHead {
            number: 1,
            incarnation: incarnation(),
            sequence: chain.sequence(),
            hash: *chain.hash(),
        };
        (head, records)
    }

    #[test]
    fn a_chain_holds() {
        let (head, records) = chain();
        assert_eq!(verify_chain(&head, &records), Ok(()));
        // Against an older head too: what came later is no fault.
        let older = AuditHead { sequence: 4, hash: records[3].hash, ..head.clone() };
        assert_eq!(verify_chain(&older, &records), Ok(()));
        // Resumed, it goes on alike.
        let mut resumed = AuditChain::resume(&older);
        assert_eq!(resumed.append(event(4)), records[4]);
        let empty = AuditChain::start(&incarnation());
        assert_eq!((empty.sequence(), AuditChain::start(&incarnation())), (0, empty));
    }

    /// Stored in every database there is, and in checkpoints outside of it.
    #[test]
    fn the_hash_stays_what_it_is() {
        let hex = |hash: &Digest| hash.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let mut chain = AuditChain::start(&incarnation());
        assert_eq!(hex(chain.hash()), "a67047ee614551284308ec7b78c657ddafbb2b0e96b525ff9c016f29cff253f2");
        let record = chain.append(event(7));
        assert_eq!(hex(&record.hash), "5858998fa34b2c5d9742296735e0339c387eb65da18cdae4039be8efa9d3697b");
    }

    #[test]
    fn every_column_of_every_row_counts() {
        let (head, records) = chain();
        let changes: [fn(&mut AuditRecord); 7] = [
            |record| record.event.at = Timestamp::from_unix(99),
            |record| record.event.kind.push('x'),
            |record| record.event.actor.push('x'),
            |record| record.event.subject.push('x'),
            |record| record.event.detail.push('x'),
            |record| record.hash[0] ^= 1,
            // A word moved from one column to the next.
            |record| {
                record.event.subject = format!("{}{}", record.event.actor, record.event.subject);
                record.event.actor.clear();
            },
        ];
        for place in 0..records.len() {
            for change in changes {
                let mut forged = records.clone();
                change(&mut forged[place]);
                let sequence = records[place].sequence;
                assert_eq!(verify_chain(&head, &forged), Err(AuditError::Changed { sequence }));
            }
        }
    }

    #[test]
    fn rows_do_not_vanish_or_move() {
        let (head, records) = chain();
        for place in 0..records.len() {
            let mut fewer = records.clone();
            fewer.remove(place);
            assert!(verify_chain(&head, &fewer).is_err());
            // Renumbered, so that no number is missing.
            for record in &mut fewer[place..] {
                record.sequence -= 1;
            }
            assert!(verify_chain(&head, &fewer).is_err());
        }
        let mut swapped = records.clone();
        swapped.swap(2, 3);
        assert!(verify_chain(&head, &swapped).is_err());
        // A chain written anew is not that of the head.
        let mut other = AuditChain::start(&incarnation());
        let rewritten: Vec<_> = (10..16).map(|n| other.append(event(n))).collect();
        assert_eq!(verify_chain(&head, &rewritten), Err(AuditError::Changed { sequence: 6 }));
        // Nor is that of another incarnation.
        let elsewhere = Incarnation { id: [4; 16], ..incarnation() };
        let head = AuditHead { incarnation: elsewhere, ..head };
        assert_eq!(verify_chain(&head, &records), Err(AuditError::Changed { sequence: 1 }));
    }
}
