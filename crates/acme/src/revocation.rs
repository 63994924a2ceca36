//! Revocation requests (RFC 8555 §7.6).

use pki::Reason;
use serde::Deserialize;

use crate::base64url;
use crate::jws::{JwsError, Verified};
use crate::problem::{ErrorType, Problem};

/// The payload of revokeCert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The certificate, DER, as yet unjudged.
    pub certificate: Vec<u8>,
    /// The reason; none is the same as "unspecified".
    pub reason: Reason,
}

impl Revocation {
    /// Reads the payload.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn from_verified(request: &Verified<'_>) -> Result<Self, RevocationError> {
        #[derive(Deserialize)]
        struct Payload {
            certificate: String,
            reason: Option<i64>,
        }
        let payload: Payload = request.payload_json()?;
        let certificate =
            base64url::decode(&payload.certificate).map_err(|_| JwsError::Base64("certificate"))?;
        let code = payload.reason.unwrap_or(0);
        // The other reasons are the CA's, or never used (BR 7.2.2).
        let reason = Reason::try_from(code).ok().filter(|reason| reason.is_for_subscribers());
        let reason = reason.ok_or(RevocationError::Reason)?;
        Ok(Self { certificate, reason })
    }
}

/// Why a revocation request is refused before anyone looks at the certificate.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The payload is not a revocation.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The reason is not one that a subscriber may give.
    #[error("the reason must be 0, 1, 3, 4 or 5")]
    Reason,
}

impl RevocationError {
    /// The client's fault.
    #[must_use]
    pub const fn class(&self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The problem document.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Jws(error) => error.problem(),
            Self::Reason => Problem::new(ErrorType::BadRevocationReason, self.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
