//! Section D: challenges and their tries (RFC 8555 §7.1.5, §7.5.1, §8).

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::ErrorType;
use serde_json::json;

use crate::ca::Gate;
use crate::client::{Client, text};
use crate::stage::{Stage, until};
use crate::validator::Sight;

fn challenges_of(authorization: &serde_json::Value) -> Vec<serde_json::Value> {
    authorization["challenges"].as_array().unwrap().clone()
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
        let stranger = Client::registered(&stage.wire, "open").await;
        let (url, done) = if look_at_the_order { (&order, "ready") } else { (&authorization, "valid") };
        let look = async { client.post_as_get(url).await.ok(200).json()["status"].clone() };
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            held.release();
        };
        // A stranger who looks meanwhile sees nothing of it.
        let strangers = async { stranger.post_as_get(&authorization).await.problem(404, "malformed") };
        assert_eq!(tokio::join!(look, strangers, release).0, done);
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
