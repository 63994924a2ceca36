//! Answers, and what every one of them carries.
//!
//! RFC 8555 §6.5: a nonce on every answer to a POST, on errors as well. §7.1: a link to the directory. §6.1: readable by
//! scripts of any origin. Nothing is stored by caches, but for renewal information (RFC 9773 §4.3). All of it is added here, in one place, so that no path of the code
//! can forget it: middleware, limits and unknown paths answer through [`Reply`] too.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;

/// The anti-replay nonce (RFC 8555 §6.5.1).
pub(crate) const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const CHAIN: HeaderValue = HeaderValue::from_static("application/pem-certificate-chain");

/// An answer, before the headers that all have.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// For how many seconds caches may keep it; most may not at all.
    cacheable: Option<u32>,
}

impl Reply {
    /// No body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), cacheable: None }
    }

    /// An ACME object.
    pub(crate) fn json<T: Serialize>(status: StatusCode, object: &T) -> Self {
        Self::encoded(status, JSON, object)
    }

    /// A problem document (RFC 9457).
    pub(crate) fn problem(problem: &acme::problem::Problem) -> Self {
        let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::encoded(status, PROBLEM, problem)
    }

    /// A certificate with its chain (RFC 8555 §9.1).
    pub(crate) fn chain(pem: String) -> Self {
        let mut reply = Self::empty(StatusCode::OK);
        reply.headers.insert(header::CONTENT_TYPE, CHAIN);
        reply.body = Bytes::from(pem);
        reply
    }

    /// Something that is to look like an ACME object; it may be none.
    pub(crate) fn as_json(body: String) -> Self {
        let mut reply = Self::empty(StatusCode::OK);
        reply.headers.insert(header::CONTENT_TYPE, JSON);
        reply.body = Bytes::from(body);
        reply
    }

    fn encoded<T: Serialize>(status: StatusCode, kind: HeaderValue, object: &T) -> Self {
        match serde_json::to_vec(object) {
            Ok(body) => {
                let mut headers = HeaderMap::new();
                headers.insert(header::CONTENT_TYPE, kind);
                Self { status, headers, body: Bytes::from(body), cacheable: None }
            }
            Err(error) => {
                tracing::error!(%error, "an answer cannot be encoded");
                Self::empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// With another status.
    pub(crate) fn status_of(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With the URL of the object (RFC 8555 §7.3, §7.4).
    pub(crate) fn location(self, url: &str) -> Self {
        self.with(header::LOCATION, url)
    }

    /// With a link to `url` (RFC 8288).
    pub(crate) fn link(self, url: &str, relation: &str) -> Self {
        self.with(header::LINK, &format!("<{url}>;rel=\"{relation}\""))
    }

    /// With the time after which it is worth asking again, whole seconds (RFC 8555 §6.6, §7.4, §7.5.1).
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        self
    }

    /// For anybody's caches, for so many seconds: what is nobody's own. It has no nonce, which is good for one request only.
    pub(crate) fn cacheable(mut self, seconds: u32) -> Self {
        self.cacheable = Some(seconds);
        self
    }

    /// With the methods that the resource has.
    pub(crate) fn allow(self, methods: &'static str) -> Self {
        self.with(header::ALLOW, methods)
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::try_from(value) {
            Ok(value) => {
                self.headers.append(name, value);
            }
            // URLs of ours are ASCII; this would be a fault of configuration that `--check` has not found.
            Err(error) => tracing::error!(%error, header = %name, "a header cannot be sent"),
        }
        self
    }

    /// The status, for metrics.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The response as it leaves, with what every response has.
    pub(crate) fn into_response(
        mut self,
        method: &Method,
        nonce: Option<&str>,
        index: Option<&str>,
    ) -> Response {
        if let Some(index) = index {
            self = self.link(index, "index");
        }
        let Self { status, mut headers, body, cacheable } = self;
        match cacheable.map(|seconds| HeaderValue::try_from(format!("public, max-age={seconds}"))) {
            Some(Ok(public)) => {
                headers.insert(header::CACHE_CONTROL, public);
            }
            _ => {
                if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::try_from(nonce).ok()) {
                    headers.insert(REPLAY_NONCE, nonce);
                }
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Link, Location, Replay-Nonce, Retry-After"),
        );
        if *method == Method::HEAD {
            // The header alone, with no length that would promise a body.
            return with_head(status, headers, Body::empty());
        }
        with_head(status, headers, Body::from(body))
    }

    /// The answer to a browser that asks whether it may ask (A3).
    pub(crate) fn preflight() -> Self {
        let mut reply = Self::empty(StatusCode::NO_CONTENT);
        let headers = &mut reply.headers;
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        reply
    }
}

fn with_head(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
