//! The nodes as this signer knows them: whose receipts count, and which names a front's certificate may have.
//!
//! A snapshot of the verified rows of `ca`, read again after every change that this signer makes and every few seconds
//! for those of other signers.

use std::collections::BTreeMap;
use std::sync::Arc;

use acme::receipt::{Perspective, ReceiptVerifier};
use arc_swap::ArcSwap;
use ca_store::{CaStore, MacError, NodeRow, NodeState, RowMacKeys, StoreError};
use rpc::{Revoked, Role};

/// The snapshot, replaced as a whole.
#[derive(Debug, Default)]
pub struct Membership {
    nodes: ArcSwap<Nodes>,
}

/// All nodes whose rows are good.
#[derive(Debug, Default)]
pub struct Nodes {
    rows: BTreeMap<(String, String), NodeRow>,
    /// Nodes whose rows somebody changed: whatever the row said, perhaps that it is revoked, they get nothing.
    barred: Vec<Revoked>,
    receipts: BTreeMap<Perspective, ReceiptVerifier>,
}

impl Membership {
    /// The nodes now.
    #[must_use]
    pub fn nodes(&self) -> Arc<Nodes> {
        self.nodes.load_full()
    }

    /// Reads them again. Nodes whose rows were tampered with are shut out; they are answered, to be reported.
    ///
    /// # Errors
    /// By the store: the old snapshot then stays.
    pub async fn reload(&self, store: &dyn CaStore, keys: &RowMacKeys) -> Result<Vec<MacError>, StoreError> {
        let mut nodes = Nodes::default();
        let mut tampered = Vec::new();
        for row in store.nodes().await? {
            let barred = revoked(row.unverified());
            match keys.open(row) {
                Ok(row) => nodes.add(row),
                Err(error) => {
                    nodes.barred.extend(barred);
                    tampered.push(error);
                }
            }
        }
        self.nodes.store(Arc::new(nodes));
        Ok(tampered)
    }
}

impl Nodes {
    fn add(&mut self, row: NodeRow) {
        if row.state == NodeState::Active
            && row.role == Role::Validator.as_str()
            && let Ok(perspective) = row.name.parse::<Perspective>()
            && let Some(key) = row.receipt_key.as_deref().and_then(|key| <&[u8; 32]>::try_from(key).ok())
            && let Ok(verifier) = ReceiptVerifier::new(perspective.clone(), key)
        {
            self.receipts.insert(perspective, verifier);
        }
        self.rows.insert((row.role.clone(), row.name.clone()), row);
    }

    /// How receipts of an active validator are verified.
    #[must_use]
    pub fn receipt_verifier(&self, perspective: &Perspective) -> Option<&ReceiptVerifier> {
        self.receipts.get(perspective)
    }

    /// A node, revoked ones included.
    #[must_use]
    pub fn node(&self, role: Role, name: &str) -> Option<&NodeRow> {
        self.rows.get(&(role.as_str().to_owned(), name.to_owned()))
    }

    /// What the mTLS port refuses.
    pub fn revoked(&self) -> impl Iterator<Item = Revoked> {
        self.rows
            .values()
            .filter(|row| row.state == NodeState::Revoked)
            .filter_map(revoked)
            .chain(self.barred.iter().cloned())
    }

    /// All nodes, revoked ones included.
    pub fn iter(&self) -> impl Iterator<Item = &NodeRow> {
        self.rows.values()
    }
}

fn revoked(row: &NodeRow) -> Option<Revoked> {
    Some(Revoked::Node(row.role.parse().ok()?, row.name.parse().ok()?))
}
