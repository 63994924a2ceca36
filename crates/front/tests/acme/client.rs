//! A small ACME client that can also be as wrong as a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) const JOSE: &str = "application/jose+json";

/// A member that must be a text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A key pair of one of the kinds that ACME clients have.
pub(crate) enum Key {
    Ecdsa { pair: EcdsaKeyPair, algorithm: &'static str, curve: &'static str },
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Key {
    pub(crate) fn es256() -> Self {
        Self::ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256")
    }

    pub(crate) fn es384() -> Self {
        Self::ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384")
    }

    pub(crate) fn es512() -> Self {
        Self::ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "ES512", "P-521")
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn rsa(size: KeySize) -> Self {
        Self::Rsa(RsaKeyPair::generate(size).unwrap())
    }

    fn ecdsa(how: &'static EcdsaSigningAlgorithm, algorithm: &'static str, curve: &'static str) -> Self {
        Self::Ecdsa { pair: EcdsaKeyPair::generate(how).unwrap(), algorithm, curve }
    }

    /// The key pair from PKCS#8, as rcgen hands it out.
    pub(crate) fn es256_from_pkcs8(pkcs8: &[u8]) -> Self {
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).unwrap();
        Self::Ecdsa { pair, algorithm: "ES256", curve: "P-256" }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Ecdsa { algorithm, .. } => algorithm,
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        match self {
            Self::Ecdsa { pair, curve, .. } => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            Self::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"kty": "RSA", "n": encode(&public.n), "e": encode(&public.e)})
            }
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ecdsa { pair, .. } => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut out).unwrap();
                out
            }
        }
    }
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A flattened JWS over these very header and payload texts.
pub(crate) fn seal(key: &Key, protected: &Value, payload: &str) -> Value {
    let protected = encode(protected.to_string());
    let payload = encode(payload);
    let signature = encode(key.sign(format!("{protected}.{payload}").as_bytes()));
    json!({"protected": protected, "payload": payload, "signature": signature})
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> String {
        self.header("location").unwrap_or_else(|| panic!("no Location: {self:?}")).to_owned()
    }

    pub(crate) fn nonce(&self) -> String {
        self.header("replay-nonce").unwrap_or_else(|| panic!("no Replay-Nonce: {self:?}")).to_owned()
    }

    /// Every target of a link with this relation.
    pub(crate) fn links(&self, relation: &str) -> Vec<String> {
        let wanted = format!(";rel=\"{relation}\"");
        let values = self.headers.get_all("link").iter().map(|value| value.to_str().unwrap());
        let found = values.filter_map(|value| value.strip_suffix(wanted.as_str()));
        found.map(|target| target.trim_start_matches('<').trim_end_matches('>').to_owned()).collect()
    }

    /// Checks that this is a problem of `kind` with what every error must carry (A13, A17), and returns the document.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert!(self.header("replay-nonce").is_some(), "no nonce: {self:?}");
        let document = self.json();
        assert_eq!(document["type"], format!("urn:ietf:params:acme:error:{kind}"), "{document}");
        assert!(document.get("identifier").is_none(), "identifier outside subproblems: {document}");
        assert_ne!(document.get("subproblems"), Some(&Value::Null), "{document}");
        document
    }

    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}

/// A way to one front. Each request makes a connection of its own.
#[derive(Clone)]
pub(crate) struct Wire {
    address: SocketAddr,
    base: String,
    tls: Arc<rustls::ClientConfig>,
    /// What X-Forwarded-For says, if anything.
    forwarded: Option<String>,
}

impl Wire {
    pub(crate) fn new(
        address: SocketAddr,
        base: &str,
        root: rustls_pki_types::CertificateDer<'static>,
    ) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { address, base: base.to_owned(), tls: Arc::new(tls), forwarded: None }
    }

    /// The same front, with these protocols offered in the handshake.
    pub(crate) fn with_protocols(&self, protocols: &[&[u8]]) -> Self {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// The same front, under another of its base URLs.
    pub(crate) fn under(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// The same front, through a proxy that names this client.
    pub(crate) fn forwarded_for(&self, client: &str) -> Self {
        Self { forwarded: Some(client.to_owned()), ..self.clone() }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn directory_url(&self, directory: &str) -> String {
        format!("{}/acme/{directory}/directory", self.base)
    }

    pub(crate) async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.try_connect().await.expect("a connection")
    }

    /// None where the front does not let us in.
    pub(crate) async fn try_connect(&self) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("acme.test").unwrap();
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.ok()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = self.connect().await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        driver.abort();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// A request without a body.
    pub(crate) async fn plain(&self, method: Method, url: &str) -> Answer {
        self.send(self.request(method, url).body(Full::default()).unwrap()).await
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.plain(Method::GET, url).await
    }

    /// A POST of these very bytes.
    pub(crate) async fn post(&self, url: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = self.request(Method::POST, url).header("content-type", content_type);
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    fn request(&self, method: Method, url: &str) -> http::request::Builder {
        let path = url.strip_prefix(&self.base).unwrap_or(url);
        let authority = self.base.trim_start_matches("https://").split('/').next().unwrap();
        let request = Request::builder().method(method).uri(path).header("host", authority);
        match &self.forwarded {
            Some(client) => request.header("x-forwarded-for", client),
            None => request,
        }
    }
}

/// A client with a key and perhaps an account.
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) key: Key,
    pub(crate) directory: Value,
    pub(crate) kid: Option<String>,
}

impl Client {
    pub(crate) async fn new(wire: &Wire, directory: &str) -> Self {
        Self::with_key(wire, directory, Key::es256()).await
    }

    pub(crate) async fn with_key(wire: &Wire, directory: &str, key: Key) -> Self {
        let directory = wire.get(&wire.directory_url(directory)).await.ok(200).json();
        Self { wire: wire.clone(), key, directory, kid: None }
    }

    /// With an account.
    pub(crate) async fn registered(wire: &Wire, directory: &str) -> Self {
        let mut client = Self::new(wire, directory).await;
        client.register(&json!({"termsOfServiceAgreed": true})).await.ok(201);
        client
    }

    pub(crate) fn url(&self, resource: &str) -> String {
        self.directory[resource]
            .as_str()
            .unwrap_or_else(|| panic!("no {resource} in {}", self.directory))
            .to_owned()
    }

    pub(crate) fn account(&self) -> String {
        self.kid.clone().expect("an account")
    }

    pub(crate) async fn nonce(&self) -> String {
        self.wire.plain(Method::HEAD, &self.url("newNonce")).await.ok(200).nonce()
    }

    /// The protected header of an ordinary request.
    pub(crate) async fn header(&self, url: &str) -> Value {
        let nonce = self.nonce().await;
        match &self.kid {
            Some(kid) => json!({"alg": self.key.algorithm(), "kid": kid, "nonce": nonce, "url": url}),
            None => json!({"alg": self.key.algorithm(), "jwk": self.key.jwk(), "nonce": nonce, "url": url}),
        }
    }

    pub(crate) async fn post(&self, url: &str, payload: &Value) -> Answer {
        self.post_text(url, &payload.to_string()).await
    }

    pub(crate) async fn post_as_get(&self, url: &str) -> Answer {
        self.post_text(url, "").await
    }

    pub(crate) async fn post_text(&self, url: &str, payload: &str) -> Answer {
        let header = self.header(url).await;
        self.post_with(url, &header, payload).await
    }

    /// A POST with this very protected header.
    pub(crate) async fn post_with(&self, url: &str, header: &Value, payload: &str) -> Answer {
        let body = seal(&self.key, header, payload).to_string();
        self.wire.post(url, JOSE, body).await
    }

    pub(crate) async fn register(&mut self, payload: &Value) -> Answer {
        let answer = self.post(&self.url("newAccount"), payload).await;
        if answer.status.is_success() {
            self.kid = Some(answer.location());
        }
        answer
    }

    pub(crate) async fn order(&self, names: &[&str]) -> Answer {
        let identifiers: Vec<Value> =
            names.iter().map(|name| json!({"type": "dns", "value": name})).collect();
        self.post(&self.url("newOrder"), &json!({"identifiers": identifiers})).await
    }
}
