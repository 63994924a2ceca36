//! finalize (RFC 8555 §7.4; DESIGN §3.3): the request is stored before it is sent, so that a dead front loses nothing.
//!
//! Whoever moves an order to `processing` has it for a lease. Its issuance runs in a task of its own, whatever becomes of
//! the client's connection. When it fails for a reason that is not the client's, the order stays in `processing`, and
//! after the lease any poll, and the sweeper of any front, sends the stored request again: the signer answers the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acme::authorization::{Authorization, Facts};
use acme::order::{Finalize, Order, State, Status};
use acme::problem::{ErrorType, Problem};
use acme::{AuthorizationId, OrderId};
use acme_store::{OrderRow, ProcessingClaim, Unit};
use http::StatusCode;
use pki::{DnsName, ErrorClass, Name};
use rpc::Evidence;
use rpc::proto::signer::v1 as proto;
use tokio::time::Instant;

use crate::caa;
use crate::certificate::Chains;
use crate::order;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::{self, Signed};
use crate::service::{Front, SAVE_TRIES};
use crate::signer::{Issued, SignerError};
use crate::stored::{self, Versioned};

/// How long an order rests that could not be issued.
const REST: Duration = Duration::from_secs(1);
/// After an answer that a person must look at first: asking every second would only fill the logs.
const FATAL_REST: Duration = Duration::from_secs(60);
/// The pause before the second try, doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// finalize.
#[tracing::instrument(name = "acme.finalize", skip_all, fields(order = %id))]
pub(crate) async fn finalize(
    front: &Arc<Front>,
    request: Signed<'_>,
    id: &OrderId,
) -> Result<Reply, Refusal> {
    // The signer judges the CSR. Here only what is no finalize request at all is sent away.
    Finalize::from_verified(&request.verified)?;
    let job = accept(front, &request, id).await?;
    let processing = job.order.object.clone();
    let task = front.tasks.spawn(drive(Arc::clone(front), job));
    let patience = Duration::from_millis(front.limits.finalize_wait_milliseconds);
    let order = match tokio::time::timeout(patience, task).await {
        Ok(Ok(Outcome::Ended(order))) => *order,
        Ok(Ok(Outcome::Refused(refusal))) => return Err(refusal),
        Ok(Ok(Outcome::Undecided)) | Err(_) => processing,
        Ok(Err(error)) => {
            tracing::error!(%error, "an issuance task ended");
            processing
        }
    };
    Ok(order::show(&request, &order, StatusCode::OK, front.now()))
}

/// An order in `processing`, and what the signer is asked.
struct Job {
    order: Versioned<Order>,
    request: proto::IssueRequest,
    /// Answers of CAA that must be renewed first.
    due: Vec<caa::Renewal>,
}

/// Moves the order from `ready` to `processing`, by compare-and-swap.
async fn accept(front: &Front, request: &Signed<'_>, id: &OrderId) -> Result<Job, Refusal> {
    let finalize = request.jws().to_json();
    for again in 0..SAVE_TRIES {
        let (_, order) = order::find(front, request, id).await?;
        let Versioned { object, version } = order;
        let evidence = Evidences::load(front, &object).await?;
        let now = front.now();
        let statuses = evidence.statuses(now);
        let Order { facts, state } = order::review_one(object, &statuses, now);
        let version = match state {
            State::Ready(ready) => {
                let state = State::Processing(ready.finalize(finalize.clone(), now));
                let order = Versioned { object: Order { facts, state }, version };
                let change = stored::order_change(&order, Some(front.limits.processing_lease()))?;
                fail::fail_point!("front.finalize.before-processing");
                if !front.save(Unit { orders: vec![change], authorizations: Vec::new() }).await? {
                    continue;
                }
                fail::fail_point!("front.finalize.after-processing");
                return evidence.into_job(front, Versioned { version: version + 1, ..order });
            }
            // This very request, saved by an earlier round whose answer was lost.
            State::Processing(ref processing) if again > 0 && processing.finalize == finalize => version,
            other => return Err(not_ready(other.status())),
        };
        return evidence.into_job(front, Versioned { object: Order { facts, state }, version });
    }
    Err(Refusal::Contended)
}

fn not_ready(status: Status) -> Refusal {
    let detail = format!("the order is {}, not ready", status.as_str());
    Problem::new(ErrorType::OrderNotReady, detail).into()
}

/// The order's authorizations, as far as they are kept.
struct Evidences(Vec<Authorization>);

impl Evidences {
    async fn load(front: &Front, order: &Order) -> Result<Self, Refusal> {
        let ids: Vec<String> = order.facts.authorizations.iter().map(AuthorizationId::to_string).collect();
        let rows = front.store.authorizations(&ids).await?;
        Ok(Self(
            rows.iter().map(|row| Ok(stored::authorization(row)?.object)).collect::<Result<_, Refusal>>()?,
        ))
    }

    fn statuses(&self, now: pki::Timestamp) -> HashMap<AuthorizationId, acme::authorization::Status> {
        self.0.iter().map(|authorization| (authorization.facts.id, authorization.status(now))).collect()
    }

    fn into_job(self, front: &Front, order: Versioned<Order>) -> Result<Job, Refusal> {
        let State::Processing(processing) = &order.object.state else {
            return Err(Refusal::Impossible("an issuance of an order that is not processing"));
        };
        let facts = &order.object.facts;
        let by_name: HashMap<_, _> = self.0.iter().map(|one| (&one.facts.name, one)).collect();
        let of = |name| {
            let above = facts.ancestors.get(name).cloned();
            let subject = above.clone().map(Name::Dns);
            let authorization = *by_name.get(subject.as_ref().unwrap_or(name))?;
            Some(caa::Shown { name: name.clone(), above, authorization })
        };
        let shown: Vec<caa::Shown<'_>> = facts.names.iter().filter_map(of).collect();
        let due = match front.directories.find(&facts.directory)? {
            Some(directory) => {
                let finalize = acme::Jws::from_slice(processing.finalize.as_bytes())?;
                caa::due(&directory, &shown, &request::account_url(&finalize)?, front.now())
            }
            None => Vec::new(),
        };
        let evidence = |shown: caa::Shown<'_>| evidence(shown.authorization, shown.name, shown.above).into();
        let request = proto::IssueRequest {
            new_order_jws: facts.new_order.clone().into(),
            finalize_jws: processing.finalize.clone().into(),
            authorizations: shown.into_iter().map(evidence).collect(),
            profile: facts.profile.to_string(),
        };
        Ok(Job { order, request, due })
    }
}

/// Why the account may have the name, for the signer to judge: by its own authorization, or by that of a domain above.
pub(crate) fn evidence(authorization: &Authorization, name: Name, ancestor: Option<DnsName>) -> Evidence {
    let receipts = match &authorization.state {
        acme::authorization::State::Valid(valid) => valid.receipts().to_vec(),
        _ => Vec::new(),
    };
    Evidence { name, receipts, ancestor, ..claim(&authorization.facts) }
}

/// Which authorization is meant.
pub(crate) fn claim(facts: &Facts) -> Evidence {
    Evidence {
        name: facts.name.clone(),
        authorization: facts.id,
        created_by: facts.created_by,
        receipts: Vec::new(),
        ancestor: None,
    }
}

/// What became of an issuance.
enum Outcome {
    /// The order as it is now.
    Ended(Box<Order>),
    /// The client's fault; the order is `ready` again.
    Refused(Refusal),
    /// Somebody tries again after the lease.
    Undecided,
}

/// Asks the signer until it decides, or the lease comes near its end.
async fn drive(front: Arc<Front>, job: Job) -> Outcome {
    let started = Instant::now();
    let Job { order, mut request, mut due } = job;
    let id = order.object.facts.id;
    let mut pause = FIRST_PAUSE;
    let mut rest = REST;
    let deadline = front.limits.issue_deadline();
    tokio::time::sleep(front.faults.processing()).await;
    loop {
        if !due.is_empty() {
            match caa::renew(&front, &due).await {
                caa::Renewed::Receipts(more) => {
                    for (at, receipts) in more {
                        if let Some(evidence) = request.authorizations.get_mut(at) {
                            evidence.receipts.extend(receipts);
                        }
                    }
                    due.clear();
                }
                caa::Renewed::Refused(problem) => {
                    return refused(&front, order, problem.clone(), problem.into()).await;
                }
                caa::Renewed::Silence => {
                    tracing::warn!(order = %id, "CAA cannot be asked anew yet");
                    if !rests(&front, &order, started, pause, rest).await {
                        return Outcome::Undecided;
                    }
                    pause *= 2;
                    continue;
                }
            }
        }
        match front.signer.issue(request.clone(), deadline).await {
            Ok(Issued::Certificate { serial, chain, alternates }) => {
                front.fresh.keep(&order.object.facts, serial, Chains::new(chain, alternates));
                tracing::info!(order = %id, %serial, "issued");
                metrics::counter!("chancery_front_issuances_total", "outcome" => "issued").increment(1);
                metrics::histogram!("chancery_front_issuance_seconds")
                    .record(started.elapsed().as_secs_f64());
                return conclude(&front, order, |processing| State::Valid(processing.issue(serial))).await;
            }
            Ok(Issued::Later(time)) => pause = time.max(FIRST_PAUSE),
            Err(SignerError::Refused(answer)) if answer.problem.status() < 500 => {
                let problem = answer.problem.clone();
                let refusal = Refusal::Signer(SignerError::Refused(answer));
                return refused(&front, order, problem, refusal).await;
            }
            Err(error) => {
                let fatal = error.class() == ErrorClass::Fatal;
                rest = if fatal { FATAL_REST } else { REST };
                tracing::warn!(order = %id, %error, fatal, "not issued yet");
            }
        }
        if !rests(&front, &order, started, pause, rest).await {
            return Outcome::Undecided;
        }
        pause *= 2;
    }
}

/// The client's fault: the order is `ready` again.
async fn refused(front: &Front, order: Versioned<Order>, problem: Problem, refusal: Refusal) -> Outcome {
    tracing::info!(order = %order.object.facts.id, problem = problem.kind.name(), "issuance refused");
    metrics::counter!("chancery_front_issuances_total", "outcome" => "refused").increment(1);
    conclude(front, order, |processing| State::Ready(processing.refuse(problem.clone()))).await;
    Outcome::Refused(refusal)
}

/// Waits before another try; false if the lease or this front comes to its end before.
async fn rests(
    front: &Front,
    order: &Versioned<Order>,
    started: Instant,
    pause: Duration,
    rest: Duration,
) -> bool {
    let limits = &front.limits;
    let over = started.elapsed() + pause + limits.issue_deadline() > limits.processing_lease();
    if over || front.draining.is_cancelled() {
        metrics::counter!("chancery_front_issuances_total", "outcome" => "undecided").increment(1);
        give_back(front, order, rest).await;
        return false;
    }
    tokio::time::sleep(pause).await;
    true
}

/// Nobody works on the order any longer: it need not wait for the end of its lease. Most often the signers are away, so
/// it rests for a moment.
async fn give_back(front: &Front, order: &Versioned<Order>, rest: Duration) {
    let unit = stored::order_change(order, Some(rest));
    let saved = match unit {
        Ok(change) => front.save(Unit { orders: vec![change], authorizations: Vec::new() }).await,
        Err(error) => Err(error),
    };
    if let Err(error) = saved {
        tracing::debug!(%error, "a lease is left to run out");
    }
}

/// Saves what the signer decided. Another front may have taken the order over meanwhile: the decision is the same for
/// both.
async fn conclude(
    front: &Front,
    mut order: Versioned<Order>,
    step: impl Fn(acme::order::Processing) -> State,
) -> Outcome {
    for _ in 0..SAVE_TRIES {
        let Versioned { object: Order { facts, state }, version } = order;
        let State::Processing(processing) = state else {
            return Outcome::Ended(Box::new(Order { facts, state }));
        };
        let next = Versioned { object: Order { facts, state: step(processing) }, version };
        fail::fail_point!("front.record.before");
        let saved = match stored::order_change(&next, None) {
            Ok(change) => front.save(Unit { orders: vec![change], authorizations: Vec::new() }).await,
            Err(error) => Err(error),
        };
        fail::fail_point!("front.record.after");
        match saved {
            Ok(true) => return Outcome::Ended(Box::new(next.object)),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(order = %next.object.facts.id, %error, "a decision is not saved yet")
            }
        }
        let id = next.object.facts.id.to_string();
        order = match front.store.order(&id).await.map(|row| row.as_ref().map(stored::order)) {
            Ok(Some(Ok(order))) => order,
            // Not to be read, or gone. If it is still there, the next to send the request gets the same answer.
            _ => return Outcome::Undecided,
        };
    }
    Outcome::Undecided
}

/// A poll of an order whose lease has run out sends the stored request again.
pub(crate) fn resume_if_abandoned(front: &Arc<Front>, row: &OrderRow) {
    let now_ms = i64::try_from(front.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
    // The lease is by the database's clock; this look only spares it the write.
    if row.lease_until_ms.is_none_or(|until| until < now_ms) {
        let (front, claim) = (Arc::clone(front), ProcessingClaim::Order(row.id.clone()));
        front.clone().tasks.spawn(async move {
            if let Err(error) = resume(&front, &claim).await {
                tracing::warn!(%error, "an order is not taken over");
            }
        });
    }
}

/// Takes over orders whose lease has run out. How many.
pub(crate) async fn resume(front: &Arc<Front>, claim: &ProcessingClaim) -> Result<usize, Refusal> {
    let rows = front.store.claim_processing(claim, front.limits.processing_lease()).await?;
    if !rows.is_empty() {
        fail::fail_point!("front.resume.after-claim");
    }
    for row in &rows {
        let order = stored::order(row)?;
        tracing::info!(order = %order.object.facts.id, "taken over");
        let job = Evidences::load(front, &order.object).await?.into_job(front, order)?;
        front.tasks.spawn(drive(Arc::clone(front), job));
    }
    Ok(rows.len())
}
