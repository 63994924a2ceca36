//! The words themselves: JWSs and messages that are not what they should be.

use acme::jws::MAX_JWS_BYTES;
use aws_lc_rs::hmac;
use bytes::{Buf, BufMut, Bytes};
use rpc::Channel;
use serde_json::{Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use super::scene::Scene;
use crate::support::{Client, encode, json_of};

const NAME: &str = "words.victim.test";

fn payload() -> String {
    json!({ "identifiers": [{ "type": "dns", "value": NAME }] }).to_string()
}

async fn victim(scene: &mut Scene) -> Client {
    let victim = scene.client().await;
    scene.meanwhile().await;
    victim
}

/// The victim's newOrder with something else in its header, rightly signed.
fn with(victim: &Client, change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut header = victim.header("new-order");
    change(&mut header);
    victim.sign(&header, payload())
}

/// "none", as the standard spells it and as it does not.
pub(super) async fn no_algorithm(scene: &mut Scene) {
    let victim = victim(scene).await;
    for algorithm in ["none", "None", "NONE", ""] {
        let header = json!({ "alg": algorithm, "kid": victim.account_url(), "url": victim.url("new-order") });
        let jws =
            json!({ "protected": encode(header.to_string()), "payload": encode(payload()), "signature": "" });
        refuse!(scene, order(jws.to_string().as_bytes()));
    }
}

/// The account's public key as the secret of a MAC: its point, and its JWK.
pub(super) async fn mac_with_the_public_key(scene: &mut Scene) {
    let victim = victim(scene).await;
    let jwk = victim.jwk().to_string();
    for secret in [victim.public_point(), jwk.as_bytes()] {
        let mut header = victim.header("new-order");
        header["alg"] = "HS256".into();
        let (protected, payload) = (encode(header.to_string()), encode(payload()));
        let message = format!("{protected}.{payload}");
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let jws = json!({ "protected": protected, "payload": payload, "signature": encode(mac) });
        refuse!(scene, order(jws.to_string().as_bytes()));
    }
}

/// An algorithm that is good, for another key.
pub(super) async fn algorithm_of_another_key(scene: &mut Scene) {
    let victim = victim(scene).await;
    for algorithm in ["ES384", "RS256", "EdDSA"] {
        refuse!(scene, order(&with(&victim, |header| header["alg"] = algorithm.into())));
    }
    let mut header = json!({ "alg": "RS256", "jwk": victim.jwk(), "nonce": "AAAA" });
    header["url"] = victim.url("new-account").into();
    refuse!(scene, register(victim.sign(&header, "{}")));
}

/// Two keys, none, or the kind that does not go with the request.
pub(super) async fn key_and_account_at_once(scene: &mut Scene) {
    let victim = victim(scene).await;
    let front = scene.stranger("strict");
    refuse!(scene, order(&with(&victim, |header| header["jwk"] = victim.jwk())));
    let mut header = victim.header("new-order");
    header["jwk"] = front.jwk();
    refuse!(scene, order(&front.sign(&header, payload())));
    refuse!(scene, order(&with(&victim, |header| drop(header.as_object_mut().unwrap().remove("kid")))));
    refuse!(scene, order(&victim.request_with_jwk("new-order", &json!({}))));
    let mut header = victim.header("new-account");
    header["nonce"] = "AAAA".into();
    refuse!(scene, register(victim.sign(&header, "{}")));
}

/// Keys that prove nothing: off the curve, too short, private, symmetric.
pub(super) async fn weak_key(scene: &mut Scene) {
    let client = scene.stranger("strict");
    let zero = encode([0; 32]);
    let (mut off, mut private) = (client.jwk(), client.jwk());
    off["y"] = zero.clone().into();
    private["d"] = zero.clone().into();
    for (algorithm, jwk) in [
        ("ES256", off),
        ("ES256", private),
        ("ES256", json!({ "kty": "oct", "k": zero })),
        ("RS256", json!({ "kty": "RSA", "e": "AQAB", "n": encode([0xff; 128]) })),
        ("RS256", json!({ "kty": "RSA", "e": "AQ", "n": encode([0xff; 256]) })),
        ("EdDSA", json!({ "kty": "OKP", "crv": "Ed25519", "x": zero })),
    ] {
        let header =
            json!({ "alg": algorithm, "jwk": jwk, "nonce": "AAAA", "url": client.url("new-account") });
        refuse!(scene, register(client.sign(&header, "{}")));
    }
}

/// A member twice: one for the front's reader, and one for the signer's.
pub(super) async fn members_twice(scene: &mut Scene) {
    let victim = victim(scene).await;
    let front = scene.client().await;
    scene.meanwhile().await;
    let header = victim.header("new-order").to_string();
    let twice = header.replacen('{', &format!("{{\"url\":{},", Value::from(victim.url("revoke-cert"))), 1);
    refuse!(scene, order(&victim.sign_text(&twice, payload())));
    let twice = header.replacen('{', &format!("{{\"kid\":{},", Value::from(front.account_url())), 1);
    refuse!(scene, order(&victim.sign_text(&twice, payload())));
    let jws = String::from_utf8(victim.new_order(&[NAME])).expect("JSON");
    let twice = jws.replacen('{', &format!("{{\"payload\":\"{}\",", encode("{}")), 1);
    refuse!(scene, order(twice.as_bytes()));
}

/// Extensions that would have to be understood.
pub(super) async fn critical_parameters(scene: &mut Scene) {
    let victim = victim(scene).await;
    for critical in [json!(["exp"]), json!(["b64"]), json!([]), json!("url"), Value::Null] {
        refuse!(scene, order(&with(&victim, |header| header["crit"] = critical.clone())));
    }
}

/// A payload that is not encoded, or could be read in two ways.
pub(super) async fn unencoded_payload(scene: &mut Scene) {
    let victim = victim(scene).await;
    for value in [json!(false), json!(true), Value::Null] {
        refuse!(scene, order(&with(&victim, |header| header["b64"] = value.clone())));
    }
}

/// Parameters that nobody signed.
pub(super) async fn unprotected_header(scene: &mut Scene) {
    let victim = victim(scene).await;
    let mut jws = json_of(&victim.new_order(&[NAME]));
    for header in [json!({ "kid": victim.account_url() }), json!({}), Value::Null] {
        jws["header"] = header;
        refuse!(scene, order(jws.to_string().as_bytes()));
    }
}

/// The victim's signature and the front's.
pub(super) async fn several_signatures(scene: &mut Scene) {
    let victim = victim(scene).await;
    let genuine = json_of(&victim.new_order(&[NAME]));
    let one = json!({ "protected": genuine["protected"], "signature": genuine["signature"] });
    let general = json!({ "payload": genuine["payload"], "signatures": [one.clone(), one] });
    refuse!(scene, order(general.to_string().as_bytes()));
    let mut both = genuine;
    both["signatures"] = json!([]);
    refuse!(scene, order(both.to_string().as_bytes()));
}

/// Everything that is no JWS.
pub(super) async fn malformed_words(scene: &mut Scene) {
    let victim = victim(scene).await;
    let genuine = victim.new_order(&[NAME]);
    let text = String::from_utf8(genuine.clone()).expect("JSON");
    let protected = json_of(&genuine)["protected"].as_str().expect("a text").to_owned();
    let mut bad: Vec<Vec<u8>> =
        ["", " ", "null", "[]", "{}", "0", "\"\"", "{\"protected\":1}", "\u{feff}{}", "{\"a\":}"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec();
    // Cut short, with something behind it, deeply nested, not UTF-8.
    bad.extend([1, 2, genuine.len() / 2, genuine.len() - 1].map(|length| genuine[..length].to_vec()));
    bad.push([&genuine[..], b"{}"].concat());
    bad.push("[".repeat(20_000).into_bytes());
    bad.push(format!("{{\"x\":{}{},{}", "[".repeat(5000), "]".repeat(5000), &text[1..]).into_bytes());
    bad.push(vec![0xff; 300]);
    bad.push(text.replace("payload", "pay\u{0}load").into_bytes());
    // base64 of another alphabet, padded, with white space, and not in its one form.
    bad.push(text.replace(&protected, &format!("{protected}=")).into_bytes());
    bad.push(text.replace(&protected, &format!("{protected}\\n")).into_bytes());
    bad.push(text.replace(&protected, &format!("{protected}+/")).into_bytes());
    let signature = json_of(&genuine)["signature"].as_str().expect("a text").to_owned();
    // 64 octets are 86 characters, the last of which has four bits to spare.
    let last = if signature.ends_with('A') { "B" } else { "_" };
    let spare = format!("{}{last}", &signature[..85]);
    bad.push(text.replace(&signature, &spare).into_bytes());
    for jws in bad {
        refuse!(scene, order(&jws));
    }
}

/// Larger than any request, and much larger.
pub(super) async fn oversized_words(scene: &mut Scene) {
    let victim = victim(scene).await;
    let genuine = String::from_utf8(victim.new_order(&[NAME])).expect("JSON");
    for size in [MAX_JWS_BYTES + 1, 1 << 20] {
        let padded = format!("{}{genuine}", " ".repeat(size - genuine.len()));
        refuse!(scene, order(padded.as_bytes()));
    }
}

/// Larger than a message may be: in one JWS, and in evidence.
pub(super) async fn oversized_message(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &["oversized.victim.test"]).await;
    scene.meanwhile().await;
    let outcome = scene.order(&vec![b' '; (4 << 20) + 1]).await;
    scene.turned_away(outcome, Code::OutOfRange, "rpc-too-large");
    let mut request = ready.finalized_by(&victim);
    let receipt = request.authorizations[0].receipts[0].clone();
    request.authorizations[0].receipts = vec![receipt; 8000];
    let outcome = scene.issue(request).await;
    scene.turned_away(outcome, Code::OutOfRange, "rpc-too-large");
}

/// Octets that are no message of these services.
pub(super) async fn malformed_message(scene: &mut Scene) {
    let channel = scene.system.channel(&scene.system.node("front"));
    let mut random = [0_u8; 64];
    let mut state = SEED;
    for at in 0..40 {
        random.fill_with(|| next(&mut state) as u8);
        // A field of a wire type that there is not: never a message, whatever follows.
        random[0] = 0x0f;
        let path = UNARY[at % UNARY.len()];
        let outcome = call(&channel, path, Bytes::copy_from_slice(&random)).await;
        scene.turned_away(outcome, Code::Internal, "rpc-malformed");
    }
}

/// Genuine words with an octet changed, taken out or put in: 400 times, the same ones in every run.
pub(super) async fn damaged_words(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &["damaged.victim.test"]).await;
    scene.meanwhile().await;
    let mut state = SEED;
    let finalize = ready.finalized_by(&victim).finalize_jws;
    for _ in 0..400 {
        let of_order = next(&mut state).is_multiple_of(2);
        let genuine = json_of(if of_order { &ready.new_order } else { &finalize });
        let member = ["payload", "signature"][(next(&mut state) % 2) as usize];
        let mut text = genuine[member].as_str().expect("a text").as_bytes().to_vec();
        let at = (next(&mut state) as usize) % text.len();
        match next(&mut state) % 3 {
            // Another character of base64url, or of no alphabet.
            0 => text[at] = if text[at] == b'Q' { b'R' } else { b'Q' },
            1 => drop(text.remove(at)),
            _ => text.insert(at, b"Q-_+ ="[(next(&mut state) % 6) as usize]),
        }
        let mut damaged = genuine.clone();
        damaged[member] = String::from_utf8(text).expect("ASCII").into();
        let damaged = damaged.to_string().into_bytes();
        if of_order {
            refuse!(scene, order(&damaged));
        } else {
            refuse!(scene, issue(ready.with(damaged)));
        }
    }
}

const UNARY: [&str; 4] = [
    "/chancery.signer.v1.Authority/Issue",
    "/chancery.signer.v1.Authority/AuthorizeOrder",
    "/chancery.signer.v1.Authority/RegisterAccount",
    "/chancery.signer.v1.Authority/Revoke",
];

const SEED: u64 = 0x005e_ed0f_c1a5;

/// xorshift64*: enough to choose an octet, and the same in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
}

/// A call with a message of any octets.
pub(crate) async fn call(channel: &Channel, path: &'static str, message: Bytes) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse().expect("a path");
    Ok(grpc.unary(Request::new(message), path, Octets).await?.into_inner())
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
struct Octets;

impl Codec for Octets {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
