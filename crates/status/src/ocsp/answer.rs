//! An answer that is kept, and how it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use metrics::Histogram;
use parking_lot::RwLock;
use pki::ocsp::{Answer, CertId, CertStatus, ErrorStatus, Response};
use pki::{Serial, Timestamp};
use rpc::proto::status::v1::Basis;

use crate::http::{NOSNIFF, Reply, body_for, http_date, is_unchanged, not_modified};
use crate::object::Sha256;

/// A shard of an issuer's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ShardKey {
    /// The issuer's identity in `ca`.
    pub(crate) issuer: Arc<str>,
    pub(crate) number: u32,
}

impl ShardKey {
    pub(crate) fn new(issuer: &str, number: u32) -> Self {
        Self { issuer: issuer.into(), number }
    }
}

/// What an answer rests on: the state of its shard when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ground {
    pub(crate) shard: ShardKey,
    pub(crate) revision: u64,
}

impl Ground {
    pub(crate) fn of(basis: &Basis) -> Self {
        Self { shard: ShardKey::new(&basis.issuer_id, basis.shard), revision: basis.revision }
    }
}

/// A signed answer about one assigned certificate, without a nonce.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: CertId,
    pub(crate) serial: Serial,
    pub(crate) ground: Ground,
    pub(crate) body: Bytes,
    /// Seconds since the epoch, as the next two.
    pub(crate) this_update: i64,
    pub(crate) next_update: i64,
    /// When a newer one has to be there (BR §4.9.9).
    pub(crate) due: i64,
    is_proven: AtomicBool,
    etag: HeaderValue,
    last_modified: HeaderValue,
}

/// Why an answer is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// Not an answer.
    #[error(transparent)]
    Read(#[from] pki::ocsp::ResponseError),
    /// An error, which is never kept.
    #[error("an OCSP error, {0}")]
    Error(u8),
    /// About another certificate, or several, or with a nonce.
    #[error("not an answer about one certificate alone")]
    Subject,
    /// Nobody was ever given this serial number.
    #[error("an answer about an unassigned serial number")]
    Unassigned,
    /// It has no end, or ends before it begins.
    #[error("no time from thisUpdate to nextUpdate")]
    Times,
    /// Its nextUpdate is past.
    #[error("past its nextUpdate")]
    Past,
    /// The issuer's certificate is not among the verified objects.
    #[error("the issuer's certificate is not known")]
    UnknownIssuer,
}

impl Kept {
    /// Reads an answer, and believes nothing of it yet.
    ///
    /// # Errors
    /// When it is none that could be kept.
    pub(crate) fn read(body: Bytes, ground: Ground) -> Result<(Self, Box<Response>), Unfit> {
        let response = match pki::ocsp::read(&body)? {
            Answer::Successful(response) => response,
            Answer::Error(code) => return Err(Unfit::Error(code)),
        };
        let [single] = response.singles() else { return Err(Unfit::Subject) };
        let serial = single.id.serial().ok_or(Unfit::Subject)?;
        if response.nonce().is_some() {
            return Err(Unfit::Subject);
        }
        if single.status == CertStatus::Unknown {
            return Err(Unfit::Unassigned);
        }
        let (this_update, next_update) =
            (seconds(single.this_update), seconds(single.next_update.ok_or(Unfit::Times)?));
        if next_update <= this_update {
            return Err(Unfit::Times);
        }
        let kept = Self {
            id: single.id.clone(),
            serial,
            ground,
            this_update,
            next_update,
            due: due(this_update, next_update),
            is_proven: AtomicBool::new(false),
            etag: header(&format!("\"{}\"", Sha256::of(&body))),
            last_modified: header(&http_date(this_update).unwrap_or_default()),
            body,
        };
        Ok((kept, response))
    }

    /// Whether its signature was verified.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Acquire)
    }

    pub(crate) fn set_proven(&self) {
        self.is_proven.store(true, Ordering::Release);
    }

    /// From when on a newer one is asked for: an eighth of the time before it is due, so that it is there by then.
    pub(crate) fn renew_from(&self) -> i64 {
        self.due - (self.due - self.this_update) / 8
    }

    /// Bytes that it takes in memory, about, without the spellings of its request.
    pub(crate) fn weight(&self) -> usize {
        self.body.len() + self.id.as_der().len() + OVERHEAD
    }
}

/// The structures around an answer: its headers and the maps' entries; the spellings of its request are counted apart.
const OVERHEAD: usize = 768;

/// BR §4.9.9: at half of a validity below sixteen hours; otherwise eight hours before its end, and four days after its beginning
/// at the latest.
fn due(this_update: i64, next_update: i64) -> i64 {
    let validity = next_update - this_update;
    if validity < 16 * HOUR {
        this_update + validity / 2
    } else {
        (next_update - 8 * HOUR).min(this_update + 96 * HOUR)
    }
}

const HOUR: i64 = 3600;

pub(crate) fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.unix()).unwrap_or(i64::MAX)
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Puts headers around answers.
#[derive(Debug)]
pub(crate) struct Dress {
    /// Seconds that others may keep an answer at most.
    cap: i64,
    capped: HeaderValue,
    /// The `Expires` of those who ask in the same second.
    expires: RwLock<(i64, HeaderValue)>,
    age_seconds: Histogram,
}

impl Dress {
    pub(crate) fn new(cap_seconds: u32) -> Self {
        let cap = i64::from(cap_seconds);
        Self {
            cap,
            capped: cache_control(cap),
            expires: RwLock::new((0, header(""))),
            age_seconds: metrics::histogram!("chancery_status_ocsp_answer_age_seconds"),
        }
    }

    /// A kept answer; to GET and HEAD, nothing but its freshness when the caller has it already.
    pub(crate) fn kept(&self, kept: &Kept, method: &Method, asked: &HeaderMap, now: i64) -> Reply {
        self.age_seconds.record(u32::try_from((now - kept.this_update).max(0)).unwrap_or(u32::MAX));
        let cacheable = method != Method::POST;
        let etag = kept.etag.to_str().unwrap_or_default();
        let unchanged = cacheable && is_unchanged(asked, etag, kept.this_update);
        let mut reply = if unchanged { not_modified() } else { body_for(method, &kept.body) };
        let headers = reply.headers_mut();
        headers.reserve(6);
        if !unchanged {
            headers.insert(CONTENT_TYPE, RESPONSE);
        }
        let left = (kept.next_update - now).max(0);
        let (control, expires) = if self.cap <= left {
            (self.capped.clone(), self.expires(now + self.cap))
        } else {
            (cache_control(left), date_header(kept.next_update))
        };
        headers.insert(ETAG, kept.etag.clone());
        headers.insert(LAST_MODIFIED, kept.last_modified.clone());
        headers.insert(CACHE_CONTROL, control);
        headers.insert(EXPIRES, expires);
        headers.insert(NOSNIFF.0, NOSNIFF.1);
        reply
    }

    fn expires(&self, at: i64) -> HeaderValue {
        {
            let last = self.expires.read();
            if last.0 == at {
                return last.1.clone();
            }
        }
        let fresh = date_header(at);
        *self.expires.write() = (at, fresh.clone());
        fresh
    }
}

fn date_header(at: i64) -> HeaderValue {
    header(&http_date(at).unwrap_or_default())
}

/// RFC 9919 §6.2.
fn cache_control(seconds: i64) -> HeaderValue {
    if seconds > 0 {
        header(&format!("max-age={seconds}, public, no-transform, must-revalidate"))
    } else {
        NO_STORE
    }
}

/// An answer for this caller alone.
pub(crate) fn passed(body: Bytes, method: &Method) -> Reply {
    let mut reply = body_for(method, &body);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, RESPONSE);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    reply
}

/// An OCSP error: over HTTP, a success (RFC 6960 §A.2).
pub(crate) fn error(status: ErrorStatus, method: &Method) -> Reply {
    passed(Bytes::from_static(pki::ocsp::error(status)), method)
}

/// An HTTP error, for what is no OCSP request at all.
pub(crate) fn failed(status: StatusCode) -> Reply {
    let mut reply = Reply::new(Full::default());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    reply
}

const RESPONSE: HeaderValue = HeaderValue::from_static("application/ocsp-response");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_an_answer_is_due_when_the_baseline_requirements_say() {
        assert_eq!(due(0, 8 * HOUR), 4 * HOUR);
        assert_eq!(due(100, 100 + 15 * HOUR), 100 + 15 * HOUR / 2);
        assert_eq!(due(0, 16 * HOUR), 8 * HOUR);
        assert_eq!(due(0, 48 * HOUR), 40 * HOUR);
        assert_eq!(due(0, 240 * HOUR), 96 * HOUR);
    }
}
