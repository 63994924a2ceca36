//! Limits that fronts count (RFC 8555 §6.6): which, whose, until when.

use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::{ErrorType, Problem};
use serde_json::{Value, json};

use crate::client::{Answer, Client, Wire};
use crate::renewal::{issued, replace};
use crate::stage::Stage;
use crate::validator::Sight;

const HOUR: Duration = Duration::from_secs(3_600);

/// A limit was reached: named, with the time at which it frees, which Retry-After says too.
fn limited(answer: &Answer, limit: &str) -> Duration {
    let problem = answer.problem(429, "rateLimited");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(limit) && detail.contains("retry after 20"), "{detail}");
    Duration::from_secs(answer.header("retry-after").unwrap().parse().unwrap())
}

async fn register(stage: &Stage, client: &str) -> Answer {
    register_by(stage.wire.forwarded_for(client)).await
}

async fn register_by(wire: Wire) -> Answer {
    Client::new(&wire, "limited").await.register(&json!({"termsOfServiceAgreed": true})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_an_address_registers_so_many_accounts() {
    let stage = Stage::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    // All at once, as somebody would who wants to slip through.
    let all = (0..8).map(|_| register_by(stage.wire.forwarded_for("192.0.2.1")));
    let answers = all.collect::<tokio::task::JoinSet<_>>().join_all().await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 3);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        limited(answer, "accounts_per_address is 3 in 3h");
    }
    // Others have room: another address, and another /64.
    assert_eq!(register(&stage, "192.0.2.2").await.status, 201);
    for host in ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:2::3"] {
        assert_eq!(register(&stage, host).await.status, 201);
    }
    limited(&register(&stage, "2001:db8:0:1::4").await, "2001:db8:0:1::");
    assert_eq!(register(&stage, "2001:db8:0:2::1").await.status, 201);
    // What was refused, and looks at accounts that exist, count for nothing.
    let wire = stage.wire.forwarded_for("192.0.2.3");
    let mut known = Client::new(&wire, "limited").await;
    known.register(&json!({"termsOfServiceAgreed": true})).await.ok(201);
    for _ in 0..5 {
        known.kid = None;
        known.register(&json!({"onlyReturnExisting": true})).await.ok(200);
    }
    assert_eq!(register(&stage, "192.0.2.3").await.status, 201);
    assert_eq!(register(&stage, "192.0.2.3").await.status, 201);
    let wait = limited(&register(&stage, "192.0.2.3").await, "accounts_per_address");
    // Whoever has an account gets it, however many others were made from his address.
    for payload in [json!({"onlyReturnExisting": true}), json!({"termsOfServiceAgreed": true})] {
        known.kid = None;
        known.register(&payload).await.ok(200);
    }
    let unknown = Client::new(&wire, "limited").await;
    let looked = unknown.post(&unknown.url("newAccount"), &json!({"onlyReturnExisting": true})).await;
    looked.problem(400, "accountDoesNotExist");
    stage.clock.advance(wait);
    assert_eq!(register(&stage, "192.0.2.3").await.status, 201, "Retry-After keeps its word");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_believed_only_if_it_is_trusted() {
    let stage = Stage::new().await;
    for host in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(register(&stage, host).await.status, 201);
    }
    limited(&register(&stage, "192.0.2.4").await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_an_account_makes_so_many_orders() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "limited").await;
    let other = Client::registered(&stage.wire, "limited").await;
    let (_, id) = issued(&stage, &client, "exempt.granted.test").await;
    for number in 1..6 {
        client.order(&[&format!("{number}.granted.test")]).await.ok(201);
    }
    let wait = limited(&client.order(&["six.granted.test"]).await, "orders_per_account is 6 in 3h");
    assert!(wait <= 3 * HOUR + HOUR / 2, "{wait:?}");
    other.order(&["six.granted.test"]).await.ok(201);
    // Who floods is refused without a question to the signer.
    let asked = stage.ca.order_calls.load(Ordering::SeqCst);
    for number in 0..20 {
        limited(&client.order(&[&format!("{number}.granted.test")]).await, "orders_per_account");
    }
    assert_eq!(stage.ca.order_calls.load(Ordering::SeqCst), asked);
    // A renewal that comes when it should is exempt, and does not count; one that only says that it is one is not.
    limited(&replace(&client, "six.granted.test", &id).await, "orders_per_account");
    replace(&client, "exempt.granted.test", &id).await.ok(201);
    stage.clock.advance(wait);
    for number in 0..6 {
        client.order(&[&format!("{number}.granted.test")]).await.ok(201);
    }
    limited(&client.order(&["seven.granted.test"]).await, "orders_per_account");
}

/// Orders the name, and has its validation fail.
async fn fail(stage: &Stage, client: &Client, name: &str) {
    stage.validator.plan(name, [Sight::Invalid(ErrorType::Unauthorized)]);
    let order = client.order(&[name]).await.ok(201).json();
    let authorization: Value = stage.authorize(client, order["authorizations"][0].as_str().unwrap()).await;
    assert_eq!(authorization["status"], "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_failed_validations_make_a_name_wait() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "limited").await;
    fail(&stage, &client, "bad.example.org").await;
    fail(&stage, &client, "bad.example.org").await;
    let refused = client.order(&["good.example.org", "bad.example.org"]).await;
    let wait = limited(&refused, "for bad.example.org: the limit failed_validations is 2 in 1h");
    assert!(wait <= HOUR, "{wait:?}");
    // Other names of the account, and other accounts, are not concerned.
    client.order(&["good.example.org"]).await.ok(201);
    let other = Client::registered(&stage.wire, "limited").await;
    other.order(&["bad.example.org"]).await.ok(201);
    // A success makes the failures before it good.
    stage.clock.advance(wait);
    let order = client.order(&["bad.example.org"]).await.ok(201).json();
    let authorization = stage.authorize(&client, order["authorizations"][0].as_str().unwrap()).await;
    assert_eq!(authorization["status"], "valid");
    fail(&stage, &client, "bad.example.org").await;
    client.order(&["bad.example.org"]).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_a_hopeless_client_is_paused() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "limited").await;
    for _ in 0..2 {
        fail(&stage, &client, "never.example.org").await;
        fail(&stage, &client, "never.example.org").await;
        stage.clock.advance(4 * HOUR);
    }
    let wait = limited(
        &client.order(&["never.example.org"]).await,
        "too many failed validations in a row for never.example.org: the limit failures_until_paused is 4 in 2d",
    );
    assert!(wait > 43 * HOUR && wait <= 48 * HOUR, "{wait:?}");
    client.order(&["other.example.org"]).await.ok(201);
    stage.clock.advance(wait);
    client.order(&["never.example.org"]).await.ok(201);
}

/// newAuthz is another way to a validation, and to a signer.
#[tokio::test(flavor = "multi_thread")]
async fn a18_authorizations_without_an_order_count_too() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "limited").await;
    let authorize = |name: &str| {
        let payload = json!({"identifier": {"type": "dns", "value": name}});
        let (client, url) = (&client, client.url("newAuthz"));
        async move { client.post(&url, &payload).await }
    };
    stage.validator.plan("bad.example.org", vec![Sight::Invalid(ErrorType::Unauthorized); 2]);
    for _ in 0..2 {
        let made = authorize("bad.example.org").await.ok(201);
        assert_eq!(stage.authorize(&client, &made.location()).await["status"], "invalid");
    }
    let wait = limited(
        &authorize("bad.example.org").await,
        "for bad.example.org: the limit failed_validations is 2 in 1h",
    );
    limited(&client.order(&["bad.example.org"]).await, "failed_validations");
    // Two so far; what was refused gave its room back.
    for number in 2..6 {
        authorize(&format!("{number}.example.org")).await.ok(201);
    }
    let full = limited(&authorize("six.example.org").await, "orders_per_account is 6 in 3h");
    limited(&client.order(&["six.example.org"]).await, "orders_per_account is 6 in 3h");
    assert!(wait < full);
    stage.clock.advance(full);
    authorize("bad.example.org").await.ok(201);
}

/// What renews a certificate at its time may fail more often than others, and not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a18_a_renewal_that_never_succeeds_is_paused() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "limited").await;
    let (_, id) = issued(&stage, &client, "exempt.example.org").await;
    stage.validator.plan("exempt.example.org", vec![Sight::Invalid(ErrorType::Unauthorized); 4]);
    for _ in 0..4 {
        let order = replace(&client, "exempt.example.org", &id).await.ok(201).json();
        let authorization = stage.authorize(&client, order["authorizations"][0].as_str().unwrap()).await;
        assert_eq!(authorization["status"], "invalid");
    }
    limited(&replace(&client, "exempt.example.org", &id).await, "failures_until_paused is 4 in 2d");
}

/// Limits that the signer counts: its words and its time reach the client, and the order is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a18_a_limit_of_the_signers_leaves_the_order_ready() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["full.granted.test"]).await;
    let detail = "too many certificates for granted.test: the limit certificates_per_domain is 50 in 7d; retry after 2027";
    let problem = Problem::new(ErrorType::RateLimited, detail);
    let wait = Duration::from_secs(3 * 86_400 + 1);
    stage.ca.refuse_issuance(rpc::Refusal::new(problem).with_retry_after(wait));
    let refused = stage.finalize(&client, &order, &["full.granted.test"]).await;
    assert_eq!(limited(&refused, detail), wait);
    let there = client.post_as_get(&url).await.ok(200).json();
    assert_eq!(there["status"], "ready", "{there}");
    stage.finalize(&client, &order, &["full.granted.test"]).await.ok(200);
    stage.poll(&client, &url, &["valid"]).await;
}
