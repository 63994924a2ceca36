//! What a node measures, heard in the thread of a test, on which all of its node runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};

/// Everything that histograms were told, by name. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

struct Values {
    name: String,
    meter: Meter,
}

impl Meter {
    /// Calls this with a meter for the node that is made meanwhile: what is measured later is heard, too.
    pub async fn on<T>(make: impl AsyncFnOnce(Self) -> T) -> T {
        let meter = Self::default();
        let _heard = set_default_local_recorder(&meter);
        make(meter.clone()).await
    }

    pub fn values(&self, histogram: &str) -> Vec<f64> {
        self.0.lock().unwrap().get(histogram).cloned().unwrap_or_default()
    }
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.meter.0.lock().unwrap().entry(self.name.clone()).or_default().push(value);
    }
}

impl Recorder for Meter {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Arc::new(Values { name: key.name().to_owned(), meter: self.clone() }).into()
    }
}
