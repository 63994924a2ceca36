//! A kept-alive HTTPS connection of a load generator's client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

/// Where and how to connect.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    from: Option<IpAddr>,
    tls: Arc<ClientConfig>,
}

impl Server {
    /// The server at `address`, whose certificate chains to the root in `root` (PEM).
    ///
    /// # Errors
    ///
    /// When the root cannot be read.
    pub fn new(address: SocketAddr, root: &std::path::Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in pki::chain::from_pem(&std::fs::read_to_string(root)?)? {
            roots.add(certificate.der().to_vec().into())?;
        }
        let mut tls = ClientConfig::builder_with_provider(rpc::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, from: None, tls: Arc::new(tls) })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, reached from another address of this host.
    #[must_use]
    pub fn from(&self, address: IpAddr) -> Self {
        Self { from: Some(address), ..self.clone() }
    }

    /// A connection without TLS yet.
    ///
    /// # Errors
    ///
    /// When nobody answers.
    pub async fn connect_plainly(&self) -> anyhow::Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(from) = self.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection on which nothing was said after the handshake.
    ///
    /// # Errors
    ///
    /// When nobody answers, or the certificate is not good.
    pub async fn shake_hands(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = self.connect_plainly().await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        Ok(tokio_rustls::TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?)
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// As [`Self::shake_hands`].
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = self.shake_hands().await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, authority: self.address.to_string() })
    }
}

/// One connection, one request at a time.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Connection {
    /// Sends a request; GET when there is no body, else an ACME POST.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub async fn send(&mut self, path: &str, body: Option<Bytes>) -> anyhow::Result<Response<Bytes>> {
        match body {
            Some(body) => self.request("POST", path, Some("application/jose+json"), body).await,
            None => self.request("GET", path, None, Bytes::new()).await,
        }
    }

    /// Sends any request.
    ///
    /// # Errors
    ///
    /// When it cannot be sent, or the connection breaks.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.authority);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::new(body))?;
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await.context("the answer's body")?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}
