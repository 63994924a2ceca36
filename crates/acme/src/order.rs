//! Orders (RFC 8555 §7.1.3, §7.1.6, §7.4): facts that never change, a state that does, the client's view, the requests.
//!
//! A state's transitions consume it; the new one is saved by compare-and-swap against the version that was read.

use std::collections::BTreeMap;

use pki::{DnsName, Name, NameSet, Serial, Timestamp};
use serde::{Deserialize, Serialize};

use crate::authorization;
use crate::directory::DirectoryName;
use crate::id::{AccountId, AuthorizationId, OrderId};
use crate::identifier::Identifier;
use crate::problem::{ErrorType, Problem};
use crate::profile::ProfileName;
use crate::renewal::CertificateId;
use crate::resource::{BaseUrl, Resource};
use crate::rfc3339;

mod request;
#[cfg(test)]
mod tests;

pub use request::{Finalize, NewOrder, NewOrderError};

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What never changes.
    pub facts: Facts,
    /// What does.
    pub state: State,
}

/// What never changes of an order (RFC 8555 §7.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The id that the signer made.
    pub id: OrderId,
    /// The directory.
    pub directory: DirectoryName,
    /// The account.
    pub account: AccountId,
    /// The names.
    pub names: NameSet,
    /// The notBefore that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The notAfter that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The profile, the directory's default if the client named none.
    pub profile: ProfileName,
    /// The certificate that this one replaces (RFC 9773 §5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<CertificateId>,
    /// The authorizations: one for each name, or for a domain above it.
    pub authorizations: Vec<AuthorizationId>,
    /// For which names it is the authorization of a domain above (RFC 9444), and of which.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ancestors: BTreeMap<Name, DnsName>,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it can be finalized.
    pub expires: Timestamp,
    /// The client's newOrder JWS ([`crate::jws::Jws::to_json`]).
    pub new_order: String,
}

/// An order's state (RFC 8555 §7.1.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// Authorizations are missing.
    Pending(Pending),
    /// It can be finalized.
    Ready(Ready),
    /// The signer has it.
    Processing(Processing),
    /// The certificate is there.
    Valid(Valid),
    /// There will be no certificate.
    Invalid(Invalid),
}

/// The name of an order's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// pending
    Pending,
    /// ready
    Ready,
    /// processing
    Processing,
    /// valid
    Valid,
    /// invalid
    Invalid,
}

impl Status {
    /// The name as ACME writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Processing => "processing",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }
}

/// Authorizations are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {}

/// It can be finalized.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Why the last finalize was refused, by the client's fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Problem>,
}

/// The signer has it; whoever finds it here sends it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processing {
    /// The client's finalize JWS ([`crate::jws::Jws::to_json`]).
    pub finalize: String,
    /// Since when.
    pub since: Timestamp,
}

/// The certificate is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Valid {
    /// Its serial.
    pub serial: Serial,
}

/// There will be no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// Why.
    pub error: Problem,
}

impl Pending {
    /// Looks at the order's authorizations, as they are now (RFC 8555 §7.1.6): one status for each, whether or not it
    /// could be found.
    #[must_use]
    pub fn review(self, authorizations: &[authorization::Status]) -> State {
        match Review::of(authorizations) {
            Review::Complete => State::Ready(Ready::default()),
            Review::Incomplete => State::Pending(self),
            Review::Broken(invalid) => State::Invalid(invalid),
        }
    }
}

impl Ready {
    /// Looks at the order's authorizations again: one may have been given up since.
    #[must_use]
    pub fn review(self, authorizations: &[authorization::Status]) -> State {
        match Review::of(authorizations) {
            Review::Complete => State::Ready(self),
            Review::Incomplete => State::Pending(Pending {}),
            Review::Broken(invalid) => State::Invalid(invalid),
        }
    }

    /// The client finalizes; the request is kept, so that any front can send it again.
    #[must_use]
    pub fn finalize(self, finalize: String, now: Timestamp) -> Processing {
        Processing { finalize, since: now }
    }
}

impl Processing {
    /// The signer issued.
    #[must_use]
    pub fn issue(self, serial: Serial) -> Valid {
        Valid { serial }
    }

    /// The signer refused by the client's fault: it may finalize again (RFC 8555 §7.4).
    #[must_use]
    pub fn refuse(self, refusal: Problem) -> Ready {
        Ready { refusal: Some(refusal) }
    }

    /// The signer refused for good.
    #[must_use]
    pub fn fail(self, error: Problem) -> Invalid {
        Invalid { error }
    }
}

/// What the authorizations mean for their order.
enum Review {
    Complete,
    Incomplete,
    Broken(Invalid),
}

impl Review {
    fn of(authorizations: &[authorization::Status]) -> Self {
        use authorization::Status;
        let broken = |status: &&Status| !matches!(status, Status::Pending | Status::Valid);
        if let Some(status) = authorizations.iter().find(broken) {
            let detail = format!("an authorization of the order is {}", status.as_str());
            return Self::Broken(Invalid { error: Problem::new(ErrorType::Unauthorized, detail) });
        }
        // An order has at least one name, and so at least one authorization: none at all completes nothing.
        let complete =
            !authorizations.is_empty() && authorizations.iter().all(|status| *status == Status::Valid);
        if complete { Self::Complete } else { Self::Incomplete }
    }
}

impl State {
    /// The state's name.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Pending(_) => Status::Pending,
            Self::Ready(_) => Status::Ready,
            Self::Processing(_) => Status::Processing,
            Self::Valid(_) => Status::Valid,
            Self::Invalid(_) => Status::Invalid,
        }
    }

    /// The state as it is now. What the signer has does not expire: a certificate may be on its way.
    #[must_use]
    pub fn at(self, now: Timestamp, expires: Timestamp) -> Self {
        match self {
            Self::Pending(_) | Self::Ready(_) if expires <= now => {
                Self::Invalid(Invalid { error: Problem::new(ErrorType::Malformed, "the order has expired") })
            }
            other => other,
        }
    }

    /// The order's error, as the client sees it.
    #[must_use]
    pub const fn error(&self) -> Option<&Problem> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.error),
            Self::Ready(ready) => ready.refusal.as_ref(),
            Self::Pending(_) | Self::Processing(_) | Self::Valid(_) => None,
        }
    }
}

impl Order {
    /// What the client sees.
    #[must_use]
    pub fn object(&self, base: &BaseUrl, now: Timestamp) -> Object {
        let Facts { directory, .. } = &self.facts;
        let state = self.state.clone().at(now, self.facts.expires);
        let url = |resource: Resource| resource.url(base, directory);
        Object {
            status: state.status().as_str(),
            expires: Some(self.facts.expires),
            identifiers: self.facts.names.iter().map(Identifier::in_order).collect(),
            not_before: self.facts.not_before,
            not_after: self.facts.not_after,
            profile: self.facts.profile.clone(),
            replaces: self.facts.replaces.clone(),
            error: state.error().cloned(),
            authorizations: self
                .facts
                .authorizations
                .iter()
                .map(|id| url(Resource::Authorization(*id)))
                .collect(),
            finalize: url(Resource::Finalize(self.facts.id)),
            certificate: match &state {
                State::Valid(valid) => Some(url(Resource::Certificate(valid.serial))),
                _ => None,
            },
        }
    }
}

/// An order object (RFC 8555 §7.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The state's name.
    pub status: &'static str,
    /// Until when it can be finalized.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339::serialize")]
    pub expires: Option<Timestamp>,
    /// The names.
    pub identifiers: Vec<Identifier>,
    /// What the client asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339::serialize")]
    pub not_before: Option<Timestamp>,
    /// What the client asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339::serialize")]
    pub not_after: Option<Timestamp>,
    /// The profile (draft-ietf-acme-profiles §4).
    pub profile: ProfileName,
    /// The certificate that this one replaces (RFC 9773 §5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<CertificateId>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// URLs.
    pub authorizations: Vec<String>,
    /// URL.
    pub finalize: String,
    /// URL, when valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// An account's orders, or a page of them (RFC 8555 §7.1.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct List {
    /// URLs, none of an invalid order.
    pub orders: Vec<String>,
}
