//! Which nodes are no longer nodes: refused at the handshake and at every request, living connections closed.

use std::{collections::HashSet, fmt, sync::Arc};

use pki::Serial;
use tokio::sync::watch;

use crate::identity::{NodeName, PeerIdentity, Role};

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// Every certificate of this node, those to come included.
    Node(Role, NodeName),
    /// The certificate with this serial number.
    Certificate(Serial),
}

/// The shared list. Cheap to clone; all clones are one list.
#[derive(Clone)]
pub struct Revocations {
    list: Arc<watch::Sender<HashSet<Revoked>>>,
}

impl Revocations {
    /// An empty list.
    pub fn new() -> Self {
        Self { list: Arc::new(watch::Sender::new(HashSet::new())) }
    }

    /// Adds one entry: its connections are closed at once.
    pub fn revoke(&self, entry: Revoked) {
        self.list.send_if_modified(|list| list.insert(entry));
    }

    /// Takes the list as the database has it.
    pub fn replace(&self, entries: impl IntoIterator<Item = Revoked>) {
        let new: HashSet<_> = entries.into_iter().collect();
        self.list.send_if_modified(|list| {
            let changed = *list != new;
            *list = new;
            changed
        });
    }

    /// Whether the node or its certificate is on the list.
    pub fn contains(&self, peer: &PeerIdentity) -> bool {
        let list = self.list.borrow();
        // Nearly always empty: no allocation per request then.
        !list.is_empty()
            && (list.contains(&Revoked::Node(peer.role, peer.name.clone()))
                || list.contains(&Revoked::Certificate(peer.serial)))
    }

    /// Completes when the peer is on the list.
    pub(crate) async fn revoked(self, peer: Arc<PeerIdentity>) {
        let mut changes = self.list.subscribe();
        loop {
            if self.contains(&peer) {
                return;
            }
            // The sender lives in `self`: this cannot fail.
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.list.borrow().iter()).finish()
    }
}
