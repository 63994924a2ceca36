//! Section F: revocation (RFC 8555 §7.6). What a revocation does is the signer's; here it must get there, and get back.

use acme::ErrorType;
use serde_json::json;

use crate::client::{Client, JOSE, Key, encode, seal};
use crate::pki_double;
use crate::stage::Stage;
use crate::validator::Sight;

#[tokio::test(flavor = "multi_thread")]
async fn f1_by_the_account_that_got_it() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = stage.issue(&client, &["f1.granted.test"]).await;
    let certificate = encode(stage.leaf(&client, &url).await);
    let revoke = client.url("revokeCert");
    let answer = client.post(&revoke, &json!({"certificate": certificate, "reason": 4})).await.ok(200);
    assert!(answer.body.is_empty());
    client.post(&revoke, &json!({"certificate": certificate})).await.problem(400, "alreadyRevoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_by_the_certificates_key_without_any_account() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["f1-key.granted.test"]).await;
    let (csr, pkcs8) = pki_double::csr(&["f1-key.granted.test"]);
    client.post(order["finalize"].as_str().unwrap(), &json!({"csr": encode(csr)})).await.ok(200);
    let order = stage.poll(&client, &url, &["valid"]).await.json();
    let certificate = encode(stage.leaf(&client, order["certificate"].as_str().unwrap()).await);
    let revoke = client.url("revokeCert");
    let payload = json!({"certificate": certificate, "reason": 1}).to_string();
    let by = async |key: &Key| {
        let header = json!({"alg": "ES256", "jwk": key.jwk(), "nonce": client.nonce().await, "url": revoke});
        stage.wire.post(&revoke, JOSE, seal(key, &header, &payload).to_string()).await
    };
    by(&Key::es256()).await.problem(403, "unauthorized");
    by(&Key::es256_from_pkcs8(&pkcs8)).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_by_another_account_that_holds_all_names() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let other = Client::registered(&stage.wire, "open").await;
    let names = ["f2a.example.org", "f2b.example.org"];
    let url = stage.issue(&client, &names).await;
    let certificate = encode(stage.leaf(&client, &url).await);
    let (revoke, payload) = (other.url("revokeCert"), json!({"certificate": certificate}));
    other.post(&revoke, &payload).await.problem(403, "unauthorized");
    // One of two names is not enough, nor is one that was given up.
    stage.ready_order(&other, &names[..1]).await;
    other.post(&revoke, &payload).await.problem(403, "unauthorized");
    let (order, _) = stage.ready_order(&other, &names[1..]).await;
    let given_up = order["authorizations"][0].as_str().unwrap();
    other.post(given_up, &json!({"status": "deactivated"})).await.ok(200);
    other.post(&revoke, &payload).await.problem(403, "unauthorized");
    stage.validator.plan(names[1], [Sight::Invalid(ErrorType::IncorrectResponse)]);
    let order = other.order(&names[1..]).await.ok(201).json();
    stage.authorize(&other, order["authorizations"][0].as_str().unwrap()).await;
    other.post(&revoke, &payload).await.problem(403, "unauthorized");
    stage.ready_order(&other, &names[1..]).await;
    other.post(&revoke, &payload).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_unknown_certificates_tell_nothing() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let revoke = client.url("revokeCert");
    client.post(&revoke, &json!({"certificate": encode(b"no certificate")})).await.problem(400, "malformed");
    let foreign = encode(stage.ca.issuer_der());
    client.post(&revoke, &json!({"certificate": foreign})).await.problem(404, "malformed");
    client.post(&revoke, &json!({})).await.problem(400, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_reasons_that_a_subscriber_may_not_give() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = stage.issue(&client, &["f5.granted.test"]).await;
    let certificate = encode(stage.leaf(&client, &url).await);
    let revoke = client.url("revokeCert");
    for reason in [2, 6, 7, 8, 9, 10, 11, -1] {
        let answer = client.post(&revoke, &json!({"certificate": certificate, "reason": reason})).await;
        answer.problem(400, "badRevocationReason");
    }
    client.post(&revoke, &json!({"certificate": certificate, "reason": 5})).await.ok(200);
}
