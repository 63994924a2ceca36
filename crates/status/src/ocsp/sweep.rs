//! Looks through the cache, part by part: what is past its `nextUpdate` goes, what will be due and is asked for is renewed.

use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use runtime::Dependency;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::answer::{Kept, Unfit};
use super::asker::Asker;

/// The loop.
pub(crate) struct Sweeper {
    pub(crate) asker: Arc<Asker>,
    /// Whether what is asked for is renewed in time.
    pub(crate) renewal: Dependency,
}

/// Once a second at least, each part is looked at within so many ticks.
const TICK: Duration = Duration::from_millis(250);
/// The cache is looked through in so many ticks.
const TICKS: usize = 16;

impl Sweeper {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let gauges = Gauges::new();
        let cache = &self.asker.cache;
        let at_once = cache.parts().div_ceil(TICKS);
        let hot = u64::from(self.asker.settings.hot_seconds) * 1000;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut part, mut overdue) = (0, 0);
        loop {
            tick.tick().await;
            let now = self.asker.clock.now().unix_timestamp();
            for _ in 0..at_once {
                let (wanted, late) = cache.sweep(part, now, hot);
                self.asker.ahead(&wanted);
                overdue += late;
                part += 1;
                if part == cache.parts() {
                    gauges.set(cache.len(), cache.bytes(), overdue);
                    match overdue {
                        0 => self.renewal.up(),
                        _ => self
                            .renewal
                            .down("answers that are asked for were not renewed when they were due"),
                    }
                    (part, overdue) = (0, 0);
                    break;
                }
            }
        }
    }
}

struct Gauges {
    answers: Gauge,
    bytes: Gauge,
    overdue: Gauge,
}

impl Gauges {
    fn new() -> Self {
        Self {
            answers: metrics::gauge!("chancery_status_ocsp_answers"),
            bytes: metrics::gauge!("chancery_status_ocsp_answers_bytes"),
            overdue: metrics::gauge!("chancery_status_ocsp_overdue"),
        }
    }

    fn set(&self, answers: usize, bytes: usize, overdue: usize) {
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.answers.set(number(answers));
        self.bytes.set(number(bytes));
        self.overdue.set(number(overdue));
    }
}

impl Asker {
    /// Whether an answer's signature is right. What comes from the spool is looked at when it is first asked for, or by
    /// [`prove_all`](Self::prove_all); what is wrong leaves the cache.
    pub(crate) fn is_proven(&self, kept: &Arc<Kept>, now: i64) -> bool {
        if kept.is_proven() {
            return true;
        }
        let proof = Kept::read(kept.body.clone(), kept.ground.clone()).and_then(|(again, response)| {
            self.issuers.prove(&again, &response, now)?;
            kept.set_proven();
            Ok(())
        });
        match proof {
            Ok(()) => true,
            Err(error) => {
                self.cache.reject(kept);
                if error != Unfit::Past {
                    warn!(%error, "status.ocsp_spool_refused");
                    metrics::counter!("chancery_status_refused_total", "reason" => "ocsp_spool").increment(1);
                }
                false
            }
        }
    }

    /// Looks at everything that the spool had.
    pub(crate) async fn prove_all(self: Arc<Self>) {
        let (mut proven, mut refused) = (0_usize, 0_usize);
        for part in 0..self.cache.parts() {
            let all = self.cache.in_part(part);
            for some in all.chunks(PROVEN_AT_ONCE) {
                let (asker, some, count) = (Arc::clone(&self), some.to_vec(), some.len());
                let now = self.clock.now().unix_timestamp();
                let good = tokio::task::spawn_blocking(move || {
                    some.iter().filter(|kept| asker.is_proven(kept, now)).count()
                });
                let good = good.await.unwrap_or(0);
                proven += good;
                refused += count - good.min(count);
            }
        }
        if proven + refused > 0 {
            info!(proven, refused, "status.ocsp_spool");
        }
    }
}

/// Some milliseconds of work.
const PROVEN_AT_ONCE: usize = 64;
