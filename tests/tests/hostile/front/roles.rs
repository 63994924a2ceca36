//! RPCs: what one role asks that is another's to ask.

use bytes::Bytes;
use rpc::enroll::KeyPair;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_client::AuthorityClient;
use rpc::proto::signer::v1::enrollment_client::EnrollmentClient;
use rpc::proto::signer::v1::membership_client::MembershipClient;
use rpc::{Channel, PeerIdentity, Role, Rule};
use tonic::Code;

use super::scene::Scene;
use super::words::call;
use crate::support::{csr_by, csr_for};

/// Calls each of these RPCs, with an empty message.
async fn call_all(scene: &mut Scene, channel: &Channel, rules: &[Rule]) {
    for rule in rules {
        let outcome = call(channel, rule.method, Bytes::new()).await;
        scene.turned_away(outcome, Code::PermissionDenied, "rpc-role");
    }
}

fn front(scene: &Scene) -> Channel {
    scene.system.channel(&scene.system.node("front"))
}

/// A front as an operator: grants, EAB keys, join tokens, revocations.
pub(super) async fn operators_rpcs(scene: &mut Scene) {
    let channel = front(scene);
    call_all(scene, &channel, rpc::ADMIN).await;
}

/// A front as a status node.
pub(super) async fn status_nodes_rpcs(scene: &mut Scene) {
    let channel = front(scene);
    call_all(scene, &channel, rpc::PUBLICATION).await;
    call_all(scene, &channel, rpc::RESPONDER).await;
}

/// A status node, a validator and an operator as a front.
pub(super) async fn fronts_rpcs_by_others(scene: &mut Scene) {
    for folder in ["status", "validator"] {
        let channel = scene.system.channel(&scene.system.node(folder));
        call_all(scene, &channel, rpc::AUTHORITY).await;
        call_all(scene, &channel, rpc::ADMIN).await;
    }
    let operator = rpc::NodeFiles {
        certificate: scene.system.state().join("ca/operator-demo.pem"),
        key: scene.system.state().join("ca/operator-demo.key"),
        authority: scene.system.state().join("ca/node-ca.pem"),
    };
    let channel = scene.system.channel(&operator);
    call_all(scene, &channel, rpc::AUTHORITY).await;
}

/// Enrolment on the port of members, other roles' services, other spellings.
pub(super) async fn rpcs_that_are_not_there(scene: &mut Scene) {
    let channel = front(scene);
    for path in [
        rpc::ENROLLMENT[0],
        rpc::VALIDATE[0].method,
        rpc::PERSPECTIVE[0].method,
        rpc::NONCES[0].method,
        "/chancery.signer.v1.Authority/issue",
        "/chancery.signer.v1.Authority/Sign",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let outcome = call(&channel, path, Bytes::new()).await;
        scene.turned_away(outcome, Code::PermissionDenied, "rpc-unlisted");
    }
}

/// A TLS server certificate of the internal profile for somebody else's name.
pub(super) async fn server_certificate_for_another_name(scene: &mut Scene) {
    for names in
        [&["bank.test"][..], &["localhost", "bank.test"], &["*.localhost"], &["signer-1"], &["127.0.0.2"]]
    {
        let request = wire::IssueServerCertificateRequest { csr: csr_for(names).into() };
        refuse!(scene, server_certificate(request));
    }
}

/// For its own name, with the key of a client.
pub(super) async fn server_certificate_with_a_clients_key(scene: &mut Scene) {
    let victim = scene.client().await;
    scene.meanwhile().await;
    let csr = csr_by(&victim.rcgen_key(), &["localhost"]);
    refuse!(scene, server_certificate(wire::IssueServerCertificateRequest { csr: csr.into() }));
}

/// A renewal that asks for a signer's identity gets the front's own: only the CSR's key counts.
pub(super) async fn renewal_as_another_node(scene: &mut Scene) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let uri = "chancery://signer/signer-1".try_into().expect("ASCII");
    parameters.subject_alt_names.push(rcgen::SanType::URI(uri));
    let csr = parameters.serialize_request(&key).expect("a CSR").der().to_vec();
    let mut membership = MembershipClient::new(front(scene));
    let answer = membership.renew(wire::RenewRequest { csr: csr.into() }).await.expect("its own renewal");
    // A row of the journal that says so, and no other.
    scene.meanwhile().await;
    let identity = PeerIdentity::from_certificate(&answer.into_inner().chain[0]).expect("a node");
    scene.check(identity.role == Role::Front && identity.name.as_str() == "front-1", &identity.to_string());
}

/// A front that an operator has revoked: its living connection ends, and it gets no other.
pub(super) async fn front_that_is_revoked(scene: &mut Scene) {
    let files = scene.system.join("front", "front-3", None).await;
    let channel = scene.system.channel(&files);
    let mut revoked = AuthorityClient::new(channel);
    revoked.list_directories(wire::ListDirectoriesRequest {}).await.expect("it is a front");
    let request = rpc::proto::admin::v1::RevokeNodeRequest { role: "front".into(), name: "front-3".into() };
    scene.system.operator().revoke_node(request).await.expect("its revocation");
    // What is under way when the connection ends may be answered still.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    scene.meanwhile().await;
    for _ in 0..3 {
        let outcome = revoked.list_directories(wire::ListDirectoriesRequest {}).await;
        let shut_out = outcome.is_err_and(|status| std::error::Error::source(&status).is_some());
        scene.check(shut_out, "a revoked front is answered");
    }
}

/// The enrolment port, with tokens that nobody made.
pub(super) async fn join_with_an_invented_token(scene: &mut Scene) {
    let authority =
        std::fs::read_to_string(scene.system.state().join("ca/node-ca.pem")).expect("the node CA");
    let authority = pki::chain::from_pem(&authority).expect("PEM").remove(0);
    let fingerprint = rpc::enroll::Fingerprint::of(authority.der());
    let channel = Channel::connect_pinned(vec![scene.system.enrollment.clone()], fingerprint);
    let mut enrollment = EnrollmentClient::new(channel.expect("an address"));
    for token in ["", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "chancery-join-v1"] {
        let csr = KeyPair::generate().expect("a key").request().expect("a CSR").into();
        let request = wire::JoinRequest { token: token.to_owned(), csr, receipt_key: Bytes::new() };
        let outcome = enrollment.join(request).await;
        scene.refuse(outcome);
    }
}
