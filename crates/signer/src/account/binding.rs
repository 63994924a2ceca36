//! The external account binding that an account object shows (RFC 8555 §7.3.4).
//!
//! It is made again instead of being stored: the MAC key is derived, and the binding of a key id, an account key and a
//! URL is one and the same JWS whenever it is made.

use acme::base64url;
use acme::resource::Resource;
use aws_lc_rs::hmac;
use serde_json::json;

use super::Account;
use crate::ca::Ca;

impl Ca {
    /// The binding that the account came with; none when there was none, or when its secret is not in use any more.
    #[must_use]
    pub fn binding_of(&self, account: &Account) -> Option<String> {
        let kid = account.row.eab_kid.as_deref()?;
        let mac_key = self.secrets.eab_key(&kid.parse().ok()?)?;
        let directory = self.registry.directory(&account.row.directory.parse().ok()?)?;
        let url = Resource::NewAccount.url(directory.policy.base_urls.first()?, directory.name());
        let protected = json!({ "alg": "HS256", "kid": kid, "url": url }).to_string();
        let first_key = account.keys.iter().min_by_key(|key| key.valid_from)?;
        let (protected, payload) = (base64url::encode(protected), base64url::encode(first_key.jwk.as_json()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*mac_key);
        let signature = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
        let signature = base64url::encode(signature.as_ref());
        Some(json!({ "protected": protected, "payload": payload, "signature": signature }).to_string())
    }
}
