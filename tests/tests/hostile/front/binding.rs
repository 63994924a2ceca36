//! External account binding: what an operator gave to one customer.

use std::future::Future;

use serde_json::json;

use super::scene::Scene;
use crate::support::encode;

/// No binding where one is demanded.
pub(super) async fn no_binding(scene: &mut Scene) {
    let front = scene.stranger("managed");
    refuse!(scene, register(front.new_account()));
}

/// The client's binding, as it went by, around the front's key.
pub(super) async fn anothers_binding(scene: &mut Scene) {
    let (_, kid, key) = scene.system.registration("managed", "anothers-binding", 1).await;
    scene.meanwhile().await;
    let (victim, front) = (scene.stranger("managed"), scene.stranger("managed"));
    let binding = victim.binding((&kid, &key));
    refuse!(scene, register(front.new_account_with_binding(&binding)));
}

/// A MAC without the key, an id that was never given out, and no id at all.
pub(super) async fn invented_binding(scene: &mut Scene) {
    let (_, kid, key) = scene.system.registration("managed", "invented-binding", 1).await;
    scene.meanwhile().await;
    let front = scene.stranger("managed");
    refuse!(scene, register(front.new_account_with_binding(&front.binding((&kid, &[0; 32])))));
    refuse!(scene, register(front.new_account_with_binding(&front.binding((&kid, b"")))));
    let mut without = front.binding((&kid, &key));
    without["signature"] = encode("").into();
    refuse!(scene, register(front.new_account_with_binding(&without)));
    refuse!(scene, register(front.new_account_with_binding(&front.binding(("bm9ib2R5", &key)))));
    let header = json!({ "alg": "none", "kid": kid, "url": front.url("new-account") });
    let mut unsigned = front.binding((&kid, &key));
    unsigned["protected"] = encode(header.to_string()).into();
    // A binding that is none is a payload that is none.
    refuse!(scene, register(front.new_account_with_binding(&unsigned)));
}

/// The customer of one directory, in another.
pub(super) async fn binding_of_another_directory(scene: &mut Scene) {
    let (_, kid, key) = scene.system.registration("managed", "another-directory", 1).await;
    scene.meanwhile().await;
    let elsewhere = scene.stranger("managed-2");
    refuse!(scene, register(elsewhere.new_account_with_binding(&elsewhere.binding((&kid, &key)))));
    // As it went by in its own directory.
    let binding = elsewhere.in_directory("managed").binding((&kid, &key));
    refuse!(scene, register(elsewhere.new_account_with_binding(&binding)));
}

/// A key for one account, used by eight at the same moment.
pub(super) async fn binding_twice_at_once(scene: &mut Scene) {
    let (_, kid, key) = scene.system.registration("managed", "twice-at-once", 1).await;
    let requests = (0..8).map(|_| {
        let client = scene.stranger("managed");
        let jws = client.new_account_with_binding(&client.binding((&kid, &key)));
        let mut front = scene.front.clone();
        let request = rpc::proto::signer::v1::RegisterAccountRequest { new_account_jws: jws.into() };
        async move { front.register_account(request).await }
    });
    let outcomes = at_once(requests).await;
    scene.meanwhile().await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    scene.check(made.len() == 1, &format!("{} accounts with one use", made.len()));
    refused.into_iter().for_each(|outcome| scene.refuse(outcome));
}

async fn at_once<F: Future>(requests: impl Iterator<Item = F>) -> Vec<F::Output> {
    futures::future::join_all(requests).await
}

/// A key that an operator took back.
pub(super) async fn revoked_binding(scene: &mut Scene) {
    let (_, kid, key) = scene.system.registration("managed", "revoked-binding", 5).await;
    let request = rpc::proto::admin::v1::RevokeEabKeyRequest { kid: kid.clone() };
    scene.system.operator().revoke_eab_key(request).await.expect("a revocation");
    scene.meanwhile().await;
    let front = scene.stranger("managed");
    refuse!(scene, register(front.new_account_with_binding(&front.binding((&kid, &key)))));
}
