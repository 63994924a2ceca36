//! The HTTP port: HTTP/1.1 and HTTP/2, bounded in connections, streams, header time, header size, a connection's life and
//! patience with those who ask nothing or read slowly.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use runtime::{Peer, Peers};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::LimitsSection;
use crate::stream::{Impatient, Protocol, opening};

/// What answers requests.
pub(crate) trait Service: Clone + Send + Sync + 'static {
    fn respond(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Serves until `stop`, then finishes the requests under way.
pub(crate) async fn serve<S: Service>(
    listener: TcpListener,
    service: S,
    limits: LimitsSection,
    trusted: Vec<IpNet>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections.get()));
    let peers = Peers::new(limits.connections_per_peer.get(), trusted);
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => match peers.enter(address.ip()) {
                Some(peer) => {
                    let connection = connection(stream, peer, service.clone(), limits.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                None => {
                    metrics::counter!("chancery_status_connections_refused_total").increment(1);
                    debug!(peer = %address.ip(), "status.too_many_connections");
                }
            },
            Err(error) => {
                // Out of descriptors, most often: connections under way will give some back.
                warn!(%error, "status.accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<S: Service>(
    mut stream: TcpStream,
    peer: Peer,
    service: S,
    limits: LimitsSection,
    stop: CancellationToken,
) {
    // An answer is one small write: waiting for more to send only delays it.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "status.nodelay");
    }
    let opened = tokio::select! {
        opened = timeout(seconds(limits.header_seconds), opening(&mut stream)) => opened,
        () = stop.cancelled() => return,
    };
    let Ok(Ok((protocol, read))) = opened else { return };
    let stream = Impatient::new(stream, read, seconds(limits.stall_seconds));
    let end = peer.end().clone();
    let peer = Arc::new(peer);
    let served = async {
        match protocol {
            Protocol::Http1 => http1(stream, peer, service, &limits, stop).await,
            Protocol::Http2 => http2(stream, peer, service, &limits, stop).await,
        }
    };
    // With the connection goes what is held for it.
    end.run_until_cancelled_owned(served).await;
}

async fn http1<S: Service>(
    stream: Impatient,
    peer: Arc<Peer>,
    service: S,
    limits: &LimitsSection,
    stop: CancellationToken,
) {
    let answer = service_fn(move |request| {
        let (peer, service) = (Arc::clone(&peer), service.clone());
        async move { Ok::<_, Infallible>(service.respond(&peer, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(seconds(limits.header_seconds))
        .max_buf_size(HEADER_BYTES as usize)
        .max_headers(MAX_HEADERS)
        .half_close(false)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), answer);
    let mut served = pin!(served);
    let mut end = pin!(sleep(seconds(limits.connection_seconds)));
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = end.as_mut() => return,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = served => outcome,
                () = end => return,
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "status.connection");
    }
}

async fn http2<S: Service>(
    stream: Impatient,
    peer: Arc<Peer>,
    service: S,
    limits: &LimitsSection,
    stop: CancellationToken,
) {
    let pulse = Arc::new(Pulse { taken: stream.taken(), asked: AtomicU64::new(0), busy: AtomicU64::new(0) });
    let counted = Arc::clone(&pulse);
    let answer = service_fn(move |request| {
        let (peer, service) = (Arc::clone(&peer), service.clone());
        let busy = Busy::begin(&counted);
        async move {
            let response = service.respond(&peer, request).await;
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection.get())
        .max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        // Streams that were reset before they were looked at, and those that break the rules: then GOAWAY.
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .serve_connection(TokioIo::new(stream), answer);
    let mut served = pin!(served);
    let mut end = pin!(sleep(seconds(limits.connection_seconds)));
    let mut silence = pin!(pulse.silence(limits));
    let mut leaving = false;
    loop {
        tokio::select! {
            outcome = served.as_mut() => {
                if let Err(error) = outcome {
                    debug!(%error, "status.connection");
                }
                return;
            }
            () = end.as_mut() => return,
            () = silence.as_mut() => return,
            () = stop.cancelled(), if !leaving => {
                leaving = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Requests have few headers; the largest legitimate one, a GET of an OCSP request, is far below.
const HEADER_BYTES: u32 = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// What a peer may send before it is read: more than an OCSP request on each stream.
const WINDOW_BYTES: u32 = 64 * 1024;
const RESETS: usize = 32;

fn seconds(number: std::num::NonZeroU32) -> Duration {
    Duration::from_secs(number.get().into())
}

/// Whether anything happens on an HTTP/2 connection.
struct Pulse {
    taken: Arc<AtomicU64>,
    asked: AtomicU64,
    busy: AtomicU64,
}

struct Busy(Arc<Pulse>);

impl Busy {
    fn begin(pulse: &Arc<Pulse>) -> Self {
        pulse.asked.fetch_add(1, Ordering::Relaxed);
        pulse.busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pulse {
    /// Completes when the peer has neither asked nor taken anything for as long as it may: an HTTP/1.1 connection is bounded
    /// in the same way by the time of its next header.
    async fn silence(&self, limits: &LimitsSection) {
        let (idle, stalled) = (seconds(limits.header_seconds), seconds(limits.stall_seconds));
        let look = idle.min(stalled) / 4;
        let now = || (self.taken.load(Ordering::Relaxed), self.asked.load(Ordering::Relaxed));
        let (mut last, mut since) = (now(), Instant::now());
        loop {
            sleep(look).await;
            if now() != last {
                (last, since) = (now(), Instant::now());
                continue;
            }
            let patience = if self.busy.load(Ordering::Relaxed) > 0 { stalled } else { idle };
            if since.elapsed() >= patience {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BODY: usize = 64 << 20;

    #[derive(Clone)]
    struct Large;

    impl Service for Large {
        async fn respond(&self, _: &Peer, _: Request<Incoming>) -> Response<Full<Bytes>> {
            Response::new(Full::from(vec![b'x'; BODY]))
        }
    }

    /// A connection whose answer is too large for the kernel's buffers, and how it ends.
    async fn large(stall_seconds: u32) -> (TcpStream, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, address) = listener.accept().await.unwrap();
        let stall_seconds = stall_seconds.try_into().unwrap();
        let limits = LimitsSection { stall_seconds, ..LimitsSection::default() };
        let peer = Peers::new(1, Vec::new()).enter(address.ip()).unwrap();
        let end = peer.end().clone();
        let ended = tokio::spawn(connection(server, peer, Large, limits, CancellationToken::new()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        (client, end, ended)
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_left() {
        let (_client, _, ended) = large(1).await;
        timeout(Duration::from_secs(20), ended).await.expect("the connection is held for ever").unwrap();
    }

    #[tokio::test]
    async fn a_peer_can_be_sent_away() {
        let (mut client, end, ended) = large(600).await;
        // The answer is under way.
        client.read_u8().await.unwrap();
        end.cancel();
        timeout(Duration::from_secs(20), ended).await.expect("the connection goes on").unwrap();
    }

    #[tokio::test]
    async fn a_slow_reader_gets_everything() {
        let (mut client, _, ended) = large(1).await;
        let mut total = 0;
        let mut piece = vec![0; 4 << 20];
        // Longer than the patience with one who reads nothing.
        loop {
            sleep(Duration::from_millis(100)).await;
            match client.read(&mut piece).await.unwrap() {
                0 => break,
                read => total += read,
            }
        }
        assert!(total > BODY, "{total}");
        ended.await.unwrap();
    }
}
