//! Orders (RFC 8555 §7.1.3).

use std::time::Duration;

use pki::Timestamp;

use crate::{AuthorizationRow, word::word_enum};

word_enum! {
    /// RFC 8555 §7.1.6.
    pub enum OrderStatus {
        /// Waits for authorizations.
        Pending = "pending",
        /// Waits for its CSR.
        Ready = "ready",
        /// The signer is, or may be, at it.
        Processing = "processing",
        /// Has its certificate.
        Valid = "valid",
        /// Will never have one.
        Invalid = "invalid",
    }
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// Its id, made by a signer.
    pub id: String,
    /// The directory.
    pub directory: String,
    /// The account's id.
    pub account: String,
    /// Its status; `pending` may be `ready` or `invalid` by now: its authorizations say.
    pub status: OrderStatus,
    /// The ids of its authorizations. Never changes (RFC 8555 §7.4).
    pub authorizations: Vec<String>,
    /// The certificate that it is to replace (RFC 9773 §4.1): of the orders that name one, at most one is not `invalid`.
    pub replaces: Option<String>,
    /// Everything else, as the front's JSON: names, JWSs, receipts, error, serial.
    pub state: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be used; afterwards it is purged.
    pub expires_at: Timestamp,
    /// Until when, while `processing`, others keep off: milliseconds since the epoch, by the
    /// database's clock.
    pub lease_until_ms: Option<i64>,
    /// Rises with every change, from 1.
    pub version: u64,
}

/// An order to be kept, with those of its authorizations that are new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// The order, version 1.
    pub order: OrderRow,
    /// Authorizations that do not exist yet, version 1. One that does is left as it is.
    pub authorizations: Vec<AuthorizationRow>,
    /// How many authorizations the account may have pending with these; none: any number.
    pub bound: Option<PendingBound>,
}

/// A bound on what an account has under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingBound {
    /// Its authorizations that are `pending` and have not expired.
    pub most: u64,
    /// The time.
    pub now: Timestamp,
}

/// What became of a new order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is kept.
    Created,
    /// It was there already, as it is now (an earlier answer was lost). Nothing was written.
    Exists(Box<OrderRow>),
    /// The certificate that it is to replace has this order, which is not stored as `invalid`. Nothing was written.
    Replaced(Box<OrderRow>),
    /// With its authorizations the account would have more pending than its bound. When the first of those that it has expires;
    /// none if it has none. Nothing was written.
    Bounded(Option<Timestamp>),
}

/// A change of an order. What is not named here never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderChange {
    /// Which.
    pub id: String,
    /// The version that it replaces; the new one is one more.
    pub expected: u64,
    /// Its status from now on.
    pub status: OrderStatus,
    /// Its state from now on.
    pub state: String,
    /// Its end from now on.
    pub expires_at: Timestamp,
    /// For how long others keep off; absent unless it is `processing`.
    pub lease: Option<Duration>,
}

/// Which orders in `processing` to take over, among those whose lease has run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessingClaim {
    /// This one.
    Order(String),
    /// Any, those waiting longest first, at most so many.
    Any(u32),
}
