//! A clock that moves when a test says so.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use runtime::Clock;
use time::{OffsetDateTime, macros::datetime};

/// Stands still until it is told otherwise. Clones are one clock.
#[derive(Clone, Debug)]
pub struct TestClock {
    now: Arc<Mutex<OffsetDateTime>>,
}

impl TestClock {
    /// At this time.
    pub fn at(now: OffsetDateTime) -> Self {
        Self { now: Arc::new(Mutex::new(now)) }
    }

    /// Goes there, forward or backward.
    pub fn set(&self, now: OffsetDateTime) {
        *self.now.lock() = now;
    }

    /// Goes forward.
    pub fn advance(&self, by: Duration) {
        *self.now.lock() += by;
    }

    /// Goes backward: what a bad time server does.
    pub fn rewind(&self, by: Duration) {
        *self.now.lock() -= by;
    }

    /// To hand to what is tested.
    pub fn shared(&self) -> runtime::SharedClock {
        Arc::new(self.clone())
    }
}

impl Default for TestClock {
    /// At a moment on which nothing depends.
    fn default() -> Self {
        Self::at(datetime!(2026-11-24 12:00 UTC))
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        *self.now.lock()
    }
}
