//! Public keys: validated once, then carried as the SubjectPublicKeyInfo that they are.

use std::{fmt, hash, str::FromStr, sync::Arc};

use aws_lc_rs::{digest, signature::ParsedPublicKey};
use const_oid::db::rfc5912::RSA_ENCRYPTION;
use der::{Decode, Reader, SliceReader, asn1::UintRef};
use serde::{Deserialize, Serialize};

use crate::{encode::encode, signature::SignatureAlgorithm};

/// A kind of key. In text `ecdsa-p256`, `ecdsa-p384`, `ecdsa-p521`, `rsa-2048` and so on, `ed25519`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyAlgorithm {
    /// ECDSA over P-256.
    EcdsaP256,
    /// ECDSA over P-384.
    EcdsaP384,
    /// ECDSA over P-521.
    EcdsaP521,
    /// RSA with a modulus of so many bits: 2048 to 8192, a multiple of 8 (BR §6.1.5).
    Rsa {
        /// Bits of the modulus.
        bits: u16,
    },
    /// Ed25519 (RFC 8410).
    Ed25519,
}

/// Why octets are not a public key that this CA knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyError {
    /// Not the DER of a SubjectPublicKeyInfo, or not the one encoding that a key has.
    #[error("the key is not a SubjectPublicKeyInfo in DER")]
    Encoding,
    /// A kind of key that is not supported.
    #[error("the kind of key is not supported")]
    Algorithm,
    /// A point that is not on its curve, or is not encoded uncompressed.
    #[error("the key is not an uncompressed point on its curve")]
    Point,
    /// A modulus that is even, too short, too long or not a multiple of 8 bits.
    #[error("the RSA modulus is not an odd number of 2048 to 8192 bits, a multiple of 8")]
    Modulus,
    /// An exponent that is even or less than 65537, or absurdly long.
    #[error("the RSA exponent is not an odd number from 65537 to 2^64")]
    Exponent,
    /// Text that names no key algorithm.
    #[error("not a key algorithm: use ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096, … or ed25519")]
    Name,
}

/// A validated public key. Cheap to clone; equal if its SubjectPublicKeyInfo is.
#[derive(Clone)]
pub struct PublicKey(Arc<Parsed>);

struct Parsed {
    algorithm: KeyAlgorithm,
    spki: Box<[u8]>,
    /// Where, in `spki`, the content of the BIT STRING begins.
    raw_start: usize,
    sha256: [u8; 32],
    /// Ready to verify [`KeyAlgorithm::default_signature`].
    verifier: ParsedPublicKey,
}

/// SubjectPublicKeyInfo up to the key itself (RFC 5480 §2.1.1, RFC 8410 §4).
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const P384: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
const P521: &[u8] =
    b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00";
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Ed25519 points of small order: a signature under them says nothing about who made it.
const ED25519_SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    small(0x01, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    small(0xec, 0xff, 0x7f),
];

const fn small(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut octets = [middle; 32];
    let [head, .., tail] = &mut octets;
    *head = first;
    *tail = last;
    octets
}

impl KeyAlgorithm {
    /// The signature that keys of this kind make unless something else is asked for; for ECDSA the
    /// hash that BR §7.1.3.2.2 ties to the curve.
    #[must_use]
    pub const fn default_signature(self) -> SignatureAlgorithm {
        match self {
            Self::EcdsaP256 => SignatureAlgorithm::EcdsaSha256,
            Self::EcdsaP384 => SignatureAlgorithm::EcdsaSha384,
            Self::EcdsaP521 => SignatureAlgorithm::EcdsaSha512,
            Self::Rsa { .. } => SignatureAlgorithm::RsaSha256,
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
        }
    }

    /// Whether this is RSA of whatever size.
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa { .. })
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo. Each key has exactly one encoding that is accepted: its own
    /// canonical DER, no compressed points, RSA with the NULL parameter.
    ///
    /// # Errors
    /// When the octets are not that, or the key is not valid.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, KeyError> {
        if let Some(point) = spki.strip_prefix(P256) {
            return Self::from_ec_point(KeyAlgorithm::EcdsaP256, point);
        }
        if let Some(point) = spki.strip_prefix(P384) {
            return Self::from_ec_point(KeyAlgorithm::EcdsaP384, point);
        }
        if let Some(point) = spki.strip_prefix(P521) {
            return Self::from_ec_point(KeyAlgorithm::EcdsaP521, point);
        }
        if let Some(octets) = spki.strip_prefix(ED25519) {
            return Self::from_ed25519(octets.try_into().map_err(|_| KeyError::Encoding)?);
        }
        let info = spki::SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| KeyError::Encoding)?;
        if info.algorithm.oid != RSA_ENCRYPTION {
            return Err(KeyError::Algorithm);
        }
        let key = info.subject_public_key.as_bytes().ok_or(KeyError::Encoding)?;
        let (modulus, exponent) = read_rsa(key).map_err(|_| KeyError::Encoding)?;
        let key = Self::from_rsa(modulus.as_bytes(), exponent.as_bytes())?;
        if key.spki_der() == spki { Ok(key) } else { Err(KeyError::Encoding) }
    }

    /// A key from an uncompressed point `04 ‖ x ‖ y`.
    ///
    /// # Errors
    /// When the point is not uncompressed or not on the curve, or the algorithm has no points.
    pub fn from_ec_point(algorithm: KeyAlgorithm, point: &[u8]) -> Result<Self, KeyError> {
        let (prefix, coordinate) = match algorithm {
            KeyAlgorithm::EcdsaP256 => (P256, 32),
            KeyAlgorithm::EcdsaP384 => (P384, 48),
            KeyAlgorithm::EcdsaP521 => (P521, 66),
            KeyAlgorithm::Rsa { .. } | KeyAlgorithm::Ed25519 => return Err(KeyError::Algorithm),
        };
        if point.len() != 1 + 2 * coordinate || point.first() != Some(&4) {
            return Err(KeyError::Point);
        }
        Self::build(algorithm, [prefix, point].concat(), prefix.len()).ok_or(KeyError::Point)
    }

    /// A key from its modulus and exponent, big-endian; leading zero octets do not matter.
    ///
    /// # Errors
    /// When they are not as BR §6.1.5 and §6.1.6 want them.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = (significant(modulus), significant(exponent));
        let bits = u16::try_from(modulus.len() * 8).map_err(|_| KeyError::Modulus)?;
        let whole_octets = modulus.first().is_some_and(|first| first & 0x80 != 0);
        if !(2048..=8192).contains(&bits) || !whole_octets || modulus.last().is_none_or(|last| last & 1 == 0)
        {
            return Err(KeyError::Modulus);
        }
        // Longer exponents than 64 bits cost the verifier time and buy nothing.
        let large =
            matches!(exponent.len(), 3..=8) && (exponent.len() > 3 || exponent >= [1, 0, 1].as_slice());
        if !large || exponent.last().is_none_or(|last| last & 1 == 0) {
            return Err(KeyError::Exponent);
        }
        let key = encode(|e| {
            e.sequence(|e| {
                e.unsigned(modulus).unsigned(exponent);
            });
        });
        let spki = encode(|e| {
            e.sequence(|e| {
                e.sequence(|e| {
                    e.oid(&RSA_ENCRYPTION).raw(&[0x05, 0x00]);
                })
                .bit_string(&key);
            });
        });
        let raw_start = spki.len() - key.len();
        Self::build(KeyAlgorithm::Rsa { bits }, spki, raw_start).ok_or(KeyError::Modulus)
    }

    /// A key from the 32 octets of RFC 8032 §5.1.5.
    ///
    /// # Errors
    /// When y is not reduced, or the point has a small order.
    pub fn from_ed25519(octets: &[u8; 32]) -> Result<Self, KeyError> {
        let mut y = *octets;
        if let Some(last) = y.last_mut() {
            *last &= 0x7f; // the sign of x
        }
        // p = 2^255 - 19, little-endian ed ff … ff 7f.
        let [low, middle @ .., high] = &y;
        let unreduced = *low >= 0xed && *high == 0x7f && middle.iter().all(|octet| *octet == 0xff);
        if unreduced || ED25519_SMALL_ORDER.contains(&y) {
            return Err(KeyError::Point);
        }
        Self::build(KeyAlgorithm::Ed25519, [ED25519, octets].concat(), ED25519.len()).ok_or(KeyError::Point)
    }

    fn build(algorithm: KeyAlgorithm, spki: Vec<u8>, raw_start: usize) -> Option<Self> {
        let verification = algorithm.default_signature().verification(algorithm)?;
        // aws-lc checks here that a point is on its curve.
        let verifier = ParsedPublicKey::new(verification, spki.get(raw_start..)?).ok()?;
        let sha256 = octets32(digest::digest(&digest::SHA256, &spki).as_ref());
        Some(Self(Arc::new(Parsed { algorithm, spki: spki.into(), raw_start, sha256, verifier })))
    }

    /// The SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    /// The kind of key.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.0.algorithm
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the key's name in block lists and the journal.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.0.sha256
    }

    /// The subject key identifier that we give it: RFC 7093 §2 method 1, the leftmost 160 bits of
    /// the SHA-256 of the BIT STRING's content.
    #[must_use]
    pub fn key_id(&self) -> [u8; 20] {
        let mut id = [0; 20];
        let digest = digest::digest(&digest::SHA256, self.raw());
        for (to, from) in id.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        id
    }

    /// The content of the BIT STRING: an uncompressed point, an RSAPublicKey, or 32 octets.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.0.spki.get(self.0.raw_start..).unwrap_or_default()
    }

    /// The modulus of an RSA key, big-endian, without leading zeros.
    #[must_use]
    pub fn rsa_modulus(&self) -> Option<&[u8]> {
        if !self.0.algorithm.is_rsa() {
            return None;
        }
        read_rsa(self.raw()).ok().map(|(modulus, _)| modulus.as_bytes())
    }

    pub(crate) fn parsed_for(&self, algorithm: SignatureAlgorithm) -> Option<&ParsedPublicKey> {
        (algorithm == self.0.algorithm.default_signature()).then_some(&self.0.verifier)
    }
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 §A.1.1).
fn read_rsa(der: &[u8]) -> der::Result<(UintRef<'_>, UintRef<'_>)> {
    let mut reader = SliceReader::new(der)?;
    let numbers = reader
        .sequence(|reader| Ok::<_, der::Error>((UintRef::decode(reader)?, UintRef::decode(reader)?)))?;
    reader.finish()?;
    Ok(numbers)
}

fn significant(big_endian: &[u8]) -> &[u8] {
    let zeros = big_endian.iter().take_while(|octet| **octet == 0).count();
    big_endian.get(zeros..).unwrap_or_default()
}

/// The 32 octets of a SHA-256.
pub(crate) fn octets32(digest: &[u8]) -> [u8; 32] {
    digest.try_into().unwrap_or_default()
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.spki == other.0.spki
    }
}

impl Eq for PublicKey {}

impl hash::Hash for PublicKey {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.sha256.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, sha256 {})", self.0.algorithm, hex::encode(self.0.sha256))
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => f.write_str("ecdsa-p256"),
            Self::EcdsaP384 => f.write_str("ecdsa-p384"),
            Self::EcdsaP521 => f.write_str("ecdsa-p521"),
            Self::Rsa { bits } => write!(f, "rsa-{bits}"),
            Self::Ed25519 => f.write_str("ed25519"),
        }
    }
}

impl FromStr for KeyAlgorithm {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text {
            "ecdsa-p256" => return Ok(Self::EcdsaP256),
            "ecdsa-p384" => return Ok(Self::EcdsaP384),
            "ecdsa-p521" => return Ok(Self::EcdsaP521),
            "ed25519" => return Ok(Self::Ed25519),
            _ => {}
        }
        let digits =
            text.strip_prefix("rsa-").filter(|rest| rest.bytes().all(|octet| octet.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(bits @ 2048_u16..=8192) if bits.is_multiple_of(8) => Ok(Self::Rsa { bits }),
            _ => Err(KeyError::Name),
        }
    }
}

impl TryFrom<String> for KeyAlgorithm {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<KeyAlgorithm> for String {
    fn from(algorithm: KeyAlgorithm) -> Self {
        algorithm.to_string()
    }
}

#[cfg(test)]
mod tests;
