//! The two JWSs of a key change (RFC 8555 §7.3.5).

use serde::Deserialize;

use crate::jwk::Jwk;
use crate::jws::{Jws, JwsError, KeyReference, Verified};
use crate::problem::{ErrorType, Problem};

/// A key change whose inner and outer signatures are good and agree.
#[derive(Debug, Clone)]
pub struct KeyChange {
    /// The key that the account is to have.
    pub new_key: Jwk,
}

impl KeyChange {
    /// Checks the inner JWS against the outer one, which must have been verified with the account's current key.
    ///
    /// The caller has to see that the outer URL is keyChange's and that its `kid` is the account, and, in the
    /// transaction that makes the change, that the new key is and was nobody's.
    ///
    /// # Errors
    /// [`KeyChangeError`].
    pub fn from_verified(outer: &Verified<'_>) -> Result<Self, KeyChangeError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload {
            account: String,
            old_key: Jwk,
        }
        let KeyReference::Kid(account) = &outer.header().key else {
            return Err(KeyChangeError::Outer(JwsError::KeyReference));
        };
        let inner = Jws::from_slice(outer.payload()).map_err(KeyChangeError::Inner)?;
        let verified = inner.verify_embedded().map_err(KeyChangeError::Inner)?;
        if inner.header().nonce.is_some() {
            return Err(KeyChangeError::Nonce);
        }
        if inner.header().url != outer.header().url {
            return Err(KeyChangeError::Url);
        }
        let payload: Payload = verified.payload_json().map_err(KeyChangeError::Inner)?;
        if payload.account != *account {
            return Err(KeyChangeError::Account);
        }
        if payload.old_key != *outer.key() {
            return Err(KeyChangeError::OldKey);
        }
        let new_key = verified.key().clone();
        if new_key == *outer.key() {
            return Err(KeyChangeError::SameKey);
        }
        Ok(Self { new_key })
    }
}

/// Why a key change is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyChangeError {
    /// The outer JWS does not name an account.
    #[error(transparent)]
    Outer(JwsError),
    /// The inner JWS is bad.
    #[error("the inner JWS: {0}")]
    Inner(#[source] JwsError),
    /// The inner JWS has a nonce, which it must not have.
    #[error("the inner JWS has a nonce")]
    Nonce,
    /// The inner JWS is for another URL.
    #[error("the inner JWS is for another URL than the outer one")]
    Url,
    /// The inner JWS is for another account.
    #[error("the inner JWS is for another account than the outer one")]
    Account,
    /// The old key is not the current one.
    #[error("oldKey is not the account's key")]
    OldKey,
    /// The new key is the current one.
    #[error("the new key is the account's key already")]
    SameKey,
}

impl KeyChangeError {
    /// The client's fault.
    #[must_use]
    pub const fn class(&self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The problem document.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Outer(error) | Self::Inner(error) => {
                Problem { detail: self.to_string(), ..error.problem() }
            }
            Self::Nonce | Self::Url | Self::Account | Self::OldKey | Self::SameKey => {
                Problem::new(ErrorType::Malformed, self.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests;
