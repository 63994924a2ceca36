//! Authorizations (RFC 8555 §7.1.4, §7.1.6, §7.5): facts that never change, a state that does, and the client's view.
//!
//! A state's transitions consume it; the new one is saved by compare-and-swap against the version that was read.

use pki::{DnsName, Name, Period, Timestamp};
use serde::{Deserialize, Serialize};

use crate::challenge::{self, Challenge, Method, Rest, Start};
use crate::directory::DirectoryName;
use crate::id::{self, AccountId, AuthorizationId};
use crate::identifier::Identifier;
use crate::jws::{JwsError, Verified};
use crate::problem::Problem;
use crate::resource::{BaseUrl, Resource};
use crate::rfc3339;

/// An authorization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// What never changes.
    pub facts: Facts,
    /// What does.
    pub state: State,
}

/// What never changes of an authorization: just what its id authenticates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The id that the signer made.
    pub id: AuthorizationId,
    /// The directory.
    pub directory: DirectoryName,
    /// The account.
    pub account: AccountId,
    /// The name, with "*." if it is a wildcard.
    pub name: Name,
    /// Digest of the newOrder or newAuthz JWS for which the id was made.
    #[serde(with = "crate::hex_digest")]
    pub created_by: [u8; 32],
}

/// An authorization's state (RFC 8555 §7.1.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// Control is to be shown.
    Pending(Pending),
    /// Control was shown, or granted.
    Valid(Valid),
    /// Control was not shown.
    Invalid(Invalid),
    /// The client gave it up (RFC 8555 §7.5.2).
    Deactivated(Deactivated),
    /// It grew too old.
    Expired(Expired),
    /// The CA withdrew it.
    Revoked(Revoked),
}

/// The name of an authorization's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// pending
    Pending,
    /// valid
    Valid,
    /// invalid
    Invalid,
    /// deactivated
    Deactivated,
    /// expired
    Expired,
    /// revoked
    Revoked,
}

impl Status {
    /// The name as ACME writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Deactivated => "deactivated",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Control is to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Until when.
    pub expires: Timestamp,
    /// By any one of these.
    pub challenges: Vec<Challenge>,
}

/// Control was shown, or granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Valid {
    /// How long it counts.
    pub expires: Timestamp,
    /// Why it counts.
    pub basis: Basis,
}

/// Why an authorization is valid. The signer looks for itself; this is what it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// A challenge was met.
    Challenge {
        /// The challenge.
        challenge: Challenge,
        /// The perspectives' receipts, compact JWSs, dissent included.
        receipts: Vec<String>,
    },
    /// An operator granted the name to the account's registration.
    Grant {
        /// The grant's id.
        grant: String,
    },
}

/// Control was not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// The challenge that failed, with its error.
    pub challenge: Challenge,
}

/// The client gave it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deactivated {}

/// It grew too old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// When.
    pub expired: Timestamp,
}

/// The CA withdrew it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {}

impl Pending {
    /// One challenge for each of the directory's methods that fits the name.
    #[must_use]
    pub fn new(name: &Name, methods: &[Method], expires: Timestamp) -> Self {
        let fitting = methods.iter().copied().filter(|method| method.fits(name));
        Self { expires, challenges: fitting.map(Challenge::new).collect() }
    }

    /// The client asks for a validation (RFC 8555 §7.5.1). Asking again while a try runs changes nothing; a try older
    /// than `lease` is taken for dead.
    ///
    /// # Errors
    /// [`TransitionError::NoSuchChallenge`].
    pub fn start(
        self,
        method: Method,
        now: Timestamp,
        lease: Period,
    ) -> Result<(Self, Start), TransitionError> {
        let Self { expires, mut challenges } = self;
        let challenge = challenges
            .iter_mut()
            .find(|known| known.method == method)
            .ok_or(TransitionError::NoSuchChallenge)?;
        // A challenge that ended has ended its authorization; one in `Pending` has not.
        let (next, start) =
            challenge.clone().start(now, lease).map_err(|_| TransitionError::NoSuchChallenge)?;
        *challenge = next;
        Ok((Self { expires, challenges }, start))
    }

    /// A try failed, and there may be another.
    ///
    /// # Errors
    /// [`TransitionError`]: another try runs by now, or none.
    pub fn rest(mut self, method: Method, attempt: u32, rest: Rest) -> Result<Self, TransitionError> {
        self.running(method, attempt)?.rest(rest);
        Ok(self)
    }

    /// A try showed control.
    ///
    /// # Errors
    /// As [`Pending::rest`].
    pub fn succeed(
        mut self,
        method: Method,
        attempt: u32,
        validated: Timestamp,
        expires: Timestamp,
        receipts: Vec<String>,
    ) -> Result<Valid, TransitionError> {
        self.running(method, attempt)?;
        let challenge = Challenge { method, state: challenge::State::Valid { attempt, validated } };
        Ok(Valid { expires, basis: Basis::Challenge { challenge, receipts } })
    }

    /// A try failed, and it was the last.
    ///
    /// # Errors
    /// As [`Pending::rest`].
    pub fn fail(mut self, method: Method, attempt: u32, error: Problem) -> Result<Invalid, TransitionError> {
        self.running(method, attempt)?;
        Ok(Invalid { challenge: Challenge { method, state: challenge::State::Invalid { attempt, error } } })
    }

    /// The client gives it up (RFC 8555 §7.5.2).
    #[must_use]
    pub fn deactivate(self) -> Deactivated {
        Deactivated {}
    }

    fn running(&mut self, method: Method, attempt: u32) -> Result<&mut Challenge, TransitionError> {
        let challenge = self
            .challenges
            .iter_mut()
            .find(|known| known.method == method)
            .ok_or(TransitionError::NoSuchChallenge)?;
        if challenge.runs(attempt) { Ok(challenge) } else { Err(TransitionError::StaleAttempt) }
    }
}

impl Valid {
    /// Valid from the first moment, because an operator granted the name.
    #[must_use]
    pub const fn granted(grant: String, expires: Timestamp) -> Self {
        Self { expires, basis: Basis::Grant { grant } }
    }

    /// The perspectives' receipts; none for a grant.
    #[must_use]
    pub fn receipts(&self) -> &[String] {
        match &self.basis {
            Basis::Challenge { receipts, .. } => receipts,
            Basis::Grant { .. } => &[],
        }
    }

    /// The client gives it up (RFC 8555 §7.5.2).
    #[must_use]
    pub fn deactivate(self) -> Deactivated {
        Deactivated {}
    }

    /// The CA withdraws it.
    #[must_use]
    pub fn revoke(self) -> Revoked {
        Revoked {}
    }
}

impl State {
    /// The state's name.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Pending(_) => Status::Pending,
            Self::Valid(_) => Status::Valid,
            Self::Invalid(_) => Status::Invalid,
            Self::Deactivated(_) => Status::Deactivated,
            Self::Expired(_) => Status::Expired,
            Self::Revoked(_) => Status::Revoked,
        }
    }

    /// The state as it is now: what has grown too old is expired, whatever was stored.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        match self {
            Self::Pending(Pending { expires, .. }) | Self::Valid(Valid { expires, .. }) if expires <= now => {
                Self::Expired(Expired { expired: expires })
            }
            other => other,
        }
    }

    /// Until when it can be used or met.
    #[must_use]
    pub const fn expires(&self) -> Option<Timestamp> {
        match self {
            Self::Pending(Pending { expires, .. }) | Self::Valid(Valid { expires, .. }) => Some(*expires),
            Self::Expired(Expired { expired }) => Some(*expired),
            Self::Invalid(_) | Self::Deactivated(_) | Self::Revoked(_) => None,
        }
    }

    /// The challenges to show (RFC 8555 §7.1.4): those offered, or the one that decided.
    #[must_use]
    pub fn challenges(&self) -> &[Challenge] {
        match self {
            Self::Pending(pending) => &pending.challenges,
            Self::Valid(Valid { basis: Basis::Challenge { challenge, .. }, .. })
            | Self::Invalid(Invalid { challenge }) => std::slice::from_ref(challenge),
            Self::Valid(_) | Self::Deactivated(_) | Self::Expired(_) | Self::Revoked(_) => &[],
        }
    }
}

impl Authorization {
    /// The state's name now.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        match self.state.expires() {
            Some(expires) if expires <= now => Status::Expired,
            _ => self.state.status(),
        }
    }

    /// What the client sees; `issuers` as for [`Challenge::object`].
    #[must_use]
    pub fn object(&self, base: &BaseUrl, now: Timestamp, issuers: &[DnsName]) -> Object {
        let Facts { id, directory, name, .. } = &self.facts;
        let state = self.state.clone().at(now);
        let token = id::token(id);
        let challenge = |challenge: &Challenge| {
            let url = Resource::Challenge(*id, challenge.method).url(base, directory);
            challenge.object(url, token.clone(), issuers)
        };
        Object {
            identifier: Identifier::in_authorization(name),
            status: state.status().as_str(),
            expires: state.expires(),
            challenges: state.challenges().iter().map(challenge).collect(),
            wildcard: name.is_wildcard(),
            subdomain_auth_allowed: id.scope().subdomains,
        }
    }
}

/// Why an authorization cannot change so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// It has no challenge of this method.
    #[error("the authorization has no such challenge")]
    NoSuchChallenge,
    /// The outcome is of a try that was given up, or never was.
    #[error("the outcome is of another try")]
    StaleAttempt,
}

impl TransitionError {
    /// A client asks for what is not there; an outcome comes too late.
    #[must_use]
    pub const fn class(self) -> pki::ErrorClass {
        match self {
            Self::NoSuchChallenge => pki::ErrorClass::Client,
            Self::StaleAttempt => pki::ErrorClass::Conflict,
        }
    }
}

/// An authorization object (RFC 8555 §7.1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The name, never with "*.".
    pub identifier: Identifier,
    /// The state's name.
    pub status: &'static str,
    /// Until when; there for pending and valid.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339::serialize")]
    pub expires: Option<Timestamp>,
    /// The challenges.
    pub challenges: Vec<challenge::Object>,
    /// There, and true, for wildcards only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wildcard: bool,
    /// There, and true, if it counts for the names below as well (RFC 9444 §4.1).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub subdomain_auth_allowed: bool,
}

/// What a client may change of an authorization (RFC 8555 §7.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Give it up.
    Deactivate,
    /// Nothing that can be changed.
    Nothing,
}

impl Update {
    /// Reads the payload; other members and states mean nothing.
    ///
    /// # Errors
    /// [`JwsError::Payload`].
    pub fn from_verified(request: &Verified<'_>) -> Result<Self, JwsError> {
        #[derive(Deserialize)]
        struct Payload {
            status: Option<String>,
        }
        let payload: Payload = request.payload_json()?;
        Ok(if payload.status.as_deref() == Some("deactivated") { Self::Deactivate } else { Self::Nothing })
    }
}

mod request;
#[cfg(test)]
mod tests;

pub use request::{NewAuthorization, NewAuthorizationError};
