//! What can go wrong between a job and its signature.

use std::time::Duration;

use pki::{ErrorClass, KeyAlgorithm, SignatureAlgorithm};

use crate::fault::Fault;

/// Why there is no signature (or key).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HsmError {
    /// Too much is waiting already: `RESOURCE_EXHAUSTED` with a hint.
    #[error("queue of token {token:?} is full; it will have moved on in {retry_after:?}")]
    QueueFull {
        /// The token's label.
        token: String,
        /// How long the jobs that wait will take at the current rate.
        retry_after: Duration,
    },
    /// The deadline passed while the job waited; the token never saw it.
    #[error("deadline passed before the token took the job")]
    Expired,
    /// The deadline passed while the token had the job. It *may* have signed; no signature left this process.
    #[error("deadline passed while the token had the job")]
    DeadlineExceeded,
    /// The token is away.
    #[error("token {token:?} is not available: {cause}")]
    Unavailable {
        /// The token's label.
        token: String,
        /// Why.
        cause: Fault,
    },
    /// A digest that cannot come from the algorithm's hash.
    #[error("digest of {found} octets where the algorithm has {expected}")]
    DigestLength {
        /// Octets of the algorithm's digest.
        expected: usize,
        /// Octets of the job's.
        found: usize,
    },
    /// The key cannot make such signatures.
    #[error("a key of type {key:?} makes no {signature:?} signatures")]
    WrongAlgorithm {
        /// The key's algorithm.
        key: KeyAlgorithm,
        /// The signature that was asked for.
        signature: SignatureAlgorithm,
    },
    /// A message was given to a key that signs digests.
    #[error("a key of type {key:?} signs digests, not messages")]
    SignsDigests {
        /// The key's algorithm.
        key: KeyAlgorithm,
    },
    /// The message is longer than the limit.
    #[error("message of {found} octets is longer than {limit}")]
    MessageTooLong {
        /// The longest that is signed.
        limit: usize,
        /// Octets of the message.
        found: usize,
    },
    /// This side cannot verify signatures of the key, so none is made.
    #[error("no verification for public keys of type {key:?}")]
    Unverifiable {
        /// The key's algorithm.
        key: KeyAlgorithm,
    },
    /// The token twice gave a signature that does not verify. It is counted and discarded: page somebody.
    #[error("the token's signature does not verify with the public key")]
    WrongSignature,
    /// The worker died under this job several times.
    #[error("the worker died {attempts} times while it had the job")]
    Interrupted {
        /// How often the job was sent.
        attempts: u8,
    },
    /// What the worker reports about the token, a key or a PKCS#11 call.
    #[error(transparent)]
    Token(#[from] Fault),
    /// The token's supervisor has been shut down.
    #[error("the token's supervisor is shut down")]
    ShutDown,
}

impl HsmError {
    /// Whose fault it is, and whether it is worth another try.
    pub fn class(&self) -> ErrorClass {
        match self {
            HsmError::QueueFull { .. }
            | HsmError::Expired
            | HsmError::DeadlineExceeded
            | HsmError::Interrupted { .. }
            | HsmError::ShutDown => ErrorClass::Transient,
            HsmError::Unavailable { cause, .. } => cause.class(),
            HsmError::Token(fault) => fault.class(),
            HsmError::DigestLength { .. }
            | HsmError::WrongAlgorithm { .. }
            | HsmError::SignsDigests { .. }
            | HsmError::MessageTooLong { .. } => ErrorClass::Client,
            HsmError::Unverifiable { .. } | HsmError::WrongSignature => ErrorClass::Fatal,
        }
    }

    /// The error's name in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            HsmError::QueueFull { .. } => "queue_full",
            HsmError::Expired => "expired",
            HsmError::DeadlineExceeded => "deadline_exceeded",
            HsmError::Unavailable { .. } => "unavailable",
            HsmError::DigestLength { .. } => "digest_length",
            HsmError::WrongAlgorithm { .. } | HsmError::SignsDigests { .. } => "wrong_algorithm",
            HsmError::MessageTooLong { .. } => "message_too_long",
            HsmError::Unverifiable { .. } => "unverifiable",
            HsmError::WrongSignature => "wrong_signature",
            HsmError::Interrupted { .. } => "interrupted",
            HsmError::Token(_) => "token",
            HsmError::ShutDown => "shut_down",
        }
    }

    /// How long to wait before the next try, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            HsmError::QueueFull { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}
