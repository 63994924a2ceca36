//! Section D: orders and authorizations (RFC 8555 §7.1, §7.4, §7.5).

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::ErrorType;
use serde_json::{Value, json};

use crate::ca::Gate;
use crate::client::{Client, text};
use crate::stage::Stage;
use crate::validator::Sight;

#[tokio::test(flavor = "multi_thread")]
async fn d1_new_order_says_all_there_is() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let answer = client.order(&["b.example.org", "a.example.org"]).await.ok(201);
    let url = answer.location();
    let order = answer.json();
    assert_eq!(order["status"], "pending");
    assert!(text(&order["expires"]).ends_with('Z'));
    assert_eq!(order["authorizations"].as_array().unwrap().len(), 2);
    assert_eq!(order["finalize"], format!("{url}/finalize"));
    assert_eq!(order["profile"], "tls");
    assert!(order.get("error").is_none() && order.get("certificate").is_none());
    let before = order.clone();
    stage.authorize(&client, &text(&order["authorizations"][0])).await;
    let order = client.post_as_get(&url).await.ok(200).json();
    assert_eq!(order["status"], "pending");
    stage.authorize(&client, &text(&order["authorizations"][1])).await;
    let order = client.post_as_get(&url).await.ok(200).json();
    assert_eq!(order["status"], "ready");
    assert_eq!(
        (&order["identifiers"], &order["authorizations"]),
        (&before["identifiers"], &before["authorizations"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_granted_names_make_a_ready_order() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["x.granted.test", "*.granted.test"]).await.ok(201).json();
    assert_eq!(order["status"], "ready");
    for url in order["authorizations"].as_array().unwrap() {
        let authorization = client.post_as_get(url.as_str().unwrap()).await.ok(200).json();
        assert_eq!((&authorization["status"], &authorization["challenges"]), (&json!("valid"), &json!([])));
    }
    // One name that is not granted makes the order wait for it alone.
    let order = client.order(&["y.granted.test", "y.example.org"]).await.ok(201).json();
    assert_eq!(order["status"], "pending");
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_wildcard_shows_without_its_star_and_needs_dns() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["*.granted.test", "plain.granted.test"]).await.ok(201).json();
    let shown: HashSet<_> =
        order["identifiers"].as_array().unwrap().iter().map(|one| text(&one["value"])).collect();
    assert_eq!(shown, HashSet::from(["*.granted.test".to_owned(), "plain.granted.test".to_owned()]));
    let mut seen = HashSet::new();
    for url in order["authorizations"].as_array().unwrap() {
        let authorization = client.post_as_get(url.as_str().unwrap()).await.ok(200).json();
        let wildcard = authorization.get("wildcard").cloned();
        assert!(wildcard.is_none() || wildcard == Some(json!(true)));
        seen.insert((text(&authorization["identifier"]["value"]), wildcard.is_some()));
    }
    assert_eq!(
        seen,
        HashSet::from([("granted.test".to_owned(), true), ("plain.granted.test".to_owned(), false)])
    );
    // No challenge offered here can show control of a wildcard: refused at once, not left to hang.
    let problem = client.order(&["*.example.org"]).await.problem(400, "rejectedIdentifier");
    assert_eq!(problem["subproblems"][0]["identifier"]["value"], "*.example.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_names_are_strict() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let long = format!("{}.example.org", "a".repeat(64));
    for bad in
        ["example.org.", "a_b.example.org", "*.*.example.org", "a.*.example.org", "192.0.2.1", "", &long]
    {
        client.order(&[bad]).await.problem(400, "rejectedIdentifier");
    }
    let order = |identifiers: Value| json!({"identifiers": identifiers});
    let url = client.url("newOrder");
    let unknown = client.post(&url, &order(json!([{"type": "email", "value": "a@example.org"}]))).await;
    unknown.problem(400, "unsupportedIdentifier");
    client.post(&url, &order(json!([]))).await.problem(400, "malformed");
    client.post(&url, &json!({})).await.problem(400, "malformed");
    let many: Vec<_> = (0..101).map(|number| format!("n{number}.example.org")).collect();
    client.order(&many.iter().map(String::as_str).collect::<Vec<_>>()).await.problem(400, "malformed");
    let merged = client.order(&["Dup.example.org", "dup.example.org"]).await.ok(201).json();
    assert_eq!(merged["identifiers"], json!([{"type": "dns", "value": "dup.example.org"}]));
    let address =
        client.post(&url, &order(json!([{"type": "ip", "value": "192.0.2.1"}]))).await.ok(201).json();
    assert_eq!(address["identifiers"], json!([{"type": "ip", "value": "192.0.2.1"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_times_that_cannot_be_honoured_are_refused() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    for member in ["notBefore", "notAfter"] {
        let payload = json!({"identifiers": [{"type": "dns", "value": "t.example.org"}],
            member: "2030-01-01T00:00:00Z"});
        client.post(&client.url("newOrder"), &payload).await.problem(400, "malformed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_an_order_follows_its_authorizations() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    // One that fails.
    stage.validator.plan("bad.example.org", [Sight::Invalid(ErrorType::IncorrectResponse)]);
    let answer = client.order(&["good.example.org", "bad.example.org"]).await.ok(201);
    for url in answer.json()["authorizations"].as_array().unwrap() {
        stage.authorize(&client, url.as_str().unwrap()).await;
    }
    let order = client.post_as_get(&answer.location()).await.ok(200).json();
    assert_eq!(order["status"], "invalid");
    assert_eq!(order["error"]["type"], "urn:ietf:params:acme:error:unauthorized");
    stage
        .finalize(&client, &order, &["good.example.org", "bad.example.org"])
        .await
        .problem(403, "orderNotReady");
    // One that is given up after the order was ready.
    let (order, url) = stage.ready_order(&client, &["given-up.example.org"]).await;
    let authorization = text(&order["authorizations"][0]);
    client.post(&authorization, &json!({"status": "deactivated"})).await.ok(200);
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "invalid");
    stage.finalize(&client, &order, &["given-up.example.org"]).await.problem(403, "orderNotReady");
    // One that grows too old, with its order.
    let (order, url) = stage.ready_order(&client, &["old.example.org"]).await;
    stage.clock.advance(Duration::from_secs(25 * 3600));
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "invalid");
    let authorization = client.post_as_get(&text(&order["authorizations"][0])).await.ok(200).json();
    assert_eq!(authorization["status"], "expired");
    stage.finalize(&client, &order, &["old.example.org"]).await.problem(403, "orderNotReady");
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_only_the_owner_gives_an_authorization_up() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let stranger = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["up.example.org"]).await.ok(201).json();
    let url = text(&order["authorizations"][0]);
    let give_up = json!({"status": "deactivated"});
    stranger.post(&url, &give_up).await.problem(404, "malformed");
    client.post(&url, &json!({"status": "valid"})).await.problem(400, "malformed");
    for _ in 0..2 {
        assert_eq!(client.post(&url, &give_up).await.ok(200).json()["status"], "deactivated");
    }
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "deactivated");
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_authorizations_are_used_again_within_the_time_only() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "reuse").await;
    let other = Client::registered(&stage.wire, "reuse").await;
    let first = stage.ready_order(&client, &["again.example.org"]).await.0;
    let second = client.order(&["again.example.org"]).await.ok(201).json();
    assert_eq!(second["status"], "ready");
    assert_eq!(second["authorizations"], first["authorizations"]);
    // An order on an older authorization ends with what the signer would still accept.
    assert!(text(&second["expires"]) < text(&first["expires"]), "{second} {first}");
    // It gets a certificate: the signer accepts the older receipts.
    stage.finalize(&client, &second, &["again.example.org"]).await.ok(200);
    // Not for another account, not for another name.
    assert_eq!(other.order(&["again.example.org"]).await.ok(201).json()["status"], "pending");
    assert_eq!(client.order(&["x.again.example.org"]).await.ok(201).json()["status"], "pending");
    // Not when the time is over, and not in a directory without reuse.
    stage.clock.advance(Duration::from_secs(24 * 3600 - 300));
    assert_eq!(client.order(&["again.example.org"]).await.ok(201).json()["status"], "pending");
    let client = Client::registered(&stage.wire, "open").await;
    stage.ready_order(&client, &["never-again.example.org"]).await;
    assert_eq!(client.order(&["never-again.example.org"]).await.ok(201).json()["status"], "pending");
}

/// What was validated before the time that the directory names is validated again.
#[tokio::test(flavor = "multi_thread")]
async fn d10_authorizations_from_before_a_mended_validation_are_not_used_again() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "since").await;
    stage.ready_order(&client, &["again.example.org"]).await;
    let status = async || client.order(&["again.example.org"]).await.ok(201).json()["status"].clone();
    assert_eq!(status().await, "pending");
    stage.clock.advance(Duration::from_secs(3700));
    assert_eq!(status().await, "pending");
    stage.ready_order(&client, &["again.example.org"]).await;
    assert_eq!(status().await, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_orders_are_listed_in_pages_without_invalid_ones() {
    let stage = Stage::with(|config| config.limits.orders_per_page = 2).await;
    let client = Client::registered(&stage.wire, "open").await;
    let mut made = HashSet::new();
    for number in 0..5 {
        made.insert(client.order(&[&format!("o{number}.example.org")]).await.ok(201).location());
    }
    stage.validator.plan("lost.example.org", [Sight::Invalid(ErrorType::IncorrectResponse)]);
    let lost = client.order(&["lost.example.org"]).await.ok(201).json();
    stage.authorize(&client, &text(&lost["authorizations"][0])).await;
    let orders = text(&client.post_as_get(&client.account()).await.ok(200).json()["orders"]);
    let (mut listed, mut next, mut pages) = (HashSet::new(), Some(orders.clone()), 0);
    while let Some(url) = next {
        let answer = client.post_as_get(&url).await.ok(200);
        let page = answer.json()["orders"].as_array().unwrap().clone();
        assert!(page.len() <= 2);
        listed.extend(page.iter().map(text));
        next = answer.links("next").into_iter().next();
        pages += 1;
    }
    assert_eq!(listed, made);
    assert!(pages >= 3);
    let stranger = Client::registered(&stage.wire, "open").await;
    stranger.post_as_get(&orders).await.problem(403, "unauthorized");
    // A cursor leads through one's own orders, whoever got it.
    stranger.post_as_get(&format!("{orders}?cursor=MQ")).await.problem(403, "unauthorized");
    let own = format!("{}/orders", stranger.account());
    for cursor in ["?cursor=MA", "?cursor=LTE", "?cursor=eA", "?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"] {
        let listed = stranger.post_as_get(&format!("{own}{cursor}")).await.ok(200).json();
        assert_eq!(listed["orders"], json!([]), "{cursor}");
    }
    for bad in ["?cursor=%%%", "?cursor=", "?cursor=MQ==", "?page=1"] {
        let answer = client.post_as_get(&format!("{orders}{bad}")).await;
        if bad != "?cursor=" {
            answer.problem(404, "malformed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d12_location_is_on_every_answer_about_an_order() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.order(&["located.granted.test"]).await.ok(201).location();
    let answer = client.post_as_get(&url).await.ok(200);
    assert_eq!(answer.location(), url);
    let finalized = stage.finalize(&client, &answer.json(), &["located.granted.test"]).await.ok(200);
    assert_eq!(finalized.location(), url);
    assert_eq!(client.post_as_get(&url).await.ok(200).location(), url);
}

#[tokio::test(flavor = "multi_thread")]
async fn d13_retry_after_where_there_is_something_to_wait_for() {
    let stage = Stage::with(|config| config.limits.finalize_wait_milliseconds = 100).await;
    let client = Client::registered(&stage.wire, "open").await;
    let seconds =
        |answer: &crate::client::Answer| answer.header("retry-after").unwrap().parse::<u32>().unwrap();
    let held = Gate::default();
    stage.validator.plan("wait.example.org", [Sight::Held(held.clone())]);
    let answer = client.order(&["wait.example.org"]).await.ok(201);
    let (order, order_url) = (answer.json(), answer.location());
    let url = text(&order["authorizations"][0]);
    let idle = client.post_as_get(&url).await.ok(200);
    assert_eq!(idle.header("retry-after"), None);
    let challenge = text(&idle.json()["challenges"][0]["url"]);
    assert_eq!(client.post_as_get(&order_url).await.ok(200).header("retry-after"), None);
    assert!(seconds(&client.post(&challenge, &json!({})).await.ok(200)) > 0);
    assert!(seconds(&client.post_as_get(&url).await.ok(200)) > 0);
    // Many clients look at the order alone.
    let pending = client.post_as_get(&order_url).await.ok(200);
    assert_eq!(pending.json()["status"], "pending");
    assert!(seconds(&pending) > 0);
    held.release();
    stage.poll(&client, &url, &["valid"]).await;
    let issuing = stage.ca.hold_issuances();
    let answer = stage.finalize(&client, &order, &["wait.example.org"]).await.ok(200);
    assert_eq!(answer.json()["status"], "processing");
    assert!(seconds(&answer) > 0);
    assert_eq!(answer.location(), order_url, "D12, where it matters");
    assert!(seconds(&client.post_as_get(&order_url).await.ok(200)) > 0);
    issuing.release();
    stage.poll(&client, &order_url, &["valid"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d14_fast_polling_during_issuance_loses_nothing() {
    let stage = Stage::with(|config| config.limits.finalize_wait_milliseconds = 1).await;
    let client = Client::registered(&stage.wire, "open").await;
    for number in 0..5 {
        let name = format!("fast{number}.granted.test");
        let (order, url) = stage.ready_order(&client, &[&name]).await;
        let polls = async {
            tokio::join!(
                stage.poll(&client, &url, &["valid"]),
                stage.poll(&client, &url, &["valid"]),
                stage.poll(&client, &url, &["valid"]),
            )
        };
        let names = [name.as_str()];
        let (answer, polled) = tokio::join!(stage.finalize(&client, &order, &names), polls);
        answer.ok(200);
        assert_eq!(polled.0.json()["certificate"], polled.2.json()["certificate"]);
    }
    assert_eq!(stage.ca.certificates(), 5);
}
