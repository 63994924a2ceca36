//! Asks signers for answers, and judges what they say before anybody gets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use pki::Timestamp;
use pki::ocsp::{CertId, CertStatus, Response};
use rpc::proto::status::v1 as proto;
use rpc::proto::status::v1::responder_client::ResponderClient;
use runtime::{Dependency, SharedClock};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, warn};

use super::answer::{Ground, Kept, Unfit};
use super::cache::Cache;
use super::issuers::Issuers;
use super::log::Entry;
use super::queue::{Batch, Lane, Outcome, Question, Queue, Ticket};
use super::spool::Journal;
use super::truth::{Standing, Truth};
use crate::config::OcspSection;

/// What asking needs.
pub(crate) struct Asker {
    pub(crate) client: ResponderClient<rpc::Channel>,
    pub(crate) settings: OcspSection,
    pub(crate) cache: Arc<Cache>,
    pub(crate) truth: Arc<Truth>,
    pub(crate) issuers: Arc<Issuers>,
    pub(crate) journal: Journal,
    pub(crate) clock: SharedClock,
    /// Whether signers answer.
    pub(crate) signers: Dependency,
    pub(crate) line: Line,
}

/// Where questions wait.
#[derive(Debug)]
pub(crate) struct Line {
    queue: Mutex<Queue>,
    filled: Notify,
    is_silent: AtomicBool,
    kept: Counter,
    passed: Counter,
    outdated: Counter,
    refused: Counter,
    silent: Counter,
    call_seconds: Histogram,
    call_size: Histogram,
    revoked_seconds: Histogram,
}

impl Line {
    pub(crate) fn new() -> Self {
        let live = |outcome| metrics::counter!("chancery_status_ocsp_live_total", "outcome" => outcome);
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            is_silent: AtomicBool::new(false),
            kept: live("kept"),
            passed: live("passed"),
            outdated: live("outdated"),
            refused: live("refused"),
            silent: live("silence"),
            call_seconds: metrics::histogram!("chancery_status_ocsp_call_seconds"),
            call_size: metrics::histogram!("chancery_status_ocsp_call_size"),
            revoked_seconds: metrics::histogram!("chancery_status_revocation_to_ocsp_seconds"),
        }
    }
}

enum Verdict {
    Done(Outcome),
    /// Older than a notice. With what may be said when no newer one comes: that it is revoked, which is never undone.
    Again(Outcome),
}

impl Asker {
    /// Asks, and leaves the answer to be waited for.
    pub(crate) fn ask(&self, question: Question) -> oneshot::Receiver<Outcome> {
        let receiver = self.line.queue.lock().ask(question);
        self.line.filled.notify_one();
        receiver
    }

    /// Asks again for what is no longer true.
    pub(crate) fn renew(&self, ids: &[CertId]) {
        if !ids.is_empty() {
            let mut queue = self.line.queue.lock();
            ids.iter().for_each(|id| queue.renew(id));
            drop(queue);
            self.line.filled.notify_one();
        }
    }

    /// Asks for what will be due, as long as there is room.
    pub(crate) fn ahead(&self, kept: &[Arc<Kept>]) {
        if !kept.is_empty() {
            let mut queue = self.line.queue.lock();
            let _all = kept.iter().all(|kept| queue.ahead(&kept.id));
            drop(queue);
            self.line.filled.notify_one();
        }
    }

    /// Whether the last call was not answered.
    pub(crate) fn is_silent(&self) -> bool {
        self.line.is_silent.load(Ordering::Relaxed)
    }

    /// Makes calls until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.settings.calls.get()));
        let mut calls = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let batch = tokio::select! {
                batch = self.next() => batch,
                () = stop.cancelled() => return,
            };
            let asker = Arc::clone(&self);
            calls.spawn(async move {
                let is_ahead = batch.is_ahead;
                asker.call(batch).await;
                asker.line.queue.lock().end(is_ahead);
                drop(place);
                asker.line.filled.notify_one();
            });
            while calls.try_join_next().is_some() {}
        }
    }

    async fn next(&self) -> Batch {
        loop {
            if let Some(batch) = self.line.queue.lock().take(self.settings.questions_per_call.get()) {
                return batch;
            }
            self.line.filled.notified().await;
        }
    }

    async fn call(self: &Arc<Self>, Batch { tickets, is_ahead }: Batch) {
        let resets = self.truth.resets();
        let question =
            |ticket: &Ticket| proto::Question { request: ticket.question.request.clone(), ahead: is_ahead };
        let mut request =
            tonic::Request::new(proto::AnswerRequest { questions: tickets.iter().map(question).collect() });
        request.set_timeout(self.settings.wait());
        let (begun, mut client) = (Instant::now(), self.client.clone());
        let answered = timeout(self.settings.wait(), client.answer(request)).await;
        self.line.call_seconds.record(begun.elapsed());
        self.line.call_size.record(f64::from(u32::try_from(tickets.len()).unwrap_or(u32::MAX)));
        match answered {
            Ok(Ok(answer)) => {
                self.line.is_silent.store(false, Ordering::Relaxed);
                self.signers.up();
                self.judge(tickets, answer.into_inner().answers, resets).await;
            }
            Ok(Err(status)) => {
                debug!(%status, "status.ocsp_call");
                // Busy, but there.
                let is_there = status.code() == Code::ResourceExhausted;
                if !is_there {
                    self.fell_silent(&status.to_string());
                }
                // The next call goes to the next signer; to ask twice does no harm.
                let may_be_repeated =
                    matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown);
                self.give_up(&tickets, may_be_repeated);
            }
            Err(_) => {
                self.fell_silent("no answer in time");
                self.give_up(&tickets, false);
            }
        }
    }

    fn fell_silent(&self, why: &str) {
        self.line.is_silent.store(true, Ordering::Relaxed);
        self.signers.down(why);
    }

    fn give_up(&self, tickets: &[Ticket], again: bool) {
        let mut queue = self.line.queue.lock();
        for ticket in tickets {
            self.line.silent.increment(1);
            if again {
                queue.again(ticket, &Outcome::Silence);
            } else {
                queue.finish(ticket, &Outcome::Silence);
            }
        }
    }

    /// Signatures take their time to verify: not on the threads that answer requests.
    async fn judge(self: &Arc<Self>, tickets: Vec<Ticket>, answers: Vec<proto::Answer>, resets: u64) {
        if answers.len() != tickets.len() {
            warn!(asked = tickets.len(), answered = answers.len(), "status.ocsp_call_incomplete");
            self.give_up(&tickets, false);
            return;
        }
        let asker = Arc::clone(self);
        let judged = tokio::task::spawn_blocking(move || {
            for (ticket, answer) in tickets.iter().zip(&answers) {
                let verdict = asker.verdict(ticket, answer, resets);
                let mut queue = asker.line.queue.lock();
                match verdict {
                    Verdict::Done(outcome) => queue.finish(ticket, &outcome),
                    Verdict::Again(last) => queue.again(ticket, &last),
                }
            }
        });
        if judged.await.is_err() {
            tracing::error!("status.ocsp_judgement_panicked");
        }
    }

    fn verdict(&self, ticket: &Ticket, answer: &proto::Answer, resets: u64) -> Verdict {
        let verdict = if ticket.question.is_plain {
            self.plain(ticket, answer, resets)
        } else {
            self.unkept(ticket, answer, resets)
        };
        let count = match &verdict {
            Verdict::Done(Outcome::Kept(_)) => &self.line.kept,
            Verdict::Done(Outcome::Passed(_)) => &self.line.passed,
            Verdict::Done(Outcome::Silence) => &self.line.refused,
            Verdict::Again(_) => &self.line.outdated,
        };
        count.increment(1);
        verdict
    }

    fn plain(&self, ticket: &Ticket, answer: &proto::Answer, resets: u64) -> Verdict {
        // A copy: the answer would hold on to the whole message.
        let body = Bytes::copy_from_slice(&answer.response);
        let basis = match answer.bases.as_slice() {
            [basis] => Some(basis),
            _ => None,
        };
        let ground = basis.map_or_else(|| Ground::of(&proto::Basis::default()), Ground::of);
        let is_assigned = basis.is_some_and(|basis| basis.assigned);
        match Kept::read(body.clone(), ground) {
            Ok((kept, response)) if is_assigned && ticket.question.ids.contains(&kept.id) => {
                let now = self.clock.now().unix_timestamp();
                match self.issuers.prove(&kept, &response, now) {
                    Ok(()) => self.keep(kept, &response, ticket.lane, resets),
                    Err(error) => refuse(&error),
                }
            }
            Ok(_) => refuse(&Unfit::Subject),
            // What cannot be said now is said as silence: perhaps there is something older to say.
            Err(Unfit::Error(2 | 3)) => Verdict::Done(Outcome::Silence),
            Err(Unfit::Error(_)) => Verdict::Done(Outcome::Passed(body)),
            Err(Unfit::Unassigned) if !is_assigned => Verdict::Done(Outcome::Passed(body)),
            Err(error) => refuse(&error),
        }
    }

    fn keep(&self, kept: Kept, response: &Response, lane: Lane, resets: u64) -> Verdict {
        let revoked_at = response.singles().iter().find_map(|single| match single.status {
            CertStatus::Revoked { at, .. } => Some(at),
            _ => None,
        });
        let body = kept.body.clone();
        let kept = Arc::new(kept);
        let (ground, serial) = (kept.ground.clone(), kept.serial);
        // Noted before a notice can be: whoever reads the log finds them in the order in which they became true.
        let put = || {
            let now = self.cache.put(Arc::clone(&kept), lane != Lane::Ahead);
            if Arc::ptr_eq(&now, &kept) {
                self.journal.note(Entry::Keep(kept));
            }
            now
        };
        match self.truth.if_true(&ground, &serial, resets, put) {
            Some(kept) => {
                if let Some(revoked_at) = revoked_at.filter(|_| lane == Lane::Renewed) {
                    self.line.revoked_seconds.record(self.seconds_since(revoked_at));
                }
                Verdict::Done(Outcome::Kept(kept))
            }
            None if revoked_at.is_some() => Verdict::Again(Outcome::Passed(body)),
            None => Verdict::Again(Outcome::Silence),
        }
    }

    /// 0 when this host's clock is behind.
    fn seconds_since(&self, then: Timestamp) -> f64 {
        let now = self.clock.now();
        let whole = i64::try_from(then.unix()).unwrap_or(i64::MAX);
        let seconds = u32::try_from(now.unix_timestamp().saturating_sub(whole).max(0)).unwrap_or(u32::MAX);
        f64::from(seconds) + f64::from(now.nanosecond()) / 1e9
    }

    fn unkept(&self, ticket: &Ticket, answer: &proto::Answer, resets: u64) -> Verdict {
        let body = Bytes::copy_from_slice(&answer.response);
        if answer.bases.is_empty() {
            return match pki::ocsp::read(&body) {
                Ok(pki::ocsp::Answer::Error(2 | 3)) => Verdict::Done(Outcome::Silence),
                Ok(pki::ocsp::Answer::Error(_)) => Verdict::Done(Outcome::Passed(body)),
                Ok(pki::ocsp::Answer::Successful(_)) => refuse(&Unfit::Subject),
                Err(error) => refuse(&error.into()),
            };
        }
        if answer.bases.len() != ticket.question.ids.len() {
            return refuse(&Unfit::Subject);
        }
        let is_true = |(basis, id): (&proto::Basis, &CertId)| {
            let Some(serial) = id.serial().filter(|_| basis.assigned) else { return true };
            self.truth.standing(&Ground::of(basis), &serial, resets) == Standing::True
        };
        if answer.bases.iter().zip(ticket.question.ids.iter()).all(is_true) {
            Verdict::Done(Outcome::Passed(body))
        } else {
            Verdict::Again(Outcome::Silence)
        }
    }
}

fn refuse(error: &Unfit) -> Verdict {
    warn!(%error, "status.ocsp_refused");
    Verdict::Done(Outcome::Silence)
}
