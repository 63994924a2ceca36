//! Why a request is not answered as its client hoped, and the one place where that becomes a problem document.

use acme::jws::JwsError;
use acme::limit::Reached;
use acme::problem::{ErrorType, Problem};
use acme_store::StoreError;
use http::StatusCode;
use pki::{ErrorClass, Timestamp};

use crate::reply::Reply;
use crate::signer::SignerError;

/// Everything that can stop a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The client is told just this.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The JWS is not good.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The nonce is missing, unknown, used or old (RFC 8555 §6.5).
    #[error("the nonce is missing, unknown, used or too old")]
    BadNonce,
    /// The path is no resource's.
    #[error("there is no such resource")]
    NoResource,
    /// The directory is not served here.
    #[error("there is no such directory")]
    NoDirectory,
    /// The object does not exist, or is another account's: nobody can tell which (RFC 8555 §10.5).
    #[error("there is no such object of this account")]
    NoObject,
    /// The resource does not have this method.
    #[error("the resource does not have this method")]
    Method {
        /// Those that it has.
        allow: &'static str,
    },
    /// The body is not of the type that ACME has (RFC 8555 §6.2).
    #[error("the content type is not application/jose+json")]
    MediaType,
    /// The body is larger than this server reads.
    #[error("the request is too large")]
    TooLarge,
    /// The body did not come in time.
    #[error("the request's body did not come in time")]
    BodyTooSlow,
    /// One account would have too many authorizations pending.
    #[error("the limit pending_authorizations_per_account is reached")]
    TooMany {
        /// How many it may have.
        most: u64,
        /// When the first of those that it has expires; none if the request alone is too large.
        free_at: Option<Timestamp>,
        /// The time of this.
        now: Timestamp,
    },
    /// One client has this front work too much (RFC 8555 §6.6).
    #[error("too many requests from this address; retry after {seconds} s")]
    TooFast {
        /// When there is room again.
        seconds: u32,
    },
    /// A limit of the directory (RFC 8555 §6.6).
    #[error("the limit {} is reached", reached.limit.as_str())]
    Limited {
        /// Which, whose, and until when.
        reached: Box<Reached>,
        /// The time of this.
        now: Timestamp,
    },
    /// Too many requests are worked on.
    #[error("too many requests at once")]
    Overloaded,
    /// The answer was not ready in time.
    #[error("the request took too long")]
    TooSlow,
    /// The signer has not been reached since the start.
    #[error("the service is starting")]
    NotYet,
    /// An object changed under every try.
    #[error("the object was changed by other requests at the same time")]
    Contended,
    /// The signer.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored object is not what this program wrote.
    #[error("a stored object cannot be read")]
    Stored(#[source] serde_json::Error),
    /// A stored or answered object contradicts itself.
    #[error("{0} cannot be")]
    Impossible(&'static str),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl Refusal {
    /// Log level and metric label follow from it.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Problem(_)
            | Self::Jws(_)
            | Self::BadNonce
            | Self::NoResource
            | Self::NoDirectory
            | Self::NoObject
            | Self::Method { .. }
            | Self::MediaType
            | Self::TooLarge
            | Self::BodyTooSlow
            | Self::TooMany { .. }
            | Self::TooFast { .. }
            | Self::Limited { .. } => ErrorClass::Client,
            Self::Contended => ErrorClass::Conflict,
            Self::Overloaded | Self::TooSlow | Self::NotYet => ErrorClass::Transient,
            Self::Signer(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Stored(_) | Self::Impossible(_) => ErrorClass::Fatal,
        }
    }

    /// The answer. Whoever reads it learns nothing of this server's inside.
    pub(crate) fn into_reply(self) -> Reply {
        self.log();
        match self {
            Self::Problem(problem) => problem_reply(&problem),
            Self::Jws(JwsError::UnsupportedAlgorithm(name)) => {
                let detail = format!("the algorithm {name:?} is not supported");
                problem_reply(&Problem::bad_signature_algorithm(detail))
            }
            Self::Jws(error) => problem_reply(&Problem::new(error.error_type(), error.to_string())),
            Self::BadNonce => problem_reply(&Problem::new(ErrorType::BadNonce, self.to_string())),
            Self::NoResource | Self::NoDirectory | Self::NoObject => malformed(&self, StatusCode::NOT_FOUND),
            Self::Method { allow } => malformed(&self, StatusCode::METHOD_NOT_ALLOWED).allow(allow),
            Self::MediaType => malformed(&self, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::TooLarge => malformed(&self, StatusCode::PAYLOAD_TOO_LARGE),
            Self::BodyTooSlow => malformed(&self, StatusCode::REQUEST_TIMEOUT),
            Self::TooMany { most, free_at, now } => {
                let limit = "pending_authorizations_per_account";
                metrics::counter!("chancery_front_limited_total", "limit" => limit).increment(1);
                let detail = format!("too many pending authorizations: the limit {limit} is {most}");
                let Some(free_at) = free_at else {
                    return problem_reply(&Problem::new(ErrorType::RateLimited, detail));
                };
                let detail = format!("{detail}; finish or deactivate some, or retry after {free_at}");
                problem_reply(&Problem::new(ErrorType::RateLimited, detail))
                    .retry_after(seconds_until(free_at, now))
            }
            Self::TooFast { seconds } => {
                metrics::counter!("chancery_front_limited_total", "limit" => "work_per_second").increment(1);
                problem_reply(&Problem::new(ErrorType::RateLimited, self.to_string())).retry_after(seconds)
            }
            Self::Limited { reached, now } => {
                let seconds = seconds_until(reached.free_at, now);
                let name = reached.limit.as_str();
                metrics::counter!("chancery_front_limited_total", "limit" => name).increment(1);
                let reply = problem_reply(&reached.problem());
                reply.retry_after(seconds)
            }
            Self::Signer(SignerError::Refused(refused)) => {
                let reply = problem_reply(&refused.problem);
                match refused.retry_after() {
                    Some(seconds) => reply.retry_after(seconds),
                    None => reply,
                }
            }
            Self::Overloaded | Self::TooSlow | Self::NotYet | Self::Contended => unavailable(),
            Self::Signer(_) | Self::Store(_) | Self::Stored(_) | Self::Impossible(_) => match self.class() {
                ErrorClass::Fatal | ErrorClass::Client => {
                    problem_reply(&Problem::new(ErrorType::ServerInternal, "an internal error occurred"))
                }
                ErrorClass::Transient | ErrorClass::Conflict => unavailable(),
            },
        }
    }

    /// What is the client's fault is named by its kind alone: its words may have come from a payload.
    fn log(&self) {
        let source = std::error::Error::source(self).map(tracing::field::display);
        match self.class() {
            ErrorClass::Client => tracing::debug!(kind = self.label(), "refused"),
            ErrorClass::Conflict | ErrorClass::Transient => {
                tracing::warn!(error = %self, source, "not served")
            }
            ErrorClass::Fatal => tracing::error!(error = %self, source, "cannot be served"),
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Problem(problem) => problem.kind.name(),
            Self::Jws(error) => error.error_type().name(),
            Self::BadNonce => ErrorType::BadNonce.name(),
            Self::TooMany { .. } | Self::TooFast { .. } | Self::Limited { .. } => {
                ErrorType::RateLimited.name()
            }
            Self::Signer(SignerError::Refused(refused)) => refused.problem.kind.name(),
            _ => ErrorType::Malformed.name(),
        }
    }
}

fn seconds_until(free_at: Timestamp, now: Timestamp) -> u32 {
    u32::try_from(free_at.since(now).seconds().max(1)).unwrap_or(u32::MAX)
}

fn problem_reply(problem: &Problem) -> Reply {
    let reply = Reply::problem(problem);
    // RFC 8555 §7.3.3: whoever must agree to new terms is shown where.
    match (problem.kind, &problem.instance) {
        (ErrorType::UserActionRequired, Some(terms)) => reply.link(terms, "terms-of-service"),
        _ => reply,
    }
}

fn malformed(refusal: &Refusal, status: StatusCode) -> Reply {
    Reply::problem(&Problem::new(ErrorType::Malformed, refusal.to_string()).with_status(status.as_u16()))
}

fn unavailable() -> Reply {
    let problem =
        Problem::new(ErrorType::ServerInternal, "the service cannot answer at the moment; try again");
    Reply::problem(&problem.with_status(StatusCode::SERVICE_UNAVAILABLE.as_u16()))
        .retry_after(RETRY_AFTER_SECONDS)
}

/// After overload or an outage of the tiers behind.
const RETRY_AFTER_SECONDS: u32 = 2;
