//! Public keys as JWKs (RFC 7517, RFC 7518 §6, RFC 8037) and their thumbprints (RFC 7638).
//!
//! A key has exactly one JWK here: coordinates of full length, integers without leading zeros, canonical base64url.
//! Otherwise one key would have two thumbprints, and so two accounts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use pki::PublicKey;
use serde::Deserialize;

use crate::base64url;
use crate::json::{JsonError, Object};
use crate::jws::{Algorithm, sha256};
use crate::problem::ErrorType;

/// RFC 8555 has no rule; below 2048 is weak, above 8192 one verification costs more than the rest of a request.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// NIST SP 800-56B §6.4.2.1's smallest exponent. Larger than 32 bits is what no key generator makes, and slow.
const RSA_EXPONENTS: std::ops::RangeInclusive<u64> = 65_537..=0xffff_ffff;
/// Members that only a private or symmetric key has (RFC 7518 §6.2.2, §6.3.2, §6.4).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A validated public key. Cheap to clone; ready to verify without parsing again.
#[derive(Clone)]
pub struct Jwk(Arc<Inner>);

struct Inner {
    /// The members of RFC 7638 §3.2 in their order, without white space.
    canonical: String,
    thumbprint: Thumbprint,
    algorithm: Algorithm,
    verifier: ParsedPublicKey,
    public_key: PublicKey,
}

impl Jwk {
    /// Reads a JWK; members that say nothing about the public key itself are ignored.
    ///
    /// # Errors
    /// [`JwkError`].
    pub fn from_json(json: &str) -> Result<Self, JwkError> {
        Self::from_object(Object::from_slice(json.as_bytes())?)
    }

    pub(crate) fn from_object(mut object: Object) -> Result<Self, JwkError> {
        // A client that sends its private key has lost it.
        if PRIVATE_MEMBERS.iter().any(|name| object.contains(name)) {
            return Err(JwkError::PrivateKey);
        }
        let kty = text(&mut object, "kty")?;
        match kty.as_str() {
            "EC" => {
                let curve = Curve::from_name(&text(&mut object, "crv")?).ok_or(JwkError::UnsupportedKey)?;
                Self::from_ec(curve, &text(&mut object, "x")?, &text(&mut object, "y")?)
            }
            "RSA" => Self::from_rsa(&text(&mut object, "n")?, &text(&mut object, "e")?),
            "OKP" if text(&mut object, "crv")? == "Ed25519" => Self::from_ed25519(&text(&mut object, "x")?),
            _ => Err(JwkError::UnsupportedKey),
        }
    }

    fn from_ec(curve: Curve, x: &str, y: &str) -> Result<Self, JwkError> {
        let mut point = vec![0x04];
        for (name, coordinate) in [("x", x), ("y", y)] {
            let bytes = base64url::decode(coordinate).map_err(|_| JwkError::Base64(name))?;
            // RFC 7518 §6.2.1.2: the full size of a coordinate, whatever its value.
            if bytes.len() != curve.coordinate_bytes() {
                return Err(JwkError::Length(name));
            }
            point.extend(bytes);
        }
        let canonical = format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, curve.name());
        let verifier =
            ParsedPublicKey::new(curve.verification(), &point).map_err(|_| JwkError::InvalidKey)?;
        let public_key =
            PublicKey::from_ec_point(curve.key_algorithm(), &point).map_err(|_| JwkError::InvalidKey)?;
        Ok(Self::assemble(canonical, curve.algorithm(), verifier, public_key))
    }

    fn from_rsa(n: &str, e: &str) -> Result<Self, JwkError> {
        let modulus = integer("n", n)?;
        let exponent = integer("e", e)?;
        let bits = modulus.first().map_or(0, |top| modulus.len() * 8 - top.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) || modulus.last().is_none_or(|low| low % 2 == 0) {
            return Err(JwkError::WeakKey);
        }
        let value =
            exponent.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
        if !value.is_some_and(|value| RSA_EXPONENTS.contains(&value) && value % 2 == 1) {
            return Err(JwkError::WeakKey);
        }
        let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
        let verifier = RsaPublicKeyComponents { n: &modulus, e: &exponent }
            .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| JwkError::InvalidKey)?;
        let public_key = PublicKey::from_rsa(&modulus, &exponent).map_err(|_| JwkError::InvalidKey)?;
        Ok(Self::assemble(canonical, Algorithm::Rs256, verifier, public_key))
    }

    fn from_ed25519(x: &str) -> Result<Self, JwkError> {
        let bytes = base64url::decode(x).map_err(|_| JwkError::Base64("x"))?;
        let key = <[u8; 32]>::try_from(bytes).map_err(|_| JwkError::Length("x"))?;
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let verifier = ParsedPublicKey::new(&signature::ED25519, key).map_err(|_| JwkError::InvalidKey)?;
        let public_key = PublicKey::from_ed25519(&key).map_err(|_| JwkError::InvalidKey)?;
        Ok(Self::assemble(canonical, Algorithm::EdDsa, verifier, public_key))
    }

    fn assemble(
        canonical: String,
        algorithm: Algorithm,
        verifier: ParsedPublicKey,
        public_key: PublicKey,
    ) -> Self {
        let thumbprint = Thumbprint(sha256(canonical.as_bytes()));
        Self(Arc::new(Inner { canonical, thumbprint, algorithm, verifier, public_key }))
    }

    /// The thumbprint (RFC 7638).
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.0.thumbprint
    }

    /// The canonical JWK: the members of RFC 7638 §3.2 and no other.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.0.canonical.clone()
    }

    /// The same, borrowed.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0.canonical
    }

    /// The one algorithm that the key signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The key as certificates have it, to be compared with theirs.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), aws_lc_rs::error::Unspecified> {
        self.0.verifier.verify_sig(message, signature)
    }
}

impl PartialEq for Jwk {
    fn eq(&self, other: &Self) -> bool {
        self.0.canonical == other.0.canonical
    }
}

impl Eq for Jwk {}

impl fmt::Debug for Jwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jwk").field(&self.0.canonical).finish()
    }
}

impl FromStr for Jwk {
    type Err = JwkError;
    fn from_str(json: &str) -> Result<Self, JwkError> {
        Self::from_json(json)
    }
}

impl<'de> Deserialize<'de> for Jwk {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_object(Object::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// SHA-256 of a key's canonical JWK (RFC 7638); in text base64url.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// From the stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

impl FromStr for Thumbprint {
    type Err = base64url::NotBase64Url;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        base64url::decode_array(text).map(Self)
    }
}

crate::id::serde_as_text!(Thumbprint);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::Es256,
            Self::P384 => Algorithm::Es384,
            Self::P521 => Algorithm::Es512,
        }
    }

    const fn key_algorithm(self) -> pki::KeyAlgorithm {
        match self {
            Self::P256 => pki::KeyAlgorithm::EcdsaP256,
            Self::P384 => pki::KeyAlgorithm::EcdsaP384,
            Self::P521 => pki::KeyAlgorithm::EcdsaP521,
        }
    }

    /// With signatures of fixed length, `r ‖ s` (RFC 7518 §3.4).
    fn verification(self) -> &'static signature::EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }
}

fn text(object: &mut Object, name: &'static str) -> Result<String, JwkError> {
    object.take_text(name)?.ok_or(JwkError::Missing(name))
}

/// A positive integer in as few octets as it takes (RFC 7518 §2, `Base64urlUInt`).
fn integer(name: &'static str, text: &str) -> Result<Vec<u8>, JwkError> {
    let bytes = base64url::decode(text).map_err(|_| JwkError::Base64(name))?;
    match bytes.first() {
        None | Some(0) => Err(JwkError::Length(name)),
        Some(_) => Ok(bytes),
    }
}

/// Why a JWK is refused.
#[derive(Debug, thiserror::Error)]
pub enum JwkError {
    /// Not a strict JSON object, or a member of another type.
    #[error("the JWK is malformed: {0}")]
    Json(#[from] JsonError),
    /// A member is missing.
    #[error("the JWK has no {0:?}")]
    Missing(&'static str),
    /// A member is not canonical base64url.
    #[error("the JWK member {0:?} is not base64url without padding")]
    Base64(&'static str),
    /// A coordinate is not of full length, or an integer has leading zeros.
    #[error("the JWK member {0:?} has the wrong length")]
    Length(&'static str),
    /// The JWK holds a private key.
    #[error("the JWK holds a private key, which is thereby compromised")]
    PrivateKey,
    /// Another type or curve than those of [`Algorithm::ALL`].
    #[error("keys of this type or curve are not supported")]
    UnsupportedKey,
    /// RSA outside 2048 to 8192 bits, or with an unsafe exponent.
    #[error("RSA keys need 2048 to 8192 bits, an odd modulus and an odd exponent from 65537 to 2^32-1")]
    WeakKey,
    /// Not a point of the curve, or otherwise no key.
    #[error("the JWK is no valid key")]
    InvalidKey,
}

impl JwkError {
    /// A key is its holder's, and so are its faults.
    #[must_use]
    pub const fn class(&self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The registered type of the problem (RFC 8555 §6.2).
    #[must_use]
    pub const fn error_type(&self) -> ErrorType {
        match self {
            Self::Json(_) | Self::Missing(_) | Self::Base64(_) => ErrorType::Malformed,
            Self::Length(_) | Self::PrivateKey | Self::UnsupportedKey | Self::WeakKey | Self::InvalidKey => {
                ErrorType::BadPublicKey
            }
        }
    }
}

#[cfg(test)]
mod tests;
