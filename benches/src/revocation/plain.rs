//! A kept-alive plain HTTP connection to a status node.

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One connection, one request at a time.
pub struct Plain {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Plain {
    /// Connects to `authority` (`host:port`).
    ///
    /// # Errors
    ///
    /// When nobody answers.
    pub async fn connect(authority: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: authority.to_owned() })
    }

    /// GET without a body, or POST of an OCSP request.
    ///
    /// # Errors
    ///
    /// When the connection breaks or the answer is not 200.
    pub async fn ask(&mut self, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Bytes> {
        Ok(self.ask_whole(path, body).await?.into_body())
    }

    /// As [`Plain::ask`], with the headers.
    ///
    /// # Errors
    ///
    /// When the connection breaks or the answer is not 200.
    pub async fn ask_whole(&mut self, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Response<Bytes>> {
        let request = Request::builder().uri(path).header("host", &self.authority);
        let request = match &body {
            Some(_) => request.method("POST").header("content-type", "application/ocsp-request"),
            None => request.method("GET"),
        };
        self.sender.ready().await?;
        let request = request.body(Full::new(body.unwrap_or_default().into()))?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        anyhow::ensure!(head.status == StatusCode::OK, "{path}: {}", head.status);
        let body = body.collect().await.context("the answer's body")?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}
