//! From newOrder to certificate, and what must not lead there.

use std::time::Duration;

use acme::base64url::{decode, encode};
use acme::identifier::Identifier;
use ca_store::{AuthorityRow, BlockedKeyRow, JournalKind};
use pki::{Certificate, Period};
use serde_json::json;
use signer::issue::Issuance;
use signer::{Failure, Reason};

use crate::support::{Client, OTHER, Peek as _, World, csr, csr_of, reason};

#[tokio::test]
async fn the_happy_path() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["www.example.org", "example.org"]).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();

    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    certificate.verify_signed_by(world.authorities.issuer.public_key()).unwrap();
    assert_eq!(certificate.serial(), issued.serial);
    let names: Vec<_> = certificate.names().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["example.org", "www.example.org"]);
    assert_eq!(certificate.not_after().since(certificate.not_before()).seconds(), 90 * 86_400 - 1);

    let rows = world.journal().await;
    assert_eq!((rows.len(), rows[0].kind), (1, JournalKind::Final));
    assert_eq!(rows[0].account, Some(client.account.unwrap().to_string()));
    assert_eq!(
        certificate.crl_urls(),
        [pki::crl_url("http://status.test/crl", world.authorities.issuer.key_id().unwrap(), rows[0].shard)]
    );
    let evidence = world.store.evidence_of(&issued.serial).await;
    assert_eq!(evidence.new_order, ready.new_order);
    assert!(String::from_utf8(evidence.receipts).unwrap().contains(&ready.evidence[0].receipts[2]));
    assert!(world.audit_kinds().await.contains(&"certificate.intended".to_owned()));
}

#[tokio::test]
async fn the_profile_is_the_orders() {
    let world = World::start().await;
    let client = world.client().await;
    let new_order = client.new_order_with(&["example.org"], json!({ "profile": "short" }));
    let ready = world.ready_with(&client, new_order).await;
    assert_eq!(ready.order.profile, "short");
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    assert_eq!(certificate.not_after().since(certificate.not_before()).seconds(), 6 * 86_400 - 1);

    let unknown = client.new_order_with(&["example.org"], json!({ "profile": "front" }));
    assert_eq!(reason(world.ca.authorize_order(&unknown).await), Reason::ProfileUnknown);
}

#[tokio::test]
async fn asking_again_gives_the_same_bytes_and_no_second_signature() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let first = world.issue(ready.finalized_by(&client)).await.unwrap();
    // The very same request, and another finalize JWS around the same CSR.
    let same = ready.finalized_by(&client);
    assert_eq!(world.issue(same).await.unwrap(), first);
    assert_eq!(world.issue(ready.finalized_by(&client)).await.unwrap(), first);
    assert_eq!(world.issuer_key.signed().len(), 1);

    let other = ready.with_finalize(client.finalize(&ready.order.id.to_string(), &csr(&["example.org"])));
    assert_eq!(world.refusal(other).await, Reason::OrderTaken);
    assert_eq!(world.journal().await.len(), 1);
}

#[tokio::test]
async fn an_answer_outlives_the_key_and_the_account_but_not_its_owner() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let finalized = ready.finalized_by(&client);
    let first = world.issue(finalized).await.unwrap();
    let renewed = Client::new(&client.directory).of_account(client.account.unwrap());
    world.ca.change_key(&client.key_change(&renewed)).await.unwrap();
    // The front repeats what it has, signed with the key of the day.
    assert_eq!(world.issue(ready.finalized_by(&client)).await.unwrap(), first);
    world.ca.update_account(&renewed.update(&json!({ "status": "deactivated" }))).await.unwrap();
    assert_eq!(world.issue(ready.finalized_by(&client)).await.unwrap(), first);

    let stranger = Client::new(&client.directory).of_account(client.account.unwrap());
    assert_eq!(world.refusal(ready.finalized_by(&stranger)).await, Reason::JwsSignature);
}

#[tokio::test]
async fn a_known_order_is_answered_to_its_account_alone() {
    let world = World::start().await;
    let (client, thief) = (world.client().await, world.client().await);
    let ready = world.ready(&client, &["example.org"]).await;
    world.issue(ready.finalized_by(&client)).await.unwrap();
    // The thief's own two requests, for the victim's order and CSR.
    let mut own = world.ready(&thief, &["example.org"]).await;
    own.csr.clone_from(&ready.csr);
    let order = own.with_finalize(thief.finalize(&ready.order.id.to_string(), &ready.csr));
    assert_eq!(world.refusal(order).await, Reason::OrderForeign);
}

#[tokio::test]
async fn what_the_lints_refuse_is_not_signed() {
    let world = World::start().await;
    let client = world.client().await;
    // A profile of a private CA that asks for the lints of a public one.
    let new_order = client.new_order_with(&["example.org"], json!({ "profile": "linted" }));
    let ready = world.ready_with(&client, new_order).await;
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::Lint);
    assert!(world.journal().await.is_empty());
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn a_directory_answers_under_its_own_bases() {
    let world = World::start().await;
    let mut client = world.client().await;
    client.base = "https://other-base.test".to_owned();
    assert!(world.ca.authorize_order(&client.new_order(&["example.org"])).await.is_ok());
    let mut elsewhere = Client::new(OTHER);
    elsewhere.base = "https://other-base.test".to_owned();
    assert_eq!(reason(world.ca.register_account(&elsewhere.new_account()).await), Reason::UrlForeign);
}

#[tokio::test]
async fn one_new_order_gives_one_certificate() {
    let world = World::start().await;
    let client = world.client().await;
    let first = world.ready(&client, &["example.org"]).await;
    let second = world.ready_with(&client, first.new_order.clone()).await;
    assert_ne!(first.order.id, second.order.id);
    world.issue(first.finalized_by(&client)).await.unwrap();
    assert_eq!(world.refusal(second.finalized_by(&client)).await, Reason::NewOrderTaken);

    // The same words with white space and another signature are the same request.
    let value: serde_json::Value = serde_json::from_slice(&first.new_order).unwrap();
    let spaced = serde_json::to_vec_pretty(&value).unwrap();
    let protected = String::from_utf8(decode(value["protected"].as_str().unwrap()).unwrap()).unwrap();
    let payload = String::from_utf8(decode(value["payload"].as_str().unwrap()).unwrap()).unwrap();
    let resigned = client.sign(&serde_json::from_str(&protected).unwrap(), &payload);
    assert_ne!(resigned, first.new_order);
    for again in [spaced, resigned] {
        let again = world.ready_with(&client, again).await;
        assert_eq!(world.refusal(again.finalized_by(&client)).await, Reason::NewOrderTaken);
    }
    assert_eq!(world.journal().await.len(), 1);
}

#[tokio::test]
async fn e7_concurrent_requests_make_one_certificate() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let requests = (0..8).map(|_| world.issue(ready.finalized_by(&client)));
    let issued = futures::future::try_join_all(requests).await.unwrap();
    assert!(issued.iter().all(|one| *one == issued[0]));
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_stops_nothing() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.issuer_key.hold(true);
    let caller = tokio::spawn({
        let (ca, order) = (world.ca.clone(), ready.finalized_by(&client));
        async move { ca.issue(order).await }
    });
    while world.journal().await.is_empty() {
        tokio::task::yield_now().await;
    }
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    world.issuer_key.hold(false);
    while world.journal().await[0].signature.is_none() {
        tokio::task::yield_now().await;
    }
    world.issue(ready.finalized_by(&client)).await.unwrap();
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn a_slow_token_is_answered_with_processing() {
    let limits = signer::config::Limits { issue_wait_milliseconds: 20, ..Default::default() };
    let world = World::with_limits(limits).await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.issuer_key.hold(true);
    assert_eq!(world.ca.issue(ready.finalized_by(&client)).await.unwrap(), Issuance::Processing);
    assert_eq!(world.ca.issue(ready.finalized_by(&client)).await.unwrap(), Issuance::Processing);
    world.issuer_key.hold(false);
    let issued = loop {
        match world.ca.issue(ready.finalized_by(&client)).await.unwrap() {
            Issuance::Issued(issued) => break issued,
            Issuance::Processing => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(world.journal().await[0].serial, issued.serial);
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn e2_the_csr_must_say_what_the_order_says() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org", "www.example.org"]).await;
    let order = ready.order.id.to_string();
    let mut tried = Vec::new();
    for names in
        [&["example.org"][..], &["example.org", "www.example.org", "x.example.org"], &["*.example.org"]]
    {
        tried.push((csr(names), Reason::CsrNames));
    }
    let good = csr(&["example.org", "www.example.org"]);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    tried.push((damaged, Reason::CsrSignature));
    tried.push(([&good[..], &[0]].concat(), Reason::CsrInvalid));
    tried.push((client.csr_with_account_key(&["example.org", "www.example.org"]), Reason::CsrAccountKey));
    for (csr, expected) in tried {
        let order = ready.with_finalize(client.finalize(&order, &csr));
        assert_eq!(world.refusal(order).await, expected);
    }
    // None of these spoiled the order, and the order of names does not matter.
    let csr = csr(&["www.example.org", "EXAMPLE.org"]);
    world.issue(ready.with_finalize(client.finalize(&order, &csr))).await.unwrap();
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn keys_that_may_not_be_certified() {
    let world = World::start().await;
    let client = world.client().await;
    let new_order = client.new_order_with(&["example.org"], json!({ "profile": "short" }));
    let ready = world.ready_with(&client, new_order).await;
    let finalize = |csr: &[u8]| ready.with_finalize(client.finalize(&ready.order.id.to_string(), csr));

    let large = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let large = csr_of(&["example.org"], &large);
    assert_eq!(world.refusal(finalize(&large)).await, Reason::CsrKeyUnacceptable);

    // An account key of another directory counts as well.
    let other = Client::new(OTHER);
    world.ca.register_account(&other.new_account()).await.unwrap();
    let of_account = other.csr_with_account_key(&["example.org"]);
    assert_eq!(world.refusal(finalize(&of_account)).await, Reason::CsrAccountKey);

    let blocked = pki::Csr::from_der(&ready.csr).unwrap().public_key().sha256();
    let row = BlockedKeyRow {
        spki_sha256: blocked,
        reason: "operator".to_owned(),
        source: "test".to_owned(),
        at: world.now(),
    };
    world.put(AuthorityRow::BlockedKey(row), None).await;
    assert_eq!(world.refusal(finalize(&ready.csr)).await, Reason::CsrKeyBlocked);
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn an_order_id_counts_for_its_order_alone() {
    let world = World::start().await;
    let (client, other) = (world.client().await, world.client().await);
    let ready = world.ready(&client, &["example.org"]).await;
    let another = world.ready(&client, &["www.example.org"]).await;
    let foreign = world.ready(&other, &["example.org"]).await;
    let forged = {
        let mut bytes = ready.order.id.as_bytes().to_vec();
        bytes[20] ^= 1;
        encode(bytes)
    };
    for id in [another.order.id.to_string(), foreign.order.id.to_string(), forged] {
        let order = ready.with_finalize(client.finalize(&id, &ready.csr));
        assert_eq!(world.refusal(order).await, Reason::OrderForged);
    }
    assert!(world.journal().await.is_empty());
}

#[tokio::test]
async fn both_requests_must_be_one_accounts_in_one_directory() {
    let world = World::start().await;
    let (client, thief) = (world.client().await, world.client().await);
    let ready = world.ready(&client, &["example.org"]).await;
    let order = ready.order.id.to_string();
    // The thief's finalize with the victim's newOrder, and with the victim's kid.
    let finalize = thief.finalize(&order, &ready.csr);
    assert_eq!(world.refusal(ready.with_finalize(finalize)).await, Reason::OrderForeign);
    let claimed = Client::new(&client.directory).of_account(client.account.unwrap());
    let finalize = claimed.finalize(&order, &ready.csr);
    assert_eq!(world.refusal(ready.with_finalize(finalize)).await, Reason::JwsSignature);
    // The victim's finalize with a newOrder that another key signed.
    let mut order_of_another = ready.finalized_by(&client);
    order_of_another.new_order_jws = claimed.new_order(&["example.org"]).into();
    assert!(matches!(world.refusal(order_of_another).await, Reason::OrderForged | Reason::JwsSignature));
    // A finalize in the URL of another directory, of another CA, of another operation.
    let mut elsewhere = Client::new(OTHER);
    world.ca.register_account(&elsewhere.new_account()).await.unwrap();
    elsewhere = elsewhere.of_account(client.account.unwrap());
    let finalize = elsewhere.finalize(&order, &ready.csr);
    assert_eq!(world.refusal(ready.with_finalize(finalize)).await, Reason::OrderForeign);
    let url = format!("https://evil.test/acme/open/order/{order}/finalize");
    let finalize = client.request_to(&url, &json!({ "csr": encode(&ready.csr) }));
    assert_eq!(world.refusal(ready.with_finalize(finalize)).await, Reason::UrlForeign);
    let finalize = client.request(&format!("order/{order}"), &json!({ "csr": encode(&ready.csr) }));
    assert_eq!(world.refusal(ready.with_finalize(finalize)).await, Reason::UrlOperation);
    assert_eq!(world.refusal(ready.with_finalize(ready.new_order.clone())).await, Reason::UrlOperation);
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn a_name_set_that_was_changed_on_the_way_is_not_signed_for() {
    let world = World::start().await;
    let client = world.client().await;
    let mut ready = world.ready(&client, &["example.org"]).await;
    let value: serde_json::Value = serde_json::from_slice(&ready.new_order).unwrap();
    let payload = json!({ "identifiers": [Identifier::dns("bank.test")] }).to_string();
    let changed = json!({
        "protected": value["protected"], "payload": encode(payload), "signature": value["signature"],
    });
    ready.new_order = changed.to_string().into_bytes();
    ready.csr = csr(&["bank.test"]);
    assert_eq!(reason(world.ca.authorize_order(&ready.new_order).await), Reason::JwsSignature);
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::OrderForged);
}

#[tokio::test]
async fn d5_an_order_ends() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.clock.advance(Duration::from_secs(7 * 86_400 + 120));
    world.ca.check_clock().await.unwrap();
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::OrderExpired);
}

#[tokio::test]
async fn c7_keys_count_in_their_time() {
    let world = World::start().await;
    let client = world.client().await;
    let before = world.ready(&client, &["example.org"]).await;
    world.clock.advance(Duration::from_secs(600));
    let renewed = Client::new(&client.directory).of_account(client.account.unwrap());
    world.ca.change_key(&client.key_change(&renewed)).await.unwrap();
    world.clock.advance(Duration::from_secs(600));

    // The old key finalizes nothing, and orders nothing.
    assert_eq!(world.refusal(before.finalized_by(&client)).await, Reason::KeyFormer);
    let late = client.new_order(&["late.example.org"]);
    assert_eq!(reason(world.ca.authorize_order(&late).await), Reason::KeyFormer);
    // What it ordered in its time stays ordered, and what was validated for it stays validated.
    world.issue(before.finalized_by(&renewed)).await.unwrap();

    // newOrder by the old key under a genuine order id of now: a signer would not have made it.
    let mut ready = world.ready(&renewed, &["late.example.org"]).await;
    let (digest, directory) =
        (acme::Jws::from_slice(&late).unwrap().digest(), renewed.directory.parse().unwrap());
    let mint = |at| world.secrets.ids.mint_order(&directory, &renewed.account.unwrap(), &digest, at, [1; 16]);
    ready.new_order = late;
    let finalize = |id: acme::OrderId| renewed.finalize(&id.to_string(), &ready.csr);
    let order = ready.with_finalize(finalize(mint(world.now())));
    assert_eq!(world.refusal(order).await, Reason::JwsSignature);
    let order = ready.with_finalize(finalize(ready.order.id));
    assert_eq!(world.refusal(order).await, Reason::OrderForged);
}

#[tokio::test]
async fn c9_a_deactivated_account_gets_nothing_more() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.ca.update_account(&client.update(&json!({ "status": "deactivated" }))).await.unwrap();
    match world.ca.issue(ready.finalized_by(&client)).await {
        Err(Failure::Refused(refusal)) => {
            assert_eq!((refusal.reason, refusal.problem.status()), (Reason::AccountInactive, 401));
        }
        other => panic!("{other:?}"),
    }
    let new_order = client.new_order(&["www.example.org"]);
    assert_eq!(reason(world.ca.authorize_order(&new_order).await), Reason::AccountInactive);
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn a17_names_are_refused_all_at_once_and_by_every_rule() {
    let world = World::start().await;
    let client = world.client().await;
    let refused = |names: Vec<&'static str>| {
        let (ca, new_order) = (world.ca.clone(), client.new_order(&names));
        async move {
            match ca.authorize_order(&new_order).await {
                Err(Failure::Refused(refusal)) => (refusal.reason, refusal.problem.subproblems.len()),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(refused(vec!["denied.test", "good.test", "x.denied.test"]).await, (Reason::NameRejected, 2));
    assert_eq!(refused(vec!["a..b", "good.test"]).await, (Reason::NameRejected, 1));
    assert_eq!(refused(vec!["192.0.2.1"]).await, (Reason::NameRejected, 1));
    assert_eq!(
        refused(vec!["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"]).await.0,
        Reason::NameCount
    );
    assert_eq!(refused(vec![]).await.0, Reason::NameCount);
}

#[tokio::test]
async fn d4_requested_times_are_honoured_or_refused() {
    let world = World::start().await;
    let client = world.client().await;
    let end = world.now().plus(Period::from_days(10));
    let new_order = client.new_order_with(&["example.org"], json!({ "notAfter": end.to_string() }));
    let ready = world.ready_with(&client, new_order).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    assert_eq!(Certificate::from_der(&issued.certificate).unwrap().not_after(), end);

    let far = world.now().plus(Period::from_days(1000));
    let new_order = client.new_order_with(&["example.org"], json!({ "notAfter": far.to_string() }));
    assert_eq!(reason(world.ca.authorize_order(&new_order).await), Reason::ValidityRequested);
}

#[tokio::test]
async fn each_request_counts_by_its_own_signature() {
    let world = World::start().await;
    let client = world.client().await;
    let stranger = Client::new(&client.directory).of_account(client.account.unwrap());
    let ready = world.ready(&client, &["example.org"]).await;
    // The very words of the client under another's signature: the order id is for them, so nothing else gives it away.
    let by_a_stranger = |request: &[u8]| {
        let mut value: serde_json::Value = serde_json::from_slice(request).unwrap();
        let text =
            |member: &str| String::from_utf8(decode(value[member].as_str().unwrap()).unwrap()).unwrap();
        let header = serde_json::from_str(&text("protected")).unwrap();
        let signed: serde_json::Value =
            serde_json::from_slice(&stranger.sign(&header, &text("payload"))).unwrap();
        assert_eq!((&signed["protected"], &signed["payload"]), (&value["protected"], &value["payload"]));
        value["signature"] = signed["signature"].clone();
        value.to_string().into_bytes()
    };
    let finalize = client.finalize(&ready.order.id.to_string(), &ready.csr);
    let mut new_order_forged = ready.with_finalize(finalize.clone());
    new_order_forged.new_order_jws = by_a_stranger(&ready.new_order).into();
    let finalize_forged = ready.with_finalize(by_a_stranger(&finalize));
    for order in [new_order_forged, finalize_forged] {
        assert_eq!(world.refusal(order).await, Reason::JwsSignature);
    }
    assert!(world.journal().await.is_empty());
    world.issue(ready.with_finalize(finalize)).await.unwrap();
}

#[tokio::test]
async fn the_kid_and_the_operation_are_those_of_the_url() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    // Signed by the account's key, for the account's directory, in the name of that id in another directory.
    let kid = format!("{}/acme/{OTHER}/account/{}", client.base, client.account.unwrap());
    let url = client.url("new-order");
    let header = json!({ "alg": "ES256", "kid": kid, "nonce": encode([7; 16]), "url": url });
    let payload = json!({ "identifiers": [Identifier::dns("example.org")] }).to_string();
    let new_order = client.sign(&header, &payload);
    assert_eq!(reason(world.ca.authorize_order(&new_order).await), Reason::KidForeign);

    // What was asked for at another URL is no order.
    let mut order = ready.finalized_by(&client);
    let payload = json!({ "identifiers": [Identifier::dns("example.org")] });
    order.new_order_jws = client.request("new-authz", &payload).into();
    assert_eq!(world.refusal(order).await, Reason::UrlOperation);
    assert!(world.issuer_key.signed().is_empty());
}
