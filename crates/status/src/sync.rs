//! Keeps the shelf in step with the signers: an event stream for speed, a comparison now and then for what it lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use rpc::proto::status::v1::publication_client::PublicationClient;
use rpc::proto::status::v1::{FetchObjectRequest, ListObjectsRequest, ObjectRevision, WatchObjectsRequest};
use runtime::{Dependency, SharedClock};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tonic::Streaming;
use tracing::{debug, error, info, warn};

use crate::config::SyncSection;
use crate::object::{Object, ObjectPath, Revision};
use crate::shelf::{Shelf, Standing};
use crate::spool::{Spool, SpoolError};
use crate::verify::{Batch, Refusal, Verifier};

/// What the loop works with.
pub(crate) struct Sync {
    pub(crate) client: PublicationClient<rpc::Channel>,
    pub(crate) settings: SyncSection,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: SharedClock,
    pub(crate) signers: Dependency,
    pub(crate) disk: Dependency,
}

/// Where objects go: verified, then durable, then served.
pub(crate) struct Store {
    spool: Spool,
    shelf: Arc<Shelf>,
    verifier: Verifier,
    /// Octets that objects may take together: what is served, what is being fetched, and what was replaced and is read.
    total: u64,
    /// The shelf has something that the spool lacks, or no longer has something that it still names.
    behind: AtomicBool,
    /// Held by work on the disk, which goes on when the task that awaits it is dropped.
    busy: Arc<Mutex<()>>,
}

/// Why an object or a list did not come.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("the signer refused: {0}")]
    Status(#[from] Box<tonic::Status>),
    #[error("no answer in time")]
    Silence,
    #[error("more bytes than announced")]
    Oversize,
}

impl From<tonic::Status> for SyncError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Sync {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut poll = interval(self.settings.poll());
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::default();
        let mut events = None;
        loop {
            tokio::select! {
                _ = poll.tick() => self.compare().await,
                () = sleep_until(backoff.next), if events.is_none() => match self.watch().await {
                    Ok(stream) => events = Some(stream),
                    Err(error) => {
                        backoff.fail();
                        self.signers.down(error.to_string());
                    }
                },
                message = next(&mut events), if events.is_some() => match message {
                    Some(first) => {
                        backoff.succeed();
                        let batch = burst(&mut events, first);
                        self.take(batch).await;
                    }
                    None => {
                        events = None;
                        backoff.fail();
                        info!("status.watch_ended");
                    }
                },
            }
        }
    }

    async fn watch(&mut self) -> Result<Streaming<ObjectRevision>, SyncError> {
        let call = self.client.watch_objects(WatchObjectsRequest {});
        Ok(timeout(self.settings.answer(), call).await.map_err(|_| SyncError::Silence)??.into_inner())
    }

    /// Asks for the whole list.
    async fn compare(&mut self) {
        let call = self.client.list_objects(ListObjectsRequest {});
        let answer = match timeout(self.settings.answer(), call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().objects),
            Ok(Err(status)) => Err(SyncError::from(status)),
            Err(_) => Err(SyncError::Silence),
        };
        match answer {
            Ok(objects) => {
                self.signers.up();
                let all = self.take(objects).await;
                self.store.forget(&all, self.clock.now().unix_timestamp());
            }
            Err(error) => {
                metrics::counter!("chancery_status_poll_failures_total").increment(1);
                self.signers.down(error.to_string());
            }
        }
        self.on_disk(Store::catch_up).await;
    }

    /// Fetches and serves what is newer among these. Answers with those that make sense.
    async fn take(&mut self, messages: Vec<ObjectRevision>) -> Vec<Revision> {
        let mut all = Vec::with_capacity(messages.len());
        for message in messages {
            let path = message.path.clone();
            match Revision::try_from(message) {
                Ok(revision) => all.push(revision),
                Err(error) => warn!(path = %path.escape_debug(), %error, "status.unknown_object"),
            }
        }
        let mut wanted: Vec<_> = all.iter().filter(|revision| self.wants(revision)).cloned().collect();
        wanted.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        let mut batch = Vec::new();
        let mut held = 0;
        for revision in wanted {
            if !self.has_room(&revision, held, batch.len()) {
                refused(&revision.path, "too_large");
                continue;
            }
            self.store.shelf.cut_off_readers(self.store.total, held.saturating_add(revision.size));
            match self.fetch(&revision).await {
                Ok(bytes) => {
                    held += revision.size;
                    batch.push((revision, bytes));
                }
                Err(error) => {
                    warn!(path = %revision.path, %error, "status.fetch");
                    refused(&revision.path, "fetch");
                }
            }
            if held >= BATCH_BYTES {
                self.admit(std::mem::take(&mut batch)).await;
                held = 0;
            }
        }
        self.admit(batch).await;
        all
    }

    fn wants(&self, offered: &Revision) -> bool {
        match self.store.shelf.standing(offered) {
            Standing::Newer => true,
            Standing::Same => false,
            Standing::Older => {
                debug!(path = %offered.path, revision = offered.revision, "status.older");
                false
            }
            Standing::Conflict => {
                warn!(path = %offered.path, revision = offered.revision, "status.same_revision_other_bytes");
                refused(&offered.path, "conflict");
                false
            }
        }
    }

    fn has_room(&self, revision: &Revision, held: u64, count: usize) -> bool {
        let shelf = &self.store.shelf;
        let others = shelf.bytes_beside(&revision.path).saturating_add(held);
        let fits = shelf.find(revision.path.as_str()).is_some()
            || shelf.stock(0).objects.saturating_add(count) < self.settings.objects.get();
        revision.size <= self.settings.object_bytes()
            && others.saturating_add(revision.size) <= self.store.total
            && fits
    }

    async fn fetch(&mut self, revision: &Revision) -> Result<Bytes, SyncError> {
        let request =
            FetchObjectRequest { path: revision.path.as_str().to_owned(), revision: revision.revision };
        let patience = self.settings.answer();
        let call = timeout(patience, self.client.fetch_object(request));
        let mut pieces = call.await.map_err(|_| SyncError::Silence)??.into_inner();
        let size = usize::try_from(revision.size).map_err(|_| SyncError::Oversize)?;
        let mut bytes = BytesMut::new();
        while let Some(piece) =
            timeout(patience, pieces.message()).await.map_err(|_| SyncError::Silence)??
        {
            if piece.data.len() > size - bytes.len() {
                return Err(SyncError::Oversize);
            }
            bytes.extend_from_slice(&piece.data);
        }
        Ok(bytes.freeze())
    }

    async fn admit(&self, batch: Vec<(Revision, Bytes)>) {
        if !batch.is_empty() {
            self.on_disk(|store| store.admit(batch)).await;
        }
    }

    /// Verification and disks take their time: not on the threads that answer requests.
    async fn on_disk(&self, work: impl FnOnce(&Store) -> Result<(), SpoolError> + Send + 'static) {
        let store = Arc::clone(&self.store);
        let busy = Arc::clone(&store.busy).lock_owned().await;
        let outcome = tokio::task::spawn_blocking(move || {
            let _busy = busy;
            work(&store)
        })
        .await;
        match outcome {
            Ok(Ok(())) => self.disk.up(),
            Ok(Err(error)) => {
                metrics::counter!("chancery_status_spool_failures_total").increment(1);
                self.disk.down(error.to_string());
            }
            Err(_) => error!("status.admission_panicked"),
        }
    }
}

/// Committed to the spool, and put on the shelf, at least this often while much arrives.
const BATCH_BYTES: u64 = 64 << 20;

impl Store {
    pub(crate) fn new(spool: Spool, shelf: Arc<Shelf>, verifier: Verifier, total: u64) -> Self {
        Self { spool, shelf, verifier, total, behind: AtomicBool::new(false), busy: Arc::default() }
    }

    /// Completes when no work on the disk is under way.
    pub(crate) async fn idle(&self) {
        drop(self.busy.lock().await);
    }

    /// Verified, durable, served: in this order. A disk that fails does not keep a fresh CRL from those who need it; the
    /// spool then lags behind until [`catch_up`](Self::catch_up) succeeds.
    fn admit(&self, batch: Vec<(Revision, Bytes)>) -> Result<(), SpoolError> {
        let Batch { verified, refused: wrong } = self.verifier.verify_all(batch, &self.shelf);
        for (path, refusal) in wrong {
            warn!(%path, %refusal, "status.refused");
            refused(&path, reason(&refusal));
        }
        let (fresh, stale): (Vec<_>, Vec<_>) =
            verified.into_iter().partition(|object| self.shelf.takes(object));
        for object in stale {
            warn!(path = %object.path(), "status.older_content");
            refused(object.path(), "older");
        }
        let kept = self.keep(&fresh);
        self.behind.fetch_or(kept.is_err(), Ordering::Relaxed);
        for object in fresh {
            info!(path = %object.path(), revision = object.revision.revision, "status.published");
            metrics::counter!("chancery_status_published_total").increment(1);
            self.shelf.put(object);
        }
        self.shelf.cut_off_readers(self.total, 0);
        kept
    }

    fn keep(&self, fresh: &[Object]) -> Result<(), SpoolError> {
        let mut manifest = self.shelf.revisions();
        for object in fresh {
            self.spool.keep(&object.revision.sha256, &object.bytes)?;
            manifest.retain(|revision| revision.path != object.revision.path);
            manifest.push(object.revision.clone());
        }
        self.spool.commit(manifest)
    }

    /// Stops serving what is withdrawn and expired.
    fn forget(&self, published: &[Revision], now: i64) {
        let forgotten = self.shelf.forget_expired(published, now);
        if forgotten > 0 {
            info!(objects = forgotten, "status.forgotten");
            self.behind.store(true, Ordering::Relaxed);
        }
    }

    /// Brings the spool to the state of the shelf, where it lags behind.
    fn catch_up(&self) -> Result<(), SpoolError> {
        if !self.behind.load(Ordering::Relaxed) {
            return Ok(());
        }
        for object in self.shelf.objects().iter().filter(|object| !self.spool.has(&object.revision.sha256)) {
            self.spool.keep(&object.revision.sha256, &object.bytes)?;
        }
        self.spool.commit(self.shelf.revisions())?;
        self.behind.store(false, Ordering::Relaxed);
        Ok(())
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Size | Refusal::Digest => "digest",
        Refusal::Signature | Refusal::NotCa => "signature",
        Refusal::UnknownIssuer => "unknown_issuer",
        _ => "malformed",
    }
}

fn refused(path: &ObjectPath, reason: &'static str) {
    debug!(%path, reason, "status.not_served");
    metrics::counter!("chancery_status_refused_total", "reason" => reason).increment(1);
}

async fn next(events: &mut Option<Streaming<ObjectRevision>>) -> Option<ObjectRevision> {
    match events.as_mut()?.message().await {
        Ok(message) => message,
        Err(error) => {
            debug!(%error, "status.watch_failed");
            None
        }
    }
}

/// What has arrived already, so that it costs one commit.
fn burst(events: &mut Option<Streaming<ObjectRevision>>, first: ObjectRevision) -> Vec<ObjectRevision> {
    let mut batch = vec![first];
    while batch.len() < BURST {
        match events.as_mut().and_then(|stream| stream.message().now_or_never()) {
            Some(Ok(Some(message))) => batch.push(message),
            // An end or an error shows again at the next call.
            _ => break,
        }
    }
    batch
}

const BURST: usize = 1024;

/// When the stream is asked for again.
pub(crate) struct Backoff {
    next: Instant,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Instant::now(), failures: 0 }
    }
}

impl Backoff {
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    pub(crate) fn fail(&mut self) {
        // 0.2 s to 12.8 s: soon enough for a restart, rarely enough for a long outage.
        let wait = Duration::from_millis(200) * 2_u32.pow(self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.next = Instant::now() + wait;
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }
}
