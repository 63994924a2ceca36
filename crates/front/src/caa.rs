//! Fresh answers of CAA for old validations (RFC 8659, BR 3.2.2.8): an answer may be used for eight hours or its TTL, and
//! authorizations live longer. The perspectives look again, at CAA alone; the signer counts what they say.

use std::sync::Arc;
use std::time::Duration;

use acme::AccountUrl;
use acme::authorization::{Authorization, Basis, State};
use acme::challenge::{self, Method};
use acme::identifier::Identifier;
use acme::problem::{Problem, Subproblem};
use pki::{DnsName, Name, Period, Timestamp};
use rpc::Target;
use rpc::proto::signer::v1::IssueRequest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::directory::Directory;
use crate::service::Front;
use crate::validation::{self, Seen};

/// An answer is asked for anew when the one that came with the validation is older than this: the signer takes it for eight
/// hours.
const RENEWED_AFTER: Period = Period::from_hours(7);
/// Names of one order that are looked at at once.
const AT_ONCE: usize = 16;

/// What is to be asked anew before an order's certificate, and for which of its evidence.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    /// Its place among the order's evidence.
    at: usize,
    target: Target,
}

/// Why a name of an order may be issued for.
pub(crate) struct Shown<'a> {
    pub(crate) name: Name,
    /// The domain above that the authorization is for.
    pub(crate) above: Option<DnsName>,
    pub(crate) authorization: &'a Authorization,
}

/// The names whose answers have grown old, or were never asked for: a domain above was asked about itself.
pub(crate) fn due(
    directory: &Directory,
    shown: &[Shown<'_>],
    account_url: &AccountUrl,
    now: Timestamp,
) -> Vec<Renewal> {
    if directory.caa_identities.is_empty() || directory.always_valid {
        return Vec::new();
    }
    let due = shown.iter().enumerate().filter_map(|(at, shown)| {
        let (method, validated) = validated_by(&shown.authorization.state)?;
        let facts = &shown.authorization.facts;
        let old = shown.above.is_some() || now.since(validated) > RENEWED_AFTER;
        let target = || Target {
            authorization: facts.id,
            directory: facts.directory.clone(),
            account: facts.account,
            account_url: account_url.clone(),
            // Nothing is looked for that would have it.
            thumbprint: acme::Thumbprint::from_bytes([0; 32]),
            name: shown.name.clone(),
            method,
            attempt: 1,
            caa_identities: directory.caa_identities.clone(),
            caa_only: true,
        };
        (old && shown.name.base().is_some()).then(|| Renewal { at, target: target() })
    });
    due.collect()
}

fn validated_by(state: &State) -> Option<(Method, Timestamp)> {
    let State::Valid(valid) = state else { return None };
    match &valid.basis {
        Basis::Challenge { challenge, .. } => match &challenge.state {
            challenge::State::Valid { validated, .. } => Some((challenge.method, *validated)),
            _ => None,
        },
        Basis::Grant { .. } => None,
    }
}

/// The answers that an issuance still misses.
pub(crate) struct Renewing {
    due: Vec<Renewal>,
    /// CAA forbids names, or says of itself that it cannot be asked.
    forbidden: Option<Problem>,
}

impl Renewing {
    pub(crate) const fn new(due: Vec<Renewal>) -> Self {
        Self { due, forbidden: None }
    }

    /// Whether perspectives are to be asked.
    pub(crate) const fn is_due(&self) -> bool {
        !self.due.is_empty() && self.forbidden.is_none()
    }

    /// What CAA has against the names.
    pub(crate) fn forbidden(&self) -> Option<Problem> {
        self.forbidden.clone()
    }

    /// Has every perspective ask anew, within the time of one try. Answers go to the evidence that they belong to; names about
    /// which there was silence stay due, behind those that nobody has asked about yet.
    pub(crate) async fn look(&mut self, front: &Arc<Front>, request: &mut IssueRequest) {
        let deadline = Instant::now() + Duration::from_secs(front.validation.attempt_seconds);
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut looks = JoinSet::new();
        for renewal in self.due.iter().cloned() {
            // The semaphore is never closed. Whose turn comes with the time's end is not asked about: others are first then.
            let Ok(Ok(turn)) = timeout_at(deadline, Arc::clone(&room).acquire_owned()).await else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let front = Arc::clone(front);
            looks.spawn(async move {
                let seen = validation::look(&front, &renewal.target, left).await;
                drop(turn);
                (renewal, seen)
            });
        }
        let (mut refused, mut silent) = (Vec::new(), Vec::new());
        while let Some(looked) = looks.join_next().await {
            match looked {
                Ok((renewal, Seen::Valid(more))) => {
                    if let Some(evidence) = request.authorizations.get_mut(renewal.at) {
                        evidence.receipts.extend(more);
                    }
                    self.due.retain(|due| due.at != renewal.at);
                }
                Ok((renewal, Seen::Invalid(problem))) => {
                    refused.push(subproblem(&renewal.target.name, problem));
                }
                Ok((renewal, Seen::Silence(_))) => silent.push(renewal.at),
                Err(_) => {}
            }
        }
        self.due.sort_by_key(|due| silent.contains(&due.at));
        self.forbidden = Problem::from_subproblems(refused);
    }

    /// What the signer is asked. What CAA forbids is not to be issued on an older answer: then only a certificate that there is
    /// already is asked for.
    pub(crate) fn question(&self, request: &IssueRequest) -> IssueRequest {
        let mut request = request.clone();
        if self.forbidden.is_some() {
            for due in &self.due {
                if let Some(evidence) = request.authorizations.get_mut(due.at) {
                    evidence.receipts.clear();
                }
            }
        }
        request
    }
}

fn subproblem(name: &Name, problem: Problem) -> Subproblem {
    Subproblem::new(problem.kind, problem.detail, Identifier::in_order(name))
}
