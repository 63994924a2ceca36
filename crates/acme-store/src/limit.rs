//! Counters of limits that fronts share (DESIGN §5, "Limits by trust").

use pki::Timestamp;

use crate::Identifier;

/// Something that happened and is counted, in a window of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What is counted: a limit's name and whose it is (`new-order:192.0.2.1`).
    pub key: String,
    /// When the window began.
    pub window: Timestamp,
    /// When the counter can be forgotten.
    pub expires_at: Timestamp,
    /// How many; 0 asks only, less takes back what was counted before. No counter falls below 0, and of one at 0 nothing is
    /// kept.
    pub count: i32,
}

/// Where a counter stands after a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HitCount(pub u64);

/// How a validation of an account for an identifier ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationEnd {
    /// The account's id.
    pub account: String,
    /// The identifier.
    pub identifier: Identifier,
    /// It failed, or it succeeded: then the failures before it are forgotten.
    pub failure: Option<FailureNote>,
}

/// A failed validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureNote {
    /// When.
    pub at: Timestamp,
    /// When it can be forgotten.
    pub expires_at: Timestamp,
}

/// A failed validation of an account, none of the same identifier having succeeded since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// The identifier.
    pub identifier: Identifier,
    /// When.
    pub at: Timestamp,
}
