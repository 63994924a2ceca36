//! The worker's short queue. Order and fairness are the supervisor's: here the first comes first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::job::Mechanism;

/// A signature to make.
#[derive(Debug)]
pub(super) struct SignJob {
    pub(super) id: u64,
    pub(super) key: u32,
    pub(super) mechanism: Mechanism,
    pub(super) data: Bytes,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Jobs {
    queue: Mutex<Queue>,
    filled: Condvar,
    recycle: Vec<AtomicBool>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<SignJob>,
    sleepers: usize,
    closed: bool,
}

impl Jobs {
    pub(super) fn new(sessions: u16) -> Jobs {
        Jobs {
            queue: Mutex::default(),
            filled: Condvar::new(),
            recycle: (0..sessions).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Adds a job; [`Jobs::wake`] must follow.
    pub(super) fn push(&self, job: SignJob) {
        self.queue.lock().jobs.push_back(job);
    }

    /// Wakes as many sleeping threads as there are jobs.
    pub(super) fn wake(&self) {
        let queue = self.queue.lock();
        let wanted = queue.jobs.len().min(queue.sleepers);
        drop(queue);
        for _ in 0..wanted {
            self.filled.notify_one();
        }
    }

    /// The next job without waiting.
    pub(super) fn try_pop(&self) -> Option<SignJob> {
        self.queue.lock().jobs.pop_front()
    }

    /// Waits for the next job; `None` when there will be none any more.
    pub(super) fn pop(&self) -> Option<SignJob> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue.sleepers += 1;
            self.filled.wait(&mut queue);
            queue.sleepers -= 1;
        }
    }

    /// No more jobs; what waits is dropped, for nobody would hear of it.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.filled.notify_all();
    }

    /// Asks the thread of `session` to replace it.
    pub(super) fn recycle(&self, session: u16) {
        if let Some(flag) = self.recycle.get(usize::from(session)) {
            flag.store(true, Ordering::Release);
        }
    }

    /// Whether the thread of `session` was asked to replace it; asks once.
    pub(super) fn must_recycle(&self, session: u16) -> bool {
        self.recycle
            .get(usize::from(session))
            .is_some_and(|flag| flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Acquire))
    }
}
