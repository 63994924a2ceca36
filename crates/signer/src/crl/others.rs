//! What a keeper of CRLs hears, and how long it leaves other signers' revocations to them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use crate::events::Change;

/// The CRL of a revocation is the work of the signer that revoked, for so long. Then whoever gets the lease makes it: that
/// signer's token may be away, or the signer itself.
pub(super) const OTHERS_FIRST: Duration = Duration::from_millis(300);

/// Something that concerns the CRLs of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// This signer revoked something of that shard.
    Revoked(u32),
    /// Another signer did.
    RevokedByOther(u32),
    /// Another signer published a CRL, which is to be taken up, or something was missed.
    Anything,
}

/// The bus, for one issuer.
pub(super) struct Hearing {
    changes: Receiver<Change>,
    issuer: String,
}

impl Hearing {
    pub(super) fn of(issuer: &str, changes: Receiver<Change>) -> Self {
        Self { changes, issuer: issuer.to_owned() }
    }

    /// The next that there is. Nothing is lost when it is not waited for.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            match self.changes.recv().await {
                Ok(change) => match self.heard(&change) {
                    Some(heard) => return heard,
                    None => continue,
                },
                Err(RecvError::Lagged(_)) => return Heard::Anything,
                // The bus lives as long as the CA; if it were gone, the timers would still do.
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    /// The next one in the queue.
    pub(super) fn queued(&mut self) -> Option<Heard> {
        loop {
            match self.changes.try_recv() {
                Ok(change) => match self.heard(&change) {
                    Some(heard) => return Some(heard),
                    None => continue,
                },
                Err(TryRecvError::Lagged(_)) => return Some(Heard::Anything),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    fn heard(&self, change: &Change) -> Option<Heard> {
        match change {
            Change::Missed => Some(Heard::Anything),
            Change::Published { issuer } if **issuer == *self.issuer => Some(Heard::Anything),
            Change::Shard { issuer, shard } if **issuer == *self.issuer => Some(Heard::Revoked(*shard)),
            Change::Revoked { issuer, shard } if **issuer == *self.issuer => {
                Some(Heard::RevokedByOther(*shard))
            }
            _ => None,
        }
    }
}

/// The shards whose revocations are left to other signers yet.
#[derive(Debug, Default)]
pub(super) struct LeftToOthers(BTreeMap<u32, Left>);

#[derive(Debug)]
struct Left {
    until: Instant,
    /// Number of the shard's last CRL, once it was looked at.
    number: Option<u64>,
}

impl LeftToOthers {
    /// Another signer revoked something of this shard. Answers when to look at it; none when that is planned already, so that
    /// any number of revocations costs one look.
    pub(super) fn revoked(&mut self, shard: u32) -> Option<Instant> {
        match self.0.entry(shard) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                let until = Instant::now() + OTHERS_FIRST;
                vacant.insert(Left { until, number: None });
                Some(until)
            }
        }
    }

    /// A shard whose last CRL has this number lacks revocations. Answers when to look again; none when it is not left to the
    /// others any longer.
    pub(super) fn look(&mut self, shard: u32, number: Option<u64>) -> Option<Instant> {
        let now = Instant::now();
        let anew = now + OTHERS_FIRST;
        let left = self.0.entry(shard).or_insert(Left { until: anew, number });
        // One more since the last look: somebody is at work, and makes the next one.
        if left.number.is_some() && left.number != number {
            left.until = anew;
        }
        left.number = number;
        // Not before: shards that were revoked in at different times are looked at together.
        (left.until > now).then_some(anew)
    }

    /// Nothing of this shard waits.
    pub(super) fn forget(&mut self, shard: u32) {
        self.0.remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_is_left_to_the_others_for_a_while() {
        let mut left = LeftToOthers::default();
        assert!(left.revoked(0).is_some());
        assert_eq!(left.revoked(0), None, "planned already");
        assert!(left.look(0, Some(2)).is_some());
        tokio::time::sleep(OTHERS_FIRST).await;
        assert_eq!(left.look(0, Some(2)), None, "nobody made one");
        assert_eq!(left.look(0, Some(2)), None, "it stays this signer's until one is made");
        assert!(left.look(0, Some(3)).is_some(), "another one is at work: it may make the next");
        assert!(left.look(1, Some(7)).is_some(), "nothing was heard of it, but it lacks something");
        tokio::time::sleep(OTHERS_FIRST).await;
        assert_eq!((left.look(0, Some(3)), left.look(1, Some(7))), (None, None));
        left.forget(0);
        assert!(left.revoked(0).is_some());
    }
}
