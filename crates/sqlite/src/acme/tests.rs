//! The contract of [`AcmeStore`](acme_store::AcmeStore), held by SQLite.

use std::sync::Arc;

use acme_store::{AcmeStore, contract::Fixture};
use async_trait::async_trait;
use tempfile::TempDir;

use super::Acme;
use crate::Options;

/// A database in a folder of its own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }
}

#[async_trait]
impl Fixture for Folder {
    async fn open(&self) -> Arc<dyn AcmeStore> {
        Arc::new(Acme::open(Options::new(self.0.path().join("acme.db"))).await.unwrap())
    }
}

acme_store::contract_suite!(Folder::new());
