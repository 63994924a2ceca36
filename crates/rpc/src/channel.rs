//! The client's side: one channel to a role that lives at several addresses.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{body::Body, transport::Endpoint};
use tower::Service;
use tracing::{debug, warn};

use crate::{credentials::NodeCredentials, enroll::Fingerprint, identity::Role, tls};

/// A channel to all nodes of a role: give it to a generated client (`AuthorityClient::new(channel.clone())`).
///
/// One connection an address, calls in turn over them. A connection whose address is dead is made to another one
/// instead, so that a call fails only when it was under way, or nobody can be reached. **It never repeats a call**: the
/// caller knows whether that is safe. Certificates are proven anew, and the newest used, at each connection; servers
/// end connections at a maximum age, so that load returns to those that came back.
///
/// Every call has a deadline, [`Channel::DEADLINE`], or a shorter one of its own (`tonic::Request::set_timeout`), which
/// the server hears of. It bounds the time to the answer's beginning: streams last longer.
pub struct Channel {
    lanes: Arc<[tonic::transport::Channel]>,
    next: Arc<AtomicUsize>,
    /// The lane that said it was ready.
    chosen: Option<tonic::transport::Channel>,
}

impl Channel {
    /// How long a call may take that sets no deadline of its own.
    pub const DEADLINE: Duration = Duration::from_secs(30);

    /// A channel to nodes of a role. Connects at the first call; must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no address, or one is not `host:port`.
    pub fn connect_lazy(
        addresses: Vec<String>,
        expected: Role,
        credentials: Arc<NodeCredentials>,
    ) -> Result<Self, AddressError> {
        Self::over(addresses, Identity::Node { expected, credentials })
    }

    /// A channel to an enrolment port: the server is known by the node CA's fingerprint, the client not at all.
    ///
    /// # Errors
    /// As [`connect_lazy`](Self::connect_lazy).
    pub fn connect_pinned(addresses: Vec<String>, authority: Fingerprint) -> Result<Self, AddressError> {
        Self::over(addresses, Identity::Stranger { authority })
    }

    fn over(addresses: Vec<String>, identity: Identity) -> Result<Self, AddressError> {
        if addresses.is_empty() {
            return Err(AddressError::None);
        }
        if let Some(bad) = addresses.iter().find(|address| !is_host_and_port(address)) {
            return Err(AddressError::Form(bad.clone()));
        }
        let count = addresses.len();
        let targets = Arc::new(Targets { down: Mutex::new(vec![None; count]), addresses, identity });
        let lane = |first| {
            endpoint().connect_with_connector_lazy(Connector { targets: Arc::clone(&targets), first })
        };
        Ok(Self { lanes: (0..count).map(lane).collect(), next: Arc::default(), chosen: None })
    }

    fn pick(&self) -> Option<tonic::transport::Channel> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.lanes.get(turn % self.lanes.len().max(1)).cloned()
    }
}

impl Clone for Channel {
    fn clone(&self) -> Self {
        // Readiness is not shared: a clone chooses for itself.
        Self { lanes: Arc::clone(&self.lanes), next: Arc::clone(&self.next), chosen: None }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Channel").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <tonic::transport::Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.chosen.is_none() {
            self.chosen = self.pick();
        }
        let Some(lane) = self.chosen.as_mut() else { return Poll::Pending };
        let ready = lane.poll_ready(context);
        if let Poll::Ready(Err(_)) = &ready {
            self.chosen = None;
        }
        ready
    }

    #[expect(clippy::expect_used, reason = "tower's contract: `call` only after `poll_ready` answered Ok")]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.chosen.take().expect("call without poll_ready").call(request)
    }
}

fn endpoint() -> Endpoint {
    // The authority is never looked up: the connector knows the addresses.
    Endpoint::from_static("http://node.chancery.invalid")
        .timeout(Channel::DEADLINE)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_BYTES)
}

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
// A refusal travels in the trailers, with a subproblem for each of up to a hundred names.
const HEADER_BYTES: u32 = 256 << 10;

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Addresses that are none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// An empty list.
    #[error("at least one address is needed")]
    None,
    /// Not `host:port`.
    #[error("{0:?} is not host:port")]
    Form(String),
}

enum Identity {
    Node { expected: Role, credentials: Arc<NodeCredentials> },
    Stranger { authority: Fingerprint },
}

/// The addresses of a role, and which of them did not answer lately.
struct Targets {
    addresses: Vec<String>,
    down: Mutex<Vec<Option<Instant>>>,
    identity: Identity,
}

impl Targets {
    fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        match &self.identity {
            Identity::Node { expected, credentials } => credentials.client(*expected),
            Identity::Stranger { authority } => tls::pinned_client(*authority),
        }
    }

    /// All addresses from `first` on, those that were dead lately last.
    fn order(&self, first: usize) -> Vec<usize> {
        let count = self.addresses.len();
        let mut order: Vec<usize> = (0..count).map(|step| (first + step) % count).collect();
        let down = self.down.lock();
        order.sort_by_key(|&index| {
            down.get(index).copied().flatten().is_some_and(|since| since.elapsed() < DOWN_FOR)
        });
        order
    }

    fn mark(&self, index: usize, down: Option<Instant>) {
        if let Some(mark) = self.down.lock().get_mut(index) {
            *mark = down;
        }
    }

    async fn connect(&self, first: usize) -> Result<Tls, ConnectError> {
        let mut last = None;
        for index in self.order(first) {
            let Some(address) = self.addresses.get(index) else { continue };
            let attempt = timeout(ATTEMPT, self.reach(address)).await;
            match attempt.unwrap_or_else(|_| Err(ConnectFailure::Timeout)) {
                Ok(stream) => {
                    self.mark(index, None);
                    debug!(address, "rpc.connected");
                    return Ok(stream);
                }
                Err(failure) => {
                    self.mark(index, Some(Instant::now()));
                    metrics::counter!("chancery_rpc_connect_failures_total").increment(1);
                    warn!(address, reason = %failure, "rpc.connect");
                    last = Some(ConnectError { address: address.clone(), source: failure });
                }
            }
        }
        Err(last.unwrap_or_else(|| ConnectError { address: String::new(), source: ConnectFailure::Timeout }))
    }

    async fn reach(&self, address: &str) -> Result<Tls, ConnectFailure> {
        let config = self.config()?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(TlsConnector::from(config).connect(nobody(), stream).await?)
    }
}

// rustls wants a name; ours are in the certificate's URI.
fn nobody() -> ServerName<'static> {
    ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED))
}
// Within the deadline of a call there is time for another address.
const ATTEMPT: Duration = Duration::from_secs(3);
const DOWN_FOR: Duration = Duration::from_secs(10);

type Tls = TlsStream<TcpStream>;

#[derive(Clone)]
struct Connector {
    targets: Arc<Targets>,
    first: usize,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Tls>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { targets, first } = self.clone();
        Box::pin(async move { targets.connect(first).await.map(TokioIo::new) })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no node can be reached; at last, {address}")]
struct ConnectError {
    address: String,
    source: ConnectFailure,
}

#[derive(Debug, thiserror::Error)]
enum ConnectFailure {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("no answer in time")]
    Timeout,
}
