//! The role itself: configuration, ports, access, a token that is away, drain.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hsm::{Deadline, KeySpec, Token};
use pki::KeyAlgorithm;
use rpc::proto::signer::v1::authority_client::AuthorityClient;
use rpc::proto::signer::v1::{AuthorizeOrderRequest, ListDirectoriesRequest};
use rpc::{Channel, Role};
use runtime::{Lifecycle, RoleConfig as _, SystemClock};
use signer::Config;
use testkit::nodes::NodeAuthority;
use testkit::signing::SoftKey;
use testkit::token::TestToken;

use crate::support::{Authorities, POLICY};

struct Role1 {
    config: Config,
    nodes: NodeAuthority,
    softhsm: TestToken,
    address: String,
    _folder: tempfile::TempDir,
}

/// A configuration whose every file exists, for a token that holds the issuer's key.
async fn prepared() -> Role1 {
    let softhsm = TestToken::create("role-test");
    let token = Token::start(softhsm.config(), testkit::token::worker());
    token.ready(Deadline::after(Duration::from_secs(30))).await.unwrap();
    let spec = KeySpec { algorithm: KeyAlgorithm::EcdsaP256, label: "tls-1".to_owned(), id: vec![1] };
    let issuer = token.generate(spec).await.unwrap().public_key;
    token.shutdown().await;

    let folder = tempfile::tempdir().unwrap();
    let now = runtime::Clock::now(&SystemClock);
    Authorities::make(folder.path(), now, &issuer, &SoftKey::generate());
    std::fs::write(folder.path().join("policy.toml"), POLICY).unwrap();
    let secret = acme::TierSecret::new(1, std::array::from_fn(|at| at as u8)).unwrap();
    runtime::files::write_atomically(&folder.path().join("tier-secret"), secret.to_line().as_bytes(), 0o600)
        .unwrap();
    let nodes = NodeAuthority::new();
    let files = nodes.files(Role::Signer, "signer-1");
    let address = free_address();
    let text = format!(
        "version = 1\nlisten = {address:?}\n[node]\ncertificate = {:?}\nkey = {:?}\nauthority = {:?}\n\
         [database]\nsqlite = \"ca.db\"\n[[tier_secret]]\nversion = 1\nfile = \"tier-secret\"\n\
         [[token]]\nname = \"soft\"\nlabel = {:?}\nmodule = {:?}\npin_file = {:?}\n\
         environment = {{ SOFTHSM2_CONF = {:?} }}\n",
        files.certificate,
        files.key,
        files.authority,
        softhsm.label(),
        softhsm.module(),
        softhsm.pin_file(),
        softhsm.conf(),
    );
    let config: Config = runtime::config::parse(&text, &folder.path().join("signer.toml")).unwrap();
    config.check().unwrap();
    Role1 { config, nodes, softhsm, address, _folder: folder }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn start(role: &Role1, lifecycle: &Lifecycle) -> tokio::task::JoinHandle<Result<(), signer::RunError>> {
    let incarnation = signer::incarnation(&role.config).unwrap();
    assert_eq!(incarnation.node, "signer-1");
    let path: &Path = role.config.database.sqlite.as_ref().unwrap();
    let store = sqlite::Ca::open(sqlite::Options::new(path), incarnation).await.unwrap();
    let (config, lifecycle) = (role.config.clone(), lifecycle.clone());
    tokio::spawn(signer::run(config, lifecycle, Arc::new(store), testkit::token::worker()))
}

fn client(role: &Role1, of: Role, name: &str) -> AuthorityClient<Channel> {
    let channel =
        Channel::connect_lazy(vec![role.address.clone()], Role::Signer, role.nodes.node(of, name)).unwrap();
    AuthorityClient::new(channel)
}

async fn until_it_answers(front: &mut AuthorityClient<Channel>) {
    while front.list_directories(ListDirectoriesRequest {}).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until(lifecycle: &Lifecycle, ready: bool) {
    while lifecycle.readiness().report(false).is_ready() != ready {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_serves_fronts_and_nobody_else_until_it_drains() {
    let role = prepared().await;
    let lifecycle = Lifecycle::new(Arc::new(SystemClock));
    let running = start(&role, &lifecycle).await;
    let mut front = client(&role, Role::Front, "eu-1");
    until_it_answers(&mut front).await;
    until(&lifecycle, true).await;
    let answer = front.list_directories(ListDirectoriesRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.directories.len(), 4);
    let garbage = AuthorizeOrderRequest { new_order_jws: "{}".into() };
    let status = front.authorize_order(garbage).await.unwrap_err();
    assert!(rpc::refusal(&status).is_some(), "{status:?}");
    for other in [Role::Validator, Role::Status, Role::Operator, Role::Signer] {
        let status =
            client(&role, other, "x-1").list_directories(ListDirectoriesRequest {}).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{other}");
    }

    lifecycle.drain();
    running.await.unwrap().unwrap();
    lifecycle.finished().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_away_is_said_and_picked_up() {
    let role = prepared().await;
    role.softhsm.unplug();
    let lifecycle = Lifecycle::new(Arc::new(SystemClock));
    let running = start(&role, &lifecycle).await;
    // It serves what needs no key.
    let mut front = client(&role, Role::Front, "eu-1");
    until_it_answers(&mut front).await;
    until(&lifecycle, false).await;
    role.softhsm.plug();
    lifecycle.reload();
    until(&lifecycle, true).await;
    lifecycle.drain();
    running.await.unwrap().unwrap();
    lifecycle.finished().await.unwrap();
}

#[tokio::test]
async fn another_roles_certificate_is_refused() {
    let mut role = prepared().await;
    let files = role.nodes.files(Role::Front, "eu-1");
    role.config.node.certificate = files.certificate.into();
    role.config.node.key = files.key.into();
    let error = signer::incarnation(&role.config).unwrap_err();
    assert_eq!(error.exit_code(), runtime::ExitCode::Usage);
}
