//! Section C: accounts (RFC 8555 §7.3).

use std::sync::atomic::Ordering;

use acme::ErrorType;
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::KeySize;
use serde_json::{Value, json};

use crate::ca::{EAB_KEY, EAB_KID, TERMS};
use crate::client::{Answer, Client, Key, encode, seal};
use crate::stage::{Stage, until};
use crate::validator::Sight;

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_key_has_one_account() {
    let stage = Stage::new().await;
    let mut client = Client::new(&stage.wire, "open").await;
    let answer = client.post(&client.url("newAccount"), &json!({"onlyReturnExisting": true})).await;
    answer.problem(400, "accountDoesNotExist");
    let asked = json!({"termsOfServiceAgreed": true, "contact": ["mailto:a@example.org"], "status": "revoked",
        "orders": "https://elsewhere.test"});
    let created = client.register(&asked).await.ok(201);
    let object = created.json();
    assert_eq!(object["status"], "valid");
    assert_eq!(object["orders"], format!("{}/orders", created.location()));
    assert_eq!(object["contact"], json!(["mailto:a@example.org"]));
    client.kid = None;
    let again = client.register(&json!({"contact": ["mailto:b@example.org"]})).await.ok(200);
    assert_eq!(again.location(), created.location());
    assert_eq!(again.json(), object);
    client.kid = None;
    client.register(&json!({"onlyReturnExisting": true})).await.ok(200);
    let updated =
        json!({"contact": ["mailto:c@example.org"], "orders": "x", "termsOfServiceAgreed": false, "y": 1});
    let updated = client.post(&client.account(), &updated).await.ok(200).json();
    assert_eq!(updated["contact"], json!(["mailto:c@example.org"]));
    assert_eq!(updated["termsOfServiceAgreed"], true);
    assert_eq!(client.post_as_get(&client.account()).await.ok(200).json(), updated);
    let unchanged = client.post(&client.account(), &json!({"status": "valid"})).await.ok(200).json();
    assert_eq!(unchanged, updated);
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_terms_must_be_agreed_to() {
    let stage = Stage::new().await;
    let mut client = Client::new(&stage.wire, "open").await;
    for payload in [json!({}), json!({"termsOfServiceAgreed": false})] {
        let answer = client.register(&payload).await;
        let problem = answer.problem(403, "userActionRequired");
        assert_eq!(problem["instance"], TERMS);
        assert_eq!(answer.links("terms-of-service"), [TERMS]);
    }
}

/// RFC 8555 §7.3.3. What of it stops and what goes on is the signer's to say; here its word must reach the client.
#[tokio::test(flavor = "multi_thread")]
async fn c2_new_terms_are_agreed_to_by_an_update() {
    const NEW: &str = "https://ca.test/terms/2";
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let before = client.order(&["before.granted.test"]).await.ok(201);
    stage.ca.change_terms(NEW);
    let answer = client.order(&["after.granted.test"]).await;
    let problem = answer.problem(403, "userActionRequired");
    assert_eq!(problem["instance"], NEW);
    assert_eq!(answer.links("terms-of-service"), [NEW]);
    // What only looks is answered.
    client.post_as_get(&before.location()).await.ok(200);
    client.post(&client.account(), &json!({"contact": []})).await.ok(200);
    client.order(&["after.granted.test"]).await.problem(403, "userActionRequired");
    let agreed = client.post(&client.account(), &json!({"termsOfServiceAgreed": true})).await.ok(200).json();
    assert_eq!(agreed["termsOfServiceAgreed"], true);
    client.order(&["after.granted.test"]).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_contacts_are_judged() {
    let stage = Stage::new().await;
    let mut client = Client::new(&stage.wire, "open").await;
    let long = format!("mailto:{}@example.org", "a".repeat(65));
    let cases = [
        ("tel:+123", "unsupportedContact"),
        ("https://example.org", "unsupportedContact"),
        ("mailto:a@example.org?subject=x", "invalidContact"),
        ("mailto:a@example.org,b@example.org", "invalidContact"),
        ("mailto:a%40b@example.org", "invalidContact"),
        ("mailto:", "invalidContact"),
        (&long, "invalidContact"),
    ];
    for (contact, kind) in cases {
        let answer = client.register(&json!({"termsOfServiceAgreed": true, "contact": [contact]})).await;
        answer.problem(400, kind);
    }
    let many: Vec<_> = (0..11).map(|number| format!("mailto:a{number}@example.org")).collect();
    let few = &many[..10];
    client
        .register(&json!({"termsOfServiceAgreed": true, "contact": many}))
        .await
        .problem(400, "invalidContact");
    client.register(&json!({"termsOfServiceAgreed": true, "contact": few})).await.ok(201);
    // An update is judged in the same way, and changes nothing when it is refused.
    for (contact, kind) in cases {
        let contacts = json!({"contact": ["mailto:good@example.org", contact]});
        client.post(&client.account(), &contacts).await.problem(400, kind);
    }
    client.post(&client.account(), &json!({"contact": many})).await.problem(400, "invalidContact");
    let kept = client.post_as_get(&client.account()).await.ok(200).json();
    assert_eq!(kept["contact"].as_array().unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_of_two_registrations_at_once_one_makes_the_account() {
    let stage = Stage::new().await;
    let client = Client::new(&stage.wire, "open").await;
    let (url, payload) = (client.url("newAccount"), json!({"termsOfServiceAgreed": true}));
    let (one, two) = tokio::join!(client.post(&url, &payload), client.post(&url, &payload));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
    assert_eq!(one.location(), two.location());
}

/// An external account binding (RFC 8555 §7.3.4), as right as `change` leaves it.
pub(crate) fn binding(client: &Client, change: impl FnOnce(&mut Value, &mut String)) -> Value {
    let mut header = json!({"alg": "HS256", "kid": EAB_KID, "url": client.url("newAccount")});
    let mut payload = client.key.jwk().to_string();
    change(&mut header, &mut payload);
    let (protected, payload) = (encode(header.to_string()), encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &EAB_KEY);
    let tag = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
    json!({"protected": protected, "payload": payload, "signature": encode(tag)})
}

async fn bind(client: &mut Client, binding: Value) -> Answer {
    client.register(&json!({"termsOfServiceAgreed": true, "externalAccountBinding": binding})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_external_account_is_required_where_the_directory_says_so() {
    let stage = Stage::new().await;
    let mut client = Client::new(&stage.wire, "eab").await;
    assert_eq!(client.directory["meta"]["externalAccountRequired"], true);
    client.register(&json!({"termsOfServiceAgreed": true})).await.problem(403, "externalAccountRequired");
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_external_account_binding_reaches_the_signer_as_it_is() {
    let stage = Stage::new().await;
    let mut client = Client::new(&stage.wire, "eab").await;
    let wrong = [
        binding(&client, |header, _| header["url"] = json!("https://acme.test/elsewhere")),
        binding(&client, |header, _| header["nonce"] = json!("AAAA")),
        binding(&client, |header, _| header["kid"] = json!("another")),
        binding(&client, |_, payload| *payload = Key::es256().jwk().to_string()),
    ];
    for binding in wrong {
        let answer = bind(&mut client, binding).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
    }
    // None of them made an account that would show it; nor does a binding that comes too late.
    client.register(&json!({"onlyReturnExisting": true})).await.problem(400, "accountDoesNotExist");
    let good = binding(&client, |_, _| {});
    let answer = bind(&mut client, good.clone()).await.ok(201);
    assert_eq!(answer.json()["externalAccountBinding"], good);
    let kept = client.post_as_get(&client.account()).await.ok(200).json();
    assert_eq!(kept["externalAccountBinding"], good);
    let unbound = Client::registered(&stage.wire, "open").await;
    let late = json!({"externalAccountBinding": binding(&unbound, |_, _| {})});
    let shown = unbound.post(&unbound.account(), &late).await.ok(200).json();
    assert!(shown.get("externalAccountBinding").is_none(), "{shown}");
}

/// The payload of keyChange: the inner JWS, as right as `change` leaves it.
fn key_change(client: &Client, new: &Key, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let mut header = json!({"alg": new.algorithm(), "jwk": new.jwk(), "url": client.url("keyChange")});
    let mut payload = json!({"account": client.account(), "oldKey": client.key.jwk()});
    change(&mut header, &mut payload);
    seal(new, &header, &payload.to_string()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_key_change_counts_at_once_on_every_front() {
    let (one, two) = Stage::pair().await;
    until("a stream of changes", async || one.ca.is_watched()).await;
    let mut client = Client::registered(&one.wire, "open").await;
    let order = client.order(&["kept.example.org"]).await.ok(201).location();
    for new in [Key::rsa(KeySize::Rsa2048), Key::es384(), Key::ed25519(), Key::es256()] {
        // Both fronts have the account in memory.
        client.post_as_get(&client.account()).await.ok(200);
        client.wire = two.wire.clone();
        client.post_as_get(&client.account()).await.ok(200);
        client.wire = one.wire.clone();
        let url = client.url("keyChange");
        let payload = key_change(&client, &new, |_, _| {});
        client.post_text(&url, &payload).await.ok(200);
        let old = std::mem::replace(&mut client.key, new);
        // The old key: refused at once, here and there.
        let account = client.account();
        // Each key is of another kind than the one before it.
        let refused = async |client: &Client| {
            let nonce = client.nonce().await;
            let header = json!({"alg": old.algorithm(), "kid": account, "nonce": nonce, "url": account});
            let body = seal(&old, &header, "").to_string();
            let answer = client.wire.post(&account, crate::client::JOSE, body).await;
            (!answer.status.is_success()).then(|| answer.problem(400, "badPublicKey"))
        };
        assert!(refused(&client).await.is_some());
        client.wire = two.wire.clone();
        // It has heard of it, or will before long.
        until("the other front refuses the old key", async || refused(&client).await.is_some()).await;
        client.wire = two.wire.clone();
        client.post_as_get(&client.account()).await.ok(200);
        client.wire = one.wire.clone();
        // Orders stay as they are.
        assert_eq!(client.post_as_get(&order).await.ok(200).json()["status"], "pending");
    }
}

/// RFC 8555 §8.1: the key authorization is that of the account's key when it is looked for.
#[tokio::test(flavor = "multi_thread")]
async fn c7_tries_after_a_key_change_look_for_the_new_key() {
    let stage = Stage::with(|config| {
        config.validation.retry_milliseconds = vec![3_000];
        config.validation.answer_wait_milliseconds = 15_000;
    })
    .await;
    let mut client = Client::registered(&stage.wire, "open").await;
    stage.validator.plan("moved.example.org", [Sight::Invalid(ErrorType::Connection)]);
    let order = client.order(&["moved.example.org"]).await.ok(201).json();
    let url = order["authorizations"][0].as_str().unwrap().to_owned();
    let challenge = client.post_as_get(&url).await.ok(200).json()["challenges"][0]["url"].clone();
    client.post(challenge.as_str().unwrap(), &json!({})).await.ok(200);
    let new = Key::es384();
    let payload = key_change(&client, &new, |_, _| {});
    client.post_text(&client.url("keyChange"), &payload).await.ok(200);
    let old = std::mem::replace(&mut client.key, new);
    stage.poll(&client, &url, &["valid"]).await;
    let thumbprint =
        |key: &Key| acme::Jwk::from_json(&key.jwk().to_string()).unwrap().thumbprint().to_string();
    assert_eq!(*stage.validator.thumbprints.lock(), [thumbprint(&old), thumbprint(&client.key)]);
}

/// An algorithm, and how a key of its kind is made.
type Kind = (&'static str, fn() -> Key);

/// A key of each kind to a key of each kind, the same kind among them.
#[tokio::test(flavor = "multi_thread")]
async fn c7_keys_of_all_kinds_follow_each_other() {
    let kinds: [Kind; 5] = [
        ("ES256", Key::es256),
        ("ES384", Key::es384),
        ("ES512", Key::es512),
        ("RS256", || Key::rsa(KeySize::Rsa2048)),
        ("EdDSA", Key::ed25519),
    ];
    let stage = Stage::new().await;
    for (from, first) in kinds {
        for (to, second) in kinds {
            let mut client = Client::with_key(&stage.wire, "open", first()).await;
            let account = client.register(&json!({"termsOfServiceAgreed": true})).await.ok(201).location();
            let new = second();
            assert_eq!((client.key.algorithm(), new.algorithm()), (from, to));
            let payload = key_change(&client, &new, |_, _| {});
            client.post_text(&client.url("keyChange"), &payload).await.ok(200);
            let old = std::mem::replace(&mut client.key, new);
            client.post_as_get(&account).await.ok(200);
            client.key = old;
            let refused = client.post_as_get(&account).await;
            assert!(refused.status.is_client_error(), "{from} to {to}: {refused:?}");
        }
    }
}

/// An order that began with the old key ends with the new one: what was validated stays so, what waits goes on.
#[tokio::test(flavor = "multi_thread")]
async fn c7_an_order_in_the_middle_goes_on_with_the_new_key() {
    let stage = Stage::new().await;
    let mut client = Client::registered(&stage.wire, "open").await;
    let names = ["old-key.example.org", "new-key.example.org"];
    let answer = client.order(&names).await.ok(201);
    let (order, url) = (answer.json(), answer.location());
    let authorizations: Vec<_> =
        order["authorizations"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    stage.authorize(&client, authorizations[0]).await;
    let new = Key::es384();
    let payload = key_change(&client, &new, |_, _| {});
    client.post_text(&client.url("keyChange"), &payload).await.ok(200);
    client.key = new;
    let kept = client.post_as_get(authorizations[0]).await.ok(200).json();
    assert_eq!(kept["status"], "valid");
    stage.authorize(&client, authorizations[1]).await;
    let seen = stage.validator.thumbprints.lock().clone();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0], seen[1], "the key authorization is that of the current key");
    stage.finalize(&client, &order, &names).await.ok(200);
    let issued = stage.poll(&client, &url, &["valid"]).await.json();
    stage.leaf(&client, issued["certificate"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_key_change_is_refused_when_anything_is_wrong() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let other = Client::registered(&stage.wire, "open").await;
    let (url, new) = (client.url("keyChange"), Key::es256());
    let wrong = [
        key_change(&client, &new, |header, _| header["url"] = json!("https://acme.test/elsewhere")),
        key_change(&client, &new, |header, _| header["nonce"] = json!("AAAA")),
        key_change(&client, &new, |header, _| header["jwk"] = Key::es256().jwk()),
        key_change(&client, &new, |_, payload| payload["account"] = json!(other.account())),
        key_change(&client, &new, |_, payload| payload["oldKey"] = new.jwk()),
        "{}".to_owned(),
    ];
    for payload in wrong {
        let answer = client.post_text(&url, &payload).await;
        assert!(answer.status.is_client_error(), "{payload}: {answer:?}");
        client.post_as_get(&client.account()).await.ok(200);
    }
    let payload = key_change(&client, &other.key, |_, _| {});
    let answer = client.post_text(&url, &payload).await;
    answer.problem(409, "malformed");
    assert_eq!(answer.location(), other.account());
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_deactivated_account_gets_401_for_everything() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["gone.example.org"]).await.ok(201).location();
    let answer = client.post(&client.account(), &json!({"status": "deactivated"})).await.ok(200);
    assert_eq!(answer.json()["status"], "deactivated");
    for (url, payload) in [
        (client.account(), ""),
        (order, ""),
        (client.url("newOrder"), r#"{"identifiers":[{"type":"dns","value":"a.example.org"}]}"#),
        (client.url("keyChange"), "{}"),
    ] {
        client.post_text(&url, payload).await.problem(401, "unauthorized");
    }
    let mut client = client;
    client.kid = None;
    client.register(&json!({"termsOfServiceAgreed": true})).await.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_kept_in_memory_only_while_changes_are_heard_of() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    until("a stream of changes", async || stage.ca.is_watched()).await;
    client.post_as_get(&client.account()).await.ok(200);
    let before = stage.ca.look_ups.load(Ordering::SeqCst);
    for _ in 0..3 {
        client.post_as_get(&client.account()).await.ok(200);
    }
    let while_heard = stage.ca.look_ups.load(Ordering::SeqCst) - before;
    assert!(while_heard <= 1, "{while_heard} look-ups");
    stage.ca.break_streams();
    // Until the front has noticed, and after: it asks for the account each time.
    for _ in 0..100 {
        let before = stage.ca.look_ups.load(Ordering::SeqCst);
        client.post_as_get(&client.account()).await.ok(200);
        if stage.ca.look_ups.load(Ordering::SeqCst) > before {
            return;
        }
    }
    panic!("still from memory, though nobody tells of changes");
}
