//! What the operator sees of one place: a notice in the health, metrics, and a line in the log when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use runtime::{Dependency, Lifecycle, SharedClock};

use super::examine::{Found, Standing};
use super::job::{Known, Outcome};
use crate::publication::Objects;

/// The reporter of one place.
pub(super) struct Report {
    name: String,
    notice: Dependency,
    clock: SharedClock,
    failing: BTreeMap<String, String>,
}

impl Report {
    pub(super) fn new(name: &str, lifecycle: &Lifecycle) -> Self {
        Self {
            name: name.to_owned(),
            notice: lifecycle.readiness().notice(format!("publish {name}")),
            clock: lifecycle.clock(),
            failing: BTreeMap::new(),
        }
    }

    /// There is no way to the place at all.
    pub(super) fn unusable(&self, detail: &str) {
        counter!("chancery_publish_failures_total", "target" => self.name.clone()).increment(1);
        self.notice.down(detail);
    }

    pub(super) fn failed(&mut self, path: &str, failures: u32, detail: &str) {
        counter!("chancery_publish_failures_total", "target" => self.name.clone()).increment(1);
        // A place that is away for hours does not fill the log.
        if failures == 1 {
            tracing::warn!(publish = self.name, path, error = detail, "publish.failed");
        } else {
            tracing::debug!(publish = self.name, path, failures, error = detail, "publish.failed");
        }
        self.failing.insert(path.to_owned(), detail.to_owned());
    }

    /// `lag`: since it was published here.
    pub(super) fn succeeded(&mut self, path: &str, outcome: Outcome, lag: Option<Duration>) {
        self.failing.remove(path);
        let written = match outcome {
            Outcome::Created => Some("created"),
            Outcome::Replaced => Some("replaced"),
            Outcome::Same | Outcome::Ahead | Outcome::NotAtHand => None,
        };
        if let Some(outcome) = written {
            tracing::debug!(publish = self.name, path, outcome, "publish.written");
            counter!("chancery_publish_writes_total", "target" => self.name.clone(), "outcome" => outcome)
                .increment(1);
        }
        if outcome != Outcome::NotAtHand {
            let now = self.clock.now().unix_timestamp();
            self.gauge("chancery_publish_last_success_seconds", u64::try_from(now).unwrap_or(0));
        }
        if let Some(lag) = lag {
            histogram!("chancery_publish_lag_seconds", "target" => self.name.clone())
                .record(lag.as_secs_f64());
        }
    }

    /// What is there, as far as it is known.
    pub(super) fn show<'a>(
        &self,
        objects: &Objects,
        states: impl Iterator<Item = (&'a String, Option<&'a Known>)>,
    ) {
        let (mut all, mut behind) = (0_u64, 0_u64);
        let (mut oldest, mut first_end) = (None, None);
        for (path, known) in states {
            all += 1;
            let found = known.map_or(&Found::Absent, |known| &known.found);
            // What is being made again here may well be there.
            let standing = objects.mark(path).map(|mark| found.stands_to(&mark));
            behind += u64::from(matches!(standing, Some(Standing::Behind | Standing::Contradicts)));
            if let Found::Genuine { made_at, next_update: Some(next), .. } = found {
                oldest = Some(oldest.map_or(*made_at, |before: pki::Timestamp| before.min(*made_at)));
                first_end = Some(first_end.map_or(*next, |before: pki::Timestamp| before.min(*next)));
            }
        }
        self.gauge("chancery_publish_objects", all);
        self.gauge("chancery_publish_behind", behind);
        if let (Some(oldest), Some(end)) = (oldest, first_end) {
            self.gauge("chancery_publish_oldest_this_update_seconds", oldest.unix());
            self.gauge("chancery_publish_first_next_update_seconds", end.unix());
        }
        match self.failing.first_key_value() {
            Some((path, detail)) => {
                self.notice.down(format!("{} of {all} objects: {path}: {detail}", self.failing.len()));
            }
            None if behind == 0 && all > 0 => self.notice.up(),
            None => {}
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds and counts are far below 2^53")]
    fn gauge(&self, name: &'static str, value: u64) {
        gauge!(name, "target" => self.name.clone()).set(value as f64);
    }
}
