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
use pki::{DnsName, Name};
use rpc::Evidence;
use rpc::proto::signer::v1 as proto;

use crate::caa;
use crate::order;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::{self, Signed};
use crate::service::{Front, SAVE_TRIES};
use crate::stored::{self, Versioned};

mod drive;

use drive::{Outcome, drive};

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
        // One that cannot be read must not keep the others waiting.
        if let Err(error) = take_over(front, row).await {
            tracing::error!(order = row.id, %error, "an order is not taken over");
        }
    }
    Ok(rows.len())
}

async fn take_over(front: &Arc<Front>, row: &OrderRow) -> Result<(), Refusal> {
    let order = stored::order(row)?;
    tracing::info!(order = %order.object.facts.id, "taken over");
    let job = Evidences::load(front, &order.object).await?.into_job(front, order)?;
    front.tasks.spawn(drive(Arc::clone(front), job));
    Ok(())
}
