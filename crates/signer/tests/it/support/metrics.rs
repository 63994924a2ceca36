//! What the metrics of this thread were told.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata,
    Recorder, SharedString, Unit,
};
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Metrics(Arc<Heard>);

/// With its labels.
type Name = (String, Vec<(String, String)>);

#[derive(Default)]
struct Heard {
    /// How often each histogram was told something.
    counts: Mutex<BTreeMap<String, usize>>,
    /// What each gauge and counter shows.
    shown: Mutex<BTreeMap<Name, f64>>,
}

impl Metrics {
    /// Hears everything of this thread from now on.
    pub(crate) fn listen(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    pub(crate) fn count(&self, histogram: &str) -> usize {
        self.0.counts.lock().get(histogram).copied().unwrap_or(0)
    }

    /// Of a gauge or a counter that has these labels.
    pub(crate) fn shows(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |there: &[(String, String)]| {
            labels.iter().all(|(label, value)| there.iter().any(|it| it.0 == *label && it.1 == *value))
        };
        let shown = self.0.shown.lock();
        shown.iter().find(|(it, _)| it.0 == name && has(&it.1)).map(|(_, value)| *value)
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(One::of(key, &self.0)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(One::of(key, &self.0)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(One::of(key, &self.0)))
    }
}

struct One {
    name: Name,
    heard: Arc<Heard>,
}

impl One {
    fn of(key: &Key, heard: &Arc<Heard>) -> Self {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        Self { name: (key.name().to_owned(), labels.collect()), heard: Arc::clone(heard) }
    }

    fn change(&self, to: impl FnOnce(f64) -> f64) {
        let mut shown = self.heard.shown.lock();
        let value = shown.entry(self.name.clone()).or_default();
        *value = to(*value);
    }
}

impl HistogramFn for One {
    fn record(&self, _: f64) {
        *self.heard.counts.lock().entry(self.name.0.clone()).or_default() += 1;
    }
}

impl CounterFn for One {
    fn increment(&self, by: u64) {
        self.change(|value| value + f64::from(u32::try_from(by).unwrap()));
    }

    fn absolute(&self, to: u64) {
        self.change(|_| f64::from(u32::try_from(to).unwrap()));
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
