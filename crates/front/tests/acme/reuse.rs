//! Section D, authorizations beyond their order: given up, used again, made without an order (RFC 8555 §7.1.4, §7.4.1, §7.5.2).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, encode, text};
use crate::stage::Stage;

const GIVE_UP: &str = r#"{"status":"deactivated"}"#;

fn dns(name: &str) -> Value {
    json!({"identifier": {"type": "dns", "value": name}})
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_what_was_given_up_counts_nowhere() {
    let (one, two) = Stage::pair().await;
    let client = Client::registered(&one.wire, "reuse").await;
    let (order, url) = one.ready_order(&client, &["up.example.org"]).await;
    let authorization = text(&order["authorizations"][0]);
    assert_eq!(one.ca.deactivations(), 0);
    client.post_text(&authorization, GIVE_UP).await.ok(200);
    assert_eq!(one.ca.deactivations(), 1, "the signer knows it before the client does");
    // At the other front as well: not for its order, not for a new one.
    let mut there = client;
    there.wire = two.wire.clone();
    assert_eq!(there.post_as_get(&url).await.ok(200).json()["status"], "invalid");
    two.finalize(&there, &order, &["up.example.org"]).await.problem(403, "orderNotReady");
    let next = there.order(&["up.example.org"]).await.ok(201).json();
    assert_eq!(next["status"], "pending");
    assert_ne!(next["authorizations"], order["authorizations"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_who_gave_a_name_up_revokes_nothing_for_it() {
    let stage = Stage::new().await;
    let owner = Client::registered(&stage.wire, "reuse").await;
    let url = stage.issue(&owner, &["held.example.org"]).await;
    let payload = json!({"certificate": encode(stage.leaf(&owner, &url).await)});
    let other = Client::registered(&stage.wire, "reuse").await;
    let (order, _) = stage.ready_order(&other, &["held.example.org"]).await;
    other.post_text(&text(&order["authorizations"][0]), GIVE_UP).await.ok(200);
    let revoke = other.url("revokeCert");
    other.post(&revoke, &payload).await.problem(403, "unauthorized");
    stage.ready_order(&other, &["held.example.org"]).await;
    other.post(&revoke, &payload).await.ok(200);
}

/// A client that is told that it is done may rely on it; one that is not, asks again.
#[tokio::test(flavor = "multi_thread")]
async fn d9_nothing_is_given_up_while_no_signer_hears_it() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["unheard.example.org"]).await;
    let authorization = text(&order["authorizations"][0]);
    // The account is in memory, so that the request gets as far as that.
    client.post_as_get(&url).await.ok(200);
    stage.ca.fail_everything(true);
    let answer = client.post_text(&authorization, GIVE_UP).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    stage.ca.fail_everything(false);
    assert_eq!(client.post_as_get(&authorization).await.ok(200).json()["status"], "valid");
    for _ in 0..2 {
        client.post_text(&authorization, GIVE_UP).await.ok(200);
    }
    assert_eq!(stage.ca.deactivations(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_pre_authorization_is_there_where_the_directory_says_so() {
    let stage = Stage::new().await;
    let without = Client::registered(&stage.wire, "open").await;
    assert!(without.directory.get("newAuthz").is_none());
    let url = without.url("newOrder").replace("new-order", "new-authz");
    without.post(&url, &dns("pre.example.org")).await.problem(404, "malformed");

    let client = Client::registered(&stage.wire, "pre").await;
    let url = client.url("newAuthz");
    client.post(&url, &dns("*.example.org")).await.problem(400, "rejectedIdentifier");
    client.post(&url, &dns("a..example.org")).await.problem(400, "rejectedIdentifier");
    let unknown = json!({"identifier": {"type": "email", "value": "a@example.org"}});
    client.post(&url, &unknown).await.problem(400, "unsupportedIdentifier");
    for payload in ["", "{}", r#"{"identifier":"pre.example.org"}"#] {
        client.post_text(&url, payload).await.problem(400, "malformed");
    }
    stage.wire.get(&url).await.problem(405, "malformed");
    let created = client.post(&url, &dns("pre.example.org")).await.ok(201);
    let object = created.json();
    assert_eq!(object["identifier"], json!({"type": "dns", "value": "pre.example.org"}));
    assert_eq!(object["status"], "pending");
    assert!(object.get("wildcard").is_none() && object["challenges"][0]["token"].is_string());
    assert_eq!(client.post_as_get(&created.location()).await.ok(200).json(), object);
    let stranger = Client::registered(&stage.wire, "pre").await;
    stranger.post_as_get(&created.location()).await.problem(404, "malformed");
    // What an operator granted needs no challenge.
    let granted = client.post(&url, &dns("pre.granted.test")).await.ok(201).json();
    assert_eq!((&granted["status"], &granted["challenges"]), (&json!("valid"), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_a_pre_authorized_name_makes_a_ready_order() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "pre").await;
    let url = client.url("newAuthz");
    let authorization = client.post(&url, &dns("early.example.org")).await.ok(201).location();
    assert_eq!(client.order(&["early.example.org"]).await.ok(201).json()["status"], "pending");
    assert_eq!(stage.authorize(&client, &authorization).await["status"], "valid");
    // Who asks again has it already.
    let again = client.post(&url, &dns("early.example.org")).await.ok(200);
    assert_eq!((again.location(), &again.json()["status"]), (authorization.clone(), &json!("valid")));
    let answer = client.order(&["early.example.org"]).await.ok(201);
    let order = answer.json();
    assert_eq!((&order["status"], &order["authorizations"]), (&json!("ready"), &json!([authorization])));
    stage.finalize(&client, &order, &["early.example.org"]).await.ok(200);
    stage.poll(&client, &answer.location(), &["valid"]).await;
    // Nobody else's, for no other name, and not for ever.
    let stranger = Client::registered(&stage.wire, "pre").await;
    assert_eq!(stranger.order(&["early.example.org"]).await.ok(201).json()["status"], "pending");
    stranger.post(&url, &dns("early.example.org")).await.ok(201);
    assert_eq!(client.order(&["a.early.example.org"]).await.ok(201).json()["status"], "pending");
    stage.clock.advance(Duration::from_secs(24 * 3600 - 300));
    assert_eq!(client.order(&["early.example.org"]).await.ok(201).json()["status"], "pending");
    client.post(&url, &dns("early.example.org")).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_pre_authorizations_count_as_pending() {
    let stage = Stage::with(|config| config.limits.pending_authorizations_per_account = 2).await;
    let client = Client::registered(&stage.wire, "pre").await;
    let url = client.url("newAuthz");
    for name in ["one.example.org", "two.example.org"] {
        client.post(&url, &dns(name)).await.ok(201);
    }
    let answer = client.post(&url, &dns("three.example.org")).await;
    answer.problem(429, "rateLimited");
    assert!(answer.header("retry-after").is_some());
}

/// RFC 9444 §4.3: one authorization for all names below the domain that the client names.
#[tokio::test(flavor = "multi_thread")]
async fn i5_an_order_rests_on_the_domain_that_it_names() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "sub").await;
    assert_eq!(client.directory["meta"]["subdomainAuthAllowed"], true);
    let below = |name: &str, above: &str| json!({"type": "dns", "value": name, "ancestorDomain": above});
    let names = ["a.example.org", "b.c.example.org", "plain.example.net"];
    let identifiers = json!([
        below(names[0], "example.org"),
        below(names[1], "example.org"),
        {"type": "dns", "value": names[2]}
    ]);
    let answer = client.post(&client.url("newOrder"), &json!({"identifiers": identifiers})).await.ok(201);
    let order = answer.json();
    assert_eq!(order["authorizations"].as_array().unwrap().len(), 2);
    let mut seen = BTreeSet::new();
    for url in order["authorizations"].as_array().unwrap() {
        let authorization = client.post_as_get(url.as_str().unwrap()).await.ok(200).json();
        let whole = authorization.get("subdomainAuthAllowed").cloned();
        let methods: Vec<_> =
            authorization["challenges"].as_array().unwrap().iter().map(|one| text(&one["type"])).collect();
        // A web server shows nothing of other names.
        assert_eq!(methods.contains(&"http-01".to_owned()), whole.is_none());
        assert!(methods.contains(&"dns-01".to_owned()));
        seen.insert((text(&authorization["identifier"]["value"]), whole == Some(json!(true))));
        stage.authorize(&client, url.as_str().unwrap()).await;
    }
    assert_eq!(seen, BTreeSet::from([("example.org".to_owned(), true), (names[2].to_owned(), false)]));
    stage.finalize(&client, &order, &names).await.ok(200);
    stage.poll(&client, &answer.location(), &["valid"]).await;
    // Of another name below it, and not beside or of a wildcard; `plain` was never for names below.
    let status = async |name: &str| client.order(&[name]).await.ok(201).json()["status"].clone();
    assert_eq!(status("d.example.org").await, "ready");
    assert_eq!(status("example.org").await, "ready");
    for other in
        ["d.example.com", "notexample.org", "*.example.org", "*.d.example.org", "x.plain.example.net"]
    {
        assert_eq!(status(other).await, "pending", "{other}");
    }
    for (name, above) in [("a.example.org", "b.example.org"), ("*.a.example.org", "example.org")] {
        let identifiers = json!({"identifiers": [below(name, above)]});
        client.post(&client.url("newOrder"), &identifiers).await.problem(400, "rejectedIdentifier");
    }
}

/// Where the directory does not offer it, the member is answered by an authorization of the name itself, however much the
/// account has of the domain (RFC 9444 §4.3).
#[tokio::test(flavor = "multi_thread")]
async fn i5_elsewhere_the_name_itself_is_authorized() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "reuse").await;
    stage.ready_order(&client, &["example.org"]).await;
    let identifiers = json!([
        {"type": "dns", "value": "a.example.org", "ancestorDomain": "example.org"},
        {"type": "dns", "value": "example.org"}
    ]);
    let answer = client.post(&client.url("newOrder"), &json!({"identifiers": identifiers})).await.ok(201);
    let order = answer.json();
    assert_eq!((&order["status"], order["authorizations"].as_array().unwrap().len()), (&json!("pending"), 2));
    for url in order["authorizations"].as_array().unwrap() {
        stage.authorize(&client, url.as_str().unwrap()).await;
    }
    stage.finalize(&client, &order, &["example.org", "a.example.org"]).await.ok(200);
    stage.poll(&client, &answer.location(), &["valid"]).await;
}

/// RFC 9444 §4.2 and its figure: the domain first, then orders for names below it without another challenge.
#[tokio::test(flavor = "multi_thread")]
async fn i5_a_domain_is_authorized_before_the_names_below_are_ordered() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "sub").await;
    let whole = json!({"identifier": {"type": "dns", "value": "example.org", "subdomainAuthAllowed": true}});
    let plain = client.post(&client.url("newAuthz"), &dns("example.org")).await.ok(201).location();
    stage.authorize(&client, &plain).await;
    // A plain one does not do.
    assert_eq!(client.order(&["sub1.example.org"]).await.ok(201).json()["status"], "pending");
    stage.clock.advance(Duration::from_secs(60));
    let created = client.post(&client.url("newAuthz"), &whole).await.ok(201);
    assert_eq!(created.json()["subdomainAuthAllowed"], true);
    stage.authorize(&client, &created.location()).await;
    assert_eq!(client.post(&client.url("newAuthz"), &whole).await.ok(200).location(), created.location());
    for name in ["sub1.example.org", "sub2.example.org"] {
        let answer = client.order(&[name]).await.ok(201);
        let order = answer.json();
        assert_eq!(
            (&order["status"], &order["authorizations"]),
            (&json!("ready"), &json!([created.location()]))
        );
        stage.finalize(&client, &order, &[name]).await.ok(200);
        stage.poll(&client, &answer.location(), &["valid"]).await;
    }
    // Elsewhere the names below are not asked for, and the authorization does not say that it is for them.
    let elsewhere = Client::registered(&stage.wire, "pre").await;
    assert!(elsewhere.directory["meta"].get("subdomainAuthAllowed").is_none());
    let object = elsewhere.post(&elsewhere.url("newAuthz"), &whole).await.ok(201).json();
    assert!(object.get("subdomainAuthAllowed").is_none(), "{object}");
    // Given up, it is for nothing.
    client.post_text(&created.location(), GIVE_UP).await.ok(200);
    assert_eq!(client.order(&["sub3.example.org"]).await.ok(201).json()["status"], "pending");
}

/// What one order asks of the database, by method.
fn since(stage: &Stage, before: usize) -> Vec<&'static str> {
    stage.asked.calls().split_off(before).into_iter().filter(|call| *call != "claim_processing").collect()
}

/// The whole way of an order for a hundred names: as many questions to database and signer as for one.
#[tokio::test(flavor = "multi_thread")]
async fn d3_a_hundred_names_cost_what_one_does() {
    let stage = Stage::with(|config| config.limits.pending_authorizations_per_account = 1_000).await;
    let client = Client::registered(&stage.wire, "reuse").await;
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.example.org")).collect();
    let hundred: Vec<&str> = names.iter().map(String::as_str).collect();
    let steps = ["pending", "reusable_authorizations", "create_orders"];
    let sorted = |calls: Vec<&'static str>| calls.into_iter().collect::<BTreeSet<_>>();
    for wanted in [&["one.example.org"][..], &hundred] {
        let before = stage.asked.calls().len();
        let answer = client.order(wanted).await.ok(201);
        let calls = since(&stage, before);
        assert_eq!((calls.len(), sorted(calls)), (3, BTreeSet::from(steps)));
        let (order, url) = (answer.json(), answer.location());
        assert_eq!(order["authorizations"].as_array().unwrap().len(), wanted.len());
        for authorization in order["authorizations"].as_array().unwrap() {
            assert_eq!(stage.authorize(&client, authorization.as_str().unwrap()).await["status"], "valid");
        }
        let before = stage.asked.calls().len();
        assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "ready");
        let calls = since(&stage, before);
        assert!(calls.len() <= 2, "{calls:?}");
        let before = stage.asked.calls().len();
        stage.finalize(&client, &order, wanted).await.ok(200);
        let issued = stage.poll(&client, &url, &["valid"]).await.json();
        let calls = since(&stage, before);
        assert!(calls.iter().filter(|call| **call == "save").count() <= 2, "{calls:?}");
        assert!(calls.len() <= 8, "{calls:?}");
        let leaf = stage.leaf(&client, issued["certificate"].as_str().unwrap()).await;
        let certificate = pki::Certificate::from_der(&leaf).unwrap();
        assert_eq!(certificate.names().unwrap().len(), wanted.len());
        // Again: ready at once, for the same price.
        let before = stage.asked.calls().len();
        let again = client.order(wanted).await.ok(201).json();
        let calls = since(&stage, before);
        assert_eq!((calls.len(), sorted(calls)), (3, BTreeSet::from(steps)));
        assert_eq!((&again["status"], &again["authorizations"]), (&json!("ready"), &order["authorizations"]));
    }
}
