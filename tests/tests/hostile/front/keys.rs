//! Key changes, and keys that were an account's before.

use serde_json::json;

use super::scene::{Scene, name};
use crate::support::{encode, json_of};

/// The client's key change, its inner part replaced by the front's.
pub(super) async fn key_change_to_the_fronts_key(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    let (wanted, fronts) = (victim.pretender(), victim.pretender());
    let mut jws = json_of(&victim.key_change(&wanted));
    let payload = json!({ "account": victim.account_url(), "oldKey": victim.jwk() });
    jws["payload"] = encode(fronts.inner(&victim.url("key-change"), &payload)).into();
    refuse!(scene, change_key(jws.to_string().into_bytes()));
    // All of it by the front.
    refuse!(scene, change_key(fronts.key_change(&wanted)));
}

/// The victim is to take a key that its owner knows nothing of.
pub(super) async fn key_change_without_the_new_key(scene: &mut Scene) {
    let (victim, other) = (scene.client().await, scene.stranger("strict"));
    scene.meanwhile().await;
    let payload = json!({ "account": victim.account_url(), "oldKey": victim.jwk() });
    let url = victim.url("key-change");
    let mut unsigned = json_of(&other.inner(&url, &payload));
    unsigned["signature"] = encode([0; 64]).into();
    let by_another =
        victim.sign(&json!({ "alg": "ES256", "jwk": other.jwk(), "url": url }), payload.to_string());
    let with_nonce =
        json!({ "alg": "ES256", "jwk": other.jwk(), "url": url, "nonce": crate::support::nonce() });
    let with_nonce = other.sign(&with_nonce, payload.to_string());
    for inner in [unsigned.to_string().into_bytes(), by_another, with_nonce, b"{}".to_vec()] {
        refuse!(scene, change_key(victim.key_change_with(&inner)));
    }
}

/// An inner part that was made for another account.
pub(super) async fn key_change_for_another_account(scene: &mut Scene) {
    let (victim, other) = (scene.client().await, scene.client().await);
    scene.meanwhile().await;
    let payload = json!({ "account": other.account_url(), "oldKey": victim.jwk() });
    let inner = victim.pretender().inner(&victim.url("key-change"), &payload);
    refuse!(scene, change_key(victim.key_change_with(&inner)));
}

/// An inner part that was made for another old key.
pub(super) async fn key_change_from_another_key(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    let new = victim.pretender();
    let payload = json!({ "account": victim.account_url(), "oldKey": new.jwk() });
    let inner = new.inner(&victim.url("key-change"), &payload);
    refuse!(scene, change_key(victim.key_change_with(&inner)));
}

/// An inner part that was made for another CA, or another directory.
pub(super) async fn key_change_for_another_url(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    let payload = json!({ "account": victim.account_url(), "oldKey": victim.jwk() });
    let elsewhere = victim.in_directory("other").url("key-change");
    for url in ["https://another-ca.test/acme/strict/key-change".to_owned(), elsewhere] {
        let inner = victim.pretender().inner(&url, &payload);
        refuse!(scene, change_key(victim.key_change_with(&inner)));
    }
}

/// To a key that another account has.
pub(super) async fn key_change_to_anothers_key(scene: &mut Scene) {
    let (victim, other) = (scene.client().await, scene.client().await);
    scene.meanwhile().await;
    refuse!(scene, change_key(victim.key_change(&other)));
}

/// The change from the first key to the second, replayed when the third is in force; and a change back to the first.
pub(super) async fn key_change_back(scene: &mut Scene) {
    let first = scene.client().await;
    let (second, third) = (first.pretender(), first.pretender());
    let change = first.key_change(&second);
    scene.change_key(change.clone()).await.expect("a key change");
    scene.change_key(second.key_change(&third)).await.expect("a key change");
    scene.meanwhile().await;
    refuse!(scene, change_key(change));
    refuse!(scene, change_key(third.key_change(&first)));
}

/// Everything that a key may sign, by the key that was the account's until a moment ago.
pub(super) async fn former_key(scene: &mut Scene) {
    let former = scene.client().await;
    let ready = scene.ready(&former, &[&name("former")]).await;
    let certificate = scene.certificate(&former, "former-before.victim.test").await;
    let current = former.pretender();
    scene.change_key(former.key_change(&current)).await.expect("a key change");
    // A key counts for the whole second in which it was changed.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    scene.meanwhile().await;
    refuse!(scene, order(&former.new_order(&["former-late.victim.test"])));
    refuse!(scene, issue(ready.finalized_by(&former)));
    refuse!(scene, update(former.update(&json!({ "status": "deactivated" }))));
    refuse!(scene, change_key(former.key_change(&former.pretender())));
    refuse!(scene, revoke(former.revocation(&certificate, 0)));
}

/// A former key wants an account of its own.
pub(super) async fn former_key_registers(scene: &mut Scene) {
    let former = scene.client().await;
    scene.change_key(former.key_change(&former.pretender())).await.expect("a key change");
    scene.meanwhile().await;
    refuse!(scene, register(former.new_account()));
}
