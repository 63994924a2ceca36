//! One signing thread with its session.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::mechanism::Mechanism as Pkcs11Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::session::Session;

use super::harden::exit_now;
use super::jobs::{Jobs, SignJob};
use super::outbox::Outbox;
use super::session::Backend;
use crate::fault::{Fault, RvClass};
use crate::frame::{Event, Report};
use crate::job::Mechanism;

pub(super) struct Signer {
    number: u16,
    jobs: Arc<Jobs>,
    backend: Arc<Backend>,
    outbox: Arc<Outbox>,
    session: Option<Session>,
    /// Sessions that failed one after another, and did so at once.
    strikes: u32,
    opened: bool,
}

impl Signer {
    pub(super) fn new(number: u16, jobs: Arc<Jobs>, backend: Arc<Backend>, outbox: Arc<Outbox>) -> Signer {
        Signer { number, jobs, backend, outbox, session: None, strikes: 0, opened: false }
    }

    pub(super) fn run(mut self) {
        loop {
            let job = self.jobs.try_pop().or_else(|| {
                self.outbox.flush();
                self.jobs.pop()
            });
            let Some(job) = job else { return };
            self.serve(&job);
        }
    }

    fn serve(&mut self, job: &SignJob) {
        let began = Instant::now();
        if job.deadline <= began {
            self.outbox.send(&Report::Refused { id: job.id, fault: Fault::Expired });
            return;
        }
        if self.jobs.must_recycle(self.number) {
            self.session = None;
        }
        if job.mechanism != Mechanism::EcdsaP256 {
            // What is held back would wait for more than microseconds.
            self.outbox.flush();
        }
        fail::fail_point!("worker.before-sign");
        match self.sign(job) {
            Ok(signature) => {
                fail::fail_point!("worker.after-sign");
                let took = began.elapsed();
                let report = Report::Signed {
                    id: job.id,
                    session: self.number,
                    waited_micros: micros(began.saturating_duration_since(job.arrived)),
                    took_micros: micros(took),
                    signature,
                };
                if took < QUICK {
                    self.outbox.send_soon(&report)
                } else {
                    self.outbox.send(&report)
                }
                fail::fail_point!("worker.after-report");
            }
            Err(fault) => {
                // The supervisor should not send more jobs for a key that is gone or wrong.
                if is_about_key(&fault) {
                    self.outbox.send(&Report::Key { index: job.key, outcome: Err(fault.clone()) });
                }
                self.outbox.send(&Report::Refused { id: job.id, fault });
            }
        }
    }

    /// Signs; after a fault once more with another session. Signing is repeatable: the worst is a signature that nobody
    /// gets.
    fn sign(&mut self, job: &SignJob) -> Result<Vec<u8>, Fault> {
        let fault = match self.attempt(job) {
            Ok(signature) => {
                self.strikes = 0;
                return Ok(signature);
            }
            Err(fault) => fault,
        };
        self.replace_session_after(&fault, job);
        match &fault {
            Fault::Call { class: RvClass::Input, .. } => return Err(fault),
            Fault::Call { class: RvClass::Busy, .. } => thread::sleep(PAUSE_WHEN_BUSY),
            Fault::Call { .. } | Fault::SignatureLength { .. } => {}
            fault if fault.is_pin() => give_up(&self.outbox, fault.clone()),
            _ => return Err(fault),
        }
        let fault = match self.attempt(job) {
            Ok(signature) => {
                self.strikes = 0;
                return Ok(signature);
            }
            Err(fault) => fault,
        };
        self.replace_session_after(&fault, job);
        self.strikes += 1;
        let device_lost = matches!(fault, Fault::Call { class: RvClass::Device, .. });
        let session_lost = matches!(fault, Fault::Call { class: RvClass::Session, .. });
        if device_lost || fault.is_pin() || (session_lost && self.strikes >= STRIKES_MAX) {
            give_up(&self.outbox, fault.clone());
        }
        Err(fault)
    }

    /// An error may leave the operation active, and every later signature of that session would fail.
    fn replace_session_after(&mut self, fault: &Fault, job: &SignJob) {
        self.backend.note(fault);
        self.session = None;
        self.backend.keys.forget(job.key);
    }

    fn attempt(&mut self, job: &SignJob) -> Result<Vec<u8>, Fault> {
        let session = match &self.session {
            Some(session) => session,
            None => {
                let session = self.backend.session()?;
                if self.opened {
                    self.outbox.send(&Report::Event(Event::Reopened));
                }
                self.opened = true;
                self.session.insert(session)
            }
        };
        let (key, length) = self.backend.locate(session, job.key)?;
        let signature = match job.mechanism {
            Mechanism::EcdsaP256 | Mechanism::EcdsaP384 => {
                session.sign(&Pkcs11Mechanism::Ecdsa, key, &job.data)?
            }
            Mechanism::RsaSha256 => {
                session.sign(&Pkcs11Mechanism::RsaPkcs, key, &prefixed(SHA256, &job.data))?
            }
            Mechanism::RsaSha384 => {
                session.sign(&Pkcs11Mechanism::RsaPkcs, key, &prefixed(SHA384, &job.data))?
            }
            Mechanism::RsaSha512 => {
                session.sign(&Pkcs11Mechanism::RsaPkcs, key, &prefixed(SHA512, &job.data))?
            }
            Mechanism::Ed25519 => {
                let pure = Pkcs11Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
                session.sign(&pure, key, &job.data)?
            }
        };
        let wrong_length = Fault::SignatureLength { expected: length as u64, found: signature.len() as u64 };
        if signature.len() != length {
            return Err(wrong_length);
        }
        match job.mechanism {
            Mechanism::EcdsaP256 | Mechanism::EcdsaP384 => {
                pki::ecdsa_raw_to_der(&signature).map_err(|_| wrong_length)
            }
            _ => Ok(signature),
        }
    }
}

/// The next rung is a new process: some modules recover only so.
fn give_up(outbox: &Outbox, fault: Fault) -> ! {
    outbox.send(&Report::Failed { fault });
    exit_now(69);
}

fn is_about_key(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::KeyNotFound { .. }
            | Fault::KeyAmbiguous { .. }
            | Fault::PublicKeyUnreadable { .. }
            | Fault::PublicKeyMismatch { .. }
            | Fault::Attribute { .. }
    )
}

fn prefixed(prefix: &[u8], digest: &[u8]) -> Vec<u8> {
    [prefix, digest].concat()
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// `DigestInfo` up to the digest, RFC 8017 §9.2 note 1: `CKM_RSA_PKCS` pads, but does not know the hash.
const SHA256: &[u8] = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
const SHA384: &[u8] = b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30";
const SHA512: &[u8] = b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40";

/// Below this a signature may wait for the next one before it is sent.
const QUICK: Duration = Duration::from_micros(150);

const PAUSE_WHEN_BUSY: Duration = Duration::from_millis(20);

/// Sessions that may fail in a row, each at once, before the module is given up.
const STRIKES_MAX: u32 = 3;
