//! When a CRL is due, and until when it lives.

use ca_store::{CrlDraft, CrlRow, CrlShardRow, IssuerState};
use pki::{Period, Timestamp};

use crate::registry::IssuerEntry;

/// What a CRL lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Everything.
    Complete,
    /// What was revoked since a complete one (RFC 5280 §5.2.4).
    Delta,
}

/// Whether a CRL is to be made, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It is not.
    Not,
    /// It lacks revocations: the work of the signer that revoked, at first.
    Revoked,
    /// There is none, or its time has come: anybody's work.
    Now,
}

impl Kind {
    /// For metrics and logs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Delta => "delta",
        }
    }

    pub(super) const fn of(row: &CrlRow) -> Self {
        if row.base.is_some() { Self::Delta } else { Self::Complete }
    }

    /// The one of this kind that is published.
    pub(super) const fn published(self, row: &CrlShardRow) -> Option<&CrlRow> {
        match self {
            Self::Complete => row.published.as_ref(),
            Self::Delta => row.published_delta.as_ref(),
        }
    }

    /// As [`Kind::published`].
    pub(super) const fn drafted_after(self, draft: &CrlDraft) -> Option<&CrlRow> {
        match self {
            Self::Complete => draft.published.as_ref(),
            Self::Delta => draft.published_delta.as_ref(),
        }
    }

    /// Where status nodes serve it.
    pub(super) fn path(self, entry: &IssuerEntry, shard: u32) -> String {
        match self {
            Self::Complete => entry.crl_path(shard),
            Self::Delta => entry.delta_crl_path(shard),
        }
    }

    /// From thisUpdate to nextUpdate.
    pub(super) fn lifetime(self, entry: &IssuerEntry) -> Period {
        match (self, entry.deltas) {
            (Self::Delta, Some(deltas)) => deltas.lifetime,
            _ => entry.crl_lifetime,
        }
    }

    /// The longest time between two of them.
    pub(super) fn interval(self, entry: &IssuerEntry) -> Period {
        match self {
            Self::Complete => entry.crl_interval,
            Self::Delta => Period::from_seconds(self.lifetime(entry).seconds() / 2),
        }
    }

    /// Whether a shard needs a new one: none yet, revocations since, or time. `over`: the issuer's last CRLs are due.
    pub(super) fn is_due(
        self,
        entry: &IssuerEntry,
        row: Option<&CrlShardRow>,
        now: Timestamp,
        over: bool,
    ) -> Due {
        let complete = row.and_then(|row| Some((row, row.published.as_ref()?)));
        let published = row.and_then(|row| self.published(row));
        if self == Self::Delta && complete.is_none() {
            return Due::Not;
        }
        let (Some((row, complete)), Some(published)) = (complete, published) else { return Due::Now };
        let is_of_another = is_of_another(published, complete);
        if over {
            // The last CRL is followed by nothing, but for the delta that says so.
            let is_due = !is_last(entry, published) || is_of_another;
            return if is_due { Due::Now } else { Due::Not };
        }
        if published.this_update.plus(self.interval(entry)) <= now || is_of_another {
            return Due::Now;
        }
        let lacks_revocations = match self {
            Self::Complete if entry.deltas.is_some() => has_grown(entry, row, complete),
            Self::Complete | Self::Delta => row.revision > published.revision,
        };
        if lacks_revocations { Due::Revoked } else { Due::Not }
    }
}

/// thisUpdate of the shard's last CRL, complete or delta: it rises with each, as the number does, which both kinds share
/// (RFC 5280 §5.2.3, §5.2.4: those of one time would have one number).
pub(super) fn latest(row: &CrlShardRow) -> Option<Timestamp> {
    row.published.iter().chain(&row.published_delta).map(|crl| crl.this_update).max()
}

/// Number of the shard's last CRL, complete or delta.
pub(super) fn latest_number(row: &CrlShardRow) -> Option<u64> {
    row.published.iter().chain(&row.published_delta).map(|crl| crl.key.number).max()
}

/// Whether everything that was revoked in a shard is in a published CRL, complete or delta.
pub(super) fn has_all(row: &CrlShardRow) -> bool {
    row.published.iter().chain(&row.published_delta).any(|crl| crl.revision >= row.revision)
}

/// A retired issuer whose certificate has ended needs no CRL, and could give none a time to live.
pub(super) fn has_ended(entry: &IssuerEntry, now: Timestamp) -> bool {
    entry.state == IssuerState::Retired && now >= entry.issuer.certificate().not_after()
}

/// Whether a delta is not of the complete CRL that is published.
fn is_of_another(published: &CrlRow, complete: &CrlRow) -> bool {
    published.base.is_some_and(|base| base != complete.key.number)
}

/// Whether the delta has grown so large that a new complete CRL is worth its bytes.
fn has_grown(entry: &IssuerEntry, row: &CrlShardRow, complete: &CrlRow) -> bool {
    let Some((deltas, delta)) = entry.deltas.zip(row.published_delta.as_ref()) else { return false };
    let share = complete.entries.saturating_mul(deltas.percent) / 100;
    !is_of_another(delta, complete) && delta.entries > share.max(deltas.entries)
}

/// The last CRL of a retired issuer lives as long as the issuer's certificate.
fn is_last(entry: &IssuerEntry, row: &CrlRow) -> bool {
    row.next_update == entry.issuer.certificate().not_after()
}

/// Certificates that ended before this are left out. An entry stays until it was in a *scheduled* complete CRL after its
/// certificate's end (BR §7.2): that is not the next one, which an event may make a second later, but comes within two
/// intervals, since an event sets the timer back by one at most. `previous`: thisUpdate of the complete CRL before.
pub(super) fn expired_before(
    previous: Option<Timestamp>,
    this_update: Timestamp,
    entry: &IssuerEntry,
) -> Timestamp {
    previous.unwrap_or(Timestamp::from_unix(0)).min(ended_long_ago(entry, this_update))
}

/// Certificates that ended before this have been in a scheduled CRL since.
pub(super) fn ended_long_ago(entry: &IssuerEntry, now: Timestamp) -> Timestamp {
    now.minus(entry.crl_interval).minus(entry.crl_interval)
}
