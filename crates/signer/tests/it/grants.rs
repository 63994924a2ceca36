//! What an operator allows: registrations, EAB keys, permits, grants.

use std::time::Duration;

use ca_store::{
    AuthorityRow, CaStore as _, EabKeyRow, EabState, GrantRow, NameScope, PermitRow, RegistrationRow, State,
};
use serde_json::json;
use signer::Reason;

use crate::support::{Client, MANAGED, OPEN, Peek as _, Ready, World, reason};

/// A client of a registration.
async fn registered(world: &World, registration: &str) -> Client {
    let (kid, key) = world.registration(registration, Some(1)).await;
    let client = Client::new(MANAGED);
    let account =
        world.ca.register_account(&client.new_account_with_eab(&kid, &key)).await.unwrap().account.id;
    client.of_account(account)
}

/// An order without any receipt.
async fn granted_order(world: &World, client: &Client, names: &[&str]) -> Ready {
    let mut ready = world.ready(client, names).await;
    ready.evidence.iter_mut().for_each(|evidence| evidence.receipts.clear());
    ready
}

#[tokio::test]
async fn a_grant_replaces_the_challenge() {
    let world = World::start().await;
    let client = registered(&world, "acme-corp").await;
    world.grant("g1", "acme-corp", NameScope::Subtree, "corp.test").await;
    let ready = granted_order(&world, &client, &["a.corp.test", "*.corp.test"]).await;
    assert!(ready.order.names.iter().all(|name| name.grant.as_deref() == Some("g1")));
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let evidence = world.store.evidence_of(&issued.serial).await;
    assert!(String::from_utf8(evidence.receipts).unwrap().contains(r#""grant":"g1""#));

    let beside = granted_order(&world, &client, &["corp.test.evil.test"]).await;
    assert_eq!(beside.order.names[0].grant, None);
    assert_eq!(world.refusal(beside.finalized_by(&client)).await, Reason::QuorumMissed);
}

#[tokio::test]
async fn a_grant_is_its_registrations_own() {
    let world = World::start().await;
    let client = registered(&world, "one").await;
    let _ = registered(&world, "two").await;
    world.grant("g2", "two", NameScope::Exact, "two.test").await;
    let ready = granted_order(&world, &client, &["two.test"]).await;
    assert_eq!(ready.order.names[0].grant, None);
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::QuorumMissed);
}

#[tokio::test]
async fn a_grant_can_be_taken_back_and_ends() {
    let world = World::start().await;
    let client = registered(&world, "one").await;
    world.grant("g1", "one", NameScope::Exact, "one.test").await;
    let ready = granted_order(&world, &client, &["one.test"]).await;
    let removed = GrantRow {
        state: State::Disabled,
        version: 2,
        ..world.grant_row("g1", "one", NameScope::Exact, "one.test")
    };
    world.put(AuthorityRow::Grant(world.secrets.rows.seal(removed)), Some(1)).await;
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::QuorumMissed);

    let ends = GrantRow {
        expires_at: Some(world.now().plus(pki::Period::from_days(1))),
        ..world.grant_row("g2", "one", NameScope::Exact, "ends.test")
    };
    world.put(AuthorityRow::Grant(world.secrets.rows.seal(ends)), None).await;
    let ready = granted_order(&world, &client, &["ends.test"]).await;
    world.clock.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::QuorumMissed);
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn a_grant_that_vanishes_between_decision_and_commit_is_noticed() {
    let world = World::start().await;
    let client = registered(&world, "one").await;
    world.grant("g1", "one", NameScope::Exact, "one.test").await;
    let ready = granted_order(&world, &client, &["one.test"]).await;
    // What the decision reads is from before the removal, every time.
    let before = world.store.authority_of("one").await;
    let removed = GrantRow {
        state: State::Disabled,
        version: 2,
        ..world.grant_row("g1", "one", NameScope::Exact, "one.test")
    };
    world.put(AuthorityRow::Grant(world.secrets.rows.seal(removed)), Some(1)).await;
    world.store.alter_authority(move |_| Some(before.clone()));
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(signer::Failure::Contended)), "{outcome:?}");
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn a_disabled_registration_stops_everything() {
    let world = World::start().await;
    let client = registered(&world, "one").await;
    world.grant("g1", "one", NameScope::Exact, "one.test").await;
    let ready = granted_order(&world, &client, &["one.test"]).await;
    let authority = world.store.authority_of("one").await;
    let row = authority.registration.unverified().clone();
    let row = RegistrationRow { state: State::Disabled, version: 2, ..row };
    world.put(AuthorityRow::Registration(world.secrets.rows.seal(row)), Some(1)).await;
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::RegistrationInactive);
    let new_order = client.new_order(&["one.test"]);
    assert_eq!(reason(world.ca.authorize_order(&new_order).await), Reason::RegistrationInactive);
}

#[tokio::test]
async fn permits_restrict_what_may_be_asked_for() {
    let world = World::start().await;
    let client = registered(&world, "one").await;
    let permit = PermitRow {
        id: "p1".to_owned(),
        registration: "one".to_owned(),
        scope: NameScope::Subtree,
        name: "one.test".to_owned(),
        state: State::Active,
        created_at: world.now(),
        version: 1,
    };
    world.put(AuthorityRow::Permit(world.secrets.rows.seal(permit)), None).await;
    assert!(world.ca.authorize_order(&client.new_order(&["a.one.test"])).await.is_ok());
    let outside = client.new_order(&["a.one.test", "two.test"]);
    assert_eq!(reason(world.ca.authorize_order(&outside).await), Reason::NameRejected);
}

#[tokio::test]
async fn c6_an_eab_key_registers_as_often_as_it_says() {
    let world = World::start().await;
    let (kid, key) = world.registration("one", Some(1)).await;
    let first = Client::new(MANAGED);
    let request = first.new_account_with_eab(&kid, &key);
    let registered = world.ca.register_account(&request).await.unwrap();
    assert_eq!(registered.account.row.registration.as_deref(), Some("one"));
    let binding = world.ca.binding_of(&registered.account).unwrap();
    let shown = acme::eab::Binding::from_json(&binding).unwrap();
    shown.verify(registered.account.key(), &first.url("new-account"), &key).unwrap();
    // The same again is the same account; another key is one use too many.
    assert!(!world.ca.register_account(&request).await.unwrap().created);
    let second = Client::new(MANAGED).new_account_with_eab(&kid, &key);
    assert_eq!(reason(world.ca.register_account(&second).await), Reason::EabUsedUp);
}

#[tokio::test]
async fn c4_an_eab_key_used_twice_at_once_is_used_once() {
    let world = World::start().await;
    let (kid, key) = world.registration("one", Some(1)).await;
    let requests: Vec<_> = (0..6).map(|_| Client::new(MANAGED).new_account_with_eab(&kid, &key)).collect();
    let outcomes =
        futures::future::join_all(requests.iter().map(|request| world.ca.register_account(request))).await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    for outcome in refused {
        assert_eq!(reason(outcome), Reason::EabUsedUp);
    }
}

/// However many come at once: none is told to come again.
#[tokio::test]
async fn an_eab_key_of_many_uses_can_be_used_at_once() {
    let world = World::start().await;
    let (kid, key) = world.registration("one", Some(40)).await;
    let requests: Vec<_> = (0..40).map(|_| Client::new(MANAGED).new_account_with_eab(&kid, &key)).collect();
    let outcomes =
        futures::future::join_all(requests.iter().map(|request| world.ca.register_account(request))).await;
    for outcome in outcomes {
        assert!(outcome.unwrap().created);
    }
    let late = Client::new(MANAGED).new_account_with_eab(&kid, &key);
    assert_eq!(reason(world.ca.register_account(&late).await), Reason::EabUsedUp);
}

#[tokio::test]
async fn c6_bindings_are_checked_in_every_part() {
    let world = World::start().await;
    let (kid, key) = world.registration("one", None).await;
    let (other_kid, other_key) = world.registration("two", None).await;
    let client = Client::new(MANAGED);
    let refused = |client: Client, payload: serde_json::Value| {
        let ca = world.ca.clone();
        async move { reason(ca.register_account(&client.new_account_with(&payload)).await) }
    };
    let with = |binding: serde_json::Value| json!({ "externalAccountBinding": binding });

    assert_eq!(refused(Client::new(MANAGED), json!({})).await, Reason::EabRequired);
    let wrong_mac = with(client.binding(&kid, &other_key));
    assert_eq!(refused(client, wrong_mac).await, Reason::EabMac);
    let foreign_key = with(Client::new(MANAGED).binding(&kid, &key));
    assert_eq!(refused(Client::new(MANAGED), foreign_key).await, Reason::EabOtherKey);
    let foreign_url = Client::new(OPEN);
    let binding = with(foreign_url.binding(&kid, &key));
    // The right MAC, for another directory than the key's.
    assert_eq!(refused(foreign_url, binding).await, Reason::EabDirectory);
    let nobody = Client::new(MANAGED);
    let binding = with(nobody.binding("bm9ib2R5", &key));
    assert_eq!(refused(nobody, binding).await, Reason::EabUnknown);

    // An id that was never given out, with its right key: derivable by a signer alone, and no row says so.
    let never = world.secrets.new_eab_key_id(1, [200; 16]);
    let never_key = world.secrets.eab_key(&never).unwrap();
    let client = Client::new(MANAGED);
    let binding = with(client.binding(&never.to_string(), &*never_key));
    assert_eq!(refused(client, binding).await, Reason::EabUnknown);
    let older = world.secrets.new_eab_key_id(77, [1; 16]);
    let older_key = world.secrets.eab_key(&older).unwrap();
    let client = Client::new(MANAGED);
    let binding = with(client.binding(&older.to_string(), &*older_key));
    assert_eq!(refused(client, binding).await, Reason::EabEpoch);

    // Revoked, and expired.
    for (row, expires, expected) in [
        (EabState::Revoked, None, Reason::EabRevoked),
        (EabState::Active, Some(world.now()), Reason::EabExpired),
    ] {
        let stored = world.store.eab_key_of(&other_kid).await;
        let version = stored.version;
        let row = EabKeyRow { state: row, expires_at: expires, version: version + 1, ..stored };
        world.put(AuthorityRow::EabKey(world.secrets.rows.seal(row)), Some(version)).await;
        let client = Client::new(MANAGED);
        let binding = with(client.binding(&other_kid, &other_key));
        assert_eq!(refused(client, binding).await, expected);
    }
}

#[tokio::test]
async fn rows_of_another_registration_count_for_nothing() {
    let world = World::start().await;
    let client = registered(&world, "one").await;
    let _ = registered(&world, "two").await;
    world.grant("g2", "two", NameScope::Exact, "two.test").await;
    // A database administrator files a genuine grant, MAC and all, under another registration.
    let genuine = world.store.authority_of("two").await.grants;
    world.store.alter_authority(move |authority| {
        authority.map(|mut authority| {
            authority.grants.extend(genuine.clone());
            authority
        })
    });
    let ready = granted_order(&world, &client, &["two.test"]).await;
    assert_eq!(ready.order.names[0].grant, None);
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::QuorumMissed);
}

#[tokio::test]
async fn c6_an_eab_key_of_before_a_restore_is_void() {
    let world = World::start().await;
    let (kid, key) = world.registration("one", None).await;
    world.ca.register_account(&Client::new(MANAGED).new_account_with_eab(&kid, &key)).await.unwrap();
    world.store.begin_epoch([9; 16], Vec::new()).await.unwrap();
    let world = world.restart().await;
    // Its row is there, and says that it is in force.
    assert_eq!(world.store.eab_key_of(&kid).await.state, EabState::Active);
    let request = Client::new(MANAGED).new_account_with_eab(&kid, &key);
    assert_eq!(reason(world.ca.register_account(&request).await), Reason::EabEpoch);
    let (kid, key) = world.registration("two", None).await;
    world.ca.register_account(&Client::new(MANAGED).new_account_with_eab(&kid, &key)).await.unwrap();
}

#[tokio::test]
async fn g9_a_grant_is_no_validation_in_public_trust() {
    let world = World::start()
        .await
        .with_policy("validity = \"90d\"", "validity = \"90d\"\nkind = \"public-dv\"")
        .await;
    let client = registered(&world, "one").await;
    world.grant("g1", "one", NameScope::Exact, "www.example.org").await;
    let before = granted_order(&world, &client, &["www.example.org"]).await;
    assert_eq!(before.order.names[0].grant.as_deref(), Some("g1"));
    let world = world.with_policy("profiles = [\"tls\", \"short\"]", "profiles = [\"tls\"]").await;
    let more = "external_account_required = true\npublic_trust = true\ncaa_identities = [\"ca.test\"]";
    let world = world.with_policy("external_account_required = true", more).await;
    let after = granted_order(&world, &client, &["www.example.org"]).await;
    assert_eq!(after.order.names[0].grant, None);
    // Nor where the order was made before.
    for ready in [before, after] {
        assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::QuorumMissed);
    }
}
