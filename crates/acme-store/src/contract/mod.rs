//! What every backend does, as tests: `acme_store::contract_suite!(fixture)` makes a `#[tokio::test]`
//! of each. A fixture is an empty database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests, in a feature that no program has: each case is named after what it shows"
)]

mod authorization;
mod claim;
mod order;
mod retention;
mod sample;
mod save;

use std::sync::Arc;

use async_trait::async_trait;

pub use authorization::*;
pub use claim::*;
pub use order::*;
pub use retention::*;
pub use save::*;

use crate::AcmeStore;

/// A database that is empty at first.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Opens it, beside whoever has it open: several fronts share a database.
    async fn open(&self) -> Arc<dyn AcmeStore>;
}

/// Makes a test of each case, with a new fixture.
#[macro_export]
macro_rules! contract_suite {
    ($fixture:expr) => {
        $crate::contract_suite! { $fixture;
            an_order_reads_back
            an_order_is_created_once
            a_certificate_is_replaced_by_one_order
            what_is_pending_is_bounded
            orders_of_an_account_are_paged
            authorizations_read_back
            an_authorization_is_reused
            what_is_under_way_is_counted
            a_change_needs_its_version
            a_unit_is_saved_whole
            units_do_not_affect_each_other
            one_of_many_savers_wins
            a_long_state_reads_back
            a_stuck_order_is_taken_over
            a_lease_ends_with_processing
            what_is_dead_is_purged
            hits_are_counted
            hits_are_taken_back
            failures_are_counted_until_a_success
            what_was_written_before_closing_is_there
            many_at_once
        }
    };
    ($fixture:expr; $($case:ident)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::contract::$case(&$fixture).await;
            }
        )+
    };
}
