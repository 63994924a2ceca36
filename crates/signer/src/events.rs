//! What other parts of this signer, and the streams to fronts and status nodes, hear of at once.
//!
//! Events are hints: whoever misses one (a lagging receiver) finds out by its timer or by the store's own check. Other
//! signers' changes come from the store (`others.rs`). Nothing is ever decided by the absence of an event.

use std::sync::Arc;

use tokio::sync::broadcast;

/// Something that others keep copies of has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An account's row or keys: drop it from every cache.
    Account {
        /// Its id.
        id: Arc<str>,
    },
    /// A certificate of this shard was revoked: its CRL is due.
    Shard {
        /// Identity of the issuer in `ca`.
        issuer: Arc<str>,
        /// Shard number.
        shard: u32,
    },
    /// Another signer revoked a certificate of this shard; the CRL is that one's work at first.
    Revoked {
        /// Identity of the issuer in `ca`.
        issuer: Arc<str>,
        /// Shard number.
        shard: u32,
    },
    /// An object for relying parties was published (its path).
    Object {
        /// The path under which status nodes serve it.
        path: Arc<str>,
    },
    /// A node joined, renewed or was revoked.
    Nodes,
    /// The CRL of a root was imported.
    ImportedCrl,
    /// Another signer published a CRL of this issuer.
    Published {
        /// Identity of the issuer in `ca`.
        issuer: Arc<str>,
    },
    /// Changes of other signers may have gone unheard: copies of anything may be old.
    Missed,
}

/// The bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChangeEvents {
    sender: broadcast::Sender<Change>,
}

/// A receiver that lags further behind than this is told so and starts again from the whole.
const CAPACITY: usize = 4096;

impl Default for ChangeEvents {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(CAPACITY) }
    }
}

impl ChangeEvents {
    /// Tells everyone who listens; nobody listening is fine.
    pub fn announce(&self, change: Change) {
        // The error means that there is no receiver.
        let _ = self.sender.send(change);
    }

    /// Hears of everything from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }
}
