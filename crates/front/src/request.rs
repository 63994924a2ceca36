//! From bytes to a request that its sender has signed (RFC 8555 §6.2 to §6.5).
//!
//! The order of the checks is deliberate: what is cheap and says most to an honest client comes first; the nonce is
//! used up only by a request that is well-formed and meant for this URL; the signature is verified before the payload
//! can be seen at all, which [`acme::jws`] enforces.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use acme::AccountUrl;
use acme::jwk::Jwk;
use acme::jws::{Jws, KeyReference, Verified};
use acme::problem::{ErrorType, Problem};
use acme::resource::{BaseUrl, Resource};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rpc::Account;
use serde::de::DeserializeOwned;

use crate::account;
use crate::directory::{Directories, Directory};
use crate::refusal::Refusal;
use crate::service::Front;

/// What a request is for, from its URL's path.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) directory: Arc<Directory>,
    pub(crate) resource: Resource,
    /// Which page of an account's orders.
    pub(crate) cursor: Option<String>,
}

impl Place {
    /// Finds the resource of a requested path.
    pub(crate) fn find(directories: &Directories, uri: &Uri) -> Result<Self, Refusal> {
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        if let Some(name) = directories.at_alias(path) {
            let directory = directories.find(name)?.ok_or(Refusal::NoDirectory)?;
            return Ok(Self { directory, resource: Resource::Directory, cursor: None });
        }
        let (path, cursor) = split_cursor(path);
        let (name, resource) = parse_path(directories.bases(), path).ok_or_else(|| {
            if !Resource::is_renewal_info_path(path) {
                return Refusal::NoResource;
            }
            let detail = "not a certificate's id: base64url(authority key identifier).base64url(serial number) (RFC 9773 §4.1)";
            Refusal::from(Problem::new(ErrorType::Malformed, detail))
        })?;
        let directory = directories.find(&name)?.ok_or(Refusal::NoDirectory)?;
        if cursor.is_some() && !matches!(resource, Resource::Orders(_)) {
            return Err(Refusal::NoResource);
        }
        // RFC 8555 §7.4.1: pre-authorization is optional.
        if matches!(resource, Resource::NewAuthorization) && !directory.pre_authorization {
            return Err(Refusal::NoResource);
        }
        Ok(Self { directory, resource, cursor: cursor.map(str::to_owned) })
    }

    /// The base URL on which this very URL was built, if it is one of this place (RFC 8555 §6.4).
    fn base_of(&self, url: &str) -> Option<BaseUrl> {
        let (bare, cursor) = split_cursor(url);
        let located = Resource::parse(&self.directory.bases, bare).ok()?;
        let same = located.resource == self.resource && located.directory == self.directory.name;
        (same && cursor == self.cursor.as_deref()).then_some(located.base)
    }
}

/// The one query that any URL of ours has: the page of an orders list.
pub(crate) const CURSOR: &str = "?cursor=";

fn split_cursor(url: &str) -> (&str, Option<&str>) {
    match url.split_once(CURSOR) {
        Some((bare, cursor)) => (bare, Some(cursor)),
        None => (url, None),
    }
}

/// Base URLs may have paths, which a proxy in between may have taken off.
fn parse_path(bases: &[BaseUrl], path: &str) -> Option<(acme::directory::DirectoryName, Resource)> {
    let prefix = |base: &BaseUrl| {
        let rest = base.as_str().strip_prefix("https://").unwrap_or_default();
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default().to_owned()
    };
    let below = bases.iter().filter_map(|base| path.strip_prefix(prefix(base).as_str()));
    below.chain([path]).find_map(|path| Resource::parse_path(path).ok())
}

/// Whose key made the signature.
#[derive(Debug)]
pub(crate) enum Caller {
    /// An account in good standing.
    Account(Arc<Account>),
    /// The key itself: newAccount, and revocation by a certificate's key.
    Key(Jwk),
}

impl Caller {
    pub(crate) fn key(&self) -> &Jwk {
        match self {
            Self::Account(account) => &account.key,
            Self::Key(key) => key,
        }
    }
}

/// A request whose signature is good, whose nonce was fresh and which was meant for this URL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) place: &'a Place,
    /// The base URL that the client uses; answers use the same.
    pub(crate) base: &'a BaseUrl,
    pub(crate) caller: &'a Caller,
    /// Where it came from: a claim, on which nothing but limits depends. None behind a trusted proxy that names nobody.
    pub(crate) client: Option<IpAddr>,
    pub(crate) verified: Verified<'a>,
}

impl<'a> Signed<'a> {
    /// The account behind the request.
    pub(crate) fn account(&self) -> Result<&'a Arc<Account>, Refusal> {
        match self.caller {
            Caller::Account(account) => Ok(account),
            Caller::Key(_) => Err(Refusal::Jws(acme::jws::JwsError::KeyReference)),
        }
    }

    /// The account's URL as the client uses it. It was resolved to [`Signed::account`].
    pub(crate) fn account_url(&self) -> Result<AccountUrl, Refusal> {
        account_url(self.jws())
    }

    /// The JWS, for the signer to judge by itself.
    pub(crate) fn jws(&self) -> &'a Jws {
        self.verified.jws()
    }

    /// The URL of another resource of the directory.
    pub(crate) fn url(&self, resource: Resource) -> String {
        resource.url(self.base, &self.place.directory.name)
    }

    /// The payload as a JSON object.
    pub(crate) fn payload<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        Ok(self.verified.payload_json()?)
    }

    /// Whether this is a POST-as-GET (RFC 8555 §6.3).
    pub(crate) fn is_post_as_get(&self) -> bool {
        self.verified.is_post_as_get()
    }

    /// Refuses everything but POST-as-GET, for resources that can only be read.
    pub(crate) fn require_post_as_get(&self) -> Result<(), Refusal> {
        if self.is_post_as_get() {
            return Ok(());
        }
        let detail = "this resource is read by POST-as-GET, with an empty payload (RFC 8555 §6.3)";
        Err(Problem::new(ErrorType::Malformed, detail).into())
    }
}

/// The `kid` of a request of an account.
pub(crate) fn account_url(jws: &Jws) -> Result<AccountUrl, Refusal> {
    match &jws.header().key {
        KeyReference::Kid(kid) => kid.parse().map_err(|_| Refusal::Jws(acme::jws::JwsError::KeyReference)),
        KeyReference::Jwk(_) => Err(Refusal::Jws(acme::jws::JwsError::KeyReference)),
    }
}

/// Reads the body of a POST, within its bounds.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    maximum_bytes: usize,
    patience: Duration,
) -> Result<Bytes, Refusal> {
    if !is_jose(headers) {
        return Err(Refusal::MediaType);
    }
    match tokio::time::timeout(patience, Limited::new(body, maximum_bytes).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(_)) => Err(Problem::new(ErrorType::Malformed, "the request's body ended too early").into()),
        Err(_) => Err(Refusal::BodyTooSlow),
    }
}

/// RFC 8555 §6.2. The type's case and its parameters do not matter (RFC 9110 §8.3.1).
fn is_jose(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/jose+json")
}

/// The base URL that the client used, if it meant this place (RFC 8555 §6.4).
pub(crate) fn check_url(place: &Place, jws: &Jws) -> Result<BaseUrl, Refusal> {
    place.base_of(&jws.header().url).ok_or_else(|| {
        let detail = "the \"url\" in the JWS is not the URL of this request (RFC 8555 §6.4)";
        Problem::new(ErrorType::Unauthorized, detail).into()
    })
}

/// Uses the nonce up (RFC 8555 §6.5).
pub(crate) async fn redeem(front: &Front, jws: &Jws) -> Result<(), Refusal> {
    let Some(nonce) = &jws.header().nonce else { return Err(Refusal::BadNonce) };
    let good = front.nonces.redeem(nonce).await;
    if good && !front.faults.refuses_nonce() { Ok(()) } else { Err(Refusal::BadNonce) }
}

/// Finds the key to verify with; which kind of reference is right depends on the resource (RFC 8555 §6.2).
pub(crate) async fn identify(front: &Front, place: &Place, jws: &Jws) -> Result<Caller, Refusal> {
    match &jws.header().key {
        KeyReference::Jwk(key) if takes_key(&place.resource) => Ok(Caller::Key(key.clone())),
        KeyReference::Kid(kid) if takes_account(&place.resource) => {
            let account = resolve(front, place, kid).await?;
            Ok(Caller::Account(account))
        }
        KeyReference::Jwk(_) | KeyReference::Kid(_) => Err(acme::jws::JwsError::KeyReference.into()),
    }
}

fn takes_key(resource: &Resource) -> bool {
    matches!(resource, Resource::NewAccount | Resource::RevokeCertificate)
}

fn takes_account(resource: &Resource) -> bool {
    !matches!(resource, Resource::NewAccount)
}

async fn resolve(front: &Front, place: &Place, kid: &str) -> Result<Arc<Account>, Refusal> {
    let located = Resource::parse(&place.directory.bases, kid).ok();
    let id = match located {
        Some(located) if located.directory == place.directory.name => match located.resource {
            Resource::Account(id) => Some(id),
            _ => None,
        },
        _ => None,
    };
    let Some(id) = id else {
        let detail = "the \"kid\" in the JWS is not the URL of an account of this directory";
        return Err(Problem::new(ErrorType::Malformed, detail).into());
    };
    let found = front.accounts.find(&front.signer, &place.directory.name, &id).await?;
    let account = found.ok_or_else(|| {
        Refusal::from(Problem::new(ErrorType::AccountDoesNotExist, "there is no account with this URL"))
    })?;
    account::require_valid(&account)?;
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_may_have_a_path_that_a_proxy_takes_off() {
        let bases: Vec<BaseUrl> =
            vec!["https://ca.example".parse().unwrap(), "https://ca.example/tls".parse().unwrap()];
        for path in ["/acme/open/directory", "/tls/acme/open/directory"] {
            let (name, resource) = parse_path(&bases, path).unwrap();
            assert_eq!((name.as_str(), resource), ("open", Resource::Directory));
        }
        for path in ["", "/", "/acme/open", "/acme/open/directory/", "/other/acme/open/directory", "*"] {
            assert!(parse_path(&bases, path).is_none(), "{path}");
        }
    }

    #[test]
    fn the_media_type_is_compared_as_http_says() {
        for (value, good) in [
            ("application/jose+json", true),
            ("APPLICATION/JOSE+JSON", true),
            ("application/jose+json; charset=utf-8", true),
            ("application/jose", false),
            ("application/json", false),
            ("application/jose+jsonx", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(is_jose(&headers), good, "{value}");
        }
        assert!(!is_jose(&HeaderMap::new()));
    }
}
