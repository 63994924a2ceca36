//! What other signers of the same database change, passed on to this one's bus.
//!
//! While it is not known whether everything is heard, nobody is told that it is: streams of changes end, and do not begin.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ca_store::{Changes, StoreChange};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::ca::Ca;
use crate::events::Change;

/// How soon the store is watched again.
const RETRY: Duration = Duration::from_secs(1);

/// The watch of the store.
pub(crate) struct Others {
    /// The first watch, until it is followed: it was opened before anything was read.
    opened: Mutex<Option<Box<dyn Changes>>>,
    hearing: AtomicBool,
}

impl Others {
    pub(crate) fn new(changes: Box<dyn Changes>) -> Self {
        Self { opened: Mutex::new(Some(changes)), hearing: AtomicBool::new(true) }
    }
}

impl Ca {
    /// Whether every change of another signer is heard.
    pub(crate) fn hears_others(&self) -> bool {
        self.others.hearing.load(Ordering::Acquire)
    }

    /// Passes on what other signers change, until this one drains.
    ///
    /// # Errors
    /// Never: what fails is reported and tried again.
    pub async fn follow_others(&self, draining: CancellationToken) -> Result<(), std::convert::Infallible> {
        let opened = self.others.opened.lock().take();
        draining.run_until_cancelled(self.follow(opened)).await;
        Ok(())
    }

    async fn follow(&self, mut opened: Option<Box<dyn Changes>>) -> std::convert::Infallible {
        loop {
            let changes = match opened.take() {
                Some(changes) => Ok(changes),
                None => self.store.watch().await,
            };
            let lost = match changes {
                Ok(mut changes) => {
                    if !self.hears_others() {
                        // What changed in between was heard by nobody; from here on everything is.
                        self.forget_everything();
                        self.others.hearing.store(true, Ordering::Release);
                    }
                    loop {
                        match changes.next().await {
                            Ok(change) => self.changed_elsewhere(change).await,
                            Err(error) => break error,
                        }
                    }
                }
                Err(error) => error,
            };
            // In this order: who asks afterwards is refused, who asked before is told.
            if self.others.hearing.swap(false, Ordering::AcqRel) {
                tracing::warn!(error = %lost, "signers.not_heard");
            }
            self.forget_everything();
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn changed_elsewhere(&self, change: StoreChange) {
        match change {
            StoreChange::Account(id) => match id.parse() {
                Ok(id) => self.account_changed(&id).await,
                Err(_) => self.forget_everything(),
            },
            StoreChange::Crl(shard) => {
                self.events.announce(Change::Published { issuer: shard.issuer.into() })
            }
            StoreChange::ImportedCrl => self.events.announce(Change::ImportedCrl),
            StoreChange::Revoked(shard) => {
                let (issuer, shard) = (shard.issuer.into(), shard.shard);
                self.events.announce(Change::Revoked { issuer, shard });
            }
            StoreChange::Nodes => {
                if let Err(error) = self.reload_nodes().await {
                    tracing::warn!(%error, "nodes.not_read");
                }
            }
        }
    }

    fn forget_everything(&self) {
        self.accounts.forget_all();
        self.events.announce(Change::Missed);
    }
}
