//! Authorizations beyond their order: given up (RFC 8555 §7.5.2), made without one (§7.4.1), of domains above (RFC 9444).

use std::time::Duration;

use acme::challenge::Method;
use acme::id::Scope;
use acme::receipt::{self, Caa, Outcome, Receipt};
use serde_json::{Value, json};
use signer::authority::NameEvidence;
use signer::order::AuthorizedName;
use signer::{Failure, Reason};

use crate::support::{Client, OPEN, OTHER, World, reason};

fn dns(name: &str) -> Value {
    json!({ "type": "dns", "value": name })
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> (Reason, u16) {
    match outcome {
        Err(Failure::Refused(refusal)) => (refusal.reason, refusal.problem.status()),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn d9_an_authorization_is_given_up_for_good() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["a.example.org", "b.example.org"]).await;
    let evidence = &ready.evidence[1];
    let request = client.deactivation(&evidence.authorization);
    for _ in 0..2 {
        world.ca.deactivate_authorization(&request, evidence).await.unwrap();
    }
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::AuthorizationDeactivated);
    // Nor for a later order, which might use it again.
    let mut later = world.ready(&client, &["a.example.org", "b.example.org"]).await;
    let fresh = std::mem::replace(&mut later.evidence, ready.evidence.clone());
    assert_eq!(world.refusal(later.finalized_by(&client)).await, Reason::AuthorizationDeactivated);
    assert!(world.issuer_key.signed().is_empty());
    later.evidence = fresh;
    world.issue(later.finalized_by(&client)).await.unwrap();
    let kinds = world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "authorization.deactivated").count(), 1);
}

#[tokio::test]
async fn d9_only_the_owner_gives_up_and_only_what_it_names() {
    let world = World::start().await;
    let (client, other) = (world.client().await, world.client().await);
    let ready = world.ready(&client, &["a.example.org", "b.example.org"]).await;
    let (first, second) = (ready.evidence[0].clone(), ready.evidence[1].clone());
    let deactivate = |request: Vec<u8>, evidence: &NameEvidence| {
        let (ca, evidence) = (world.ca.clone(), evidence.clone());
        async move { reason(ca.deactivate_authorization(&request, &evidence).await) }
    };
    let own = client.deactivation(&first.authorization);
    assert_eq!(
        deactivate(other.deactivation(&first.authorization), &first).await,
        Reason::AuthorizationForged
    );
    assert_eq!(deactivate(own.clone(), &second).await, Reason::AuthorizationForeign);
    let other_name = NameEvidence { name: second.name.clone(), ..first.clone() };
    assert_eq!(deactivate(own.clone(), &other_name).await, Reason::AuthorizationForged);
    let other_origin = NameEvidence { created_by: [7; 32], ..first.clone() };
    assert_eq!(deactivate(own.clone(), &other_origin).await, Reason::AuthorizationForged);
    let pretender = Client::new(OPEN).of_account(client.account.unwrap());
    assert_eq!(deactivate(pretender.deactivation(&first.authorization), &first).await, Reason::JwsSignature);
    for payload in [json!({}), json!({ "status": "valid" })] {
        let request = client.request(&format!("authorization/{}", first.authorization), &payload);
        assert_eq!(deactivate(request, &first).await, Reason::PayloadMalformed);
    }
    let account = client.update(&json!({ "status": "deactivated" }));
    assert_eq!(deactivate(account, &first).await, Reason::UrlOperation);
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn d9_what_was_given_up_revokes_nothing() {
    let world = World::start().await;
    let (client, heir) = (world.client().await, world.client().await);
    let ready = world.ready(&client, &["a.example.org", "b.example.org"]).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let evidence = world.ready(&heir, &["a.example.org", "b.example.org"]).await.evidence;
    let given_up = &evidence[1];
    world.ca.deactivate_authorization(&heir.deactivation(&given_up.authorization), given_up).await.unwrap();
    let certificate = acme::base64url::encode(&issued.certificate);
    let request = heir.request("revoke-cert", &json!({ "certificate": certificate }));
    let refused = world.ca.revoke(&request, evidence.clone()).await;
    assert_eq!(reason(refused), Reason::AuthorizationDeactivated);
    let mut evidence = evidence;
    evidence[1] = world.ready(&heir, &["b.example.org"]).await.evidence.remove(0);
    world.ca.revoke(&request, evidence).await.unwrap();
}

/// `other`, where no validation is used again, with pre-authorization.
async fn offering() -> World {
    let from = "terms_of_service = \"https://ca.test/terms\"";
    World::start().await.with_policy(from, &format!("{from}\npre_authorization = true")).await
}

/// What every perspective has seen of a name that was authorized by this newAuthz.
fn seen(world: &World, client: &Client, request: &[u8], name: &AuthorizedName) -> NameEvidence {
    let mut evidence = NameEvidence {
        name: name.name.clone(),
        authorization: name.authorization,
        created_by: acme::Jws::from_slice(request).unwrap().digest(),
        receipts: Vec::new(),
        ancestor: None,
    };
    let receipt = world.receipt(client, &name.name, &evidence);
    evidence.receipts = world.sign_receipts(&receipt, &[0, 1, 2]);
    evidence
}

#[tokio::test]
async fn d10_a_pre_authorization_counts_as_long_as_an_order_may_wait() {
    let world = offering().await;
    let client = world.client_of(OTHER).await;
    let request = client.new_authorization(&dns("example.org"));
    let authorized = world.ca.authorize_identifier(&request).await.unwrap();
    assert_eq!((authorized.account, authorized.name.grant.clone()), (client.account.unwrap(), None));
    let scope = authorized.name.authorization.scope();
    assert_eq!(scope, Scope { pre_authorization: true, subdomains: false });
    let evidence = seen(&world, &client, &request, &authorized.name);
    world.clock.advance(Duration::from_secs(6 * 86_400));
    let mut ready = world.ready(&client, &["example.org"]).await;
    // What an order validated stays that order's here; what was validated without one does not.
    let mut another = world.ready(&client, &["example.org"]).await;
    another.evidence = ready.evidence.clone();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.refusal(another.finalized_by(&client)).await, Reason::ReceiptStale);
    ready.evidence = vec![evidence.clone()];
    world.issue(ready.finalized_by(&client)).await.unwrap();
    // Of another account, of another name: the id was not made for it.
    let stranger = world.client_of(OTHER).await;
    let mut foreign = world.ready(&stranger, &["example.org"]).await;
    foreign.evidence = vec![evidence.clone()];
    assert_eq!(world.refusal(foreign.finalized_by(&stranger)).await, Reason::AuthorizationForged);
    // Given up, it counts no more; too old, neither.
    world.clock.advance(Duration::from_secs(2 * 86_400));
    let mut late = world.ready(&client, &["example.org"]).await;
    late.evidence = vec![evidence];
    assert_eq!(world.refusal(late.finalized_by(&client)).await, Reason::ReceiptStale);
}

#[tokio::test]
async fn d10_an_authorization_of_an_order_cannot_be_passed_off_as_another() {
    let world = offering().await;
    let client = world.client_of(OTHER).await;
    let ready = world.ready(&client, &["example.org"]).await;
    let mut later = world.ready(&client, &["example.org"]).await;
    later.evidence = ready.evidence;
    // The first byte says for what the id was made.
    let mut bytes = later.evidence[0].authorization.as_bytes().to_vec();
    for kind in [3, 4, 5] {
        bytes[0] = kind;
        later.evidence[0].authorization = acme::AuthorizationId::from_bytes(&bytes).unwrap();
        assert_eq!(world.refusal(later.finalized_by(&client)).await, Reason::AuthorizationForged);
    }
}

#[tokio::test]
async fn d10_new_authz_is_judged_like_an_order() {
    let world = World::start().await;
    let client = world.client_of(OTHER).await;
    let offered = world.ca.authorize_identifier(&client.new_authorization(&dns("example.org"))).await;
    assert_eq!(reason(offered), Reason::ExtensionRequested);
    let world = world.with_policy("maximum_names = 5", "maximum_names = 5\npre_authorization = true").await;
    let client = world.client().await;
    let asked = |identifier: Value| {
        let (ca, request) = (world.ca.clone(), client.new_authorization(&identifier));
        async move { refusal(ca.authorize_identifier(&request).await) }
    };
    assert_eq!(asked(dns("*.example.org")).await, (Reason::NameRejected, 400));
    assert_eq!(asked(dns("a.denied.test")).await, (Reason::NameRejected, 400));
    assert_eq!(asked(dns("a..b")).await, (Reason::NameRejected, 400));
    assert_eq!(asked(json!({ "type": "ip", "value": "192.0.2.1" })).await, (Reason::NameRejected, 400));
    assert_eq!(asked(json!({ "type": "x", "value": "y" })).await, (Reason::IdentifierUnsupported, 400));
    assert_eq!(asked(json!({})).await.0, Reason::PayloadMalformed);
    let order = client.new_order(&["example.org"]);
    assert_eq!(reason(world.ca.authorize_identifier(&order).await), Reason::UrlOperation);
    let request = client.new_authorization(&dns("example.org"));
    assert_eq!(reason(world.ca.authorize_order(&request).await), Reason::UrlOperation);
    let forged = Client::new(OPEN).of_account(client.account.unwrap()).new_authorization(&dns("example.org"));
    assert_eq!(reason(world.ca.authorize_identifier(&forged).await), Reason::JwsSignature);
    // Names below are not asked for where the directory does not offer it: the authorization says so.
    let mut below = dns("example.org");
    below["subdomainAuthAllowed"] = true.into();
    let plain = world.ca.authorize_identifier(&client.new_authorization(&below)).await.unwrap();
    assert!(!plain.name.authorization.scope().subdomains);
    world.ca.update_account(&client.update(&json!({ "status": "deactivated" }))).await.unwrap();
    assert_eq!(reason(world.ca.authorize_identifier(&request).await), Reason::AccountInactive);
}

#[tokio::test]
async fn i5_a_domain_above_counts_nowhere_by_default() {
    let world = World::start().await;
    let client = world.client().await;
    let above = world.ready(&client, &["example.org"]).await.evidence.remove(0);
    let mut identifier = dns("a.example.org");
    identifier["ancestorDomain"] = "example.org".into();
    let new_order = client.request("new-order", &json!({ "identifiers": [identifier] }));
    let order = world.ca.authorize_order(&new_order).await.unwrap();
    assert_eq!(order.names[0].ancestor, None, "the authorization is for the name itself");
    let mut ready = world.ready_with(&client, new_order).await;
    world.clock.advance(Duration::from_secs(1));
    ready.evidence = vec![NameEvidence {
        name: "a.example.org".parse().unwrap(),
        ancestor: Some(domain("example.org")),
        ..above
    }];
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::AncestorForeign);
}

fn domain(name: &str) -> pki::DnsName {
    pki::DnsName::parse(name).unwrap()
}

/// A whole order for a hundred names, at the signer.
#[tokio::test]
async fn d3_a_hundred_names_are_one_decision_and_one_commit() {
    let world = World::start().await.with_policy("maximum_names = 5", "maximum_names = 100").await;
    let client = world.client().await;
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.example.org")).collect();
    let hundred: Vec<&str> = names.iter().map(String::as_str).collect();
    let calls = async |names: &[&str]| {
        let before = world.store.calls().len();
        let ready = world.ready(&client, names).await;
        let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
        let certificate = pki::Certificate::from_der(&issued.certificate).unwrap();
        assert_eq!(certificate.names().unwrap().len(), names.len());
        world.store.calls().split_off(before)
    };
    let one = calls(&["one.example.org"]).await;
    assert_eq!(calls(&hundred).await, one);
    assert_eq!(one.iter().filter(|call| **call == "commit_intents").count(), 1);
}

#[tokio::test]
async fn h1_caa_is_asked_for_the_name_below_the_domain_that_was_validated() {
    let more =
        "maximum_names = 5\nsubdomain_auth = true\ncaa_identities = [\"ca.test\"]\nmethods = [\"dns-01\"]\n";
    let world = World::start().await.with_policy("maximum_names = 5\n", more).await;
    let client = world.client().await;
    let mut identifier = dns("a.example.org");
    identifier["ancestorDomain"] = "example.org".into();
    let new_order = client.request("new-order", &json!({ "identifiers": [identifier] }));
    let ready = world.ready_with(&client, new_order).await;
    let evidence = NameEvidence { ancestor: Some(domain("example.org")), ..ready.evidence[0].clone() };
    let seen = world.receipt(&client, &evidence.authorized(), &evidence);
    let caa = Caa {
        permitted: true,
        identities: vec![domain("ca.test")],
        found_at: None,
        ttl_seconds: 60,
        checked: seen.finished,
    };
    let requirement = receipt::requirement(Method::Dns01, &seen.name);
    let control = Receipt { method: Method::Dns01, requirement, caa: Some(caa), ..seen };
    let run = receipt::Run::from_bytes([8; 16]);
    let below = Receipt { name: evidence.name.clone(), outcome: Outcome::Caa, run, ..control.clone() };
    let beside = Receipt { name: "b.example.org".parse().unwrap(), ..below.clone() };
    let order = |receipts: &[&Receipt]| {
        let mut ready = ready.clone();
        let signed = receipts.iter().flat_map(|receipt| world.sign_receipts(receipt, &[0, 1, 2]));
        ready.evidence = vec![NameEvidence { receipts: signed.collect(), ..evidence.clone() }];
        ready.finalized_by(&client)
    };
    // Its own records may say something else than those of the domain.
    assert_eq!(world.refusal(order(&[&control])).await, Reason::Caa);
    assert_eq!(world.refusal(order(&[&control, &beside])).await, Reason::Caa);
    world.issue(order(&[&control, &below])).await.unwrap();
}
