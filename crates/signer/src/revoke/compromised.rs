//! Certificates of keys that are blocked as compromised, and that were not revoked with them: the signer died between the two,
//! or its database went away.

use std::time::Duration;

use ca_store::{BlockedAfter, BlockedKeyRow, LeaseOutcome};
use pki::{Period, Timestamp};

use super::{By, block_reason};
use crate::ca::Ca;
use crate::refusal::Outcome;

/// Every signer looks this often, and when it starts.
pub(crate) const ROUND: Duration = Duration::from_secs(600);
/// Longer than a round takes.
const LEASE: Duration = Duration::from_secs(60);
/// Keys that were blocked longer ago have been looked at often enough, but by a signer that has just been started.
const SINCE: Period = Period::from_days(7);
/// Keys that are read at once.
const PAGE: u32 = 500;

impl Ca {
    /// Revokes what was left of the keys that were blocked, in the last week or `ever`; says how many certificates that were.
    ///
    /// # Errors
    /// When the store does not answer, or the clock cannot be trusted. What was done is done.
    pub async fn finish_compromised(&self, ever: bool) -> Outcome<u64> {
        let name = "compromised keys";
        if !matches!(self.store.claim_lease(name, LEASE).await?, LeaseOutcome::Held { .. }) {
            return Ok(0);
        }
        let finished = self.finish_blocked(ever).await;
        // Freed at once: a signer that is started now has something to finish.
        self.store.claim_lease(name, Duration::ZERO).await?;
        let revoked = finished?;
        if revoked > 0 {
            tracing::warn!(revoked, "revocation.compromised_key_finished");
        }
        Ok(revoked)
    }

    async fn finish_blocked(&self, ever: bool) -> Outcome<u64> {
        let now = self.now()?;
        let since = if ever { Timestamp::from_unix(0) } else { now.minus(SINCE) };
        let mut after = BlockedAfter { at: since, key: [0; 32], limit: PAGE };
        let mut revoked = 0;
        loop {
            let page = self.store.blocked_after(&after).await?;
            let Some(last) = page.last() else { return Ok(revoked) };
            after = BlockedAfter { at: last.at, key: last.spki_sha256, ..after };
            for BlockedKeyRow { spki_sha256, reason, source, .. } in page {
                if reason == block_reason() {
                    revoked += self.revoke_sharers(spki_sha256, None, &By::Block(source), now).await?;
                }
            }
        }
    }
}
