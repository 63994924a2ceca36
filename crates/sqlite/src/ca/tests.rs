//! The contract of [`CaStore`](ca_store::CaStore), held by SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use ca_store::{CaStore, Incarnation, contract::Fixture};
use tempfile::TempDir;

use super::Ca;
use crate::Options;

/// A database in a folder of its own. It is opened without the lock, so that cases can have two
/// incarnations at once.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn options(&self) -> Options {
        Options::new(self.0.path().join("ca.db"))
    }
}

#[async_trait]
impl Fixture for Folder {
    /// The lock says so.
    fn several_signers(&self) -> bool {
        false
    }

    async fn open(&self, incarnation: Incarnation) -> Arc<dyn CaStore> {
        Arc::new(Ca::open_shared(self.options(), incarnation).await.unwrap())
    }
}

ca_store::contract_suite!(Folder::new());
