//! One order in `processing`, from the question to the signer to what is saved of its answer.

use std::sync::Arc;
use std::time::Duration;

use acme::order::{Order, State};
use acme::problem::{ErrorType, Problem};
use acme_store::Unit;
use pki::{ErrorClass, Period, Serial};
use rpc::proto::signer::v1 as proto;
use tokio::time::Instant;

use super::Job;
use crate::caa;
use crate::certificate::Chains;
use crate::refusal::Refusal;
use crate::service::{Front, SAVE_TRIES};
use crate::signer::{Issued, SignerError};
use crate::stored::{self, Versioned};

/// How long an order rests that could not be issued.
const REST: Duration = Duration::from_secs(1);
/// After an answer that a person must look at first: asking every second would only fill the logs.
const FATAL_REST: Duration = Duration::from_secs(60);
/// The pause before the second try, doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What became of an issuance.
pub(super) enum Outcome {
    /// The order as it is now.
    Ended(Box<Order>),
    /// The client's fault; the order is `ready` again.
    Refused(Refusal),
    /// Somebody tries again after the lease.
    Undecided,
}

/// Asks the signer until it decides, or the lease comes near its end.
pub(super) async fn drive(front: Arc<Front>, job: Job) -> Outcome {
    let Job { order, request, due } = job;
    let lease_until = Instant::now() + front.limits.processing_lease();
    tokio::time::sleep(front.faults.processing()).await;
    let drive = Drive {
        front: &front,
        order,
        request,
        caa: caa::Renewing::new(due),
        begun: Instant::now(),
        lease_until,
        pause: FIRST_PAUSE,
        rest: REST,
    };
    drive.run().await
}

/// An issuance under way.
struct Drive<'a> {
    front: &'a Arc<Front>,
    order: Versioned<Order>,
    request: proto::IssueRequest,
    caa: caa::Renewing,
    begun: Instant,
    /// Until when the order is this front's.
    lease_until: Instant,
    /// Before the next try.
    pause: Duration,
    /// How long the order rests if this front gives it back.
    rest: Duration,
}

impl Drive<'_> {
    async fn run(mut self) -> Outcome {
        loop {
            if self.caa.is_due() {
                if !self.hold().await {
                    return Outcome::Undecided;
                }
                self.caa.look(self.front, &mut self.request).await;
            }
            // Also when CAA forbids it by now, or cannot be asked: a front that died may have left a certificate behind, and
            // whatever speaks against an order that has one, the signer answers with it (DESIGN §2.3).
            let request = self.caa.question(&self.request);
            match self.front.signer.issue(request, self.front.limits.issue_deadline()).await {
                Ok(Issued::Certificate { serial, chain, alternates }) => {
                    return self.issued(serial, Chains::new(chain, alternates)).await;
                }
                Ok(Issued::Later(time)) => self.pause = time.max(FIRST_PAUSE),
                Err(SignerError::Refused(answer)) if answer.problem.status() < 500 => {
                    if let Some(problem) = self.caa.forbidden() {
                        return refused(self.front, self.order, problem.clone(), problem.into()).await;
                    }
                    if !self.may_be_renewed(&answer.problem) {
                        let problem = answer.problem.clone();
                        let refusal = Refusal::Signer(SignerError::Refused(answer));
                        return refused(self.front, self.order, problem, refusal).await;
                    }
                    tracing::warn!(order = %self.order.object.facts.id, "CAA cannot be asked anew yet");
                }
                Err(error) => {
                    let fatal = error.class() == ErrorClass::Fatal;
                    self.rest = if fatal { FATAL_REST } else { REST };
                    tracing::warn!(order = %self.order.object.facts.id, %error, fatal, "not issued yet");
                }
            }
            if !self.rests().await {
                return Outcome::Undecided;
            }
        }
    }

    async fn issued(self, serial: Serial, chains: Chains) -> Outcome {
        let facts = &self.order.object.facts;
        self.front.fresh.keep(facts, serial, chains);
        tracing::info!(order = %facts.id, %serial, "issued");
        metrics::counter!("chancery_front_issuances_total", "outcome" => "issued").increment(1);
        metrics::histogram!("chancery_front_issuance_seconds").record(self.begun.elapsed().as_secs_f64());
        conclude(self.front, self.order, |processing| State::Valid(processing.issue(serial))).await
    }

    /// Whether the signer misses but answers of CAA that perspectives may yet give. Not for ever: the order ends, and so does
    /// the patience with those that are silent.
    fn may_be_renewed(&self, problem: &Problem) -> bool {
        let Order { facts, state } = &self.order.object;
        let State::Processing(processing) = state else { return false };
        let now = self.front.now();
        let patience = Period::from_seconds(self.front.validation.caa_seconds);
        self.caa.is_due()
            && problem.kind == ErrorType::Caa
            && now < facts.expires
            && now.since(processing.since) < patience
    }

    /// Makes the lease long enough for a look at CAA and the question to the signer after it; false if another front has
    /// taken the order over, or that cannot be said.
    async fn hold(&mut self) -> bool {
        let front = self.front;
        let look = Duration::from_secs(front.validation.attempt_seconds);
        let lease = look + self.pause * 2 + front.limits.processing_lease();
        let until = Instant::now() + lease;
        let saved = match stored::order_change(&self.order, Some(lease)) {
            Ok(change) => front.save(Unit { orders: vec![change], authorizations: Vec::new() }).await,
            Err(error) => Err(error),
        };
        match saved {
            Ok(true) => {
                self.order.version += 1;
                self.lease_until = until;
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(order = %self.order.object.facts.id, %error, "a lease is not prolonged");
                false
            }
        }
    }

    /// Waits before another try; false if the lease or this front comes to its end before.
    async fn rests(&mut self) -> bool {
        let limits = &self.front.limits;
        // A look at CAA prolongs the lease before anything else.
        let next = if self.caa.is_due() { Duration::ZERO } else { limits.issue_deadline() };
        let over = Instant::now() + self.pause + next > self.lease_until;
        if !over && !self.front.draining.is_cancelled() {
            tokio::select! {
                () = self.front.draining.cancelled() => {}
                () = tokio::time::sleep(self.pause) => {
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    return true;
                }
            }
        }
        metrics::counter!("chancery_front_issuances_total", "outcome" => "undecided").increment(1);
        give_back(self.front, &self.order, self.rest).await;
        false
    }
}

/// The client's fault: the order is `ready` again.
async fn refused(front: &Front, order: Versioned<Order>, problem: Problem, refusal: Refusal) -> Outcome {
    tracing::info!(order = %order.object.facts.id, problem = problem.kind.name(), "issuance refused");
    metrics::counter!("chancery_front_issuances_total", "outcome" => "refused").increment(1);
    conclude(front, order, |processing| State::Ready(processing.refuse(problem.clone()))).await;
    Outcome::Refused(refusal)
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
