//! One perspective: looks by the method that is asked for, and signs what it saw, success and failure alike.

use std::net::IpAddr;

use acme::challenge::{Method, key_authorization};
use acme::receipt::{
    Caa, NO_REQUIREMENT, Outcome, Persisted, Receipt, ReceiptError, ReceiptKey, Run, requirement,
};
use acme::{AccountId, ErrorType, Problem};
use pki::{ErrorClass, Name, Timestamp};
use rpc::Target;
use runtime::SharedClock;
use url::Host;

use crate::caa::{Caa as CaaLookUp, CaaQuestion};
use crate::dns_01::Dns01;
use crate::dns_persist_01::{DnsPersist01, PersistedQuestion};
use crate::failure::{Ending, Failure, FailureKind, LocalFault};
use crate::http_01::{Http01, Http01Attempt};
use crate::resolver::Resolver;
use crate::slots::{Place, Room, Slot, Slots};
use crate::tls_alpn_01::TlsAlpn01;

/// How a perspective looks.
pub struct Methods {
    /// http-01
    pub http_01: Http01,
    /// dns-01 and dns-account-01
    pub dns_01: Dns01,
    /// dns-persist-01
    pub dns_persist_01: DnsPersist01,
    /// tls-alpn-01
    pub tls_alpn_01: TlsAlpn01,
    /// The one that all of them ask.
    pub resolver: Resolver,
    /// What CAA says, beside the method.
    pub caa: CaaLookUp,
}

/// What a perspective does when it is asked.
pub enum Eyes {
    /// It looks.
    Open(Box<Methods>),
    /// It looks at nothing, has nothing to look with, and signs that it assumes: for test CAs (`always_valid`).
    Shut,
}

/// A perspective with its key and its bounds.
pub struct Observer {
    key: ReceiptKey,
    eyes: Eyes,
    clock: SharedClock,
    running: Room<AccountId>,
    identifiers: Slots<Name>,
}

/// The right to make one attempt now; held while it runs.
pub struct Admission {
    target: Target,
    _running: Place<AccountId>,
    _identifier: Slot<Name>,
}

/// Why there is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// A method that cannot show control of such a name.
    #[error("{0} cannot validate such a name")]
    Unfit(Method),
    /// A look at CAA alone, where there is none to look at.
    #[error("there is no CAA to look at")]
    NoCaa,
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
            Self::Unfit(_) | Self::NoCaa => ErrorClass::Client,
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
        eyes: Eyes,
        clock: SharedClock,
        at_once: usize,
        per_identifier: usize,
    ) -> Self {
        Self { key, eyes, clock, running: Room::new(at_once), identifiers: Slots::new(per_identifier) }
    }

    /// Whose name stands on the receipts.
    #[must_use]
    pub fn perspective(&self) -> &str {
        self.key.perspective().as_str()
    }

    /// Lets an attempt begin, or sheds it at once: a queue would only answer clients that have given up.
    ///
    /// # Errors
    /// [`LocalFault::Busy`], [`ObserveError::Unfit`], and [`ObserveError::NoCaa`].
    pub fn admit(&self, target: Target) -> Result<Admission, ObserveError> {
        if !target.method.fits(&target.name) {
            return Err(ObserveError::Unfit(target.method));
        }
        if target.caa_only && (target.caa_identities.is_empty() || target.name.base().is_none()) {
            return Err(ObserveError::NoCaa);
        }
        let running = self.running.claim(target.account).ok_or(LocalFault::Busy)?;
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
        let seen = match &self.eyes {
            Eyes::Open(methods) => self.see(methods, target, &token).await?,
            Eyes::Shut => Seen::assumed(),
        };
        count(target.method, &seen.outcome);
        let receipt = Receipt {
            authorization: target.authorization,
            directory: target.directory.clone(),
            account: target.account,
            account_url: target.account_url.clone(),
            thumbprint: target.thumbprint,
            name: target.name.clone(),
            method: target.method,
            requirement: match seen.outcome {
                Outcome::Assumed => NO_REQUIREMENT.to_owned(),
                _ => requirement(target.method, &target.name),
            },
            token,
            attempt: target.attempt,
            run,
            perspective: self.key.perspective().clone(),
            addresses: seen.addresses,
            caa: seen.caa,
            persisted: seen.persisted,
            dnssec: seen.dnssec,
            started,
            // A clock that was set back in between does not make the receipt end before it began.
            finished: Timestamp::from(self.clock.now()).max(started),
            outcome: seen.outcome,
        };
        Ok(self.key.sign(&receipt)?)
    }

    /// Control and CAA, at once.
    async fn see(&self, methods: &Methods, target: &Target, token: &str) -> Result<Seen, LocalFault> {
        let mut addresses = Vec::new();
        if !methods.resolver.is_to_be_trusted() {
            return Err(LocalFault::Unvalidated);
        }
        fail::fail_point!("validator.before-look");
        let question = CaaQuestion {
            name: &target.name,
            identities: &target.caa_identities,
            account_url: &target.account_url,
            method: target.method,
        };
        let mut persisted = None;
        let control = async {
            if target.caa_only {
                return Ok(Outcome::Caa);
            }
            persisted = self.look(methods, target, token, &mut addresses).await?;
            Ok(Outcome::Valid)
        };
        let (control, asked) = futures::join!(control, methods.caa.ask(&question));
        fail::fail_point!("validator.after-look");
        let (caa, outcome) = combine(control, asked)?;
        Ok(Seen { addresses, caa, persisted, dnssec: methods.resolver.validates(), outcome })
    }

    async fn look(
        &self,
        methods: &Methods,
        target: &Target,
        token: &str,
        addresses: &mut Vec<IpAddr>,
    ) -> Result<Option<Persisted>, Ending> {
        let key_authorization = key_authorization(token, &target.thumbprint);
        match (target.method, &target.name) {
            (Method::Http01, name) => {
                let host = match name {
                    Name::Dns(name) | Name::Wildcard(name) => Host::Domain(name.as_str()),
                    Name::Ip(IpAddr::V4(address)) => Host::Ipv4(*address),
                    Name::Ip(IpAddr::V6(address)) => Host::Ipv6(*address),
                };
                let attempt = Http01Attempt { host, token, key_authorization: &key_authorization };
                methods.http_01.observe(&attempt, addresses).await?;
            }
            (Method::TlsAlpn01, name) => {
                methods.tls_alpn_01.observe(name, &key_authorization, addresses).await?;
            }
            (Method::Dns01, Name::Dns(name) | Name::Wildcard(name)) => {
                methods.dns_01.observe(name, None, &key_authorization).await?;
            }
            (Method::DnsAccount01, Name::Dns(name) | Name::Wildcard(name)) => {
                let account = Some(&target.account_url);
                methods.dns_01.observe(name, account, &key_authorization).await?;
            }
            (Method::DnsPersist01, name) => {
                let question = PersistedQuestion {
                    name,
                    issuers: &target.caa_identities,
                    account_url: &target.account_url,
                    now: self.clock.now().into(),
                };
                let ttl_seconds = methods.dns_persist_01.observe(&question).await?;
                return Ok(Some(Persisted { ttl_seconds }));
            }
            (Method::Dns01 | Method::DnsAccount01, Name::Ip(_)) => return Err(unfit()),
        }
        Ok(None)
    }
}

/// What came of a look.
struct Seen {
    addresses: Vec<IpAddr>,
    caa: Option<Caa>,
    persisted: Option<Persisted>,
    dnssec: bool,
    outcome: Outcome,
}

impl Seen {
    /// Nothing.
    const fn assumed() -> Self {
        Self { addresses: Vec::new(), caa: None, persisted: None, dnssec: false, outcome: Outcome::Assumed }
    }
}

/// One outcome of both looks. What CAA forbids, no second try mends: it comes first.
fn combine(
    control: Result<Outcome, Ending>,
    asked: Result<Option<(Caa, Option<Failure>)>, Ending>,
) -> Result<(Option<Caa>, Outcome), LocalFault> {
    let (caa, unsaid) = match asked {
        Ok(Some((caa, Some(forbidden)))) => return Ok((Some(caa), Outcome::Invalid(problem(forbidden)))),
        Ok(Some((caa, None))) => (Some(caa), None),
        Ok(None) => (None, None),
        Err(Ending::Failed(failure)) => (None, Some(failure)),
        Err(Ending::Local(fault)) => return Err(fault),
    };
    match (control, unsaid) {
        (Err(Ending::Local(fault)), _) => Err(fault),
        (Err(Ending::Failed(failure)), _) | (Ok(_), Some(failure)) => {
            Ok((caa, Outcome::Invalid(problem(failure))))
        }
        (Ok(outcome), None) => Ok((caa, outcome)),
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
        FailureKind::Caa => ErrorType::Caa,
        FailureKind::Tls => ErrorType::Tls,
        FailureKind::Unauthorized => ErrorType::Unauthorized,
        FailureKind::IncorrectResponse => ErrorType::IncorrectResponse,
    };
    Problem::new(kind, failure.detail)
}

fn count(method: Method, outcome: &Outcome) {
    let result = match outcome {
        Outcome::Valid => "valid",
        Outcome::Caa => "caa-only",
        Outcome::Assumed => "assumed",
        Outcome::Invalid(problem) => problem.kind.name(),
    };
    metrics::counter!("chancery_validations_total", "method" => method.name(), "result" => result)
        .increment(1);
}
