//! Validations in the background: the validator's receipts, several tries, and the outcome saved.
//!
//! A front decides here only what it shows to its client. Whether a name was validated is decided by the signer, from the
//! perspectives' signed receipts (DESIGN §3.2).

use std::sync::Arc;
use std::time::Duration;

use acme::AuthorizationId;
use acme::authorization::{Authorization, Facts, State};
use acme::challenge::Method;
use acme::problem::{ErrorType, Problem};
use acme::receipt::{Outcome, Receipt};
use pki::Period;
use rpc::Target;
use rpc::proto::validator::v1::ValidateRequest;
use rpc::proto::validator::v1::validator_client::ValidatorClient;
use tokio::sync::oneshot;

use crate::authorization::Kept;
use crate::refusal::Refusal;
use crate::request::Signed;
use crate::service::Front;

mod tries;

use tries::{Tries, next_attempt};

/// Beyond the time that a try may take: for its outcome's way into the database. No longer than a try itself.
const LEASE_MARGIN_SECONDS: u64 = 3;

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
    /// For the request of the authorization's account. The thumbprint is that of its key now (RFC 8555 §8.1).
    pub(crate) fn new(facts: &Facts, method: Method, request: &Signed<'_>) -> Result<Self, Refusal> {
        let thumbprint = request.account()?.key.thumbprint();
        let account_url = request.account_url()?;
        let target = Target {
            authorization: facts.id,
            directory: facts.directory.clone(),
            account: facts.account,
            account_url,
            thumbprint,
            name: facts.name.clone(),
            method,
            attempt: 0,
            caa_identities: request.place.directory.caa_identities.clone(),
            caa_only: false,
        };
        Ok(Self { target })
    }
}

/// How long a try that began counts as running; then its front is dead.
pub(crate) fn lease(front: &Front) -> Period {
    let attempt = front.validation.attempt_seconds;
    Period::from_seconds(attempt.saturating_add(attempt.min(LEASE_MARGIN_SECONDS)))
}

/// Runs a try that was saved as begun, and others after it, in the background.
fn begin(front: &Arc<Front>, target: Target, kept: Kept) {
    let tries = Tries::new(front, target, kept);
    let front = Arc::clone(front);
    front.clone().tasks.spawn(async move { report(tries.target.authorization, tries.run(&front).await) });
}

/// Runs a try that is not saved yet, and others after it. Most end at once: then beginning and outcome are one write, and the
/// client's answer tells the outcome. One that takes longer is saved as begun before that is answered. `started` is the
/// authorization as it is then.
pub(crate) async fn begin_now(
    front: &Arc<Front>,
    validation: Validation,
    started: Kept,
    attempt: u32,
) -> Result<Kept, Refusal> {
    let (settle, settled) = oneshot::channel();
    let tries = Tries::new(front, Target { attempt, ..validation.target }, started);
    let front = Arc::clone(front);
    front.clone().tasks.spawn(async move {
        report(tries.target.authorization, tries.run_unsaved(&front, settle).await);
    });
    settled.await.unwrap_or(Err(Refusal::Impossible("a validation that ended without a word")))
}

fn report(authorization: AuthorizationId, outcome: Result<(), Refusal>) {
    if let Err(error) = outcome {
        tracing::warn!(%authorization, %error, "a validation's outcome is not saved");
    }
}

/// A poll of an authorization whose front died during a try, or gave up a silent validator, begins another try.
pub(crate) fn resume_if_abandoned(front: &Arc<Front>, authorization: &Authorization, request: &Signed<'_>) {
    let now = front.now();
    let State::Pending(pending) = authorization.state.clone().at(now) else { return };
    let lease = lease(front);
    let Some(challenge) = pending.challenges.iter().find(|one| one.is_abandoned(now, lease)) else { return };
    let Ok(validation) = Validation::new(&authorization.facts, challenge.method, request) else { return };
    let front = Arc::clone(front);
    front.clone().tasks.spawn(async move {
        match next_attempt(&front, &validation.target, None).await {
            Ok((kept, Some(attempt))) => begin(&front, Target { attempt, ..validation.target }, kept),
            Ok((_, None)) => {}
            Err(error) => tracing::warn!(%error, "a validation is not taken over"),
        }
    });
}

/// What came of a try.
pub(crate) enum Seen {
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

pub(crate) async fn look(front: &Front, target: &Target, deadline: Duration) -> Seen {
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
    let always_valid = match front.directories.find(&target.directory) {
        Ok(directory) => directory.is_some_and(|directory| directory.always_valid),
        Err(_) => false,
    };
    judge(target, always_valid, response.receipts)
}

fn unseen() -> Problem {
    tracing::warn!("a validator has always_valid, and this directory has not");
    Problem::new(
        ErrorType::ServerInternal,
        "the validator looks at nothing, which this directory does not accept",
    )
}

fn silence() -> Problem {
    Problem::new(ErrorType::ServerInternal, "the validation could not be made; it will be tried again")
}

/// What the receipts say, to be shown to the client. They are read, not verified: a validator that lied to a front would
/// gain nothing, and the keys are the signer's to know.
fn judge(target: &Target, always_valid: bool, receipts: Vec<String>) -> Seen {
    let read: Option<Vec<Receipt>> = receipts.iter().map(|compact| peek(compact)).collect();
    let Some(read) = read.filter(|read| !read.is_empty()) else { return Seen::Silence(silence()) };
    let others = |receipt: &Receipt| {
        receipt.authorization != target.authorization
            || receipt.attempt != target.attempt
            || (receipt.outcome == Outcome::Caa) && !target.caa_only
    };
    if read.iter().any(others) {
        return Seen::Silence(silence());
    }
    let dissent = read.into_iter().find_map(|receipt| match receipt.outcome {
        Outcome::Valid | Outcome::Caa => None,
        // The signer would not count it: better that the client hears of it now than at its finalize.
        Outcome::Assumed if !always_valid => Some(unseen()),
        Outcome::Assumed => None,
        Outcome::Invalid(problem) => Some(problem),
    });
    match dissent {
        None => Seen::Valid(receipts),
        Some(problem) => Seen::Invalid(problem),
    }
}

pub(crate) fn peek(compact: &str) -> Option<Receipt> {
    let payload = compact.split('.').nth(1)?;
    serde_json::from_slice(&acme::base64url::decode(payload).ok()?).ok()
}

/// Whether the same may look different in a moment: the target could not be reached, its name not be resolved; or a record
/// is missing or old, where changes take their time to every server of a zone. A web server that answers, answers for good.
const fn is_worth_another(method: Method, problem: &Problem) -> bool {
    match problem.kind {
        ErrorType::Connection | ErrorType::Dns | ErrorType::Tls | ErrorType::ServerInternal => true,
        ErrorType::Unauthorized => method.is_dns(),
        _ => false,
    }
}
