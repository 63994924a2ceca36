//! The HTTP port: HTTP/1.1, bounded in connections, header time, header size and patience with slow readers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::LimitsSection;

/// Serves until `stop`, then finishes the requests under way.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: LimitsSection,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections.get()));
    let peers = Peers { each: limits.connections_per_peer.get(), open: Arc::default() };
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
                    let connection = connection(stream, router.clone(), limits.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop((peer, slot));
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

async fn connection(stream: TcpStream, router: Router, limits: LimitsSection, stop: CancellationToken) {
    let stream = Impatient::new(stream, Duration::from_secs(limits.stall_seconds.get().into()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.header_seconds.get().into()))
        .max_buf_size(HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    let mut end = pin!(sleep(Duration::from_secs(limits.connection_seconds.get().into())));
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

/// Requests have no bodies and few headers; the largest legitimate one is far below.
const HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Open connections by peer.
#[derive(Clone)]
struct Peers {
    each: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

struct Peer {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    fn enter(&self, address: IpAddr) -> Option<Peer> {
        let address = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_insert(0);
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Peer { address, open: Arc::clone(&self.open) })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// An IPv6 peer owns a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// A stream that fails when its peer takes nothing of what is written for some time.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, deadline: Box::pin(sleep(patience)), waiting: false }
    }

    fn judge<T>(&mut self, progress: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.waiting = false;
            return progress;
        }
        if !self.waiting {
            self.waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        self.deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(progress, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(progress, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(progress, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(progress, context)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const BODY: usize = 64 << 20;

    /// A connection whose answer is too large for the kernel's buffers, and how it ends.
    async fn large() -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let router = Router::new().fallback(|| async { Body::from(vec![b'x'; BODY]) });
        let limits = LimitsSection { stall_seconds: std::num::NonZeroU32::MIN, ..LimitsSection::default() };
        let ended = tokio::spawn(connection(server, router, limits, CancellationToken::new()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        (client, ended)
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_left() {
        let (_client, ended) = large().await;
        timeout(Duration::from_secs(20), ended).await.expect("the connection is held for ever").unwrap();
    }

    #[tokio::test]
    async fn a_slow_reader_gets_everything() {
        let (mut client, ended) = large().await;
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

    #[test]
    fn an_ipv6_peer_is_its_network() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8:1:2:3:4:5:6"), ip("2001:db8:1:2::1"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
        assert_ne!(ip("192.0.2.1"), ip("192.0.2.2"));
    }
}
