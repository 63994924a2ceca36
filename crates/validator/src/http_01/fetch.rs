//! One GET over one connection to an address that the policy has already let through.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};

use crate::connect::{connect, describe_io};
use crate::failure::FailureKind;
use crate::tls;

/// How to fetch: the same for every hop.
pub(super) struct Fetcher {
    pub(super) connect_timeout: Duration,
    pub(super) body_bytes: usize,
    pub(super) header_bytes: usize,
    tls: TlsConnector,
}

/// What one answer says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: Option<Bytes>,
    pub(super) encoding: Option<Bytes>,
    /// The body up to the limit.
    pub(super) body: Bytes,
    /// More than the limit arrived.
    pub(super) oversize: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum FetchError {
    /// No connection: another address of the same name may be tried.
    Connect(String),
    /// Not after a connection was made.
    After(FailureKind, String),
}

impl Fetcher {
    pub(super) fn new(
        connect_timeout: Duration,
        body_bytes: usize,
        header_bytes: usize,
    ) -> Result<Self, rustls::Error> {
        Ok(Self { connect_timeout, body_bytes, header_bytes, tls: tls::connector()? })
    }

    /// Sends the request for `url` to `address`, whatever DNS says by now.
    pub(super) async fn get(&self, url: &Url, address: IpAddr) -> Result<Answer, FetchError> {
        let port = url.port_or_known_default().unwrap_or_default();
        let place = SocketAddr::new(address, port);
        let stream = connect(place, self.connect_timeout).await.map_err(FetchError::Connect)?;
        if url.scheme() == "https" {
            let name = server_name(url).ok_or_else(|| {
                FetchError::After(FailureKind::Tls, "the host is not a name for a TLS handshake".to_owned())
            })?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| {
                FetchError::After(
                    FailureKind::Tls,
                    format!("TLS handshake failed: {}", tls::describe(&error)),
                )
            })?;
            self.exchange(url, stream).await
        } else {
            self.exchange(url, stream).await
        }
    }

    async fn exchange<S>(&self, url: &Url, stream: S) -> Result<Answer, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(self.header_bytes)
            .max_headers(MAX_HEADERS)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| after(&error))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = request(url).ok_or_else(|| {
            FetchError::After(FailureKind::IncorrectResponse, "the URL cannot be asked for".to_owned())
        })?;
        let response = sender.send_request(request).await.map_err(|error| after(&error))?;
        let (head, body) = response.into_parts();
        let header = |name| head.headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let (location, encoding) = (header(LOCATION), header(CONTENT_ENCODING));
        let (body, oversize) =
            if head.status.is_redirection() { (Bytes::new(), false) } else { self.read(body).await? };
        Ok(Answer { status: head.status, location, encoding, body, oversize })
    }

    async fn read(&self, mut body: Incoming) -> Result<(Bytes, bool), FetchError> {
        let mut kept = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| after(&error))?.into_data() else { continue };
            let room = self.body_bytes - kept.len();
            kept.extend_from_slice(data.get(..room).unwrap_or(&data));
            if data.len() > room {
                return Ok((kept.freeze(), true));
            }
        }
        Ok((kept.freeze(), false))
    }
}

/// Generous; the header buffer bounds them as well.
const MAX_HEADERS: usize = 100;

fn request(url: &Url) -> Option<Request<Empty<Bytes>>> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    // RFC 9110 §7.2: the port only where it is not the scheme's own. `Url` writes IPv6 in brackets.
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    Request::get(target)
        .header(HOST, host)
        .header(USER_AGENT, concat!("Chancery/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .ok()
}

fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::IpAddress(IpAddr::V4(address).into())),
        Host::Ipv6(address) => Some(ServerName::IpAddress(IpAddr::V6(address).into())),
    }
}

fn after(error: &hyper::Error) -> FetchError {
    let text = if error.is_parse_too_large() {
        "the answer's header is too large".to_owned()
    } else if error.is_parse() {
        "the answer is not HTTP".to_owned()
    } else if error.is_incomplete_message() {
        "the connection was closed before the answer was complete".to_owned()
    } else if let Some(cause) = io_cause(error) {
        describe_io(cause)
    } else {
        "the connection failed".to_owned()
    };
    FetchError::After(FailureKind::Connection, text)
}

fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}
