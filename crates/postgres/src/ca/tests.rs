//! The contract of [`CaStore`](ca_store::CaStore), held by PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use ca_store::{CaStore, Incarnation, contract::Fixture};

use super::Ca;
use crate::tests::Server;

#[async_trait]
impl Fixture for Server {
    async fn open(&self, incarnation: Incarnation) -> Arc<dyn CaStore> {
        Arc::new(Ca::open(self.signer(), incarnation).await.unwrap())
    }
}

ca_store::contract_suite!(Server::start().await);
