//! Joining with a token, renewing with a certificate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rpc::{
    AccessTable, Channel, CredentialsError, Limits, NodeCredentials, PeerIdentity, Role,
    enroll::{Fingerprint, JoinError, JoinToken, KeyPair, RenewError, join, renew, requested_key},
    proto::signer::v1::{
        JoinRequest, JoinResponse, RenewRequest, RenewResponse, enrollment_server,
        enrollment_server::EnrollmentServer, membership_client::MembershipClient, membership_server,
        membership_server::MembershipServer,
    },
};
use support::{Port, redeem};
use testkit::nodes::{NodeAuthority, Wish};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status, service::Routes};

/// A signer that knows one token and certifies whatever it is told to.
#[derive(Clone)]
struct Signer {
    authority: Arc<NodeAuthority>,
    token: JoinToken,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Takes the request and never answers well.
    silent: Arc<AtomicBool>,
    /// Certifies another key than the one it was asked for.
    confused: Arc<AtomicBool>,
}

impl Signer {
    fn new() -> Self {
        let authority = Arc::new(NodeAuthority::new());
        let token = JoinToken::new([9; 32], authority.fingerprint());
        Self { authority, token, requests: Arc::default(), silent: Arc::default(), confused: Arc::default() }
    }

    fn answer(&self, csr: &[u8], wish: &Wish) -> Result<Vec<Bytes>, Status> {
        self.requests.lock().unwrap().push(csr.to_vec());
        if self.silent.load(Ordering::SeqCst) {
            return Err(Status::unavailable("lost"));
        }
        let other = KeyPair::generate().unwrap().request().unwrap();
        let csr = if self.confused.load(Ordering::SeqCst) { &other } else { csr };
        Ok(self.authority.answer(csr, wish).into_iter().map(Bytes::from).collect())
    }

    async fn enrolment(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes =
            Routes::new(EnrollmentServer::new(self.clone())).add_service(MembershipServer::new(self.clone()));
        let credentials = self.authority.node(Role::Signer, "s1");
        tokio::spawn(rpc::serve_anonymous(
            listener,
            credentials,
            routes,
            Limits::strangers(),
            std::future::pending(),
        ));
        address
    }

    async fn membership(&self) -> Port {
        Port::serving(self.authority.node(Role::Signer, "s1"), AccessTable::signer(), |_| {
            Routes::new(MembershipServer::new(self.clone()))
        })
        .await
    }
}

#[tonic::async_trait]
impl enrollment_server::Enrollment for Signer {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        if JoinToken::digest_of(&request.token).ok() != Some(self.token.digest()) {
            return Err(Status::permission_denied("no such token"));
        }
        let chain = self.answer(&request.csr, &Wish::of(Role::Front, "eu-1"))?;
        Ok(Response::new(JoinResponse { chain }))
    }
}

#[tonic::async_trait]
impl membership_server::Membership for Signer {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = PeerIdentity::of(&request)?.clone();
        let chain = self.answer(&request.get_ref().csr, &Wish::of(peer.role, peer.name.as_str()))?;
        Ok(Response::new(RenewResponse { chain }))
    }
}

#[tokio::test]
async fn a_node_joins_with_its_token_and_is_a_node_then() {
    let signer = Signer::new();
    let address = signer.enrolment().await.to_string();
    let files = signer.authority.paths(Role::Front, "joining");
    let joined = join(vec![address.clone()], &signer.token, None, &files).await.unwrap();
    assert_eq!(joined.to_string(), "front/eu-1");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&files.key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let me = NodeCredentials::load(files.clone()).unwrap();
    let port = Port::front(signer.authority.node(Role::Front, "other")).await;
    assert!(redeem(&mut port.client(&me), "x").await.unwrap());

    let again = join(vec![address], &signer.token, None, &files).await;
    assert!(matches!(again, Err(JoinError::Member { .. })));
}

#[tokio::test]
async fn a_server_of_another_node_ca_does_not_see_the_token() {
    let signer = Signer::new();
    let address = signer.enrolment().await.to_string();
    let files = signer.authority.paths(Role::Front, "joining");
    let token = JoinToken::new([9; 32], Fingerprint::of(b"another CA"));
    let refused = join(vec![address.clone()], &token, None, &files).await;
    assert!(matches!(refused, Err(JoinError::Refused(_))), "{refused:?}");
    assert!(signer.requests.lock().unwrap().is_empty());
    assert!(!files.certificate.exists());

    let wrong = JoinToken::new([8; 32], signer.authority.fingerprint());
    let Err(JoinError::Refused(status)) = join(vec![address], &wrong, None, &files).await else { panic!() };
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let signer = Signer::new();
    let address = signer.enrolment().await.to_string();
    let files = signer.authority.paths(Role::Front, "joining");
    signer.silent.store(true, Ordering::SeqCst);
    assert!(join(vec![address.clone()], &signer.token, None, &files).await.is_err());
    signer.silent.store(false, Ordering::SeqCst);
    signer.confused.store(true, Ordering::SeqCst);
    let confused = join(vec![address.clone()], &signer.token, None, &files).await;
    assert!(matches!(confused, Err(JoinError::Credentials(CredentialsError::Tls { .. }))), "{confused:?}");
    assert!(!files.certificate.exists() && !files.authority.exists());
    signer.confused.store(false, Ordering::SeqCst);
    join(vec![address], &signer.token, None, &files).await.unwrap();
    let requests = signer.requests.lock().unwrap();
    let keys: Vec<_> = requests.iter().map(|csr| requested_key(csr).unwrap()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn the_enrolment_port_serves_nothing_else() {
    let signer = Signer::new();
    let address = signer.enrolment().await.to_string();
    let channel = Channel::connect_pinned(vec![address], signer.authority.fingerprint()).unwrap();
    let refused = MembershipClient::new(channel).renew(RenewRequest { csr: Bytes::new() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_renewal_replaces_key_and_certificate() {
    let signer = Signer::new();
    let port = signer.membership().await;
    let files = signer.authority.files(Role::Status, "r");
    let me = NodeCredentials::load(files.clone()).unwrap();
    let (old, old_key) = (me.identity().serial, fs::read(&files.key).unwrap());
    let channel =
        Channel::connect_lazy(vec![port.address.to_string()], Role::Signer, Arc::clone(&me)).unwrap();
    let renewed = renew(&me, channel.clone()).await.unwrap();
    assert_eq!(me.identity(), renewed);
    assert_ne!(renewed.serial, old);
    assert_ne!(fs::read(&files.key).unwrap(), old_key);
    assert_eq!(NodeCredentials::load(files).unwrap().identity(), renewed);

    signer.confused.store(true, Ordering::SeqCst);
    assert!(matches!(renew(&me, channel).await, Err(RenewError::Credentials(_))));
    assert_eq!(me.identity(), renewed);
    assert!(me.reload().is_ok());
}

#[tokio::test]
async fn a_renewal_cut_off_between_its_two_files_leaves_a_node() {
    let signer = Signer::new();
    let port = signer.membership().await;
    let files = signer.authority.files(Role::Status, "r");
    // What a crash leaves: the new certificate, its key still under the provisional name, the old key.
    let pair = KeyPair::generate().unwrap();
    let leaf = &signer.authority.answer(&pair.request().unwrap(), &Wish::of(Role::Status, "r"))[0];
    let next = files.key.with_extension("key.next");
    rpc::files::write_atomically(&next, pair.pem().unwrap().as_bytes(), 0o600).unwrap();
    fs::write(&files.certificate, pki::chain::pem_block("CERTIFICATE", leaf)).unwrap();

    let me = NodeCredentials::load(files.clone()).unwrap();
    let channel =
        Channel::connect_lazy(vec![port.address.to_string()], Role::Signer, Arc::clone(&me)).unwrap();
    signer.silent.store(true, Ordering::SeqCst);
    assert!(renew(&me, channel.clone()).await.is_err());
    NodeCredentials::load(files.clone()).expect("a failed renewal must not lose the key in force");
    signer.silent.store(false, Ordering::SeqCst);
    let renewed = renew(&me, channel).await.unwrap();
    assert!(!next.exists());
    assert_eq!(NodeCredentials::load(files).unwrap().identity(), renewed);
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let signer = Signer::new();
    let port = Port::front(signer.authority.node(Role::Front, "a")).await;
    let files = signer.authority.paths(Role::Front, "short");
    let mut wish = Wish::of(Role::Front, "short");
    let end = runtime::Clock::now(&runtime::SystemClock) + Duration::from_secs(3);
    wish.not_after = end;
    signer.authority.write(&files, &wish);
    let me = NodeCredentials::load(files).unwrap();
    let mut client = port.client(&me);
    assert!(redeem(&mut client, "x").await.unwrap());
    let under_way = redeem(&mut client, "slow").await;
    assert!(under_way.is_err());
    assert!(redeem(&mut client, "x").await.is_err(), "nor is it let in again");
}
