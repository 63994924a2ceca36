//! [`AcmeStore`], method by method: reads on a reading connection, writes through the writer.

use std::time::Duration;

use acme_store::Timestamp;
use acme_store::{
    AcmeStore, AuthorizationRow, CreateOutcome, FailureRow, Hit, HitCount, Identifier, NewOrder, OrderRow,
    Page, Paged, PendingCounts, ProcessingClaim, Purged, SaveOutcome, StoreError, Unit, ValidationEnd,
};
use async_trait::async_trait;

use super::{Acme, Write, authorization, create, limit, order, purge};
use crate::reader::read;

#[async_trait]
impl AcmeStore for Acme {
    async fn create_orders(&self, orders: Vec<NewOrder>) -> Result<Vec<CreateOutcome>, StoreError> {
        Ok(self.writer.write(orders, Write::Create).await?)
    }

    async fn create_authorizations(&self, authorizations: Vec<AuthorizationRow>) -> Result<(), StoreError> {
        self.change(create::CreateAuthorizations(authorizations)).await
    }

    async fn order(&self, id: &str) -> Result<Option<OrderRow>, StoreError> {
        Ok(read!(self.readers, |connection| order::by_id(connection, id))?)
    }

    async fn orders_of_account(
        &self,
        account: &str,
        now: Timestamp,
        page: &Page,
    ) -> Result<Paged<OrderRow>, StoreError> {
        Ok(read!(self.readers, |connection| order::of_account(connection, account, now, page))?)
    }

    async fn authorizations(&self, ids: &[String]) -> Result<Vec<AuthorizationRow>, StoreError> {
        Ok(read!(self.readers, |connection| authorization::by_ids(connection, ids))?)
    }

    async fn reusable_authorizations(
        &self,
        account: &str,
        identifiers: &[Identifier],
        now: Timestamp,
    ) -> Result<Vec<AuthorizationRow>, StoreError> {
        Ok(read!(self.readers, |connection| authorization::reusable(connection, account, identifiers, now))?)
    }

    async fn save(&self, units: Vec<Unit>) -> Result<Vec<SaveOutcome>, StoreError> {
        Ok(self.writer.write(units, Write::Save).await?)
    }

    async fn claim_processing(
        &self,
        claim: &ProcessingClaim,
        lease: Duration,
    ) -> Result<Vec<OrderRow>, StoreError> {
        self.change(order::Claim { claim: claim.clone(), lease }).await
    }

    async fn pending(&self, account: &str, now: Timestamp) -> Result<PendingCounts, StoreError> {
        Ok(read!(self.readers, |connection| order::pending(connection, account, now))?)
    }

    async fn count(&self, hits: Vec<Hit>) -> Result<Vec<HitCount>, StoreError> {
        Ok(self.writer.write(hits, Write::Count).await?)
    }

    async fn end_validations(&self, ends: Vec<ValidationEnd>) -> Result<(), StoreError> {
        Ok(self.writer.write(ends, Write::EndValidations).await?)
    }

    async fn failures(
        &self,
        account: &str,
        identifiers: &[Identifier],
        limit: u32,
    ) -> Result<Vec<FailureRow>, StoreError> {
        Ok(read!(self.readers, |connection| limit::failures(connection, account, identifiers, limit))?)
    }

    async fn purge(&self, before: Timestamp, now: Timestamp, limit: u32) -> Result<Purged, StoreError> {
        self.change(purge::Purge { before, now, limit }).await
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}
