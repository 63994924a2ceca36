//! A node's certificate renews itself, without a restart and before anybody misses it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rpc::{
    AccessTable, Channel, Limits, NodeCredentials, PeerIdentity, Revocations, Role,
    enroll::KeyPair,
    proto::signer::v1::{
        RenewRequest, RenewResponse, membership_client::MembershipClient, membership_server,
        membership_server::MembershipServer,
    },
};
use runtime::{Clock, Lifecycle, SystemClock};
use testkit::{
    TestClock,
    nodes::{NodeAuthority, Wish},
};
use tokio::{net::TcpListener, time::sleep};
use tonic::{Request, Response, Status, service::Routes};

const DAY: Duration = Duration::from_secs(24 * 3600);
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Clone)]
struct Signer {
    authority: Arc<NodeAuthority>,
    callers: Arc<Mutex<Vec<PeerIdentity>>>,
    away: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl membership_server::Membership for Signer {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = PeerIdentity::of(&request)?.clone();
        self.callers.lock().unwrap().push(peer.clone());
        if self.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the token is away"));
        }
        let mut wish = Wish::of(peer.role, peer.name.as_str());
        wish.not_after = wish.not_before + 30 * DAY;
        let chain = self.authority.answer(&request.get_ref().csr, &wish).into_iter().map(Bytes::from);
        Ok(Response::new(RenewResponse { chain: chain.collect() }))
    }
}

impl Signer {
    async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let signer =
            Self { authority: Arc::new(NodeAuthority::new()), callers: Arc::default(), away: Arc::default() };
        tokio::spawn(rpc::serve(
            listener,
            signer.authority.node(Role::Signer, "s"),
            Routes::new(MembershipServer::new(signer.clone())),
            AccessTable::signer(),
            Revocations::new(),
            Limits::default(),
            std::future::pending(),
        ));
        (signer, address)
    }
}

fn channel(address: SocketAddr, credentials: &Arc<NodeCredentials>) -> Channel {
    Channel::connect_lazy(vec![address.to_string()], Role::Signer, Arc::clone(credentials)).unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_third_of_its_life_later_it_is_renewed_and_shown_to_new_peers() {
    let (signer, address) = Signer::start().await;
    let me = signer.authority.node(Role::Status, "me");
    let old = me.identity();
    let clock = TestClock::at(SystemClock.now());
    let lifecycle = Lifecycle::new(clock.shared());
    lifecycle.renew_credentials_every(&me, channel(address, &me), LOOK_EVERY);
    clock.set(old.renews_at() - Duration::from_secs(1));
    sleep(20 * LOOK_EVERY).await;
    assert!(signer.callers.lock().unwrap().is_empty(), "before its time");

    clock.advance(Duration::from_secs(1));
    until("renewed", || me.identity().serial != old.serial).await;
    assert!(me.identity().not_after > old.not_after);
    let call = async || {
        let request = RenewRequest { csr: KeyPair::generate().unwrap().request().unwrap().into() };
        MembershipClient::new(channel(address, &me)).renew(request).await.unwrap();
    };
    call().await;
    let serials: Vec<_> = signer.callers.lock().unwrap().iter().map(|peer| peer.serial).collect();
    assert_eq!(serials, [old.serial, me.identity().serial], "renewed once, and in force without a restart");

    // A new start finds it too; and the keeper ends with the process.
    assert_eq!(NodeCredentials::load(me.files().clone()).unwrap().identity(), me.identity());
    lifecycle.drain();
    assert!(lifecycle.finished().await.is_ok());
}

#[tokio::test]
async fn a_signer_that_is_away_is_asked_again() {
    let (signer, address) = Signer::start().await;
    signer.away.store(true, Ordering::SeqCst);
    let me = signer.authority.node(Role::Status, "me");
    let old = me.identity();
    let clock = TestClock::at(old.renews_at());
    let lifecycle = Lifecycle::new(clock.shared());
    lifecycle.renew_credentials_every(&me, channel(address, &me), LOOK_EVERY);
    let health = || serde_json::to_string(&lifecycle.readiness().report(false)).unwrap();
    until("a failure shows", || health().contains("the token is away")).await;
    assert!(lifecycle.readiness().report(false).is_ready(), "a young certificate serves on");
    assert_eq!(me.identity(), old);
    signer.away.store(false, Ordering::SeqCst);
    until("renewed", || me.identity().serial != old.serial).await;
    until("healthy", || health().contains("\"up\"")).await;
}

#[tokio::test]
async fn replaced_files_are_taken_over() {
    let authority = NodeAuthority::new();
    let files = authority.files(Role::Front, "me");
    let me = NodeCredentials::load(files.clone()).unwrap();
    let old = me.identity().serial;
    let lifecycle = Lifecycle::new(TestClock::default().shared());
    lifecycle.watch_credentials(&me);
    authority.write(&files, &Wish::of(Role::Front, "me"));
    assert_eq!(me.identity().serial, old);
    lifecycle.reload();
    assert_ne!(me.identity().serial, old);
}
