//! The time that a signature may carry (DESIGN §2.10).
//!
//! A signer's time never goes backwards, not even over restarts or from one signer to the next: `ca` keeps a high-water
//! mark. A clock that is a little behind the mark is held at the mark; one that is further behind, or far from the
//! database's clock, may not sign at all.

use std::sync::Arc;
use std::time::Duration;

use ca_store::{CaStore, StoreError};
use parking_lot::Mutex;
use pki::Timestamp;
use tokio::time::Instant;

/// Why time is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The clock shows a time that was passed already.
    #[error("the clock is {seconds} s behind a time that a signer has seen already")]
    Behind {
        /// By how much.
        seconds: u64,
    },
    /// The clock and the database's clock differ too much.
    #[error("the clock differs from the database's by {milliseconds} ms")]
    Skewed {
        /// By how much.
        milliseconds: u64,
    },
    /// The comparison with the database is too old, or was never made.
    #[error("the clock has not been compared with the database's for too long")]
    Unchecked,
}

/// The signer's clock: a [`runtime::Clock`] under supervision.
#[derive(Debug)]
pub struct SigningClock {
    clock: Arc<dyn runtime::Clock>,
    skew: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The latest time that this or any other signer has seen.
    high_water: Timestamp,
    /// The last comparison with the database: when (on the monotonic clock), and what came of it.
    checked: Option<(Instant, Result<(), ClockError>)>,
}

/// The comparison is made this often.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A comparison counts for so long: some may fail because the database is busy.
const CHECK_LIFETIME: Duration = Duration::from_secs(60);

impl SigningClock {
    /// A clock that may not sign until [`SigningClock::check`] has succeeded once.
    #[must_use]
    pub fn new(clock: Arc<dyn runtime::Clock>, skew: Duration) -> Self {
        let state = State { high_water: Timestamp::from_unix(0), checked: None };
        Self { clock, skew, state: Mutex::new(state) }
    }

    /// The time by which a signature may be made.
    ///
    /// # Errors
    /// When the clock cannot be trusted.
    pub fn now(&self) -> Result<Timestamp, ClockError> {
        let now = self.reading();
        let mut state = self.state.lock();
        match state.checked {
            None => return Err(ClockError::Unchecked),
            Some((at, _)) if at.elapsed() > CHECK_LIFETIME => return Err(ClockError::Unchecked),
            Some((_, outcome)) => outcome?,
        }
        self.held(&mut state, now)
    }

    /// The clock's reading for what is not signed (log lines, refusal counts, expiry of caches).
    #[must_use]
    pub fn reading(&self) -> Timestamp {
        let seconds = self.clock.now().unix_timestamp();
        Timestamp::from_unix(u64::try_from(seconds).unwrap_or(0))
    }

    /// How far clocks of one cluster may differ.
    #[must_use]
    pub const fn skew(&self) -> Duration {
        self.skew
    }

    /// Compares with the database's clock, and raises the common high-water mark.
    ///
    /// # Errors
    /// When the database does not answer. What the comparison says is in [`SigningClock::now`]'s answers.
    pub async fn check(&self, store: &dyn CaStore) -> Result<(), StoreError> {
        let before = Instant::now();
        let now = self.clock.now();
        let reading = self.reading();
        // Read only: a clock that disagrees with the database's must not raise the mark, or every signer would stand still
        // until the time that it showed.
        let answer = store.advance_clock(Timestamp::from_unix(0)).await?;
        // The database read its clock at some moment of the call: the call's duration is not skew.
        let own_ms = now.unix_timestamp_nanos() / 1_000_000;
        let difference = own_ms.abs_diff(i128::from(answer.database_ms));
        let slack = self.skew.saturating_add(before.elapsed()).as_millis();
        let outcome = if difference > slack {
            Err(ClockError::Skewed { milliseconds: u64::try_from(difference).unwrap_or(u64::MAX) })
        } else {
            Ok(())
        };
        if outcome.is_ok() {
            store.advance_clock(reading).await?;
        }
        let mut state = self.state.lock();
        state.high_water = state.high_water.max(answer.high_water);
        state.checked = Some((Instant::now(), outcome));
        Ok(())
    }

    /// `now`, or the high-water mark while `now` is a little behind it.
    fn held(&self, state: &mut State, now: Timestamp) -> Result<Timestamp, ClockError> {
        let behind = state.high_water.since(now);
        if behind.duration() > self.skew {
            return Err(ClockError::Behind { seconds: behind.seconds() });
        }
        state.high_water = state.high_water.max(now);
        Ok(state.high_water)
    }
}
