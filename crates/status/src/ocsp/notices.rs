//! Follows the signers' notices of revocations: what is named is no longer served, and asked for again, at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pki::Serial;
use rpc::proto::status::v1::responder_client::ResponderClient;
use rpc::proto::status::v1::{
    ListRevisionsRequest, RevocationNotice, ShardRevision, WatchRevocationsRequest,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tonic::Streaming;
use tracing::{debug, info, warn};

use super::answer::ShardKey;
use super::asker::Asker;
use super::log::Entry;
use crate::sync::Backoff;

/// The loop.
pub(crate) struct Notices {
    pub(crate) client: ResponderClient<rpc::Channel>,
    pub(crate) asker: Arc<Asker>,
    /// Whether what was revoked while this node was away is known, or nobody can be asked.
    pub(crate) is_settled: Arc<AtomicBool>,
}

/// What a signer had at the last comparison and this node had not heard of.
#[derive(Default)]
struct Suspicion {
    shards: Vec<(ShardKey, u64)>,
    since: Option<Instant>,
    /// A stream that was opened to hear of it did not tell.
    was_asked: bool,
}

/// A notice that is on its way when a list is made comes within this time; the first one of a stream that has much to tell,
/// within that.
const GRACE: Duration = Duration::from_millis(500);
const LONG_GRACE: Duration = Duration::from_secs(5);
/// Answers from the spool are served before notices since they were made are known only when no signer tells within this time.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

impl Notices {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let started = Instant::now();
        let mut poll = interval(self.asker.settings.poll());
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.reset();
        let mut backoff = Backoff::default();
        let mut suspicion = Suspicion::default();
        let mut was_rewound = false;
        let mut stream = None;
        loop {
            tokio::select! {
                () = sleep_until(backoff.next()), if stream.is_none() => match self.open().await {
                    Ok((opened, listed)) => {
                        stream = Some(opened);
                        backoff.succeed();
                        // What was missed comes first.
                        suspicion = Suspicion::of(self.asker.truth.compare(&listed).behind, true);
                        if suspicion.shards.is_empty() {
                            self.settle();
                        }
                    }
                    Err(error) => {
                        debug!(error, "status.ocsp_watch");
                        self.asker.signers.down(error);
                        backoff.fail();
                        self.settle();
                    }
                },
                message = next(&mut stream), if stream.is_some() => {
                    if let Some(notice) = message {
                        self.hear(&notice);
                        if self.asker.truth.still_behind(&suspicion.shards).is_empty() {
                            suspicion = Suspicion::default();
                            self.settle();
                        }
                    } else {
                        info!("status.ocsp_watch_ended");
                        stream = None;
                        backoff.fail();
                    }
                },
                () = suspicion.ripe() => {
                    suspicion.shards = self.asker.truth.still_behind(&suspicion.shards);
                    if suspicion.shards.is_empty() {
                        suspicion = Suspicion::default();
                    } else if suspicion.was_asked {
                        self.distrust(std::mem::take(&mut suspicion).shards);
                    } else {
                        metrics::counter!("chancery_status_ocsp_notices_lost_total").increment(1);
                        suspicion.since = None;
                        stream = None;
                    }
                    self.settle();
                },
                () = sleep_until(started + SETTLE_WITHIN), if !self.is_settled() => self.settle(),
                _ = poll.tick(), if stream.is_some() => {
                    match self.list().await {
                        Ok(listed) => {
                            let comparison = self.asker.truth.compare(&listed);
                            if was_rewound {
                                // A stream that was opened since then did not tell.
                                self.distrust(comparison.rewound.clone());
                            }
                            was_rewound = !comparison.rewound.is_empty() && !was_rewound;
                            if was_rewound || self.asker.truth.is_strange() {
                                // A new one is asked about every shard, and says what became of it.
                                stream = None;
                            } else if !comparison.behind.is_empty() && suspicion.shards.is_empty() {
                                suspicion = Suspicion::of(comparison.behind, false);
                            }
                        }
                        Err(error) => {
                            self.asker.signers.down(error);
                            stream = None;
                        }
                    }
                },
                () = tokio::time::sleep(STRANGE_EVERY), if stream.is_some() && self.asker.truth.is_strange() => {
                    stream = None;
                },
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    fn settle(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }

    async fn list(&mut self) -> Result<Vec<ShardRevision>, String> {
        let mut request = tonic::Request::new(ListRevisionsRequest {});
        request.set_timeout(PATIENCE);
        match timeout(PATIENCE, self.client.list_revisions(request)).await {
            Ok(Ok(listed)) => Ok(listed.into_inner().shards),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Asks for notices about every shard: those of which nothing is kept, from their present revision on.
    async fn open(&mut self) -> Result<(Streaming<RevocationNotice>, Vec<ShardRevision>), String> {
        let listed = self.list().await?;
        for one in &listed {
            self.asker.truth.begin(ShardKey::new(&one.issuer_id, one.shard), one.revision);
        }
        let request = WatchRevocationsRequest { known: self.asker.truth.known() };
        match timeout(PATIENCE, self.client.watch_revocations(request)).await {
            Ok(Ok(stream)) => {
                self.asker.signers.up();
                Ok((stream.into_inner(), listed))
            }
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// First it is remembered, so that nothing older is kept from now on; then nothing older is served; then the log says so; then
    /// the revision counts as known.
    fn hear(&self, notice: &RevocationNotice) {
        let Some(told) = &notice.shard else {
            warn!("status.ocsp_notice_without_shard");
            return;
        };
        let shard = ShardKey::new(&told.issuer_id, told.shard);
        let (truth, cache, journal) = (&self.asker.truth, &self.asker.cache, &self.asker.journal);
        if notice.reset {
            truth.reset(&shard, told.revision);
            let removed = cache.remove_shard(&shard);
            warn!(issuer = %shard.issuer, shard = shard.number, removed, "status.ocsp_reset");
            journal.note(Entry::Reset { shard, revision: told.revision });
            return;
        }
        let serials: Vec<_> = notice.serials.iter().filter_map(|octets| serial(octets)).collect();
        let revision = match truth.revision(&shard) {
            // A piece of a longer notice.
            Some(known) if told.revision == known => None,
            // Old news, told once more.
            Some(known) => Some(told.revision.max(known)),
            None => Some(told.revision),
        };
        truth.hear(&shard, revision, &serials);
        let before = revision.unwrap_or(u64::MAX);
        let mut dropped = Vec::new();
        for serial in &serials {
            dropped.extend(cache.remove(&shard, serial, before));
            // Also of what is not in memory: the log may have it still.
            journal.note(Entry::Drop { shard: shard.clone(), serial: *serial, before });
        }
        if let Some(revision) = revision {
            truth.settle(&shard, revision);
            journal.note(Entry::Known { shard, revision });
        }
        if !dropped.is_empty() {
            metrics::counter!("chancery_status_ocsp_dropped_total").increment(dropped.len() as u64);
            self.asker.renew(&dropped);
        }
    }

    /// A signer has a revision that no stream tells of: everything of the shard may be wrong.
    fn distrust(&self, shards: Vec<(ShardKey, u64)>) {
        for (shard, revision) in shards {
            let removed = self.asker.cache.remove_shard(&shard);
            self.asker.truth.reset(&shard, revision);
            // What was kept between the two.
            self.asker.cache.remove_shard(&shard);
            warn!(issuer = %shard.issuer, shard = shard.number, removed, "status.ocsp_notices_missing");
            self.asker.journal.note(Entry::Reset { shard, revision });
        }
    }
}

impl Suspicion {
    fn of(shards: Vec<(ShardKey, u64)>, was_asked: bool) -> Self {
        Self { since: Some(Instant::now()), was_asked, shards }
    }

    async fn ripe(&self) {
        match self.since {
            Some(since) if !self.shards.is_empty() => {
                sleep_until(since + if self.was_asked { LONG_GRACE } else { GRACE }).await;
            }
            _ => std::future::pending().await,
        }
    }
}

async fn next(stream: &mut Option<Streaming<RevocationNotice>>) -> Option<RevocationNotice> {
    match stream.as_mut()?.message().await {
        Ok(message) => message,
        Err(error) => {
            debug!(%error, "status.ocsp_watch_failed");
            None
        }
    }
}

/// The content of an INTEGER, or its magnitude without the sign's octet.
fn serial(octets: &[u8]) -> Option<Serial> {
    Serial::from_bytes(octets)
        .or_else(|_| {
            let mut padded = vec![0];
            padded.extend_from_slice(octets);
            Serial::from_bytes(&padded)
        })
        .ok()
}

/// A list, or the beginning of a stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// New shards are rare, and several come together.
const STRANGE_EVERY: Duration = Duration::from_millis(200);
