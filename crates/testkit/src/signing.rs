//! Keys in memory that sign like a token's, and fail when a test says so.

#![expect(clippy::expect_used, reason = "a test that has no key cannot go on")]

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use hsm::{Attributes, Deadline, Fault, HsmError, Job, KeyHealth, Lane, Signing};
use parking_lot::Mutex;
use pki::{KeyAlgorithm, PublicKey};
use tokio::sync::watch;

/// How the next signature fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// The token never saw the job.
    Failed,
    /// The token signed, and its answer was lost.
    FailedAfterSigning,
}

/// A P-256 key in memory. Clones are one key.
#[derive(Clone)]
pub struct SoftKey {
    inner: Arc<Inner>,
}

struct Inner {
    pair: Arc<EcdsaKeyPair>,
    public_key: PublicKey,
    faults: Mutex<VecDeque<KeyFault>>,
    jobs: Mutex<Vec<Job>>,
    held: watch::Sender<bool>,
    away: AtomicBool,
}

impl SoftKey {
    /// A new key.
    ///
    /// # Panics
    /// Never, while aws-lc makes keys.
    #[must_use]
    pub fn generate() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a P-256 key");
        let public_key = PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, pair.public_key().as_ref());
        Self::of(Arc::new(pair), public_key.expect("its public half"))
    }

    fn of(pair: Arc<EcdsaKeyPair>, public_key: PublicKey) -> Self {
        let inner = Inner {
            pair,
            public_key,
            faults: Mutex::default(),
            jobs: Mutex::default(),
            held: watch::Sender::new(false),
            away: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same key in another token: what happens to the one does not happen to the other.
    #[must_use]
    pub fn in_another_token(&self) -> Self {
        Self::of(Arc::clone(&self.inner.pair), self.inner.public_key.clone())
    }

    /// Takes the token away (`true`), or brings it back (`false`). What is held back waits for it.
    pub fn away(&self, away: bool) {
        self.inner.away.store(away, Ordering::SeqCst);
    }

    fn is_away(&self) -> bool {
        self.inner.away.load(Ordering::SeqCst)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.inner.public_key
    }

    /// Lets one of the next signatures fail; several are used up in order.
    pub fn fail_next(&self, fault: KeyFault) {
        self.inner.faults.lock().push_back(fault);
    }

    /// Every job that was really signed, in order.
    #[must_use]
    pub fn signed(&self) -> Vec<Job> {
        self.inner.jobs.lock().clone()
    }

    /// Holds all signatures back (`true`), or lets them go (`false`).
    pub fn hold(&self, held: bool) {
        self.inner.held.send_replace(held);
    }

    /// Whether a signature is being asked for, held back or not.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.inner.held.receiver_count() > 0
    }

    /// Signs a message without being asked through a door: for the CA certificates of a test.
    ///
    /// # Panics
    /// Never, while aws-lc signs.
    #[must_use]
    pub fn sign_message(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.inner.pair.sign(&SystemRandom::new(), message);
        signature.expect("a signature").as_ref().to_vec()
    }

    fn sign_job(&self, job: &Job) -> Vec<u8> {
        let signature = match job {
            Job::Digest { digest, .. } => {
                let digest = Digest::import_less_safe(digest, &digest::SHA256).expect("a SHA-256 digest");
                self.inner.pair.sign_digest(&digest).expect("a signature").as_ref().to_vec()
            }
            Job::Message(message) => self.sign_message(message),
        };
        self.inner.jobs.lock().push(job.clone());
        signature
    }
}

#[async_trait]
impl Signing for SoftKey {
    async fn sign(&self, _: Lane, job: Job, _: Deadline) -> Result<Vec<u8>, HsmError> {
        let mut held = self.inner.held.subscribe();
        let released = held.wait_for(|held| !held).await.map(drop);
        released.map_err(|_| HsmError::ShutDown)?;
        if self.is_away() {
            return Err(HsmError::Unavailable { token: "soft".to_owned(), cause: Fault::Starting });
        }
        let fault = self.inner.faults.lock().pop_front();
        match fault {
            Some(KeyFault::Failed) => Err(HsmError::Expired),
            Some(KeyFault::FailedAfterSigning) => {
                drop(self.sign_job(&job));
                Err(HsmError::DeadlineExceeded)
            }
            None => Ok(self.sign_job(&job)),
        }
    }

    fn public_key(&self) -> &PublicKey {
        self.public()
    }

    fn health(&self) -> KeyHealth {
        if self.is_away() { KeyHealth::Unknown } else { KeyHealth::Ready(Attributes::default()) }
    }
}

impl fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftKey").finish_non_exhaustive()
    }
}
