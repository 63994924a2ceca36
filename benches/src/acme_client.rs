//! An ACME client of the load generator: one account, one connection, certificates one after another.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use crate::connection::{Connection, Server};

/// One client.
pub struct Client {
    connection: Connection,
    directory: String,
    key: EcdsaKeyPair,
    jwk: Value,
    kid: Option<String>,
    nonce: Option<String>,
    certificate_key: rcgen::KeyPair,
    requests: u64,
    random: SystemRandom,
}

impl Client {
    /// Connects and registers an account in the directory with this URL.
    ///
    /// # Errors
    ///
    /// When the server does not do its part.
    pub async fn register(server: &Server, directory: &str) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
        let point = key.public_key().as_ref();
        let (x, y) = (point.get(1..33).context("x")?, point.get(33..65).context("y")?);
        let jwk = json!({ "crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y) });
        let mut client = Self {
            connection: server.connect().await?,
            directory: directory.trim_end_matches("/directory").to_owned(),
            key,
            jwk,
            kid: None,
            nonce: None,
            certificate_key: rcgen::KeyPair::generate()?,
            requests: 0,
            random,
        };
        let url = format!("{}/new-account", client.directory);
        let answer = client.post(&url, &json!({ "termsOfServiceAgreed": true }).to_string()).await?;
        ensure!(answer.status() == 201, "newAccount: {}", said(&answer));
        client.kid = Some(header(&answer, "location")?);
        Ok(client)
    }

    /// Requests that it has signed so far.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// What the http-01 responder appends to a token.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // serde_json's members are in the order of RFC 7638 as written above.
        let text = format!(
            "{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":{},\"y\":{}}}",
            self.jwk.get("x").unwrap_or(&Value::Null),
            self.jwk.get("y").unwrap_or(&Value::Null)
        );
        encode(digest(&SHA256, text.as_bytes()).as_ref())
    }

    /// One certificate, from newOrder to the downloaded chain; how long it took.
    ///
    /// # Errors
    ///
    /// When the server does not do its part.
    pub async fn certificate(&mut self, names: &[String]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let identifiers: Vec<_> = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let url = format!("{}/new-order", self.directory);
        let answer = self.post(&url, &json!({ "identifiers": identifiers }).to_string()).await?;
        ensure!(answer.status() == 201, "newOrder: {}", said(&answer));
        let order_url = header(&answer, "location")?;
        let mut order: Value = serde_json::from_slice(answer.body())?;
        for authorization in strings(&order, "authorizations") {
            self.authorize(&authorization).await?;
        }
        let finalize = text(&order, "finalize")?;
        let csr = encode(&self.request(names)?);
        let answer = self.post(&finalize, &json!({ "csr": csr }).to_string()).await?;
        ensure!(answer.status() == 200, "finalize: {}", said(&answer));
        order = serde_json::from_slice(answer.body())?;
        while text(&order, "status")? == "processing" {
            tokio::time::sleep(Duration::from_millis(20)).await;
            order = serde_json::from_slice(self.post(&order_url, "").await?.body())?;
        }
        ensure!(text(&order, "status")? == "valid", "the order ended as {order}");
        let answer = self.post(&text(&order, "certificate")?, "").await?;
        ensure!(answer.status() == 200, "certificate: {}", said(&answer));
        Ok(started.elapsed())
    }

    /// newOrder for one name; the order.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn order(&mut self, name: &str) -> anyhow::Result<Value> {
        let url = format!("{}/new-order", self.directory);
        let order = json!({ "identifiers": [{ "type": "dns", "value": name }] });
        let answer = self.post(&url, &order.to_string()).await?;
        ensure!(answer.status() == 201, "newOrder: {}", said(&answer));
        Ok(serde_json::from_slice(answer.body())?)
    }

    /// Orders a name, and asks for its validation, whose end it does not wait for.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn begin_validation(&mut self, name: &str) -> anyhow::Result<()> {
        let order = self.order(name).await?;
        let authorization =
            strings(&order, "authorizations").into_iter().next().context("no authorization")?;
        let authorization: Value = serde_json::from_slice(self.post(&authorization, "").await?.body())?;
        let challenges =
            authorization.get("challenges").and_then(Value::as_array).context("no challenges")?;
        let url = text(challenges.first().context("no challenge")?, "url")?;
        let answer = self.post(&url, "{}").await?;
        ensure!(answer.status() == 200, "challenge: {}", said(&answer));
        Ok(())
    }

    async fn authorize(&mut self, url: &str) -> anyhow::Result<()> {
        let mut authorization: Value = serde_json::from_slice(self.post(url, "").await?.body())?;
        let challenges =
            authorization.get("challenges").and_then(Value::as_array).cloned().unwrap_or_default();
        let challenge = challenges
            .iter()
            .find(|challenge| challenge.get("type").is_some_and(|kind| kind == "http-01"))
            .context("no http-01")?;
        let answer = self.post(&text(challenge, "url")?, "{}").await?;
        ensure!(answer.status() == 200, "challenge: {}", said(&answer));
        // As lego and dehydrated do: what the answer says need not be asked for.
        if text(&serde_json::from_slice(answer.body())?, "status")? == "valid" {
            return Ok(());
        }
        // Closed loop: the next look follows the last answer, with a pause that grows a little.
        let mut pause = Duration::from_millis(2);
        loop {
            authorization = serde_json::from_slice(self.post(url, "").await?.body())?;
            match text(&authorization, "status")?.as_str() {
                "valid" => return Ok(()),
                "pending" => tokio::time::sleep(pause).await,
                _ => bail!("the authorization ended as {authorization}"),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn request(&self, names: &[String]) -> anyhow::Result<Vec<u8>> {
        let mut parameters = rcgen::CertificateParams::new(names.to_vec())?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        Ok(parameters.serialize_request(&self.certificate_key)?.der().to_vec())
    }

    async fn post(&mut self, url: &str, payload: &str) -> anyhow::Result<Response<Bytes>> {
        for _ in 0..3 {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => {
                    let url = format!("{}/new-nonce", self.directory);
                    header(&self.connection.send(path_of(&url)?, None).await?, "replay-nonce")?
                }
            };
            let body = self.sign(url, &nonce, payload)?;
            self.requests += 1;
            let answer = self.connection.send(path_of(url)?, Some(body)).await?;
            self.nonce = header(&answer, "replay-nonce").ok();
            if answer.status() != 400 || !said(&answer).contains("badNonce") {
                return Ok(answer);
            }
        }
        bail!("three bad nonces in a row")
    }

    fn sign(&self, url: &str, nonce: &str, payload: &str) -> anyhow::Result<Bytes> {
        let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        let members = protected.as_object_mut().context("an object")?;
        match &self.kid {
            Some(kid) => members.insert("kid".into(), kid.as_str().into()),
            None => members.insert("jwk".into(), self.jwk.clone()),
        };
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

fn text(object: &Value, member: &str) -> anyhow::Result<String> {
    Ok(object
        .get(member)
        .and_then(Value::as_str)
        .with_context(|| format!("no {member} in {object}"))?
        .to_owned())
}

fn strings(object: &Value, member: &str) -> Vec<String> {
    let list = object.get(member).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn path_of(url: &str) -> anyhow::Result<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    Ok(rest.find('/').map_or("/", |at| rest.split_at(at).1))
}
