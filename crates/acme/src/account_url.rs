//! An account's URL as a client uses it: the `kid` of its requests, and what DNS records name (RFC 8657 §3,
//! draft-ietf-acme-dns-account-label, draft-ietf-acme-dns-persist).
//!
//! It is compared octet by octet. Who says it is not believed: a signer compares it with the account's URLs.

use std::fmt;
use std::str::FromStr;

/// More than any base URL and account id of ours have.
const MAX_BYTES: usize = 512;

/// `https://…`, printable ASCII without white space.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountUrl(String);

/// The text is no account URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an account URL")]
pub struct BadAccountUrl;

impl AccountUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountUrl {
    type Err = BadAccountUrl;
    fn from_str(text: &str) -> Result<Self, BadAccountUrl> {
        let printable = text.bytes().all(|octet| octet.is_ascii_graphic());
        let rest = text.strip_prefix("https://").filter(|rest| !rest.is_empty());
        match rest {
            Some(_) if printable && text.len() <= MAX_BYTES => Ok(Self(text.to_owned())),
            _ => Err(BadAccountUrl),
        }
    }
}

impl fmt::Display for AccountUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::id::serde_as_text!(AccountUrl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_record_can_name_is_an_account_url() {
        let good = "https://ca.example/acme/open/account/abc";
        assert_eq!(good.parse::<AccountUrl>().unwrap().as_str(), good);
        let long = format!("https://ca.example/{}", "x".repeat(512));
        for bad in
            ["", "https://", "http://ca.example/a", "https://ca.example/a b", "https://cä.example/", &long]
        {
            assert_eq!(bad.parse::<AccountUrl>(), Err(BadAccountUrl), "{bad}");
        }
    }
}
