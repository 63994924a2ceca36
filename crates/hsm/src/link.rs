//! One life of a worker: jobs out, signatures in, until the socket ends or the worker hangs.
//!
//! One task owns the socket. Whatever has arrived when it runs is handled before it sleeps again, and what it has to say
//! goes out in one write: at high load, wake-ups and system calls are shared by many signatures.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::error::HsmError;
use crate::fault::{Fault, RvClass};
use crate::frame::{Configure, Event, Malformed, NewKey, Report, Request, Splitter, TokenKey};
use crate::key::{KeyHealth, KeyQuery};
use crate::process::absolute;
use crate::queue::{Made, Waiting};
use crate::token::{Shared, TokenInfo, TokenState};

pub(crate) type KeysReply = oneshot::Sender<Result<Vec<TokenKey>, HsmError>>;

/// What handles ask of the worker beside signatures.
#[derive(Debug)]
pub(crate) enum Control {
    /// A key was declared.
    Declare(u32),
    /// A session of this life made a wrong signature.
    Recycle {
        life: u64,
        session: u16,
        key: u32,
    },
    Find(KeyQuery, KeysReply),
    Generate(NewKey, KeysReply),
}

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The worker said why it cannot go on.
    Failed(Fault),
    /// The socket ended.
    Closed,
    /// It did not answer in time.
    Hung,
    /// Nobody needs the token any more.
    Unwanted,
}

/// A job that the worker has.
struct InFlight {
    job: Waiting,
    sent: Instant,
}

pub(crate) struct Link<'a> {
    shared: &'a Arc<Shared>,
    socket: &'a UnixStream,
    life: u64,
    born: Instant,
    /// When the worker was last asked about keys that were refused.
    asked: Instant,
    in_flight: HashMap<u64, InFlight>,
    questions: HashMap<u64, KeysReply>,
    next_id: u64,
    sessions: usize,
    ready: bool,
    /// Smoothed time of a signature in the worker, microseconds.
    service_micros: f64,
    splitter: Splitter,
    out: Vec<u8>,
    written: usize,
}

impl<'a> Link<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, socket: &'a UnixStream, life: u64) -> Link<'a> {
        Link {
            shared,
            socket,
            life,
            born: Instant::now(),
            asked: Instant::now(),
            in_flight: HashMap::new(),
            questions: HashMap::new(),
            next_id: 0,
            sessions: 1,
            ready: false,
            service_micros: FIRST_GUESS_MICROS,
            splitter: Splitter::default(),
            out: Vec::with_capacity(READ_SIZE),
            written: 0,
        }
    }

    /// Whether the worker ever was ready.
    pub(crate) fn was_ready(&self) -> bool {
        self.ready
    }

    /// Serves until the end. Jobs that the worker still has can be taken with [`Link::take_back`].
    pub(crate) async fn run(&mut self, controls: &mut mpsc::UnboundedReceiver<Control>) -> End {
        let mut tick = tokio::time::interval(self.shared.tick());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; READ_SIZE];
        Request::Configure(self.configure()).encode(&mut self.out);
        loop {
            self.fill();
            if let Err(end) = self.write() {
                return end;
            }
            tokio::select! {
                readable = self.socket.readable() => {
                    if let Err(end) = readable.map_err(|_| End::Closed).and_then(|()| self.read(&mut buffer)) {
                        return end;
                    }
                }
                writable = self.socket.writable(), if self.written < self.out.len() => {
                    if writable.is_err() {
                        return End::Closed;
                    }
                }
                () = self.shared.work.notified() => {}
                control = controls.recv(), if self.ready => match control {
                    Some(control) => self.control(control),
                    None => return End::Unwanted,
                },
                () = self.shared.stop.cancelled() => return End::Unwanted,
                _ = tick.tick() => {
                    if self.hangs() {
                        return End::Hung;
                    }
                    self.housekeeping();
                }
            }
        }
    }

    /// Polite end: lets the worker finalise its module.
    pub(crate) async fn dismiss(&mut self) {
        Request::Shutdown.encode(&mut self.out);
        while self.written < self.out.len() && self.write().is_ok() {
            if self.written < self.out.len() && self.socket.writable().await.is_err() {
                break;
            }
        }
    }

    /// What the worker had when it ended: to be done again.
    pub(crate) fn take_back(&mut self) -> Vec<Waiting> {
        let mut jobs: Vec<(u64, InFlight)> = self.in_flight.drain().collect();
        jobs.sort_by_key(|(id, _)| *id);
        self.shared.telemetry.in_flight.set(0.0);
        jobs.into_iter().map(|(_, in_flight)| in_flight.job).collect()
    }

    fn configure(&self) -> Configure {
        let config = &self.shared.config;
        let text = |path: &Path| absolute(path).to_string_lossy().into_owned();
        let cores = std::thread::available_parallelism()
            .map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX));
        Configure {
            module: text(&config.module),
            label: config.label.clone(),
            serial: config.serial.clone(),
            pin_file: text(&config.pin_file),
            latch_file: text(&config.latch_file),
            sessions: config.sessions.unwrap_or(cores).max(1),
        }
    }

    /// How many jobs the worker may have: one for each session and as many again as keep them busy until the answer to
    /// the first is here. What is more waits on this side, where lanes and keys are served fairly.
    fn window(&self) -> usize {
        let ahead = (self.sessions as f64 * ROUND_TRIP_MICROS / self.service_micros.max(1.0)) as usize;
        self.sessions + ahead.clamp(self.sessions, AHEAD_MAX * self.sessions)
    }

    fn fill(&mut self) {
        let window = self.window();
        if !self.ready || self.in_flight.len() >= window || self.out.len() > READ_SIZE {
            return;
        }
        let now = Instant::now();
        let mut queues = self.shared.queues.lock();
        while self.in_flight.len() < window {
            let Some(mut job) = queues.next(now) else { break };
            self.next_id += 1;
            job.attempts += 1;
            if job.attempts == 1 {
                self.shared.telemetry.waited(job.lane, now.saturating_duration_since(job.since));
            }
            let remaining = job.deadline.instant().saturating_duration_since(now).as_micros();
            Request::Sign {
                id: self.next_id,
                key: job.key,
                mechanism: job.mechanism,
                remaining_micros: u32::try_from(remaining).unwrap_or(u32::MAX),
                data: job.data.clone(),
            }
            .encode(&mut self.out);
            self.in_flight.insert(self.next_id, InFlight { job, sent: now });
        }
    }

    fn write(&mut self) -> Result<(), End> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.socket.try_write(rest) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The worker is gone; what it said last may still be there to read.
                Err(_) => return self.last_words(),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what a worker that no longer listens has left in the socket.
    fn last_words(&mut self) -> Result<(), End> {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            let before = self.in_flight.len();
            self.read(&mut buffer)?;
            if self.in_flight.len() == before {
                return Err(End::Closed);
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), End> {
        loop {
            match self.socket.try_read(buffer) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => {
                    self.splitter.extend(buffer.get(..count).unwrap_or_default());
                    while let Some(report) = self.next_report().map_err(protocol)? {
                        self.report(report)?;
                    }
                    if count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(End::Closed),
            }
        }
    }

    fn next_report(&mut self) -> Result<Option<Report>, Malformed> {
        self.splitter.next()?.map(Report::decode).transpose()
    }

    fn report(&mut self, report: Report) -> Result<(), End> {
        match report {
            Report::Signed { id, session, took_micros, signature, .. } => {
                self.signed(id, session, took_micros, signature);
            }
            Report::Refused { id, fault } => self.refused(id, fault),
            Report::Ready { serial, manufacturer, model, sessions } => {
                self.is_ready(TokenInfo { serial, manufacturer, model, sessions });
            }
            Report::Failed { fault } => return Err(End::Failed(fault)),
            Report::Key { index, outcome } => self.shared.key_found(index, outcome),
            Report::Keys { id, keys } => {
                if let Some(reply) = self.questions.remove(&id) {
                    let _ = reply.send(Ok(keys));
                }
            }
            Report::Event(Event::Reopened) => self.shared.telemetry.reopened.increment(1),
            Report::Event(Event::LoggedIn { epoch }) => {
                self.shared.telemetry.logins.increment(1);
                tracing::warn!(target: "hsm", token = self.shared.label(), epoch, "logged in again");
            }
            Report::Event(Event::CallFailed { function, rv }) => {
                tracing::warn!(target: "hsm", token = self.shared.label(), function, rv, "PKCS#11 call failed");
                self.shared.telemetry.call_failed(function, rv);
            }
        }
        Ok(())
    }

    fn is_ready(&mut self, info: TokenInfo) {
        self.ready = true;
        self.sessions = usize::from(info.sessions).max(1);
        self.shared.telemetry.sessions.set(self.sessions as f64);
        tracing::info!(
            target: "hsm",
            token = self.shared.label(),
            serial = info.serial,
            model = info.model,
            sessions = self.sessions,
            took_ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX),
            "token is ready"
        );
        for index in 0..self.shared.keys.read().len() {
            self.declare(u32::try_from(index).unwrap_or(u32::MAX));
        }
        self.shared.queues.lock().open();
        self.shared.telemetry.up.set(1.0);
        self.shared.state.send_replace(TokenState::Ready(info));
    }

    fn signed(&mut self, id: u64, session: u16, took_micros: u32, signature: Vec<u8>) {
        let Some(InFlight { job, .. }) = self.in_flight.remove(&id) else { return };
        self.service_micros += (f64::from(took_micros) - self.service_micros) / SMOOTHING;
        self.shared.service_is(self.service_micros, self.sessions);
        self.shared.telemetry.signed(job.mechanism, Duration::from_micros(u64::from(took_micros)));
        if job.reply.send(Ok(Made { signature, session, life: self.life })).is_err() {
            self.shared.telemetry.orphaned.increment(1);
        }
    }

    fn refused(&mut self, id: u64, fault: Fault) {
        if let Some(reply) = self.questions.remove(&id) {
            let _ = reply.send(Err(HsmError::Token(fault)));
            return;
        }
        let Some(InFlight { job, .. }) = self.in_flight.remove(&id) else { return };
        let again =
            matches!(fault, Fault::Call { class: RvClass::Busy | RvClass::Session | RvClass::Device, .. });
        if again && job.attempts < ATTEMPTS_MAX {
            self.shared.queues.lock().again(job);
            return;
        }
        let error = match fault {
            Fault::Expired => {
                self.shared.telemetry.expired.increment(1);
                HsmError::Expired
            }
            fault => HsmError::Token(fault),
        };
        let _ = job.reply.send(Err(error));
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Declare(index) => self.declare(index),
            // A session of an earlier life is gone already.
            Control::Recycle { life, session, key } if life == self.life => {
                Request::Recycle { session, key }.encode(&mut self.out);
            }
            Control::Recycle { .. } => {}
            Control::Find(query, reply) => {
                let id = self.ask(reply);
                Request::Find { id, query }.encode(&mut self.out);
            }
            Control::Generate(key, reply) => {
                let id = self.ask(reply);
                Request::Generate { id, key }.encode(&mut self.out);
            }
        }
    }

    fn ask(&mut self, reply: KeysReply) -> u64 {
        self.next_id += 1;
        self.questions.insert(self.next_id, reply);
        self.next_id
    }

    fn declare(&mut self, index: u32) {
        let Some(key) = self.shared.keys.read().get(index as usize).cloned() else { return };
        Request::Key {
            index,
            id: key.declared.id.clone(),
            spki: key.declared.public_key.spki_der().to_vec(),
            origin: key.declared.origin,
        }
        .encode(&mut self.out);
    }

    fn hangs(&self) -> bool {
        if !self.ready {
            return self.born.elapsed() > self.shared.config.start_timeout;
        }
        let limit = self.shared.config.hang_timeout;
        self.in_flight.values().any(|in_flight| in_flight.sent.elapsed() > limit)
    }

    fn housekeeping(&mut self) {
        self.shared.tell_depths();
        self.shared.telemetry.in_flight.set(self.in_flight.len() as f64);
        if !self.ready || self.asked.elapsed() < ASK_AGAIN {
            return;
        }
        self.asked = Instant::now();
        // A key that was missing may have been made or restored since, and a call that failed may succeed.
        let missing: Vec<u32> = self
            .shared
            .keys
            .read()
            .iter()
            .filter(|key| !matches!(&*key.health.borrow(), KeyHealth::Ready(_)))
            .map(|key| key.index)
            .collect();
        for index in missing {
            self.declare(index);
        }
    }
}

fn protocol(malformed: Malformed) -> End {
    End::Failed(Fault::Protocol { reason: malformed.to_string() })
}

/// Read at once from the socket: some hundred signatures.
const READ_SIZE: usize = 64 * 1024;

/// What a worker's session should have to do while an answer travels to us and the next job to it.
const ROUND_TRIP_MICROS: f64 = 500.0;

/// Jobs in the worker for each session at most, however fast the token is.
const AHEAD_MAX: usize = 32;

/// Signatures over which the service time is smoothed.
const SMOOTHING: f64 = 16.0;

/// How often the worker is asked again about a key that it refused.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Service time before the first signature: slow, so that the window starts small.
const FIRST_GUESS_MICROS: f64 = 1000.0;

/// How often a job is sent before its failure is final.
pub(crate) const ATTEMPTS_MAX: u8 = 4;
