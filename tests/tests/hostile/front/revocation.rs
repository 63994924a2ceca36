//! Revocation: whose certificate, on whose word.

use serde_json::json;

use super::scene::{Scene, name};
use crate::support::{csr_by, encode, json_of};

/// The front's own account revokes the victim's certificate.
pub(super) async fn anothers_certificate(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    let certificate = scene.certificate(&victim, &name("revoked")).await;
    scene.meanwhile().await;
    refuse!(scene, revoke(front.revocation(&certificate, 0)));
}

/// As the holder of the key, with another key; the account's own among them.
pub(super) async fn anothers_certificate_by_another_key(scene: &mut Scene) {
    let victim = scene.client().await;
    let certificate = scene.certificate(&victim, &name("revoked-by-key")).await;
    scene.meanwhile().await;
    refuse!(scene, revoke(scene_stranger(scene).revocation_with_jwk(&certificate, 1)));
    refuse!(scene, revoke(victim.revocation_with_jwk(&certificate, 1)));
}

fn scene_stranger(scene: &Scene) -> crate::support::Client {
    scene.stranger("strict")
}

/// The front says that it holds the names, and shows the victim's evidence.
pub(super) async fn anothers_certificate_with_old_receipts(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    let ready = scene.ready(&victim, &[&name("revoked-by-evidence")]).await;
    let certificate = scene.issue(ready.finalized_by(&victim)).await.expect("a certificate").chain.remove(0);
    scene.meanwhile().await;
    refuse!(scene, revoke_with(front.revocation(&certificate, 0), ready.evidence.clone()));
}

/// A certificate of one directory, in another's URLs, and one that this CA never made.
pub(super) async fn certificate_of_another_directory(scene: &mut Scene) {
    let (victim, other) = (scene.client().await, scene.client_of("other").await);
    let certificate = scene.certificate(&victim, &name("of-another-directory")).await;
    scene.meanwhile().await;
    refuse!(scene, revoke(other.revocation(&certificate, 0)));
    let key = victim.rcgen_key();
    let own = rcgen::CertificateParams::new(vec![name("self-signed")]).expect("names");
    let own = own.self_signed(&key).expect("a certificate");
    refuse!(scene, revoke(victim.revocation(own.der(), 0)));
    refuse!(scene, revoke(victim.revocation_with_jwk(own.der(), 1)));
}

/// The serial of a certificate, in octets that are not the certificate's; no octets at all.
pub(super) async fn altered_certificate(scene: &mut Scene) {
    let victim = scene.client().await;
    let certificate = scene.certificate(&victim, &name("altered-certificate")).await;
    scene.meanwhile().await;
    let mut altered = certificate.clone();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    refuse!(scene, revoke(victim.revocation(&altered, 0)));
    refuse!(scene, revoke(victim.revocation(&[&certificate[..], &[0]].concat(), 0)));
    refuse!(scene, revoke(victim.revocation(b"", 0)));
}

/// The client revokes one certificate for one reason; the front wants another one gone, or another reason.
pub(super) async fn altered_revocation(scene: &mut Scene) {
    let victim = scene.client().await;
    let first = scene.certificate(&victim, "altered-revocation-1.victim.test").await;
    let second = scene.certificate(&victim, "altered-revocation-2.victim.test").await;
    scene.meanwhile().await;
    for payload in [
        json!({ "certificate": encode(&second), "reason": 0 }),
        json!({ "certificate": encode(&first), "reason": 1 }),
    ] {
        let mut jws = json_of(&victim.revocation(&first, 0));
        jws["payload"] = encode(payload.to_string()).into();
        refuse!(scene, revoke(jws.to_string().into_bytes()));
    }
}

/// Once is enough: again, in other octets, with another reason, by the key.
pub(super) async fn revocation_replayed(scene: &mut Scene) {
    let victim = scene.client().await;
    let holder = scene.stranger("strict");
    let ready = scene.ready(&victim, &[&name("revocation-replayed")]).await;
    let csr = csr_by(&holder.rcgen_key(), &ready.names());
    let issued = scene.issue(ready.finalized_with(&victim, &csr)).await.expect("a certificate");
    let revocation = victim.revocation(&issued.chain[0], 4);
    scene.revoke(revocation.clone()).await.expect("a revocation");
    scene.meanwhile().await;
    refuse!(scene, revoke(revocation.clone()));
    let value = json_of(&revocation);
    refuse!(scene, revoke(serde_json::to_vec_pretty(&value).expect("JSON")));
    refuse!(scene, revoke(victim.revocation(&issued.chain[0], 1)));
    refuse!(scene, revoke(holder.revocation_with_jwk(&issued.chain[0], 4)));
}

/// Reasons that are the CA's to give, or nobody's.
pub(super) async fn reason_that_is_the_cas(scene: &mut Scene) {
    let victim = scene.client().await;
    let certificate = scene.certificate(&victim, &name("reasons")).await;
    scene.meanwhile().await;
    for reason in [2, 6, 7, 8, 9, 10, 255] {
        refuse!(scene, revoke(victim.revocation(&certificate, reason)));
    }
}

/// What the CA made for its own servers is no client's to revoke, whoever has the key.
pub(super) async fn fronts_own_certificate_by_acme(scene: &mut Scene) {
    let holder = scene.stranger("strict");
    let csr = csr_by(&holder.rcgen_key(), &["localhost"]);
    let request = rpc::proto::signer::v1::IssueServerCertificateRequest { csr: csr.into() };
    let answer = scene.front.issue_server_certificate(request).await.expect("its own certificate");
    scene.meanwhile().await;
    let certificate = answer.into_inner().chain.remove(0);
    refuse!(scene, revoke(holder.revocation_with_jwk(&certificate, 1)));
    let node = std::fs::read_to_string(scene.system.state().join("front/node.pem")).expect("node.pem");
    let node = pki::chain::from_pem(&node).expect("PEM").remove(0);
    refuse!(scene, revoke(holder.revocation_with_jwk(node.der(), 1)));
}
