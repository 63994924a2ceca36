//! Accounts: somebody else's, somebody else's words about them, and words about something else.

use serde_json::json;

use super::scene::Scene;
use crate::support::{encode, json_of};

/// The client's newAccount with the front's key in its header.
pub(super) async fn swapped_account_key(scene: &mut Scene) {
    let (victim, front) = (scene.stranger("strict"), scene.stranger("strict"));
    let mut jws = json_of(&victim.new_account());
    let header = json_of(&acme::base64url::decode(jws["protected"].as_str().unwrap()).unwrap());
    let mut swapped = header.clone();
    swapped["jwk"] = front.jwk();
    jws["protected"] = encode(swapped.to_string()).into();
    refuse!(scene, register(jws.to_string().into_bytes()));
    // And the client's header over the front's signature.
    let mut jws = json_of(&victim.new_account());
    jws["signature"] = json_of(&front.new_account())["signature"].clone();
    refuse!(scene, register(jws.to_string().into_bytes()));
}

/// The client's newAccount of one directory, its URL changed to another's.
pub(super) async fn registration_in_another_directory(scene: &mut Scene) {
    let victim = scene.stranger("strict");
    let mut jws = json_of(&victim.new_account());
    let header = acme::base64url::decode(jws["protected"].as_str().unwrap()).unwrap();
    let header = String::from_utf8(header).unwrap().replace("/strict/", "/other/");
    jws["protected"] = encode(header).into();
    refuse!(scene, register(jws.to_string().into_bytes()));
}

/// A newAccount that a client made for another CA.
pub(super) async fn registration_for_another_ca(scene: &mut Scene) {
    let mut victim = scene.stranger("strict");
    victim.base = "https://another-ca.test".to_owned();
    refuse!(scene, register(victim.new_account()));
    // Beside the base URL, octet by octet.
    for url in ["//acme/strict/new-account", "/acme/strict/new-account/", "/acme/STRICT/new-account"] {
        let url = format!("{}{url}", scene.system.base);
        let header = json!({ "alg": "ES256", "jwk": victim.jwk(), "nonce": "AAAA", "url": url });
        refuse!(scene, register(victim.sign(&header, "{}")));
    }
}

/// The front's own account signs a change of the victim's.
pub(super) async fn update_of_anothers_account(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    scene.meanwhile().await;
    for payload in [json!({ "contact": ["mailto:front@evil.test"] }), json!({ "status": "deactivated" })] {
        let mut header = front.update_header();
        header["url"] = victim.account_url().into();
        refuse!(scene, update(front.sign(&header, payload.to_string())));
    }
}

/// The client's change with other contents, and with the front's signature.
pub(super) async fn altered_update(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    let mut jws = json_of(&victim.update(&json!({ "contact": ["mailto:victim@example.test"] })));
    jws["payload"] = encode(json!({ "status": "deactivated" }).to_string()).into();
    refuse!(scene, update(jws.to_string().into_bytes()));
    let pretender = victim.pretender();
    refuse!(scene, update(pretender.update(&json!({ "status": "deactivated" }))));
}

/// A change that was accepted, after another one: the front wants the older contacts back.
pub(super) async fn replayed_update(scene: &mut Scene) {
    let victim = scene.client().await;
    let first = victim.update(&json!({ "contact": ["mailto:first@example.test"] }));
    scene.update(first.clone()).await.expect("an update");
    let second = victim.update(&json!({ "contact": ["mailto:second@example.test"] }));
    scene.update(second).await.expect("an update");
    scene.meanwhile().await;
    let answer = scene.update(first).await.expect("what is there");
    let contacts = answer.account.expect("an account").contacts;
    scene.check(contacts == ["mailto:second@example.test"], "the older contacts are back");
}

/// A client only looked at its account.
pub(super) async fn deactivation_by_post_as_get(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    refuse!(scene, update(victim.sign(&victim.update_header(), "")));
}

/// Genuine words of a client, each sent to another operation.
pub(super) async fn request_for_another_operation(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&super::scene::name("operation")]).await;
    scene.meanwhile().await;
    let update = victim.update(&json!({ "contact": [] }));
    let key_change = victim.key_change(&victim.pretender());
    let finalize = victim.finalize(&ready.order, &crate::support::csr_for(&ready.names()));
    let look = victim.request(&format!("order/{}", ready.order), &json!({}));
    refuse!(scene, update(key_change.clone()));
    refuse!(scene, update(ready.new_order.clone()));
    refuse!(scene, change_key(update.clone()));
    refuse!(scene, register(victim.request_with_jwk("revoke-cert", &json!({}))));
    refuse!(scene, order(&finalize));
    refuse!(scene, order(&update));
    refuse!(scene, revoke(ready.new_order.clone()));
    refuse!(scene, issue(ready.with(ready.new_order.clone())));
    refuse!(scene, issue(ready.with(look)));
    let mut swapped = ready.with(finalize.clone());
    swapped.new_order_jws = finalize.into();
    refuse!(scene, issue(swapped));
}

/// An account of one directory, in the URLs of another.
pub(super) async fn account_of_another_directory(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    let elsewhere = victim.in_directory("other");
    let mut header = elsewhere.header("new-order");
    header["kid"] = victim.account_url().into();
    let payload = json!({ "identifiers": [{ "type": "dns", "value": "elsewhere.victim.test" }] });
    refuse!(scene, order(&elsewhere.sign(&header, payload.to_string())));
    // A kid that is an account's URL no longer, or never was one.
    for kid in [victim.url("new-account"), victim.account_url() + "/orders", "x".to_owned()] {
        header["kid"] = kid.into();
        header["url"] = victim.url("new-order").into();
        refuse!(scene, order(&victim.sign(&header, payload.to_string())));
    }
}

/// The id that the key would have, had it an account here.
pub(super) async fn account_that_does_not_exist(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    let mut elsewhere = victim.in_directory("other");
    elsewhere.account = Some(acme::AccountId::derive(&"other".parse().unwrap(), &victim.thumbprint()));
    refuse!(scene, order(&elsewhere.new_order(&["elsewhere.victim.test"])));
    refuse!(
        scene,
        register(elsewhere.request_with_jwk("new-account", &json!({ "onlyReturnExisting": true })))
    );
}

/// An account that its client gave up, with all that it once asked for.
pub(super) async fn deactivated_account(scene: &mut Scene) {
    let victim = scene.client().await;
    let registration = victim.new_account();
    let certificate = scene.certificate(&victim, "deactivated-before.victim.test").await;
    let ready = scene.ready(&victim, &["deactivated.victim.test"]).await;
    scene.update(victim.update(&json!({ "status": "deactivated" }))).await.expect("a deactivation");
    scene.meanwhile().await;
    refuse!(scene, register(registration.clone()));
    refuse!(scene, order(&ready.new_order));
    refuse!(scene, issue(ready.finalized_by(&victim)));
    refuse!(scene, change_key(victim.key_change(&victim.pretender())));
    refuse!(scene, update(victim.update(&json!({ "status": "valid" }))));
    refuse!(scene, revoke(victim.revocation(&certificate, 0)));
}
