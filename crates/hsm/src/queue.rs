//! Queues by key and lane, and who is next.
//!
//! Lanes take turns by weight, keys within a lane take plain turns: neither a long CRL batch nor one busy issuer can
//! starve anybody. Jobs that a dead worker had in hand go before all others.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::fault::Fault;
use crate::job::Mechanism;
use crate::{Deadline, HsmError, Lane};

/// A signature as the worker made it: not verified yet.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) signature: Vec<u8>,
    /// The session that made it, in the worker's `life`.
    pub(crate) session: u16,
    pub(crate) life: u64,
}

pub(crate) type Reply = oneshot::Sender<Result<Made, HsmError>>;

/// A job that waits for its turn.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) key: u32,
    pub(crate) lane: Lane,
    pub(crate) mechanism: Mechanism,
    pub(crate) data: Bytes,
    pub(crate) deadline: Deadline,
    pub(crate) since: Instant,
    /// How often a worker has had it.
    pub(crate) attempts: u8,
    pub(crate) reply: Reply,
}

impl Waiting {
    /// Whether anybody still wants the signature; tells the caller if the deadline is why not.
    fn wanted(self, now: Instant) -> Option<Waiting> {
        if self.reply.is_closed() {
            return None;
        }
        if self.deadline.instant() <= now {
            // Whether the caller still listens makes no difference.
            let error = if self.attempts == 0 { HsmError::Expired } else { HsmError::DeadlineExceeded };
            let _ = self.reply.send(Err(error));
            return None;
        }
        Some(self)
    }

    fn is_wanted(&self, now: Instant) -> bool {
        !self.reply.is_closed() && self.deadline.instant() > now
    }
}

/// Why a job was not admitted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Too many wait; this many are before it.
    Full { waiting: usize },
    /// The token is away.
    Closed(Fault),
    /// Shut down for good.
    ShutDown,
}

/// All jobs of one token that wait.
#[derive(Debug)]
pub(crate) struct Queues {
    lanes: [LaneQueue; 3],
    again: VecDeque<Waiting>,
    waiting: usize,
    capacity: usize,
    lane_capacity: usize,
    door: Door,
}

#[derive(Debug)]
enum Door {
    Open,
    Closed(Fault),
    ShutDown,
}

#[derive(Debug, Default)]
struct LaneQueue {
    /// One queue for each key, by the key's number.
    keys: Vec<VecDeque<Waiting>>,
    /// Keys that have jobs, in the order of their turns.
    turns: VecDeque<u32>,
    waiting: usize,
    credit: i32,
}

impl Queues {
    pub(crate) fn new(capacity: usize, lane_capacity: usize) -> Queues {
        Queues {
            lanes: Default::default(),
            again: VecDeque::new(),
            waiting: 0,
            capacity,
            lane_capacity,
            door: Door::Open,
        }
    }

    /// Admits a job, or says why not.
    pub(crate) fn push(&mut self, job: Waiting, now: Instant) -> Result<(), Refusal> {
        match &self.door {
            Door::Open => {}
            Door::Closed(fault) => return Err(Refusal::Closed(fault.clone())),
            Door::ShutDown => return Err(Refusal::ShutDown),
        }
        if self.is_full(job.lane, job.key) {
            self.sweep(now);
            if self.is_full(job.lane, job.key) {
                return Err(Refusal::Full { waiting: self.waiting });
            }
        }
        let (lane, key) = (job.lane.index(), job.key);
        let Some(queue) = self.lanes.get_mut(lane) else { return Ok(()) };
        queue.push(key, job);
        self.waiting += 1;
        Ok(())
    }

    /// Takes back what a dead worker had.
    pub(crate) fn again(&mut self, job: Waiting) {
        match &self.door {
            Door::Open => {
                self.again.push_back(job);
                self.waiting += 1;
            }
            Door::Closed(_) | Door::ShutDown => {
                let _ = job.reply.send(Err(HsmError::ShutDown));
            }
        }
    }

    /// The next job that somebody still wants.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Waiting> {
        while let Some(job) = self.take() {
            self.waiting -= 1;
            if let Some(job) = job.wanted(now) {
                return Some(job);
            }
        }
        None
    }

    fn take(&mut self) -> Option<Waiting> {
        if let Some(job) = self.again.pop_front() {
            return Some(job);
        }
        // Smooth weighted round robin over the lanes that have work.
        let mut total = 0;
        for (lane, queue) in Lane::ALL.iter().zip(&mut self.lanes) {
            if queue.waiting > 0 {
                queue.credit += lane.weight();
                total += lane.weight();
            } else {
                queue.credit = 0;
            }
        }
        let next =
            self.lanes.iter_mut().filter(|queue| queue.waiting > 0).max_by_key(|queue| queue.credit)?;
        next.credit -= total;
        next.pop()
    }

    /// Answers all jobs with `error` and admits none until [`Queues::open`].
    pub(crate) fn close(&mut self, fault: &Fault, error: &HsmError) {
        if !matches!(self.door, Door::ShutDown) {
            self.door = Door::Closed(fault.clone());
        }
        self.drain(error);
    }

    /// Answers all jobs and admits none any more.
    pub(crate) fn shut_down(&mut self) {
        self.door = Door::ShutDown;
        self.drain(&HsmError::ShutDown);
    }

    pub(crate) fn open(&mut self) {
        if !matches!(self.door, Door::ShutDown) {
            self.door = Door::Open;
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn waiting_in(&self, lane: Lane) -> usize {
        self.lanes.get(lane.index()).map_or(0, |queue| queue.waiting)
    }

    fn drain(&mut self, error: &HsmError) {
        while let Some(job) = self.take() {
            let _ = job.reply.send(Err(error.clone()));
        }
        self.waiting = 0;
    }

    fn is_full(&self, lane: Lane, key: u32) -> bool {
        let in_lane = self.lanes.get(lane.index()).and_then(|queue| queue.keys.get(key as usize));
        self.waiting >= self.capacity || in_lane.is_some_and(|queue| queue.len() >= self.lane_capacity)
    }

    /// Drops what nobody wants any more, so that it does not keep others out.
    fn sweep(&mut self, now: Instant) {
        self.again.retain(|job| job.is_wanted(now));
        let mut waiting = self.again.len();
        for queue in &mut self.lanes {
            for key in &mut queue.keys {
                key.retain(|job| job.is_wanted(now));
            }
            let LaneQueue { keys, turns, .. } = queue;
            turns.retain(|key| keys.get(*key as usize).is_some_and(|jobs| !jobs.is_empty()));
            queue.waiting = queue.keys.iter().map(VecDeque::len).sum();
            waiting += queue.waiting;
        }
        self.waiting = waiting;
    }
}

impl LaneQueue {
    fn push(&mut self, key: u32, job: Waiting) {
        let place = key as usize;
        if self.keys.len() <= place {
            self.keys.resize_with(place + 1, VecDeque::new);
        }
        if let Some(jobs) = self.keys.get_mut(place) {
            if jobs.is_empty() {
                self.turns.push_back(key);
            }
            jobs.push_back(job);
            self.waiting += 1;
        }
    }

    fn pop(&mut self) -> Option<Waiting> {
        let key = self.turns.pop_front()?;
        let jobs = self.keys.get_mut(key as usize)?;
        let job = jobs.pop_front()?;
        if !jobs.is_empty() {
            self.turns.push_back(key);
        }
        self.waiting -= 1;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Answer = oneshot::Receiver<Result<Made, HsmError>>;

    fn job(lane: Lane, key: u32) -> (Waiting, Answer) {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            key,
            lane,
            mechanism: Mechanism::EcdsaP256,
            data: Bytes::new(),
            deadline: Deadline::after(Duration::from_secs(60)),
            since: Instant::now(),
            attempts: 0,
            reply,
        };
        (waiting, answer)
    }

    fn fill(queues: &mut Queues, lane: Lane, key: u32, count: usize) -> Vec<Answer> {
        (0..count)
            .map(|_| {
                let (waiting, answer) = job(lane, key);
                queues.push(waiting, Instant::now()).unwrap();
                answer
            })
            .collect()
    }

    #[test]
    fn lanes_share_by_weight_and_none_starves() {
        let mut queues = Queues::new(10_000, 10_000);
        let _answers: Vec<_> = Lane::ALL.iter().map(|lane| fill(&mut queues, *lane, 0, 100)).collect();
        let mut turns = [0; 3];
        for _ in 0..26 {
            turns[queues.next(Instant::now()).unwrap().lane.index()] += 1;
        }
        assert_eq!(turns, [16, 8, 2]);
    }

    #[test]
    fn a_long_bulk_queue_does_not_delay_an_issuance() {
        let mut queues = Queues::new(10_000, 10_000);
        let _bulk = fill(&mut queues, Lane::Bulk, 0, 1000);
        for _ in 0..10 {
            assert_eq!(queues.next(Instant::now()).unwrap().lane, Lane::Bulk);
        }
        let _issuance = fill(&mut queues, Lane::Issuance, 1, 1);
        assert_eq!(queues.next(Instant::now()).unwrap().lane, Lane::Issuance);
    }

    #[test]
    fn keys_of_a_lane_take_turns() {
        let mut queues = Queues::new(10_000, 10_000);
        let _busy = fill(&mut queues, Lane::Issuance, 0, 500);
        let _quiet: Vec<_> = (1..200).map(|key| fill(&mut queues, Lane::Issuance, key, 1)).collect();
        let first_round: std::collections::BTreeSet<u32> =
            (0..200).map(|_| queues.next(Instant::now()).unwrap().key).collect();
        assert_eq!(first_round.len(), 200);
    }

    #[test]
    fn admission_is_bounded_for_the_token_and_for_each_lane_of_a_key() {
        let mut queues = Queues::new(5, 3);
        let _first = fill(&mut queues, Lane::Issuance, 0, 3);
        let (waiting, _answer) = job(Lane::Issuance, 0);
        assert!(matches!(queues.push(waiting, Instant::now()), Err(Refusal::Full { waiting: 3 })));
        let _second = fill(&mut queues, Lane::Issuance, 1, 2);
        let (waiting, _answer) = job(Lane::Ocsp, 2);
        assert!(matches!(queues.push(waiting, Instant::now()), Err(Refusal::Full { waiting: 5 })));
    }

    #[test]
    fn jobs_that_nobody_wants_leave_no_trace() {
        let mut queues = Queues::new(4, 4);
        drop(fill(&mut queues, Lane::Issuance, 0, 2));
        let (mut late, mut late_answer) = job(Lane::Issuance, 0);
        late.deadline = Deadline::at(Instant::now());
        queues.push(late, Instant::now()).unwrap();
        let _wanted = fill(&mut queues, Lane::Issuance, 0, 1);
        assert_eq!(queues.waiting(), 4);
        // A full queue is swept before anybody is refused.
        let _another = fill(&mut queues, Lane::Bulk, 3, 1);
        assert_eq!(queues.waiting(), 2);
        assert!(late_answer.try_recv().is_err());

        let (mut late, mut late_answer) = job(Lane::Ocsp, 0);
        late.deadline = Deadline::at(Instant::now());
        queues.push(late, Instant::now()).unwrap();
        let mut served = 0;
        while queues.next(Instant::now()).is_some() {
            served += 1;
        }
        assert_eq!((served, queues.waiting()), (2, 0));
        assert_eq!(late_answer.try_recv().unwrap().unwrap_err(), HsmError::Expired);
    }

    #[test]
    fn what_a_dead_worker_had_comes_first_and_a_closed_door_answers_all() {
        let mut queues = Queues::new(10, 10);
        let mut answers = fill(&mut queues, Lane::Issuance, 0, 2);
        let (returned, returned_answer) = job(Lane::Bulk, 5);
        queues.again(returned);
        assert_eq!(queues.next(Instant::now()).unwrap().key, 5);
        drop(returned_answer);
        queues.close(&Fault::Hung, &HsmError::ShutDown);
        for answer in &mut answers {
            assert_eq!(answer.try_recv().unwrap().unwrap_err(), HsmError::ShutDown);
        }
        let (waiting, _answer) = job(Lane::Issuance, 0);
        assert!(matches!(queues.push(waiting, Instant::now()), Err(Refusal::Closed(Fault::Hung))));
        queues.open();
        let _answers = fill(&mut queues, Lane::Issuance, 0, 1);
        assert_eq!(queues.waiting(), 1);
    }
}
