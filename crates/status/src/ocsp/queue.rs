//! Questions that wait for the next call to a signer. No timer: what is here when a call can begin travels with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use pki::ocsp::CertId;
use tokio::sync::oneshot;

use super::answer::Kept;

/// What became of a question.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// A proven answer, in the cache.
    Kept(Arc<Kept>),
    /// An answer, or an OCSP error, for this caller alone.
    Passed(Bytes),
    /// Nobody answered, or nothing that could be believed.
    Silence,
}

/// Why a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Somebody waits for an answer that will be kept.
    Asked,
    /// Somebody waits for an answer that will not.
    Unkept,
    /// An answer that was kept is no longer true.
    Renewed,
    /// An answer that is kept will be due.
    Ahead,
}

const LANES: usize = 4;

/// A question with those who wait for it.
#[derive(Debug)]
struct Job {
    question: Question,
    lane: Lane,
    attempts: u8,
    is_under_way: bool,
    waiters: Vec<oneshot::Sender<Outcome>>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// DER of an OCSPRequest.
    pub(crate) request: Bytes,
    pub(crate) ids: Arc<[CertId]>,
    /// Whether an answer can be kept: about one certificate, without a nonce.
    pub(crate) is_plain: bool,
}

impl Question {
    /// About one certificate.
    pub(crate) fn about(id: &CertId) -> Self {
        let request = pki::ocsp::encode_request(std::slice::from_ref(id), None).into();
        Self { request, ids: [id.clone()].into(), is_plain: true }
    }

    fn id(&self) -> Option<&CertId> {
        self.ids.first().filter(|_| self.is_plain)
    }
}

/// A question that is under way.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    pub(crate) question: Question,
    pub(crate) lane: Lane,
}

/// The questions of the next call.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) is_ahead: bool,
}

/// All questions.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    jobs: HashMap<u64, Job>,
    by_id: HashMap<CertId, u64>,
    lanes: [VecDeque<u64>; LANES],
    last: u64,
    is_ahead_under_way: bool,
}

/// Answers that are made ahead: so many in a call, and so many that wait for one.
const AHEAD_BATCH: usize = 64;
const AHEAD_WAITING: usize = 4096;
/// How often a question is asked.
const ATTEMPTS: u8 = 3;

impl Queue {
    /// Asks, or joins those who wait for the same.
    pub(crate) fn ask(&mut self, question: Question) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let lane = if question.is_plain { Lane::Asked } else { Lane::Unkept };
        let number = self.enter(question, lane);
        if let Some(job) = self.jobs.get_mut(&number) {
            job.waiters.retain(|waiter| !waiter.is_closed());
            job.waiters.push(sender);
        }
        receiver
    }

    /// Asks again for what is no longer true.
    pub(crate) fn renew(&mut self, id: &CertId) {
        self.enter(Question::about(id), Lane::Renewed);
    }

    /// Asks ahead; false when there is no room.
    pub(crate) fn ahead(&mut self, id: &CertId) -> bool {
        if self.lane(Lane::Ahead).len() >= AHEAD_WAITING {
            return false;
        }
        self.enter(Question::about(id), Lane::Ahead);
        true
    }

    fn enter(&mut self, question: Question, lane: Lane) -> u64 {
        let under_way = question.id().and_then(|id| self.by_id.get(id)).copied();
        if let Some(number) = under_way
            && let Some(job) = self.jobs.get_mut(&number)
        {
            // What somebody waits for does not give way.
            let rises = matches!(
                (job.lane, lane),
                (Lane::Ahead, Lane::Asked | Lane::Renewed) | (Lane::Asked, Lane::Renewed)
            );
            if rises {
                let is_waiting = !job.is_under_way;
                job.lane = lane;
                if is_waiting {
                    self.lane_mut(lane).push_back(number);
                }
            }
            return number;
        }
        self.last += 1;
        let number = self.last;
        if let Some(id) = question.id() {
            self.by_id.insert(id.clone(), number);
        }
        let job = Job { question, lane, attempts: 0, is_under_way: false, waiters: Vec::new() };
        self.jobs.insert(number, job);
        self.lane_mut(lane).push_back(number);
        number
    }

    fn lane(&self, lane: Lane) -> &VecDeque<u64> {
        let [asked, unkept, renewed, ahead] = &self.lanes;
        match lane {
            Lane::Asked => asked,
            Lane::Unkept => unkept,
            Lane::Renewed => renewed,
            Lane::Ahead => ahead,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut VecDeque<u64> {
        let [asked, unkept, renewed, ahead] = &mut self.lanes;
        match lane {
            Lane::Asked => asked,
            Lane::Unkept => unkept,
            Lane::Renewed => renewed,
            Lane::Ahead => ahead,
        }
    }

    /// The questions of the next call, at most so many; `None` when there are none. Of a full call, a quarter is for those whose
    /// answers cannot be kept, and a quarter for renewals. What is made ahead travels alone, when nobody waits, one call at a
    /// time.
    pub(crate) fn take(&mut self, most: usize) -> Option<Batch> {
        let quarter = most.div_ceil(4);
        let mut tickets = Vec::new();
        self.draw(Lane::Renewed, quarter, &mut tickets);
        self.draw(Lane::Unkept, (tickets.len() + quarter).min(most), &mut tickets);
        self.draw(Lane::Asked, most, &mut tickets);
        self.draw(Lane::Renewed, most, &mut tickets);
        if !tickets.is_empty() {
            return Some(Batch { tickets, is_ahead: false });
        }
        if self.is_ahead_under_way {
            return None;
        }
        self.draw(Lane::Ahead, most.min(AHEAD_BATCH), &mut tickets);
        self.is_ahead_under_way = !tickets.is_empty();
        (!tickets.is_empty()).then_some(Batch { tickets, is_ahead: true })
    }

    /// Takes from a lane until there are so many.
    fn draw(&mut self, lane: Lane, until: usize, tickets: &mut Vec<Ticket>) {
        while tickets.len() < until {
            let Some(number) = self.lane_mut(lane).pop_front() else { return };
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            // It rose to another lane, and may be under way from there.
            if job.is_under_way || job.lane != lane {
                continue;
            }
            let is_waited_for = matches!(lane, Lane::Renewed | Lane::Ahead)
                || job.waiters.iter().any(|waiter| !waiter.is_closed());
            if !is_waited_for {
                self.forget(number);
                continue;
            }
            job.is_under_way = true;
            job.attempts += 1;
            tickets.push(Ticket { number, question: job.question.clone(), lane });
        }
    }

    /// Tells everybody who waits.
    pub(crate) fn finish(&mut self, ticket: &Ticket, outcome: &Outcome) {
        for waiter in self.forget(ticket.number) {
            // Whoever left does not hear it.
            drop(waiter.send(outcome.clone()));
        }
    }

    /// Asks once more what was answered too early, or not at all; nobody asks for ever, and not at all for what is made ahead:
    /// then `last` is the outcome.
    pub(crate) fn again(&mut self, ticket: &Ticket, last: &Outcome) {
        let Some(job) = self.jobs.get_mut(&ticket.number) else { return };
        if job.attempts >= ATTEMPTS || job.lane == Lane::Ahead {
            self.finish(ticket, last);
            return;
        }
        job.is_under_way = false;
        let lane = job.lane;
        self.lane_mut(lane).push_front(ticket.number);
    }

    /// A call is over.
    pub(crate) fn end(&mut self, is_ahead: bool) {
        if is_ahead {
            self.is_ahead_under_way = false;
        }
    }

    fn forget(&mut self, number: u64) -> Vec<oneshot::Sender<Outcome>> {
        let Some(job) = self.jobs.remove(&number) else { return Vec::new() };
        if let Some(id) = job.question.id() {
            self.by_id.remove(id);
        }
        job.waiters
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use pki::Serial;
    use pki::ocsp::{CertIdHash, IssuerHashes};

    use super::*;

    fn id(number: u8) -> CertId {
        static ISSUER: LazyLock<IssuerHashes> = LazyLock::new(|| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
            IssuerHashes::of(&pki::Certificate::from_der(certificate.der()).unwrap())
        });
        CertId::new(CertIdHash::Sha1, &ISSUER, &Serial::from_bytes(&[1, number]).unwrap())
    }

    fn unkept(number: u8) -> Question {
        Question { is_plain: false, ..Question::about(&id(number)) }
    }

    fn numbers(batch: &Batch) -> Vec<u8> {
        let last = |ticket: &Ticket| *ticket.question.ids[0].serial().unwrap().as_bytes().last().unwrap();
        batch.tickets.iter().map(last).collect()
    }

    #[test]
    fn the_same_question_is_asked_once() {
        let mut queue = Queue::default();
        let mut waiting: Vec<_> = (0..3).map(|_| queue.ask(Question::about(&id(1)))).collect();
        let batch = queue.take(9).unwrap();
        assert_eq!(numbers(&batch), [1]);
        // Also while it is under way.
        waiting.push(queue.ask(Question::about(&id(1))));
        assert!(queue.take(9).is_none());
        queue.finish(&batch.tickets[0], &Outcome::Silence);
        for mut one in waiting {
            assert!(matches!(one.try_recv(), Ok(Outcome::Silence)));
        }
        let _later = queue.ask(Question::about(&id(1)));
        assert_eq!(queue.take(9).unwrap().tickets.len(), 1);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_asked() {
        let mut queue = Queue::default();
        drop(queue.ask(Question::about(&id(1))));
        let _waiting = queue.ask(Question::about(&id(2)));
        assert_eq!(numbers(&queue.take(9).unwrap()), [2]);
        assert_eq!(queue.jobs.len(), 1);
    }

    #[test]
    fn nobody_fills_a_call_alone() {
        let mut queue = Queue::default();
        let mut waiting = Vec::new();
        for number in 0..20 {
            waiting.push(queue.ask(Question::about(&id(number))));
            waiting.push(queue.ask(unkept(50 + number)));
            queue.renew(&id(100 + number));
            queue.ahead(&id(150 + number));
        }
        let batch = queue.take(8).unwrap();
        assert_eq!(numbers(&batch), [100, 101, 50, 51, 0, 1, 2, 3]);
        assert!(!batch.is_ahead);
    }

    #[test]
    fn what_is_made_ahead_gives_way_until_somebody_waits_for_it() {
        let mut queue = Queue::default();
        for number in 1..=3 {
            assert!(queue.ahead(&id(number)));
        }
        let _waiting = queue.ask(Question::about(&id(2)));
        let first = queue.take(9).unwrap();
        assert_eq!((numbers(&first), first.is_ahead), (vec![2], false));
        let second = queue.take(9).unwrap();
        assert_eq!((numbers(&second), second.is_ahead), (vec![1, 3], true));
        queue.ahead(&id(4));
        assert!(queue.take(9).is_none(), "two calls ahead at once");
        queue.again(&second.tickets[0], &Outcome::Silence);
        queue.end(true);
        assert_eq!(numbers(&queue.take(9).unwrap()), [4], "asked ahead again without need");
    }

    #[test]
    fn a_question_is_asked_so_often_and_no_more() {
        let mut queue = Queue::default();
        let mut waiting = queue.ask(Question::about(&id(1)));
        for _ in 0..ATTEMPTS {
            assert!(waiting.try_recv().is_err());
            let batch = queue.take(9).unwrap();
            queue.again(&batch.tickets[0], &Outcome::Silence);
        }
        assert!(matches!(waiting.try_recv(), Ok(Outcome::Silence)));
        assert!(queue.take(9).is_none());
        assert!(queue.jobs.is_empty() && queue.by_id.is_empty());
    }

    #[test]
    fn a_renewal_goes_on_when_those_who_asked_have_left() {
        let mut queue = Queue::default();
        let waiting = queue.ask(Question::about(&id(1)));
        let batch = queue.take(9).unwrap();
        queue.renew(&id(1));
        drop(waiting);
        queue.again(&batch.tickets[0], &Outcome::Silence);
        assert_eq!(numbers(&queue.take(9).unwrap()), [1]);
    }
}
