//! Real http-01 answers (RFC 8555 §8.3) for many clients at once: the name says whose thumbprint is asked for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Thumbprints by the first label of the name up to its last hyphen: `c7-123.bench.test` is client `c7`.
#[derive(Clone, Default)]
pub struct Responder {
    thumbprints: Arc<RwLock<HashMap<String, String>>>,
}

impl Responder {
    /// Serves on a port of loopback.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let responder = Self::default();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        let serving = responder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let responder = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = responder.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let serving = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // A validator that hangs up early is its own affair.
                    let _ = serving.await;
                });
            }
        });
        Ok(responder)
    }

    /// Answers for a client from now on.
    pub fn add(&self, client: &str, thumbprint: String) {
        if let Ok(mut thumbprints) = self.thumbprints.write() {
            thumbprints.insert(client.to_owned(), thumbprint);
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        let client = host.split('-').next().unwrap_or_default();
        let token = request.uri().path().rsplit('/').next().unwrap_or_default();
        let thumbprint = self.thumbprints.read().ok().and_then(|all| all.get(client).cloned());
        let (status, body) = match thumbprint {
            Some(thumbprint) => (StatusCode::OK, format!("{token}.{thumbprint}")),
            None => (StatusCode::NOT_FOUND, String::new()),
        };
        let mut answer = Response::new(Full::new(Bytes::from(body)));
        *answer.status_mut() = status;
        answer
    }
}
