//! Joining, renewal, revocation of nodes: by the CA's own word, and over real mutual TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ca_store::{CaStore as _, JournalKey, JournalKind, NodeState};
use pki::Certificate;
use rpc::enroll::{self, JoinToken, KeyPair};
use rpc::proto::admin::v1 as admin;
use rpc::proto::admin::v1::admin_client::AdminClient;
use rpc::proto::admin::v1::admin_server::AdminServer;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_client::AuthorityClient;
use rpc::proto::signer::v1::authority_server::AuthorityServer;
use rpc::proto::signer::v1::enrollment_server::EnrollmentServer;
use rpc::proto::signer::v1::membership_server::MembershipServer;
use rpc::proto::status::v1::ListObjectsRequest;
use rpc::proto::status::v1::publication_client::PublicationClient;
use rpc::proto::status::v1::publication_server::PublicationServer;
use rpc::{AccessTable, Channel, Limits, NodeCredentials, NodeFiles, PeerIdentity, Role};
use runtime::Clock as _;
use signer::publication::{Objects, PublicationService};
use signer::{AdminService, AuthorityService, EnrollmentService, MembershipService, Reason};
use testkit::signing::KeyFault;
use testkit::store::{StoreFault, forged};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::support::{Peek as _, World, reason};

const HOUR: Duration = Duration::from_secs(3600);
const RECEIPT_KEY: [u8; 32] = [9; 32];

impl World {
    async fn token(&self, role: Role, name: &str) -> JoinToken {
        self.ca.create_join_token("alice", role, name, Vec::new(), HOUR).await.unwrap().0
    }

    async fn joins(&self, token: &JoinToken, key: &KeyPair) -> signer::Outcome<Vec<Vec<u8>>> {
        self.ca.join(&token.secret(), &key.request().unwrap(), &[]).await
    }

    /// A node that has joined.
    async fn node(&self, role: Role, name: &str) -> PeerIdentity {
        let token = self.token(role, name).await;
        let chain = self.joins(&token, &KeyPair::generate().unwrap()).await.unwrap();
        PeerIdentity::from_certificate(&chain[0]).unwrap()
    }

    async fn state_of(&self, role: Role, name: &str) -> Option<NodeState> {
        let nodes = self.store.nodes_unverified().await;
        nodes.into_iter().find(|node| node.role == role.as_str() && node.name == name).map(|node| node.state)
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[tokio::test]
async fn a_node_joins_with_what_its_token_says() {
    let world = World::start().await;
    let names = vec!["Front.Example".to_owned(), "192.0.2.7".to_owned()];
    let created = world.ca.create_join_token("alice", Role::Front, "eu-1", names, HOUR).await;
    let (token, expires_at) = created.unwrap();
    assert_eq!(expires_at.since(world.now()).duration(), HOUR);
    assert!(token.authority().matches(world.authorities.node_ca.der()));
    let own = key();
    let chain = world.joins(&token, &own).await.unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], world.authorities.node_ca.der());

    let certificate = Certificate::from_der(&chain[0]).unwrap();
    certificate.verify_signed_by(world.authorities.node_ca.public_key()).unwrap();
    let peer = PeerIdentity::from_certificate(&chain[0]).unwrap();
    assert_eq!((peer.role, peer.name.as_str()), (Role::Front, "eu-1"));
    let names: Vec<String> = certificate.names().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["front.example", "192.0.2.7"]);
    assert_eq!(certificate.not_after().since(world.now()), pki::Period::from_days(30));
    assert_eq!(*certificate.public_key(), enroll::requested_key(&own.request().unwrap()).unwrap());

    // Journaled before it was signed, as everything is; and reported.
    let entry = world.store.journal(&JournalKey::Serial(certificate.serial())).await.unwrap().remove(0);
    assert_eq!(entry.row.unverified().kind, JournalKind::Node);
    let kinds = world.audit_kinds().await;
    for kind in ["node.token_created", "node.joined", "certificate.intended"] {
        assert_eq!(kinds.iter().filter(|one| *one == kind).count(), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_token_is_good_once_and_for_one_key() {
    let world = World::start().await;
    let token = world.token(Role::Status, "s").await;
    let own = key();
    let chain = world.joins(&token, &own).await.unwrap();
    assert_eq!(world.joins(&token, &own).await.unwrap(), chain, "a lost answer is given again");
    assert_eq!(reason(world.joins(&token, &key()).await), Reason::JoinToken);
    // Nor for the same key as something else: role and name are the token's.
    assert_eq!(world.store.nodes_unverified().await.iter().filter(|node| node.name == "s").count(), 1);
    let nodes = world.journal().await.iter().filter(|row| row.kind == JournalKind::Node).count();
    assert_eq!(nodes, 1, "one token, one certificate");

    // After its hour it answers nobody, not even its own key.
    world.clock.advance(HOUR);
    assert_eq!(reason(world.joins(&token, &own).await), Reason::JoinToken);
}

#[tokio::test]
async fn a_token_that_is_none_is_refused_with_one_answer() {
    let world = World::start().await;
    let expired = world.token(Role::Status, "late").await;
    let used = world.token(Role::Status, "used").await;
    world.joins(&used, &key()).await.unwrap();
    world.clock.advance(HOUR);
    let unknown = JoinToken::new([7; 32], expired.authority());
    let mut details = Vec::new();
    for secret in [expired.secret(), used.secret(), unknown.secret(), "x".to_owned(), String::new()] {
        match world.ca.join(&secret, &key().request().unwrap(), &[]).await {
            Err(signer::Failure::Refused(refusal)) => details.push((refusal.reason, refusal.problem.detail)),
            other => panic!("{other:?}"),
        }
    }
    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    assert_eq!(details[0].0, Reason::JoinToken);
    assert_eq!(world.state_of(Role::Status, "late").await, None);
}

#[tokio::test]
async fn a_bad_request_does_not_use_up_a_token() {
    let world = World::start().await;
    let token = world.token(Role::Validator, "v").await;
    let own = key();
    let mut altered = own.request().unwrap();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let secret = token.secret();
    assert_eq!(reason(world.ca.join(&secret, &altered, &RECEIPT_KEY).await), Reason::CsrInvalid);
    let request = own.request().unwrap();
    for receipt_key in [&[][..], &RECEIPT_KEY[..31], &[1; 33]] {
        assert_eq!(reason(world.ca.join(&secret, &request, receipt_key).await), Reason::JoinToken);
    }
    world.store.fail_next("put_authority", StoreFault::Failed);
    assert!(world.ca.join(&secret, &request, &RECEIPT_KEY).await.is_err());
    world.ca.join(&secret, &request, &RECEIPT_KEY).await.unwrap();
    let perspective = "v".parse().unwrap();
    assert!(world.ca.nodes().receipt_verifier(&perspective).is_some(), "its receipts count from now on");
    // The receipt key is part of what the token was used for.
    assert_eq!(reason(world.ca.join(&secret, &request, &[8; 32]).await), Reason::JoinToken);

    let front = world.token(Role::Front, "f").await;
    let refused = world.ca.join(&front.secret(), &request, &RECEIPT_KEY).await;
    assert_eq!(reason(refused), Reason::JoinToken, "only validators have receipt keys");
}

#[tokio::test]
async fn a_join_whose_answer_is_lost_ends_with_one_certificate() {
    for (method, fault) in [
        ("put_authority", StoreFault::FailedButPersisted),
        ("commit_intents", StoreFault::Failed),
        ("commit_intents", StoreFault::FailedButPersisted),
        ("nodes", StoreFault::Failed),
    ] {
        let world = World::start().await;
        let token = world.token(Role::Status, "s").await;
        let own = key();
        world.store.fail_next(method, fault);
        let first = world.joins(&token, &own).await;
        let chain = world.joins(&token, &own).await.unwrap();
        assert!(first.is_err() || first.unwrap() == chain, "{method}");
        let nodes = world.journal().await.iter().filter(|row| row.kind == JournalKind::Node).count();
        assert_eq!(nodes, 1, "{method}");
    }
    // The token was away: the intent is there, and is signed when its lease has run out.
    let world = World::start().await;
    let token = world.token(Role::Status, "s").await;
    let own = key();
    world.node_key.fail_next(KeyFault::FailedAfterSigning);
    assert!(world.joins(&token, &own).await.is_err());
    let nodes = world.journal().await.into_iter().filter(|row| row.kind == JournalKind::Node);
    assert_eq!(nodes.count(), 1);
}

#[tokio::test]
async fn what_a_token_may_say_is_bounded() {
    let world = World::start().await;
    let refused = async |role, name: &str, servers: &[&str], lifetime| {
        let servers = servers.iter().map(ToString::to_string).collect();
        reason(world.ca.create_join_token("alice", role, name, servers, lifetime).await)
    };
    assert_eq!(refused(Role::Front, "Not A Name", &[], HOUR).await, Reason::OperatorRequest);
    assert_eq!(refused(Role::Front, "f", &["not a name"], HOUR).await, Reason::OperatorRequest);
    assert_eq!(refused(Role::Front, "f", &["*.example.org"], HOUR).await, Reason::OperatorRequest);
    assert_eq!(refused(Role::Front, "f", &[], Duration::ZERO).await, Reason::OperatorRequest);
    assert_eq!(refused(Role::Front, "f", &[], HOUR * 24 * 8).await, Reason::OperatorRequest);
    // A name is used once: also after its node is gone.
    world.node(Role::Front, "f").await;
    assert_eq!(refused(Role::Front, "f", &[], HOUR).await, Reason::OperatorRequest);
    world.ca.revoke_node("alice", Role::Front, "f").await.unwrap();
    assert_eq!(refused(Role::Front, "f", &[], HOUR).await, Reason::OperatorRequest);
    world.token(Role::Status, "f").await;
}

#[tokio::test]
async fn a_node_renews_for_itself_and_not_in_a_loop() {
    let world = World::start().await;
    let peer = world.node(Role::Front, "f").await;
    world.clock.advance(HOUR);
    let own = key();
    let chain = world.ca.renew(&peer, &own.request().unwrap()).await.unwrap();
    let renewed = PeerIdentity::from_certificate(&chain[0]).unwrap();
    assert_eq!((renewed.role, renewed.name.as_str()), (Role::Front, "f"));
    assert!(renewed.not_after > peer.not_after && renewed.serial != peer.serial);
    let kinds = world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "node.renewed").count(), 1);
    let again = world.ca.renew(&renewed, &key().request().unwrap()).await;
    assert_eq!(reason(again), Reason::RateLimited);
    world.clock.advance(Duration::from_secs(60));
    world.ca.renew(&renewed, &key().request().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_revoked_node_renews_no_more() {
    let world = World::start().await;
    let peer = world.node(Role::Front, "f").await;
    let csr = key().request().unwrap();
    // This signer has not heard of it yet: another one revoked the node.
    let before = world.store.nodes().await.unwrap();
    world.ca.revoke_node("alice", Role::Front, "f").await.unwrap();
    world.store.alter_nodes(move |_| before.clone());
    world.ca.reload_nodes().await.unwrap();
    assert_eq!(reason(world.ca.renew(&peer, &csr).await), Reason::Conflict);
    world.store.leave_alone();
    world.ca.reload_nodes().await.unwrap();
    assert_eq!(reason(world.ca.renew(&peer, &csr).await), Reason::NodeForbidden);
    assert!(world.ca.revocations().contains(&peer));
    assert_eq!(world.state_of(Role::Front, "f").await, Some(NodeState::Revoked));
    let again = world.ca.revoke_node("alice", Role::Front, "f").await;
    assert_eq!(reason(again), Reason::OperatorRequest);
}

#[tokio::test]
async fn a_row_that_is_gone_or_changed_brings_no_node_back() {
    let world = World::start().await;
    let peer = world.node(Role::Front, "f").await;
    world.ca.revoke_node("alice", Role::Front, "f").await.unwrap();
    let csr = key().request().unwrap();
    // A database administrator takes the row away: the certificate is in the journal, so it was no node of the ceremony.
    world.store.alter_nodes(|rows| rows.into_iter().filter(|row| row.unverified().name != "f").collect());
    world.ca.reload_nodes().await.unwrap();
    assert_eq!(reason(world.ca.renew(&peer, &csr).await), Reason::NodeForbidden);
    assert_eq!(reason(world.ca.know_node(&peer).await), Reason::NodeForbidden);
    // Or makes it active again.
    world.store.alter_nodes(|rows| {
        rows.iter().map(|row| forged(row, |row| row.state = NodeState::Active)).collect()
    });
    world.ca.reload_nodes().await.unwrap();
    assert!(world.ca.revocations().contains(&peer), "whoever's row was changed gets nothing");
}

#[tokio::test]
async fn a_node_of_the_ceremony_is_listed_renewed_and_revoked() {
    let world = World::start().await;
    let authority = testkit::nodes::NodeAuthority::new();
    // Made outside of the journal.
    let peer = PeerIdentity::clone(&authority.node(Role::Operator, "root-op").identity());
    assert_eq!(world.state_of(Role::Operator, "root-op").await, None);
    world.ca.know_node(&peer).await.unwrap();
    world.ca.know_node(&peer).await.unwrap();
    assert_eq!(world.state_of(Role::Operator, "root-op").await, Some(NodeState::Active));
    assert_eq!(world.audit_kinds().await.iter().filter(|kind| *kind == "node.known").count(), 1);
    world.ca.renew(&peer, &key().request().unwrap()).await.unwrap();
    world.ca.revoke_node("alice", Role::Operator, "root-op").await.unwrap();
    world.clock.advance(HOUR);
    let renewed = world.ca.renew(&peer, &key().request().unwrap()).await;
    assert_eq!(reason(renewed), Reason::NodeForbidden);

    // One that never showed itself can be revoked as well, and then does not renew.
    let silent = PeerIdentity::clone(&authority.node(Role::Signer, "silent").identity());
    world.ca.revoke_node("alice", Role::Signer, "silent").await.unwrap();
    let renewed = world.ca.renew(&silent, &key().request().unwrap()).await;
    assert_eq!(reason(renewed), Reason::NodeForbidden);
    world.ca.know_node(&silent).await.unwrap();
    assert_eq!(world.state_of(Role::Signer, "silent").await, Some(NodeState::Revoked));
}

/// The signer's two ports on loopback.
struct Ports {
    nodes: SocketAddr,
    strangers: SocketAddr,
    end: CancellationToken,
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl World {
    /// Certificates that hold now, whatever the test's clock said: TLS asks the real one.
    fn in_real_time(&self) {
        self.clock.set(runtime::SystemClock.now());
    }

    fn files(&self, name: &str) -> NodeFiles {
        let path = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        NodeFiles { certificate: path("crt"), key: path("key"), authority: path("authority") }
    }

    async fn serve(&self) -> Ports {
        let own = key();
        let token = self.token(Role::Signer, "served").await;
        let chain = self.joins(&token, &own).await.unwrap();
        let files = self.files("signer");
        let pem = |der: &[u8]| pki::chain::pem_block("CERTIFICATE", der);
        std::fs::write(&files.certificate, pem(&chain[0])).unwrap();
        std::fs::write(&files.authority, pem(&chain[1])).unwrap();
        rpc::files::write_atomically(&files.key, own.pem().unwrap().as_bytes(), 0o600).unwrap();
        let credentials = NodeCredentials::load(files).unwrap();

        let end = CancellationToken::new();
        let ca = || Arc::clone(&self.ca);
        let routes = Routes::new(AuthorityServer::new(AuthorityService::new(ca(), end.clone())))
            .add_service(MembershipServer::new(MembershipService::new(ca())))
            .add_service(PublicationServer::new(PublicationService::new(
                Objects::of(self.ca.registry()),
                end.clone(),
            )))
            .add_service(AdminServer::new(AdminService::new(ca(), None)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = listener.local_addr().unwrap();
        let revocations = self.ca.revocations().clone();
        let (limits, access) = (Limits::default(), AccessTable::signer());
        let until = end.clone().cancelled_owned();
        tokio::spawn(rpc::serve(listener, credentials.clone(), routes, access, revocations, limits, until));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let strangers = listener.local_addr().unwrap();
        let routes = Routes::new(EnrollmentServer::new(EnrollmentService::new(ca())));
        let until = end.clone().cancelled_owned();
        tokio::spawn(rpc::serve_anonymous(listener, credentials, routes, Limits::strangers(), until));
        Ports { nodes, strangers, end }
    }

    async fn joined(&self, ports: &Ports, role: Role, name: &str) -> Arc<NodeCredentials> {
        let token = self.token(role, name).await;
        let files = self.files(&format!("{role}-{name}"));
        let receipt_key = (role == Role::Validator).then_some(RECEIPT_KEY);
        enroll::join(vec![ports.strangers.to_string()], &token, receipt_key, &files).await.unwrap();
        NodeCredentials::load(files).unwrap()
    }
}

fn channel(ports: &Ports, credentials: &Arc<NodeCredentials>) -> Channel {
    Channel::connect_lazy(vec![ports.nodes.to_string()], Role::Signer, Arc::clone(credentials)).unwrap()
}

#[tokio::test]
async fn nodes_join_over_the_wire_and_get_what_is_theirs() {
    let world = World::start().await;
    world.in_real_time();
    let ports = world.serve().await;
    let front = channel(&ports, &world.joined(&ports, Role::Front, "f").await);
    let operator = channel(&ports, &world.joined(&ports, Role::Operator, "alice").await);
    let status = channel(&ports, &world.joined(&ports, Role::Status, "s").await);
    let validator = channel(&ports, &world.joined(&ports, Role::Validator, "v").await);

    let directories = wire::ListDirectoriesRequest {};
    AuthorityClient::new(front.clone()).list_directories(directories).await.unwrap();
    let nodes = AdminClient::new(operator.clone()).list_nodes(admin::ListNodesRequest {}).await.unwrap();
    let listed: Vec<_> = nodes.into_inner().nodes.into_iter().map(|node| node.name).collect();
    for name in ["alice", "f", "s", "served", "v", "validator-1"] {
        assert!(listed.iter().any(|one| one == name), "{name}: {listed:?}");
    }
    PublicationClient::new(status.clone()).list_objects(ListObjectsRequest {}).await.unwrap();

    // And nothing that is another's.
    for channel in [&front, &status, &validator] {
        let denied = AdminClient::new(channel.clone()).list_nodes(admin::ListNodesRequest {}).await;
        assert_eq!(denied.unwrap_err().code(), tonic::Code::PermissionDenied);
    }
    for channel in [&front, &operator, &validator] {
        let denied = PublicationClient::new(channel.clone()).list_objects(ListObjectsRequest {}).await;
        assert_eq!(denied.unwrap_err().code(), tonic::Code::PermissionDenied);
    }
    for channel in [&operator, &status, &validator] {
        let directories = wire::ListDirectoriesRequest {};
        let denied = AuthorityClient::new(channel.clone()).list_directories(directories).await;
        assert_eq!(denied.unwrap_err().code(), tonic::Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_revoked_node_loses_its_living_connection() {
    let world = World::start().await;
    world.in_real_time();
    let ports = world.serve().await;
    let credentials = world.joined(&ports, Role::Front, "f").await;
    let client = channel(&ports, &credentials);
    let watch = AuthorityClient::new(client.clone()).watch_accounts(wire::WatchAccountsRequest {}).await;
    let mut watch = watch.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    // Renewal over the same connection; the name stays.
    enroll::renew(&credentials, client.clone()).await.unwrap();

    let operator = channel(&ports, &world.joined(&ports, Role::Operator, "alice").await);
    let request = admin::RevokeNodeRequest { role: "front".to_owned(), name: "f".to_owned() };
    let node = AdminClient::new(operator).revoke_node(request).await.unwrap().into_inner();
    assert_eq!(node.state, "revoked");
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.message()).await;
    assert!(!matches!(ended.expect("the stream goes on"), Ok(Some(_))));
    let mut authority = AuthorityClient::new(client.clone());
    authority.list_directories(wire::ListDirectoriesRequest {}).await.unwrap_err();
    world.clock.advance(HOUR);
    enroll::renew(&credentials, client).await.unwrap_err();
}
