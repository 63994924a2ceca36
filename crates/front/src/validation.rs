//! Validations in the background: the validator's receipts, several tries, and the outcome saved.
//!
//! A front decides here only what it shows to its client. Whether a name was validated is decided by the signer, from the
//! perspectives' signed receipts (DESIGN §3.2).

use std::sync::Arc;
use std::time::Duration;

use acme::Thumbprint;
use acme::authorization::{Authorization, Facts, State};
use acme::challenge::{self, Method, Start};
use acme::problem::{ErrorType, Problem};
use acme::receipt::{Outcome, Receipt};
use pki::Period;
use rpc::proto::validator::v1::ValidateRequest;
use rpc::proto::validator::v1::validator_client::ValidatorClient;
use rpc::{Account, Target};
use tokio::time::Instant;

use crate::authorization::{self, Kept, Step};
use crate::refusal::Refusal;
use crate::service::Front;
use crate::under_way::Run;

/// Beyond the time that a try may take: for its outcome's way into the database. No longer than a try itself.
const LEASE_MARGIN_SECONDS: u64 = 3;
/// For how long a validator that does not answer is asked again, before the challenge rests until the client or a poll
/// asks for another try. It is not the client's fault, so it costs the client no try.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The primary validators, seen as one.
#[derive(Debug, Clone)]
pub(crate) struct Validators {
    client: ValidatorClient<rpc::Channel>,
}

impl Validators {
    pub(crate) fn new(channel: rpc::Channel) -> Self {
        Self { client: ValidatorClient::new(channel) }
    }
}

/// What is to be validated, and how.
#[derive(Debug, Clone)]
pub(crate) struct Validation {
    target: Target,
}

impl Validation {
    /// `thumbprint` is that of the account's key now (RFC 8555 §8.1).
    pub(crate) fn new(facts: &Facts, method: Method, thumbprint: Thumbprint) -> Self {
        let target = Target {
            authorization: facts.id,
            directory: facts.directory.clone(),
            account: facts.account,
            thumbprint,
            name: facts.name.clone(),
            method,
            attempt: 0,
        };
        Self { target }
    }
}

/// How long a try that began counts as running; then its front is dead.
pub(crate) fn lease(front: &Front) -> Period {
    let attempt = front.validation.attempt_seconds;
    Period::from_seconds(attempt.saturating_add(attempt.min(LEASE_MARGIN_SECONDS)))
}

/// Runs the try of this number, and others after it, in the background. `kept` is the authorization with that try.
pub(crate) fn begin(front: &Arc<Front>, validation: Validation, kept: Kept, attempt: u32) {
    let front = Arc::clone(front);
    let id = validation.target.authorization;
    let under_way = front.under_way.begin(id, validation.target.account);
    front.clone().tasks.spawn(async move {
        if let Err(error) = run(&front, validation, kept, attempt, &under_way).await {
            tracing::warn!(authorization = %id, %error, "a validation's outcome is not saved");
        }
    });
}

/// A poll of an authorization whose front died during a try, or gave up a silent validator, begins another try.
pub(crate) fn resume_if_abandoned(front: &Arc<Front>, authorization: &Authorization, account: &Account) {
    let now = front.now();
    let State::Pending(pending) = authorization.state.clone().at(now) else { return };
    let abandoned = |challenge: &&challenge::Challenge| match &challenge.state {
        challenge::State::Processing(last) => now.since(last.since) > lease(front),
        _ => false,
    };
    let Some(challenge) = pending.challenges.iter().find(abandoned) else { return };
    let method = challenge.method;
    let validation = Validation::new(&authorization.facts, method, account.key.thumbprint());
    let front = Arc::clone(front);
    front.clone().tasks.spawn(async move {
        match next_attempt(&front, &validation.target, None).await {
            Ok((kept, Some(attempt))) => begin(&front, validation, kept, attempt),
            Ok((_, None)) => {}
            Err(error) => tracing::warn!(%error, "a validation is not taken over"),
        }
    });
}

async fn run(
    front: &Arc<Front>,
    validation: Validation,
    mut kept: Kept,
    first: u32,
    under_way: &Run,
) -> Result<(), Refusal> {
    let (mut attempt, mut tries) = (first, 1);
    let mut pause = Duration::from_millis(front.validation.backoff_milliseconds);
    let silent_until = Instant::now() + SILENCE;
    loop {
        let target = Target { attempt, ..validation.target.clone() };
        let seen = look(front, &target).await;
        tracing::info!(authorization = %target.authorization, attempt, outcome = seen.label(), "validation");
        metrics::counter!("chancery_front_validations_total", "method" => target.method.name(), "outcome" => seen.label())
            .increment(1);
        let last = match &seen {
            Seen::Valid(_) => true,
            Seen::Invalid(problem) => !is_worth_another(problem) || tries >= front.validation.attempts,
            Seen::Silence(_) => false,
        };
        let silent = matches!(seen, Seen::Silence(_));
        kept = record(front, &target, kept, seen, last).await?;
        if !matches!(kept.object.state, State::Pending(_)) {
            under_way.landed(kept.object);
            return Ok(());
        }
        if last || (silent && Instant::now() > silent_until) {
            return Ok(());
        }
        tokio::select! {
            // The challenge rests as it was saved; whoever is asked next goes on.
            () = front.draining.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        if !silent {
            tries += 1;
        }
        // Another try may run by now, asked for by the client at another front: then that one goes on.
        let (current, next) = next_attempt(front, &target, Some(kept)).await?;
        let Some(next) = next else { return Ok(()) };
        (kept, attempt) = (current, next);
    }
}

/// What came of a try.
enum Seen {
    /// The receipts, all of which say so.
    Valid(Vec<String>),
    /// What a perspective says is wrong.
    Invalid(Problem),
    /// The validator said nothing.
    Silence(Problem),
}

impl Seen {
    const fn label(&self) -> &'static str {
        match self {
            Self::Valid(_) => "valid",
            Self::Invalid(_) => "invalid",
            Self::Silence(_) => "silence",
        }
    }
}

async fn look(front: &Front, target: &Target) -> Seen {
    let deadline = Duration::from_secs(front.validation.attempt_seconds);
    let mut request = tonic::Request::new(ValidateRequest { target: Some(target.into()) });
    request.set_timeout(deadline);
    let mut client = front.validators.client.clone();
    fail::fail_point!("front.validate.before-rpc");
    let answer = tokio::time::timeout(deadline, client.validate(request)).await;
    fail::fail_point!("front.validate.after-rpc");
    let response = match answer {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            tracing::warn!(code = ?status.code(), message = status.message(), "the validator does not answer");
            return Seen::Silence(silence());
        }
        Err(_) => {
            tracing::warn!("the validator does not answer in time");
            return Seen::Silence(silence());
        }
    };
    if !response.silent.is_empty() {
        tracing::warn!(perspectives = ?response.silent, "perspectives do not answer");
    }
    judge(target, response.receipts)
}

fn silence() -> Problem {
    Problem::new(ErrorType::ServerInternal, "the validation could not be made; it will be tried again")
}

/// What the receipts say, to be shown to the client. They are read, not verified: a validator that lied to a front would
/// gain nothing, and the keys are the signer's to know.
fn judge(target: &Target, receipts: Vec<String>) -> Seen {
    let read: Option<Vec<Receipt>> = receipts.iter().map(|compact| peek(compact)).collect();
    let Some(read) = read.filter(|read| !read.is_empty()) else { return Seen::Silence(silence()) };
    if read
        .iter()
        .any(|receipt| receipt.authorization != target.authorization || receipt.attempt != target.attempt)
    {
        return Seen::Silence(silence());
    }
    let dissent = read.into_iter().find_map(|receipt| match receipt.outcome {
        Outcome::Valid => None,
        Outcome::Invalid(problem) => Some(problem),
    });
    match dissent {
        None => Seen::Valid(receipts),
        Some(problem) => Seen::Invalid(problem),
    }
}

fn peek(compact: &str) -> Option<Receipt> {
    let payload = compact.split('.').nth(1)?;
    serde_json::from_slice(&acme::base64url::decode(payload).ok()?).ok()
}

/// Whether the same may look different in a moment: the target could not be reached, or its name not be resolved.
const fn is_worth_another(problem: &Problem) -> bool {
    matches!(
        problem.kind,
        ErrorType::Connection | ErrorType::Dns | ErrorType::Tls | ErrorType::ServerInternal
    )
}

/// Saves what came of a try, unless it was given up, or another has decided.
async fn record(front: &Front, target: &Target, kept: Kept, seen: Seen, last: bool) -> Result<Kept, Refusal> {
    let reuse = match front.directories.find(&target.directory) {
        Ok(Some(directory)) => Period::from_seconds(directory.validation_reuse.as_secs()),
        _ => Period::from_seconds(0),
    };
    let (method, attempt) = (target.method, target.attempt);
    fail::fail_point!("front.outcome.before-save");
    let (kept, ()) = authorization::change(front, &target.authorization, Some(kept), |_, state, now| {
        let State::Pending(pending) = state else { return Step::Leave(()) };
        let expires = pending.expires;
        let next = match &seen {
            Seen::Valid(receipts) => {
                // It lasts for its own order at least, and for later ones as long as the directory says.
                let expires = expires.max(now.plus(reuse));
                pending.succeed(method, attempt, now, expires, receipts.clone()).map(State::Valid)
            }
            Seen::Invalid(problem) if last => {
                pending.fail(method, attempt, problem.clone()).map(State::Invalid)
            }
            Seen::Invalid(problem) | Seen::Silence(problem) => {
                pending.rest(method, attempt, problem.clone()).map(State::Pending)
            }
        };
        match next {
            Ok(state) => Step::Save(state, ()),
            Err(_) => Step::Leave(()),
        }
    })
    .await?;
    fail::fail_point!("front.outcome.after-save");
    Ok(kept)
}

/// Begins another try, if none runs and the authorization still waits for one.
async fn next_attempt(
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
