//! The trait that the backends of the fronts' database implement.

use std::time::Duration;

use async_trait::async_trait;
use pki::Timestamp;

use crate::{
    AuthorizationChange, AuthorizationRow, CreateOutcome, FailureRow, Hit, HitCount, Identifier, NewOrder,
    OrderChange, OrderRow, Page, Paged, ProcessingClaim, StoreError, ValidationEnd,
};

/// The fronts' database. See the crate's documentation for what all methods promise.
///
/// Every write can be repeated after [`StoreError::OutcomeUnknown`]: the second time it answers
/// with what the first left (a save then says [`SaveOutcome::Conflict`]: read again).
#[async_trait]
pub trait AcmeStore: Send + Sync + 'static {
    /// Keeps new orders with their new authorizations. One outcome an order, in order.
    async fn create_orders(&self, orders: Vec<NewOrder>) -> Result<Vec<CreateOutcome>, StoreError>;

    /// Keeps authorizations that belong to no order (RFC 8555 §7.4.1); those that exist are left as
    /// they are.
    async fn create_authorizations(&self, authorizations: Vec<AuthorizationRow>) -> Result<(), StoreError>;

    /// An order.
    async fn order(&self, id: &str) -> Result<Option<OrderRow>, StoreError>;

    /// An account's orders that have not expired at `now`, oldest first (RFC 8555 §7.1.2.1).
    async fn orders_of_account(
        &self,
        account: &str,
        now: Timestamp,
        page: &Page,
    ) -> Result<Paged<OrderRow>, StoreError>;

    /// Those of these authorizations that exist, in the order asked for.
    async fn authorizations(&self, ids: &[String]) -> Result<Vec<AuthorizationRow>, StoreError>;

    /// For each of these identifiers the account's `valid` authorization that lasts longest, if it
    /// lasts beyond `now`.
    async fn reusable_authorizations(
        &self,
        account: &str,
        identifiers: &[Identifier],
        now: Timestamp,
    ) -> Result<Vec<AuthorizationRow>, StoreError>;

    /// Changes orders and authorizations by compare-and-swap. All changes of a unit are made, or
    /// none; units do not affect each other. One outcome a unit, in order.
    async fn save(&self, units: Vec<Unit>) -> Result<Vec<SaveOutcome>, StoreError>;

    /// Takes over orders in `processing` whose lease has run out. Their version rises.
    async fn claim_processing(
        &self,
        claim: &ProcessingClaim,
        lease: Duration,
    ) -> Result<Vec<OrderRow>, StoreError>;

    /// How much an account has under way at `now`.
    async fn pending(&self, account: &str, now: Timestamp) -> Result<PendingCounts, StoreError>;

    /// Counts hits. One count a hit, in order, itself included.
    async fn count(&self, hits: Vec<Hit>) -> Result<Vec<HitCount>, StoreError>;

    /// Notes how validations ended, in order.
    async fn end_validations(&self, ends: Vec<ValidationEnd>) -> Result<(), StoreError>;

    /// The failed validations of an account for any of these identifiers, as far as they are remembered and none has
    /// succeeded since; latest first, up to `limit`.
    async fn failures(
        &self,
        account: &str,
        identifiers: &[Identifier],
        limit: u32,
    ) -> Result<Vec<FailureRow>, StoreError>;

    /// Forgets up to `limit` of each kind: orders and authorizations that expired before `before`, but for orders in
    /// `processing`; counters and failures that expired before `now`, of which nobody wants to know afterwards. Repeat until
    /// nothing was purged.
    async fn purge(&self, before: Timestamp, now: Timestamp, limit: u32) -> Result<Purged, StoreError>;

    /// Waits for writes that were accepted, refuses new ones, closes the database.
    async fn close(&self);
}

/// Changes that are made together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Of orders.
    pub orders: Vec<OrderChange>,
    /// Of authorizations.
    pub authorizations: Vec<AuthorizationChange>,
}

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveOutcome {
    /// It was saved.
    Saved,
    /// Something in it has another version, or does not exist; nothing of it was saved.
    Conflict,
}

/// How much an account has under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingCounts {
    /// Its orders that are `pending`, `ready` or `processing` and have not expired.
    pub orders: u64,
    /// Its authorizations that are `pending` and have not expired.
    pub authorizations: u64,
    /// When the first of those expires.
    pub first_expires_at: Option<Timestamp>,
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Orders.
    pub orders: u64,
    /// Authorizations.
    pub authorizations: u64,
    /// Counters.
    pub counters: u64,
    /// Failed validations.
    pub failures: u64,
}

impl Purged {
    /// Whether nothing was.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.orders == 0 && self.authorizations == 0 && self.counters == 0 && self.failures == 0
    }
}
