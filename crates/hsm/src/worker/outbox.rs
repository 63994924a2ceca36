//! Reports to the supervisor, from all threads.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::frame::Report;

/// The socket's writing half with a buffer in front.
#[derive(Debug)]
pub(super) struct Outbox(Mutex<Pending>);

#[derive(Debug)]
struct Pending {
    socket: UnixStream,
    buffer: Vec<u8>,
    flushed: Instant,
}

impl Outbox {
    pub(super) fn new(socket: UnixStream) -> Outbox {
        Outbox(Mutex::new(Pending { socket, buffer: Vec::new(), flushed: Instant::now() }))
    }

    /// Sends at once.
    pub(super) fn send(&self, report: &Report) {
        let mut pending = self.0.lock();
        report.encode(&mut pending.buffer);
        pending.flush();
    }

    /// Sends soon: another report will follow within microseconds, and one wake-up of the supervisor does for both.
    pub(super) fn send_soon(&self, report: &Report) {
        let mut pending = self.0.lock();
        report.encode(&mut pending.buffer);
        if pending.flushed.elapsed() > HOLD_MAX || pending.buffer.len() > BUFFER_MAX {
            pending.flush();
        }
    }

    /// Sends what is held back.
    pub(super) fn flush(&self) {
        let mut pending = self.0.lock();
        if !pending.buffer.is_empty() {
            pending.flush();
        }
    }
}

impl Pending {
    fn flush(&mut self) {
        // If the supervisor is gone, the reader will see that too.
        let _ = self.socket.write_all(&self.buffer);
        self.buffer.clear();
        self.flushed = Instant::now();
    }
}

/// The longest that a finished signature is held back for company.
const HOLD_MAX: Duration = Duration::from_micros(150);

/// And the most that is.
const BUFFER_MAX: usize = 16 * 1024;
