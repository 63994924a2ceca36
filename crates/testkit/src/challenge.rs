//! A web server that answers http-01, well or badly, on a free loopback port.
//!
//! It speaks just enough HTTP/1.1 to be a target, one request a connection, and remembers what it was asked.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The server. It ends when it is dropped.
pub struct ChallengeResponder {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the server does with a request for a path.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers at once.
    Body {
        /// The status.
        status: u16,
        /// More header lines than Content-Length and Connection.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Answers byte by byte, with a pause before each.
    Drip {
        /// Before each byte, header included.
        pause: Duration,
        /// The body of a 200.
        body: Vec<u8>,
    },
    /// Sends a body of so many bytes, as fast as they are taken.
    Huge {
        /// Its size.
        bytes: u64,
    },
    /// Reads the request and never answers.
    Silence,
    /// Reads the request and closes the connection.
    Close,
    /// Sends these bytes as they are, and closes.
    Raw(Vec<u8>),
}

impl Reply {
    /// A 200 with this body.
    #[must_use]
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Body { status: 200, headers: Vec::new(), body: body.into() }
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::Body { status, headers: vec![("Location".to_owned(), location.to_owned())], body: Vec::new() }
    }
}

/// A request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    /// `GET`, hopefully.
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
}

impl SeenRequest {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl ChallengeResponder {
    /// On a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// On this address, e.g. `[::1]` with the port of another responder.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start_on(address: SocketAddr) -> io::Result<Self> {
        Self::serve(address, None).await
    }

    /// Over TLS on this address, with a fresh self-signed certificate for `name`.
    ///
    /// # Errors
    /// When the address cannot be had or no certificate be made.
    pub async fn start_tls(address: SocketAddr, name: &str) -> io::Result<Self> {
        Self::serve(address, Some(acceptor(name).map_err(io::Error::other)?)).await
    }

    async fn serve(address: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers the challenge with this token.
    pub fn add(&self, token: &str, key_authorization: &str) {
        self.set(&challenge_path(token), Reply::ok(key_authorization));
    }

    /// Answers the challenge with this token by 404 again.
    pub fn remove(&self, token: &str) {
        self.shared.replies().remove(&challenge_path(token));
    }

    /// Answers a path (and query) in any way.
    pub fn set(&self, target: &str, reply: Reply) {
        self.shared.replies().insert(target.to_owned(), reply);
    }

    /// What was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were accepted so far, also those that asked nothing.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChallengeResponder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// RFC 8555 §8.3.
#[must_use]
pub fn challenge_path(token: &str) -> String {
    format!("/.well-known/acme-challenge/{token}")
}

#[derive(Default)]
struct Shared {
    replies: Mutex<HashMap<String, Reply>>,
    seen: Mutex<Vec<SeenRequest>>,
    connections: Mutex<usize>,
}

impl Shared {
    fn replies(&self) -> std::sync::MutexGuard<'_, HashMap<String, Reply>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Dropping the set with this task ends the connections as well.
    let mut running = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        *shared.connections.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        running.spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
        while running.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> io::Result<()> {
    match tls {
        None => exchange(stream, &shared).await,
        Some(acceptor) => exchange(acceptor.accept(stream).await?, &shared).await,
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: &Shared) -> io::Result<()> {
    let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
    let reply = shared.replies().get(&request.target).cloned();
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    let missing = Reply::Body { status: 404, headers: Vec::new(), body: b"no such challenge".to_vec() };
    match reply.unwrap_or(missing) {
        Reply::Body { status, headers, body } => {
            stream.write_all(head(status, &headers, body.len() as u64).as_bytes()).await?;
            stream.write_all(&body).await?;
        }
        Reply::Drip { pause, body } => {
            let head = head(200, &[], body.len() as u64);
            for byte in head.as_bytes().iter().chain(&body) {
                tokio::time::sleep(pause).await;
                stream.write_all(&[*byte]).await?;
            }
        }
        Reply::Huge { bytes } => {
            stream.write_all(head(200, &[], bytes).as_bytes()).await?;
            tokio::io::copy(&mut tokio::io::repeat(b'x').take(bytes), &mut stream).await?;
        }
        Reply::Silence => std::future::pending::<()>().await,
        Reply::Close => return Ok(()),
        Reply::Raw(bytes) => stream.write_all(&bytes).await?,
    }
    stream.shutdown().await
}

fn head(status: u16, headers: &[(String, String)], length: u64) -> String {
    let mut head = format!("HTTP/1.1 {status} Reply\r\nContent-Length: {length}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SeenRequest>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if bytes.len() > 65_536 || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Some(SeenRequest { method: method.to_owned(), target: target.to_owned(), headers }))
}

fn acceptor(name: &str) -> Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
