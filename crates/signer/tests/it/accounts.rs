//! Accounts: registration, update, key change.

use serde_json::json;
use signer::{Failure, Reason};

use crate::support::{Client, OPEN, OTHER, Peek as _, World, reason};

#[tokio::test]
async fn c4_one_key_is_one_account() {
    let world = World::start().await;
    let client = Client::new(OPEN);
    let requests: Vec<_> = (0..6).map(|_| client.new_account()).collect();
    let outcomes = requests.iter().map(|request| world.ca.register_account(request));
    let registered = futures::future::try_join_all(outcomes).await.unwrap();
    assert_eq!(registered.iter().filter(|one| one.created).count(), 1);
    let id = registered[0].account.id;
    assert!(registered.iter().all(|one| one.account.id == id));
    assert_eq!(id, acme::AccountId::derive(&OPEN.parse().unwrap(), &client.thumbprint()));
    assert_eq!(registered[0].account.row.contacts, ["mailto:admin@example.org"]);
    // In another directory it is another account.
    let elsewhere = client.moved_to(OTHER);
    let other = world.ca.register_account(&elsewhere.new_account()).await.unwrap();
    assert!(other.created);
    assert_ne!(other.account.id, id);
}

#[tokio::test]
async fn c3_registrations_are_refused_for_good_reasons() {
    let world = World::start().await;
    let refused = |client: Client, payload: serde_json::Value| {
        let ca = world.ca.clone();
        async move { reason(ca.register_account(&client.new_account_with(&payload)).await) }
    };
    let only = json!({ "onlyReturnExisting": true });
    assert_eq!(refused(Client::new(OPEN), only).await, Reason::AccountUnknown);
    assert_eq!(refused(Client::new(OTHER), json!({})).await, Reason::TermsNotAgreed);
    assert_eq!(refused(Client::new(OPEN), json!({ "contact": ["tel:1"] })).await, Reason::ContactUnsupported);
    let two = json!({ "contact": ["mailto:a@example.org,b@example.org"] });
    assert_eq!(refused(Client::new(OPEN), two).await, Reason::ContactInvalid);

    let client = Client::new(OPEN);
    let signed_by_another = {
        let (mut value, other): (serde_json::Value, serde_json::Value) = (
            serde_json::from_slice(&client.new_account()).unwrap(),
            serde_json::from_slice(&Client::new(OPEN).new_account()).unwrap(),
        );
        value["signature"] = other["signature"].clone();
        value.to_string().into_bytes()
    };
    assert_eq!(reason(world.ca.register_account(&signed_by_another).await), Reason::JwsSignature);
    let for_new_order = client.request_with_jwk("new-order", &json!({}));
    assert_eq!(reason(world.ca.register_account(&for_new_order).await), Reason::UrlOperation);
    assert!(world.store.account_count(OPEN).await == 0);
}

#[tokio::test]
async fn e6_a_certificates_key_makes_no_account() {
    let world = World::start().await;
    let client = world.client().await;
    let mut ready = world.ready(&client, &["example.org"]).await;
    let future = Client::new(OPEN);
    ready.csr = future.csr_with_account_key(&["example.org"]);
    world.issue(ready.finalized_by(&client)).await.unwrap();
    assert_eq!(reason(world.ca.register_account(&future.new_account()).await), Reason::KeyUnacceptable);
    let change = client.key_change(&future.of_account(client.account.unwrap()));
    assert_eq!(reason(world.ca.change_key(&change).await), Reason::KeyUnacceptable);
}

#[tokio::test]
async fn c1_contacts_change_and_a_request_is_good_once() {
    let world = World::start().await;
    let client = world.client().await;
    let first = client.update(&json!({ "contact": ["mailto:first@example.org"] }));
    let second = client.update(&json!({ "contact": [] }));
    let account = world.ca.update_account(&first).await.unwrap();
    assert_eq!(
        (account.row.contacts.as_slice(), account.row.version),
        (&["mailto:first@example.org".to_owned()][..], 2)
    );
    assert!(world.ca.update_account(&second).await.unwrap().row.contacts.is_empty());
    // A front that plays the first again changes nothing.
    let account = world.ca.update_account(&first).await.unwrap();
    assert_eq!((account.row.contacts.len(), account.row.version), (0, 3));

    let nothing = client.update(&json!({ "status": "valid", "orders": "x" }));
    assert_eq!(world.ca.update_account(&nothing).await.unwrap().row.version, 3);
    let other = world.client().await;
    let foreign = other.request_to(&client.account_url(), &json!({ "status": "deactivated" }));
    assert_eq!(reason(world.ca.update_account(&foreign).await), Reason::AccountForeign);
    let claimed = Client::new(OPEN).of_account(client.account.unwrap());
    let forged = claimed.update(&json!({ "status": "deactivated" }));
    assert_eq!(reason(world.ca.update_account(&forged).await), Reason::JwsSignature);
}

#[tokio::test]
async fn c9_a_deactivated_account_stays_so() {
    let world = World::start().await;
    let client = world.client().await;
    world.ca.update_account(&client.update(&json!({ "status": "deactivated" }))).await.unwrap();
    let revived = client.update(&json!({ "contact": [] }));
    for outcome in [
        reason(world.ca.update_account(&revived).await),
        reason(world.ca.register_account(&client.new_account()).await),
        reason(world.ca.change_key(&client.key_change(&Client::new(OPEN))).await),
    ] {
        assert_eq!(outcome, Reason::AccountInactive);
    }
}

#[tokio::test]
async fn c8_a_key_change_is_checked_in_every_part() {
    let world = World::start().await;
    let client = world.client().await;
    let new = Client::new(OPEN);
    let bad = [
        (
            json!({ "account": client.url("account/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "oldKey": client.jwk() }),
            Reason::KeyChangeAccount,
        ),
        (json!({ "account": client.account_url(), "oldKey": new.jwk() }), Reason::KeyChangeOldKey),
        (json!({ "account": client.account_url() }), Reason::KeyChangeInner),
    ];
    for (payload, expected) in bad {
        let change = client.key_change_with(&new, &payload);
        assert_eq!(reason(world.ca.change_key(&change).await), expected);
    }
    let other = world.client().await;
    match world.ca.change_key(&client.key_change(&other)).await {
        Err(Failure::Refused(refusal)) => {
            assert_eq!((refusal.reason, refusal.problem.status()), (Reason::KeyInUse, 409));
            assert_eq!(refusal.account, Some(other.account.unwrap().to_string()));
        }
        outcome => panic!("{outcome:?}"),
    }
    let change = client.key_change(&new);
    let account = world.ca.change_key(&change).await.unwrap();
    assert_eq!((account.id, account.key().thumbprint()), (client.account.unwrap(), new.thumbprint()));
    // Its answer was lost: the front asks again, and nothing changes.
    let again = world.ca.change_key(&change).await.unwrap();
    assert_eq!(again.row, account.row);
}

#[tokio::test]
async fn c7_a_former_key_never_returns() {
    let world = World::start().await;
    let client = world.client().await;
    let id = client.account.unwrap();
    let second = Client::new(OPEN).of_account(id);
    world.ca.change_key(&client.key_change(&second)).await.unwrap();
    // Not to itself, not to a new account, not to another's, and it signs nothing.
    assert_eq!(reason(world.ca.change_key(&second.key_change(&client)).await), Reason::KeyInUse);
    assert_eq!(reason(world.ca.register_account(&client.new_account()).await), Reason::KeyRetired);
    let other = world.client().await;
    assert_eq!(reason(world.ca.change_key(&other.key_change(&client)).await), Reason::KeyInUse);
    assert_eq!(reason(world.ca.update_account(&client.update(&json!({}))).await), Reason::KeyFormer);
}

/// A directory that asks: `other`, whose terms change.
async fn asking(terms: &str) -> World {
    let world = World::start().await;
    let to = format!("terms_of_service = \"{terms}\"\nterms_change = \"ask\"");
    world.with_policy("terms_of_service = \"https://ca.test/terms\"", &to).await
}

async fn new_terms(world: World, from: &str, to: &str) -> World {
    world.with_policy(&format!("\"{from}\""), &format!("\"{to}\"")).await
}

const FIRST: &str = "https://ca.test/terms/1";
const SECOND: &str = "https://ca.test/terms/2";
const THIRD: &str = "https://ca.test/terms/3";

/// RFC 8555 §7.3.3.
#[tokio::test]
async fn c2_who_agreed_to_other_terms_is_asked_to_agree_again() {
    let world = asking(FIRST).await;
    let client = world.client_of(OTHER).await;
    let issued =
        world.issue(world.ready(&client, &["example.org"]).await.finalized_by(&client)).await.unwrap();
    let ready = world.ready(&client, &["example.org"]).await;
    let world = new_terms(world, FIRST, SECOND).await;
    match world.ca.authorize_order(&client.new_order(&["example.org"])).await {
        Err(Failure::Refused(refusal)) => {
            assert_eq!((refusal.reason, refusal.problem.status()), (Reason::TermsChanged, 403));
            assert_eq!(refusal.problem.instance.as_deref(), Some(SECOND));
        }
        outcome => panic!("{outcome:?}"),
    }
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::TermsChanged);
    // Another update agrees to nothing.
    for payload in [json!({ "contact": [] }), json!({ "termsOfServiceAgreed": false })] {
        world.ca.update_account(&client.update(&payload)).await.unwrap();
        assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::TermsChanged);
    }
    // Whatever the terms, a certificate can be revoked and a key be changed.
    let payload = json!({ "certificate": acme::base64url::encode(&issued.certificate) });
    world.ca.revoke(&client.request("revoke-cert", &payload), Vec::new()).await.unwrap();
    let renewed = Client::new(OTHER).of_account(client.account.unwrap());
    world.ca.change_key(&client.key_change(&renewed)).await.unwrap();
    let agrees = renewed.update(&json!({ "termsOfServiceAgreed": true }));
    let account = world.ca.update_account(&agrees).await.unwrap();
    assert_eq!(account.row.terms_agreed.as_deref(), Some(SECOND));
    assert_eq!(account.row.contacts, [""; 0], "what is not in an update stays");
    world.issue(ready.finalized_by(&renewed)).await.unwrap();
    world.ca.authorize_order(&renewed.new_order(&["example.org"])).await.unwrap();
}

/// "I agree" does not say to what: it is good once, for the terms of its day.
#[tokio::test]
async fn c2_an_agreement_is_not_played_again_for_later_terms() {
    let world = asking(FIRST).await;
    let client = world.client_of(OTHER).await;
    let early = client.update(&json!({ "termsOfServiceAgreed": true }));
    world.ca.update_account(&early).await.unwrap();
    let world = new_terms(world, FIRST, SECOND).await;
    let agrees = client.update(&json!({ "termsOfServiceAgreed": true }));
    world.ca.update_account(&agrees).await.unwrap();
    let world = new_terms(world, SECOND, THIRD).await;
    for replayed in [&early, &agrees, &client.new_account()] {
        let _ = world.ca.update_account(replayed).await;
        let _ = world.ca.register_account(replayed).await;
        let order = world.ca.authorize_order(&client.new_order(&["example.org"])).await;
        assert_eq!(reason(order), Reason::TermsChanged);
    }
    let row = world.store.record_of(&client.account.unwrap().to_string()).await.account;
    assert_eq!(row.unverified().terms_agreed.as_deref(), Some(SECOND));
}

/// The default: a certificate that renews itself goes on.
#[tokio::test]
async fn c2_new_terms_stop_nobody_unless_the_directory_says_so() {
    let world = World::start().await;
    let client = world.client_of(OTHER).await;
    let world = new_terms(world, "https://ca.test/terms", SECOND).await;
    world.issue(world.ready(&client, &["example.org"]).await.finalized_by(&client)).await.unwrap();
    // Who comes new agrees to those of today.
    let newcomer = world.client_of(OTHER).await;
    let row = world.store.record_of(&newcomer.account.unwrap().to_string()).await.account;
    assert_eq!(row.unverified().terms_agreed.as_deref(), Some(SECOND));
    match world.ca.register_account(&Client::new(OTHER).new_account_with(&json!({}))).await {
        Err(Failure::Refused(refusal)) => assert_eq!(refusal.problem.instance.as_deref(), Some(SECOND)),
        outcome => panic!("{outcome:?}"),
    }
}
