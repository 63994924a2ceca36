//! CSRs: of whom, for which names, with which key.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use serde_json::json;

use super::scene::{Scene, name};
use crate::support::{csr_by, csr_for};

/// Another CSR for an order that has a certificate.
pub(super) async fn second_csr(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&name("second-csr")]).await;
    scene.issue(ready.finalized_by(&victim)).await.expect("a certificate");
    scene.meanwhile().await;
    refuse!(scene, issue(ready.finalized_by(&victim)));
    // At once, with as many CSRs: one of them is the certificate's.
    let ready = scene.ready(&victim, &["many-csrs.victim.test"]).await;
    let requests = (0..6).map(|_| {
        let (mut front, request) = (scene.front.clone(), ready.finalized_by(&victim));
        async move { front.issue(request).await }
    });
    let outcomes = futures::future::join_all(requests).await;
    scene.meanwhile().await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    scene.check(made.len() == 1, &format!("{} certificates for one order", made.len()));
    refused.into_iter().for_each(|outcome| scene.refuse(outcome));
}

/// A client that asks for more, for less and for something else than it ordered.
pub(super) async fn other_names(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &["names-1.victim.test", "names-2.victim.test"]).await;
    scene.meanwhile().await;
    for names in [
        &["names-1.victim.test", "names-2.victim.test", "bank.test"][..],
        &["names-1.victim.test"],
        &["names-1.victim.test", "bank.test"],
    ] {
        refuse!(scene, issue(ready.finalized_with(&client, &csr_for(names))));
    }
    // The name is in the subject.
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(ready.names.clone()).expect("names");
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "bank.test");
    let csr = parameters.serialize_request(&key).expect("a CSR").der().to_vec();
    refuse!(scene, issue(ready.finalized_with(&client, &csr)));
}

/// The wildcard of a name that was ordered and validated plainly.
pub(super) async fn wildcard_on_a_plain_order(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &["plain.victim.test"]).await;
    scene.meanwhile().await;
    for names in [&["*.plain.victim.test"][..], &["plain.victim.test", "*.plain.victim.test"]] {
        refuse!(scene, issue(ready.finalized_with(&client, &csr_for(names))));
    }
}

/// A CSR of somebody else's key: it was not signed with it.
pub(super) async fn csr_of_another_key(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &[&name("anothers-key")]).await;
    scene.meanwhile().await;
    let mut csr = csr_for(&ready.names());
    let last = csr.len() - 1;
    csr[last] ^= 1;
    refuse!(scene, issue(ready.finalized_with(&client, &csr)));
}

/// A name that only the node CA gives.
pub(super) async fn csr_with_a_nodes_identity(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &[&name("node-identity")]).await;
    scene.meanwhile().await;
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(ready.names.clone()).expect("names");
    parameters.distinguished_name = DistinguishedName::new();
    let uri = "chancery://signer/signer-1".try_into().expect("ASCII");
    parameters.subject_alt_names.push(SanType::URI(uri));
    let csr = parameters.serialize_request(&key).expect("a CSR").der().to_vec();
    refuse!(scene, issue(ready.finalized_with(&client, &csr)));
    refuse!(scene, issue(ready.finalized_with(&client, b"")));
    refuse!(scene, issue(ready.finalized_with(&client, &csr_for(&[]))));
    refuse!(scene, issue(ready.finalized_with(&client, &[csr, vec![0]].concat())));
}

/// Keys that sign requests sign nothing else: one's own, and another's.
pub(super) async fn csr_with_an_account_key(scene: &mut Scene) {
    let (client, other) = (scene.client().await, scene.client_of("other").await);
    let ready = scene.ready(&client, &[&name("account-key")]).await;
    scene.meanwhile().await;
    for owner in [&client, &other] {
        let csr = csr_by(&owner.rcgen_key(), &ready.names());
        refuse!(scene, issue(ready.finalized_with(&client, &csr)));
    }
}

/// A key whose owner has said that it is compromised.
pub(super) async fn csr_with_a_blocked_key(scene: &mut Scene) {
    let client = scene.client().await;
    let compromised = scene.stranger("strict");
    let ready = scene.ready(&client, &["compromised.victim.test"]).await;
    let csr = csr_by(&compromised.rcgen_key(), &ready.names());
    let issued = scene.issue(ready.finalized_with(&client, &csr)).await.expect("a certificate");
    let revocation = compromised.revocation_with_jwk(&issued.chain[0], 1);
    scene.revoke(revocation).await.expect("a revocation");
    let ready = scene.ready(&client, &[&name("blocked-key")]).await;
    scene.meanwhile().await;
    let csr = csr_by(&compromised.rcgen_key(), &ready.names());
    refuse!(scene, issue(ready.finalized_with(&client, &csr)));
}

/// Keys whose private keys anybody can work out: factors close together, and those of a broken generator.
pub(super) async fn csr_with_a_weak_key(scene: &mut Scene) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &[&name("weak-key")]).await;
    scene.meanwhile().await;
    for pkcs8 in [testkit::weak_keys::CLOSE, testkit::weak_keys::ROCA] {
        let key = KeyPair::try_from(pkcs8).expect("a key");
        refuse!(scene, issue(ready.finalized_with(&client, &csr_by(&key, &ready.names()))));
    }
}

/// A key of a kind that the profile of the order does not take.
pub(super) async fn csr_with_a_key_the_profile_does_not_take(scene: &mut Scene) {
    let client = scene.client_of("other").await;
    let new_order = client.new_order_with(&[&name("ed25519")], json!({ "profile": "day" }));
    let ready = scene.ready_with(&client, new_order).await;
    scene.meanwhile().await;
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    refuse!(scene, issue(ready.finalized_with(&client, &csr_by(&key, &ready.names()))));
}
