//! From start to drain: what a role knows of the process it runs in.

use std::{fmt, future::Future, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use rpc::NodeCredentials;
use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

use crate::{
    clock::SharedClock,
    exit::{ExitCode, Failure},
    listen::{Listen, ListenError},
    readiness::Readiness,
    sockets::Sockets,
    watch::Watches,
};

/// The process, as a role sees it. Clones are one.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    clock: SharedClock,
    sockets: Sockets,
    readiness: Readiness,
    draining: CancellationToken,
    tasks: TaskTracker,
    watches: Watches,
    failure: Mutex<Option<Failure>>,
}

impl Lifecycle {
    /// A lifecycle without signals: for tests, and for programs that run a role within themselves.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_sockets(clock, Sockets::default())
    }

    pub(crate) fn with_sockets(clock: SharedClock, sockets: Sockets) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                sockets,
                readiness: Readiness::default(),
                draining: CancellationToken::new(),
                tasks: TaskTracker::new(),
                watches: Watches::default(),
                failure: Mutex::new(None),
            }),
        }
    }

    /// The time.
    pub fn clock(&self) -> SharedClock {
        Arc::clone(&self.inner.clock)
    }

    /// The register of dependencies.
    pub fn readiness(&self) -> &Readiness {
        &self.inner.readiness
    }

    /// A listening socket, bound or inherited.
    ///
    /// # Errors
    /// As [`Sockets::listen`].
    pub async fn listen(&self, listen: &Listen) -> Result<TcpListener, ListenError> {
        self.inner.sockets.listen(listen)
    }

    /// Completes when the process is to end: take no new work, finish what is under way, end endless streams.
    pub fn draining(&self) -> WaitForCancellationFutureOwned {
        self.inner.draining.clone().cancelled_owned()
    }

    /// The same as a token, for children of it.
    pub fn drain_token(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.is_cancelled()
    }

    /// Begins the drain.
    pub fn drain(&self) {
        self.inner.draining.cancel();
    }

    /// Begins the drain because of an error: the process ends with the first one's exit code.
    pub fn fail(&self, failure: Failure) {
        tracing::error!(error = %failure, "failed");
        self.inner.failure.lock().get_or_insert(failure);
        self.drain();
    }

    /// Starts a supervised task. One that fails or panics takes the process down (by a drain); one that ends well is
    /// done. At a drain they are waited for: each must end on [`draining`](Self::draining).
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let lifecycle = self.clone();
        // A task of its own, so that its panic is ours to see.
        let task = tokio::spawn(task);
        self.inner.tasks.spawn(async move {
            match task.await {
                Ok(Ok(())) => tracing::debug!(task = name, "task.done"),
                Ok(Err(error)) => {
                    tracing::error!(task = name, "task.failed");
                    lifecycle.fail(error.into());
                }
                Err(error) if error.is_panic() => lifecycle.fail(panicked(name)),
                // The runtime is going down.
                Err(_) => {}
            }
        });
    }

    /// Registers something to be done on SIGHUP.
    pub fn on_reload<E: Into<Failure>>(
        &self,
        name: impl Into<String>,
        callback: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) {
        self.watch(name, Vec::new(), callback);
    }

    /// Registers something to be done on SIGHUP and when one of the files changed (looked at every two seconds).
    pub fn watch<E: Into<Failure>>(
        &self,
        name: impl Into<String>,
        files: Vec<PathBuf>,
        callback: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) {
        let callback = Arc::new(move || callback().map_err(Into::into));
        self.inner.watches.add(name.into(), files, callback);
    }

    /// Watches a node's certificate files.
    pub fn watch_credentials(&self, credentials: &Arc<NodeCredentials>) {
        let files = credentials.files();
        let files = vec![files.certificate.clone(), files.key.clone(), files.authority.clone()];
        let credentials = Arc::clone(credentials);
        self.watch("node certificate", files, move || credentials.reload());
    }

    /// Reloads everything, as SIGHUP does.
    pub fn reload(&self) {
        self.inner.watches.all();
    }

    pub(crate) fn poll_files(&self) {
        self.inner.watches.poll();
    }

    /// Waits for the supervised tasks, and takes the failure that led here, if any.
    pub async fn finished(&self) -> Result<(), Failure> {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.outcome()
    }

    pub(crate) fn outcome(&self) -> Result<(), Failure> {
        self.inner.failure.lock().take().map_or(Ok(()), Err)
    }
}

pub(crate) fn panicked(name: &str) -> Failure {
    Failure::new(ExitCode::Panic, format!("{name} panicked: this is a bug; the log has the place"))
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lifecycle").field("draining", &self.is_draining()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn lifecycle() -> Lifecycle {
        Lifecycle::new(Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn a_task_that_panics_or_fails_takes_the_process_down() {
        let panicking = lifecycle();
        panicking.spawn("crooked", async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<(), Failure>(())
        });
        panicking.draining().await;
        assert_eq!(panicking.finished().await.unwrap_err().code(), ExitCode::Panic);

        let failing = lifecycle();
        failing.spawn("done", async { Ok::<(), Failure>(()) });
        failing.spawn("weak", async { Err(Failure::refused("locked")) });
        failing.draining().await;
        assert_eq!(failing.finished().await.unwrap_err().code(), ExitCode::Refused);
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_supervised() {
        let lifecycle = lifecycle();
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        let draining = lifecycle.draining();
        lifecycle.spawn("slow", async move {
            draining.await;
            gate.await
        });
        lifecycle.drain();
        let finished = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.finished().await }
        });
        tokio::task::yield_now().await;
        assert!(!finished.is_finished());
        release.send(()).unwrap();
        assert!(finished.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn health_says_ready_only_when_it_is() {
        use axum::{body::Body, http::Request};
        use tower::ServiceExt;
        let lifecycle = lifecycle();
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            crate::health::router(lifecycle.clone()).oneshot(request).await.unwrap().status().as_u16()
        };
        let database = lifecycle.readiness().dependency("database");
        assert_eq!(ask("/health/live").await, 200);
        assert_eq!(ask("/health/ready").await, 503);
        database.up();
        assert_eq!(ask("/health/ready").await, 200);
        lifecycle.drain();
        assert_eq!((ask("/health/ready").await, ask("/health/live").await), (503, 200));
        assert_eq!((ask("/metrics").await, ask("/").await), (200, 404));
    }
}
