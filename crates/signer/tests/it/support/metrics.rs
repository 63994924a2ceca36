//! What the metrics of this thread were told.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder,
    SharedString, Unit,
};
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Metrics(Arc<Heard>);

#[derive(Default)]
struct Heard {
    /// How often each histogram was told something.
    counts: Mutex<BTreeMap<String, usize>>,
    /// What each gauge shows, by its name and issuer.
    gauges: Mutex<BTreeMap<(String, String), f64>>,
}

impl Metrics {
    /// Hears everything of this thread from now on.
    pub(crate) fn listen(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    pub(crate) fn count(&self, histogram: &str) -> usize {
        self.0.counts.lock().get(histogram).copied().unwrap_or(0)
    }

    pub(crate) fn shows(&self, gauge: &str, issuer: &str) -> Option<f64> {
        self.0.gauges.lock().get(&(gauge.to_owned(), issuer.to_owned())).copied()
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(One::of(key, &self.0)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(One::of(key, &self.0)))
    }
}

struct One {
    name: String,
    issuer: String,
    heard: Arc<Heard>,
}

impl One {
    fn of(key: &Key, heard: &Arc<Heard>) -> Self {
        let issuer = key.labels().find(|label| label.key() == "issuer");
        let issuer = issuer.map(|label| label.value().to_owned()).unwrap_or_default();
        Self { name: key.name().to_owned(), issuer, heard: Arc::clone(heard) }
    }

    fn change(&self, to: impl FnOnce(f64) -> f64) {
        let mut gauges = self.heard.gauges.lock();
        let value = gauges.entry((self.name.clone(), self.issuer.clone())).or_default();
        *value = to(*value);
    }
}

impl HistogramFn for One {
    fn record(&self, _: f64) {
        *self.heard.counts.lock().entry(self.name.clone()).or_default() += 1;
    }
}

impl GaugeFn for One {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }

    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }

    fn set(&self, to: f64) {
        self.change(|_| to);
    }
}
