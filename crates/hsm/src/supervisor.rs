//! Keeps a worker alive: starts it, serves it, buries it, and decides how soon the next one may come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::Child;
use tokio::sync::mpsc;

use crate::error::HsmError;
use crate::fault::Fault;
use crate::link::{ATTEMPTS_MAX, Control, End, Link};
use crate::process::{Launcher, Worker};
use crate::token::{Shared, TokenState};

pub(crate) struct Supervisor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) launcher: Box<dyn Launcher>,
    pub(crate) controls: mpsc::UnboundedReceiver<Control>,
}

/// What is to be learnt from a life that ended.
struct Obituary {
    fault: Fault,
    /// The worker had logged in.
    was_ready: bool,
    /// The worker itself said that it cannot go on, so the next one will not fare better at once.
    confessed: bool,
    lived: Duration,
}

impl Supervisor {
    /// Runs until the token is not needed any more.
    pub(crate) async fn run(mut self) {
        // Lives in a row that were short; and of these, at the end, those that never were ready and said no word.
        let (mut failures, mut silent) = (0_u32, 0_u32);
        let mut life = 0;
        while !self.shared.stop.is_cancelled() {
            life += 1;
            let Some(obituary) = self.live(life).await else { break };
            self.shared.telemetry.up.set(0.0);
            self.shared.telemetry.respawned(cause(&obituary.fault));
            self.shared.buried();
            if obituary.was_ready && obituary.lived >= SETTLED {
                failures = 0;
            }
            silent = if obituary.was_ready { 0 } else { silent.saturating_add(1) };
            let delay = self.delay(failures);
            failures = failures.saturating_add(1);
            tracing::error!(
                target: "hsm",
                token = self.shared.label(),
                fault = %obituary.fault,
                failures,
                next_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "worker ended"
            );
            if obituary.confessed || silent >= SILENT_FAILURES || delay > PATIENCE {
                self.shared.is_down(obituary.fault);
            } else {
                self.shared.state.send_if_modified(|state| {
                    let was_ready = matches!(state, TokenState::Ready(_));
                    if was_ready {
                        *state = TokenState::Starting;
                    }
                    was_ready
                });
            }
            self.rest(delay).await;
        }
        self.shared.ended();
    }

    /// One worker, from start to burial; `None` when the token is not needed any more.
    async fn live(&mut self, life: u64) -> Option<Obituary> {
        let born = Instant::now();
        let Worker { socket, child } = match self.launcher.launch().await {
            Ok(worker) => worker,
            Err(error) => {
                let fault = Fault::Spawn { reason: error.to_string() };
                return Some(Obituary { fault, was_ready: false, confessed: true, lived: Duration::ZERO });
            }
        };
        let shared = Arc::clone(&self.shared);
        let mut link = Link::new(&shared, &socket, life);
        let end = link.run(&mut self.controls).await;
        let was_ready = link.was_ready();
        if end == End::Unwanted {
            // A worker that is stopped does not listen to that either.
            let _ = tokio::time::timeout(DISMISSAL, link.dismiss()).await;
            drop(socket);
            bury(child, DISMISSAL).await;
            return None;
        }
        // First the worker must be dead: a job must not be signed twice because two workers have it.
        let status = bury(child, if matches!(end, End::Hung) { Duration::ZERO } else { LAST_BREATH }).await;
        let fault = match end {
            End::Failed(ref fault) => fault.clone(),
            End::Hung => Fault::Hung,
            End::Closed | End::Unwanted => Fault::Died { status },
        };
        let mut queues = shared.queues.lock();
        for job in link.take_back() {
            if job.attempts >= ATTEMPTS_MAX {
                let _ = job.reply.send(Err(HsmError::Interrupted { attempts: job.attempts }));
            } else {
                queues.again(job);
            }
        }
        drop(queues);
        Some(Obituary { fault, was_ready, confessed: matches!(end, End::Failed(_)), lived: born.elapsed() })
    }

    /// The first death is mended at once; then ever longer pauses, with jitter, so that many signers do not storm a
    /// network HSM that comes back.
    fn delay(&self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let longest = self.shared.config.respawn_max;
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(longest);
        pause.mul_f64(0.5 + 0.5 * chance())
    }

    async fn rest(&mut self, delay: Duration) {
        let until = tokio::time::sleep(delay);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                () = self.shared.probe.notified() => return,
                () = self.shared.stop.cancelled() => return,
                // Dropping the control drops its reply, and the asker sees the state.
                control = self.controls.recv() => if control.is_none() { return },
            }
        }
    }
}

/// Waits for the process to end, and ends it when it does not. Returns its status in words.
async fn bury(child: Option<Child>, patience: Duration) -> String {
    let Some(mut child) = child else { return "gone".to_owned() };
    if let Ok(Ok(status)) = tokio::time::timeout(patience, child.wait()).await {
        return status.to_string();
    }
    // SIGKILL ends stopped processes and hung system calls as well.
    let _ = child.start_kill();
    match tokio::time::timeout(DISMISSAL, child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "killed, but still there".to_owned(),
    }
}

fn cause(fault: &Fault) -> &'static str {
    match fault {
        Fault::Hung => "hung",
        Fault::Died { .. } => "died",
        Fault::Spawn { .. } => "spawn",
        fault if fault.is_pin() => "pin",
        Fault::TokenNotFound { .. } => "token_not_found",
        _ => "failed",
    }
}

/// From 0 to 1. Without random numbers jitter is lost, nothing else.
fn chance() -> f64 {
    let mut octets = [0; 2];
    let _ = aws_lc_rs::rand::fill(&mut octets);
    f64::from(u16::from_le_bytes(octets)) / f64::from(u16::MAX)
}

/// A worker that lived so long was a good one: its successor starts at once.
const SETTLED: Duration = Duration::from_secs(10);

/// Workers that may die in a row before they were ready, and without a word, until the token counts as down. Jobs wait
/// meanwhile.
const SILENT_FAILURES: u32 = 5;

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Jobs wait for the next worker if it comes so soon.
const PATIENCE: Duration = Duration::from_secs(1);

/// After its socket has ended, a worker has this long to go by itself.
const LAST_BREATH: Duration = Duration::from_millis(200);

/// How long a dismissed worker may take to finalise its module.
const DISMISSAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
