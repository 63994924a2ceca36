//! Messages as the values they stand for: what comes from the wire is parsed once, here, into types that cannot hold a
//! bad value.

use std::str::FromStr;

use acme::{
    AccountId, AccountUrl, AuthorizationId, DirectoryName, Jwk, OrderId, ProfileName, Thumbprint, account,
    challenge::Method,
    limit::{Limits, Rate},
    renewal::CertificateId,
};
use bytes::Bytes;
use pki::{DnsName, ErrorClass, Name, Timestamp};
use tonic::Status;

use crate::{
    proto::{signer::v1 as signer, validator::v1 as validator},
    refusal,
};

/// A field of a message that does not hold what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field {field} of the message is missing or malformed")]
pub struct ConvertError {
    /// Which.
    pub field: &'static str,
}

impl ConvertError {
    /// A peer of another mind than ours: what it sent is its fault.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Client
    }
}

impl From<ConvertError> for Status {
    fn from(error: ConvertError) -> Self {
        refusal::failure(error.class(), error.to_string())
    }
}

impl From<&Name> for signer::Identifier {
    fn from(name: &Name) -> Self {
        let (r#type, value, wildcard) = parts(name);
        Self { r#type, value, wildcard }
    }
}

impl TryFrom<signer::Identifier> for Name {
    type Error = ConvertError;

    fn try_from(wire: signer::Identifier) -> Result<Self, ConvertError> {
        name("identifier", &wire.r#type, &wire.value, wire.wildcard)
    }
}

/// Why an account may have a name: as a front keeps it and a signer judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The name.
    pub name: Name,
    /// The signer's own id.
    pub authorization: AuthorizationId,
    /// The digest of the request for which the signer made that id.
    pub created_by: [u8; 32],
    /// The perspectives' receipts, compact JWSs; none for a granted name.
    pub receipts: Vec<String>,
    /// The domain that the authorization is for, where that is one above the name (RFC 9444).
    pub ancestor: Option<DnsName>,
}

impl Evidence {
    /// The name that the authorization is for.
    #[must_use]
    pub fn authorized(&self) -> Name {
        self.ancestor.clone().map_or_else(|| self.name.clone(), Name::Dns)
    }
}

impl From<Evidence> for signer::AuthorizationEvidence {
    fn from(evidence: Evidence) -> Self {
        Self {
            identifier: Some((&evidence.name).into()),
            authorization_id: evidence.authorization.to_string(),
            created_by_digest: Bytes::copy_from_slice(&evidence.created_by),
            receipts: evidence.receipts,
            ancestor: evidence.ancestor.map(|ancestor| (&Name::Dns(ancestor)).into()),
        }
    }
}

impl TryFrom<signer::AuthorizationEvidence> for Evidence {
    type Error = ConvertError;

    fn try_from(wire: signer::AuthorizationEvidence) -> Result<Self, ConvertError> {
        Ok(Self {
            name: wire.identifier.ok_or(ConvertError { field: "identifier" })?.try_into()?,
            authorization: text("authorization_id", &wire.authorization_id)?,
            created_by: digest("created_by_digest", &wire.created_by_digest)?,
            receipts: wire.receipts,
            ancestor: wire.ancestor.map(ancestor).transpose()?,
        })
    }
}

/// The signer's answer to a newOrder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedOrder {
    /// The order's id.
    pub order: OrderId,
    /// Whose order it is.
    pub account: AccountId,
    /// In which directory.
    pub directory: DirectoryName,
    /// The profile of the certificate.
    pub profile: ProfileName,
    /// The certificate that it replaces (RFC 9773 §5).
    pub replaces: Option<CertificateId>,
    /// When the order ends.
    pub expires: Timestamp,
    /// Each name of the order.
    pub names: Vec<AuthorizedName>,
    /// What fronts count for the account.
    pub limits: Limits,
    /// Whether the order is exempt from those of orders.
    pub limits_exempt: bool,
}

/// One name of an authorized order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedName {
    /// The name.
    pub name: Name,
    /// Its authorization's id, for granted names as well.
    pub authorization: AuthorizationId,
    /// The grant that makes a challenge unnecessary.
    pub grant: Option<String>,
    /// When the authorization ends.
    pub expires: Timestamp,
    /// The domain that the authorization is for, where that is one above the name (RFC 9444).
    pub ancestor: Option<DnsName>,
}

impl AuthorizedName {
    /// The name that the authorization is for.
    #[must_use]
    pub fn authorized(&self) -> Name {
        self.ancestor.clone().map_or_else(|| self.name.clone(), Name::Dns)
    }
}

/// The signer's answer to a newAuthz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedIdentifier {
    /// Whose it is.
    pub account: AccountId,
    /// In which directory.
    pub directory: DirectoryName,
    /// The name and its authorization.
    pub name: AuthorizedName,
    /// What fronts count for the account.
    pub limits: Limits,
}

impl From<AuthorizedIdentifier> for signer::AuthorizeIdentifierResponse {
    fn from(authorized: AuthorizedIdentifier) -> Self {
        Self {
            account_id: authorized.account.to_string(),
            directory: authorized.directory.to_string(),
            name: Some(authorized.name.into()),
            limits: Some(limits_message(&authorized.limits)),
        }
    }
}

impl TryFrom<signer::AuthorizeIdentifierResponse> for AuthorizedIdentifier {
    type Error = ConvertError;

    fn try_from(wire: signer::AuthorizeIdentifierResponse) -> Result<Self, ConvertError> {
        Ok(Self {
            account: text("account_id", &wire.account_id)?,
            directory: text("directory", &wire.directory)?,
            name: wire.name.ok_or(ConvertError { field: "name" })?.try_into()?,
            limits: limits(wire.limits.as_ref())?,
        })
    }
}

impl From<AuthorizedOrder> for signer::AuthorizeOrderResponse {
    fn from(order: AuthorizedOrder) -> Self {
        Self {
            order_id: order.order.to_string(),
            account_id: order.account.to_string(),
            directory: order.directory.to_string(),
            profile: order.profile.to_string(),
            replaces: order.replaces.as_ref().map(ToString::to_string).unwrap_or_default(),
            expires: seconds(order.expires),
            names: order.names.into_iter().map(Into::into).collect(),
            limits: Some(limits_message(&order.limits)),
            limits_exempt: order.limits_exempt,
        }
    }
}

impl TryFrom<signer::AuthorizeOrderResponse> for AuthorizedOrder {
    type Error = ConvertError;

    fn try_from(wire: signer::AuthorizeOrderResponse) -> Result<Self, ConvertError> {
        Ok(Self {
            order: text("order_id", &wire.order_id)?,
            account: text("account_id", &wire.account_id)?,
            directory: text("directory", &wire.directory)?,
            profile: text("profile", &wire.profile)?,
            replaces: match wire.replaces.as_str() {
                "" => None,
                replaces => Some(text("replaces", replaces)?),
            },
            expires: timestamp("expires", wire.expires)?,
            names: wire.names.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            limits: limits(wire.limits.as_ref())?,
            limits_exempt: wire.limits_exempt,
        })
    }
}

impl From<AuthorizedName> for signer::AuthorizedName {
    fn from(name: AuthorizedName) -> Self {
        use signer::authorized_name::Authority;
        Self {
            identifier: Some((&name.name).into()),
            authorization_id: name.authorization.to_string(),
            expires: seconds(name.expires),
            ancestor: name.ancestor.map(|ancestor| (&Name::Dns(ancestor)).into()),
            authority: Some(match name.grant {
                Some(grant) => Authority::GrantId(grant),
                None => Authority::Challenge(true),
            }),
        }
    }
}

impl TryFrom<signer::AuthorizedName> for AuthorizedName {
    type Error = ConvertError;

    fn try_from(wire: signer::AuthorizedName) -> Result<Self, ConvertError> {
        use signer::authorized_name::Authority;
        Ok(Self {
            name: wire.identifier.ok_or(ConvertError { field: "identifier" })?.try_into()?,
            authorization: text("authorization_id", &wire.authorization_id)?,
            expires: timestamp("expires", wire.expires)?,
            ancestor: wire.ancestor.map(ancestor).transpose()?,
            grant: match wire.authority {
                Some(Authority::GrantId(grant)) if !grant.is_empty() => Some(grant),
                Some(Authority::Challenge(true)) => None,
                _ => return Err(ConvertError { field: "authority" }),
            },
        })
    }
}

/// An account as fronts need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its directory.
    pub directory: DirectoryName,
    /// Whether it may act.
    pub status: account::Status,
    /// Contact URLs.
    pub contacts: Vec<String>,
    /// Whether the client agreed.
    pub terms_of_service_agreed: bool,
    /// The current key.
    pub key: Jwk,
    /// The verified binding as the client sent it, JSON.
    pub external_account_binding: Option<String>,
    /// Rises with each change.
    pub version: u64,
}

impl From<Account> for signer::Account {
    fn from(account: Account) -> Self {
        Self {
            id: account.id.to_string(),
            directory: account.directory.to_string(),
            status: account.status.as_str().to_owned(),
            contacts: account.contacts,
            terms_of_service_agreed: account.terms_of_service_agreed,
            jwk: account.key.to_json(),
            external_account_binding: account.external_account_binding.unwrap_or_default(),
            version: account.version,
        }
    }
}

impl TryFrom<signer::Account> for Account {
    type Error = ConvertError;

    fn try_from(wire: signer::Account) -> Result<Self, ConvertError> {
        Ok(Self {
            id: text("id", &wire.id)?,
            directory: text("directory", &wire.directory)?,
            status: text("status", &wire.status)?,
            contacts: wire.contacts,
            terms_of_service_agreed: wire.terms_of_service_agreed,
            key: text("jwk", &wire.jwk)?,
            external_account_binding: Some(wire.external_account_binding).filter(|json| !json.is_empty()),
            version: wire.version,
        })
    }
}

/// What a validator is to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which authorization; the token follows from it.
    pub authorization: AuthorizationId,
    /// Of which directory.
    pub directory: DirectoryName,
    /// Of which account.
    pub account: AccountId,
    /// That account's URL as the client uses it.
    pub account_url: AccountUrl,
    /// That account's key.
    pub thumbprint: Thumbprint,
    /// The name.
    pub name: Name,
    /// How.
    pub method: Method,
    /// The client's try, from 1.
    pub attempt: u32,
    /// By which names CAA records refer to this CA; empty: CAA is not asked.
    pub caa_identities: Vec<DnsName>,
    /// Whether CAA alone is asked.
    pub caa_only: bool,
}

/// More than any CA has.
const MAXIMUM_CAA_IDENTITIES: usize = 10;

impl From<&Target> for validator::Target {
    fn from(target: &Target) -> Self {
        let (identifier_type, identifier_value, wildcard) = parts(&target.name);
        Self {
            authorization_id: target.authorization.to_string(),
            directory: target.directory.to_string(),
            account_id: target.account.to_string(),
            account_url: target.account_url.to_string(),
            key_thumbprint: target.thumbprint.to_string(),
            identifier_type,
            identifier_value,
            wildcard,
            method: target.method.to_string(),
            attempt: target.attempt,
            caa_identities: target.caa_identities.iter().map(ToString::to_string).collect(),
            caa_only: target.caa_only,
        }
    }
}

impl TryFrom<validator::Target> for Target {
    type Error = ConvertError;

    fn try_from(wire: validator::Target) -> Result<Self, ConvertError> {
        if wire.attempt == 0 {
            return Err(ConvertError { field: "attempt" });
        }
        Ok(Self {
            authorization: text("authorization_id", &wire.authorization_id)?,
            directory: text("directory", &wire.directory)?,
            account: text("account_id", &wire.account_id)?,
            account_url: text("account_url", &wire.account_url)?,
            thumbprint: text("key_thumbprint", &wire.key_thumbprint)?,
            name: name("identifier", &wire.identifier_type, &wire.identifier_value, wire.wildcard)?,
            method: text("method", &wire.method)?,
            attempt: wire.attempt,
            caa_identities: identities(&wire.caa_identities)?,
            caa_only: wire.caa_only,
        })
    }
}

/// The limits that fronts count, as messages have them.
#[must_use]
pub fn limits_message(limits: &Limits) -> signer::Limits {
    let text = |rate: Option<Rate>| rate.map(|rate| rate.to_string()).unwrap_or_default();
    signer::Limits {
        failed_validations: text(limits.failed_validations),
        accounts_per_address: text(limits.accounts_per_address),
        orders_per_account: text(limits.orders_per_account),
        failures_until_paused: text(limits.failures_until_paused),
    }
}

/// The limits of a message; those that signers count themselves are not in it.
///
/// # Errors
/// When one cannot be read.
pub fn limits(wire: Option<&signer::Limits>) -> Result<Limits, ConvertError> {
    let Some(wire) = wire else { return Ok(Limits::default()) };
    let rate = |field, value: &str| if value.is_empty() { Ok(None) } else { text(field, value).map(Some) };
    Ok(Limits {
        failed_validations: rate("failed_validations", &wire.failed_validations)?,
        accounts_per_address: rate("accounts_per_address", &wire.accounts_per_address)?,
        orders_per_account: rate("orders_per_account", &wire.orders_per_account)?,
        failures_until_paused: rate("failures_until_paused", &wire.failures_until_paused)?,
        ..Limits::default()
    })
}

fn identities(names: &[String]) -> Result<Vec<DnsName>, ConvertError> {
    const FIELD: &str = "caa_identities";
    if names.len() > MAXIMUM_CAA_IDENTITIES {
        return Err(ConvertError { field: FIELD });
    }
    // One spelling only.
    let parsed = names.iter().map(|name| text::<DnsName>(FIELD, name).map(|parsed| (name, parsed)));
    parsed
        .map(|one| match one? {
            (name, parsed) if parsed.as_str() == name => Ok(parsed),
            _ => Err(ConvertError { field: FIELD }),
        })
        .collect()
}

/// Seconds since the epoch, as messages have them.
pub fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.unix()).unwrap_or(i64::MAX)
}

/// A time of a message.
///
/// # Errors
/// When it lies before the epoch.
pub fn timestamp(field: &'static str, seconds: i64) -> Result<Timestamp, ConvertError> {
    u64::try_from(seconds).map(Timestamp::from_unix).map_err(|_| ConvertError { field })
}

/// A SHA-256 of a message.
///
/// # Errors
/// When it does not have 32 bytes.
pub fn digest(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], ConvertError> {
    bytes.try_into().map_err(|_| ConvertError { field })
}

fn text<T: FromStr>(field: &'static str, text: &str) -> Result<T, ConvertError> {
    text.parse().map_err(|_| ConvertError { field })
}

/// A plain DNS name; nothing else is above another name.
fn ancestor(wire: signer::Identifier) -> Result<DnsName, ConvertError> {
    match Name::try_from(wire) {
        Ok(Name::Dns(ancestor)) => Ok(ancestor),
        _ => Err(ConvertError { field: "ancestor" }),
    }
}

fn parts(name: &Name) -> (String, String, bool) {
    match name {
        Name::Dns(base) => (DNS.to_owned(), base.to_string(), false),
        Name::Wildcard(base) => (DNS.to_owned(), base.to_string(), true),
        Name::Ip(address) => (IP.to_owned(), address.to_string(), false),
    }
}

fn name(field: &'static str, kind: &str, value: &str, wildcard: bool) -> Result<Name, ConvertError> {
    let parsed = match (kind, wildcard) {
        (DNS, true) => Name::parse_dns(&format!("*.{value}")),
        (DNS, false) => Name::parse_dns(value),
        (IP, false) => Name::parse_ip(value),
        _ => return Err(ConvertError { field }),
    };
    // One spelling only: what was written is what was parsed, and "*." is in the flag alone.
    parsed.ok().filter(|name| parts(name).1 == value).ok_or(ConvertError { field })
}

const DNS: &str = "dns";
const IP: &str = "ip";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for text in ["example.org", "*.example.org", "192.0.2.1", "2001:db8::1"] {
            let name: Name = text.parse().unwrap();
            assert_eq!(Name::try_from(signer::Identifier::from(&name)), Ok(name));
        }
        let wire = |kind: &str, value: &str, wildcard| signer::Identifier {
            r#type: kind.to_owned(),
            value: value.to_owned(),
            wildcard,
        };
        for bad in [
            wire("dns", "*.example.org", false),
            wire("dns", "*.example.org", true),
            wire("dns", "EXAMPLE.org", false),
            wire("ip", "192.0.2.1", true),
            wire("ip", "2001:0db8::1", false),
            wire("dns", "192.0.2.1", false),
            wire("uri", "example.org", false),
            wire("dns", "", false),
        ] {
            assert_eq!(Name::try_from(bad.clone()), Err(ConvertError { field: "identifier" }), "{bad:?}");
        }
    }

    #[test]
    fn a_digest_of_another_length_is_refused() {
        assert!(digest("d", &[0; 32]).is_ok());
        assert_eq!(digest("d", &[0; 31]), Err(ConvertError { field: "d" }));
        assert_eq!(timestamp("t", -1), Err(ConvertError { field: "t" }));
    }
}
