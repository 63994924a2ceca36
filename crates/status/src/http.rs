//! What a request gets: an object's bytes with the headers that caches need, an OCSP answer, or nothing.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics::Counter;
use runtime::{Peer, SharedClock};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::config::CacheSection;
use crate::object::{Kind, Object};
use crate::ocsp::Responder;
use crate::readers::lend;
use crate::server::Service;
use crate::shelf::Shelf;

/// An answer over HTTP.
pub(crate) type Reply = Response<Full<Bytes>>;

/// The whole site. Clones are one.
#[derive(Clone)]
pub(crate) struct Site {
    inner: Arc<Inner>,
}

struct Inner {
    shelf: Arc<Shelf>,
    responder: Responder,
    clock: SharedClock,
    cache: CacheSection,
    prefix: String,
    counts: Counts,
}

impl Service for Site {
    async fn respond(&self, peer: &Peer, request: Request<Incoming>) -> Reply {
        let site = &self.inner;
        let path = request.uri().path().strip_prefix(site.prefix.as_str());
        let reply = match path.and_then(|path| path.strip_prefix("/ocsp")) {
            // Longer names beside it are not its.
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let at = request.uri().path().len() - rest.len();
                site.responder.respond(peer, at, request).await
            }
            _ => site.object(peer, path.and_then(|path| path.strip_prefix('/')), &request),
        };
        site.counts.of(reply.status()).increment(1);
        reply
    }
}

impl Site {
    pub(crate) fn new(
        shelf: Arc<Shelf>,
        responder: Responder,
        clock: SharedClock,
        cache: CacheSection,
        prefix: String,
    ) -> Self {
        let counts = Counts::new();
        Self { inner: Arc::new(Inner { shelf, responder, clock, cache, prefix, counts }) }
    }
}

impl Inner {
    fn object(&self, peer: &Peer, path: Option<&str>, request: &Request<Incoming>) -> Reply {
        match (request.method(), path.and_then(|path| self.shelf.find(path))) {
            (_, None) => plain(StatusCode::NOT_FOUND, "no such object\n"),
            (&Method::GET | &Method::HEAD, Some(object)) => self.answer(peer, &object, request),
            (_, Some(_)) => not_allowed("GET, HEAD"),
        }
    }

    fn answer(&self, peer: &Peer, object: &Arc<Object>, request: &Request<Incoming>) -> Reply {
        let etag = format!("\"{}\"", object.revision.sha256);
        let mut response = if is_unchanged(request.headers(), &etag, object.made_at) {
            not_modified()
        } else {
            let mut response = body_for(request.method(), &lend(object, peer.end()));
            let kind = HeaderValue::from_static(content_type(object.revision.kind));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        };
        let headers = response.headers_mut();
        insert(headers, ETAG, &etag);
        insert(headers, CACHE_CONTROL, &self.cache_control(object));
        if let Some(date) = http_date(object.made_at) {
            insert(headers, LAST_MODIFIED, &date);
        }
        headers.insert(NOSNIFF.0, NOSNIFF.1);
        response
    }

    fn cache_control(&self, object: &Object) -> String {
        let seconds = match object.next_update() {
            None => i64::from(self.cache.certificate_seconds),
            Some(next) => i64::from(self.cache.crl_seconds).min(next - self.clock.now().unix_timestamp()),
        };
        // Past its nextUpdate: still what there is, but for nobody to keep.
        if seconds > 0 { format!("public, max-age={seconds}, no-transform") } else { "no-store".to_owned() }
    }
}

/// Requests by the status that they got; found without a look-up.
struct Counts {
    ok: Counter,
    not_modified: Counter,
    not_found: Counter,
    refused: Counter,
    unavailable: Counter,
}

impl Counts {
    fn new() -> Self {
        let of = |status| metrics::counter!("chancery_status_requests_total", "status" => status);
        Self {
            ok: of("200"),
            not_modified: of("304"),
            not_found: of("404"),
            refused: of("4xx"),
            unavailable: of("5xx"),
        }
    }

    fn of(&self, status: StatusCode) -> &Counter {
        match status {
            StatusCode::OK => &self.ok,
            StatusCode::NOT_MODIFIED => &self.not_modified,
            StatusCode::NOT_FOUND => &self.not_found,
            status if status.is_client_error() => &self.refused,
            _ => &self.unavailable,
        }
    }
}

fn content_type(kind: Kind) -> &'static str {
    match kind {
        // RFC 2585 §4.
        Kind::Certificate => "application/pkix-cert",
        Kind::Crl => "application/pkix-crl",
    }
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Reply {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // A new issuer's path must not stay away for long in a cache that asked too early.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=10"));
    response
}

pub(crate) fn not_allowed(methods: &'static str) -> Reply {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

pub(crate) fn not_modified() -> Reply {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// A body with its length; for HEAD, the length alone (RFC 9110 §9.3.2).
pub(crate) fn body_for(method: &Method, bytes: &Bytes) -> Reply {
    let sent = if method == Method::HEAD { Bytes::new() } else { bytes.clone() };
    let mut response = Response::new(Full::new(sent));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    response
}

pub(crate) const NOSNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether what a caller has is what there is (RFC 9110 §13.2.2).
pub(crate) fn is_unchanged(asked: &HeaderMap, etag: &str, made_at: i64) -> bool {
    match asked.get(IF_NONE_MATCH) {
        // RFC 9110 §13.1.3: a date counts only where there is no tag.
        Some(tags) => matches(tags, etag),
        None => asked.get(IF_MODIFIED_SINCE).and_then(date).is_some_and(|since| made_at <= since),
    }
}

/// RFC 9110 §13.1.2: weak comparison against a list, or a star.
fn matches(tags: &HeaderValue, etag: &str) -> bool {
    let Ok(tags) = tags.to_str() else { return false };
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// IMF-fixdate (RFC 9110 §5.6.7).
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

pub(crate) fn http_date(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(HTTP_DATE).ok()
}

fn date(value: &HeaderValue) -> Option<i64> {
    let parsed = PrimitiveDateTime::parse(value.to_str().ok()?, HTTP_DATE).ok()?;
    Some(parsed.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdate() {
        assert_eq!(http_date(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(&HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT")), Some(784_111_777));
        assert_eq!(date(&HeaderValue::from_static("yesterday")), None);
    }

    #[test]
    fn tags_are_compared_weakly_in_lists() {
        let is = |tags: &'static str| matches(&HeaderValue::from_static(tags), "\"ab\"");
        assert!(is("\"ab\"") && is("W/\"ab\"") && is("\"x\", \"ab\"") && is("*"));
        assert!(!is("\"abc\"") && !is("ab") && !is(""));
    }
}
