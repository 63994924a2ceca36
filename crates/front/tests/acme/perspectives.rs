//! Sections D, E and H: looks of validators. What several perspectives say comes to the same at the front as at the signer,
//! and whatever they say or do not say, every order comes to an end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::ErrorType;
use serde_json::{Value, json};

use crate::ca::Gate;
use crate::client::{Client, text};
use crate::stage::{Stage, until};
use crate::validator::{Eye, Sight};

const SILENT: Sight = Sight::Each([Eye::Yes, Eye::Silent, Eye::Silent]);
const ONE_DISSENTS: Sight = Sight::Each([Eye::Yes, Eye::No(ErrorType::IncorrectResponse), Eye::Yes]);

fn caa_looks(stage: &Stage) -> u32 {
    stage.validator.caa_looks.load(Ordering::SeqCst)
}

/// Orders the name, and answers with its authorization in its end.
async fn validate(stage: &Stage, client: &Client, name: &str) -> Value {
    let order = client.order(&[name]).await.ok(201).json();
    stage.authorize(client, &text(&order["authorizations"][0])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_silent_perspectives_cost_no_try_and_make_nothing_valid() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "quorum").await;
    // As often as a failure would end it.
    stage.validator.plan("quiet.example.org", [SILENT, SILENT, SILENT]);
    let (order, url) = stage.ready_order(&client, &["quiet.example.org"]).await;
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 4);
    stage.finalize(&client, &order, &["quiet.example.org"]).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_dissent_counts_as_the_signer_counts_it() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "quorum").await;
    stage.validator.plan("most.example.org", [ONE_DISSENTS]);
    let (order, url) = stage.ready_order(&client, &["most.example.org"]).await;
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 1);
    stage.finalize(&client, &order, &["most.example.org"]).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
    // One who dissents where another is silent decides nothing yet.
    let one = Sight::Each([Eye::Silent, Eye::No(ErrorType::IncorrectResponse), Eye::Yes]);
    stage.validator.plan("open.example.org", [one]);
    assert_eq!(validate(&stage, &client, "open.example.org").await["status"], "valid");
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 3);
    let no = Eye::No(ErrorType::IncorrectResponse);
    stage.validator.plan("few.example.org", [Sight::Each([no.clone(), Eye::Yes, no])]);
    let refused = validate(&stage, &client, "few.example.org").await;
    assert_eq!(refused["status"], "invalid");
    let error = &refused["challenges"][0]["error"]["type"];
    assert_eq!(error, "urn:ietf:params:acme:error:incorrectResponse");
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_what_too_few_have_seen_is_not_used_again() {
    let stage = Stage::new().await;
    let mut client = Client::registered(&stage.wire, "quorum").await;
    stage.validator.plan("most.example.org", [ONE_DISSENTS]);
    stage.ready_order(&client, &["most.example.org"]).await;
    assert_eq!(client.order(&["most.example.org"]).await.ok(201).json()["status"], "ready");
    // The operator asks for all of them from now on.
    stage.ca.need(3);
    let stage = stage.restart().await;
    client.wire = stage.wire.clone();
    assert_eq!(client.order(&["most.example.org"]).await.ok(201).json()["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_what_was_not_asked_for_does_not_count() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let each = |eye: Eye| Sight::Each([eye.clone(), eye.clone(), eye]);
    let sights = [Sight::Others, each(Eye::CaaAlone), each(Eye::AnotherTry)];
    stage.validator.plan("other.example.org", sights);
    assert_eq!(validate(&stage, &client, "other.example.org").await["status"], "valid");
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_perspective_that_says_both_says_no() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "quorum").await;
    let both = Eye::YesAndNo(ErrorType::IncorrectResponse);
    stage.validator.plan("both.example.org", [Sight::Each([both.clone(), both, Eye::Yes])]);
    assert_eq!(validate(&stage, &client, "both.example.org").await["status"], "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_perspectives_are_counted_for_caa_too() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "quorum").await;
    let names = ["old.example.org"];
    stage.ready_order(&client, &names).await;
    stage.clock.advance(Duration::from_secs(9 * 3600));
    let no = Eye::No(ErrorType::Caa);
    let (order, url) = stage.ready_order(&client, &names).await;
    stage.validator.plan(names[0], [Sight::Each([no.clone(), Eye::Yes, no.clone()])]);
    stage.finalize(&client, &order, &names).await.problem(403, "caa");
    stage.validator.plan(names[0], [SILENT, Sight::Each([Eye::Yes, no, Eye::Yes])]);
    stage.finalize(&client, &order, &names).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
    assert_eq!(caa_looks(&stage), 3);
}

/// An order on an authorization whose answer of CAA has grown so old that no signer takes it.
async fn old_order(stage: &Stage, names: &[&str]) -> (Client, Value, String) {
    aged_order(stage, names, Duration::from_hours(9)).await
}

async fn aged_order(stage: &Stage, names: &[&str], age: Duration) -> (Client, Value, String) {
    let client = Client::registered(&stage.wire, "reuse").await;
    stage.ready_order(&client, names).await;
    stage.clock.advance(age);
    let (order, url) = stage.ready_order(&client, names).await;
    (client, order, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_certificate_is_delivered_whatever_caa_says_by_now() {
    let stage = Stage::with(|config| {
        config.limits.finalize_wait_milliseconds = 1;
        config.limits.processing_lease_seconds = 2;
        config.validation.attempt_seconds = 1;
    })
    .await;
    for (name, now) in
        [("forbidden.example.org", Sight::Invalid(ErrorType::Caa)), ("silent.example.org", Sight::Away)]
    {
        let (client, order, url) = old_order(&stage, &[name]).await;
        let (issued, looked) = (stage.ca.certificates(), caa_looks(&stage));
        stage.ca.lose_issuances(true);
        stage.finalize(&client, &order, &[name]).await.ok(200);
        until("a certificate", async || stage.ca.certificates() > issued).await;
        stage.validator.plan(name, std::iter::repeat_n(now, 1_000));
        // Whoever takes the order over knows of no certificate, and asks CAA first.
        until("another look at CAA", async || caa_looks(&stage) >= looked + 2).await;
        stage.ca.lose_issuances(false);
        stage.poll(&client, &url, &["valid"]).await;
        assert_eq!(stage.ca.certificates(), issued + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_what_caa_forbids_is_not_issued_on_an_older_answer() {
    let stage = Stage::new().await;
    let names = ["forbidden.example.org"];
    // Any signer would take the older answer for half an hour yet.
    let (client, order, url) = aged_order(&stage, &names, Duration::from_mins(450)).await;
    stage.validator.plan(names[0], [Sight::Invalid(ErrorType::Caa)]);
    stage.finalize(&client, &order, &names).await.problem(403, "caa");
    assert_eq!((stage.ca.certificates(), caa_looks(&stage)), (0, 1));
    // Where there is no newer one, it does.
    stage.validator.plan(names[0], std::iter::repeat_n(Sight::Away, 1_000));
    stage.finalize(&client, &order, &names).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_names_that_are_silent_keep_no_others_waiting() {
    let stage = Stage::with(|config| {
        config.limits.finalize_wait_milliseconds = 1;
        config.validation.attempt_seconds = 1;
    })
    .await;
    let names: Vec<String> = (0..18).map(|number| format!("n{number:02}.example.org")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (client, order, url) = old_order(&stage, &names).await;
    // As many as are looked at at once say nothing until their time is over.
    let (silent, others) = names.split_at(16);
    for name in silent {
        stage.validator.plan(name, std::iter::repeat_with(|| Sight::Held(Gate::default())).take(1_000));
    }
    let gates = [Gate::default(), Gate::default()];
    for (name, gate) in others.iter().zip(&gates) {
        stage.validator.plan(name, [Sight::Held(gate.clone())]);
    }
    stage.finalize(&client, &order, &names).await.ok(200);
    for gate in &gates {
        tokio::time::timeout(Duration::from_secs(30), gate.reached()).await.expect("a look");
    }
    silent.iter().for_each(|name| stage.validator.plan(name, []));
    stage.poll(&client, &url, &["valid"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_no_order_waits_for_caa_for_ever() {
    let stage = Stage::with(|config| config.limits.finalize_wait_milliseconds = 1).await;
    let (client, order, url) = old_order(&stage, &["mute.example.org"]).await;
    stage.validator.plan("mute.example.org", std::iter::repeat_n(Sight::Away, 1_000));
    stage.finalize(&client, &order, &["mute.example.org"]).await.ok(200);
    until("three looks at CAA", async || caa_looks(&stage) >= 3).await;
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "processing");
    stage.clock.advance(Duration::from_secs(301));
    let refused = stage.poll(&client, &url, &["ready"]).await.json();
    assert_eq!(refused["error"]["type"], "urn:ietf:params:acme:error:caa");
    // It is asked anew when the client asks anew.
    stage.validator.plan("mute.example.org", []);
    stage.finalize(&client, &order, &["mute.example.org"]).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_answers_of_caa_are_kept_while_others_are_waited_for() {
    let stage = Stage::new().await;
    let names = ["quick.example.org", "slow.example.org"];
    let (client, order, url) = old_order(&stage, &names).await;
    stage.validator.plan("slow.example.org", [Sight::Away, Sight::Away]);
    stage.finalize(&client, &order, &names).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
    assert_eq!(caa_looks(&stage), 4);
}

/// As slow as a validator may be whose resolver is.
#[tokio::test(flavor = "multi_thread")]
async fn h6_caa_is_waited_for_longer_than_a_signer() {
    let stage = Stage::with(|config| {
        config.limits.finalize_wait_milliseconds = 1;
        config.limits.processing_lease_seconds = 2;
    })
    .await;
    let (client, order, url) = old_order(&stage, &["slow.example.org"]).await;
    let held = Gate::default();
    stage.validator.plan("slow.example.org", [Sight::Held(held.clone())]);
    stage.finalize(&client, &order, &["slow.example.org"]).await.ok(200);
    held.reached().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    held.release();
    stage.poll(&client, &url, &["valid"]).await;
    assert_eq!(caa_looks(&stage), 1, "no front gave it up, and none took it over");
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_challenge_is_looked_at_once_at_a_time() {
    let stage = Stage::with(|config| {
        config.validation.answer_wait_milliseconds = 15_000;
        config.limits.poll_wait_milliseconds = 0;
    })
    .await;
    let client = Client::registered(&stage.wire, "dns").await;
    let order = client.order(&["twice.example.org"]).await.ok(201).json();
    let url = text(&order["authorizations"][0]);
    let challenges = client.post_as_get(&url).await.ok(200).json()["challenges"].clone();
    let (http, dns) = (text(&challenges[0]["url"]), text(&challenges[1]["url"]));
    let gates = [Gate::default(), Gate::default()];
    stage.validator.plan("twice.example.org", gates.clone().map(Sight::Held));
    let nothing = json!({});
    let first = async { tokio::join!(client.post(&http, &nothing), client.post(&dns, &nothing)) };
    let again = async {
        for gate in &gates {
            gate.reached().await;
        }
        // As often as the client asks, and whichever it asked for last.
        for url in [&http, &dns, &http, &dns] {
            client.post(url, &nothing).await.ok(200);
        }
        assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 2);
        gates.iter().for_each(Gate::release);
    };
    tokio::join!(first, again);
    assert_eq!(stage.poll(&client, &url, &["valid"]).await.json()["status"], "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_one_account_leaves_room_at_the_validators() {
    let stage = Stage::with(|config| config.validation.looks_per_account = 1).await;
    let client = Client::registered(&stage.wire, "open").await;
    let held = Gate::default();
    stage.validator.plan("first.example.org", [Sight::Held(held.clone())]);
    let order = client.order(&["first.example.org", "second.example.org"]).await.ok(201).json();
    let mut urls = Vec::new();
    for authorization in order["authorizations"].as_array().unwrap() {
        let object = client.post_as_get(&text(authorization)).await.ok(200).json();
        let first = object["identifier"]["value"] == "first.example.org";
        urls.insert(
            if first { 0 } else { urls.len() },
            (text(authorization), text(&object["challenges"][0]["url"])),
        );
    }
    client.post(&urls[0].1, &json!({})).await.ok(200);
    held.reached().await;
    client.post(&urls[1].1, &json!({})).await.ok(200);
    // Others have their own.
    let other = Client::registered(&stage.wire, "open").await;
    assert_eq!(validate(&stage, &other, "other.example.org").await["status"], "valid");
    assert_eq!(stage.validator.looks.load(Ordering::SeqCst), 2);
    held.release();
    for (authorization, _) in &urls {
        stage.poll(&client, authorization, &["valid"]).await;
    }
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
