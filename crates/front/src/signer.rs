//! What a front asks of the signers. They verify everything themselves; what is sent is what clients and validators
//! signed, byte for byte.

use std::time::Duration;

use acme::renewal::{CertificateId, Window};
use acme::{AccountId, DirectoryName, Jws, Problem, Thumbprint};
use bytes::Bytes;
use pki::{ErrorClass, Serial, Timestamp};
use rpc::proto::signer::v1 as proto;
use rpc::proto::signer::v1::authority_client::AuthorityClient;
use rpc::proto::signer::v1::look_up_account_request::Selector;
use rpc::{Account, AuthorizedIdentifier, AuthorizedOrder, ConvertError, Evidence};
use tonic::{Code, Request, Response, Status};

use crate::renewal::RenewalInfo;

/// A question that only reads, or a small write.
const DEADLINE: Duration = Duration::from_secs(8);
/// The largest answer: a chain, or many directories.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The signers, seen as one.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    client: AuthorityClient<rpc::Channel>,
}

/// What a signer said of a request by fault of the client.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) problem: Problem,
    /// The account that the problem is about (RFC 8555 §7.3.5).
    pub(crate) account: Option<AccountId>,
    retry_after: Option<Duration>,
}

impl Refused {
    /// Whole seconds until the same request may succeed.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        self.retry_after
            .map(|time| u32::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1))
    }
}

/// Why a signer's answer is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignerError {
    /// It refuses, by fault of the client.
    #[error("the signer refuses: {}", .0.problem)]
    Refused(Box<Refused>),
    /// It is away, busy, or failed.
    #[error("the signer does not answer: {:?} {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// It answered what cannot be.
    #[error("the signer's answer cannot be understood: {0}")]
    Answer(&'static str),
    /// A field of its answer is not what it must be.
    #[error("the signer's answer cannot be understood")]
    Field(#[from] ConvertError),
}

impl SignerError {
    /// How to treat it.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(refused) if refused.problem.status() >= 500 => ErrorClass::Transient,
            Self::Refused(_) => ErrorClass::Client,
            Self::Status(status) => match rpc::status_class(status) {
                // Without a problem for the client, a refusal of this front's request is this front's fault.
                ErrorClass::Client => ErrorClass::Fatal,
                class => class,
            },
            Self::Answer(_) | Self::Field(_) => ErrorClass::Fatal,
        }
    }
}

impl From<Status> for SignerError {
    fn from(status: Status) -> Self {
        match rpc::refusal(&status) {
            Some(refusal) => {
                // The signer's word is finer than the problem that the client sees.
                tracing::info!(reason = refusal.reason, detail = refusal.problem.detail, "signer.refused");
                Self::Refused(Box::new(Refused {
                    problem: refusal.problem,
                    account: refusal.account_id.and_then(|id| id.parse().ok()),
                    retry_after: refusal.retry_after,
                }))
            }
            None => Self::Status(Box::new(status)),
        }
    }
}

/// Pauses between tries while no signer can be reached: first none, since another one may be, or the connection was an old one;
/// then as long as a signer takes that is started again. A client would rather wait than be told to come back.
const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
];
/// Where the caller tries again by itself.
const ONE_PAUSE: [Duration; 1] = [Duration::ZERO];

/// Asks, and again while no signer is reached. Only for requests that may be repeated.
macro_rules! ask {
    ($self:ident, $method:ident, $message:expr) => {
        ask!($self, $method, $message, DEADLINE, PAUSES)
    };
    ($self:ident, $method:ident, $message:expr, $deadline:expr, $pauses:expr) => {{
        let message = $message;
        let mut pauses = $pauses.into_iter();
        loop {
            let request = with_deadline(message.clone(), $deadline);
            match $self.client.clone().$method(request).await {
                Err(status) if status.code() == Code::Unavailable => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break Err(status),
                },
                outcome => break outcome.map(Response::into_inner),
            }
        }
    }};
}

impl Signer {
    pub(crate) fn new(channel: rpc::Channel) -> Self {
        Self { client: AuthorityClient::new(channel).max_decoding_message_size(ANSWER_BYTES) }
    }

    pub(crate) async fn directories(&self) -> Result<Vec<proto::Directory>, SignerError> {
        let answer = ask!(self, list_directories, proto::ListDirectoriesRequest {})?;
        Ok(answer.directories)
    }

    pub(crate) async fn authorize_order(&self, jws: &Jws) -> Result<AuthorizedOrder, SignerError> {
        let message = proto::AuthorizeOrderRequest { new_order_jws: bytes(jws) };
        fail::fail_point!("front.authorize.before-rpc");
        let answer = ask!(self, authorize_order, message)?;
        fail::fail_point!("front.authorize.after-rpc");
        Ok(answer.try_into()?)
    }

    pub(crate) async fn authorize_identifier(&self, jws: &Jws) -> Result<AuthorizedIdentifier, SignerError> {
        let message = proto::AuthorizeIdentifierRequest { new_authorization_jws: bytes(jws) };
        Ok(ask!(self, authorize_identifier, message)?.try_into()?)
    }

    /// Safe to repeat: the first row stays.
    pub(crate) async fn deactivate(&self, jws: &Jws, authorization: Evidence) -> Result<(), SignerError> {
        let authorization = Some(authorization.into());
        let message = proto::DeactivateAuthorizationRequest { authorization_jws: bytes(jws), authorization };
        ask!(self, deactivate_authorization, message)?;
        Ok(())
    }

    /// The account, and whether it is new.
    pub(crate) async fn register(&self, jws: &Jws) -> Result<(Account, bool), SignerError> {
        let message = proto::RegisterAccountRequest { new_account_jws: bytes(jws) };
        fail::fail_point!("front.register.before-rpc");
        let answer = ask!(self, register_account, message)?;
        fail::fail_point!("front.register.after-rpc");
        Ok((account(answer.account)?, answer.created))
    }

    /// The signer remembers accepted updates: a repeated one changes nothing and gets the same answer.
    pub(crate) async fn update(&self, jws: &Jws) -> Result<Account, SignerError> {
        let message = proto::UpdateAccountRequest { account_jws: bytes(jws) };
        account(ask!(self, update_account, message)?.account)
    }

    pub(crate) async fn change_key(&self, jws: &Jws) -> Result<Account, SignerError> {
        let message = proto::ChangeKeyRequest { key_change_jws: bytes(jws) };
        account(ask!(self, change_key, message)?.account)
    }

    pub(crate) async fn look_up(
        &self,
        directory: &DirectoryName,
        id: &AccountId,
    ) -> Result<Option<Account>, SignerError> {
        self.select(directory, Selector::AccountId(id.to_string())).await
    }

    /// Whether the key is an account's in this directory.
    pub(crate) async fn knows_key(
        &self,
        directory: &DirectoryName,
        key: &Thumbprint,
    ) -> Result<bool, SignerError> {
        Ok(self.select(directory, Selector::KeyThumbprint(key.to_string())).await?.is_some())
    }

    async fn select(
        &self,
        directory: &DirectoryName,
        selector: Selector,
    ) -> Result<Option<Account>, SignerError> {
        let directory = directory.to_string();
        let message = proto::LookUpAccountRequest { directory, selector: Some(selector) };
        match ask!(self, look_up_account, message)?.account {
            Some(found) => account(Some(found)).map(Some),
            None => Ok(None),
        }
    }

    /// The stream of changed accounts.
    pub(crate) async fn watch_accounts(
        &self,
    ) -> Result<tonic::Streaming<proto::AccountsChanged>, SignerError> {
        let answer = self.client.clone().watch_accounts(proto::WatchAccountsRequest {}).await?;
        Ok(answer.into_inner())
    }

    /// One try; safe to repeat for ever.
    pub(crate) async fn issue(
        &self,
        message: proto::IssueRequest,
        deadline: Duration,
    ) -> Result<Issued, SignerError> {
        use proto::issue_response::Outcome;
        fail::fail_point!("front.issue.before-rpc");
        let answer = ask!(self, issue, message, deadline, ONE_PAUSE)?;
        fail::fail_point!("front.issue.after-rpc");
        match answer.outcome.ok_or(SignerError::Answer("an issuance without an outcome"))? {
            Outcome::Certificate(certificate) => {
                let serial = Serial::from_hex(&certificate.serial);
                let serial = serial.map_err(|_| SignerError::Answer("a serial"))?;
                let (chain, alternates) = (certificate.chain, certificate.alternates);
                Ok(Issued::Certificate { serial, chain, alternates })
            }
            Outcome::Processing(processing) => {
                Ok(Issued::Later(Duration::from_millis(processing.retry_after_milliseconds.into())))
            }
        }
    }

    pub(crate) async fn download(
        &self,
        directory: &DirectoryName,
        serial: &Serial,
    ) -> Result<proto::DownloadCertificateResponse, SignerError> {
        let message = proto::DownloadCertificateRequest {
            directory: directory.to_string(),
            serial: serial.to_string(),
        };
        fail::fail_point!("front.download.before-rpc");
        Ok(ask!(self, download_certificate, message)?)
    }

    /// Not repeated by itself: the second answer would be `alreadyRevoked`, which the client must not get for its first.
    pub(crate) async fn revoke(
        &self,
        jws: &Jws,
        authorizations: Vec<proto::AuthorizationEvidence>,
    ) -> Result<(), SignerError> {
        let message = proto::RevokeRequest { revocation_jws: bytes(jws), authorizations };
        fail::fail_point!("front.revoke.before-rpc");
        self.client.clone().revoke(with_deadline(message, DEADLINE)).await?;
        fail::fail_point!("front.revoke.after-rpc");
        Ok(())
    }

    pub(crate) async fn renewal_info(
        &self,
        directory: &DirectoryName,
        id: &CertificateId,
    ) -> Result<RenewalInfo, SignerError> {
        let message =
            proto::RenewalInfoRequest { directory: directory.to_string(), certificate_id: id.to_string() };
        let answer = ask!(self, renewal_info, message)?;
        let time = |seconds: i64| {
            u64::try_from(seconds).map(Timestamp::from_unix).map_err(|_| SignerError::Answer("a time"))
        };
        Ok(RenewalInfo {
            window: Window::new(time(answer.window_start)?, time(answer.window_end)?),
            explanation_url: Some(answer.explanation_url).filter(|url| !url.is_empty()),
            retry_after: answer.retry_after_seconds,
        })
    }

    pub(crate) async fn issue_server_certificate(&self, csr: Vec<u8>) -> Result<Vec<Bytes>, SignerError> {
        let message = proto::IssueServerCertificateRequest { csr: csr.into() };
        Ok(ask!(self, issue_server_certificate, message)?.chain)
    }
}

/// What came of a try to issue.
#[derive(Debug)]
pub(crate) enum Issued {
    /// The certificate.
    Certificate {
        /// Its serial.
        serial: Serial,
        /// DER, leaf first, without the root.
        chain: Vec<Bytes>,
        /// What else may stand above the leaf.
        alternates: Vec<proto::AlternateChain>,
    },
    /// It is journaled and will be signed; ask again after this time.
    Later(Duration),
}

fn with_deadline<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

fn bytes(jws: &Jws) -> Bytes {
    Bytes::from(jws.to_json())
}

fn account(account: Option<proto::Account>) -> Result<Account, SignerError> {
    Ok(account.ok_or(SignerError::Answer("no account"))?.try_into()?)
}
