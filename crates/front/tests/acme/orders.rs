//! Section D: orders, authorizations, challenges (RFC 8555 §7.1, §7.4, §7.5).

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::ErrorType;
use serde_json::{Value, json};

use crate::ca::Gate;
use crate::client::Client;
use crate::stage::{Stage, until};
use crate::validator::Sight;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

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
async fn d6_a_challenge_is_asked_for_once_however_often() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let held = Gate::default();
    stage.validator.plan("once.example.org", [Sight::Held(held.clone())]);
    let order = client.order(&["once.example.org"]).await.ok(201).json();
    let authorization = text(&order["authorizations"][0]);
    let challenge = text(&client.post_as_get(&authorization).await.ok(200).json()["challenges"][0]["url"]);
    let answer = client.post(&challenge, &json!({})).await.ok(200);
    assert_eq!(answer.json()["url"], challenge);
    assert_eq!(answer.json()["status"], "processing");
    assert_eq!(answer.links("up"), [authorization.as_str()]);
    held.reached().await;
    for _ in 0..3 {
        // A slow try is still a try that runs.
        stage.clock.advance(Duration::from_secs(5));
        let again = client.post(&challenge, &json!({})).await.ok(200).json();
        assert_eq!(again["status"], "processing");
        client.post_as_get(&authorization).await.ok(200);
    }
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 1);
    held.release();
    stage.poll(&client, &authorization, &["valid"]).await;
    let after = client.post(&challenge, &json!({})).await.ok(200);
    assert_eq!(after.json()["status"], "valid");
    assert_eq!(after.links("up"), [authorization.as_str()]);
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 1);
    assert_eq!(client.post_as_get(&challenge).await.ok(200).json()["status"], "valid");
    // The payload must be an object.
    client.post_text(&challenge, "[]").await.problem(400, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_failed_tries_show_and_only_the_last_is_the_end() {
    let stage = Stage::with(|config| {
        config.validation.retry_milliseconds = vec![400, 800];
        // Looks that see what is between two tries.
        config.limits.poll_wait_milliseconds = 0;
    })
    .await;
    let client = Client::registered(&stage.wire, "open").await;
    // The target cannot be reached at first: tried again, with what went wrong to be seen meanwhile.
    stage.validator.plan("late.example.org", [Sight::Invalid(ErrorType::Connection), Sight::Valid]);
    let order = client.order(&["late.example.org"]).await.ok(201).json();
    let url = text(&order["authorizations"][0]);
    let challenge = text(&client.post_as_get(&url).await.ok(200).json()["challenges"][0]["url"]);
    client.post(&challenge, &json!({})).await.ok(200);
    let mut seen = None;
    until("a failed try", async || {
        let answer = client.post_as_get(&url).await.ok(200);
        let failed = answer.json()["challenges"][0]["error"].is_object();
        seen = Some(answer);
        failed
    })
    .await;
    let seen = seen.unwrap();
    let object = seen.json();
    assert_eq!(
        (&object["status"], &object["challenges"][0]["status"]),
        (&json!("pending"), &json!("processing"))
    );
    assert_eq!(object["challenges"][0]["error"]["type"], "urn:ietf:params:acme:error:connection");
    assert!(seen.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    let valid = stage.poll(&client, &url, &["valid", "invalid"]).await.json();
    assert_eq!(valid["status"], "valid");
    assert!(text(&valid["expires"]).ends_with('Z'));
    assert!(text(&valid["challenges"][0]["validated"]).ends_with('Z'));
    assert!(valid["challenges"][0].get("error").is_none());
    // Never to be reached: three tries, then the end, with the challenge and its error still to be seen.
    let never = || Sight::Invalid(ErrorType::Connection);
    stage.validator.plan("never.example.org", [never(), never(), never(), never()]);
    let looks = stage.validator.looks.load(Ordering::SeqCst);
    let order = client.order(&["never.example.org"]).await.ok(201).json();
    let invalid = stage.authorize(&client, &text(&order["authorizations"][0])).await;
    assert_eq!(invalid["status"], "invalid");
    assert_eq!(invalid["challenges"][0]["status"], "invalid");
    assert_eq!(invalid["challenges"][0]["error"]["type"], "urn:ietf:params:acme:error:connection");
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst) - looks, 3);
    // A wrong answer is not worth another look.
    stage.validator.plan("wrong.example.org", [Sight::Invalid(ErrorType::IncorrectResponse)]);
    let order = client.order(&["wrong.example.org"]).await.ok(201).json();
    assert_eq!(stage.authorize(&client, &text(&order["authorizations"][0])).await["status"], "invalid");
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst) - looks, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_validator_that_is_away_costs_the_client_no_try() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    // Silence, then all but one of the tries that the client has, and silence again before the last.
    let failed = [Sight::Invalid(ErrorType::Connection), Sight::Invalid(ErrorType::Connection)];
    stage
        .validator
        .plan("patient.example.org", std::iter::repeat_n(Sight::Away, 5).chain(failed).chain([Sight::Away]));
    let order = client.order(&["patient.example.org"]).await.ok(201).json();
    let authorization = stage.authorize(&client, &text(&order["authorizations"][0])).await;
    assert_eq!(authorization["status"], "valid");
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_try_whose_front_died_is_made_again_at_a_poll() {
    // Of its authorization, or of its order: there are clients that look at one of them only.
    for look_at_the_order in [false, true] {
        let stage = Stage::new().await;
        let mut client = Client::registered(&stage.wire, "open").await;
        let held = Gate::default();
        stage.validator.plan("orphan.example.org", [Sight::Held(held.clone()), Sight::Valid]);
        let answer = client.order(&["orphan.example.org"]).await.ok(201);
        let order = answer.location();
        let authorization = text(&answer.json()["authorizations"][0]);
        let challenge =
            text(&client.post_as_get(&authorization).await.ok(200).json()["challenges"][0]["url"]);
        client.post(&challenge, &json!({})).await.ok(200);
        held.reached().await;
        let stage = stage.kill().await;
        client.wire = stage.wire.clone();
        let (url, done) = if look_at_the_order { (order, "ready") } else { (authorization, "valid") };
        assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "pending");
        stage.clock.advance(Duration::from_secs(60));
        stage.poll(&client, &url, &[done]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_one_look_at_a_running_validation_is_enough() {
    for look_at_the_order in [false, true] {
        let stage = Stage::with(|config| config.limits.poll_wait_milliseconds = 15_000).await;
        let client = Client::registered(&stage.wire, "open").await;
        let held = Gate::default();
        stage.validator.plan("soon.example.org", [Sight::Held(held.clone())]);
        let answer = client.order(&["soon.example.org"]).await.ok(201);
        let order = answer.location();
        let authorization = text(&answer.json()["authorizations"][0]);
        let challenge =
            text(&client.post_as_get(&authorization).await.ok(200).json()["challenges"][0]["url"]);
        assert_eq!(client.post(&challenge, &json!({})).await.ok(200).json()["status"], "processing");
        held.reached().await;
        // A stranger's look waits for nothing.
        let stranger = Client::registered(&stage.wire, "open").await;
        stranger.post_as_get(&authorization).await.problem(404, "malformed");
        let (url, done) = if look_at_the_order { (&order, "ready") } else { (&authorization, "valid") };
        let look = async { client.post_as_get(url).await.ok(200).json()["status"].clone() };
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            held.release();
        };
        assert_eq!(tokio::join!(look, release).0, done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_an_outcome_that_is_there_at_once_is_in_the_answer() {
    let stage = Stage::with(|config| {
        config.validation.answer_wait_milliseconds = 15_000;
        config.validation.retry_milliseconds = vec![60_000];
        config.limits.poll_wait_milliseconds = 0;
    })
    .await;
    let client = Client::registered(&stage.wire, "open").await;
    stage.validator.plan("wrong.example.org", [Sight::Invalid(ErrorType::IncorrectResponse)]);
    stage.validator.plan("later.example.org", [Sight::Invalid(ErrorType::Connection)]);
    for (name, status, of_authorization) in [
        ("right.example.org", "valid", "valid"),
        // Some clients take an error here for a refused request.
        ("wrong.example.org", "processing", "invalid"),
        ("later.example.org", "processing", "pending"),
    ] {
        let order = client.order(&[name]).await.ok(201).json();
        let url = text(&order["authorizations"][0]);
        let challenge = text(&client.post_as_get(&url).await.ok(200).json()["challenges"][0]["url"]);
        let answer = client.post(&challenge, &json!({})).await.ok(200).json();
        assert_eq!((&answer["status"], answer.get("error")), (&json!(status), None), "{name}");
        // And it is saved.
        assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], of_authorization, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_no_look_waits_when_room_is_scarce() {
    let stage = Stage::with(|config| {
        config.limits.poll_wait_milliseconds = 15_000;
        config.limits.requests = 1;
    })
    .await;
    let client = Client::registered(&stage.wire, "open").await;
    let held = Gate::default();
    stage.validator.plan("soon.example.org", [Sight::Held(held.clone())]);
    let answer = client.order(&["soon.example.org"]).await.ok(201);
    let authorization = text(&answer.json()["authorizations"][0]);
    let challenge = text(&client.post_as_get(&authorization).await.ok(200).json()["challenges"][0]["url"]);
    client.post(&challenge, &json!({})).await.ok(200);
    held.reached().await;
    assert_eq!(client.post_as_get(&authorization).await.ok(200).json()["status"], "pending");
    held.release();
    stage.poll(&client, &authorization, &["valid"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_tokens_are_long_and_the_thumbprint_is_the_current_keys() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let mut tokens = HashSet::new();
    for name in ["t1.example.org", "t2.example.org"] {
        let order = client.order(&[name]).await.ok(201).json();
        let url = text(&order["authorizations"][0]);
        let authorization = stage.authorize(&client, &url).await;
        let token = text(&authorization["challenges"][0]["token"]);
        assert!(token.len() >= 22 && acme::base64url::decode(&token).is_ok(), "{token}");
        assert!(tokens.insert(token));
    }
    let jwk = acme::Jwk::from_json(&client.key.jwk().to_string()).unwrap();
    let seen = stage.validator.thumbprints.lock().clone();
    assert_eq!(seen, vec![jwk.thumbprint().to_string(); 2]);
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

#[tokio::test(flavor = "multi_thread")]
async fn d15_only_challenges_that_every_client_can_parse() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["plain.example.org"]).await.ok(201).json();
    let authorization = client.post_as_get(&text(&order["authorizations"][0])).await.ok(200).json();
    for challenge in authorization["challenges"].as_array().unwrap() {
        assert_eq!(challenge["type"], "http-01");
        assert!(challenge["token"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_retry_after_says_when_the_next_try_comes_and_asking_again_changes_nothing() {
    let stage = Stage::with(|config| {
        config.validation.retry_milliseconds = vec![600_000];
        config.validation.answer_wait_milliseconds = 15_000;
        config.limits.poll_wait_milliseconds = 0;
    })
    .await;
    let mut client = Client::registered(&stage.wire, "open").await;
    stage.validator.plan("late.example.org", [Sight::Invalid(ErrorType::Dns), Sight::Valid]);
    let order = client.order(&["late.example.org"]).await.ok(201).json();
    let url = text(&order["authorizations"][0]);
    let challenge = text(&client.post_as_get(&url).await.ok(200).json()["challenges"][0]["url"]);
    client.post(&challenge, &json!({})).await.ok(200);
    let retry_after =
        |answer: &crate::client::Answer| answer.header("retry-after").unwrap().parse::<u64>().unwrap();
    stage.clock.advance(Duration::from_secs(100));
    let read = client.post_as_get(&url).await.ok(200);
    assert_eq!(retry_after(&read), 500);
    assert_eq!(read.json()["challenges"][0]["error"]["type"], "urn:ietf:params:acme:error:dns");
    assert_eq!(retry_after(&client.post_as_get(&challenge).await.ok(200)), 500);
    // As often as it is asked, here and at a front that knows nothing of the plan but what is stored.
    let state = client.post_as_get(&url).await.ok(200).json();
    for _ in 0..3 {
        let again = client.post(&challenge, &json!({})).await.ok(200);
        assert_eq!((retry_after(&again), &again.json()["status"]), (500, &json!("processing")));
    }
    let stage = stage.kill().await;
    client.wire = stage.wire.clone();
    client.post(&challenge, &json!({})).await.ok(200);
    assert_eq!(client.post_as_get(&url).await.ok(200).json(), state);
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 1);
    // When the try is long overdue, its front is dead: a look begins it.
    stage.clock.advance(Duration::from_secs(560));
    client.post_as_get(&url).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_tries_that_failed_before_a_restart_count() {
    let stage = Stage::with(|config| {
        config.validation.retry_milliseconds = vec![60_000];
        config.validation.answer_wait_milliseconds = 15_000;
        config.limits.poll_wait_milliseconds = 0;
    })
    .await;
    let mut client = Client::registered(&stage.wire, "open").await;
    let never = || Sight::Invalid(ErrorType::Connection);
    stage.validator.plan("never.example.org", [never(), never(), never(), never(), never()]);
    let order = client.order(&["never.example.org"]).await.ok(201).json();
    let url = text(&order["authorizations"][0]);
    let challenge = text(&client.post_as_get(&url).await.ok(200).json()["challenges"][0]["url"]);
    client.post(&challenge, &json!({})).await.ok(200);
    let stage = stage.kill().await;
    client.wire = stage.wire.clone();
    stage.clock.advance(Duration::from_secs(200));
    client.post_as_get(&url).await.ok(200);
    stage.poll(&client, &url, &["invalid"]).await;
    // The front that goes on has three tries; one of them was made before.
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_missing_record_is_looked_for_again_and_a_wrong_file_is_not() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "dns").await;
    for (method, looks) in [("http-01", 1), ("dns-01", 3)] {
        let name = format!("{method}.example.org");
        stage.validator.plan(&name, std::iter::repeat_n(Sight::Invalid(ErrorType::Unauthorized), 5));
        let before = stage.validator.looks.load(Ordering::SeqCst);
        let order = client.order(&[&name]).await.ok(201).json();
        let url = text(&order["authorizations"][0]);
        let authorization = client.post_as_get(&url).await.ok(200).json();
        let challenges = authorization["challenges"].as_array().unwrap();
        let challenge = challenges.iter().find(|one| one["type"] == method).unwrap();
        client.post(&text(&challenge["url"]), &json!({})).await.ok(200);
        stage.poll(&client, &url, &["invalid"]).await;
        assert_eq!(stage.validator.looks.load(Ordering::SeqCst) - before, looks, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_wildcard_gets_dns_challenges_only() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "dns").await;
    let order = client.order(&["*.wild.example.org", "wild.example.org"]).await.ok(201).json();
    for url in order["authorizations"].as_array().unwrap() {
        let authorization = client.post_as_get(&text(url)).await.ok(200).json();
        assert_eq!(authorization["identifier"]["value"], "wild.example.org");
        let challenges = authorization["challenges"].as_array().unwrap().iter();
        let types: Vec<_> = challenges.map(|challenge| text(&challenge["type"])).collect();
        if authorization["wildcard"] == true {
            assert_eq!(types, ["dns-01", "dns-account-01", "dns-persist-01"]);
        } else {
            assert_eq!((types.len(), authorization.get("wildcard")), (5, None));
            // The one without a token has this CA's names in its place.
            let persistent = &challenges_of(&authorization)[4];
            assert_eq!(persistent["issuer-domain-names"], json!(["ca.test"]));
            assert!(persistent.get("token").is_none());
        }
    }
}

fn challenges_of(authorization: &serde_json::Value) -> Vec<serde_json::Value> {
    authorization["challenges"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_an_old_authorization_gets_a_fresh_answer_of_caa_before_the_certificate() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "reuse").await;
    let first = stage.ready_order(&client, &["old.example.org", "given.granted.test"]).await.0;
    stage.finalize(&client, &first, &["old.example.org", "given.granted.test"]).await.ok(200);
    assert_eq!(stage.validator.caa_looks.load(Ordering::SeqCst), 0, "it came with the validation");
    stage.clock.advance(Duration::from_secs(9 * 3600));
    let names = ["old.example.org", "given.granted.test"];
    let (second, url) = stage.ready_order(&client, &names).await;
    assert_eq!(second["authorizations"][1], first["authorizations"][1]);
    // CAA forbids by now: the order is refused with the name, and can be finalized again.
    stage.validator.plan("old.example.org", [Sight::Invalid(ErrorType::Caa)]);
    let refused = stage.finalize(&client, &second, &names).await.problem(403, "caa");
    assert_eq!(refused["subproblems"][0]["identifier"]["value"], "old.example.org");
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "ready");
    // A validator that is away for a moment only delays it.
    stage.validator.plan("old.example.org", [Sight::Away]);
    stage.finalize(&client, &second, &names).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
    assert_eq!(stage.validator.caa_looks.load(Ordering::SeqCst), 3);
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_saw_is_valid_in_a_directory_for_tests_alone() {
    let stage = Stage::new().await;
    stage.validator.plan("unseen.example.org", [Sight::Assumed]);
    let client = Client::registered(&stage.wire, "test").await;
    let (first, _) = stage.ready_order(&client, &["unseen.example.org"]).await;
    stage.finalize(&client, &first, &["unseen.example.org"]).await.ok(200);
    // It is used again as any other, and CAA is not asked when it has grown old.
    stage.clock.advance(Duration::from_secs(9 * 3600));
    let (second, _) = stage.ready_order(&client, &["unseen.example.org"]).await;
    assert_eq!(second["authorizations"], first["authorizations"]);
    stage.finalize(&client, &second, &["unseen.example.org"]).await.ok(200);
    assert_eq!(stage.validator.caa_looks.load(Ordering::SeqCst), 0);
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 1);

    // Elsewhere the client hears at once that it is the server's fault, and not at its finalize.
    let client = Client::registered(&stage.wire, "open").await;
    stage.validator.plan("wanted.example.org", std::iter::repeat_n(Sight::Assumed, 10));
    let order = client.order(&["wanted.example.org"]).await.ok(201).json();
    let url = text(&order["authorizations"][0]);
    let authorization = client.post_as_get(&url).await.ok(200).json();
    client.post(&text(&authorization["challenges"][0]["url"]), &json!({})).await.ok(200);
    let mut challenge = json!(null);
    while challenge.get("error").is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        challenge = client.post_as_get(&url).await.ok(200).json()["challenges"][0].clone();
    }
    assert_eq!(challenge["error"]["type"], "urn:ietf:params:acme:error:serverInternal");
    assert!(text(&challenge["error"]["detail"]).contains("looks at nothing"), "{challenge}");
}
