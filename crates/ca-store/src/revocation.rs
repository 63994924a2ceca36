//! Revocations and the CRLs made of them (DESIGN §6).
//!
//! A shard's *revision* counts its revocations; a CRL is made of the revocations up to a revision.
//! Rows keep what they said at each revision, so that the bytes of a journaled CRL can be made
//! again at any later time.

use pki::{Reason, Serial, Timestamp};

use crate::{AuditEvent, BlockedKeyRow, Digest, JournalEntry};

/// A revoked certificate. It grants nothing, so it has no MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationRow {
    /// The certificate.
    pub serial: Serial,
    /// Its issuer.
    pub issuer: String,
    /// Its shard.
    pub shard: u32,
    /// The shard's revision that this revocation made.
    pub revision: u64,
    /// Since when it is revoked.
    pub revoked_at: Timestamp,
    /// Why, at first.
    pub reason: Reason,
    /// Who asked: a word and an id (`account:…`, `key`, `operator:…`).
    pub source: String,
    /// When the certificate ends: it stays in CRLs until one after that.
    pub not_after: Timestamp,
    /// The later word that its key is compromised (RFC 8555 §7.6, BR §7.2.2).
    pub upgrade: Option<Upgrade>,
}

impl RevocationRow {
    /// Why it is revoked, as known now.
    #[must_use]
    pub const fn current_reason(&self) -> Reason {
        if self.upgrade.is_some() { Reason::KeyCompromise } else { self.reason }
    }
}

/// A revocation whose reason became keyCompromise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The shard's revision that it made.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
}

/// A revocation to be made. Issuer, shard and end of validity come from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRevocation {
    /// The certificate.
    pub serial: Serial,
    /// Since when.
    pub at: Timestamp,
    /// Why. When it is keyCompromise and the certificate is revoked for another reason, the
    /// revocation is upgraded if `upgrade` allows it.
    pub reason: Reason,
    /// Whether who asks has shown the key.
    pub upgrade: bool,
    /// Who asks.
    pub source: String,
    /// The client's JWS, kept as evidence.
    pub request: Option<Vec<u8>>,
    /// The key to be blocked with it.
    pub block: Option<BlockedKeyRow>,
    /// What to report if it is made.
    pub audit: Vec<AuditEvent>,
}

/// What became of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// It is revoked now.
    Revoked(RevocationRow),
    /// It was revoked before, and its reason is keyCompromise now.
    Upgraded(RevocationRow),
    /// It was revoked before (perhaps by this request, its answer lost); nothing was written.
    Already(RevocationRow),
    /// The journal does not know it.
    Unknown,
}

/// What a CRL covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CrlShard {
    /// The issuer.
    pub issuer: String,
    /// The shard.
    pub shard: u32,
}

/// Where a shard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlShardRow {
    /// Which.
    pub shard: CrlShard,
    /// The revision of its revocations.
    pub revision: u64,
    /// The greatest number that was allocated.
    pub number: u64,
    /// The full CRL that is published.
    pub published: Option<CrlRow>,
    /// The delta CRL that is published.
    pub published_delta: Option<CrlRow>,
}

/// A CRL to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginCrl {
    /// Of which shard; its row is made if there is none.
    pub shard: CrlShard,
}

/// A CRL's number, and the revision it is made of: both from one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlDraft {
    /// The shard.
    pub shard: CrlShard,
    /// Its number.
    pub number: u64,
    /// Revocations up to this revision are in it.
    pub revision: u64,
    /// The full CRL that is published now: `thisUpdate` must rise above its, and entries that had
    /// not expired by its `thisUpdate` stay. It is the base of a delta.
    pub published: Option<CrlRow>,
    /// The delta CRL that is published now.
    pub published_delta: Option<CrlRow>,
}

/// Which CRL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CrlKey {
    /// The shard.
    pub shard: CrlShard,
    /// The number.
    pub number: u64,
}

/// A journaled CRL: what its bytes can be made of again, and their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlRow {
    /// Which.
    pub key: CrlKey,
    /// Revocations up to this revision are in it.
    pub revision: u64,
    /// For a delta CRL (RFC 5280 §5.2.4): the number of its base.
    pub base: Option<u64>,
    /// For a delta CRL: the revision of its base; changes after it are in the delta.
    pub base_revision: Option<u64>,
    /// `thisUpdate`.
    pub this_update: Timestamp,
    /// `nextUpdate`.
    pub next_update: Timestamp,
    /// Certificates that ended before this time are not in it.
    pub expired_before: Timestamp,
    /// How many entries it has.
    pub entries: u64,
    /// SHA-256 of the bytes to be signed.
    pub tbs_sha256: Digest,
    /// The signature; absent until it is published.
    pub signature: Option<Vec<u8>>,
}

/// A CRL to be journaled: its bytes may be signed afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlJournal {
    /// The row, without signature.
    pub row: CrlRow,
    /// What to report.
    pub audit: Vec<AuditEvent>,
}

/// A CRL to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishCrl {
    /// Which.
    pub key: CrlKey,
    /// Its signature.
    pub signature: Vec<u8>,
    /// What to report if it is published.
    pub audit: Vec<AuditEvent>,
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is the shard's CRL now.
    Published,
    /// One with a greater number, revision or `thisUpdate` is (or this one was published before):
    /// the shard's CRL.
    Superseded(Box<CrlRow>),
    /// It was not journaled.
    Unknown,
}

/// Which entries of a CRL, a piece at a time, in the order in which they were first revoked: it is the order of rows on
/// the disk, and what comes later does not move what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlEntries {
    /// The shard.
    pub shard: CrlShard,
    /// Changes after this revision (0 for a full CRL).
    pub after_revision: u64,
    /// Changes up to this revision.
    pub revision: u64,
    /// Only certificates that end at this time or later.
    pub expired_before: Timestamp,
    /// Only certificates that were first revoked after this revision; 0 at the beginning, then what the last piece
    /// [`reached`](CrlPiece::reached).
    pub after: u64,
    /// How many revisions a piece spans: it has at most as many entries.
    pub span: u32,
}

/// A piece of the entries of a CRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlPiece {
    /// The entries; none only when there are no more.
    pub entries: Vec<CrlEntry>,
    /// The next piece begins after this revision: `after + span`, or more behind a wide gap; the revision of the CRL at the
    /// end.
    pub reached: u64,
}

/// An entry of a CRL, as it was at the revision asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrlEntry {
    /// The certificate.
    pub serial: Serial,
    /// Since when.
    pub revoked_at: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// What a CRL is compared with: an earlier one of its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlSince {
    /// The earlier one.
    pub earlier: CrlKey,
    /// The earlier one's [`tbs_sha256`](CrlRow::tbs_sha256): a database that went back to a backup may not have it.
    pub earlier_tbs_sha256: Digest,
    /// The earlier one's revision.
    pub earlier_revision: u64,
    /// The earlier one's [`expired_before`](CrlRow::expired_before).
    pub earlier_expired_before: Timestamp,
    /// The later one's revision.
    pub revision: u64,
    /// The later one's [`expired_before`](CrlRow::expired_before).
    pub expired_before: Timestamp,
    /// More edits of a kind than so many are not told: reading all entries again is better then.
    pub limit: u32,
}

/// By what the entries that an earlier CRL had differ in a later one. The later one's new entries come after them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrlEdits {
    /// Those whose certificates have ended long enough ago.
    pub left: Vec<Serial>,
    /// Those whose reason has become keyCompromise.
    pub raised: Vec<Serial>,
}

/// By how much a new epoch raises revisions and CRL numbers, of shards that there are and of those to come: more than were
/// made since any backup, at one a millisecond for a year. Two revisions of a shard are of one epoch if they are the same
/// multiple of it.
pub const EPOCH_JUMP: u64 = 1 << 35;

/// A journal entry for who says whether its certificate is good, from one snapshot with its shard's revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The entry, with its revocation.
    pub entry: JournalEntry,
    /// The revision of its shard.
    pub revision: u64,
}

/// Which revocations, a chunk at a time, by the revision that they made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedAfter {
    /// The shard.
    pub shard: CrlShard,
    /// Only what was changed after this revision.
    pub revision: u64,
    /// At most how many.
    pub limit: u32,
}

/// A revocation, or the change of its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The revision that it made.
    pub revision: u64,
    /// The certificate.
    pub serial: Serial,
}
