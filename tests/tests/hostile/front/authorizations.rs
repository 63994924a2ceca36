//! Authorizations beyond their order: given up, invented, of other names.

use rpc::proto::signer::v1 as wire;
use serde_json::json;

use super::scene::{Scene, name};

fn path(authorization: &wire::AuthorizationEvidence) -> String {
    format!("authorization/{}", authorization.authorization_id)
}

/// The client gave it up; the front still has the receipts, and shows them for the order, and for a certificate of the same
/// name that another account got.
pub(super) async fn authorization_given_up(scene: &mut Scene) {
    let (client, heir) = (scene.client().await, scene.client().await);
    let names = [&*name("given-up")];
    let ready = scene.ready(&client, &names).await;
    let others = scene.ready(&heir, &names).await;
    let certificate = scene.issue(others.finalized_by(&heir)).await.expect("a certificate").chain.remove(0);
    let jws = client.request(&path(&ready.evidence[0]), &json!({ "status": "deactivated" }));
    scene.deactivate(jws, &ready.evidence[0]).await.expect("a deactivation");
    scene.meanwhile().await;
    refuse!(scene, issue(ready.finalized_by(&client)));
    refuse!(scene, revoke_with(client.revocation(&certificate, 0), ready.evidence.clone()));
}

/// The front wants a client's authorization gone.
pub(super) async fn authorization_given_up_by_the_front(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    let ready = scene.ready(&victim, &[&name("taken")]).await;
    scene.meanwhile().await;
    let payload = json!({ "status": "deactivated" });
    refuse!(scene, deactivate(front.request(&path(&ready.evidence[0]), &payload), &ready.evidence[0]));
    let pretender = victim.pretender();
    refuse!(scene, deactivate(pretender.request(&path(&ready.evidence[0]), &payload), &ready.evidence[0]));
}

/// The client gives one authorization up; the front says that another is meant, or that it is of another name.
pub(super) async fn another_authorization_given_up(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &[&name("given"), &name("kept")]).await;
    scene.meanwhile().await;
    let jws = client.request(&path(&ready.evidence[0]), &json!({ "status": "deactivated" }));
    refuse!(scene, deactivate(jws.clone(), &ready.evidence[1]));
    let identifier = ready.evidence[1].identifier.clone();
    let renamed = wire::AuthorizationEvidence { identifier, ..ready.evidence[0].clone() };
    refuse!(scene, deactivate(jws, &renamed));
}

/// What a client signed for something else: a look at the authorization, the end of its account.
pub(super) async fn authorization_given_up_by_a_look(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &[&name("looked-at")]).await;
    scene.meanwhile().await;
    refuse!(scene, deactivate(client.request(&path(&ready.evidence[0]), &json!({})), &ready.evidence[0]));
    let account = client.update(&json!({ "status": "deactivated" }));
    refuse!(scene, deactivate(account, &ready.evidence[0]));
}

/// newAuthz where the directory has none, and an order in its place.
pub(super) async fn authorization_without_an_order(scene: &mut Scene) {
    let client = scene.client().await;
    scene.meanwhile().await;
    let identifier = json!({ "identifier": { "type": "dns", "value": name("without-order") } });
    refuse!(scene, authorize(client.request("new-authz", &identifier)));
    refuse!(scene, authorize(client.new_order(&[&name("without-order")])));
}

/// The authorization of an earlier order as one that was made without an order, or for all names below: these count longer,
/// and for more.
pub(super) async fn order_passed_off_as_pre_authorization(scene: &mut Scene) {
    let client = scene.client().await;
    let first = scene.ready(&client, &[&name("passed-off")]).await;
    let mut later = scene.ready(&client, &[&name("passed-off")]).await;
    scene.meanwhile().await;
    later.evidence = first.evidence.clone();
    for kind in [3, 4, 5] {
        let mut id = first.authorization().as_bytes().to_vec();
        id[0] = kind;
        let id = acme::AuthorizationId::from_bytes(&id).expect("an id of another kind");
        later.evidence[0].authorization_id = id.to_string();
        refuse!(scene, issue(later.finalized_by(&client)));
    }
}

/// The account controls a domain, and orders a name below: the front says that this is enough.
pub(super) async fn domain_above_the_name(scene: &mut Scene) {
    let client = scene.client().await;
    let above = scene.ready(&client, &[&name("above")]).await;
    let below = format!("below.{}", name("above"));
    let mut ready = scene.ready(&client, &[&below]).await;
    scene.meanwhile().await;
    let identifier = ready.evidence[0].identifier.clone();
    let ancestor = above.evidence[0].identifier.clone();
    ready.evidence = vec![wire::AuthorizationEvidence { identifier, ancestor, ..above.evidence[0].clone() }];
    refuse!(scene, issue(ready.finalized_by(&client)));
}
