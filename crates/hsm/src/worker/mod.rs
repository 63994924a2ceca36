//! The worker process: the one place where a PKCS#11 module is loaded.
//!
//! ```text
//! socket ─▶ reader (main thread) ─▶ jobs ─▶ N signing threads, one logged-in session each ─▶ outbox ─▶ socket
//!                    └────────────▶ questions ─▶ one thread: declare, find, generate
//! ```
//!
//! It ends when its socket does, and by the kernel's hand when its supervisor dies; while it logs in it finishes that first.

mod attributes;
mod fault;
mod generate;
mod harden;
mod jobs;
mod keys;
mod outbox;
mod session;
mod sign;

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::frame::{Malformed, Report, Request, Splitter};
use jobs::{Jobs, SignJob};
use outbox::Outbox;
use session::Backend;

/// The worker's `main`: `args` are those that follow the program's name and subcommand. Call it before there is any
/// thread, runtime or subscriber.
///
/// Exit codes: 0 after an orderly end, 64 when it was not started by a supervisor, 69 when the token cannot be used.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(socket) = inherited_socket(args) else {
        complain("this is the worker process of a signer; it is started by one and does nothing for you");
        return ExitCode::from(64);
    };
    if let Err(error) = harden::harden() {
        complain(&format!("hsm worker: cannot protect itself: {error}"));
        return ExitCode::from(69);
    }
    run(socket)
}

fn run(socket: UnixStream) -> ExitCode {
    let Ok(writer) = socket.try_clone() else { return ExitCode::from(69) };
    if harden::exit_after_hangup(&socket, FINISH_MAX).is_err() {
        return ExitCode::from(69);
    }
    let outbox = Arc::new(Outbox::new(writer));
    let mut requests = Requests::new(socket);
    let Some(Request::Configure(configure)) = requests.next() else { return ExitCode::from(64) };
    let sessions = configure.sessions;
    let backend = match Backend::open(configure, Arc::clone(&outbox)) {
        Ok(backend) => Arc::new(backend),
        Err(fault) => {
            outbox.send(&Report::Failed { fault });
            return ExitCode::from(69);
        }
    };
    if harden::die_with_supervisor().is_err() {
        return ExitCode::from(69);
    }
    let jobs = Arc::new(Jobs::new(sessions));
    let (ask, questions) = mpsc::channel();
    let mut threads: Vec<_> =
        (0..sessions).map(|number| start_signer(number, &jobs, &backend, &outbox)).collect();
    threads.push(start_answerer(questions, &backend, &outbox));
    outbox.send(&backend.ready_report(sessions));
    take_requests(&mut requests, &jobs, &backend, &ask);
    drop(ask);
    jobs.close();
    harden::exit_after(FINISH_MAX);
    for thread in threads {
        let _ = thread.join();
    }
    // Some modules crash in their destructors when they were not finalised.
    backend.finalize();
    ExitCode::SUCCESS
}

/// Hands requests on, until the supervisor is gone or wants no more.
fn take_requests(requests: &mut Requests, jobs: &Jobs, backend: &Backend, ask: &mpsc::Sender<Question>) {
    while let Some(request) = requests.next() {
        match request {
            Request::Sign { id, key, mechanism, remaining_micros, data } => {
                let now = Instant::now();
                let deadline = now + Duration::from_micros(u64::from(remaining_micros));
                jobs.push(SignJob { id, key, mechanism, data, arrived: now, deadline });
            }
            Request::Key { index, id, spki, origin } => {
                backend.keys.declare(index, id, &spki, origin);
                let _ = ask.send(Question::Key(index));
            }
            Request::Recycle { session, key } => {
                backend.keys.forget(key);
                jobs.recycle(session);
            }
            Request::Find { id, query } => {
                let _ = ask.send(Question::Find(id, query));
            }
            Request::Generate { id, key } => {
                let _ = ask.send(Question::Generate(id, key));
            }
            Request::Shutdown => return,
            Request::Configure(_) => {}
        }
        // Sleeping threads are woken once for all that arrived together, whatever came last.
        if !requests.has_more() {
            jobs.wake();
        }
    }
}

/// What the one answering thread does.
enum Question {
    Key(u32),
    Find(u64, crate::KeyQuery),
    Generate(u64, crate::frame::NewKey),
}

fn start_signer(
    number: u16,
    jobs: &Arc<Jobs>,
    backend: &Arc<Backend>,
    outbox: &Arc<Outbox>,
) -> thread::JoinHandle<()> {
    let (jobs, backend, outbox) = (Arc::clone(jobs), Arc::clone(backend), Arc::clone(outbox));
    thread::spawn(move || sign::Signer::new(number, jobs, backend, outbox).run())
}

fn start_answerer(
    questions: mpsc::Receiver<Question>,
    backend: &Arc<Backend>,
    outbox: &Arc<Outbox>,
) -> thread::JoinHandle<()> {
    let (backend, outbox) = (Arc::clone(backend), Arc::clone(outbox));
    thread::spawn(move || {
        for question in questions {
            let report = match question {
                Question::Key(index) => Report::Key { index, outcome: backend.check_key(index) },
                Question::Find(id, query) => keys_report(id, backend.find(&query)),
                Question::Generate(id, key) => keys_report(id, backend.generate(&key).map(|key| vec![key])),
            };
            outbox.send(&report);
        }
    })
}

fn keys_report(id: u64, outcome: Result<Vec<crate::frame::TokenKey>, Fault>) -> Report {
    match outcome {
        Ok(keys) => Report::Keys { id, keys },
        Err(fault) => Report::Refused { id, fault },
    }
}

/// Requests as they come from the socket.
struct Requests {
    socket: UnixStream,
    splitter: Splitter,
    buffer: Vec<u8>,
    next: Option<Result<Request, Malformed>>,
}

impl Requests {
    fn new(socket: UnixStream) -> Requests {
        Requests { socket, splitter: Splitter::default(), buffer: vec![0; 64 * 1024], next: None }
    }

    /// The next request; `None` when the supervisor is gone or speaks another version.
    fn next(&mut self) -> Option<Request> {
        if let Some(request) = self.next.take() {
            return request.ok();
        }
        loop {
            if let Some(frame) = self.splitter.next().ok()? {
                return Request::decode(frame).ok();
            }
            let count = match self.socket.read(&mut self.buffer) {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            self.splitter.extend(self.buffer.get(..count)?);
        }
    }

    /// Whether another whole request is here already.
    fn has_more(&mut self) -> bool {
        if self.next.is_none()
            && let Ok(Some(frame)) = self.splitter.next()
        {
            self.next = Some(Request::decode(frame));
        }
        self.next.is_some()
    }
}

/// The socket whose number follows `--fd`. `--token` only tells people who look at the process list.
fn inherited_socket(args: impl IntoIterator<Item = OsString>) -> Option<UnixStream> {
    let mut args = args.into_iter();
    let mut fd = None;
    while let Some(name) = args.next() {
        let value = args.next()?;
        match name.to_str()? {
            "--fd" => fd = value.to_str()?.parse().ok(),
            "--token" => {}
            _ => return None,
        }
    }
    harden::take_socket(fd?)
}

#[expect(clippy::print_stderr, reason = "there is nobody else to tell")]
fn complain(words: &str) {
    eprintln!("{words}");
}

/// How long threads may take to finish when the socket has ended; a hung `C_Sign` would keep the process for ever.
const FINISH_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
