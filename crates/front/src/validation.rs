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
use crate::under_way::Run;

mod quorum;
mod tries;
mod turns;

pub(crate) use quorum::Quorum;

use quorum::Verdict;
use tries::{Tries, next_attempt};
use turns::Turns;

/// Beyond the time that a try may take: for its turn among those of its account. No longer than a try itself.
const TURN_SECONDS: u64 = 3;
/// And for its outcome's way into the database.
const LEASE_MARGIN_SECONDS: u64 = 3;

/// The primary validators, seen as one.
#[derive(Debug)]
pub(crate) struct Validators {
    client: ValidatorClient<rpc::Channel>,
    turns: Turns,
}

impl Validators {
    /// For so many looks of one account at once.
    pub(crate) fn new(channel: rpc::Channel, looks_per_account: usize) -> Self {
        Self { client: ValidatorClient::new(channel), turns: Turns::new(looks_per_account) }
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

    /// From now on this front is at the challenge; none if it is already.
    pub(crate) fn begin(self, front: &Front) -> Option<Begun> {
        let run = front.under_way.begin(&self.target)?;
        Some(Begun { target: self.target, run })
    }
}

/// A challenge that this front is at, and nobody else here.
#[derive(Debug)]
pub(crate) struct Begun {
    target: Target,
    run: Run,
}

/// How long a try that began counts as running; then its front is dead.
pub(crate) fn lease(front: &Front) -> Period {
    let attempt = front.validation.attempt_seconds;
    Period::from_seconds(attempt.saturating_add(attempt.min(TURN_SECONDS + LEASE_MARGIN_SECONDS)))
}

/// Runs a try that is not saved yet, and others after it. Most end at once: then beginning and outcome are one write, and the
/// client's answer tells the outcome. One that takes longer is saved as begun before that is answered. `started` is the
/// authorization as it is then.
pub(crate) async fn begin_now(
    front: &Arc<Front>,
    begun: Begun,
    started: Kept,
    attempt: u32,
) -> Result<Kept, Refusal> {
    let (settle, settled) = oneshot::channel();
    let tries = Tries::new(Target { attempt, ..begun.target }, started, begun.run);
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
    // Not if it is this front that is at it, for longer than it should be.
    let Some(Begun { target, run }) = validation.begin(front) else { return };
    let front = Arc::clone(front);
    front.clone().tasks.spawn(async move {
        match next_attempt(&front, &target, None).await {
            Ok((kept, Some(attempt))) => {
                let id = target.authorization;
                report(id, Tries::new(Target { attempt, ..target }, kept, run).run(&front).await);
            }
            Ok((_, None)) => {}
            Err(error) => tracing::warn!(%error, "a validation is not taken over"),
        }
    });
}

/// What came of a try.
pub(crate) enum Seen {
    /// The receipts, enough of which say so; dissent included.
    Valid(Vec<String>),
    /// What a perspective says is wrong, and more of them than may be.
    Invalid(Problem),
    /// The validator said nothing, or too few perspectives did.
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

/// Has the perspectives look, within this time after its turn among the looks of its account.
pub(crate) async fn look(front: &Front, target: &Target, deadline: Duration) -> Seen {
    let Ok(Some(directory)) = front.directories.find(&target.directory) else {
        return Seen::Silence(silence());
    };
    let patience = deadline.min(Duration::from_secs(TURN_SECONDS));
    let Ok(_turn) = tokio::time::timeout(patience, front.validators.turns.wait(target.account)).await else {
        return Seen::Silence(Problem::new(ErrorType::ServerInternal, TOO_MANY));
    };
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
    judge(target, &directory.quorum, response.receipts)
}

const TOO_MANY: &str = "too many validations of the account are under way; it will be tried again";

fn silence() -> Problem {
    Problem::new(ErrorType::ServerInternal, "the validation could not be made; it will be tried again")
}

/// What the receipts say, to be shown to the client, by the rule by which the signer will count them. They are read, not
/// verified: a validator that lied to a front would gain nothing, and the keys are the signer's to know.
fn judge(target: &Target, quorum: &Quorum, receipts: Vec<String>) -> Seen {
    let read: Option<Vec<Receipt>> = receipts.iter().map(|compact| peek(compact)).collect();
    let Some(read) = read else { return Seen::Silence(silence()) };
    let others = |receipt: &Receipt| {
        receipt.authorization != target.authorization
            || receipt.attempt != target.attempt
            || (receipt.outcome == Outcome::Caa) && !target.caa_only
    };
    if read.iter().any(others) {
        return Seen::Silence(silence());
    }
    match quorum.count(&read) {
        Verdict::Shown => Seen::Valid(receipts),
        Verdict::Refused(problem) => Seen::Invalid(problem),
        // Too few have said anything, and those who did not may yet.
        Verdict::Open => Seen::Silence(silence()),
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
