//! The URL layout, shared by front and signer.
//!
//! A signer takes directory, operation and object from the URL that the client signed (RFC 8555 §6.4), so this parser
//! is a security boundary: a URL is compared octet by octet with what [`Resource::url`] would have built. Nothing is
//! normalised: no case, no percent-encoding, no default port, no trailing slash, no query.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pki::Serial;

use crate::challenge::Method;
use crate::directory::DirectoryName;
use crate::id::{AccountId, AuthorizationId, OrderId};
use crate::renewal::CertificateId;

/// `https://host[:port][/path]`, without a slash at the end: what stands before `/acme/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BaseUrl(Arc<str>);

impl BaseUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no base URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a base URL is https://host[:port][/path] in its normal form, without a slash at the end")]
pub struct BadBaseUrl;

impl FromStr for BaseUrl {
    type Err = BadBaseUrl;
    fn from_str(text: &str) -> Result<Self, BadBaseUrl> {
        let url = url::Url::parse(text).map_err(|_| BadBaseUrl)?;
        // RFC 8555 §6.1: HTTPS only. The normal form is what clients' libraries make of it before they sign.
        let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
        let normal = url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
        let ends = url.query().is_none() && url.fragment().is_none() && !text.ends_with('/');
        if plain && normal && ends { Ok(Self(text.into())) } else { Err(BadBaseUrl) }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({self})")
    }
}

crate::id::serde_as_text!(BaseUrl);

/// A resource of a directory (RFC 8555 §7.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `directory`
    Directory,
    /// `new-nonce`
    NewNonce,
    /// `new-account`
    NewAccount,
    /// `new-order`
    NewOrder,
    /// `new-authz`
    NewAuthorization,
    /// `revoke-cert`
    RevokeCertificate,
    /// `key-change`
    KeyChange,
    /// `account/{id}`
    Account(AccountId),
    /// `account/{id}/orders`
    Orders(AccountId),
    /// `order/{id}`
    Order(OrderId),
    /// `order/{id}/finalize`
    Finalize(OrderId),
    /// `authorization/{id}`
    Authorization(AuthorizationId),
    /// `challenge/{authorization id}/{method}`
    Challenge(AuthorizationId, Method),
    /// `certificate/{serial}`
    Certificate(Serial),
    /// `certificate/{serial}/{number}`: the same with another chain, numbered from 1 (RFC 8555 §7.4.2).
    AlternateCertificate(Serial, u8),
    /// `renewal-info/{certificate's id}` (RFC 9773 §4.1)
    RenewalInfo(CertificateId),
}

/// A URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The base URL that it was built on.
    pub base: BaseUrl,
    /// The directory.
    pub directory: DirectoryName,
    /// The resource.
    pub resource: Resource,
}

impl Located {
    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.resource.url(&self.base, &self.directory)
    }
}

/// The URL is none of this server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL is none of this server's")]
pub struct UnknownUrl;

impl Resource {
    /// Takes an absolute URL apart that was built on one of `bases`.
    ///
    /// # Errors
    /// [`UnknownUrl`] for every text that [`Resource::url`] would not have built, octet by octet.
    pub fn parse(bases: &[BaseUrl], url: &str) -> Result<Located, UnknownUrl> {
        // Bases can be prefixes of each other; at most one leaves a path of the layout, for that begins with `/acme/`
        // and has nothing more of the kind.
        bases
            .iter()
            .find_map(|base| {
                let (directory, resource) = Self::parse_path(url.strip_prefix(base.as_str())?).ok()?;
                Some(Located { base: base.clone(), directory, resource })
            })
            .ok_or(UnknownUrl)
    }

    /// Takes a path apart that begins with `/acme/`.
    ///
    /// # Errors
    /// As [`Resource::parse`].
    pub fn parse_path(path: &str) -> Result<(DirectoryName, Self), UnknownUrl> {
        let (directory, rest) =
            path.strip_prefix("/acme/").and_then(|rest| rest.split_once('/')).ok_or(UnknownUrl)?;
        let directory = directory.parse().map_err(|_| UnknownUrl)?;
        let segments: Vec<&str> = rest.splitn(4, '/').collect();
        let resource = Self::from_segments(&segments).ok_or(UnknownUrl)?;
        Ok((directory, resource))
    }

    fn from_segments(segments: &[&str]) -> Option<Self> {
        match *segments {
            ["directory"] => Some(Self::Directory),
            ["new-nonce"] => Some(Self::NewNonce),
            ["new-account"] => Some(Self::NewAccount),
            ["new-order"] => Some(Self::NewOrder),
            ["new-authz"] => Some(Self::NewAuthorization),
            ["revoke-cert"] => Some(Self::RevokeCertificate),
            ["key-change"] => Some(Self::KeyChange),
            ["account", id] => Some(Self::Account(id.parse().ok()?)),
            ["account", id, "orders"] => Some(Self::Orders(id.parse().ok()?)),
            ["order", id] => Some(Self::Order(id.parse().ok()?)),
            ["order", id, "finalize"] => Some(Self::Finalize(id.parse().ok()?)),
            ["authorization", id] => Some(Self::Authorization(id.parse().ok()?)),
            ["challenge", id, method] => Some(Self::Challenge(id.parse().ok()?, method.parse().ok()?)),
            ["certificate", serial] => Some(Self::Certificate(Serial::from_hex(serial).ok()?)),
            ["certificate", serial, number] => {
                let chain: u8 = number.parse().ok().filter(|chain| *chain > 0)?;
                // Neither `+1` nor `01`.
                let serial = Serial::from_hex(serial).ok().filter(|_| chain.to_string() == number)?;
                Some(Self::AlternateCertificate(serial, chain))
            }
            [RENEWAL_INFO, id] => Some(Self::RenewalInfo(id.parse().ok()?)),
            _ => None,
        }
    }

    /// The path, from `/acme/` on.
    #[must_use]
    pub fn path(&self, directory: &DirectoryName) -> String {
        match self {
            Self::Directory => format!("/acme/{directory}/directory"),
            Self::NewNonce => format!("/acme/{directory}/new-nonce"),
            Self::NewAccount => format!("/acme/{directory}/new-account"),
            Self::NewOrder => format!("/acme/{directory}/new-order"),
            Self::NewAuthorization => format!("/acme/{directory}/new-authz"),
            Self::RevokeCertificate => format!("/acme/{directory}/revoke-cert"),
            Self::KeyChange => format!("/acme/{directory}/key-change"),
            Self::Account(id) => format!("/acme/{directory}/account/{id}"),
            Self::Orders(id) => format!("/acme/{directory}/account/{id}/orders"),
            Self::Order(id) => format!("/acme/{directory}/order/{id}"),
            Self::Finalize(id) => format!("/acme/{directory}/order/{id}/finalize"),
            Self::Authorization(id) => format!("/acme/{directory}/authorization/{id}"),
            Self::Challenge(id, method) => format!("/acme/{directory}/challenge/{id}/{method}"),
            Self::Certificate(serial) => format!("/acme/{directory}/certificate/{serial}"),
            Self::AlternateCertificate(serial, number) => {
                format!("/acme/{directory}/certificate/{serial}/{number}")
            }
            Self::RenewalInfo(id) => format!("/acme/{directory}/{RENEWAL_INFO}/{id}"),
        }
    }

    /// The absolute URL.
    #[must_use]
    pub fn url(&self, base: &BaseUrl, directory: &DirectoryName) -> String {
        format!("{base}{}", self.path(directory))
    }

    /// What stands in the directory as `renewalInfo`: clients append `/` and a certificate's id (RFC 9773 §4.1).
    #[must_use]
    pub fn renewal_info_url(base: &BaseUrl, directory: &DirectoryName) -> String {
        format!("{base}/acme/{directory}/{RENEWAL_INFO}")
    }

    /// Whether a path is meant for [`Resource::RenewalInfo`], be its id one or not.
    #[must_use]
    pub fn is_renewal_info_path(path: &str) -> bool {
        let rest = path.split_once("/acme/").and_then(|(_, rest)| rest.split_once('/'));
        rest.is_some_and(|(_, rest)| rest.strip_prefix(RENEWAL_INFO).is_some_and(|id| id.starts_with('/')))
    }
}

const RENEWAL_INFO: &str = "renewal-info";

#[cfg(test)]
mod tests;
