//! A port with a service behind it, and what its clients do.

#![allow(dead_code, unreachable_pub, reason = "each test takes its part")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rpc::{
    AccessTable, Channel, Limits, NodeCredentials, PeerIdentity, Revocations, Role,
    proto::front::v1::{
        RedeemRequest, RedeemResponse, nonces_client::NoncesClient, nonces_server,
        nonces_server::NoncesServer,
    },
};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

/// Answers at once, or to "slow" when it is told to.
#[derive(Clone, Default)]
pub struct Nonces {
    /// Who called.
    pub callers: Arc<Mutex<Vec<PeerIdentity>>>,
    pub started: Arc<Notify>,
    pub finish: Arc<Notify>,
}

#[tonic::async_trait]
impl nonces_server::Nonces for Nonces {
    async fn redeem(&self, request: Request<RedeemRequest>) -> Result<Response<RedeemResponse>, Status> {
        let peer = PeerIdentity::of(&request)?.clone();
        self.callers.lock().unwrap().push(peer);
        if request.get_ref().nonce == "slow" {
            self.started.notify_one();
            self.finish.notified().await;
        }
        Ok(Response::new(RedeemResponse { fresh: true }))
    }
}

/// A port that is served until it is dropped.
pub struct Port {
    pub address: SocketAddr,
    pub nonces: Nonces,
    pub revocations: Revocations,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<Result<(), rpc::ServeError>>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.served.abort();
    }
}

impl Port {
    /// A front's port with the front's table.
    pub async fn front(credentials: Arc<NodeCredentials>) -> Self {
        Self::serving(credentials, AccessTable::front(), |nonces| Routes::new(NoncesServer::new(nonces)))
            .await
    }

    pub async fn serving(
        credentials: Arc<NodeCredentials>,
        access: AccessTable,
        routes: impl FnOnce(Nonces) -> Routes,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (nonces, revocations) = (Nonces::default(), Revocations::new());
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(rpc::serve(
            listener,
            credentials,
            routes(nonces.clone()),
            access,
            revocations.clone(),
            Limits::default(),
            shutdown.clone().cancelled_owned(),
        ));
        Self { address, nonces, revocations, shutdown, served }
    }

    pub fn client(&self, credentials: &Arc<NodeCredentials>) -> NoncesClient<Channel> {
        client(&[self.address], Role::Front, credentials)
    }
}

pub fn client(
    addresses: &[SocketAddr],
    role: Role,
    credentials: &Arc<NodeCredentials>,
) -> NoncesClient<Channel> {
    let addresses = addresses.iter().map(ToString::to_string).collect();
    NoncesClient::new(Channel::connect_lazy(addresses, role, Arc::clone(credentials)).unwrap())
}

pub async fn redeem(client: &mut NoncesClient<Channel>, nonce: &str) -> Result<bool, Status> {
    let mut request = Request::new(RedeemRequest { nonce: nonce.to_owned() });
    request.set_timeout(Duration::from_secs(20));
    client.redeem(request).await.map(|answer| answer.into_inner().fresh)
}

/// An address where nobody listens.
pub async fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
