//! What the demo says while it works.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of a start: a spinner on a terminal, a line each when done.
pub(crate) struct Steps;

/// A step under way.
pub(crate) struct Step {
    bar: ProgressBar,
    started: tokio::time::Instant,
    what: String,
}

impl Steps {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) fn begin(&self, what: impl Into<String>) -> Step {
        let what = what.into();
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(what.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step { bar, started: tokio::time::Instant::now(), what }
    }
}

impl Step {
    /// Done; what came of it is shown beside it.
    pub(crate) fn done(self, result: &str) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f32();
        println!("  ✓ {:<44} {result} ({seconds:.1} s)", self.what);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A heading.
pub(crate) fn heading(text: &str) {
    println!("\n{text}");
}

/// Text, indented.
pub(crate) fn block(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("    {line}");
    }
}
