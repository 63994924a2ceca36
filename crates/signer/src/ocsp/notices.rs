//! What was revoked, for who keeps answers: by event within milliseconds, and by a timer for events that were lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ca_store::{CrlShard, EPOCH_JUMP, RevokedAfter};
use rpc::proto::status::v1 as wire;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tonic::Status;

use crate::ca::Ca;
use crate::events::Change;
use crate::refusal::Outcome;

/// Shards are looked at this often without an event.
const ROUND: Duration = Duration::from_secs(5);
/// A notice names at most this many serials.
const PIECE: u32 = 1000;

/// The revision of every shard, read for all who ask at the same time.
#[derive(Debug, Default)]
pub(super) struct Revisions(tokio::sync::Mutex<Option<(Instant, Arc<BTreeMap<CrlShard, u64>>)>>);

impl Revisions {
    /// The revisions of the shards of issuers that have a responder, not older than this call.
    pub(super) async fn read(&self, ca: &Ca) -> Outcome<Arc<BTreeMap<CrlShard, u64>>> {
        let called = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((read, revisions)) = &*last
            && *read >= called
        {
            return Ok(Arc::clone(revisions));
        }
        let read = Instant::now();
        let rows = ca.store.crl_shards(None).await?;
        // A shard without a row is where its epoch begins.
        let begin = ca.store.info().await?.epoch.number.saturating_sub(1).saturating_mul(EPOCH_JUMP);
        let mut revisions = BTreeMap::new();
        for entry in ca.registry.issuers().filter(|entry| entry.ocsp.is_some()) {
            let shards = (0..entry.shards).map(|shard| CrlShard { issuer: entry.id.clone(), shard });
            revisions.extend(shards.map(|shard| (shard, begin)));
        }
        for row in rows {
            if let Some(revision) = revisions.get_mut(&row.shard) {
                *revision = row.revision;
            }
        }
        let revisions = Arc::new(revisions);
        *last = Some((read, Arc::clone(&revisions)));
        Ok(revisions)
    }
}

/// Tells one status node.
pub(super) struct Teller {
    pub(super) ca: Arc<Ca>,
    pub(super) revisions: Arc<Revisions>,
    /// Subscribed before anything is read.
    pub(super) changes: Receiver<Change>,
    /// Up to where the node knows each shard.
    pub(super) known: BTreeMap<CrlShard, u64>,
    pub(super) sender: Sender<Result<wire::RevocationNotice, Status>>,
}

/// The node is gone, or was told to come again.
struct Ended;

impl Teller {
    /// Until the node goes away, or it cannot be known any more that everything is heard.
    pub(super) async fn tell(mut self) {
        // The end of the stream is all that it needs to know.
        let _: Result<(), Ended> = self.tell_on().await;
    }

    async fn tell_on(&mut self) -> Result<(), Ended> {
        let mut ticks = tokio::time::interval(ROUND);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let change = tokio::select! {
                () = self.sender.closed() => return Err(Ended),
                // At once, the first time.
                _ = ticks.tick() => None,
                change = self.changes.recv() => Some(change),
            };
            match change {
                None | Some(Err(RecvError::Lagged(_))) => self.look_at_all().await?,
                Some(Ok(Change::Missed)) => self.look_again().await?,
                Some(Ok(change)) => self.look_at(change).await?,
                Some(Err(RecvError::Closed)) => return Err(Ended),
            }
        }
    }

    /// Something may have gone unheard. While that goes on, another signer may hear more.
    async fn look_again(&mut self) -> Result<(), Ended> {
        if self.ca.hears_others() {
            return self.look_at_all().await;
        }
        let status = Status::unavailable("changes of other signers are not heard");
        drop(self.sender.send(Err(status)).await);
        Err(Ended)
    }

    /// The shards that changed, this one and those that wait.
    async fn look_at(&mut self, change: Change) -> Result<(), Ended> {
        let mut shards: BTreeSet<CrlShard> = shard_of(change).into_iter().collect();
        loop {
            match self.changes.try_recv() {
                Ok(Change::Missed) => return self.look_again().await,
                Ok(change) => shards.extend(shard_of(change)),
                Err(TryRecvError::Lagged(_)) => return self.look_at_all().await,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        for shard in shards {
            self.tell_changes(shard).await?;
        }
        Ok(())
    }

    async fn look_at_all(&mut self) -> Result<(), Ended> {
        let revisions = match self.revisions.read(&self.ca).await {
            Ok(revisions) => revisions,
            Err(failure) => {
                tracing::warn!(error = %failure, "notices.state_unknown");
                return Ok(());
            }
        };
        for (shard, revision) in revisions.iter() {
            match self.known.get(shard) {
                None => drop(self.known.insert(shard.clone(), *revision)),
                Some(known) if known == revision => {}
                Some(known) if is_later(*revision, *known) => self.tell_changes(shard.clone()).await?,
                // The database was restored: what it has forgotten, nobody can tell.
                Some(_) => {
                    self.known.insert(shard.clone(), *revision);
                    self.send(shard, *revision, Vec::new(), true).await?;
                }
            }
        }
        Ok(())
    }

    /// What was revoked after what the node knows. If it cannot be read now, the timer comes to it again.
    async fn tell_changes(&mut self, shard: CrlShard) -> Result<(), Ended> {
        // Nobody asks for shards that answers cannot rest on.
        let Some(mut known) = self.known.get(&shard).copied() else { return Ok(()) };
        loop {
            let after = RevokedAfter { shard: shard.clone(), revision: known, limit: PIECE };
            let revoked = match self.ca.store.revoked_after(&after).await {
                Ok(revoked) => revoked,
                Err(error) => {
                    tracing::warn!(issuer = shard.issuer, shard = shard.shard, %error, "notices.not_read");
                    return Ok(());
                }
            };
            let Some(last) = revoked.last().map(|last| last.revision) else { return Ok(()) };
            // Those of another epoch say nothing about what lies between; the next look at all finds it.
            if !is_later(last, known) {
                return Ok(());
            }
            let is_all = revoked.len() < PIECE as usize;
            let serials = revoked.iter().map(|one| Bytes::copy_from_slice(one.serial.as_bytes())).collect();
            known = last;
            self.known.insert(shard.clone(), known);
            self.send(&shard, known, serials, false).await?;
            if is_all {
                return Ok(());
            }
        }
    }

    async fn send(
        &self,
        shard: &CrlShard,
        revision: u64,
        serials: Vec<Bytes>,
        reset: bool,
    ) -> Result<(), Ended> {
        let notice = wire::RevocationNotice { shard: Some(message(shard, revision)), serials, reset };
        self.sender.send(Ok(notice)).await.map_err(|_| Ended)
    }
}

pub(super) fn message(shard: &CrlShard, revision: u64) -> wire::ShardRevision {
    wire::ShardRevision { issuer_id: shard.issuer.clone(), shard: shard.shard, revision }
}

fn shard_of(change: Change) -> Option<CrlShard> {
    match change {
        Change::Shard { issuer, shard } | Change::Revoked { issuer, shard } => {
            Some(CrlShard { issuer: issuer.to_string(), shard })
        }
        _ => None,
    }
}

/// Whether everything between two revisions is known: they are of one epoch, in this order.
const fn is_later(revision: u64, known: u64) -> bool {
    revision > known && revision / EPOCH_JUMP == known / EPOCH_JUMP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_of_two_epochs_have_no_order() {
        assert!(is_later(2, 1) && !is_later(1, 1) && !is_later(1, 2));
        assert!(!is_later(EPOCH_JUMP + 1, 1), "restored");
        assert!(is_later(EPOCH_JUMP + 1, EPOCH_JUMP));
    }
}
