//! Logs to stderr, metrics for Prometheus, and what a panic leaves behind.

use std::{io::IsTerminal, panic, sync::OnceLock};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogSection};

/// Starts logs and metrics and sets the panic hook. The second call of a process changes the filter only.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(log: &LogSection) -> Result<(), ParseError> {
    let filter = filter_of(log)?;
    let (filter, handle) = reload::Layer::new(filter);
    let writer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Text => writer.boxed(),
        LogFormat::Json => writer.json().flatten_event(true).boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        FILTER.get_or_init(|| handle);
        panic::set_hook(Box::new(report_panic));
        METRICS.get_or_init(install_metrics);
        Ok(())
    } else {
        set_filter(log)
    }
}

/// Changes what is logged.
///
/// # Errors
/// When the filter cannot be read; the old one stays.
pub fn set_filter(log: &LogSection) -> Result<(), ParseError> {
    let filter = filter_of(log)?;
    if let Some(handle) = FILTER.get() {
        // Fails only when the subscriber is gone, and with it every reader of the log.
        drop(handle.reload(filter));
    }
    Ok(())
}

/// What strangers write into their handshakes warns nobody, and does not fill the log; the operator's own filter may say otherwise.
const QUIET: &str = "rustls::msgs=error";

fn filter_of(log: &LogSection) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{QUIET},{}", log.filter))
}

/// The metrics in Prometheus' text format.
pub fn render_metrics() -> String {
    METRICS.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Lets the histograms digest what they heard; to be called every few seconds.
pub(crate) fn upkeep() {
    if let Some(handle) = METRICS.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        // A whole name goes before an ending.
        .set_buckets_for_metric(Matcher::Full("chancery_status_ocsp_answer_age_seconds".to_owned()), AGES)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), SIZES)
}

fn install_metrics() -> Option<PrometheusHandle> {
    match builder().and_then(PrometheusBuilder::install_recorder) {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::warn!(%error, "metrics.absent");
            None
        }
    }
}

// From a cached answer to a token that has to be woken.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
// Of answers, seconds: a minute to ten days, the longest that they live (BR §4.9.9).
const AGES: &[f64] =
    &[60.0, 600.0, 3600.0, 14_400.0, 28_800.0, 57_600.0, 86_400.0, 172_800.0, 345_600.0, 864_000.0];
// Batches.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// A panic is a bug: it is logged where every other line is, and counted. Supervised tasks (`Lifecycle::spawn`, the role
/// itself) take the process down with [`crate::ExitCode::Panic`]; in a request it ends that connection.
fn report_panic(info: &panic::PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let text = info
        .payload_as_str()
        // Whatever else a payload is, it is not printable.
        .unwrap_or("(no message)");
    tracing::error!(place, "panic: {text}");
    metrics::counter!("chancery_panics_total").increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_handshakes_are_not_logged_unless_asked_for() {
        let shown = |text: &str, level: tracing::Level| {
            let filter = filter_of(&LogSection { filter: text.to_owned(), ..LogSection::default() }).unwrap();
            let subscriber = tracing_subscriber::registry().with(filter);
            tracing::subscriber::with_default(subscriber, || match level {
                tracing::Level::WARN => {
                    tracing::enabled!(target: "rustls::msgs::handshake", tracing::Level::WARN)
                }
                _ => tracing::enabled!(target: "front", tracing::Level::INFO),
            })
        };
        let (theirs, ours) = (tracing::Level::WARN, tracing::Level::INFO);
        assert!(shown("info", ours) && !shown("info", theirs) && !shown("", ours));
        assert!(shown("info,rustls::msgs=warn", theirs));
        assert!(filter_of(&LogSection { filter: "=,=".to_owned(), ..LogSection::default() }).is_err());
    }

    #[test]
    fn ages_and_sizes_have_their_own_buckets() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            for name in ["chancery_status_ocsp_answer_age_seconds", "chancery_x_seconds", "chancery_x_size"] {
                metrics::histogram!(name).record(1.0);
            }
        });
        let text = recorder.handle().render();
        let has = |name: &str, end: &str| text.contains(&format!("{name}_bucket{{le=\"{end}\"}}"));
        assert!(has("chancery_status_ocsp_answer_age_seconds", "864000"), "{text}");
        assert!(!has("chancery_status_ocsp_answer_age_seconds", "30"), "{text}");
        assert!(has("chancery_x_seconds", "30") && has("chancery_x_size", "512"), "{text}");
    }
}
