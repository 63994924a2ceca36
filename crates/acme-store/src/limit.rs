//! Counters of limits that fronts share (DESIGN §5, "Limits by trust").

use pki::Timestamp;

/// Something that happened and is counted, in a window of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What is counted: a limit's name and whose it is (`new-order:192.0.2.1`).
    pub key: String,
    /// When the window began.
    pub window: Timestamp,
    /// When the counter can be forgotten.
    pub expires_at: Timestamp,
    /// How many; 0 asks only.
    pub count: u32,
}

/// Where a counter stands after a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HitCount(pub u64);
