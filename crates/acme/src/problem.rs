//! Problem documents (RFC 7807) with the error types of RFC 8555 §6.7 and of its registered extensions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;

/// What every registered type starts with (RFC 8555 §6.7).
const URN: &str = "urn:ietf:params:acme:error:";

/// Declares the registered types once: variant, name, usual HTTP status, and what it says by default.
macro_rules! error_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// A registered ACME error type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorType { $($(#[$doc])* $variant,)* }

        impl ErrorType {
            /// Every registered type.
            pub const ALL: &'static [ErrorType] = &[$(ErrorType::$variant,)*];

            /// The name without the URN, as in a metric's label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(ErrorType::$variant => $name,)* }
            }

            /// The HTTP status that goes with this type unless the case at hand asks for another.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(ErrorType::$variant => $status,)* }
            }
        }
    };
}

error_types! {
    /// The account does not exist (RFC 8555 §7.3.1).
    AccountDoesNotExist = "accountDoesNotExist", 400;
    /// The replaced certificate has been replaced before (RFC 9773 §5).
    AlreadyReplaced = "alreadyReplaced", 409;
    /// The certificate is revoked already (RFC 8555 §7.6).
    AlreadyRevoked = "alreadyRevoked", 400;
    /// The CSR is unacceptable (RFC 8555 §7.4).
    BadCsr = "badCSR", 400;
    /// The nonce is unknown, used or too old; the client tries again (RFC 8555 §6.5).
    BadNonce = "badNonce", 400;
    /// The key is of a kind or strength that is not supported (RFC 8555 §6.2).
    BadPublicKey = "badPublicKey", 400;
    /// The revocation reason is not allowed (RFC 8555 §7.6).
    BadRevocationReason = "badRevocationReason", 400;
    /// The JWS algorithm is not supported; the problem lists those that are (RFC 8555 §6.2).
    BadSignatureAlgorithm = "badSignatureAlgorithm", 400;
    /// CAA records forbid the issuance (RFC 8659).
    Caa = "caa", 403;
    /// Several errors, in the subproblems (RFC 8555 §6.7.1).
    Compound = "compound", 400;
    /// The validator could not connect to the target.
    Connection = "connection", 400;
    /// A DNS query failed.
    Dns = "dns", 400;
    /// The request must carry an external account binding (RFC 8555 §7.3.4).
    ExternalAccountRequired = "externalAccountRequired", 403;
    /// The response does not meet the challenge.
    IncorrectResponse = "incorrectResponse", 403;
    /// A contact URL is invalid (RFC 8555 §7.3).
    InvalidContact = "invalidContact", 400;
    /// The profile is unknown, or not for this account or order (draft-ietf-acme-profiles §5).
    InvalidProfile = "invalidProfile", 400;
    /// The request is malformed.
    Malformed = "malformed", 400;
    /// In-band CAA is required for the onion name (RFC 9799 §6.4).
    OnionCaaRequired = "onionCAARequired", 403;
    /// The order is not ready to be finalized (RFC 8555 §7.4).
    OrderNotReady = "orderNotReady", 403;
    /// A rate limit was exceeded (RFC 8555 §6.6).
    RateLimited = "rateLimited", 429;
    /// The server does not issue for this identifier.
    RejectedIdentifier = "rejectedIdentifier", 400;
    /// The fault is the server's.
    ServerInternal = "serverInternal", 500;
    /// A TLS error during validation.
    Tls = "tls", 400;
    /// The client lacks the authority.
    Unauthorized = "unauthorized", 403;
    /// The contact's URL scheme is not supported (RFC 8555 §7.3).
    UnsupportedContact = "unsupportedContact", 400;
    /// The identifier's type is not supported.
    UnsupportedIdentifier = "unsupportedIdentifier", 400;
    /// The user must visit `instance` first (RFC 8555 §7.3.3).
    UserActionRequired = "userActionRequired", 403;
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{URN}{}", self.name())
    }
}

/// The text is no registered error type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a registered ACME error type")]
pub struct UnknownErrorType;

impl FromStr for ErrorType {
    type Err = UnknownErrorType;
    fn from_str(text: &str) -> Result<Self, UnknownErrorType> {
        let name = text.strip_prefix(URN).ok_or(UnknownErrorType)?;
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or(UnknownErrorType)
    }
}

impl Serialize for ErrorType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ErrorType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A problem document (RFC 8555 §6.7), and the `error` member of orders and challenges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The registered type.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// What a person should read. Never a secret, never an internal name.
    pub detail: String,
    /// The HTTP status.
    pub status: u16,
    /// Where the user must go (`userActionRequired`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The algorithms that are supported (`badSignatureAlgorithm`, RFC 8555 §6.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<String>,
    /// One for each identifier at fault (RFC 8555 §6.7.1); absent, never null, when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subproblems: Vec<Subproblem>,
}

/// What went wrong with one identifier (RFC 8555 §6.7.1). Only here may `identifier` occur.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subproblem {
    /// The registered type.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// What a person should read.
    pub detail: String,
    /// The identifier as the client wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<Identifier>,
}

impl Problem {
    /// A problem of this type with its usual status.
    pub fn new(kind: ErrorType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            status: kind.status(),
            instance: None,
            algorithms: Vec::new(),
            subproblems: Vec::new(),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The same with another status: 401, 404, 405, 413, 415 have no type of their own.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with the place where the user must go (RFC 8555 §7.3.3).
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// `badSignatureAlgorithm` with the list that RFC 8555 §6.2 demands.
    pub fn bad_signature_algorithm(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(ErrorType::BadSignatureAlgorithm, detail);
        problem.algorithms = crate::jws::Algorithm::ALL.iter().map(|known| known.name().to_owned()).collect();
        problem
    }

    /// One problem for several identifiers (RFC 8555 §6.7.1): theirs when they agree in type, else `compound`.
    /// `None` when there is nothing wrong.
    #[must_use]
    pub fn from_subproblems(subproblems: Vec<Subproblem>) -> Option<Self> {
        let first = subproblems.first()?;
        let kind = if subproblems.iter().all(|one| one.kind == first.kind) {
            first.kind
        } else {
            ErrorType::Compound
        };
        let detail = match subproblems.as_slice() {
            [only] => only.detail.clone(),
            several => format!("{} identifiers were refused; see the subproblems", several.len()),
        };
        let mut problem = Self::new(kind, detail);
        problem.subproblems = subproblems;
        Some(problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

impl Subproblem {
    /// A subproblem about this identifier.
    pub fn new(kind: ErrorType, detail: impl Into<String>, identifier: Identifier) -> Self {
        Self { kind, detail: detail.into(), identifier: Some(identifier) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_what_it_writes() {
        for kind in ErrorType::ALL {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
            assert!((400..600).contains(&kind.status()));
        }
        assert_eq!(ErrorType::BadCsr.to_string(), "urn:ietf:params:acme:error:badCSR");
        for bad in [
            "malformed",
            "urn:ietf:params:acme:error:",
            "urn:ietf:params:acme:error:Malformed",
            "about:blank",
        ] {
            assert_eq!(bad.parse::<ErrorType>(), Err(UnknownErrorType), "{bad}");
        }
    }

    #[test]
    fn absent_members_are_absent() {
        let problem = Problem::new(ErrorType::Malformed, "no");
        let json = serde_json::to_string(&problem).unwrap();
        assert_eq!(json, r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"no","status":400}"#);
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
    }

    #[test]
    fn bad_signature_algorithm_says_which_are_good() {
        let json = serde_json::to_value(Problem::bad_signature_algorithm("none")).unwrap();
        let algorithms = json.get("algorithms").unwrap();
        assert_eq!(*algorithms, serde_json::json!(["ES256", "ES384", "ES512", "RS256", "EdDSA"]));
    }

    #[test]
    fn several_identifiers_make_one_problem() {
        let sub = |kind, value: &str| Subproblem::new(kind, "no", Identifier::dns(value));
        assert_eq!(Problem::from_subproblems(Vec::new()), None);
        let same = Problem::from_subproblems(vec![
            sub(ErrorType::RejectedIdentifier, "a"),
            sub(ErrorType::RejectedIdentifier, "b"),
        ])
        .unwrap();
        assert_eq!((same.kind, same.subproblems.len()), (ErrorType::RejectedIdentifier, 2));
        let mixed = Problem::from_subproblems(vec![
            sub(ErrorType::RejectedIdentifier, "a"),
            sub(ErrorType::UnsupportedIdentifier, "b"),
        ])
        .unwrap();
        assert_eq!(mixed.kind, ErrorType::Compound);
        let json = serde_json::to_string(&mixed).unwrap();
        assert_eq!(json.matches(r#""identifier":{"type":"dns","#).count(), 2);
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), mixed);
    }

    #[test]
    fn a_stored_problem_of_the_next_version_is_read_but_no_unknown_type() {
        let later =
            r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"no","status":400,"title":"x"}"#;
        assert_eq!(serde_json::from_str::<Problem>(later).unwrap(), Problem::new(ErrorType::Malformed, "no"));
        let unknown = r#"{"type":"urn:ietf:params:acme:error:nonsense","detail":"no","status":400}"#;
        assert!(serde_json::from_str::<Problem>(unknown).is_err());
    }
}
