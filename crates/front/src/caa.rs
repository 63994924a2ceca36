//! Fresh answers of CAA for old validations (RFC 8659, BR 3.2.2.8): an answer may be used for eight hours or its TTL, and
//! authorizations live longer. The perspectives look again, at CAA alone; the signer counts what they say.

use std::sync::Arc;

use acme::AccountUrl;
use acme::authorization::{Authorization, Basis, State};
use acme::challenge::{self, Method};
use acme::identifier::Identifier;
use acme::problem::{Problem, Subproblem};
use pki::{DnsName, Name, Period, Timestamp};
use rpc::Target;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

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
    pub(crate) at: usize,
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

/// What came of it.
pub(crate) enum Renewed {
    /// More receipts, each with the place of the evidence that they belong to.
    Receipts(Vec<(usize, Vec<String>)>),
    /// CAA forbids a name, or cannot be asked.
    Refused(Problem),
    /// A validator said nothing.
    Silence,
}

/// Has every perspective ask anew.
pub(crate) async fn renew(front: &Arc<Front>, due: &[Renewal]) -> Renewed {
    // No longer than a call of a signer's: the order is this front's for its lease.
    let deadline = front.limits.issue_deadline();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = JoinSet::new();
    for renewal in due.iter().cloned() {
        let (front, room) = (Arc::clone(front), Arc::clone(&room));
        looks.spawn(async move {
            // The semaphore is never closed.
            let _turn = room.acquire_owned().await;
            let seen = validation::look(&front, &renewal.target, deadline).await;
            (renewal, seen)
        });
    }
    let (mut receipts, mut refused, mut silent) = (Vec::new(), Vec::new(), false);
    while let Some(looked) = looks.join_next().await {
        match looked {
            Ok((renewal, Seen::Valid(more))) => receipts.push((renewal.at, more)),
            Ok((renewal, Seen::Invalid(problem))) => refused.push(subproblem(&renewal.target.name, problem)),
            Ok((_, Seen::Silence(_))) | Err(_) => silent = true,
        }
    }
    match Problem::from_subproblems(refused) {
        Some(problem) => Renewed::Refused(problem),
        None if silent => Renewed::Silence,
        None => Renewed::Receipts(receipts),
    }
}

fn subproblem(name: &Name, problem: Problem) -> Subproblem {
    Subproblem::new(problem.kind, problem.detail, Identifier::in_order(name))
}
