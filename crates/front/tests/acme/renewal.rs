//! Section I: renewal information, and orders that replace a certificate (RFC 9773).

use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::renewal::CertificateId;
use http::{Method, StatusCode};
use pki::Certificate;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::stage::Stage;

/// A certificate for a name, and its id.
pub(crate) async fn issued(stage: &Stage, client: &Client, name: &str) -> (Certificate, String) {
    let url = stage.issue(client, &[name]).await;
    let certificate = Certificate::from_der(&stage.leaf(client, &url).await).unwrap();
    let id = CertificateId {
        authority_key_id: certificate.authority_key_id().unwrap().to_vec(),
        serial: certificate.serial(),
    };
    (certificate, id.to_string())
}

pub(crate) async fn replace(client: &Client, name: &str, id: &str) -> Answer {
    let payload = json!({"identifiers": [{"type": "dns", "value": name}], "replaces": id});
    client.post(&client.url("newOrder"), &payload).await
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_renewal_information_is_anybodys_and_cacheable() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (certificate, id) = issued(&stage, &client, "i1.granted.test").await;
    let url = format!("{}/{id}", client.url("renewalInfo"));
    let answer = stage.wire.get(&url).await.ok(200);
    let expected = json!({ "suggestedWindow": {
        "start": certificate.not_before().to_string(), "end": certificate.not_after().to_string() } });
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("retry-after"), Some("21600"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=21600"));
    // What a cache keeps must not have a nonce, which is good once.
    assert_eq!(answer.header("replay-nonce"), None);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("Retry-After"));
    assert_eq!(answer.links("index"), [stage.wire.directory_url("open")]);
    let head = stage.wire.plain(Method::HEAD, &url).await.ok(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("retry-after"), Some("21600"));
    let preflight = stage.wire.plain(Method::OPTIONS, &url).await.ok(204);
    assert_eq!(preflight.header("allow"), Some("GET, HEAD, OPTIONS"));
    // It is read by GET alone.
    let post = client.post_as_get(&url).await;
    post.problem(405, "malformed");
    assert_eq!(post.header("allow"), Some("GET, HEAD, OPTIONS"));
    // The signer was asked once, and a front whose signers are away goes on with what it was told.
    assert_eq!(stage.ca.renewal_calls.load(Ordering::SeqCst), 1);
    stage.ca.fail_everything(true);
    stage.wire.get(&url).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_what_is_no_certificates_id_has_no_renewal_information() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (_, id) = issued(&stage, &client, "i1x.granted.test").await;
    let (key_id, serial) = id.split_once('.').unwrap();
    let renewal_info = client.url("renewalInfo");
    for bad in [
        "x".to_owned(),
        String::new(),
        format!("{key_id}.{serial}="),
        format!("{key_id}=.{serial}"),
        format!("{key_id}.{serial}.AQ"),
        key_id.to_owned(),
        format!(".{serial}"),
        format!("{key_id}."),
        // A serial that is negative, and one with an octet too many.
        format!("{key_id}.gQ"),
        format!("{key_id}.AAE"),
        format!("{key_id}.{serial}/"),
    ] {
        let problem = stage.wire.get(&format!("{renewal_info}/{bad}")).await.problem(400, "malformed");
        assert!(problem["detail"].as_str().unwrap().contains("RFC 9773"), "{problem}");
    }
    for unknown in [format!("{key_id}.AQ"), format!("AQ.{serial}")] {
        let answer = stage.wire.get(&format!("{renewal_info}/{unknown}")).await;
        answer.problem(404, "malformed");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    stage.wire.get(&renewal_info).await.problem(404, "malformed");
    // A directory that does not offer it has none.
    stage.wire.get(&format!("https://acme.test/acme/eab/renewal-info/{id}")).await.problem(404, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_ids_of_no_certificate_cost_the_signer_one_question() {
    let stage = Stage::with(|config| config.limits.renewal_info_seconds = 1).await;
    let client = Client::registered(&stage.wire, "open").await;
    let (_, id) = issued(&stage, &client, "known.granted.test").await;
    let unknown = format!("{}/{}.AQ", client.url("renewalInfo"), id.split_once('.').unwrap().0);
    let asked = || stage.ca.renewal_calls.load(Ordering::SeqCst);
    let first = stage.wire.get(&unknown).await.problem(404, "malformed");
    assert_eq!(stage.wire.get(&unknown).await.problem(404, "malformed"), first);
    // A directory's answer is its own, and an outage is nobody's.
    stage.wire.get(&unknown.replace("/open/", "/dns/")).await.problem(404, "malformed");
    assert_eq!(asked(), 2);
    stage.ca.fail_everything(true);
    let other = unknown.replace(".AQ", ".Ag");
    assert_eq!(stage.wire.get(&other).await.status, 503);
    stage.ca.fail_everything(false);
    stage.wire.get(&other).await.problem(404, "malformed");
    // It may be a certificate's before long.
    let before = asked();
    crate::stage::until("the signer is asked again", async || {
        stage.wire.get(&unknown).await.problem(404, "malformed");
        asked() > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_an_answer_is_kept_for_a_moment() {
    let stage = Stage::with(|config| config.limits.renewal_info_seconds = 1).await;
    let client = Client::registered(&stage.wire, "open").await;
    let (certificate, id) = issued(&stage, &client, "kept.granted.test").await;
    let url = format!("{}/{id}", client.url("renewalInfo"));
    assert!(stage.wire.get(&url).await.ok(200).json().get("explanationURL").is_none());
    let revocation = json!({ "certificate": crate::client::encode(certificate.der()) });
    client.post(&client.url("revokeCert"), &revocation).await.ok(200);
    crate::stage::until("the answer changes", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = stage.wire.get(&url).await.ok(200).json();
        answer.get("explanationURL") == Some(&json!("https://ca.test/incident"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_an_order_says_what_it_replaces() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (_, id) = issued(&stage, &client, "i3.granted.test").await;
    let answer = replace(&client, "i3.granted.test", &id).await.ok(201);
    assert_eq!(answer.json()["replaces"], id.as_str());
    let url = answer.location();
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["replaces"], id.as_str());
    let finalized = stage.finalize(&client, &answer.json(), &["i3.granted.test"]).await.ok(200).json();
    assert_eq!((&finalized["status"], &finalized["replaces"]), (&json!("valid"), &json!(id)));
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["replaces"], id.as_str());
    // A valid order keeps it for good.
    replace(&client, "i3.granted.test", &id).await.problem(409, "alreadyReplaced");
    // Others' certificates, those that are not there, and what is no id.
    let stranger = Client::registered(&stage.wire, "open").await;
    replace(&stranger, "i3.granted.test", &id).await.problem(403, "unauthorized");
    replace(&client, "i3.granted.test", &format!("{}.AQ", id.split_once('.').unwrap().0))
        .await
        .problem(404, "malformed");
    for bad in ["", "x", "AAAA", &format!("{id}=")] {
        replace(&client, "i3.granted.test", bad).await.problem(400, "malformed");
    }
    // Where it is not offered it means nothing, and is not echoed.
    let mut other = Client::new(&stage.wire, "eab").await;
    let binding = crate::accounts::binding(&other, |_, _| {});
    other.register(&json!({"termsOfServiceAgreed": true, "externalAccountBinding": binding})).await.ok(201);
    let plain = replace(&other, "i3.granted.test", &id).await.ok(201).json();
    assert!(plain.get("replaces").is_none(), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_certificate_has_one_order_that_replaces_it() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (_, id) = issued(&stage, &client, "one.granted.test").await;
    let one = || replace(&client, "one.granted.test", &id);
    let at_once = tokio::join!(one(), one(), one(), one());
    let at_once = [at_once.0, at_once.1, at_once.2, at_once.3];
    let count = |status: StatusCode| at_once.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(StatusCode::CREATED), count(StatusCode::CONFLICT)), (1, 3), "{at_once:?}");
    let refused = at_once.iter().find(|answer| answer.status == StatusCode::CONFLICT).unwrap();
    refused.problem(409, "alreadyReplaced");
    // Nothing is kept of an order that was refused: its names do not count as under way.
    let account = client.account();
    let account = account.rsplit('/').next().unwrap();
    let pending = stage.store.pending(account, pki::Timestamp::from_unix(0)).await.unwrap();
    assert_eq!(pending.orders, 1);
}

/// Each way in which an order comes to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn i3_an_order_that_ends_invalid_frees_its_predecessor() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (_, id) = issued(&stage, &client, "free.granted.test").await;
    let authorization = |order: &Value| order["authorizations"][0].as_str().unwrap().to_owned();
    // Given up by its client.
    let order = replace(&client, "given-up.example.org", &id).await.ok(201).json();
    replace(&client, "free.granted.test", &id).await.problem(409, "alreadyReplaced");
    client.post(&authorization(&order), &json!({"status": "deactivated"})).await.ok(200);
    let second = replace(&client, "free.granted.test", &id).await.ok(201);
    assert_eq!(second.json()["replaces"], id.as_str());
    replace(&client, "free.granted.test", &id).await.problem(409, "alreadyReplaced");
    // Too old.
    stage.clock.advance(Duration::from_secs(2 * 86_400));
    replace(&client, "free.granted.test", &id).await.ok(201);
    let ended = client.post_as_get(&second.location()).await.ok(200).json();
    assert_eq!((&ended["status"], &ended["replaces"]), (&json!("invalid"), &json!(id)));
}
