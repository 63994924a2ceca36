//! External account binding (RFC 8555 §7.3.4): the ids of MAC keys and the check of the inner JWS.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use crate::base64url;
use crate::json::{JsonError, Object};
use crate::jwk::Jwk;
use crate::jws::{Flattened, JwsError, RawHeader, shortened};
use crate::problem::{ErrorType, Problem};

/// Format 1, secret's version 4, epoch 8, random 16.
const KEY_ID_BYTES: usize = 29;
/// The first byte; changes when the derivation of the key does.
const KEY_ID_FORMAT: u8 = 1;

/// The id of an EAB key. It says all that the key is derived from but the secret: nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EabKeyId {
    version: u32,
    epoch: u64,
    random: [u8; 16],
}

impl EabKeyId {
    /// From its parts; the randomness is the caller's.
    #[must_use]
    pub const fn new(version: u32, epoch: u64, random: [u8; 16]) -> Self {
        Self { version, epoch, random }
    }

    /// The version of the tier secret.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The epoch of the `ca` database in which it was made: after a restore, older ones are void.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [&[KEY_ID_FORMAT][..], &self.version.to_be_bytes(), &self.epoch.to_be_bytes(), &self.random].concat()
    }
}

impl fmt::Display for EabKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(self.to_bytes()))
    }
}

impl FromStr for EabKeyId {
    type Err = EabError;
    fn from_str(text: &str) -> Result<Self, EabError> {
        let bytes = base64url::decode_array::<KEY_ID_BYTES>(text).map_err(|_| EabError::UnknownKey)?;
        let rest = bytes.strip_prefix(&[KEY_ID_FORMAT]).ok_or(EabError::UnknownKey)?;
        let (version, rest) = rest.split_first_chunk().ok_or(EabError::UnknownKey)?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(EabError::UnknownKey)?;
        let random = rest.try_into().map_err(|_| EabError::UnknownKey)?;
        Ok(Self { version: u32::from_be_bytes(*version), epoch: u64::from_be_bytes(*epoch), random })
    }
}

crate::id::serde_as_text!(EabKeyId);

/// The MAC algorithms of a binding; in an outer JWS none of them is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MacAlgorithm {
    Hs256,
    Hs384,
    Hs512,
}

impl MacAlgorithm {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "HS384" => Some(Self::Hs384),
            "HS512" => Some(Self::Hs512),
            _ => None,
        }
    }

    const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
        }
    }
}

/// The value of `externalAccountBinding`: well formed, not verified.
#[derive(Clone)]
pub struct Binding {
    /// `protected.payload`.
    signed: String,
    payload: Vec<u8>,
    mac: Vec<u8>,
    algorithm: MacAlgorithm,
    kid: String,
    url: String,
}

impl Binding {
    /// Reads a binding that was stored ([`Binding::to_json`]).
    ///
    /// # Errors
    /// As for one in a request.
    pub fn from_json(json: &str) -> Result<Self, EabError> {
        Self::from_object(Object::from_slice(json.as_bytes()).map_err(EabError::Json)?)
    }

    fn from_object(object: Object) -> Result<Self, EabError> {
        let parts = Flattened::from_object(object)?;
        let RawHeader { mut object, algorithm, url } = RawHeader::from_slice(&parts.protected)?;
        let algorithm =
            MacAlgorithm::from_name(&algorithm).ok_or_else(|| EabError::Algorithm(shortened(&algorithm)))?;
        // RFC 8555 §7.3.4: `nonce` MUST NOT be there, `kid` must; `jwk` beside it would be a second key.
        if object.contains("nonce") {
            return Err(EabError::Nonce);
        }
        if object.contains("jwk") {
            return Err(EabError::Jws(JwsError::KeyReference));
        }
        let kid =
            object.take_text("kid").map_err(EabError::Json)?.ok_or(EabError::Jws(JwsError::KeyReference))?;
        Ok(Self { signed: parts.signed, payload: parts.payload, mac: parts.signature, algorithm, kid, url })
    }

    /// The key's id, as the client wrote it. Parse it as an [`EabKeyId`].
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Verifies it (RFC 8555 §7.3.4): MAC, URL and the account's key. `account_key` and `url` are those of the
    /// newAccount JWS around it, whose signature has been verified.
    ///
    /// # Errors
    /// [`EabError`].
    pub fn verify(&self, account_key: &Jwk, url: &str, mac_key: &[u8]) -> Result<(), EabError> {
        let key = hmac::Key::new(self.algorithm.hmac(), mac_key);
        hmac::verify(&key, self.signed.as_bytes(), &self.mac).map_err(|_| EabError::Mac)?;
        if self.url != url {
            return Err(EabError::Url);
        }
        let payload = std::str::from_utf8(&self.payload).map_err(|_| EabError::OtherKey)?;
        let bound = Jwk::from_json(payload).map_err(|_| EabError::OtherKey)?;
        if bound == *account_key { Ok(()) } else { Err(EabError::OtherKey) }
    }

    /// The JWS with its three members.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (protected, payload) = self.signed.split_once('.').unwrap_or_default();
        let mac = base64url::encode(&self.mac);
        format!(r#"{{"protected":"{protected}","payload":"{payload}","signature":"{mac}"}}"#)
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.signed == other.signed && self.mac == other.mac
    }
}

impl Eq for Binding {}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("kid", &shortened(&self.kid)).finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_object(Object::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Binding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let (protected, payload) = self.signed.split_once('.').unwrap_or_default();
        let mut members = serializer.serialize_struct("Binding", 3)?;
        members.serialize_field("protected", protected)?;
        members.serialize_field("payload", payload)?;
        members.serialize_field("signature", &base64url::encode(&self.mac))?;
        members.end()
    }
}

/// Why a binding is refused.
#[derive(Debug, thiserror::Error)]
pub enum EabError {
    /// Not a strict JSON object.
    #[error("the external account binding is malformed: {0}")]
    Json(#[source] JsonError),
    /// Not a flattened JWS with a good header.
    #[error("the external account binding is malformed: {0}")]
    Jws(#[from] JwsError),
    /// Not a MAC.
    #[error("the external account binding's algorithm {0:?} is no MAC that is supported")]
    Algorithm(String),
    /// It has a nonce, which it must not have.
    #[error("the external account binding has a nonce")]
    Nonce,
    /// The key id is none of this CA's, or no longer.
    #[error("the external account binding's key is unknown")]
    UnknownKey,
    /// The MAC is wrong.
    #[error("the external account binding's MAC does not verify")]
    Mac,
    /// It is for another URL than the request around it.
    #[error("the external account binding is for another URL")]
    Url,
    /// It binds another key than that of the request around it.
    #[error("the external account binding is for another account key")]
    OtherKey,
}

impl EabError {
    /// The client's fault.
    #[must_use]
    pub const fn class(&self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The problem document: whoever has not the key is unauthorized.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let kind = match self {
            Self::Json(_) | Self::Jws(_) | Self::Algorithm(_) | Self::Nonce | Self::Url | Self::OtherKey => {
                ErrorType::Malformed
            }
            Self::UnknownKey | Self::Mac => ErrorType::Unauthorized,
        };
        Problem::new(kind, self.to_string())
    }
}

#[cfg(test)]
mod tests;
