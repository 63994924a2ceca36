//! An ACME client as a front sees one: somebody who signs.

use acme::base64url;
use acme::{AccountId, Jwk, Thumbprint};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// A key, a directory, and the account that the key has there.
pub(crate) struct Client {
    pub(crate) base: String,
    pub(crate) directory: String,
    pub(crate) account: Option<AccountId>,
    key: EcdsaKeyPair,
}

impl Client {
    pub(crate) fn new(base: &str, directory: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { base: base.to_owned(), directory: directory.to_owned(), account: None, key }
    }

    /// Another key that says it is this account's.
    pub(crate) fn pretender(&self) -> Self {
        Self { account: self.account, ..Self::new(&self.base, &self.directory) }
    }

    /// The same key and account, in another directory's URLs.
    pub(crate) fn in_directory(&self, directory: &str) -> Self {
        let key = self.key.to_pkcs8v1().expect("PKCS #8");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref()).expect("the key");
        Self { base: self.base.clone(), directory: directory.to_owned(), account: self.account, key }
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    pub(crate) fn thumbprint(&self) -> Thumbprint {
        Jwk::from_json(&self.jwk().to_string()).expect("a key").thumbprint()
    }

    /// The key's public point, as a MAC's secret of somebody who confuses the two.
    pub(crate) fn public_point(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    pub(crate) fn rcgen_key(&self) -> rcgen::KeyPair {
        let pkcs8 = self.key.to_pkcs8v1().expect("PKCS #8");
        rcgen::KeyPair::try_from(pkcs8.as_ref()).expect("a key")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/acme/{}/{path}", self.base, self.directory)
    }

    pub(crate) fn account_url(&self) -> String {
        self.url(&format!("account/{}", self.account.expect("an account")))
    }

    pub(crate) fn header(&self, path: &str) -> Value {
        json!({ "alg": "ES256", "kid": self.account_url(), "nonce": nonce(), "url": self.url(path) })
    }

    /// A request with the account's URL.
    pub(crate) fn request(&self, path: &str, payload: &Value) -> Vec<u8> {
        self.sign(&self.header(path), payload.to_string())
    }

    /// A request with the key itself.
    pub(crate) fn request_with_jwk(&self, path: &str, payload: &Value) -> Vec<u8> {
        let header = json!({ "alg": "ES256", "jwk": self.jwk(), "nonce": nonce(), "url": self.url(path) });
        self.sign(&header, payload.to_string())
    }

    pub(crate) fn sign(&self, header: &Value, payload: impl AsRef<[u8]>) -> Vec<u8> {
        self.sign_text(header.to_string(), payload)
    }

    /// With a header that `serde_json` would not write.
    pub(crate) fn sign_text(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let (protected, payload) = (encode(header), encode(payload));
        let signature = self.signature(format!("{protected}.{payload}").as_bytes());
        json!({ "protected": protected, "payload": payload, "signature": encode(signature) })
            .to_string()
            .into_bytes()
    }

    pub(crate) fn signature(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }

    pub(crate) fn new_account(&self) -> Vec<u8> {
        let payload = json!({ "contact": ["mailto:someone@example.test"], "termsOfServiceAgreed": true });
        self.request_with_jwk("new-account", &payload)
    }

    pub(crate) fn new_account_with_binding(&self, binding: &Value) -> Vec<u8> {
        self.request_with_jwk("new-account", &json!({ "externalAccountBinding": binding }))
    }

    pub(crate) fn binding(&self, (kid, key): (&str, &[u8])) -> Value {
        let header = json!({ "alg": "HS256", "kid": kid, "url": self.url("new-account") });
        let (protected, payload) = (encode(header.to_string()), encode(self.jwk().to_string()));
        let message = format!("{protected}.{payload}");
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
        json!({ "protected": protected, "payload": payload, "signature": encode(mac) })
    }

    pub(crate) fn new_order(&self, names: &[&str]) -> Vec<u8> {
        self.new_order_with(names, json!({}))
    }

    pub(crate) fn new_order_with(&self, names: &[&str], mut payload: Value) -> Vec<u8> {
        payload["identifiers"] = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        self.request("new-order", &payload)
    }

    pub(crate) fn finalize(&self, order: &str, csr: &[u8]) -> Vec<u8> {
        self.request(&format!("order/{order}/finalize"), &json!({ "csr": encode(csr) }))
    }

    pub(crate) fn update(&self, payload: &Value) -> Vec<u8> {
        self.sign(&self.update_header(), payload.to_string())
    }

    pub(crate) fn update_header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.account_url(), "nonce": nonce(), "url": self.account_url() })
    }

    /// keyChange from this key to another.
    pub(crate) fn key_change(&self, new: &Self) -> Vec<u8> {
        let payload = json!({ "account": self.account_url(), "oldKey": self.jwk() });
        self.key_change_with(&new.inner(&self.url("key-change"), &payload))
    }

    /// The inner JWS of a keyChange, by the new key.
    pub(crate) fn inner(&self, url: &str, payload: &Value) -> Vec<u8> {
        self.sign(&json!({ "alg": "ES256", "jwk": self.jwk(), "url": url }), payload.to_string())
    }

    pub(crate) fn key_change_with(&self, inner: &[u8]) -> Vec<u8> {
        self.sign(&self.header("key-change"), inner)
    }

    pub(crate) fn revocation(&self, certificate: &[u8], reason: u32) -> Vec<u8> {
        self.request("revoke-cert", &json!({ "certificate": encode(certificate), "reason": reason }))
    }

    pub(crate) fn revocation_with_jwk(&self, certificate: &[u8], reason: u32) -> Vec<u8> {
        self.request_with_jwk("revoke-cert", &json!({ "certificate": encode(certificate), "reason": reason }))
    }
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    base64url::encode(bytes)
}

pub(crate) fn nonce() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    encode(bytes)
}

/// A JWS as JSON.
pub(crate) fn json_of(jws: &[u8]) -> Value {
    serde_json::from_slice(jws).expect("a JWS")
}

/// What a signer calls a request.
pub(crate) fn digest(jws: &[u8]) -> [u8; 32] {
    acme::Jws::from_slice(jws).expect("a JWS").digest()
}

/// A CSR with a key of its own.
pub(crate) fn csr_for(names: &[&str]) -> Vec<u8> {
    csr_by(&rcgen::KeyPair::generate().expect("a key"), names)
}

pub(crate) fn csr_by(key: &rcgen::KeyPair, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut parameters = rcgen::CertificateParams::new(names).expect("names");
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(key).expect("a CSR").der().to_vec()
}
