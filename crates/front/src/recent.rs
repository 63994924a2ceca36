//! What this front has written a moment ago, so that it need not be read again: an order and its authorizations are looked
//! at some five times within the seconds of their life.
//!
//! Only for a front without peers: nobody else changes its rows. A change is a compare-and-swap in the database all the same, so
//! what is kept here can be old without harm, and rows enter by our own writes alone: a read that was overtaken by a write
//! keeps nothing.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use acme_store::{
    AcmeStore, AuthorizationChange, AuthorizationRow, CreateOutcome, FailureRow, Hit, HitCount, Identifier,
    NewOrder, OrderChange, OrderRow, OrderStatus, Page, Paged, PendingCounts, ProcessingClaim, Purged,
    SaveOutcome, StoreError, Unit, ValidationEnd,
};
use async_trait::async_trait;
use moka::ops::compute::Op;
use moka::sync::Cache;
use pki::Timestamp;

/// What a row takes, usually.
const USUAL_BYTES: u64 = 3_000;
/// How long a row is kept. Most orders are done by then.
const KEPT: Duration = Duration::from_secs(60);

/// A store with a memory.
pub(crate) struct Recent {
    store: Arc<dyn AcmeStore>,
    /// Orders that nobody works on: without a lease, which is the database's to tell.
    orders: Cache<String, Arc<OrderRow>>,
    authorizations: Cache<String, Arc<AuthorizationRow>>,
}

impl Recent {
    /// Keeps up to `rows` rows of the usual size of each kind; long ones count for several.
    pub(crate) fn new(store: Arc<dyn AcmeStore>, rows: u64) -> Self {
        let bytes = rows.saturating_mul(USUAL_BYTES);
        let size = |state: &str| u32::try_from(state.len() + 512).unwrap_or(u32::MAX);
        let orders = Cache::builder()
            .weigher(move |_, row: &Arc<OrderRow>| size(&row.state))
            .max_capacity(bytes)
            .time_to_live(KEPT)
            .build();
        let authorizations = Cache::builder()
            .weigher(move |_, row: &Arc<AuthorizationRow>| size(&row.state))
            .max_capacity(bytes)
            .time_to_live(KEPT)
            .build();
        Self { store, orders, authorizations }
    }

    fn keep(&self, new: NewOrder) {
        self.orders.insert(new.order.id.clone(), Arc::new(new.order));
        for row in new.authorizations {
            self.authorizations.insert(row.id.clone(), Arc::new(row));
        }
    }

    fn order_changed(&self, change: OrderChange) {
        self.orders.entry(change.id).and_compute_with(|entry| match entry {
            Some(entry) if entry.value().version == change.expected && change.lease.is_none() => {
                let row = OrderRow {
                    status: change.status,
                    state: change.state,
                    expires_at: change.expires_at,
                    version: change.expected + 1,
                    ..OrderRow::clone(entry.value())
                };
                // What has ended is hardly looked at again.
                if row.status == OrderStatus::Valid { Op::Remove } else { Op::Put(Arc::new(row)) }
            }
            Some(entry) if entry.value().version > change.expected => Op::Nop,
            Some(_) => Op::Remove,
            None => Op::Nop,
        });
    }

    fn authorization_changed(&self, change: AuthorizationChange) {
        self.authorizations.entry(change.id).and_compute_with(|entry| match entry {
            Some(entry) if entry.value().version == change.expected => Op::Put(Arc::new(AuthorizationRow {
                status: change.status,
                state: change.state,
                expires_at: change.expires_at,
                version: change.expected + 1,
                ..AuthorizationRow::clone(entry.value())
            })),
            Some(entry) if entry.value().version > change.expected => Op::Nop,
            Some(_) => Op::Remove,
            None => Op::Nop,
        });
    }

    fn forget(&self, unit: &Unit) {
        unit.orders.iter().for_each(|change| self.orders.invalidate(&change.id));
        unit.authorizations.iter().for_each(|change| self.authorizations.invalidate(&change.id));
    }
}

/// Changes whose outcome is not known. A caller that went away, or a failure, leaves it so: what they change is forgotten,
/// for the database may have it by now.
struct Pending<'a> {
    recent: &'a Recent,
    units: Vec<Unit>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.units.iter().for_each(|unit| self.recent.forget(unit));
    }
}

#[async_trait]
impl AcmeStore for Recent {
    async fn create_orders(&self, orders: Vec<NewOrder>) -> Result<Vec<CreateOutcome>, StoreError> {
        let outcomes = self.store.create_orders(orders.clone()).await?;
        for (new, outcome) in orders.into_iter().zip(&outcomes) {
            if *outcome == CreateOutcome::Created {
                self.keep(new);
            }
        }
        Ok(outcomes)
    }

    async fn create_authorizations(&self, authorizations: Vec<AuthorizationRow>) -> Result<(), StoreError> {
        self.store.create_authorizations(authorizations).await
    }

    async fn order(&self, id: &str) -> Result<Option<OrderRow>, StoreError> {
        match self.orders.get(id) {
            Some(row) => Ok(Some(OrderRow::clone(&row))),
            None => self.store.order(id).await,
        }
    }

    async fn orders_of_account(
        &self,
        account: &str,
        now: Timestamp,
        page: &Page,
    ) -> Result<Paged<OrderRow>, StoreError> {
        self.store.orders_of_account(account, now, page).await
    }

    async fn authorizations(&self, ids: &[String]) -> Result<Vec<AuthorizationRow>, StoreError> {
        let kept: Option<Vec<_>> = ids.iter().map(|id| self.authorizations.get(id)).collect();
        match kept {
            Some(rows) => Ok(rows.iter().map(|row| AuthorizationRow::clone(row)).collect()),
            None => self.store.authorizations(ids).await,
        }
    }

    async fn reusable_authorizations(
        &self,
        account: &str,
        identifiers: &[Identifier],
        now: Timestamp,
    ) -> Result<Vec<AuthorizationRow>, StoreError> {
        self.store.reusable_authorizations(account, identifiers, now).await
    }

    async fn save(&self, units: Vec<Unit>) -> Result<Vec<SaveOutcome>, StoreError> {
        let mut pending = Pending { recent: self, units };
        let outcomes = self.store.save(pending.units.clone()).await?;
        for (unit, outcome) in mem::take(&mut pending.units).into_iter().zip(&outcomes) {
            match outcome {
                SaveOutcome::Saved => {
                    unit.orders.into_iter().for_each(|change| self.order_changed(change));
                    unit.authorizations.into_iter().for_each(|change| self.authorization_changed(change));
                }
                SaveOutcome::Conflict => self.forget(&unit),
            }
        }
        Ok(outcomes)
    }

    async fn claim_processing(
        &self,
        claim: &ProcessingClaim,
        lease: Duration,
    ) -> Result<Vec<OrderRow>, StoreError> {
        let rows = self.store.claim_processing(claim, lease).await?;
        rows.iter().for_each(|row| self.orders.invalidate(&row.id));
        Ok(rows)
    }

    async fn pending(&self, account: &str, now: Timestamp) -> Result<PendingCounts, StoreError> {
        self.store.pending(account, now).await
    }

    async fn count(&self, hits: Vec<Hit>) -> Result<Vec<HitCount>, StoreError> {
        self.store.count(hits).await
    }

    async fn end_validations(&self, ends: Vec<ValidationEnd>) -> Result<(), StoreError> {
        self.store.end_validations(ends).await
    }

    async fn failures(
        &self,
        account: &str,
        identifiers: &[Identifier],
        limit: u32,
    ) -> Result<Vec<FailureRow>, StoreError> {
        self.store.failures(account, identifiers, limit).await
    }

    async fn purge(&self, before: Timestamp, now: Timestamp, limit: u32) -> Result<Purged, StoreError> {
        // What is purged ended long before: nothing of it is kept here.
        self.store.purge(before, now, limit).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[cfg(test)]
mod tests;
