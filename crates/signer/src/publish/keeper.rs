//! When objects go to one place: at once when they are published, again after a failure, and in between every so often.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use runtime::Lifecycle;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::config::PublishSection;
use super::folder::Folder;
use super::job::{Done, Issuers, Job, Known, Outcome};
use super::place::{Place, PlaceError};
use super::report::Report;
use crate::publication::Objects;

/// What is being made again is asked for this often.
const NOT_AT_HAND_LOOK: Duration = Duration::from_secs(1);

/// While much is under way, it is shown this often.
const SHOW: Duration = Duration::from_secs(1);

/// Looks after one place.
pub(super) struct Keeper {
    section: PublishSection,
    objects: Objects,
    issuers: Arc<Issuers>,
    report: Report,
    states: BTreeMap<String, State>,
    /// Whether the last thing that was tried failed.
    failing: bool,
}

/// An object, as this place has it.
struct State {
    /// When it is looked after next.
    due: Instant,
    /// Whether others may have changed it since it was looked at.
    compare: bool,
    running: bool,
    failures: u32,
    known: Option<Known>,
    /// When it was heard of, if it is not there yet.
    heard: Option<Instant>,
    /// The same of what is under way.
    begun: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(
        section: PublishSection,
        objects: Objects,
        issuers: Arc<Issuers>,
        lifecycle: &Lifecycle,
    ) -> Self {
        let report = Report::new(&section.name, lifecycle);
        Self { section, objects, issuers, report, states: BTreeMap::new(), failing: false }
    }

    pub(super) async fn run(mut self) -> Infallible {
        // Subscribed first, so that nothing published in between is missed.
        let mut published = self.objects.subscribe();
        let place = Arc::new(self.open().await);
        let mut running: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        let mut comparison = Instant::now();
        let mut shown: Option<Instant> = None;
        loop {
            if comparison <= Instant::now() {
                self.compare_all(&place).await;
                comparison = Instant::now() + self.section.compare();
            }
            self.begin(&place, &mut running);
            if running.is_empty() || shown.is_none_or(|at| at.elapsed() >= SHOW) {
                shown = Some(Instant::now());
                let known = self.states.iter().map(|(path, state)| (path, state.known.as_ref()));
                self.report.show(&self.objects, known);
            }
            let wake = self.wake(running.len()).map_or(comparison, |wake| wake.min(comparison));
            tokio::select! {
                Some(done) = running.next() => self.settled(done),
                path = heard(&mut published) => match path {
                    Some(path) => self.heard(path),
                    // Missed: some of them, or all.
                    None => comparison = Instant::now(),
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// The client of a bucket needs files of this host, which may be mended.
    async fn open(&mut self) -> Place {
        let mut failures = 0;
        loop {
            match open(&self.section) {
                Ok(place) => return place,
                Err(error) => {
                    failures += 1;
                    self.report.unusable(&error.to_string());
                    tokio::time::sleep(self.section.pause(failures)).await;
                }
            }
        }
    }

    /// Everything is due, and what is there is looked at.
    async fn compare_all(&mut self, place: &Place) {
        if let Err(error) = place.sweep().await {
            tracing::debug!(publish = self.section.name, %error, "publish.not_swept");
        }
        for (path, kind) in self.objects.paths() {
            if self.section.takes(kind) {
                let state = self.state(path);
                state.compare = true;
                // Unless it waits after a failure.
                if state.failures == 0 {
                    state.due = Instant::now();
                }
            }
        }
    }

    fn heard(&mut self, path: String) {
        if self.objects.mark(&path).is_some_and(|mark| self.section.takes(mark.kind)) {
            let state = self.state(path);
            state.heard.get_or_insert_with(Instant::now);
            // The pause after a failure is the place's, whatever is new.
            if state.failures == 0 {
                state.due = Instant::now();
            }
        }
    }

    fn state(&mut self, path: String) -> &mut State {
        self.states.entry(path).or_insert_with(|| State {
            due: Instant::now(),
            compare: true,
            running: false,
            failures: 0,
            known: None,
            heard: None,
            begun: None,
        })
    }

    /// Begins what is due, the longest waiting first, as far as there is room.
    fn begin(&mut self, place: &Arc<Place>, running: &mut FuturesUnordered<BoxFuture<'static, Done>>) {
        let now = Instant::now();
        let mut due: Vec<_> =
            self.states.iter_mut().filter(|(_, state)| !state.running && state.due <= now).collect();
        due.sort_by_key(|(_, state)| state.due);
        for (path, state) in due.into_iter().take(self.section.concurrency.saturating_sub(running.len())) {
            state.running = true;
            state.begun = state.heard.take();
            state.due = now + self.section.compare();
            let job = Job {
                place: Arc::clone(place),
                objects: self.objects.clone(),
                issuers: Arc::clone(&self.issuers),
                path: path.clone(),
                known: state.known.clone(),
                compare: std::mem::take(&mut state.compare),
            };
            running.push(Box::pin(job.run()));
        }
    }

    /// When something is due; nothing while there is no room for it.
    fn wake(&self, running: usize) -> Option<Instant> {
        let waiting = self.states.values().filter(|state| !state.running).map(|state| state.due);
        waiting.min().filter(|_| running < self.section.concurrency)
    }

    fn settled(&mut self, done: Done) {
        let Done { path, known, outcome } = done;
        let Some(state) = self.states.get_mut(&path) else { return };
        state.running = false;
        state.known = known;
        let begun = state.begun.take();
        match outcome {
            Ok(outcome) => {
                state.failures = 0;
                if outcome == Outcome::NotAtHand {
                    state.heard = begun.or(state.heard);
                    state.due = Instant::now() + NOT_AT_HAND_LOOK;
                }
                let lag = begun.filter(|_| outcome != Outcome::NotAtHand).map(|since| since.elapsed());
                self.report.succeeded(&path, outcome, lag);
                if std::mem::take(&mut self.failing) {
                    self.wake_failed();
                }
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.heard = begun.or(state.heard);
                state.compare = true;
                state.due = Instant::now() + self.section.pause(state.failures);
                self.report.failed(&path, state.failures, &error.to_string());
                self.failing = true;
            }
        }
    }

    /// The place is back: what waits for it waits no longer.
    fn wake_failed(&mut self) {
        let now = Instant::now();
        for state in self.states.values_mut().filter(|state| state.failures > 0) {
            state.due = state.due.min(now);
        }
    }
}

fn open(section: &PublishSection) -> Result<Place, PlaceError> {
    match (&section.folder, &section.s3) {
        (_, Some(s3)) => Bucket::new(section, s3).map(Place::Bucket),
        (Some(folder), None) => {
            let root = folder.to_path_buf();
            let threads = section.concurrency;
            Ok(Place::Folder(Folder::new(root, section.timeout(), section.read_limit_octets, threads)))
        }
        // The configuration was checked.
        (None, None) => Err(PlaceError::Path { path: String::new() }),
    }
}

/// The next path; none when some were missed.
async fn heard(published: &mut Receiver<String>) -> Option<String> {
    match published.recv().await {
        Ok(path) => Some(path),
        Err(RecvError::Lagged(_)) => None,
        // The objects live as long as the signer; if they were gone, the timer would still do.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}
