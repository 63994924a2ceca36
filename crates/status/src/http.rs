//! What a request gets: an object's bytes with the headers that caches need, or nothing.
//!
//! OCSP (RFC 6960) will be a second route of [`router`], with POST; objects stay GET and HEAD.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use runtime::SharedClock;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::config::CacheSection;
use crate::object::{Kind, Object};
use crate::shelf::Shelf;

/// What answers need.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) clock: SharedClock,
    pub(crate) cache: CacheSection,
    pub(crate) prefix: Arc<str>,
}

/// The whole site.
pub(crate) fn router(site: Site) -> Router {
    Router::new().fallback(object).with_state(site)
}

async fn object(State(site): State<Site>, request: Request) -> Response {
    let path =
        request.uri().path().strip_prefix(site.prefix.as_ref()).and_then(|path| path.strip_prefix('/'));
    let found = path.and_then(|path| site.shelf.find(path));
    let response = match (request.method(), found) {
        (_, None) => plain(StatusCode::NOT_FOUND, "no such object\n"),
        (&Method::GET | &Method::HEAD, Some(object)) => site.answer(&object, request.headers()),
        (_, Some(_)) => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    };
    metrics::counter!("chancery_status_requests_total", "status" => response.status().as_u16().to_string())
        .increment(1);
    response
}

impl Site {
    fn answer(&self, object: &Object, asked: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", object.revision.sha256);
        let unchanged = match asked.get(IF_NONE_MATCH) {
            // RFC 9110 §13.1.3: a date counts only where there is no tag.
            Some(tags) => matches(tags, &etag),
            None => asked.get(IF_MODIFIED_SINCE).and_then(date).is_some_and(|since| object.made_at <= since),
        };
        let mut response = if unchanged {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            // For HEAD, hyper leaves the body away.
            let mut response = Response::new(Body::from(object.bytes.clone()));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(object.revision.kind)));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(object.bytes.len()));
            response
        };
        let headers = response.headers_mut();
        insert(headers, ETAG, &etag);
        insert(headers, CACHE_CONTROL, &self.cache_control(object));
        if let Some(date) = http_date(object.made_at) {
            insert(headers, LAST_MODIFIED, &date);
        }
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
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

fn content_type(kind: Kind) -> &'static str {
    match kind {
        // RFC 2585 §4.
        Kind::Certificate => "application/pkix-cert",
        Kind::Crl => "application/pkix-crl",
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // A new issuer's path must not stay away for long in a cache that asked too early.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=10"));
    response
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
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

fn http_date(seconds: i64) -> Option<String> {
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
