//! Signature algorithms: their identifiers as exact bytes (BR §7.1.3.2), digests, and verification.

use std::{fmt, str::FromStr};

use aws_lc_rs::{digest, signature as aws};
use serde::{Deserialize, Serialize};

use crate::{
    encode::{encode, tag},
    key::{KeyAlgorithm, PublicKey},
};

/// An algorithm that signs certificates, CRLs or certificate requests. SHA-1 and MD5 have no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256, RFC 5758.
    EcdsaSha256,
    /// ecdsa-with-SHA384, RFC 5758.
    EcdsaSha384,
    /// ecdsa-with-SHA512, RFC 5758.
    EcdsaSha512,
    /// sha256WithRSAEncryption (PKCS #1 v1.5), RFC 4055.
    RsaSha256,
    /// sha384WithRSAEncryption, RFC 4055.
    RsaSha384,
    /// sha512WithRSAEncryption, RFC 4055.
    RsaSha512,
    /// Ed25519, RFC 8410: signs messages, not digests.
    Ed25519,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The algorithm does not go with the key.
    #[error("the signature algorithm does not belong to this kind of key")]
    KeyMismatch,
    /// The signature is wrong.
    #[error("the signature does not verify")]
    Invalid,
    /// A digest of the wrong length, or of a message that Ed25519 has to see.
    #[error("the signature algorithm does not sign this digest")]
    Digest,
    /// Octets that are not r and s side by side.
    #[error("a raw ECDSA signature is two numbers of equal length, neither zero")]
    Raw,
}

/// `(algorithm, name, AlgorithmIdentifier)`: the bytes of BR §7.1.3.2, and RFC 8410 §3.
const IDENTIFIERS: [(SignatureAlgorithm, &str, &[u8]); 7] = [
    (
        SignatureAlgorithm::EcdsaSha256,
        "ecdsa-sha256",
        &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
    ),
    (
        SignatureAlgorithm::EcdsaSha384,
        "ecdsa-sha384",
        &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
    ),
    (
        SignatureAlgorithm::EcdsaSha512,
        "ecdsa-sha512",
        &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
    ),
    (
        SignatureAlgorithm::RsaSha256,
        "rsa-sha256",
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00],
    ),
    (
        SignatureAlgorithm::RsaSha384,
        "rsa-sha384",
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c, 0x05, 0x00],
    ),
    (
        SignatureAlgorithm::RsaSha512,
        "rsa-sha512",
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d, 0x05, 0x00],
    ),
    (SignatureAlgorithm::Ed25519, "ed25519", &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70]),
];

impl SignatureAlgorithm {
    /// The AlgorithmIdentifier, DER.
    #[must_use]
    pub fn identifier_der(self) -> &'static [u8] {
        IDENTIFIERS.iter().find(|(algorithm, ..)| *algorithm == self).map_or(&[], |(.., der)| der)
    }

    /// Reads an AlgorithmIdentifier, which has to be byte for byte the one that we would write.
    #[must_use]
    pub fn from_identifier_der(der: &[u8]) -> Option<Self> {
        IDENTIFIERS.iter().find(|(.., identifier)| *identifier == der).map(|(algorithm, ..)| *algorithm)
    }

    /// Its name in configuration and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        IDENTIFIERS.iter().find(|(algorithm, ..)| *algorithm == self).map_or("", |(_, name, _)| name)
    }

    /// Whether a key of this kind can make such a signature.
    #[must_use]
    pub const fn is_for(self, key: KeyAlgorithm) -> bool {
        matches!(
            (self, key),
            (
                Self::EcdsaSha256 | Self::EcdsaSha384 | Self::EcdsaSha512,
                KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::EcdsaP521
            ) | (Self::RsaSha256 | Self::RsaSha384 | Self::RsaSha512, KeyAlgorithm::Rsa { .. })
                | (Self::Ed25519, KeyAlgorithm::Ed25519)
        )
    }

    /// The digest of `message` that is signed; `None` if the message itself is.
    #[must_use]
    pub fn digest(self, message: &[u8]) -> Option<Vec<u8>> {
        Some(digest::digest(self.digest_algorithm()?, message).as_ref().to_vec())
    }

    /// The hash of the algorithm, for those who feed it piece by piece.
    pub(crate) fn digest_algorithm(self) -> Option<&'static digest::Algorithm> {
        match self {
            Self::EcdsaSha256 | Self::RsaSha256 => Some(&digest::SHA256),
            Self::EcdsaSha384 | Self::RsaSha384 => Some(&digest::SHA384),
            Self::EcdsaSha512 | Self::RsaSha512 => Some(&digest::SHA512),
            Self::Ed25519 => None,
        }
    }

    pub(crate) fn verification(self, key: KeyAlgorithm) -> Option<&'static dyn aws::VerificationAlgorithm> {
        use KeyAlgorithm::{EcdsaP256, EcdsaP384, EcdsaP521, Rsa};
        Some(match (self, key) {
            (Self::EcdsaSha256, EcdsaP256) => &aws::ECDSA_P256_SHA256_ASN1,
            (Self::EcdsaSha384, EcdsaP256) => &aws::ECDSA_P256_SHA384_ASN1,
            (Self::EcdsaSha512, EcdsaP256) => &aws::ECDSA_P256_SHA512_ASN1,
            (Self::EcdsaSha256, EcdsaP384) => &aws::ECDSA_P384_SHA256_ASN1,
            (Self::EcdsaSha384, EcdsaP384) => &aws::ECDSA_P384_SHA384_ASN1,
            (Self::EcdsaSha512, EcdsaP384) => &aws::ECDSA_P384_SHA512_ASN1,
            (Self::EcdsaSha256, EcdsaP521) => &aws::ECDSA_P521_SHA256_ASN1,
            (Self::EcdsaSha384, EcdsaP521) => &aws::ECDSA_P521_SHA384_ASN1,
            (Self::EcdsaSha512, EcdsaP521) => &aws::ECDSA_P521_SHA512_ASN1,
            (Self::RsaSha256, Rsa { .. }) => &aws::RSA_PKCS1_2048_8192_SHA256,
            (Self::RsaSha384, Rsa { .. }) => &aws::RSA_PKCS1_2048_8192_SHA384,
            (Self::RsaSha512, Rsa { .. }) => &aws::RSA_PKCS1_2048_8192_SHA512,
            (Self::Ed25519, KeyAlgorithm::Ed25519) => &aws::ED25519,
            _ => return None,
        })
    }
}

impl PublicKey {
    /// Verifies a signature as X.509 carries it: ECDSA as DER, the others as they are.
    ///
    /// # Errors
    /// When the algorithm does not go with the key, or the signature is wrong.
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        match self.parsed_for(algorithm) {
            Some(parsed) => parsed.verify_sig(message, signature),
            None => self.unparsed(algorithm)?.verify(message, signature),
        }
        .map_err(|_| SignatureError::Invalid)
    }

    /// Verifies a signature over a message of which only the digest is at hand.
    ///
    /// # Errors
    /// As [`PublicKey::verify`]; Ed25519 signs no digests.
    pub fn verify_digest(
        &self,
        algorithm: SignatureAlgorithm,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let hash = algorithm.digest_algorithm().ok_or(SignatureError::Digest)?;
        let digest = digest::Digest::import_less_safe(digest, hash).map_err(|_| SignatureError::Digest)?;
        match self.parsed_for(algorithm) {
            Some(parsed) => parsed.verify_digest_sig(&digest, signature),
            None => self.unparsed(algorithm)?.verify_digest(&digest, signature),
        }
        .map_err(|_| SignatureError::Invalid)
    }

    fn unparsed(
        &self,
        algorithm: SignatureAlgorithm,
    ) -> Result<aws::UnparsedPublicKey<&[u8]>, SignatureError> {
        let verification = algorithm.verification(self.algorithm()).ok_or(SignatureError::KeyMismatch)?;
        Ok(aws::UnparsedPublicKey::new(verification, self.raw()))
    }
}

/// `r ‖ s`, as PKCS #11 and JOSE write an ECDSA signature, to the DER of RFC 3279 §2.2.3.
///
/// # Errors
/// When the octets are not two numbers of 32, 48 or 66 octets, neither of them zero.
pub fn ecdsa_raw_to_der(raw: &[u8]) -> Result<Vec<u8>, SignatureError> {
    if !matches!(raw.len(), 64 | 96 | 132) {
        return Err(SignatureError::Raw);
    }
    let (r, s) = raw.split_at_checked(raw.len() / 2).ok_or(SignatureError::Raw)?;
    if [r, s].iter().any(|number| number.iter().all(|octet| *octet == 0)) {
        return Err(SignatureError::Raw);
    }
    Ok(encode(|e| {
        e.nested(tag::SEQUENCE, |e| {
            e.unsigned(r).unsigned(s);
        });
    }))
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a signature algorithm: use ecdsa-sha256, ecdsa-sha384, rsa-sha256, … or ed25519")]
pub struct UnknownSignatureAlgorithm;

impl FromStr for SignatureAlgorithm {
    type Err = UnknownSignatureAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownSignatureAlgorithm> {
        IDENTIFIERS
            .iter()
            .find(|(_, name, _)| *name == text)
            .map(|(algorithm, ..)| *algorithm)
            .ok_or(UnknownSignatureAlgorithm)
    }
}

impl TryFrom<String> for SignatureAlgorithm {
    type Error = UnknownSignatureAlgorithm;

    fn try_from(text: String) -> Result<Self, UnknownSignatureAlgorithm> {
        text.parse()
    }
}

impl From<SignatureAlgorithm> for String {
    fn from(algorithm: SignatureAlgorithm) -> Self {
        algorithm.as_str().to_owned()
    }
}
