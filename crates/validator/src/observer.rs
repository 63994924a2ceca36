//! One perspective: looks by the method that is asked for, and signs what it saw, success and failure alike.

use std::net::IpAddr;
use std::sync::Arc;

use acme::challenge::{Method, key_authorization};
use acme::receipt::{Outcome, Receipt, ReceiptError, ReceiptKey, Run, requirement};
use acme::{ErrorType, Problem};
use pki::{ErrorClass, Name, Timestamp};
use rpc::Target;
use runtime::SharedClock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Host;

use crate::dns_01::Dns01;
use crate::failure::{Ending, Failure, FailureKind, LocalFault};
use crate::http_01::{Http01, Http01Attempt};
use crate::slots::{Slot, Slots};

/// How a perspective looks.
pub struct Methods {
    /// http-01
    pub http_01: Http01,
    /// dns-01
    pub dns_01: Dns01,
}

/// A perspective with its key and its bounds.
pub struct Observer {
    key: ReceiptKey,
    methods: Methods,
    clock: SharedClock,
    running: Arc<Semaphore>,
    identifiers: Slots<Name>,
}

/// The right to make one attempt now; held while it runs.
pub struct Admission {
    target: Target,
    _running: OwnedSemaphorePermit,
    _identifier: Slot<Name>,
}

/// Why there is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// A method that cannot show control of such a name.
    #[error("{0} cannot validate such a name")]
    Unfit(Method),
    /// This node is at fault; asking again can help.
    #[error(transparent)]
    Local(#[from] LocalFault),
    /// The receipt could not be signed.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

impl ObserveError {
    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unfit(_) => ErrorClass::Client,
            Self::Local(_) => ErrorClass::Transient,
            Self::Receipt(_) => ErrorClass::Fatal,
        }
    }
}

impl Observer {
    /// A perspective that makes at most so many attempts at once, and at most so many for one name.
    #[must_use]
    pub fn new(
        key: ReceiptKey,
        methods: Methods,
        clock: SharedClock,
        at_once: usize,
        per_identifier: usize,
    ) -> Self {
        let running = Arc::new(Semaphore::new(at_once));
        Self { key, methods, clock, running, identifiers: Slots::new(per_identifier) }
    }

    /// Whose name stands on the receipts.
    #[must_use]
    pub fn perspective(&self) -> &str {
        self.key.perspective().as_str()
    }

    /// Lets an attempt begin, or sheds it at once: a queue would only answer clients that have given up.
    ///
    /// # Errors
    /// [`LocalFault::Busy`], and [`ObserveError::Unfit`].
    pub fn admit(&self, target: Target) -> Result<Admission, ObserveError> {
        if !target.method.fits(&target.name) {
            return Err(ObserveError::Unfit(target.method));
        }
        let running = Arc::clone(&self.running).try_acquire_owned().map_err(|_| LocalFault::Busy)?;
        let identifier = self.identifiers.claim(target.name.clone()).ok_or(LocalFault::Busy)?;
        Ok(Admission { target, _running: running, _identifier: identifier })
    }

    /// Looks, as part of a run, and answers with the signed receipt (compact JWS).
    ///
    /// # Errors
    /// When this node could not look at all, or not sign.
    pub async fn observe(&self, admission: Admission, run: Run) -> Result<String, ObserveError> {
        let target = &admission.target;
        let token = acme::id::token(&target.authorization);
        let started = Timestamp::from(self.clock.now());
        let mut addresses = Vec::new();
        fail::fail_point!("validator.before-look");
        let looked = self.look(target, &token, &mut addresses).await;
        fail::fail_point!("validator.after-look");
        let outcome = match looked {
            Ok(()) => Outcome::Valid,
            Err(Ending::Failed(failure)) => Outcome::Invalid(problem(failure)),
            Err(Ending::Local(fault)) => return Err(fault.into()),
        };
        count(target.method, &outcome);
        let receipt = Receipt {
            authorization: target.authorization,
            directory: target.directory.clone(),
            account: target.account,
            account_url: target.account_url.clone(),
            thumbprint: target.thumbprint,
            name: target.name.clone(),
            method: target.method,
            requirement: requirement(target.method, &target.name),
            token,
            attempt: target.attempt,
            run,
            perspective: self.key.perspective().clone(),
            addresses,
            // CAA is looked up here, beside the method, once it is implemented.
            caa: None,
            started,
            // A clock that was set back in between does not make the receipt end before it began.
            finished: Timestamp::from(self.clock.now()).max(started),
            outcome,
        };
        Ok(self.key.sign(&receipt)?)
    }

    async fn look(&self, target: &Target, token: &str, addresses: &mut Vec<IpAddr>) -> Result<(), Ending> {
        let key_authorization = key_authorization(token, &target.thumbprint);
        match (target.method, &target.name) {
            (Method::Http01, name) => {
                let host = match name {
                    Name::Dns(name) | Name::Wildcard(name) => Host::Domain(name.as_str()),
                    Name::Ip(IpAddr::V4(address)) => Host::Ipv4(*address),
                    Name::Ip(IpAddr::V6(address)) => Host::Ipv6(*address),
                };
                let attempt = Http01Attempt { host, token, key_authorization: &key_authorization };
                self.methods.http_01.observe(&attempt, addresses).await
            }
            (Method::Dns01, Name::Dns(name) | Name::Wildcard(name)) => {
                self.methods.dns_01.observe(name, &key_authorization).await
            }
            (Method::Dns01, Name::Ip(_)) => Err(unfit()),
        }
    }
}

/// [`Observer::admit`] has refused it already.
fn unfit() -> Ending {
    Failure::new(FailureKind::Dns, "the method is not for such a name").into()
}

fn problem(failure: Failure) -> Problem {
    let kind = match failure.kind {
        FailureKind::Dns => ErrorType::Dns,
        FailureKind::Connection => ErrorType::Connection,
        FailureKind::Tls => ErrorType::Tls,
        FailureKind::Unauthorized => ErrorType::Unauthorized,
        FailureKind::IncorrectResponse => ErrorType::IncorrectResponse,
    };
    Problem::new(kind, failure.detail)
}

fn count(method: Method, outcome: &Outcome) {
    let result = match outcome {
        Outcome::Valid => "valid",
        Outcome::Invalid(problem) => problem.kind.name(),
    };
    metrics::counter!("chancery_validations_total", "method" => method.name(), "result" => result)
        .increment(1);
}
