//! Accounts (RFC 8555 §7.1.2, §7.3): the requests, the contacts, and the client's view.

use std::fmt;

use pki::DnsName;
use serde::{Deserialize, Serialize};

use crate::eab::Binding;
use crate::jws::{JwsError, Verified};
use crate::problem::{ErrorType, Problem};

/// More than anybody has; each is a row that must be kept.
const MAX_CONTACTS: usize = 10;
/// RFC 5321 §4.5.3.1: 254 octets are the longest path that can be mailed to.
const MAX_ADDRESS_BYTES: usize = 254;

/// An account's state (RFC 8555 §7.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may act.
    Valid,
    /// The client gave it up.
    Deactivated,
    /// The CA withdrew it.
    Revoked,
}

impl Status {
    /// The name as ACME writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Deactivated => "deactivated",
            Self::Revoked => "revoked",
        }
    }
}

/// The text names no account state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an account state")]
pub struct UnknownStatus;

impl std::str::FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        let all = [Self::Valid, Self::Deactivated, Self::Revoked];
        all.into_iter().find(|known| known.as_str() == text).ok_or(UnknownStatus)
    }
}

/// An account object (RFC 8555 §7.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The state's name.
    pub status: Status,
    /// Contact URLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contact: Vec<Contact>,
    /// Whether the client agreed to the terms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub terms_of_service_agreed: bool,
    /// The verified binding (RFC 8555 §7.3.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_account_binding: Option<Binding>,
    /// URL of the list of orders.
    pub orders: String,
}

/// The payload of newAccount (RFC 8555 §7.3). `status` and `orders` in it mean nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewAccount {
    #[serde(default)]
    contact: Option<Vec<String>>,
    /// Whether the client agrees to the terms.
    #[serde(default)]
    pub terms_of_service_agreed: bool,
    /// Whether the client only looks for its account (RFC 8555 §7.3.1).
    #[serde(default)]
    pub only_return_existing: bool,
    /// The binding, not yet verified (RFC 8555 §7.3.4).
    #[serde(default)]
    pub external_account_binding: Option<Binding>,
}

impl NewAccount {
    /// Reads the payload.
    ///
    /// # Errors
    /// [`JwsError::Payload`].
    pub fn from_verified(request: &Verified<'_>) -> Result<Self, JwsError> {
        request.payload_json()
    }

    /// The contacts, judged only now: a request for an account that exists is answered whatever they are.
    ///
    /// # Errors
    /// [`ContactError`].
    pub fn contacts(&self) -> Result<Vec<Contact>, ContactError> {
        Contact::parse_all(self.contact.as_deref().unwrap_or_default())
    }
}

/// What a client may change of its account (RFC 8555 §7.3.2, §7.3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Give it up.
    Deactivate,
    /// Have these contacts, agree to the terms of the day, or both.
    Change {
        /// All of them, if they are to change.
        contacts: Option<Vec<Contact>>,
        /// RFC 8555 §7.3.3: who was asked to agree to new terms does.
        agrees: bool,
    },
    /// Nothing that can be changed: show the account.
    Nothing,
}

impl Update {
    /// Reads the payload; whatever else is in it means nothing.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn from_verified(request: &Verified<'_>) -> Result<Self, UpdateError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload {
            contact: Option<Vec<String>>,
            status: Option<String>,
            terms_of_service_agreed: Option<bool>,
        }
        let payload: Payload = request.payload_json()?;
        if payload.status.as_deref() == Some("deactivated") {
            return Ok(Self::Deactivate);
        }
        let contacts = payload.contact.as_deref().map(Contact::parse_all).transpose()?;
        let agrees = payload.terms_of_service_agreed == Some(true);
        Ok(if contacts.is_some() || agrees { Self::Change { contacts, agrees } } else { Self::Nothing })
    }
}

/// Why an account's update is refused.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The payload is not an update.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// A contact is not acceptable.
    #[error(transparent)]
    Contact(#[from] ContactError),
}

impl UpdateError {
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
            Self::Contact(error) => error.problem(),
        }
    }
}

/// A contact URL: `mailto:` and one address (RFC 8555 §7.3, RFC 6068).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Contact(String);

impl Contact {
    /// Reads one.
    ///
    /// # Errors
    /// [`ContactError`].
    pub fn parse(text: &str) -> Result<Self, ContactError> {
        let (scheme, address) = text.split_once(':').ok_or(ContactError::Invalid)?;
        if !scheme.eq_ignore_ascii_case("mailto") {
            return Err(ContactError::UnsupportedScheme);
        }
        // No header fields, no list, and no percent-encoding that could hide either (RFC 8555 §7.3).
        let (local, domain) = address.split_once('@').ok_or(ContactError::Invalid)?;
        let dot_atom = |part: &str| !part.is_empty() && part.split('.').all(|atom| !atom.is_empty());
        let atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-/=^_`{|}~.".contains(&byte);
        let good_local = local.len() <= 64 && dot_atom(local) && local.bytes().all(atext);
        let domain = DnsName::parse(domain).map_err(|_| ContactError::Invalid)?;
        if !good_local || address.len() > MAX_ADDRESS_BYTES {
            return Err(ContactError::Invalid);
        }
        Ok(Self(format!("mailto:{local}@{domain}")))
    }

    fn parse_all(texts: &[String]) -> Result<Vec<Self>, ContactError> {
        if texts.len() > MAX_CONTACTS {
            return Err(ContactError::TooMany);
        }
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Contact {
    type Err = ContactError;
    fn from_str(text: &str) -> Result<Self, ContactError> {
        Self::parse(text)
    }
}

crate::id::serde_as_text!(Contact);

/// Why a contact is refused (RFC 8555 §7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContactError {
    /// Only `mailto:` is supported.
    #[error("only mailto: contacts are supported")]
    UnsupportedScheme,
    /// Not one plain address.
    #[error("a contact must be mailto: and one plain address")]
    Invalid,
    /// More than are kept.
    #[error("an account may have {MAX_CONTACTS} contacts at most")]
    TooMany,
}

impl ContactError {
    /// The client's fault.
    #[must_use]
    pub const fn class(self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The problem document.
    #[must_use]
    pub fn problem(self) -> Problem {
        let kind = match self {
            Self::UnsupportedScheme => ErrorType::UnsupportedContact,
            Self::Invalid | Self::TooMany => ErrorType::InvalidContact,
        };
        Problem::new(kind, self.to_string())
    }
}

#[cfg(test)]
mod tests;
