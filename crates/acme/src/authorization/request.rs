//! What a client sends for an authorization without an order: newAuthz (RFC 8555 §7.4.1).

use pki::Name;
use serde::Deserialize;

use crate::identifier::{Identifier, IdentifierError};
use crate::jws::{JwsError, Verified};
use crate::problem::{ErrorType, Problem};

/// The payload of newAuthz, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAuthorization {
    /// The name; never a wildcard (RFC 8555 §7.4.1).
    pub name: Name,
    /// Whether it is asked for the names below as well (RFC 9444 §4.2). Whether it is made so, the directory decides.
    pub subdomains: bool,
}

impl NewAuthorization {
    /// Reads the payload.
    ///
    /// # Errors
    /// [`NewAuthorizationError`].
    pub fn from_verified(request: &Verified<'_>) -> Result<Self, NewAuthorizationError> {
        struct Wanted {
            identifier: Identifier,
            subdomains: bool,
        }
        impl<'de> Deserialize<'de> for Wanted {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Members {
                    #[serde(rename = "type")]
                    kind: String,
                    value: String,
                    #[serde(default)]
                    subdomain_auth_allowed: bool,
                }
                let Members { kind, value, subdomain_auth_allowed } = crate::json::object(deserializer)?;
                Ok(Self { identifier: Identifier { kind, value }, subdomains: subdomain_auth_allowed })
            }
        }
        #[derive(Deserialize)]
        struct Payload {
            identifier: Wanted,
        }
        let Payload { identifier: Wanted { identifier, subdomains } } = request.payload_json()?;
        let name = identifier.to_name()?;
        if name.is_wildcard() {
            return Err(NewAuthorizationError::Wildcard);
        }
        Ok(Self { subdomains: subdomains && matches!(name, Name::Dns(_)), name })
    }
}

/// Why a newAuthz is refused.
#[derive(Debug, thiserror::Error)]
pub enum NewAuthorizationError {
    /// The payload is not a newAuthz.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The identifier is bad.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// RFC 8555 §7.4.1: "identifiers in newAuthz requests MUST NOT be wildcards".
    #[error("a wildcard cannot be authorized without an order")]
    Wildcard,
}

impl NewAuthorizationError {
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
            Self::Identifier(error) => Problem::new(error.error_type(), error.to_string()),
            Self::Wildcard => Problem::new(ErrorType::RejectedIdentifier, self.to_string()),
        }
    }
}
