//! What runs by itself: orders whose front died, and objects whose time is over.

use std::sync::Arc;
use std::time::Duration;

use acme_store::ProcessingClaim;
use pki::Period;
use runtime::Dependency;

use crate::finalize;
use crate::service::Front;

/// How often abandoned orders are looked for, at least. The look is one indexed statement.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Orders taken over at once; after an outage there may be many.
const ORDERS_AT_ONCE: u32 = 64;
/// How often old objects are purged.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// Rows of each kind in one transaction: a purge must not hold up clients.
const PURGE_ROWS: u32 = 500;

/// Sends the stored requests of abandoned orders again, until the drain.
pub(crate) async fn abandoned_orders(front: Arc<Front>, database: Dependency) {
    let look_every = LOOK_EVERY.min(front.limits.processing_lease() / 3);
    loop {
        match finalize::resume(&front, &ProcessingClaim::Any(ORDERS_AT_ONCE)).await {
            Ok(orders) => {
                database.up();
                if orders > 0 {
                    tracing::info!(orders, "abandoned orders");
                }
            }
            Err(error) => database.down(error.to_string()),
        }
        tokio::select! {
            () = front.draining.cancelled() => return,
            () = tokio::time::sleep(look_every) => {}
        }
    }
}

/// Forgets what nobody can use any more, until the drain.
pub(crate) async fn old_objects(front: Arc<Front>) {
    loop {
        purge(&front).await;
        tokio::select! {
            () = front.draining.cancelled() => return,
            () = tokio::time::sleep(PURGE_EVERY) => {}
        }
    }
}

async fn purge(front: &Front) {
    let now = front.now();
    let before = now.minus(Period::from_days(front.limits.retention_days));
    while !front.draining.is_cancelled() {
        match front.store.purge(before, now, PURGE_ROWS).await {
            Ok(purged) if purged.is_empty() => return,
            Ok(purged) => {
                tracing::info!(orders = purged.orders, authorizations = purged.authorizations, "purged")
            }
            Err(error) => {
                tracing::warn!(%error, "old objects are not purged");
                return;
            }
        }
    }
}
