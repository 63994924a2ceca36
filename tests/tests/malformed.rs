//! Ten thousand malformed requests of all kinds to the real system: each gets a problem of a registered type and a nonce
//! that is good, none is a fault of the server, and nothing grows.

use std::collections::HashSet;
use std::net::SocketAddr;

use acme::ErrorType;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use benches::connection::{Connection, Server};
use bytes::Bytes;
use e2e::Demo;
use serde_json::{Value, json};

const COUNT: usize = 10_000;
/// Caches are full by then.
const WARM: usize = 3_000;
/// What a process may grow by afterwards: fragments of its heap.
const GROWTH_KIB: u64 = 24 * 1024;

const JOSE: &str = "application/jose+json";

/// xorshift64*, from a fixed seed: every run sends the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit.max(1)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

/// A request, and whether its nonce is meant to be bad.
struct Malformed {
    kind: String,
    method: &'static str,
    path: String,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    bad_nonce: bool,
}

/// Somebody with an account and an order.
struct Sender {
    random: Random,
    key: EcdsaKeyPair,
    jwk: Value,
    origin: String,
    /// `…/acme/open`.
    directory: String,
    kid: String,
    order: String,
    finalize: String,
    authorization: String,
    challenge: String,
    nonce: String,
    used: String,
}

fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

fn key() -> (EcdsaKeyPair, Value) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = key.public_key().as_ref();
    let jwk = json!({"crv": "P-256", "kty": "EC", "x": encode(&point[1..33]), "y": encode(&point[33..])});
    (key, jwk)
}

impl Sender {
    fn header(&self, url: &str) -> Value {
        json!({"alg": "ES256", "kid": self.kid, "nonce": self.nonce, "url": url})
    }

    fn sign(&self, header: &Value, payload: impl AsRef<[u8]>) -> Value {
        let (protected, payload) = (encode(header.to_string()), encode(payload));
        let signature =
            self.key.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).unwrap();
        json!({"protected": protected, "payload": payload, "signature": encode(signature)})
    }

    fn post(&self, kind: impl Into<String>, url: &str, body: impl ToString) -> Malformed {
        Malformed {
            kind: kind.into(),
            method: "POST",
            path: url.strip_prefix(&self.origin).unwrap().to_owned(),
            content_type: Some(JOSE),
            body: body.to_string().into_bytes(),
            bad_nonce: false,
        }
    }

    fn any_url(&mut self) -> String {
        let all = [
            format!("{}/new-order", self.directory),
            self.kid.clone(),
            self.order.clone(),
            self.finalize.clone(),
            self.authorization.clone(),
            self.challenge.clone(),
            format!("{}/revoke-cert", self.directory),
            format!("{}/key-change", self.directory),
        ];
        self.random.one(&all).clone()
    }

    /// The next one, of any kind.
    fn next(&mut self) -> Malformed {
        match self.random.below(5) {
            0 => self.body(),
            1 => self.part(),
            2 => self.bad_header(),
            3 => self.payload(),
            _ => self.http(),
        }
    }

    /// No JWS at all.
    fn body(&mut self) -> Malformed {
        let url = self.any_url();
        let good = self.sign(&self.header(&url), "{}").to_string();
        let at = self.random.below(good.len());
        let length = self.random.below(2_000);
        let garbage = self.random.bytes(length);
        let depth = 2 + self.random.below(3_000);
        let bodies: [(&str, Vec<u8>); 12] = [
            ("empty", Vec::new()),
            ("octets", garbage),
            ("cut off", good.as_bytes()[..at].to_vec()),
            ("not UTF-8", [&good.as_bytes()[..at], b"\xff\xfe", &good.as_bytes()[at..]].concat()),
            ("more after it", [good.as_bytes(), b"{}"].concat()),
            ("twice", [&b"{\"payload\":\"\","[..], &good.as_bytes()[1..]].concat()),
            ("list", format!("[{good}]").into_bytes()),
            ("string", json!(good).to_string().into_bytes()),
            ("number", b"1e999999".to_vec()),
            ("null", b"null".to_vec()),
            ("deep", [b"{\"protected\":".repeat(depth), b"1".to_vec(), b"}".repeat(depth)].concat()),
            ("NUL", [good.as_bytes(), b"\0"].concat()),
        ];
        let (kind, body) = self.random.one(&bodies).clone();
        Malformed { body, ..self.post(format!("body: {kind}"), &url, "") }
    }

    /// A JWS of which one part is wrong.
    fn part(&mut self) -> Malformed {
        let url = self.any_url();
        let mut jws = self.sign(&self.header(&url), "{}");
        let part = *self.random.one(&["protected", "payload", "signature"]);
        let text = jws[part].as_str().unwrap().to_owned();
        let at = self.random.below(text.len() - 1);
        let kind = *self
            .random
            .one(&["absent", "null", "number", "list", "padded", "alphabet", "space", "cut", "other"]);
        let wrong = match kind {
            "absent" => None,
            "null" => Some(Value::Null),
            "number" => Some(json!(7)),
            "list" => Some(json!([text])),
            "padded" => Some(json!(format!("{text}="))),
            "alphabet" => Some(json!(format!("{}+/{}", &text[..at], &text[at..]))),
            "space" => Some(json!(format!("{} {}", &text[..at], &text[at..]))),
            // Four letters, three octets: what is left is base64url.
            "cut" => Some(json!(if text.len() > 4 { &text[4..] } else { "AAAA" })),
            _ => {
                let octets = self.random.bytes(64);
                Some(json!(encode(octets)))
            }
        };
        match wrong {
            Some(wrong) => jws[part] = wrong,
            None => drop(jws.as_object_mut().unwrap().remove(part)),
        }
        self.post(format!("{part}: {kind}"), &url, jws)
    }

    /// A good signature over a header that says something wrong.
    fn bad_header(&mut self) -> Malformed {
        let url = self.any_url();
        let mut header = self.header(&url);
        let (member, wrong, bad_nonce) = self.random.one(&self.wrong_headers()).clone();
        match wrong {
            Some(wrong) => header[member] = wrong,
            None => drop(header.as_object_mut().unwrap().remove(member)),
        }
        let body = self.sign(&header, "{}");
        let said = header.get(member).map(ToString::to_string).unwrap_or_default();
        Malformed { bad_nonce, ..self.post(format!("header: {member} {said}"), &url, body) }
    }

    fn wrong_headers(&self) -> Vec<(&'static str, Option<Value>, bool)> {
        let mut all = vec![
            ("nonce", None, true),
            ("nonce", Some(json!(self.used)), true),
            ("nonce", Some(json!(encode([7; 40]))), true),
            ("nonce", Some(json!("AA")), true),
            ("jwk", Some(self.jwk.clone()), false),
            ("alg", None, false),
            ("url", None, false),
            ("kid", None, false),
            ("url", Some(json!(format!("{}/new-account", self.directory))), false),
            ("url", Some(json!("http://127.0.0.1/")), false),
            ("kid", Some(json!(format!("{}x", self.kid))), false),
            ("kid", Some(json!(self.order)), false),
            ("kid", Some(json!(format!("{}/account/{}", self.directory, encode([9; 32])))), false),
            ("crit", Some(json!(["exp"])), false),
            ("crit", Some(json!([])), false),
            ("b64", Some(json!(false)), false),
        ];
        for member in ["alg", "kid", "url", "nonce"] {
            for wrong in [
                json!(7),
                Value::Null,
                json!([]),
                json!({}),
                json!(""),
                json!("\u{0}"),
                json!("x".repeat(3_000)),
            ] {
                all.push((member, Some(wrong), member == "nonce"));
            }
        }
        for algorithm in ["none", "HS256", "RS256", "ES384", "EdDSA", "PS256", "es256"] {
            all.push(("alg", Some(json!(algorithm)), false));
        }
        all
    }

    /// A good request to which nobody can do what it says.
    fn payload(&mut self) -> Malformed {
        let long = "a.".repeat(200) + "b";
        let orders = [
            json!({}),
            json!([]),
            json!("identifiers"),
            json!({"identifiers": []}),
            json!({"identifiers": {}}),
            json!({"identifiers": ["example.test"]}),
            json!({"identifiers": [{"type": "dns"}]}),
            json!({"identifiers": [{"value": "example.test"}]}),
            json!({"identifiers": [{"type": "dns", "value": 7}]}),
            json!({"identifiers": [{"type": "mail", "value": "a@example.test"}]}),
            json!({"identifiers": (0..2_000).map(|n| json!({"type": "dns", "value": format!("{n}.t")})).collect::<Vec<_>>()}),
            json!({"identifiers": [{"type": "dns", "value": "example.test"}], "notBefore": "yesterday"}),
            json!({"identifiers": [{"type": "dns", "value": "example.test"}], "notAfter": 7}),
            json!({"identifiers": [{"type": "dns", "value": "example.test"}],
                "notBefore": "2030-01-02T00:00:00Z", "notAfter": "2030-01-01T00:00:00Z"}),
            json!({"identifiers": [{"type": "dns", "value": "example.test"}], "profile": "there is none"}),
            json!({"identifiers": [{"type": "dns", "value": "example.test"}], "auto-renewal": {"end-date": "2030-01-01T00:00:00Z"}}),
            json!({"identifiers": [{"type": "dns", "value": "example.test"}], "replaces": "nothing"}),
        ];
        let names = [
            "",
            ".",
            "a..b",
            "*.*.a.b",
            "a.*.b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "192.0.2.1",
            "ä.example",
            "a b",
            "a.\u{0}",
            &long,
        ];
        let addresses = ["", "192.0.2", "192.0.2.01", "2001:DB8::1", "localhost", "192.0.2.1/24"];
        let (url, payload) = match self.random.below(10) {
            0..=2 => (format!("{}/new-order", self.directory), self.random.one(&orders).to_string()),
            3 => {
                let name = (*self.random.one(&names)).to_owned();
                (
                    format!("{}/new-order", self.directory),
                    json!({"identifiers": [{"type": "dns", "value": name}]}).to_string(),
                )
            }
            4 => {
                let address = (*self.random.one(&addresses)).to_owned();
                (
                    format!("{}/new-order", self.directory),
                    json!({"identifiers": [{"type": "ip", "value": address}]}).to_string(),
                )
            }
            5 => {
                let contact = [
                    json!("mailto:a@example.test"),
                    json!(["tel:1"]),
                    json!(["mailto:"]),
                    json!([7]),
                    json!(["mailto:a@b.test,c@b.test"]),
                    json!(["mailto:a@b.test?subject=x"]),
                    json!({"a": 1}),
                ];
                (self.kid.clone(), json!({"contact": self.random.one(&contact)}).to_string())
            }
            6 => {
                let octets = self.random.bytes(300);
                let csr = [
                    json!(7),
                    json!(""),
                    json!("===="),
                    json!(encode(octets)),
                    json!(encode("-----BEGIN CERTIFICATE REQUEST-----")),
                    Value::Null,
                ];
                (self.finalize.clone(), json!({"csr": self.random.one(&csr)}).to_string())
            }
            7 => {
                let octets = self.random.bytes(300);
                let certificate = json!(encode(octets));
                let all = [
                    json!({}),
                    json!({"certificate": 7}),
                    json!({"certificate": ""}),
                    json!({"certificate": certificate}),
                    json!({"certificate": certificate, "reason": 99}),
                    json!({"certificate": certificate, "reason": "x"}),
                ];
                (format!("{}/revoke-cert", self.directory), self.random.one(&all).to_string())
            }
            8 => {
                let all = [
                    json!({}),
                    json!([]),
                    json!({"protected": "", "payload": "", "signature": ""}),
                    json!("x"),
                    json!({"protected": encode("{}"), "payload": encode("{}"), "signature": encode([0; 64])}),
                ];
                (format!("{}/key-change", self.directory), self.random.one(&all).to_string())
            }
            _ => {
                let url = self.random.one(&[self.authorization.clone(), self.kid.clone()]).clone();
                let all = [
                    "[",
                    "{\"status\":\"valid\"",
                    "{\"status\":7}",
                    "\u{1}",
                    "{\"status\":\"deactivated\",\"status\":\"x\"}",
                ];
                (url, (*self.random.one(&all)).to_owned())
            }
        };
        let body = self.sign(&self.header(&url), &payload);
        self.post(format!("payload: {url} {}", payload.chars().take(80).collect::<String>()), &url, body)
    }

    /// A request that ACME has not.
    fn http(&mut self) -> Malformed {
        let url = self.any_url();
        let good = self.sign(&self.header(&url), "{}").to_string();
        let length = 1 + self.random.below(60);
        let id = encode(self.random.bytes(length));
        let kind = self.random.below(5);
        match kind {
            0 => Malformed {
                content_type: *self.random.one(&[None, Some("application/json"), Some("text/plain")]),
                ..self.post("content type", &url, good)
            },
            1 => Malformed {
                method: self.random.one::<&str>(&["GET", "PUT", "DELETE", "PATCH", "BREW"]),
                ..self.post("method", &url, "")
            },
            2 => {
                let resource =
                    *self.random.one(&["order", "authorization", "account", "certificate", "challenge"]);
                let url = format!("{}/{resource}/{id}", self.directory);
                let body = self.sign(&self.header(&url), "");
                self.post("no such object", &url, body)
            }
            3 => {
                let url = format!("{}/acme/{id}/new-order", self.origin);
                let body = self.sign(&self.header(&url), "{}");
                self.post("no such directory", &url, body)
            }
            _ => {
                let url = format!("{}/{id}/%00/..%2f", self.origin);
                self.post("no such path", &url, good)
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn connect(demo: &Demo) -> (Server, Connection, String) {
    let origin = demo.facts.directory.split("/acme/").next().unwrap().to_owned();
    let address: SocketAddr = origin.trim_start_matches("https://").parse().unwrap();
    let server = Server::new(address, &demo.facts.endpoint_ca).unwrap();
    let connection = server.connect().await.unwrap();
    (server, connection, origin)
}

/// Registers, and makes an order.
async fn sender(demo: &Demo, connection: &mut Connection, origin: String) -> Sender {
    let (key, jwk) = key();
    let directory = demo.facts.directory.trim_end_matches("/directory").to_owned();
    let mut sender = Sender {
        random: Random(0x9e37_79b9_7f4a_7c15),
        key,
        jwk: jwk.clone(),
        origin,
        directory: directory.clone(),
        kid: String::new(),
        order: String::new(),
        finalize: String::new(),
        authorization: String::new(),
        challenge: String::new(),
        nonce: String::new(),
        used: String::new(),
    };
    let path = |url: &str| url.strip_prefix(&sender.origin).unwrap().to_owned();
    let nonce =
        |answer: &http::Response<Bytes>| answer.headers()["replay-nonce"].to_str().unwrap().to_owned();
    let answer = connection.send(&path(&format!("{directory}/new-nonce")), None).await.unwrap();
    sender.used = nonce(&answer);
    let url = format!("{directory}/new-account");
    let header = json!({"alg": "ES256", "jwk": jwk, "nonce": sender.used, "url": url});
    let body = sender.sign(&header, json!({"termsOfServiceAgreed": true}).to_string()).to_string();
    let answer = connection.send(&path(&url), Some(body.into())).await.unwrap();
    assert_eq!(answer.status(), 201, "{answer:?}");
    let kid = answer.headers()["location"].to_str().unwrap().to_owned();
    let first = nonce(&answer);
    let path = |sender: &Sender, url: &str| url.strip_prefix(&sender.origin).unwrap().to_owned();
    (sender.kid, sender.nonce) = (kid, first);
    let url = format!("{directory}/new-order");
    let order = json!({"identifiers": [{"type": "dns", "value": "malformed.example.test"}]}).to_string();
    let body = sender.sign(&sender.header(&url), order).to_string();
    let answer = connection.send(&path(&sender, &url), Some(body.into())).await.unwrap();
    assert_eq!(answer.status(), 201, "{answer:?}");
    sender.nonce = nonce(&answer);
    sender.order = answer.headers()["location"].to_str().unwrap().to_owned();
    let object: Value = serde_json::from_slice(answer.body()).unwrap();
    sender.finalize = text(&object["finalize"]);
    sender.authorization = text(&object["authorizations"][0]);
    let body = sender.sign(&sender.header(&sender.authorization), "").to_string();
    let answer = connection.send(&path(&sender, &sender.authorization), Some(body.into())).await.unwrap();
    let object: Value = serde_json::from_slice(answer.body()).unwrap();
    sender.nonce = nonce(&answer);
    sender.challenge = text(&object["challenges"][0]["url"]);
    sender
}

/// Resident memory of a process, KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_a17_ten_thousand_malformed_requests_get_a_problem_each() {
    let demo = Demo::start();
    let (server, mut connection, origin) = connect(&demo).await;
    let mut sender = sender(&demo, &mut connection, origin).await;
    let processes = [demo.process_of("front"), demo.process_of("signer")];
    let mut warm = Vec::new();
    let mut nonces = HashSet::from([sender.nonce.clone()]);
    for number in 0..COUNT {
        if number == WARM {
            warm = processes.map(resident).to_vec();
        }
        let Malformed { kind, method, path, content_type, body, bad_nonce } = sender.next();
        let body = Bytes::from(body);
        let answer = match connection.request(method, &path, content_type, body.clone()).await {
            Ok(answer) => answer,
            Err(_) => {
                connection = server.connect().await.unwrap();
                connection.request(method, &path, content_type, body).await.unwrap()
            }
        };
        let shown = || format!("{number}, {kind}: {answer:?}");
        assert!((400..500).contains(&answer.status().as_u16()), "{}", shown());
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{}", shown());
        let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_else(|_| panic!("{}", shown()));
        let registered: Result<ErrorType, _> = text(&problem["type"]).parse();
        let registered = registered.unwrap_or_else(|_| panic!("{}", shown()));
        assert_eq!(problem["status"], answer.status().as_u16(), "{}", shown());
        assert!(problem.get("identifier").is_none() && problem["detail"].is_string(), "{}", shown());
        assert!(bad_nonce || registered != ErrorType::BadNonce, "the nonce was good: {}", shown());
        let nonce = answer.headers()["replay-nonce"].to_str().unwrap().to_owned();
        assert!(nonces.insert(nonce.clone()), "a nonce twice: {}", shown());
        sender.nonce = nonce;
    }
    for (process, warm) in processes.into_iter().zip(warm) {
        let now = resident(process);
        assert!(now < warm + GROWTH_KIB, "process {process} grew from {warm} to {now} KiB");
    }
    // All is as it was.
    let url = sender.order.clone();
    let path = url.strip_prefix(&sender.origin).unwrap();
    let body = sender.sign(&sender.header(&url), "").to_string();
    let answer = connection.send(path, Some(body.into())).await.unwrap();
    let order: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!((answer.status().as_u16(), &order["status"]), (200, &json!("pending")));
}
