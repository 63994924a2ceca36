//! Accounts in memory, as long as the signer says when they change.
//!
//! A front's caches may be stale without harm to issuance (DESIGN §2.9): the signer verifies everything against its own
//! rows. This one is not stale either: it is used only while the signer's stream of changes lives, and emptied when that
//! breaks, so that a key that was changed at one front is refused at once at every other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use acme::{AccountId, DirectoryName};
use moka::future::Cache;
use rpc::Account;
use runtime::Dependency;
use tokio_util::sync::CancellationToken;

use crate::signer::{Signer, SignerError};

/// How soon the stream is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// The cache.
#[derive(Debug)]
pub(crate) struct Accounts {
    cache: Cache<AccountId, Arc<Account>>,
    /// Whether the stream lives.
    live: AtomicBool,
    /// Counts invalidations: what was asked before one must not be kept after it.
    changes: AtomicU64,
}

/// When a question was asked, in invalidations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Accounts {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { cache: Cache::new(capacity), live: AtomicBool::new(false), changes: AtomicU64::new(0) }
    }

    /// The account of this id in this directory.
    pub(crate) async fn find(
        &self,
        signer: &Signer,
        directory: &DirectoryName,
        id: &AccountId,
    ) -> Result<Option<Arc<Account>>, SignerError> {
        if self.live.load(Ordering::SeqCst)
            && let Some(known) = self.cache.get(id).await
        {
            return Ok(Some(known).filter(|account| account.directory == *directory));
        }
        let moment = self.moment();
        let Some(account) = signer.look_up(directory, id).await? else { return Ok(None) };
        if account.id != *id || account.directory != *directory {
            return Err(SignerError::Answer("another account"));
        }
        let account = Arc::new(account);
        self.keep(Arc::clone(&account), moment).await;
        Ok(Some(account))
    }

    /// Now; to be taken before the signer is asked.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.changes.load(Ordering::SeqCst))
    }

    /// Keeps what the signer answered, unless something has changed since it was asked.
    pub(crate) async fn keep(&self, account: Arc<Account>, asked: Moment) {
        if !self.live.load(Ordering::SeqCst) {
            return;
        }
        let id = account.id;
        self.cache.insert(id, account).await;
        // After the insertion: a change before this line is seen here, one after it invalidates what was inserted.
        if self.moment() != asked {
            self.cache.invalidate(&id).await;
        }
    }

    /// Forgets one.
    pub(crate) async fn forget(&self, id: &AccountId) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate(id).await;
    }

    fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate_all();
    }

    /// Follows the signer's stream of changes, until `shutdown`.
    pub(crate) async fn follow(&self, signer: &Signer, notice: Dependency, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                reason = self.listen(signer, &notice) => {
                    self.live.store(false, Ordering::SeqCst);
                    self.forget_all();
                    notice.down(reason);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Until the stream ends; says why it did.
    async fn listen(&self, signer: &Signer, notice: &Dependency) -> String {
        let mut stream = match signer.watch_accounts().await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    for id in &message.account_ids {
                        match id.parse() {
                            Ok(id) => self.forget(&id).await,
                            Err(_) => self.forget_all(),
                        }
                    }
                    // The first message says that changes are heard of from now on.
                    self.live.store(true, Ordering::SeqCst);
                    notice.up();
                }
                Ok(None) => return "the signer ended the stream of account changes".to_owned(),
                Err(status) => return format!("the stream of account changes broke: {:?}", status.code()),
            }
        }
    }
}
