//! An ACME client, as far as a signer sees one.

use acme::base64url::encode;
use acme::{AccountId, Jwk, Thumbprint};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::BASE;

pub(crate) struct Client {
    pub(crate) directory: String,
    pub(crate) account: Option<AccountId>,
    pub(crate) base: String,
    key: EcdsaKeyPair,
}

impl Client {
    pub(crate) fn new(directory: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { directory: directory.to_owned(), account: None, base: BASE.to_owned(), key }
    }

    /// Another client's words with this one's key: the same account, if it is told so.
    pub(crate) fn of_account(mut self, account: AccountId) -> Self {
        self.account = Some(account);
        self
    }

    /// The same key in another directory.
    pub(crate) fn moved_to(mut self, directory: &str) -> Self {
        directory.clone_into(&mut self.directory);
        self.account = None;
        self
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    pub(crate) fn thumbprint(&self) -> Thumbprint {
        Jwk::from_json(&self.jwk().to_string()).unwrap().thumbprint()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/acme/{}/{path}", self.base, self.directory)
    }

    pub(crate) fn account_url(&self) -> String {
        self.url(&format!("account/{}", self.account.unwrap()))
    }

    /// A request signed with the account's key.
    pub(crate) fn request(&self, path: &str, payload: &Value) -> Vec<u8> {
        self.request_to(&self.url(path), payload)
    }

    pub(crate) fn request_to(&self, url: &str, payload: &Value) -> Vec<u8> {
        let header = json!({ "alg": "ES256", "kid": self.account_url(), "nonce": nonce(), "url": url });
        self.sign(&header, &payload.to_string())
    }

    /// A request signed with the key itself.
    pub(crate) fn request_with_jwk(&self, path: &str, payload: &Value) -> Vec<u8> {
        let header = json!({ "alg": "ES256", "jwk": self.jwk(), "nonce": nonce(), "url": self.url(path) });
        self.sign(&header, &payload.to_string())
    }

    pub(crate) fn sign(&self, header: &Value, payload: &str) -> Vec<u8> {
        let (protected, payload) = (encode(header.to_string()), encode(payload));
        let message = format!("{protected}.{payload}");
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        json!({ "protected": protected, "payload": payload, "signature": encode(signature.as_ref()) })
            .to_string()
            .into_bytes()
    }

    pub(crate) fn new_account(&self) -> Vec<u8> {
        self.new_account_with(
            &json!({ "contact": ["mailto:admin@example.org"], "termsOfServiceAgreed": true }),
        )
    }

    pub(crate) fn new_account_with(&self, payload: &Value) -> Vec<u8> {
        self.request_with_jwk("new-account", payload)
    }

    pub(crate) fn new_account_with_eab(&self, kid: &str, key: &[u8]) -> Vec<u8> {
        self.new_account_with(&json!({ "externalAccountBinding": self.binding(kid, key) }))
    }

    pub(crate) fn binding(&self, kid: &str, key: &[u8]) -> Value {
        let header = json!({ "alg": "HS256", "kid": kid, "url": self.url("new-account") });
        let (protected, payload) = (encode(header.to_string()), encode(self.jwk().to_string()));
        let mac =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), format!("{protected}.{payload}").as_bytes());
        json!({ "protected": protected, "payload": payload, "signature": encode(mac.as_ref()) })
    }

    pub(crate) fn new_order(&self, names: &[&str]) -> Vec<u8> {
        self.new_order_with(names, json!({}))
    }

    pub(crate) fn new_order_with(&self, names: &[&str], mut payload: Value) -> Vec<u8> {
        let identifier = |name: &&str| {
            let kind = if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
            json!({ "type": kind, "value": name })
        };
        payload["identifiers"] = names.iter().map(identifier).collect();
        self.request("new-order", &payload)
    }

    pub(crate) fn new_authorization(&self, identifier: &Value) -> Vec<u8> {
        self.request("new-authz", &json!({ "identifier": identifier }))
    }

    /// The request that gives an authorization up.
    pub(crate) fn deactivation(&self, authorization: &acme::AuthorizationId) -> Vec<u8> {
        self.request(&format!("authorization/{authorization}"), &json!({ "status": "deactivated" }))
    }

    pub(crate) fn finalize(&self, order: &str, csr: &[u8]) -> Vec<u8> {
        self.request(&format!("order/{order}/finalize"), &json!({ "csr": encode(csr) }))
    }

    pub(crate) fn update(&self, payload: &Value) -> Vec<u8> {
        self.request_to(&self.account_url(), payload)
    }

    /// keyChange from this key to the other client's.
    pub(crate) fn key_change(&self, new: &Client) -> Vec<u8> {
        self.key_change_with(new, &json!({ "account": self.account_url(), "oldKey": self.jwk() }))
    }

    pub(crate) fn key_change_with(&self, new: &Client, payload: &Value) -> Vec<u8> {
        let url = self.url("key-change");
        let inner = new.sign(&json!({ "alg": "ES256", "jwk": new.jwk(), "url": url }), &payload.to_string());
        let header = json!({ "alg": "ES256", "kid": self.account_url(), "nonce": nonce(), "url": url });
        self.sign(&header, &String::from_utf8(inner).unwrap())
    }

    /// A CSR whose key is this account's key.
    pub(crate) fn csr_with_account_key(&self, names: &[&str]) -> Vec<u8> {
        let pkcs8 = self.key.to_pkcs8v1().unwrap();
        csr_of(names, &rcgen::KeyPair::try_from(pkcs8.as_ref()).unwrap())
    }
}

/// A CSR for these names, with a new key.
pub(crate) fn csr(names: &[&str]) -> Vec<u8> {
    csr_of(names, &rcgen::KeyPair::generate().unwrap())
}

pub(crate) fn csr_of(names: &[&str], key: &rcgen::KeyPair) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(key).unwrap().der().to_vec()
}

fn nonce() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    encode(bytes)
}
