//! An ACME client that does not give up: it asks again whatever was not answered, and believes only the order's state.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use benches::connection::{Connection, Server};
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

/// A certificate as a client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// The order's id, from its URL.
    pub order: String,
    /// Its serial, in hexadecimal as the journal has it.
    pub serial: Vec<u8>,
    /// DER.
    pub certificate: Vec<u8>,
}

/// One account.
pub struct Client {
    server: Server,
    connection: Option<Connection>,
    base: String,
    key: EcdsaKeyPair,
    jwk: Value,
    kid: Option<String>,
    nonce: Option<String>,
    certificate_key: rcgen::KeyPair,
    random: SystemRandom,
    /// Requests that had to be made again, for another reason than a nonce.
    pub retries: u64,
}

/// How long anything may take, whoever dies meanwhile, before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// One request: a front that hangs is as bad as one that is dead.
const ANSWER: Duration = Duration::from_secs(25);
const PAUSE: Duration = Duration::from_millis(25);

/// An EAB key: id and MAC key.
pub type Binding<'a> = (&'a str, &'a str);

impl Client {
    /// Registers an account in the directory with this URL.
    ///
    /// # Errors
    ///
    /// When it is refused, or nothing answers.
    pub async fn register(
        server: &Server,
        directory: &str,
        binding: Option<Binding<'_>>,
    ) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
        let point = key.public_key().as_ref();
        let jwk =
            json!({ "crv": "P-256", "kty": "EC", "x": encode(&point[1..33]), "y": encode(&point[33..65]) });
        let mut client = Self {
            server: server.clone(),
            connection: None,
            base: directory.trim_end_matches("/directory").to_owned(),
            key,
            jwk,
            kid: None,
            nonce: None,
            certificate_key: rcgen::KeyPair::generate()?,
            random,
            retries: 0,
        };
        let url = format!("{}/new-account", client.base);
        let mut payload = json!({ "termsOfServiceAgreed": true });
        if let Some(binding) = binding {
            payload["externalAccountBinding"] = client.bind(&url, binding)?;
        }
        let answer = client.post(&url, &payload.to_string()).await?;
        // 200 when the answer to an earlier try was lost.
        ensure!(answer.status().is_success(), "newAccount: {}", said(&answer));
        client.kid = Some(header(&answer, "location")?);
        Ok(client)
    }

    fn bind(&self, url: &str, (kid, mac_key): Binding<'_>) -> anyhow::Result<Value> {
        let protected = encode(json!({ "alg": "HS256", "kid": kid, "url": url }).to_string().as_bytes());
        let payload = encode(self.jwk.to_string().as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(mac_key)?);
        let tag = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
        Ok(json!({ "protected": protected, "payload": payload, "signature": encode(tag.as_ref()) }))
    }

    /// What the http-01 responder appends to a token.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // In the order of RFC 7638.
        let text =
            format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":{},\"y\":{}}}", self.jwk["x"], self.jwk["y"]);
        encode(digest(&SHA256, text.as_bytes()).as_ref())
    }

    /// One certificate, whatever dies on the way.
    ///
    /// # Errors
    ///
    /// When the order is refused, ends as invalid, or does not end.
    pub async fn certificate(&mut self, names: &[String]) -> anyhow::Result<Got> {
        let identifiers: Vec<_> = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let url = format!("{}/new-order", self.base);
        let answer = self.post(&url, &json!({ "identifiers": identifiers }).to_string()).await?;
        ensure!(answer.status() == 201, "newOrder: {}", said(&answer));
        let order_url = header(&answer, "location")?;
        let end = Instant::now() + PATIENCE;
        let mut order = object(&answer)?;
        let csr = json!({ "csr": encode(&self.request(names)?) }).to_string();
        loop {
            match text(&order, "status")? {
                "pending" => self.authorize(&order, end).await?,
                "ready" => {
                    let finalize = text(&order, "finalize")?.to_owned();
                    let answer = self.post(&finalize, &csr).await?;
                    // A finalize whose answer was lost is refused the second time: the order says what is true.
                    let lost = said(&answer).contains("orderNotReady");
                    ensure!(answer.status() == 200 || lost, "finalize: {}", said(&answer));
                    if answer.status() == 200 {
                        order = object(&answer)?;
                        if text(&order, "status")? == "valid" {
                            break;
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                "processing" => tokio::time::sleep(PAUSE).await,
                "valid" => break,
                _ => bail!("{order_url} ended as {order}"),
            }
            ensure!(Instant::now() < end, "{order_url} is stuck: {order}");
            let answer = self.post(&order_url, "").await?;
            ensure!(answer.status() == 200, "{order_url}: {}", said(&answer));
            order = object(&answer)?;
        }
        let certificate_url = text(&order, "certificate")?.to_owned();
        let answer = self.post(&certificate_url, "").await?;
        ensure!(answer.status() == 200, "{certificate_url}: {}", said(&answer));
        let chain = pki::chain::from_pem(std::str::from_utf8(answer.body())?)?;
        let leaf = chain.first().context("an empty chain")?;
        Ok(Got {
            order: order_url.rsplit('/').next().unwrap_or_default().to_owned(),
            serial: leaf.serial().as_bytes().to_vec(),
            certificate: leaf.der().to_vec(),
        })
    }

    /// Brings an order's authorizations to their end.
    async fn authorize(&mut self, order: &Value, end: Instant) -> anyhow::Result<()> {
        let urls = order["authorizations"].as_array().cloned().unwrap_or_default();
        for url in urls.iter().filter_map(Value::as_str) {
            loop {
                let answer = self.post(url, "").await?;
                ensure!(answer.status() == 200, "{url}: {}", said(&answer));
                let authorization = object(&answer)?;
                match text(&authorization, "status")? {
                    "valid" => break,
                    "pending" => {}
                    _ => bail!("{url} ended as {authorization}"),
                }
                let challenges = authorization["challenges"].as_array().cloned().unwrap_or_default();
                let challenge = challenges.iter().find(|challenge| challenge["type"] == "http-01");
                let challenge = challenge.with_context(|| format!("no http-01: {authorization}"))?;
                if challenge["status"] == "pending" {
                    let target = text(challenge, "url")?.to_owned();
                    let answer = self.post(&target, "{}").await?;
                    // It may have become valid by a try whose answer was lost.
                    let ended = said(&answer).contains("authorization is");
                    ensure!(answer.status() == 200 || ended, "{target}: {}", said(&answer));
                }
                ensure!(Instant::now() < end, "{url} is stuck: {authorization}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Revokes one.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn revoke(&mut self, got: &Got) -> anyhow::Result<()> {
        let url = format!("{}/revoke-cert", self.base);
        let payload = json!({ "certificate": encode(&got.certificate), "reason": 4 });
        let answer = self.post(&url, &payload.to_string()).await?;
        let again = said(&answer).contains("alreadyRevoked");
        ensure!(answer.status() == 200 || again, "revokeCert: {}", said(&answer));
        Ok(())
    }

    fn request(&self, names: &[String]) -> anyhow::Result<Vec<u8>> {
        let mut parameters = rcgen::CertificateParams::new(names.to_vec())?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        Ok(parameters.serialize_request(&self.certificate_key)?.der().to_vec())
    }

    /// Until there is an answer that is one: broken connections, 5xx, `badNonce` and "later" are not.
    async fn post(&mut self, url: &str, payload: &str) -> anyhow::Result<Response<Bytes>> {
        let end = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < end {
            match tokio::time::timeout(ANSWER, self.try_post(url, payload)).await {
                Ok(Ok(answer)) if answer.status().is_server_error() || answer.status() == 429 => {
                    last = said(&answer);
                }
                Ok(Ok(answer)) if answer.status() == 400 && said(&answer).contains("badNonce") => continue,
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = format!("{error:#}"),
                Err(_) => last = format!("no answer in {ANSWER:?}"),
            }
            self.retries += 1;
            self.nonce = None;
            tokio::time::sleep(PAUSE).await;
        }
        bail!("{url} is not answered: {last}")
    }

    async fn try_post(&mut self, url: &str, payload: &str) -> anyhow::Result<Response<Bytes>> {
        // Put back only if it did not break.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        let nonce = match self.nonce.take() {
            Some(nonce) => nonce,
            None => {
                let url = format!("{}/new-nonce", self.base);
                header(&connection.send(path_of(&url), None).await?, "replay-nonce")?
            }
        };
        let body = self.sign(url, &nonce, payload)?;
        let answer = connection.send(path_of(url), Some(body)).await?;
        self.nonce = header(&answer, "replay-nonce").ok();
        self.connection = Some(connection);
        Ok(answer)
    }

    fn sign(&self, url: &str, nonce: &str, payload: &str) -> anyhow::Result<Bytes> {
        let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        match &self.kid {
            Some(kid) => protected["kid"] = kid.as_str().into(),
            None => protected["jwk"] = self.jwk.clone(),
        }
        let protected = encode(protected.to_string().as_bytes());
        let payload = encode(payload.as_bytes());
        let signature = self.key.sign(&self.random, format!("{protected}.{payload}").as_bytes())?;
        let jws =
            json!({ "protected": protected, "payload": payload, "signature": encode(signature.as_ref()) });
        Ok(jws.to_string().into())
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn header(answer: &Response<Bytes>, name: &str) -> anyhow::Result<String> {
    let value = answer.headers().get(name).with_context(|| format!("no {name}: {}", said(answer)))?;
    Ok(value.to_str()?.to_owned())
}

fn said(answer: &Response<Bytes>) -> String {
    format!("{} {}", answer.status(), String::from_utf8_lossy(answer.body()))
}

fn object(answer: &Response<Bytes>) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(answer.body())?)
}

fn text<'a>(object: &'a Value, member: &str) -> anyhow::Result<&'a str> {
    object[member].as_str().with_context(|| format!("no {member} in {object}"))
}

fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}
