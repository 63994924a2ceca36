//! A gRPC port between nodes, and the enrolment port.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use rustls_pki_types::UnixTime;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::Routes, transport::server::Connected};
use tracing::{debug, info, warn};

use crate::{
    access::{AccessTable, Gate},
    credentials::NodeCredentials,
    identity::{Peer, PeerIdentity},
    revocation::Revocations,
};

/// What one port bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's backlog. Default 1,024.
    pub connections: usize,
    /// Requests at once on one connection; more wait. Default 512.
    pub requests_per_connection: u32,
    /// Bytes of one request. Default 1 MiB.
    pub request_bytes: usize,
    /// Bytes of one request's headers. Default 16 KiB.
    pub header_bytes: u32,
    /// How long a handshake may take. Default 5 s.
    pub handshake: Duration,
    /// How old a connection gets, so that load spreads again over servers that came back. Default 30 min.
    pub connection_age: Duration,
    /// How long requests and streams may go on after that. Default 1 min.
    pub connection_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests_per_connection: 512,
            request_bytes: 1 << 20,
            header_bytes: 16 << 10,
            handshake: Duration::from_secs(5),
            connection_age: Duration::from_secs(30 * 60),
            connection_grace: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// For the enrolment port, where callers are strangers.
    pub fn strangers() -> Self {
        Self {
            connections: 32,
            requests_per_connection: 4,
            request_bytes: 64 << 10,
            connection_age: Duration::from_secs(30),
            connection_grace: Duration::from_secs(5),
            ..Self::default()
        }
    }
}

/// Serves nodes on a port: mutual TLS, `access` before every handler, revoked nodes thrown out.
///
/// Returns when `shutdown` completed and the last request is answered. Handlers of endless streams must end them on
/// the same signal, or the drain waits for its limit.
///
/// # Errors
/// When the credentials are unusable, or the port fails for good.
pub async fn serve(
    listener: TcpListener,
    credentials: Arc<NodeCredentials>,
    services: Routes,
    access: AccessTable,
    revocations: Revocations,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let gate = Gate::mutual(access, revocations.clone(), limits.request_bytes);
    let door = Door { credentials, revocations: Some(revocations) };
    run(listener, door, services, gate, limits, shutdown).await
}

/// Serves strangers on the enrolment port: the server proves itself, and nothing but enrolment is reachable.
///
/// # Errors
/// As [`serve`].
pub async fn serve_anonymous(
    listener: TcpListener,
    credentials: Arc<NodeCredentials>,
    services: Routes,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let gate = Gate::anonymous(limits.request_bytes);
    run(listener, Door { credentials, revocations: None }, services, gate, limits, shutdown).await
}

/// Why a port is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificate or key do not make a TLS server.
    #[error("the node's certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// HTTP/2 failed as a whole; single connections do not.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
}

async fn run(
    listener: TcpListener,
    door: Door,
    services: Routes,
    gate: Gate,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    door.config()?;
    let (sender, incoming) = mpsc::channel(16);
    let accepting = Accepting(tokio::spawn(accept(listener, Arc::new(door), limits, sender)));
    let shutdown = async {
        shutdown.await;
        // The port closes first; then HTTP/2 tells every peer to go elsewhere, and waits for what is under way.
        drop(accepting);
    };
    tonic::transport::Server::builder()
        .layer(gate)
        .max_concurrent_streams(limits.requests_per_connection)
        .http2_max_header_list_size(limits.header_bytes)
        .http2_adaptive_window(Some(true))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .max_connection_age(limits.connection_age)
        .max_connection_age_grace(limits.connection_grace)
        .add_routes(services)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), shutdown)
        .await?;
    Ok(())
}

// A peer that vanished without a word is noticed within half a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
// "Rapid reset": a peer that opens and resets streams without end is cut off.
const PENDING_RESETS: usize = 64;

/// The accept loop's task; the port closes with it.
struct Accepting(tokio::task::JoinHandle<()>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Door {
    credentials: Arc<NodeCredentials>,
    revocations: Option<Revocations>,
}

impl Door {
    fn config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        match &self.revocations {
            Some(revocations) => self.credentials.mutual_server(revocations),
            None => self.credentials.anonymous_server(),
        }
    }
}

type Incoming = mpsc::Sender<Result<Connection, std::io::Error>>;

async fn accept(listener: TcpListener, door: Arc<Door>, limits: Limits, incoming: Incoming) {
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let (door, incoming) = (Arc::clone(&door), incoming.clone());
                tokio::spawn(async move {
                    match timeout(limits.handshake, admit(stream, address, &door, permit)).await {
                        Ok(Ok(connection)) => drop(incoming.send(Ok(connection)).await),
                        Ok(Err(reason)) => turned_away(address, &reason),
                        Err(_) => turned_away(address, &"the handshake took too long"),
                    }
                });
            }
            // Out of descriptors, or a client that was gone already: neither ends the port.
            Err(error) => {
                warn!(%error, "rpc.accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn turned_away(address: SocketAddr, reason: &dyn std::fmt::Display) {
    info!(%address, %reason, "rpc.handshake_refused");
    metrics::counter!("chancery_rpc_handshakes_refused_total").increment(1);
}

async fn admit(
    stream: TcpStream,
    address: SocketAddr,
    door: &Door,
    permit: OwnedSemaphorePermit,
) -> Result<Connection, AdmitError> {
    stream.set_nodelay(true)?;
    // The configuration of this moment: a reloaded certificate counts from the next handshake on.
    let stream = TlsAcceptor::from(door.config()?).accept(stream).await?;
    let Some(revocations) = door.revocations.clone() else {
        let peer = Peer { address, identity: None };
        let end = Box::pin(std::future::pending());
        return Ok(Connection { stream, peer, end, ended: false, _permit: permit });
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = PeerIdentity::from_certificate(leaf.ok_or(AdmitError::NoCertificate)?)?;
    debug!(peer = %identity, %address, "rpc.connected");
    let identity = Arc::new(identity);
    let end = Box::pin(end_of(Arc::clone(&identity), revocations));
    Ok(Connection {
        stream,
        peer: Peer { address, identity: Some(identity) },
        end,
        ended: false,
        _permit: permit,
    })
}

/// Completes when the peer may no longer be connected: revoked, or its certificate over.
async fn end_of(identity: Arc<PeerIdentity>, revocations: Revocations) {
    // The same clock that judged the certificate in the handshake. Its last second is still a good one (RFC 5280
    // §4.1.2.5), for a handshake as well: not before that is over, or the peer is let in again.
    let left = (identity.not_after.unix() + 1).saturating_sub(UnixTime::now().as_secs());
    tokio::select! {
        () = revocations.revoked(Arc::clone(&identity)) => {
            warn!(peer = %identity, "rpc.closed: the node is revoked");
        }
        () = tokio::time::sleep(Duration::from_secs(left)) => {
            info!(peer = %identity, "rpc.closed: the certificate is over");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AdmitError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("no client certificate")]
    NoCertificate,
    #[error("{0}")]
    Identity(#[from] crate::identity::IdentityError),
}

/// A connection that ends with its peer's membership.
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        if self.ended || self.end.as_mut().poll(context).is_ready() {
            self.ended = true;
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // HTTP/2 always has a read pending: the end wakes it.
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
