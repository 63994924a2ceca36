//! One task's tries of a challenge, and what is saved of them.

use std::time::Duration;

use acme::authorization::{Pending, State};
use acme::challenge::{Rest, Start};
use acme::limit::Limits;
use pki::{Period, Timestamp};
use rpc::Target;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Seen, is_worth_another, lease, look};
use crate::authorization::{self, Kept, Step};
use crate::refusal::Refusal;
use crate::service::Front;
use crate::under_way::Run;

/// For how long a validator that does not answer is asked again, before the challenge rests until the client or a poll
/// asks for another try. It is not the client's fault, so it costs the client no try.
const SILENCE: Duration = Duration::from_secs(60);
/// The pause after the first try that no validator made, doubled after each further one.
const FIRST_SILENT_PAUSE: Duration = Duration::from_millis(250);
/// The longest of these pauses.
const LONGEST_SILENT_PAUSE: Duration = Duration::from_secs(15);

/// The tries of a challenge that one task makes.
pub(super) struct Tries {
    pub(super) target: Target,
    /// The authorization with the try that is made.
    kept: Kept,
    /// Before the next try.
    pause: Duration,
    /// After a try that no validator made.
    silent_pause: Duration,
    silent_until: Instant,
    under_way: Run,
}

impl Tries {
    pub(super) fn new(target: Target, kept: Kept, under_way: Run) -> Self {
        Self {
            under_way,
            target,
            kept,
            pause: Duration::ZERO,
            silent_pause: FIRST_SILENT_PAUSE,
            silent_until: Instant::now() + SILENCE,
        }
    }

    pub(super) async fn run(mut self, front: &Front) -> Result<(), Refusal> {
        loop {
            let seen = look(front, &self.target, attempt(front)).await;
            if self.record(front, seen).await? || !self.begin_another(front).await? {
                return Ok(());
            }
        }
    }

    pub(super) async fn run_unsaved(
        mut self,
        front: &Front,
        settle: oneshot::Sender<Result<Kept, Refusal>>,
    ) -> Result<(), Refusal> {
        let target = self.target.clone();
        let looking = look(front, &target, attempt(front));
        tokio::pin!(looking);
        let wait = Duration::from_millis(front.validation.answer_wait_milliseconds);
        let ended = match tokio::time::timeout(wait, &mut looking).await {
            Ok(seen) => {
                let recorded = self.record(front, seen).await;
                drop(
                    settle.send(recorded.as_ref().map(|_| self.kept.clone()).map_err(|_| Refusal::Contended)),
                );
                recorded?
            }
            Err(_) => {
                let saved = self.save_start(front).await;
                drop(settle.send(saved.as_ref().map(|_| self.kept.clone()).map_err(|_| Refusal::Contended)));
                if !saved? {
                    return Ok(());
                }
                let seen = looking.await;
                self.record(front, seen).await?
            }
        };
        if ended || !self.begin_another(front).await? { Ok(()) } else { self.run(front).await }
    }

    /// Saves that the try runs; false when somebody else has decided, or tries by now.
    async fn save_start(&mut self, front: &Front) -> Result<bool, Refusal> {
        let (target, lease) = (&self.target, lease(front));
        let (kept, saved) =
            authorization::change(front, &target.authorization, Some(self.kept.clone()), |_, state, now| {
                match state {
                    State::Pending(pending) => match pending.start(target.method, now, lease) {
                        Ok((next, Start::Begin(attempt) | Start::Running(attempt)))
                            if attempt == target.attempt =>
                        {
                            Step::Save(State::Pending(next), true)
                        }
                        _ => Step::Leave(false),
                    },
                    _ => Step::Leave(false),
                }
            })
            .await?;
        self.kept = kept;
        Ok(saved)
    }

    /// Saves what came of a try, unless it was given up, or another has decided. Whether this was the last one.
    async fn record(&mut self, front: &Front, seen: Seen) -> Result<bool, Refusal> {
        let Target { authorization, attempt, method, .. } = &self.target;
        tracing::info!(%authorization, attempt, outcome = seen.label(), "validation");
        metrics::counter!("chancery_front_validations_total", "method" => method.name(), "outcome" => seen.label())
            .increment(1);
        let pause = match &seen {
            Seen::Valid(_) => None,
            Seen::Invalid(problem) => {
                self.scheduled_pause(front).filter(|_| is_worth_another(*method, problem))
            }
            Seen::Silence(_) if Instant::now() > self.silent_until => None,
            Seen::Silence(_) => {
                let pause = self.silent_pause;
                self.silent_pause = (pause * 2).min(LONGEST_SILENT_PAUSE);
                Some(pause)
            }
        };
        self.kept = record(front, &self.target, self.kept.clone(), seen, pause).await?;
        if !matches!(self.kept.object.state, State::Pending(_)) {
            self.under_way.landed(self.kept.object.clone());
            return Ok(true);
        }
        self.pause = pause.unwrap_or_default();
        Ok(pause.is_none())
    }

    /// The pause after the try that is made, if it fails; none if it was the last of the schedule. What failed before, at
    /// whatever front, counts.
    fn scheduled_pause(&self, front: &Front) -> Option<Duration> {
        let challenges = self.kept.object.state.challenges();
        let failed = challenges.iter().find(|known| known.method == self.target.method)?.failed();
        let pause = front.validation.retry_milliseconds.get(usize::try_from(failed).ok()?)?;
        Some(Duration::from_millis(*pause))
    }

    /// Begins another try after a pause; false if somebody else goes on.
    async fn begin_another(&mut self, front: &Front) -> Result<bool, Refusal> {
        tokio::select! {
            // The challenge rests as it was saved; whoever is asked next goes on.
            () = front.draining.cancelled() => return Ok(false),
            () = tokio::time::sleep(self.pause) => {}
        }
        self.follow_key(front).await;
        // Another try may run by now, asked for by the client at another front: then that one goes on.
        let (kept, next) = next_attempt(front, &self.target, Some(self.kept.clone())).await?;
        let Some(attempt) = next else { return Ok(false) };
        self.kept = kept;
        self.target.attempt = attempt;
        Ok(true)
    }
}

impl Tries {
    /// The account may have another key by now, and its web server or zone the key authorization of that one (RFC 8555 §8.1).
    /// While no signer says which, the one of the last try is looked for again.
    async fn follow_key(&mut self, front: &Front) {
        let Target { directory, account, .. } = &self.target;
        match front.accounts.find(&front.signer, directory, account).await {
            Ok(Some(account)) => self.target.thumbprint = account.key.thumbprint(),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the account's key is not known to be the same"),
        }
    }
}

/// A pending authorization with this try begun, which may have been kept in memory only.
fn with_try(pending: Pending, target: &Target, now: Timestamp, lease: Period) -> Pending {
    match pending.clone().start(target.method, now, lease) {
        Ok((next, Start::Begin(attempt))) if attempt == target.attempt => next,
        _ => pending,
    }
}

/// Saves what came of a try, unless it was given up, or another has decided; `pause` is until the next one.
async fn record(
    front: &Front,
    target: &Target,
    kept: Kept,
    seen: Seen,
    pause: Option<Duration>,
) -> Result<Kept, Refusal> {
    let (reuse, limits) = match front.directories.find(&target.directory) {
        Ok(Some(directory)) => (directory.reuse_of(&target.authorization), directory.limits),
        _ => (Period::from_seconds(0), Limits::default()),
    };
    let (method, attempt, lease) = (target.method, target.attempt, lease(front));
    fail::fail_point!("front.outcome.before-save");
    let (kept, saved) = authorization::change(front, &target.authorization, Some(kept), |_, state, now| {
        let State::Pending(pending) = state else { return Step::Leave(false) };
        let pending = with_try(pending, target, now, lease);
        let expires = pending.expires;
        let next = match &seen {
            Seen::Valid(receipts) => {
                // It lasts for its own order at least, and for later ones as long as the directory says.
                let expires = expires.max(now.plus(reuse));
                pending.succeed(method, attempt, now, expires, receipts.clone()).map(State::Valid)
            }
            Seen::Invalid(problem) if pause.is_none() => {
                pending.fail(method, attempt, problem.clone()).map(State::Invalid)
            }
            Seen::Invalid(problem) | Seen::Silence(problem) => {
                let counts = matches!(seen, Seen::Invalid(_));
                let next = pause.map(|pause| now.plus(rounded_up(pause)));
                let rest = Rest { problem: problem.clone(), counts, next };
                pending.rest(method, attempt, rest).map(State::Pending)
            }
        };
        match next {
            Ok(state) => Step::Save(state, true),
            Err(_) => Step::Leave(false),
        }
    })
    .await?;
    fail::fail_point!("front.outcome.after-save");
    let end = match kept.object.state {
        State::Valid(_) => Some(true),
        State::Invalid(_) => Some(false),
        _ => None,
    };
    if let Some(valid) = end.filter(|_| saved) {
        front.note_validation(&limits, &target.account, &target.name, valid).await?;
    }
    Ok(kept)
}

/// For one try.
fn attempt(front: &Front) -> Duration {
    Duration::from_secs(front.validation.attempt_seconds)
}

/// Whole seconds, so that nobody is told to come before the next try.
fn rounded_up(pause: Duration) -> Period {
    Period::from_seconds(pause.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

/// Begins another try, if none runs and the authorization still waits for one.
pub(super) async fn next_attempt(
    front: &Front,
    target: &Target,
    known: Option<Kept>,
) -> Result<(Kept, Option<u32>), Refusal> {
    let lease = lease(front);
    authorization::change(front, &target.authorization, known, |_, state, now| match state {
        State::Pending(pending) => match pending.start(target.method, now, lease) {
            Ok((next, Start::Begin(attempt))) => Step::Save(State::Pending(next), Some(attempt)),
            Ok((_, Start::Running(_))) | Err(_) => Step::Leave(None),
        },
        _ => Step::Leave(None),
    })
    .await
}
