//! The HTTPS listener: accepts, shakes hands, speaks HTTP/1.1 or HTTP/2, and drains.
//!
//! Every bound that a stranger could push against is here or in [`crate::request`]: connections and how fast they come, the handshake's time,
//! the header's time and size, streams of one connection, a connection's age.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use runtime::{Peer, Peers, Rates, TrustedProxies, client_network};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::Instrument;

use crate::config::LimitsSection;

/// Where a connection came from. Behind a trusted proxy what counts is what that proxy says, which is a claim: nothing but
/// limits may depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemoteAddress(pub(crate) SocketAddr);

/// Who may come in, and what each connection may use up.
pub(crate) struct Door {
    places: Arc<Semaphore>,
    peers: Peers,
    handshakes: Rates,
    trusted: TrustedProxies,
    bounds: Bounds,
}

impl Door {
    /// By the configuration's limits.
    pub(crate) fn new(limits: &LimitsSection, trusted: Vec<IpNet>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.connections)),
            peers: Peers::new(limits.connections_per_peer, trusted.clone()),
            handshakes: Rates::new(limits.handshakes_per_second, limits.handshake_burst),
            trusted: TrustedProxies::new(trusted),
            bounds: Bounds {
                handshake: Duration::from_secs(limits.handshake_seconds),
                header: Duration::from_secs(limits.header_seconds),
                age: Duration::from_secs(limits.connection_age_seconds),
                streams: limits.streams_per_connection,
            },
        }
    }

    /// Lets a peer in, or not: before a handshake, which costs more than everything else that a stranger can ask for.
    fn admit(&self, address: IpAddr) -> Option<Peer> {
        let often = || self.handshakes.allow(client_network(address), Instant::now());
        let admitted = self.peers.enter(address).filter(|_| self.trusted.trusts(address) || often());
        if admitted.is_none() {
            metrics::counter!("chancery_front_connections_refused_total").increment(1);
        }
        admitted
    }
}

/// What one connection may use up.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    handshake: Duration,
    header: Duration,
    age: Duration,
    streams: u32,
}

/// The largest header block that is read, over HTTP/1.1 and HTTP/2. ACME's own headers take a few hundred bytes.
const HEADER_BYTES: u32 = 16 * 1024;

/// Serves `app` on `listener` until `shutdown`, then lets the connections finish what they are at.
pub(crate) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    app: Router,
    door: Door,
    shutdown: CancellationToken,
) {
    let bounds = door.bounds;
    let connections = TaskTracker::new();
    loop {
        // A place first, then a connection: what finds no place waits in the kernel's backlog and costs nothing here.
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &door.places) => accepted,
        };
        let Some((stream, remote, place)) = accepted else { continue };
        let Some(peer) = door.admit(remote.ip()) else { continue };
        let (acceptor, app, shutdown) = (acceptor.clone(), app.clone(), shutdown.clone());
        let span = tracing::debug_span!("acme.connection", remote = %remote);
        let work = async move {
            converse(stream, remote, acceptor, app, bounds, shutdown).await;
            drop((place, peer));
        };
        connections.spawn(work.instrument(span));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, remote)) => Some((stream, remote, place)),
        Err(error) => {
            // Out of descriptors, or a peer that left at once. Without the pause the first would spin.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn converse(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: TlsAcceptor,
    app: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    // An answer is one small write: waiting for more to send only delays it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(bounds.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            metrics::counter!("chancery_front_handshakes_failed_total").increment(1);
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            metrics::counter!("chancery_front_handshakes_failed_total").increment(1);
            return;
        }
    };
    metrics::gauge!("chancery_front_connections").increment(1);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(RemoteAddress(remote));
        app.clone().oneshot(request.map(Body::new))
    });
    let builder = http_builder(bounds);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut retirement = pin!(async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(bounds.age) => {}
        }
    });
    let mut leaving = false;
    loop {
        tokio::select! {
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    tracing::debug!(error = %error, "connection ended");
                }
                break;
            }
            () = retirement.as_mut(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    metrics::gauge!("chancery_front_connections").decrement(1);
}

fn http_builder(bounds: Bounds) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header)
        .max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(HEADER_BYTES)
        // A peer that vanished without a FIN is noticed by an unanswered ping.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
