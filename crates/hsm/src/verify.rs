//! The last gate: no signature leaves without a check against the public key.

use pki::{KeyAlgorithm, PublicKey};

use crate::job::Mechanism;

/// Whether keys of this kind are signed with here, and so verified.
pub(crate) fn is_verifiable(algorithm: KeyAlgorithm) -> bool {
    !matches!(algorithm, KeyAlgorithm::EcdsaP521)
}

/// Whether `signature` is `mechanism`'s over `data` (a digest, or for Ed25519 the message).
pub(crate) fn verifies(key: &PublicKey, mechanism: Mechanism, data: &[u8], signature: &[u8]) -> bool {
    let algorithm = mechanism.signature();
    match mechanism {
        Mechanism::Ed25519 => key.verify(algorithm, data, signature),
        _ => key.verify_digest(algorithm, data, signature),
    }
    .is_ok()
}
