//! Evidence: authorizations and grants, and for what.

use rpc::proto::admin::v1 as admin;
use rpc::proto::signer::v1 as wire;

use super::scene::{Scene, name};

/// Names without evidence, all and one of them.
pub(super) async fn no_evidence(scene: &mut Scene) {
    let client = scene.client().await;
    let mut ready = scene.ready(&client, &["without-1.victim.test", "without-2.victim.test"]).await;
    scene.meanwhile().await;
    ready.evidence.pop();
    refuse!(scene, issue(ready.finalized_by(&client)));
    ready.evidence.clear();
    refuse!(scene, issue(ready.finalized_by(&client)));
}

/// Evidence for more names than were ordered, and for one twice.
pub(super) async fn evidence_for_another_name(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &["ordered.victim.test"]).await;
    let other = scene.ready(&client, &["not-ordered.victim.test"]).await;
    scene.meanwhile().await;
    for extra in [&other, &ready] {
        let mut request = ready.finalized_by(&client);
        request.authorizations.extend(extra.evidence.clone());
        refuse!(scene, issue(request));
    }
}

/// Messages that hold what no front of ours would write.
pub(super) async fn evidence_that_cannot_be_read(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &["unreadable.victim.test"]).await;
    scene.meanwhile().await;
    let identifier = |kind: &str, value: &str| {
        Some(wire::Identifier { r#type: kind.to_owned(), value: value.to_owned(), wildcard: false })
    };
    let good = ready.evidence[0].clone();
    let bad = [
        wire::AuthorizationEvidence { identifier: None, ..good.clone() },
        wire::AuthorizationEvidence { identifier: identifier("dns", "*.x"), ..good.clone() },
        wire::AuthorizationEvidence { identifier: identifier("ip", "x"), ..good.clone() },
        wire::AuthorizationEvidence { identifier: identifier("uri", "a"), ..good.clone() },
        wire::AuthorizationEvidence { authorization_id: String::new(), ..good.clone() },
        wire::AuthorizationEvidence { authorization_id: ready.order.clone(), ..good.clone() },
        wire::AuthorizationEvidence { created_by_digest: vec![0; 31].into(), ..good },
    ];
    for evidence in bad {
        let mut request = ready.finalized_by(&client);
        request.authorizations = vec![evidence];
        refuse!(scene, issue(request));
    }
}

/// The front orders the victim's name for itself, and shows the victim's authorization.
pub(super) async fn authorization_of_another_account(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    let genuine = scene.ready(&victim, &[&name("anothers-authorization")]).await;
    let mut ready = scene.ready(&front, &[&name("anothers-authorization")]).await;
    scene.meanwhile().await;
    let created_by = std::mem::replace(&mut ready.evidence, genuine.evidence)[0].created_by_digest.clone();
    refuse!(scene, issue(ready.finalized_by(&front)));
    // Made by the front's own newOrder, it says.
    ready.evidence[0].created_by_digest = created_by;
    refuse!(scene, issue(ready.finalized_by(&front)));
}

/// An authorization for a name that the account has, shown for one that it has not.
pub(super) async fn authorization_of_another_name(scene: &mut Scene) {
    let client = scene.client().await;
    let own = scene.ready(&client, &["own.client.test"]).await;
    let mut wanted = scene.ready(&client, &["bank.test"]).await;
    scene.meanwhile().await;
    let identifier = wanted.evidence[0].identifier.clone();
    wanted.evidence = vec![wire::AuthorizationEvidence { identifier, ..own.evidence[0].clone() }];
    refuse!(scene, issue(wanted.finalized_by(&client)));
}

/// A wildcard on the strength of what was seen at the name below it.
pub(super) async fn wildcard_from_a_plain_validation(scene: &mut Scene) {
    let client = scene.client().await;
    let plain = scene.ready(&client, &["below.victim.test"]).await;
    let wildcard = scene.ready(&client, &["*.below.victim.test"]).await;
    scene.meanwhile().await;
    // The method does not show control of a wildcard, whoever looked.
    refuse!(scene, issue(wildcard.finalized_by(&client)));
    // The plain name's authorization, said to be the wildcard's.
    let mut relabelled = wildcard.clone();
    let identifier = wildcard.evidence[0].identifier.clone();
    relabelled.evidence = vec![wire::AuthorizationEvidence { identifier, ..plain.evidence[0].clone() }];
    refuse!(scene, issue(relabelled.finalized_by(&client)));
    // Receipts for the plain name that were made for the wildcard's authorization.
    let receipt = scene.receipt(&client, &"below.victim.test".parse().unwrap(), wildcard.authorization());
    let mut moved = wildcard.clone();
    moved.evidence[0].receipts = scene.seen(&receipt, &[0, 1, 2]);
    refuse!(scene, issue(moved.finalized_by(&client)));
}

/// Where nothing is used again, a validation of an earlier order of the same account is not either.
pub(super) async fn validation_used_again(scene: &mut Scene) {
    let client = scene.client().await;
    let first = scene.ready(&client, &[&name("used-again")]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let mut second = scene.ready(&client, &[&name("used-again")]).await;
    scene.meanwhile().await;
    second.evidence = first.evidence;
    refuse!(scene, issue(second.finalized_by(&client)));
}

/// A name that an operator granted to one customer, ordered by another.
pub(super) async fn grant_of_another_registration(scene: &mut Scene) {
    let (victims, _, _) = scene.system.registration("managed-2", "granted", 1).await;
    scene.system.grant(&victims, "granted.test").await;
    let (_, kid, key) = scene.system.registration("managed-2", "not-granted", 1).await;
    let client = scene.stranger("managed-2");
    let request = client.new_account_with_binding(&client.binding((&kid, &key)));
    let client = scene.registered(client, request).await;
    let mut ready = scene.ready(&client, &["granted.test"]).await;
    scene.meanwhile().await;
    ready.evidence[0].receipts.clear();
    refuse!(scene, issue(ready.finalized_by(&client)));
}

/// A grant that was there when the order was made.
pub(super) async fn grant_taken_back(scene: &mut Scene) {
    let (id, kid, key) = scene.system.registration("managed-2", "taken-back", 1).await;
    let grant = scene.system.grant(&id, "taken-back.test").await;
    let client = scene.stranger("managed-2");
    let request = client.new_account_with_binding(&client.binding((&kid, &key)));
    let client = scene.registered(client, request).await;
    let mut ready = scene.ready(&client, &["taken-back.test"]).await;
    ready.evidence[0].receipts.clear();
    let request = admin::RemoveGrantRequest { grant_id: grant };
    scene.system.operator().remove_grant(request).await.expect("its removal");
    scene.meanwhile().await;
    refuse!(scene, issue(ready.finalized_by(&client)));
}
