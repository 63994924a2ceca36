//! What can be asked of a key, how urgent it is, and until when.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pki::{KeyAlgorithm, SignatureAlgorithm};

use crate::HsmError;

/// Who waits for a signature. Each lane of each key has its own queue; the token serves the lanes by weight, so that a
/// long queue in one never starves another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A client waits for its certificate.
    Issuance,
    /// A relying party waits for an OCSP answer.
    Ocsp,
    /// CRLs, audit checkpoints, OCSP answers made ahead: nobody waits in front of a screen.
    Bulk,
}

impl Lane {
    /// Every lane, in the order of their weights.
    pub const ALL: [Lane; 3] = [Lane::Issuance, Lane::Ocsp, Lane::Bulk];

    /// Turns in a round of the scheduler when all lanes have work.
    pub(crate) const fn weight(self) -> i32 {
        match self {
            Lane::Issuance => 8,
            Lane::Ocsp => 4,
            Lane::Bulk => 1,
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Lane::Issuance => 0,
            Lane::Ocsp => 1,
            Lane::Bulk => 2,
        }
    }

    /// The lane's name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Issuance => "issuance",
            Lane::Ocsp => "ocsp",
            Lane::Bulk => "bulk",
        }
    }
}

/// One signature to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// The digest of a message, for algorithms that sign digests (ECDSA, RSA PKCS#1 v1.5).
    Digest {
        /// The algorithm that the signature shall carry; it names the digest's hash.
        algorithm: SignatureAlgorithm,
        /// The digest, of exactly that hash's length.
        digest: Bytes,
    },
    /// The message itself, for algorithms that sign messages (Ed25519; later ML-DSA).
    Message(Bytes),
}

impl Job {
    /// The job that signs `message` with `algorithm`: by its digest where the algorithm has one.
    pub fn for_message(algorithm: SignatureAlgorithm, message: &[u8]) -> Job {
        match algorithm.digest(message) {
            Some(digest) => Job::Digest { algorithm, digest: Bytes::from(digest) },
            None => Job::Message(Bytes::copy_from_slice(message)),
        }
    }

    /// Checks the job against the key that shall do it. PKCS#11 does not: tokens sign "digests" of any length.
    pub(crate) fn check(&self, key: KeyAlgorithm) -> Result<Mechanism, HsmError> {
        match self {
            Job::Digest { algorithm, digest } => {
                let mechanism = Mechanism::for_digest(key, *algorithm)
                    .ok_or(HsmError::WrongAlgorithm { key, signature: *algorithm })?;
                let expected = mechanism.digest_length();
                if digest.len() != expected {
                    return Err(HsmError::DigestLength { expected, found: digest.len() });
                }
                Ok(mechanism)
            }
            Job::Message(message) => match key {
                KeyAlgorithm::Ed25519 if message.len() > MESSAGE_MAX => {
                    Err(HsmError::MessageTooLong { limit: MESSAGE_MAX, found: message.len() })
                }
                KeyAlgorithm::Ed25519 => Ok(Mechanism::Ed25519),
                _ => Err(HsmError::SignsDigests { key }),
            },
        }
    }

    pub(crate) fn data(&self) -> &Bytes {
        match self {
            Job::Digest { digest, .. } => digest,
            Job::Message(message) => message,
        }
    }
}

/// The longest message for a message-signing key. A CRL of a million entries does not fit: sharded CRLs do.
pub(crate) const MESSAGE_MAX: usize = 4 << 20;

/// How the worker signs: the PKCS#11 mechanism, what goes before the digest and what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mechanism {
    EcdsaP256 = 1,
    EcdsaP384 = 2,
    RsaSha256 = 3,
    RsaSha384 = 4,
    RsaSha512 = 5,
    Ed25519 = 6,
}

impl Mechanism {
    fn for_digest(key: KeyAlgorithm, signature: SignatureAlgorithm) -> Option<Mechanism> {
        match (key, signature) {
            (KeyAlgorithm::EcdsaP256, SignatureAlgorithm::EcdsaSha256) => Some(Mechanism::EcdsaP256),
            (KeyAlgorithm::EcdsaP384, SignatureAlgorithm::EcdsaSha384) => Some(Mechanism::EcdsaP384),
            (KeyAlgorithm::Rsa { .. }, SignatureAlgorithm::RsaSha256) => Some(Mechanism::RsaSha256),
            (KeyAlgorithm::Rsa { .. }, SignatureAlgorithm::RsaSha384) => Some(Mechanism::RsaSha384),
            (KeyAlgorithm::Rsa { .. }, SignatureAlgorithm::RsaSha512) => Some(Mechanism::RsaSha512),
            _ => None,
        }
    }

    pub(crate) const fn from_u8(value: u8) -> Option<Mechanism> {
        Some(match value {
            1 => Mechanism::EcdsaP256,
            2 => Mechanism::EcdsaP384,
            3 => Mechanism::RsaSha256,
            4 => Mechanism::RsaSha384,
            5 => Mechanism::RsaSha512,
            6 => Mechanism::Ed25519,
            _ => return None,
        })
    }

    /// Octets of the digest that it signs; 0 where it signs messages.
    pub(crate) const fn digest_length(self) -> usize {
        match self {
            Mechanism::EcdsaP256 | Mechanism::RsaSha256 => 32,
            Mechanism::EcdsaP384 | Mechanism::RsaSha384 => 48,
            Mechanism::RsaSha512 => 64,
            Mechanism::Ed25519 => 0,
        }
    }

    /// The signature that comes out.
    pub(crate) const fn signature(self) -> SignatureAlgorithm {
        match self {
            Mechanism::EcdsaP256 => SignatureAlgorithm::EcdsaSha256,
            Mechanism::EcdsaP384 => SignatureAlgorithm::EcdsaSha384,
            Mechanism::RsaSha256 => SignatureAlgorithm::RsaSha256,
            Mechanism::RsaSha384 => SignatureAlgorithm::RsaSha384,
            Mechanism::RsaSha512 => SignatureAlgorithm::RsaSha512,
            Mechanism::Ed25519 => SignatureAlgorithm::Ed25519,
        }
    }

    /// The mechanism's name in metrics and spans.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Mechanism::EcdsaP256 => "ecdsa-p256",
            Mechanism::EcdsaP384 => "ecdsa-p384",
            Mechanism::RsaSha256 => "rsa-sha256",
            Mechanism::RsaSha384 => "rsa-sha384",
            Mechanism::RsaSha512 => "rsa-sha512",
            Mechanism::Ed25519 => "ed25519",
        }
    }
}

/// The instant after which nobody wants the signature any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that is `duration` from now.
    pub fn after(duration: Duration) -> Deadline {
        Deadline(Instant::now() + duration)
    }

    /// The deadline at `instant`.
    pub fn at(instant: Instant) -> Deadline {
        Deadline(instant)
    }

    /// What is left of it; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The instant itself.
    pub fn instant(self) -> Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(algorithm: SignatureAlgorithm, length: usize) -> Job {
        Job::Digest { algorithm, digest: Bytes::from(vec![7; length]) }
    }

    #[test]
    fn only_digests_of_the_hashs_length_are_signed() {
        // SoftHSM and kryoptic sign all of these without a word.
        for length in [0, 20, 31, 33, 48, 64] {
            let refused = digest(SignatureAlgorithm::EcdsaSha256, length).check(KeyAlgorithm::EcdsaP256);
            assert!(
                matches!(refused, Err(HsmError::DigestLength { expected: 32, found }) if found == length),
                "{refused:?}"
            );
        }
        assert_eq!(
            digest(SignatureAlgorithm::EcdsaSha256, 32).check(KeyAlgorithm::EcdsaP256).unwrap(),
            Mechanism::EcdsaP256
        );
        assert_eq!(
            digest(SignatureAlgorithm::RsaSha512, 64).check(KeyAlgorithm::Rsa { bits: 2048 }).unwrap(),
            Mechanism::RsaSha512
        );
    }

    #[test]
    fn the_algorithm_must_fit_the_key() {
        let p384_with_sha256 = digest(SignatureAlgorithm::EcdsaSha256, 32).check(KeyAlgorithm::EcdsaP384);
        assert!(matches!(p384_with_sha256, Err(HsmError::WrongAlgorithm { .. })));
        let rsa_job_for_ec = digest(SignatureAlgorithm::RsaSha256, 32).check(KeyAlgorithm::EcdsaP256);
        assert!(matches!(rsa_job_for_ec, Err(HsmError::WrongAlgorithm { .. })));
        let message_for_ec = Job::Message(Bytes::from_static(b"m")).check(KeyAlgorithm::EcdsaP256);
        assert!(matches!(message_for_ec, Err(HsmError::SignsDigests { .. })));
        let digest_for_ed25519 = digest(SignatureAlgorithm::EcdsaSha256, 32).check(KeyAlgorithm::Ed25519);
        assert!(matches!(digest_for_ed25519, Err(HsmError::WrongAlgorithm { .. })));
    }

    #[test]
    fn a_message_becomes_the_job_that_its_algorithm_needs() {
        let job = Job::for_message(SignatureAlgorithm::RsaSha384, b"m");
        assert!(matches!(job, Job::Digest { digest, .. } if digest.len() == 48));
        assert_eq!(
            Job::for_message(SignatureAlgorithm::Ed25519, b"m"),
            Job::Message(Bytes::from_static(b"m"))
        );
    }

    #[test]
    fn messages_have_a_limit() {
        let job = Job::Message(Bytes::from(vec![0; MESSAGE_MAX + 1]));
        assert!(matches!(job.check(KeyAlgorithm::Ed25519), Err(HsmError::MessageTooLong { .. })));
    }
}
