//! The directory object (RFC 8555 §7.1.1) and the names of directories.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::resource::{BaseUrl, Resource};

/// The name of a directory: what stands in its URLs. Lower-case letters, digits and inner hyphens, at most 63.
///
/// It goes into account ids and MACs, so that an object of one directory is nothing in another.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectoryName(Arc<str>);

impl DirectoryName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text cannot name a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a directory's name has 1 to 63 lower-case letters, digits and inner hyphens")]
pub struct BadDirectoryName;

impl FromStr for DirectoryName {
    type Err = BadDirectoryName;
    fn from_str(text: &str) -> Result<Self, BadDirectoryName> {
        let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let inner = !text.starts_with('-') && !text.ends_with('-');
        if (1..=63).contains(&text.len()) && letters && inner {
            Ok(Self(text.into()))
        } else {
            Err(BadDirectoryName)
        }
    }
}

impl fmt::Display for DirectoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DirectoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryName({self})")
    }
}

crate::id::serde_as_text!(DirectoryName);

/// What a client reads first (RFC 8555 §7.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// newNonce.
    pub new_nonce: String,
    /// newAccount.
    pub new_account: String,
    /// newOrder.
    pub new_order: String,
    /// newAuthz; absent when there is no pre-authorization (RFC 8555 §7.4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_authz: Option<String>,
    /// revokeCert.
    pub revoke_cert: String,
    /// keyChange.
    pub key_change: String,
    /// renewalInfo; absent when there is no renewal information (RFC 9773 §4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_info: Option<String>,
    /// What else there is to know.
    #[serde(default)]
    pub meta: Meta,
}

/// The directory's metadata (RFC 8555 §7.1.1, draft-ietf-acme-profiles §3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// The terms that a client must agree to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms_of_service: Option<String>,
    /// The CA's web site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website: Option<String>,
    /// The names that CAA records may have; lower-case A-labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caa_identities: Vec<String>,
    /// Whether newAccount needs an external account binding (RFC 8555 §7.3.4).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external_account_required: bool,
    /// Whether authorizations for the names below a domain are offered (RFC 9444 §4.4).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub subdomain_auth_allowed: bool,
    /// The profiles by name, with a description of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, String>,
}

impl Object {
    /// The object of this directory under this base URL.
    #[must_use]
    pub fn new(base: &BaseUrl, directory: &DirectoryName, pre_authorization: bool, meta: Meta) -> Self {
        let url = |resource: Resource| resource.url(base, directory);
        Self {
            new_nonce: url(Resource::NewNonce),
            new_account: url(Resource::NewAccount),
            new_order: url(Resource::NewOrder),
            new_authz: pre_authorization.then(|| url(Resource::NewAuthorization)),
            revoke_cert: url(Resource::RevokeCertificate),
            key_change: url(Resource::KeyChange),
            renewal_info: None,
            meta,
        }
    }

    /// The same, saying where renewal information is (RFC 9773 §4).
    #[must_use]
    pub fn with_renewal_info(self, base: &BaseUrl, directory: &DirectoryName) -> Self {
        Self { renewal_info: Some(Resource::renewal_info_url(base, directory)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "default", "v2-staging", "0", &"x".repeat(63)] {
            assert_eq!(good.parse::<DirectoryName>().unwrap().as_str(), good);
        }
        for bad in ["", "A", "a_b", "a/b", "a.b", "-a", "a-", "ä", "a b", "%61", &"x".repeat(64)] {
            assert_eq!(bad.parse::<DirectoryName>(), Err(BadDirectoryName), "{bad}");
        }
    }

    #[test]
    fn absent_is_absent() {
        let base = "https://ca.example".parse().unwrap();
        let name = "default".parse().unwrap();
        let object = Object::new(&base, &name, false, Meta::default());
        let expected = serde_json::json!({
            "newNonce": "https://ca.example/acme/default/new-nonce",
            "newAccount": "https://ca.example/acme/default/new-account",
            "newOrder": "https://ca.example/acme/default/new-order",
            "revokeCert": "https://ca.example/acme/default/revoke-cert",
            "keyChange": "https://ca.example/acme/default/key-change",
            "meta": {},
        });
        assert_eq!(serde_json::to_value(&object).unwrap(), expected);
        let meta = Meta {
            terms_of_service: Some("https://ca.example/tos".into()),
            website: Some("https://ca.example".into()),
            caa_identities: vec!["ca.example".into()],
            external_account_required: true,
            subdomain_auth_allowed: true,
            profiles: BTreeMap::from([("tls".into(), "90 days".into())]),
        };
        let json = serde_json::to_value(Object::new(&base, &name, true, meta)).unwrap();
        assert_eq!(json["newAuthz"], "https://ca.example/acme/default/new-authz");
        assert_eq!(
            json["meta"],
            serde_json::json!({
                "termsOfService": "https://ca.example/tos",
                "website": "https://ca.example",
                "caaIdentities": ["ca.example"],
                "externalAccountRequired": true,
                "subdomainAuthAllowed": true,
                "profiles": {"tls": "90 days"},
            })
        );
    }
}
