//! Errors on the wire: what a client is to hear, whether asking again helps, and nothing of a signer's insides.
//!
//! One of the two places where errors are mapped to the outside; the other is `front`, where they become problem
//! documents.

use std::{error::Error, time::Duration};

use acme::{ErrorType, Problem};
use bytes::Bytes;
use pki::ErrorClass;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use crate::proto::signer::v1 as wire;

/// What an ACME client is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The problem document.
    pub problem: Problem,
    /// The signer's own word for why, as its audit trail has it; for logs, never for clients.
    pub reason: String,
    /// The account that has the key already (RFC 8555 §7.3.5).
    pub account_id: Option<String>,
    /// When asking again can succeed.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with nothing but a problem.
    pub fn new(problem: Problem) -> Self {
        Self { problem, reason: String::new(), account_id: None, retry_after: None }
    }

    /// The same, naming the account that has the key.
    #[must_use]
    pub fn with_account(mut self, account_id: impl Into<String>) -> Self {
        self.account_id = Some(account_id.into());
        self
    }

    /// The same, saying when to ask again.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// As it travels: the problem in the status' details.
    pub fn into_status(self) -> Status {
        let code = code_of(&self.problem);
        let message = self.problem.to_string();
        let details = wire::Refusal {
            // A problem is made of strings and numbers: there is nothing that serde could refuse.
            problem: serde_json::to_string(&self.problem).unwrap_or_default(),
            account_id: self.account_id.unwrap_or_default(),
            reason: self.reason,
            retry_after_milliseconds: self.retry_after.map(milliseconds).unwrap_or_default(),
        };
        with_detail(code, &message, REFUSAL_TYPE, &details)
    }

    /// What a status carries, if it carries a refusal.
    pub fn from_status(status: &Status) -> Option<Self> {
        let wire: wire::Refusal = detail(status, REFUSAL_TYPE)?;
        Some(Self {
            problem: serde_json::from_str(&wire.problem).ok()?,
            reason: wire.reason,
            account_id: Some(wire.account_id).filter(|id| !id.is_empty()),
            retry_after: duration(wire.retry_after_milliseconds),
        })
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.into_status()
    }
}

/// A problem as a status.
pub fn refuse(problem: Problem) -> Status {
    Refusal::new(problem).into_status()
}

/// The refusal in a status, if there is one.
pub fn refusal(status: &Status) -> Option<Refusal> {
    Refusal::from_status(status)
}

/// A failure that is no client's business, by its class. `detail` goes to our own nodes, and into their logs: no secret.
pub fn failure(class: ErrorClass, detail: impl Into<String>) -> Status {
    let code = match class {
        ErrorClass::Client => Code::InvalidArgument,
        ErrorClass::Conflict => Code::Aborted,
        ErrorClass::Transient => Code::Unavailable,
        ErrorClass::Fatal => Code::Internal,
    };
    Status::new(code, detail)
}

/// Too much at once: `ResourceExhausted` with a hint when to come back.
pub fn busy(detail: &str, retry_after: Duration) -> Status {
    later(Code::ResourceExhausted, detail, retry_after)
}

/// Not now, for instance because a token is away: `Unavailable` with a hint when to come back.
pub fn unavailable(detail: &str, retry_after: Duration) -> Status {
    later(Code::Unavailable, detail, retry_after)
}

/// The hint of [`busy`], [`unavailable`] or a refusal.
pub fn retry_after(status: &Status) -> Option<Duration> {
    if let Some(refusal) = Refusal::from_status(status) {
        return refusal.retry_after;
    }
    let info: RetryInfo = detail(status, RETRY_TYPE)?;
    info.retry_delay.and_then(|delay| delay.try_into().ok())
}

/// What a caller can do about a status.
pub fn status_class(status: &Status) -> ErrorClass {
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange => ErrorClass::Client,
        // Without a refusal these say that this node is not let in: nothing that a client did.
        Code::PermissionDenied | Code::Unauthenticated if refusal(status).is_some() => ErrorClass::Client,
        Code::ResourceExhausted if refusal(status).is_some() => ErrorClass::Client,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => ErrorClass::Conflict,
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled => {
            ErrorClass::Transient
        }
        // No server said this: the connection broke, and nobody knows how far the call came.
        _ if status.source().is_some() => ErrorClass::Transient,
        _ => ErrorClass::Fatal,
    }
}

fn code_of(problem: &Problem) -> Code {
    match (problem.kind, problem.status()) {
        (ErrorType::RateLimited, _) | (_, 429) => Code::ResourceExhausted,
        (ErrorType::AccountDoesNotExist, _) | (_, 404) => Code::NotFound,
        (ErrorType::OrderNotReady | ErrorType::AlreadyRevoked | ErrorType::AlreadyReplaced, _) | (_, 409) => {
            Code::FailedPrecondition
        }
        (_, 401 | 403) => Code::PermissionDenied,
        (_, 503) => Code::Unavailable,
        (_, 500..) => Code::Internal,
        _ => Code::InvalidArgument,
    }
}

fn later(code: Code, message: &str, retry_after: Duration) -> Status {
    // A hint longer than prost's seconds can say is none.
    let info = RetryInfo { retry_delay: retry_after.try_into().ok() };
    with_detail(code, message, RETRY_TYPE, &info)
}

fn with_detail(code: Code, message: &str, type_url: &str, detail: &impl Message) -> Status {
    let details = GoogleStatus {
        code: code.into(),
        message: message.to_owned(),
        details: vec![Any { type_url: type_url.to_owned(), value: detail.encode_to_vec() }],
    };
    Status::with_details(code, message, Bytes::from(details.encode_to_vec()))
}

fn detail<T: Message + Default>(status: &Status, type_url: &str) -> Option<T> {
    let details = GoogleStatus::decode(status.details()).ok()?.details;
    let any = details.into_iter().find(|any| any.type_url == type_url)?;
    T::decode(any.value.as_slice()).ok()
}

fn milliseconds(duration: Duration) -> u64 {
    // Rounded up: a hint below a millisecond is a hint nevertheless.
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn duration(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

const REFUSAL_TYPE: &str = "type.googleapis.com/chancery.signer.v1.Refusal";
const RETRY_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.Status`: what every gRPC implementation expects in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
struct GoogleStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, Copy, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

#[cfg(test)]
mod tests {
    use acme::identifier::Identifier;
    use acme::problem::Subproblem;

    use super::*;

    #[test]
    fn a_refusal_travels_whole() {
        let sub = |name| Subproblem::new(ErrorType::RejectedIdentifier, "not here", Identifier::dns(name));
        let problem = Problem::from_subproblems(vec![sub("a.example"), sub("b.example")]).unwrap();
        let refusal = Refusal::new(problem).with_account("abc").with_retry_after(Duration::from_micros(1));
        let status = refusal.clone().into_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let read = super::refusal(&status).unwrap();
        assert_eq!(read.problem, refusal.problem);
        assert_eq!(read.account_id.as_deref(), Some("abc"));
        assert_eq!(read.retry_after, Some(Duration::from_millis(1)));
    }

    #[test]
    fn classes_come_back_and_a_closed_door_is_not_the_clients_fault() {
        for class in [ErrorClass::Client, ErrorClass::Conflict, ErrorClass::Transient, ErrorClass::Fatal] {
            assert_eq!(status_class(&failure(class, "x")), class);
        }
        assert_eq!(status_class(&Status::permission_denied("not for this role")), ErrorClass::Fatal);
        let denied = refuse(Problem::new(ErrorType::Unauthorized, "no"));
        assert_eq!(denied.code(), Code::PermissionDenied);
        assert_eq!(status_class(&denied), ErrorClass::Client);
        let limited = refuse(Problem::new(ErrorType::RateLimited, "slow"));
        assert_eq!(status_class(&limited), ErrorClass::Client);
        assert_eq!(status_class(&busy("full", Duration::from_millis(20))), ErrorClass::Transient);
        let conflict = refuse(Problem::new(ErrorType::OrderNotReady, "other CSR"));
        assert_eq!(status_class(&conflict), ErrorClass::Conflict);
    }

    #[test]
    fn hints_are_read_from_either_kind() {
        let hint = Duration::from_millis(250);
        assert_eq!(retry_after(&busy("full", hint)), Some(hint));
        assert_eq!(retry_after(&unavailable("away", hint)), Some(hint));
        let limited = Refusal::new(Problem::new(ErrorType::RateLimited, "slow")).with_retry_after(hint);
        assert_eq!(retry_after(&limited.into_status()), Some(hint));
        let quarter = Duration::from_secs(90 * 86_400);
        let limited = Refusal::new(Problem::new(ErrorType::RateLimited, "slow")).with_retry_after(quarter);
        assert_eq!(retry_after(&limited.into_status()), Some(quarter));
        assert_eq!(retry_after(&Status::unavailable("plain")), None);
        assert!(refusal(&busy("full", hint)).is_none());
        assert!(refusal(&Status::with_details(Code::Internal, "x", Bytes::from_static(b"junk"))).is_none());
    }
}
