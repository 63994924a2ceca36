//! Orders (RFC 8555 §7.1.3, §7.1.6, §7.4): the request, facts that never change, a state that does, the client's view.
//!
//! A state's transitions consume it; the new one is saved by compare-and-swap against the version that was read.

use pki::{Name, NameSet, Serial, Timestamp};
use serde::{Deserialize, Serialize};

use crate::authorization;
use crate::base64url;
use crate::directory::DirectoryName;
use crate::id::{AccountId, AuthorizationId, OrderId};
use crate::identifier::Identifier;
use crate::jws::{JwsError, Verified};
use crate::problem::{ErrorType, Problem, Subproblem};
use crate::profile::ProfileName;
use crate::resource::{BaseUrl, Resource};
use crate::rfc3339;

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
    pub replaces: Option<String>,
    /// The authorizations, one for each name.
    pub authorizations: Vec<AuthorizationId>,
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
    /// Looks at all authorizations of the order, as they are now (RFC 8555 §7.1.6).
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
    /// Looks at all authorizations of the order again: one may have been given up since.
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
    pub replaces: Option<String>,
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

/// The payload of newOrder, judged (RFC 8555 §7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// The names, duplicates merged.
    pub names: NameSet,
    /// To be honoured exactly, or refused.
    pub not_before: Option<Timestamp>,
    /// To be honoured exactly, or refused.
    pub not_after: Option<Timestamp>,
    /// As the client wrote it; `invalidProfile` is the directory's to say.
    pub profile: Option<String>,
    /// The certificate to be replaced (RFC 9773 §5).
    pub replaces: Option<String>,
}

impl NewOrder {
    /// Reads the payload. `maximum_names` counts distinct names.
    ///
    /// # Errors
    /// [`NewOrderError`], with all bad names at once.
    pub fn from_verified(request: &Verified<'_>, maximum_names: usize) -> Result<Self, NewOrderError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload {
            #[serde(default)]
            identifiers: Vec<Identifier>,
            not_before: Option<String>,
            not_after: Option<String>,
            profile: Option<String>,
            replaces: Option<String>,
            #[serde(rename = "auto-renewal")]
            auto_renewal: Option<serde::de::IgnoredAny>,
        }
        let payload: Payload = request.payload_json()?;
        // RFC 8739 §3.1.1: whoever asks for it must not get a plain certificate.
        if payload.auto_renewal.is_some() {
            return Err(NewOrderError::AutoRenewal);
        }
        let time = |name, text: Option<String>| {
            text.map(|text| rfc3339::parse(&text).map_err(|_| NewOrderError::Time(name))).transpose()
        };
        let not_before = time("notBefore", payload.not_before)?;
        let not_after = time("notAfter", payload.not_after)?;
        if not_before.zip(not_after).is_some_and(|(before, after)| after <= before) {
            return Err(NewOrderError::Period);
        }
        let names = read_names(&payload.identifiers, maximum_names)?;
        Ok(Self { names, not_before, not_after, profile: payload.profile, replaces: payload.replaces })
    }
}

fn read_names(identifiers: &[Identifier], maximum: usize) -> Result<NameSet, NewOrderError> {
    let (mut names, mut refused): (Vec<Name>, Vec<Subproblem>) = (Vec::new(), Vec::new());
    for identifier in identifiers {
        match identifier.to_name() {
            Ok(name) => names.push(name),
            Err(error) => refused.push(identifier.refused(&error)),
        }
    }
    // A thousand bad names need not all be shown.
    refused.truncate(maximum.max(1));
    if let Some(problem) = Problem::from_subproblems(refused) {
        return Err(NewOrderError::Identifiers(Box::new(problem)));
    }
    let names = NameSet::new(names).map_err(|_| NewOrderError::NoIdentifiers)?;
    if names.len() > maximum {
        return Err(NewOrderError::TooManyIdentifiers { maximum });
    }
    Ok(names)
}

/// Why a newOrder is refused.
#[derive(Debug, thiserror::Error)]
pub enum NewOrderError {
    /// The payload is not a newOrder.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// There are no identifiers.
    #[error("an order needs at least one identifier")]
    NoIdentifiers,
    /// There are too many.
    #[error("an order may have {maximum} identifiers at most")]
    TooManyIdentifiers {
        /// How many there may be.
        maximum: usize,
    },
    /// Some are bad; the problem names each.
    #[error("{0}")]
    Identifiers(Box<Problem>),
    /// A time is not one that a certificate can say.
    #[error("{0} is not an RFC 3339 time of whole seconds")]
    Time(&'static str),
    /// The end is not after the beginning.
    #[error("notAfter is not after notBefore")]
    Period,
    /// Short-term automatic renewal is not offered (RFC 8739).
    #[error("auto-renewal is not supported")]
    AutoRenewal,
}

impl NewOrderError {
    /// The client's fault.
    #[must_use]
    pub const fn class(&self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The problem document (RFC 8555 §6.7).
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Jws(error) => error.problem(),
            Self::Identifiers(problem) => (**problem).clone(),
            Self::NoIdentifiers
            | Self::TooManyIdentifiers { .. }
            | Self::Time(_)
            | Self::Period
            | Self::AutoRenewal => Problem::new(ErrorType::Malformed, self.to_string()),
        }
    }
}

/// The payload of finalize (RFC 8555 §7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalize {
    /// The CSR, DER, as yet unjudged: [`pki::Csr::from_der`].
    pub csr: Vec<u8>,
}

impl Finalize {
    /// Reads the payload.
    ///
    /// # Errors
    /// [`JwsError::Payload`], [`JwsError::Base64`].
    pub fn from_verified(request: &Verified<'_>) -> Result<Self, JwsError> {
        #[derive(Deserialize)]
        struct Payload {
            csr: String,
        }
        let payload: Payload = request.payload_json()?;
        let csr = base64url::decode(&payload.csr).map_err(|_| JwsError::Base64("csr"))?;
        Ok(Self { csr })
    }
}
