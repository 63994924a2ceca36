//! When certificates are to be renewed, as a directory says it (RFC 9773).

use pki::Period;
use serde::{Deserialize, Serialize};

/// Renewal information of a directory.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct RenewalPolicy {
    /// Whether the directory has `renewalInfo`, and takes `replaces` in orders. Without it `replaces` means nothing. Default true.
    pub offered: bool,
    /// From when on a certificate is to be renewed, in hundredths of its lifetime: 1 to 98. Default 66.
    pub renewal_at_percent: u8,
    /// How long from then on all certificates' windows take, in hundredths of the lifetime: 2 at least, and with
    /// `renewal_at_percent` 100 at most. The window of one certificate is half as long; where it begins is its serial's, so
    /// that clients are spread. Default 20.
    pub renewal_window_percent: u8,
    /// When clients, and caches, are to ask again: 1 minute to 7 days. Of a certificate in an incident: after an hour, if this
    /// is longer. Default 6 hours.
    pub retry_after: Period,
}

impl Default for RenewalPolicy {
    fn default() -> Self {
        Self {
            offered: true,
            renewal_at_percent: 66,
            renewal_window_percent: 20,
            retry_after: Period::from_hours(6),
        }
    }
}

impl RenewalPolicy {
    /// What is out of its range, and the range.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let (at, window) = (self.renewal_at_percent, self.renewal_window_percent);
        if !(1..=98).contains(&at) {
            return Some(("renewal.renewal_at_percent", "from 1 to 98"));
        }
        if window < 2 || u16::from(at) + u16::from(window) > 100 {
            return Some((
                "renewal.renewal_window_percent",
                "at least 2, and with renewal_at_percent at most 100",
            ));
        }
        let retry_after = self.retry_after.seconds();
        (!(60..=7 * 86_400).contains(&retry_after))
            .then_some(("renewal.retry_after", "from 1 minute to 7 days"))
    }
}
