//! A kept-alive HTTPS connection of a load generator's client.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

/// Where and how to connect.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
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
        Ok(Self { address, tls: Arc::new(tls) })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody answers, or the certificate is not good.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
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
