//! Metrics of one token. Handles are made once: a look-up by name and labels for each signature would cost as much as
//! the rest of the supervisor.

use std::sync::Mutex;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::Lane;
use crate::job::Mechanism;

/// Handles for what happens often.
pub(crate) struct Telemetry {
    token: String,
    waiting: [Gauge; 3],
    waited: [Histogram; 3],
    pub(crate) in_flight: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) up: Gauge,
    pub(crate) orphaned: Counter,
    pub(crate) expired: Counter,
    pub(crate) self_check_failures: Counter,
    pub(crate) reopened: Counter,
    pub(crate) logins: Counter,
    signing: Mutex<Vec<(Mechanism, Histogram)>>,
}

impl Telemetry {
    pub(crate) fn new(token: &str) -> Telemetry {
        describe();
        let token = token.to_owned();
        let lanes = Lane::ALL.map(Lane::as_str);
        Telemetry {
            waiting: lanes.map(|lane| gauge!("hsm_queue_depth", "token" => token.clone(), "lane" => lane)),
            waited: lanes
                .map(|lane| histogram!("hsm_wait_seconds", "token" => token.clone(), "lane" => lane)),
            in_flight: gauge!("hsm_in_flight", "token" => token.clone()),
            sessions: gauge!("hsm_sessions", "token" => token.clone()),
            up: gauge!("hsm_up", "token" => token.clone()),
            orphaned: counter!("hsm_signatures_orphaned_total", "token" => token.clone()),
            expired: counter!("hsm_jobs_expired_total", "token" => token.clone()),
            self_check_failures: counter!("hsm_self_check_failures_total", "token" => token.clone()),
            reopened: counter!("hsm_session_reopen_total", "token" => token.clone()),
            logins: counter!("hsm_relogin_total", "token" => token.clone()),
            signing: Mutex::new(Vec::new()),
            token,
        }
    }

    pub(crate) fn depth(&self, lane: Lane, depth: usize) {
        if let Some(gauge) = self.waiting.get(lane.index()) {
            gauge.set(depth as f64);
        }
    }

    pub(crate) fn waited(&self, lane: Lane, duration: Duration) {
        if let Some(histogram) = self.waited.get(lane.index()) {
            histogram.record(duration.as_secs_f64());
        }
    }

    pub(crate) fn signed(&self, mechanism: Mechanism, duration: Duration) {
        let Ok(mut signing) = self.signing.lock() else { return };
        if let Some((_, histogram)) = signing.iter().find(|(known, _)| *known == mechanism) {
            histogram.record(duration.as_secs_f64());
            return;
        }
        let histogram =
            histogram!("hsm_sign_seconds", "token" => self.token.clone(), "algorithm" => mechanism.as_str());
        histogram.record(duration.as_secs_f64());
        signing.push((mechanism, histogram));
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        counter!("hsm_rejected_total", "token" => self.token.clone(), "reason" => reason).increment(1);
    }

    pub(crate) fn respawned(&self, cause: &'static str) {
        counter!("hsm_respawn_total", "token" => self.token.clone(), "cause" => cause).increment(1);
    }

    pub(crate) fn call_failed(&self, function: String, rv: String) {
        counter!("hsm_rv_total", "token" => self.token.clone(), "function" => function, "rv" => rv)
            .increment(1);
    }
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("hsm_up", "1 while the token's worker is logged in");
    describe_gauge!("hsm_queue_depth", "Jobs that wait for the token");
    describe_gauge!("hsm_in_flight", "Jobs that the worker has");
    describe_gauge!("hsm_sessions", "Sessions of the worker");
    describe_histogram!("hsm_wait_seconds", Unit::Seconds, "From admission until the worker gets the job");
    describe_histogram!("hsm_sign_seconds", Unit::Seconds, "The token's own time for a signature");
    describe_counter!("hsm_signatures_orphaned_total", "Signatures that came when nobody waited any more");
    describe_counter!("hsm_jobs_expired_total", "Jobs whose deadline passed in the worker's queue");
    describe_counter!("hsm_self_check_failures_total", "Signatures that did not verify: must be 0");
    describe_counter!("hsm_session_reopen_total", "Sessions that were replaced");
    describe_counter!("hsm_relogin_total", "Logins after the first");
    describe_counter!("hsm_rejected_total", "Jobs that were not admitted, or not done, by reason");
    describe_counter!("hsm_respawn_total", "Workers started again, by cause");
    describe_counter!("hsm_rv_total", "Failed PKCS#11 calls by function and return value");
}
