//! The strict reader of clients' JWSs (RFC 8555 §6.2, RFC 7515 §7.2.2).
//!
//! Flattened JSON and nothing else; only the protected header counts; no payload before its verification. josekit's
//! JSON entry points are not used here on purpose: they ignore `crit`, merge the unprotected header and let the last
//! of two equal members win.

use aws_lc_rs::digest;
use pki::ErrorClass;
use serde::de::DeserializeOwned;

use crate::base64url;
use crate::json::{self, JsonError, Object};
use crate::jwk::{Jwk, JwkError};
use crate::problem::{ErrorType, Problem};

/// Larger than a CSR for a thousand names, encoded twice; small enough that a parse costs nothing that matters.
pub const MAX_JWS_BYTES: usize = 128 * 1024;
/// Longer than any URL of ours; keeps log lines and comparisons short.
const MAX_URL_BYTES: usize = 2048;
/// Longer than any nonce of ours (RFC 8555 §6.5.2 sets no limit).
const MAX_NONCE_BYTES: usize = 256;

/// A signature algorithm for account and certificate keys (RFC 7518 §3.1, RFC 8037, RFC 9864).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA over P-256 with SHA-256, which RFC 8555 §6.2 demands.
    Es256,
    /// ECDSA over P-384 with SHA-384.
    Es384,
    /// ECDSA over P-521 with SHA-512.
    Es512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// Ed25519, under the names `EdDSA` (RFC 8037) and `Ed25519` (RFC 9864).
    EdDsa,
}

impl Algorithm {
    /// All that are accepted: the `algorithms` of a `badSignatureAlgorithm` problem (RFC 8555 §6.2).
    pub const ALL: [Self; 5] = [Self::Es256, Self::Es384, Self::Es512, Self::Rs256, Self::EdDsa];

    /// The name in a JWS header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// By a list of what is allowed: `none`, every MAC and every future name fall through it.
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "Ed25519" => Some(Self::EdDsa),
            _ => Self::ALL.into_iter().find(|known| known.name() == name),
        }
    }
}

/// Whose key signed (RFC 8555 §6.2): exactly one of the two.
#[derive(Debug, Clone)]
pub enum KeyReference {
    /// The key itself: newAccount, revokeCert by the certificate's key, the inner JWS of keyChange.
    Jwk(Jwk),
    /// The account's URL, not yet compared with anything: everything else.
    Kid(String),
}

/// The protected header, validated.
#[derive(Debug, Clone)]
pub struct Header {
    /// The signature algorithm.
    pub algorithm: Algorithm,
    /// The anti-replay nonce; canonical base64url. `None` in inner JWSs, where it is forbidden (RFC 8555 §7.3.5).
    pub nonce: Option<String>,
    /// The URL that the client meant (RFC 8555 §6.4), not yet compared with anything.
    pub url: String,
    /// The key.
    pub key: KeyReference,
}

/// A well-formed JWS whose signature has not been looked at. It does not give its payload away.
#[derive(Clone)]
pub struct Jws {
    /// `protected.payload` as the client encoded it: what was signed.
    signed: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
    header: Header,
}

impl Jws {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`JwsError`], exact enough to choose a problem document.
    pub fn from_slice(body: &[u8]) -> Result<Self, JwsError> {
        if body.len() > MAX_JWS_BYTES {
            return Err(JwsError::TooLarge);
        }
        let parts = Flattened::from_object(Object::from_slice(body)?)?;
        let header = Header::from_slice(&parts.protected)?;
        Ok(Self { signed: parts.signed, payload: parts.payload, signature: parts.signature, header })
    }

    /// The protected header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 of `protected.payload`: the identity of the request.
    ///
    /// Never of the whole JWS: white space, ignored members and ECDSA signatures can be changed by others.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.signed.as_bytes())
    }

    /// Verifies the signature; the only way to the payload.
    ///
    /// # Errors
    /// [`JwsError::KeyMismatch`] if the JWS names another key, [`JwsError::AlgorithmMismatch`] if its algorithm is not
    /// that of `key`, [`JwsError::Signature`] if the signature is not good.
    pub fn verify<'a>(&'a self, key: &'a Jwk) -> Result<Verified<'a>, JwsError> {
        if let KeyReference::Jwk(embedded) = &self.header.key
            && embedded != key
        {
            return Err(JwsError::KeyMismatch);
        }
        if key.algorithm() != self.header.algorithm {
            return Err(JwsError::AlgorithmMismatch { expected: key.algorithm() });
        }
        key.verify(self.signed.as_bytes(), &self.signature).map_err(|_| JwsError::Signature)?;
        Ok(Verified { jws: self, key })
    }

    /// As [`verify`](Self::verify), sparing the computation when it is this very JWS that was verified with this very key.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_again<'a>(&'a self, key: &'a Jwk, before: &Remembered) -> Result<Verified<'a>, JwsError> {
        let verified = Verified { jws: self, key };
        if verified.remember() == *before { Ok(verified) } else { self.verify(key) }
    }

    /// Verifies with the key in the header itself.
    ///
    /// # Errors
    /// [`JwsError::KeyReference`] if there is a `kid` instead, and as [`Jws::verify`].
    pub fn verify_embedded(&self) -> Result<Verified<'_>, JwsError> {
        match &self.header.key {
            KeyReference::Jwk(key) => self.verify(key),
            KeyReference::Kid(_) => Err(JwsError::KeyReference),
        }
    }

    /// The JWS with its three members and nothing else: what is stored and sent on.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (protected, payload) = self.signed.split_once('.').unwrap_or_default();
        let signature = base64url::encode(&self.signature);
        // All three are base64url: nothing to escape.
        format!(r#"{{"protected":"{protected}","payload":"{payload}","signature":"{signature}"}}"#)
    }
}

impl std::fmt::Debug for Jws {
    /// The header only: the payload is not to be seen before the verification, nor in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jws").field("header", &self.header).finish_non_exhaustive()
    }
}

/// A JWS whose signature is good.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'a> {
    jws: &'a Jws,
    key: &'a Jwk,
}

/// That a JWS was verified with a key, to be kept in memory. Only a [`Verified`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered([u8; 32]);

impl<'a> Verified<'a> {
    /// What to keep, so that the same need not be verified again.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.key.thumbprint().as_bytes());
        // Base64url and a dot: the NUL ends it.
        context.update(self.jws.signed.as_bytes());
        context.update(&[0]);
        context.update(&self.jws.signature);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Remembered(hash)
    }

    /// The JWS.
    #[must_use]
    pub const fn jws(&self) -> &'a Jws {
        self.jws
    }

    /// The protected header.
    #[must_use]
    pub const fn header(&self) -> &'a Header {
        &self.jws.header
    }

    /// The key that verified it.
    #[must_use]
    pub const fn key(&self) -> &'a Jwk {
        self.key
    }

    /// The payload; empty for POST-as-GET.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.jws.payload
    }

    /// Whether this is a POST-as-GET (RFC 8555 §6.3). The payload `{}` is not.
    #[must_use]
    pub fn is_post_as_get(&self) -> bool {
        self.jws.payload.is_empty()
    }

    /// The payload as a JSON object: no member twice at any level, unknown members ignored (RFC 8555 §7.3).
    ///
    /// # Errors
    /// [`JwsError::Payload`] if it is not such an object, or not a `T`.
    pub fn payload_json<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        json::from_slice(&self.jws.payload).map_err(JwsError::Payload)
    }
}

/// The three members of the flattened serialization, decoded (RFC 7515 §7.2.2).
pub(crate) struct Flattened {
    /// `protected.payload`.
    pub(crate) signed: String,
    pub(crate) protected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl Flattened {
    pub(crate) fn from_object(mut object: Object) -> Result<Self, JwsError> {
        // RFC 8555 §6.2: several signatures and unprotected headers are refused. Other members are ignored.
        if object.contains("signatures") {
            return Err(JwsError::GeneralSerialization);
        }
        if object.contains("header") {
            return Err(JwsError::UnprotectedHeader);
        }
        let mut text = |name| object.take_text(name)?.ok_or(JwsError::MissingMember(name));
        let (protected, payload, signature) = (text("protected")?, text("payload")?, text("signature")?);
        let decode = |name, text: &str| base64url::decode(text).map_err(|_| JwsError::Base64(name));
        Ok(Self {
            signed: format!("{protected}.{payload}"),
            protected: decode("protected", &protected)?,
            payload: decode("payload", &payload)?,
            signature: decode("signature", &signature)?,
        })
    }
}

/// The members that inner and outer headers share, before their keys and algorithms are judged.
pub(crate) struct RawHeader {
    pub(crate) object: Object,
    pub(crate) algorithm: String,
    pub(crate) url: String,
}

impl RawHeader {
    pub(crate) fn from_slice(protected: &[u8]) -> Result<Self, JwsError> {
        let mut object = Object::from_slice(protected)?;
        // No extension is understood here, so every `crit` names one that is not (RFC 7515 §4.1.11). `b64` without
        // `crit` is illegal already, and RFC 8555 §6.2 forbids unencoded payloads.
        if object.contains("crit") {
            return Err(JwsError::Critical);
        }
        if object.contains("b64") {
            return Err(JwsError::UnencodedPayload);
        }
        let algorithm = object.take_text("alg")?.ok_or(JwsError::MissingMember("alg"))?;
        let url = object.take_text("url")?.ok_or(JwsError::MissingMember("url"))?;
        if url.len() > MAX_URL_BYTES {
            return Err(JwsError::TooLong("url"));
        }
        Ok(Self { object, algorithm, url })
    }
}

impl Header {
    fn from_slice(protected: &[u8]) -> Result<Self, JwsError> {
        let RawHeader { mut object, algorithm, url } = RawHeader::from_slice(protected)?;
        let algorithm = Algorithm::from_name(&algorithm)
            .ok_or_else(|| JwsError::UnsupportedAlgorithm(shortened(&algorithm)))?;
        let nonce = object.take_text("nonce")?;
        if let Some(nonce) = &nonce {
            if nonce.len() > MAX_NONCE_BYTES {
                return Err(JwsError::TooLong("nonce"));
            }
            base64url::decode(nonce).map_err(|_| JwsError::Base64("nonce"))?;
        }
        let key = match (object.take_object("jwk")?, object.take_text("kid")?) {
            (Some(jwk), None) => KeyReference::Jwk(Jwk::from_object(jwk)?),
            (None, Some(kid)) if kid.len() > MAX_URL_BYTES => return Err(JwsError::TooLong("kid")),
            (None, Some(kid)) => KeyReference::Kid(kid),
            (Some(_), Some(_)) | (None, None) => return Err(JwsError::KeyReference),
        };
        if let KeyReference::Jwk(jwk) = &key
            && jwk.algorithm() != algorithm
        {
            return Err(JwsError::AlgorithmMismatch { expected: jwk.algorithm() });
        }
        Ok(Self { algorithm, nonce, url, key })
    }
}

/// Why a JWS is refused.
#[derive(Debug, thiserror::Error)]
pub enum JwsError {
    /// The body is larger than [`MAX_JWS_BYTES`].
    #[error("the request is larger than {MAX_JWS_BYTES} bytes")]
    TooLarge,
    /// The JWS or its protected header is not a strict JSON object.
    #[error("the JWS is malformed: {0}")]
    Json(#[from] JsonError),
    /// A member is missing.
    #[error("the JWS has no {0:?}")]
    MissingMember(&'static str),
    /// A member is longer than it can be.
    #[error("the JWS member {0:?} is too long")]
    TooLong(&'static str),
    /// There is an unprotected header (RFC 8555 §6.2).
    #[error("the JWS has an unprotected header")]
    UnprotectedHeader,
    /// The general serialization, or several signatures (RFC 8555 §6.2).
    #[error("the JWS is not in the flattened serialization")]
    GeneralSerialization,
    /// A part is not canonical base64url (RFC 8555 §6.1).
    #[error("the JWS member {0:?} is not base64url without padding")]
    Base64(&'static str),
    /// The header has `crit` (RFC 7515 §4.1.11).
    #[error("the JWS has critical header parameters, none of which is understood")]
    Critical,
    /// The header has `b64` (RFC 8555 §6.2).
    #[error("the JWS has the header parameter \"b64\"")]
    UnencodedPayload,
    /// Both `jwk` and `kid`, or neither (RFC 8555 §6.2), or the one that does not go with this resource.
    #[error("the JWS must have exactly the one of \"jwk\" and \"kid\" that this resource asks for")]
    KeyReference,
    /// The algorithm is not supported (RFC 8555 §6.2).
    #[error("the JWS algorithm {0:?} is not supported")]
    UnsupportedAlgorithm(String),
    /// The algorithm does not go with the key.
    #[error("the JWS algorithm does not fit the key, which takes {}", expected.name())]
    AlgorithmMismatch {
        /// The algorithm that the key takes.
        expected: Algorithm,
    },
    /// The key in the header is not acceptable.
    #[error("the key in the JWS is not acceptable: {0}")]
    Key(#[from] JwkError),
    /// The key in the header is not the one to verify with.
    #[error("the JWS was made with another key")]
    KeyMismatch,
    /// The signature is not good.
    #[error("the JWS signature does not verify")]
    Signature,
    /// The payload is not the object that this resource takes.
    #[error("the payload is malformed: {0}")]
    Payload(#[source] JsonError),
}

impl JwsError {
    /// A JWS is the client's, and so are its faults.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Client
    }

    /// The problem document, with `algorithms` where RFC 8555 §6.2 wants them.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self.error_type() {
            ErrorType::BadSignatureAlgorithm => Problem::bad_signature_algorithm(self.to_string()),
            kind => Problem::new(kind, self.to_string()),
        }
    }

    /// The registered type of the problem (RFC 8555 §6.2, §6.7).
    #[must_use]
    pub const fn error_type(&self) -> ErrorType {
        match self {
            Self::UnsupportedAlgorithm(_) => ErrorType::BadSignatureAlgorithm,
            // RFC 8555 §6.2: a key that cannot be used with the algorithm is a bad key.
            Self::AlgorithmMismatch { .. } => ErrorType::BadPublicKey,
            Self::Key(error) => error.error_type(),
            Self::KeyMismatch => ErrorType::Unauthorized,
            Self::TooLarge
            | Self::Json(_)
            | Self::MissingMember(_)
            | Self::TooLong(_)
            | Self::UnprotectedHeader
            | Self::GeneralSerialization
            | Self::Base64(_)
            | Self::Critical
            | Self::UnencodedPayload
            | Self::KeyReference
            | Self::Signature
            | Self::Payload(_) => ErrorType::Malformed,
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// What a client wrote, short enough for a log line and a problem document.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
