//! The fronts' database around a real one, with faults: a crash at every call.

use std::sync::Arc;
use std::time::Duration;

use acme_store::{
    AcmeStore, AuthorizationRow, CreateOutcome, FailureRow, Hit, HitCount, Identifier, NewOrder, OrderRow,
    Page, Paged, PendingCounts, ProcessingClaim, Purged, SaveOutcome, StoreError, Unit, ValidationEnd,
};
use async_trait::async_trait;
use pki::Timestamp;

use crate::store::{Faults, StoreFault, lost};

/// A database that fails when a test says so.
#[derive(Clone)]
pub struct FaultyFrontStore {
    inner: Arc<dyn AcmeStore>,
    faults: Arc<Faults>,
}

impl FaultyFrontStore {
    /// Around a real database.
    #[must_use]
    pub fn new(inner: Arc<dyn AcmeStore>) -> Self {
        Self { inner, faults: Arc::default() }
    }

    /// Lets the next call of a method fail; several are used up in order.
    pub fn fail_next(&self, method: &'static str, fault: StoreFault) {
        self.fail_after(method, 0, fault);
    }

    /// Lets a later call of a method fail: the one after so many that do not.
    pub fn fail_after(&self, method: &'static str, calls: usize, fault: StoreFault) {
        self.faults.plan(method, calls, fault);
    }

    /// The methods that were called, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.faults.calls()
    }
}

/// Every method of the trait but `close`: fails on request, else passes on.
macro_rules! passed_on {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl AcmeStore for FaultyFrontStore {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                let fault = self.faults.next(stringify!($name));
                if fault == Some(StoreFault::Failed) {
                    return Err(StoreError::Unavailable(lost()));
                }
                let answer = self.inner.$name($($argument),*).await?;
                match fault {
                    Some(_) => Err(StoreError::OutcomeUnknown(lost())),
                    None => Ok(answer),
                }
            })*

            async fn close(&self) {
                self.inner.close().await;
            }
        }
    };
}

passed_on! {
    fn create_orders(orders: Vec<NewOrder>) -> Vec<CreateOutcome>;
    fn create_authorizations(authorizations: Vec<AuthorizationRow>) -> ();
    fn order(id: &str) -> Option<OrderRow>;
    fn orders_of_account(account: &str, now: Timestamp, page: &Page) -> Paged<OrderRow>;
    fn authorizations(ids: &[String]) -> Vec<AuthorizationRow>;
    fn reusable_authorizations(account: &str, identifiers: &[Identifier], now: Timestamp) -> Vec<AuthorizationRow>;
    fn save(units: Vec<Unit>) -> Vec<SaveOutcome>;
    fn claim_processing(claim: &ProcessingClaim, lease: Duration) -> Vec<OrderRow>;
    fn pending(account: &str, now: Timestamp) -> PendingCounts;
    fn count(hits: Vec<Hit>) -> Vec<HitCount>;
    fn end_validations(ends: Vec<ValidationEnd>) -> ();
    fn failures(account: &str, identifiers: &[Identifier], limit: u32) -> Vec<FailureRow>;
    fn purge(before: Timestamp, now: Timestamp, limit: u32) -> Purged;
}
