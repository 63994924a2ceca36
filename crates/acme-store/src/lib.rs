//! The fronts' database `acme`: its rows, the trait that its backends implement, and the contract
//! suite that they pass.
//!
//! It holds orders, authorizations and counters of limits. It is disposable: losing it loses
//! orders, never certificates; nothing in it is believed by a signer (DESIGN §2.2, §5). A row is
//! the state of an object, as the JSON that `front` writes, beside the few columns that are
//! searched. Rows change by compare-and-swap on their version only.
//!
//! What [`AcmeStore`] promises, whatever the backend: one transaction a method; group commit,
//! without a timer; outcomes for each row, so that one bad row does not fail its neighbours; an
//! answer means durable; times are arguments, leases alone use the database's clock.

mod authorization;
#[cfg(feature = "contract")]
pub mod contract;
mod error;
mod limit;
mod order;
mod page;
mod pending;
mod store;
mod word;

pub use authorization::{AuthorizationChange, AuthorizationRow, AuthorizationStatus, Identifier};
pub use error::StoreError;
pub use limit::{Ended, FailureNote, FailureRow, Hit, HitCount, ValidationEnd};
pub use order::{CreateOutcome, NewOrder, OrderChange, OrderRow, OrderStatus, PendingBound, ProcessingClaim};
pub use page::{Cursor, Page, Paged};
pub use pending::PendingTally;
/// Types of [`pki`] that rows are made of, for backends.
pub use pki::{ErrorClass, Timestamp};
pub use store::{AcmeStore, PendingCounts, Purged, SaveOutcome, Unit};
