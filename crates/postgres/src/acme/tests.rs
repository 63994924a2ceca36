//! The contract of [`AcmeStore`](acme_store::AcmeStore), held by PostgreSQL.

use std::sync::Arc;

use acme_store::{AcmeStore, contract::Fixture};
use async_trait::async_trait;

use super::Acme;
use crate::tests::Server;

#[async_trait]
impl Fixture for Server {
    async fn open(&self) -> Arc<dyn AcmeStore> {
        Arc::new(Acme::open(self.front()).await.unwrap())
    }
}

acme_store::contract_suite!(Server::start().await);
