//! Counters of limits that fronts share (DESIGN §5, "Limits by trust").

use std::collections::BTreeSet;

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

/// What the ends of a batch leave, one after another.
#[derive(Debug, Default)]
pub struct Ended<'a> {
    /// Accounts and identifiers (value, wildcard) whose failures from before the batch are forgotten.
    pub forgotten: BTreeSet<(&'a str, &'a str, bool)>,
    /// Failures that are remembered.
    pub failed: Vec<(&'a ValidationEnd, FailureNote)>,
}

impl<'a> FromIterator<&'a ValidationEnd> for Ended<'a> {
    fn from_iter<I: IntoIterator<Item = &'a ValidationEnd>>(ends: I) -> Self {
        let mut ended = Self::default();
        for end in ends {
            if let Some(note) = end.failure {
                ended.failed.push((end, note));
                continue;
            }
            ended.failed.retain(|(of, _)| of.account != end.account || of.identifier != end.identifier);
            let identifier = &end.identifier;
            ended.forgotten.insert((&end.account, &identifier.value, identifier.wildcard));
        }
        ended
    }
}

/// A failed validation of an account, none of the same identifier having succeeded since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// The identifier.
    pub identifier: Identifier,
    /// When.
    pub at: Timestamp,
}
