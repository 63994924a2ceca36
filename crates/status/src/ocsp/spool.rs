//! Answers on the disk: read at start, written by one task, in the order in which they became true.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime::Dependency;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::answer::{Kept, ShardKey};
use super::cache::Cache;
use super::log::{AnswerLog, Condition, Entry, Record};
use super::truth::Truth;

/// Where what is kept is noted. Never waits: what does not fit is made good by writing the whole file anew.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    sender: mpsc::Sender<Entry>,
    has_lost: Arc<AtomicBool>,
}

impl Journal {
    pub(crate) fn note(&self, entry: Entry) {
        if self.sender.try_send(entry).is_err() {
            self.has_lost.store(true, Ordering::Release);
        }
    }
}

/// Entries that wait for the disk.
const WAITING: usize = 65_536;

/// Puts what the spool has into the cache, unproven, and tells from which revisions on notices are needed.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn load(
    folder: &Path,
    cache: &Cache,
    truth: &Truth,
    now: i64,
) -> io::Result<(AnswerLog, Condition)> {
    let mut known: HashMap<ShardKey, u64> = HashMap::new();
    let mut unreadable = 0;
    let (log, mut condition) = AnswerLog::open(folder, |record| match record {
        Record::Keep { ground, body } => match Kept::read(body, ground) {
            Ok((kept, _)) if kept.next_update <= now => {}
            Ok((kept, _)) => drop(cache.put(Arc::new(kept), false)),
            Err(error) => {
                warn!(%error, "status.ocsp_spool_refused");
                unreadable += 1;
            }
        },
        Record::Drop { shard, serial, before } => drop(cache.remove(&shard, &serial, before)),
        Record::Known { shard, revision } => {
            known.insert(shard, revision);
        }
        Record::Reset { shard, revision } => {
            cache.remove_shard(&shard);
            known.insert(shard, revision);
        }
    })?;
    condition.damaged += unreadable;
    if condition.damaged > 0 {
        // Perhaps what is lost said that something is no longer true: every notice since the oldest answer is needed again.
        known.clear();
    }
    for kept in (0..cache.parts()).flat_map(|index| cache.in_part(index)) {
        let (shard, revision) = (&kept.ground.shard, kept.ground.revision);
        match known.get_mut(shard) {
            None => {
                known.insert(shard.clone(), revision);
            }
            Some(least) if condition.damaged > 0 => *least = revision.min(*least),
            Some(_) => {}
        }
    }
    known.into_iter().for_each(|(shard, revision)| truth.begin(shard, revision));
    Ok((log, condition))
}

/// The task that writes.
pub(crate) struct Writer {
    log: Option<AnswerLog>,
    entries: mpsc::Receiver<Entry>,
    has_lost: Arc<AtomicBool>,
    cache: Arc<Cache>,
    truth: Arc<Truth>,
    disk: Dependency,
}

impl Writer {
    pub(crate) fn new(
        log: AnswerLog,
        condition: Condition,
        cache: Arc<Cache>,
        truth: Arc<Truth>,
        disk: Dependency,
    ) -> (Journal, Self) {
        let (sender, entries) = mpsc::channel(WAITING);
        // What is damaged does not stay in the file.
        let has_lost = Arc::new(AtomicBool::new(condition.damaged > 0));
        let journal = Journal { sender, has_lost: Arc::clone(&has_lost) };
        (journal, Self { log: Some(log), entries, has_lost, cache, truth, disk })
    }

    /// Writes until `stop`, and then what is waiting.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(SYNC_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = self.entries.recv_many(&mut batch, BATCH) => {
                    let entries = std::mem::take(&mut batch);
                    self.on_disk(move |log| log.append(&entries)).await;
                }
                _ = tick.tick() => self.maintain().await,
                () = stop.cancelled() => break,
            }
        }
        self.entries.close();
        while self.entries.recv_many(&mut batch, BATCH).await > 0 {
            let entries = std::mem::take(&mut batch);
            self.on_disk(move |log| log.append(&entries)).await;
        }
        self.maintain().await;
    }

    async fn maintain(&mut self) {
        let Some(log) = &self.log else { return };
        let is_long = log.length() > 2 * self.cache.bytes() as u64 + SLACK;
        let is_broken = log.is_broken();
        if !self.has_lost.swap(false, Ordering::AcqRel) && !is_broken && !is_long {
            self.on_disk(AnswerLog::sync).await;
            return;
        }
        let (cache, truth) = (Arc::clone(&self.cache), Arc::clone(&self.truth));
        // Revisions first: what is true at them is in the cache after they were read.
        let rewritten = self.on_disk(move |log| {
            let known = truth.revisions();
            let known = known.into_iter().map(|(shard, revision)| Entry::Known { shard, revision });
            let kept = (0..cache.parts()).flat_map(|index| cache.in_part(index)).map(Entry::Keep);
            log.rewrite(kept.chain(known))
        });
        if rewritten.await {
            info!(answers = self.cache.len(), "status.ocsp_spool_rewritten");
        } else {
            self.has_lost.store(true, Ordering::Release);
        }
    }

    async fn on_disk(
        &mut self,
        work: impl FnOnce(&mut AnswerLog) -> io::Result<()> + Send + 'static,
    ) -> bool {
        let Some(mut log) = self.log.take() else { return false };
        let outcome = tokio::task::spawn_blocking(move || {
            let was_broken = log.is_broken();
            let outcome = work(&mut log);
            (log, was_broken, outcome)
        })
        .await;
        match outcome {
            Ok((log, was_broken, outcome)) => {
                let is_broken = log.is_broken();
                self.log = Some(log);
                match &outcome {
                    Ok(()) if !is_broken => self.disk.up(),
                    // Said once.
                    Err(_) if was_broken && is_broken => {}
                    Err(error) => {
                        metrics::counter!("chancery_status_spool_failures_total").increment(1);
                        self.disk.down(error.to_string());
                    }
                    Ok(()) => {}
                }
                outcome.is_ok()
            }
            Err(_) => {
                error!("status.ocsp_spool_panicked");
                false
            }
        }
    }
}

/// How much is lost when the machine loses its power: answers, and notices that are told again.
const SYNC_EVERY: Duration = Duration::from_secs(1);
const BATCH: usize = 1024;
/// What has no use any more may take so many bytes beside as much as there is of use.
const SLACK: u64 = 16 << 20;
