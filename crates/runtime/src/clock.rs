//! Time is an argument.

use std::{fmt::Debug, sync::Arc};

use time::OffsetDateTime;

/// Where the time comes from. `testkit` has one that stands still.
pub trait Clock: Debug + Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> OffsetDateTime;
}

/// A clock to hand around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the ambient time comes in")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}
