//! Authorizations beyond their order: given up (RFC 8555 §7.5.2), made without one (§7.4.1), of domains above (RFC 9444).

use std::time::Duration;

use acme::challenge::Method;
use acme::id::Scope;
use acme::receipt::{Receipt, requirement};
use ca_store::CaStore as _;
use serde_json::{Value, json};
use signer::authority::NameEvidence;
use signer::order::AuthorizedName;
use signer::{Failure, Reason};

use crate::support::{Client, OPEN, OTHER, Peek as _, Ready, World, reason};

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
async fn d9_what_has_lost_its_worth_is_given_up_without_a_row() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["a.example.org", "b.example.org"]).await;
    for (evidence, days, kept) in [(&ready.evidence[0], 0, true), (&ready.evidence[1], 90, false)] {
        world.clock.advance(Duration::from_secs(days * 86_400));
        let request = client.deactivation(&evidence.authorization);
        world.ca.deactivate_authorization(&request, evidence).await.unwrap();
        let ids = [evidence.authorization.to_string()];
        assert_eq!(!world.store.deactivated(&ids).await.unwrap().is_empty(), kept, "after {days} days");
    }
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

#[tokio::test]
async fn i5_nobody_has_authority_over_a_public_suffix() {
    let world = below_domains().await;
    let client = world.client().await;
    for (name, above) in [("x.co.uk", "co.uk"), ("x.example.org", "org"), ("x.y.kawasaki.jp", "kawasaki.jp")]
    {
        let mut identifier = dns(name);
        identifier["ancestorDomain"] = above.into();
        let new_order = client.request("new-order", &json!({ "identifiers": [identifier] }));
        assert_eq!(reason(world.ca.authorize_order(&new_order).await), Reason::NameRejected, "{above}");
        // Nor by an authorization of all that is below.
        let mut asked = dns(above);
        asked["subdomainAuthAllowed"] = true.into();
        let request = client.new_authorization(&asked);
        assert_eq!(reason(world.ca.authorize_identifier(&request).await), Reason::NameRejected, "{above}");
    }
}

/// The open directory with RFC 9444.
async fn below_domains() -> World {
    let to = "maximum_names = 5\nmethods = [\"http-01\", \"dns-01\"]\npre_authorization = true\nsubdomain_auth = true";
    World::start().await.with_policy("maximum_names = 5", to).await
}

/// An order for names, some with the domain above them; what every perspective has seen of each authorization, by a method.
async fn below(world: &World, client: &Client, names: &[(&str, Option<&str>)], method: Method) -> Ready {
    let identifier = |(name, above): &(&str, Option<&str>)| match above {
        Some(above) => json!({ "type": "dns", "value": name, "ancestorDomain": above }),
        None => dns(name),
    };
    let identifiers: Vec<_> = names.iter().map(identifier).collect();
    let new_order = client.request("new-order", &json!({ "identifiers": identifiers }));
    let mut ready = world.ready_with(client, new_order).await;
    for (evidence, named) in ready.evidence.iter_mut().zip(&ready.order.names) {
        evidence.ancestor.clone_from(&named.ancestor);
        show(world, client, evidence, method);
    }
    ready
}

/// What every perspective has seen of the authorization.
fn show(world: &World, client: &Client, evidence: &mut NameEvidence, method: Method) {
    let name = evidence.authorized();
    let (receipt, requirement) = (world.receipt(client, &name, evidence), requirement(method, &name));
    evidence.receipts = world.sign_receipts(&Receipt { method, requirement, ..receipt }, &[0, 1, 2]);
}

const DOMAIN: Option<&str> = Some("example.org");

#[tokio::test]
async fn i5_control_of_a_domain_counts_for_the_names_below_that_the_client_ordered_so() {
    let world = below_domains().await;
    let client = world.client().await;
    let names = [("a.example.org", DOMAIN), ("b.c.example.org", DOMAIN), ("other.test", None)];
    let ready = below(&world, &client, &names, Method::Dns01).await;
    let ids: std::collections::BTreeSet<_> =
        ready.order.names.iter().map(|name| name.authorization).collect();
    assert_eq!(ids.len(), 2, "one for the domain, one for the name beside");
    assert_eq!(ids.iter().filter(|id| id.scope().subdomains).count(), 1);
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let kept = world.store.evidence_of(&issued.serial).await;
    let record: Value = serde_json::from_slice(&kept.receipts).unwrap();
    assert_eq!(record.as_array().unwrap().iter().filter(|one| one["of"] == "example.org").count(), 2);
    // A web server shows nothing of other names: not of one, and not if it counts for the domain itself.
    let web = below(&world, &client, &[("a.example.org", DOMAIN)], Method::Http01).await;
    assert_eq!(world.refusal(web.finalized_by(&client)).await, Reason::ReceiptMethod);
    let both = [("a.example.org", DOMAIN), ("example.org", None)];
    let web = below(&world, &client, &both, Method::Http01).await;
    assert_eq!(world.refusal(web.finalized_by(&client)).await, Reason::ReceiptMethod);
    world.issue(below(&world, &client, &both, Method::Dns01).await.finalized_by(&client)).await.unwrap();
    // Given up, it is given up for all names below.
    let ready = below(&world, &client, &names, Method::Dns01).await;
    let above = ready.evidence.iter().find(|evidence| evidence.ancestor.is_some()).unwrap();
    world.ca.deactivate_authorization(&client.deactivation(&above.authorization), above).await.unwrap();
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::AuthorizationDeactivated);
}

#[tokio::test]
async fn i5_it_counts_for_no_other_name_and_not_unasked() {
    let world = below_domains().await;
    let client = world.client().await;
    let plain = world.ready(&client, &["example.org", "beside.org"]).await;
    let of = |name: &str| {
        let mut evidence = plain.evidence.iter().find(|one| one.name.to_string() == name).unwrap().clone();
        show(&world, &client, &mut evidence, Method::Dns01);
        evidence
    };
    world.clock.advance(Duration::from_secs(1));
    let refused = async |name: &str, evidence: NameEvidence, above: &str, named: Option<&str>| {
        let mut ready = below(&world, &client, &[(name, named)], Method::Dns01).await;
        let (name, ancestor) = (name.parse().unwrap(), Some(domain(above)));
        ready.evidence = vec![NameEvidence { name, ancestor, ..evidence }];
        world.refusal(ready.finalized_by(&client)).await
    };
    let above = of("example.org");
    // The client ordered the name, and said nothing of the domain; or it named another one.
    assert_eq!(refused("a.example.org", above.clone(), "example.org", None).await, Reason::AncestorForeign);
    let other = Some("b.example.org");
    assert_eq!(
        refused("a.b.example.org", above.clone(), "example.org", other).await,
        Reason::AncestorForeign
    );
    // Names beside, the domain itself, a wildcard.
    for name in ["a.beside.org", "notexample.org", "example.org", "*.example.org", "*.a.example.org"] {
        assert_eq!(
            refused(name, above.clone(), "example.org", None).await,
            Reason::AncestorForeign,
            "{name}"
        );
    }
    // An authorization of another name, said to be the domain's.
    let beside = of("beside.org");
    let named = Some("example.org");
    assert_eq!(refused("a.example.org", beside, "example.org", named).await, Reason::AuthorizationForged);
    // Named by the client, it counts, also as an older authorization of the domain.
    let mut ready = below(&world, &client, &[("a.example.org", named)], Method::Dns01).await;
    let name = "a.example.org".parse().unwrap();
    ready.evidence = vec![NameEvidence { name, ancestor: Some(domain("example.org")), ..above }];
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn i5_a_domain_may_be_authorized_before_anything_is_ordered() {
    let world = below_domains().await;
    let (client, heir) = (world.client().await, world.client().await);
    let mut asked = dns("example.org");
    asked["subdomainAuthAllowed"] = true.into();
    let request = client.new_authorization(&asked);
    let authorized = world.ca.authorize_identifier(&request).await.unwrap();
    let scope = authorized.name.authorization.scope();
    assert_eq!(scope, Scope { pre_authorization: true, subdomains: true });
    let mut whole = seen(&world, &client, &request, &authorized.name);
    show(&world, &client, &mut whole, Method::Dns01);
    let order = async |name: &str| {
        let mut ready = world.ready(&client, &[name]).await;
        let (name, ancestor) = (name.parse().unwrap(), Some(domain("example.org")));
        ready.evidence = vec![NameEvidence { name, ancestor, ..whole.clone() }];
        ready.finalized_by(&client)
    };
    let issued = world.issue(order("sub1.example.org").await).await.unwrap();
    world.issue(order("sub2.example.org").await).await.unwrap();
    assert_eq!(world.refusal(order("sub.beside.org").await).await, Reason::AncestorForeign);
    assert_eq!(world.refusal(order("*.example.org").await).await, Reason::AncestorForeign);
    // Who holds the domain so, holds the names below: another's certificate for one can be revoked (RFC 8555 §7.6).
    let others =
        world.issue(world.ready(&heir, &["sub3.example.org"]).await.finalized_by(&heir)).await.unwrap();
    let certificate = |issued: &signer::issue::Issued| {
        client.request("revoke-cert", &json!({ "certificate": acme::base64url::encode(&issued.certificate) }))
    };
    let name = "sub3.example.org".parse().unwrap();
    let held = NameEvidence { name, ancestor: Some(domain("example.org")), ..whole.clone() };
    world.ca.revoke(&certificate(&others), vec![held]).await.unwrap();
    world.ca.revoke(&certificate(&issued), Vec::new()).await.unwrap();
    // The operator takes it out of the directory: it counts no more.
    let late = order("sub4.example.org").await;
    let world = world.with_policy("subdomain_auth = true", "subdomain_auth = false").await;
    assert_eq!(world.refusal(late).await, Reason::AncestorForeign);
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
    // The account is in memory afterwards.
    calls(&["first.example.org"]).await;
    let one = calls(&["one.example.org"]).await;
    assert_eq!(calls(&hundred).await, one);
    assert_eq!(one.iter().filter(|call| **call == "commit_intents").count(), 1);
}

/// What CAA says of a domain is not what it says of the names below (RFC 8659 §3): it is asked for the very name.
#[tokio::test]
async fn h1_i5_caa_of_the_domain_above_is_not_the_names() {
    let to =
        "maximum_names = 5\nmethods = [\"dns-01\"]\nsubdomain_auth = true\ncaa_identities = [\"ca.test\"]";
    let world = World::start().await.with_policy("maximum_names = 5", to).await;
    let client = world.client().await;
    let ready = below(&world, &client, &[("a.example.org", DOMAIN)], Method::Dns01).await;
    let evidence = &ready.evidence[0];
    let (name, above) = (evidence.name.clone(), evidence.authorized());
    let said = |permitted| {
        let (identities, checked) = (vec!["ca.test".parse().unwrap()], world.now());
        Some(acme::receipt::Caa { permitted, identities, found_at: None, ttl_seconds: 60, checked })
    };
    let control = Receipt {
        method: Method::Dns01,
        requirement: requirement(Method::Dns01, &above),
        caa: said(true),
        ..world.receipt(&client, &above, evidence)
    };
    let asked = |of: &pki::Name, permitted| Receipt {
        name: of.clone(),
        caa: said(permitted),
        outcome: acme::receipt::Outcome::Caa,
        run: acme::receipt::Run::from_bytes([8; 16]),
        ..control.clone()
    };
    let order = |receipts: &[&Receipt]| {
        let mut ready = ready.clone();
        ready.evidence[0].receipts =
            receipts.iter().flat_map(|receipt| world.sign_receipts(receipt, &[0, 1, 2])).collect();
        ready.finalized_by(&client)
    };
    assert_eq!(world.refusal(order(&[&control])).await, Reason::Caa, "asked for the domain alone");
    assert_eq!(world.refusal(order(&[&control, &asked(&name, false)])).await, Reason::Caa);
    let another = world.refusal(order(&[&control, &asked(&above, true)])).await;
    assert_eq!(another, Reason::Caa, "asked anew, for the domain");
    let alone = world.refusal(order(&[&asked(&name, true)])).await;
    assert_eq!(alone, Reason::QuorumMissed, "no control was shown");
    world.issue(order(&[&control, &asked(&name, true)])).await.unwrap();
}
