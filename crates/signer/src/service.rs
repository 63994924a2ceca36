//! What fronts ask (`chancery.signer.v1.Authority`): messages in, messages out, and the one place where failures become
//! gRPC statuses.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use acme::account::Status as AccountStatus;
use acme::limit::LimitSettings;
use futures::{Stream, StreamExt, stream};
use pki::Timestamp;
use rpc::PeerIdentity;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_server::Authority;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::account::Account;
use crate::authority::{IssueOrder, NameEvidence};
use crate::ca::Ca;
use crate::doors::DoorError;
use crate::events::Change;
use crate::issue::Issuance;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::registry::Directory;

/// The service. Who may call it is the access table's business.
#[derive(Debug, Clone)]
pub struct AuthorityService {
    ca: Arc<Ca>,
    draining: CancellationToken,
}

/// When a front asks again for a certificate that is being made.
const PROCESSING_RETRY: Duration = Duration::from_secs(1);
/// When it asks again after a failure that will pass.
const TRANSIENT_RETRY: Duration = Duration::from_secs(2);

impl AuthorityService {
    /// The service of this CA; `draining` ends its streams.
    #[must_use]
    pub const fn new(ca: Arc<Ca>, draining: CancellationToken) -> Self {
        Self { ca, draining }
    }

    fn reply<T, M>(&self, outcome: Outcome<T>, message: impl FnOnce(T) -> M) -> Result<Response<M>, Status> {
        match self.ca.observe(outcome) {
            Ok(value) => Ok(Response::new(message(value))),
            Err(failure) => Err(status_of(&failure)),
        }
    }

    fn issue_outcome(&self, issuance: Issuance) -> wire::issue_response::Outcome {
        use wire::issue_response::Outcome;
        match issuance {
            Issuance::Issued(issued) => Outcome::Certificate(wire::IssuedCertificate {
                serial: issued.serial.to_string(),
                alternates: alternates(self.ca.alternates_of(&issued.issuer).unwrap_or_default()),
                // Without it the certificate is to be downloaded, and then it is said what is wrong.
                chain: self
                    .ca
                    .with_issuers(issued.certificate, &issued.issuer)
                    .unwrap_or_default()
                    .into_iter()
                    .map(Into::into)
                    .collect(),
            }),
            Issuance::Processing => {
                let milliseconds = u32::try_from(PROCESSING_RETRY.as_millis()).unwrap_or(u32::MAX);
                Outcome::Processing(wire::Processing { retry_after_milliseconds: milliseconds })
            }
        }
    }

    fn account(&self, account: &Account) -> wire::Account {
        let status = match account.row.status {
            ca_store::AccountStatus::Valid => AccountStatus::Valid,
            ca_store::AccountStatus::Deactivated => AccountStatus::Deactivated,
            ca_store::AccountStatus::Revoked => AccountStatus::Revoked,
        };
        wire::Account {
            id: account.row.id.clone(),
            directory: account.row.directory.clone(),
            status: status.as_str().to_owned(),
            contacts: account.row.contacts.clone(),
            terms_of_service_agreed: account.row.terms_agreed_at.is_some() && self.agrees(account),
            jwk: account.key().to_json(),
            external_account_binding: self.ca.binding_of(account).unwrap_or_default(),
            version: account.row.version,
        }
    }

    /// Whether the account is not asked to agree to other terms.
    fn agrees(&self, account: &Account) -> bool {
        let directory = account.row.directory.parse().ok().and_then(|name| self.ca.registry.directory(&name));
        directory.is_none_or(|directory| account.agrees_to(&directory.policy))
    }

    async fn look_up(&self, request: wire::LookUpAccountRequest) -> Outcome<Option<Arc<Account>>> {
        use wire::look_up_account_request::Selector;
        let Ok(directory) = request.directory.parse() else { return Ok(None) };
        let account = match request.selector {
            Some(Selector::AccountId(id)) => match id.parse() {
                Ok(id) => self.ca.account(&id).await?,
                Err(_) => None,
            },
            Some(Selector::KeyThumbprint(thumbprint)) => match thumbprint.parse() {
                // A former key leads nowhere: it is nobody's.
                Ok(thumbprint) => (self.ca.account_by_key(&directory, &thumbprint).await?)
                    .filter(|account| account.key().thumbprint() == thumbprint),
                Err(_) => None,
            },
            None => None,
        };
        Ok(account.filter(|account| account.row.directory == directory.as_str()))
    }
}

#[tonic::async_trait]
impl Authority for AuthorityService {
    async fn list_directories(
        &self,
        _: Request<wire::ListDirectoriesRequest>,
    ) -> Result<Response<wire::ListDirectoriesResponse>, Status> {
        // Whether the clock is to be trusted is the question of those who sign.
        let now = self.ca.clock.reading();
        let directories = self.ca.registry.directories();
        let directories = directories.map(|directory| directory_message(directory, now)).collect();
        Ok(Response::new(wire::ListDirectoriesResponse { directories }))
    }

    #[tracing::instrument(name = "rpc.authorize_order", skip_all)]
    async fn authorize_order(
        &self,
        request: Request<wire::AuthorizeOrderRequest>,
    ) -> Result<Response<wire::AuthorizeOrderResponse>, Status> {
        let outcome = self.ca.authorize_order(&request.get_ref().new_order_jws).await;
        fail::fail_point!("signer.authorize-order.before-reply");
        self.reply(outcome, |order| wire::AuthorizeOrderResponse {
            order_id: order.id.to_string(),
            account_id: order.account.to_string(),
            directory: order.directory.to_string(),
            profile: order.profile,
            replaces: order.replaces.as_ref().map(ToString::to_string).unwrap_or_default(),
            expires: rpc::seconds(order.expires),
            names: order.names.into_iter().map(authorized_name).collect(),
            limits: Some(rpc::limits_message(&order.limits)),
            limits_exempt: order.limits_exempt,
        })
    }

    #[tracing::instrument(name = "rpc.authorize_identifier", skip_all)]
    async fn authorize_identifier(
        &self,
        request: Request<wire::AuthorizeIdentifierRequest>,
    ) -> Result<Response<wire::AuthorizeIdentifierResponse>, Status> {
        let outcome = self.ca.authorize_identifier(&request.get_ref().new_authorization_jws).await;
        self.reply(outcome, |authorized| wire::AuthorizeIdentifierResponse {
            account_id: authorized.account.to_string(),
            directory: authorized.directory.to_string(),
            name: Some(authorized_name(authorized.name)),
            limits: Some(rpc::limits_message(&authorized.limits)),
        })
    }

    #[tracing::instrument(name = "rpc.deactivate_authorization", skip_all)]
    async fn deactivate_authorization(
        &self,
        request: Request<wire::DeactivateAuthorizationRequest>,
    ) -> Result<Response<wire::DeactivateAuthorizationResponse>, Status> {
        let request = request.into_inner();
        let outcome = match evidence(request.authorization.into_iter().collect()).map(|mut one| one.pop()) {
            Ok(Some(authorization)) => {
                self.ca.deactivate_authorization(&request.authorization_jws, &authorization).await
            }
            Ok(None) => Err(Refusal::new(Reason::EvidenceMalformed, "no authorization").into()),
            Err(refusal) => Err(refusal.into()),
        };
        self.reply(outcome, |()| wire::DeactivateAuthorizationResponse {})
    }

    #[tracing::instrument(name = "rpc.register_account", skip_all)]
    async fn register_account(
        &self,
        request: Request<wire::RegisterAccountRequest>,
    ) -> Result<Response<wire::RegisterAccountResponse>, Status> {
        let outcome = self.ca.register_account(&request.get_ref().new_account_jws).await;
        self.reply(outcome, |registered| wire::RegisterAccountResponse {
            account: Some(self.account(&registered.account)),
            created: registered.created,
        })
    }

    #[tracing::instrument(name = "rpc.update_account", skip_all)]
    async fn update_account(
        &self,
        request: Request<wire::UpdateAccountRequest>,
    ) -> Result<Response<wire::UpdateAccountResponse>, Status> {
        let outcome = self.ca.update_account(&request.get_ref().account_jws).await;
        self.reply(outcome, |account| wire::UpdateAccountResponse { account: Some(self.account(&account)) })
    }

    #[tracing::instrument(name = "rpc.change_key", skip_all)]
    async fn change_key(
        &self,
        request: Request<wire::ChangeKeyRequest>,
    ) -> Result<Response<wire::ChangeKeyResponse>, Status> {
        let outcome = self.ca.change_key(&request.get_ref().key_change_jws).await;
        self.reply(outcome, |account| wire::ChangeKeyResponse { account: Some(self.account(&account)) })
    }

    #[tracing::instrument(name = "rpc.look_up_account", skip_all)]
    async fn look_up_account(
        &self,
        request: Request<wire::LookUpAccountRequest>,
    ) -> Result<Response<wire::LookUpAccountResponse>, Status> {
        let outcome = self.look_up(request.into_inner()).await;
        self.reply(outcome, |account| wire::LookUpAccountResponse {
            account: account.map(|account| self.account(&account)),
        })
    }

    type WatchAccountsStream = Pin<Box<dyn Stream<Item = Result<wire::AccountsChanged, Status>> + Send>>;

    async fn watch_accounts(
        &self,
        _: Request<wire::WatchAccountsRequest>,
    ) -> Result<Response<Self::WatchAccountsStream>, Status> {
        // Subscribed before the first message goes out: from that on, the front may keep accounts.
        let changes = self.ca.events.subscribe();
        if !self.ca.hears_others() {
            return Err(Status::unavailable("changes of other signers are not heard"));
        }
        let opening = stream::once(async { Ok(wire::AccountsChanged::default()) });
        let changed = stream::unfold(changes, |mut changes| async move {
            loop {
                match changes.recv().await {
                    Ok(Change::Account { id }) => {
                        let message = wire::AccountsChanged { account_ids: vec![id.to_string()] };
                        return Some((Ok(message), changes));
                    }
                    // The front missed something: it starts over, and forgets what it kept.
                    Ok(Change::Missed) | Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
                    Ok(_) => {}
                }
            }
        });
        let end = self.draining.clone().cancelled_owned();
        Ok(Response::new(Box::pin(opening.chain(changed).take_until(end))))
    }

    #[tracing::instrument(name = "rpc.issue", skip_all)]
    async fn issue(
        &self,
        request: Request<wire::IssueRequest>,
    ) -> Result<Response<wire::IssueResponse>, Status> {
        let request = request.into_inner();
        let outcome = match evidence(request.authorizations) {
            Ok(authorizations) => {
                let order = IssueOrder {
                    new_order_jws: request.new_order_jws,
                    finalize_jws: request.finalize_jws,
                    authorizations,
                    profile: request.profile,
                };
                self.ca.issue(order).await
            }
            Err(refusal) => Err(refusal.into()),
        };
        fail::fail_point!("signer.issue.before-reply");
        self.reply(outcome, |issuance| wire::IssueResponse { outcome: Some(self.issue_outcome(issuance)) })
    }

    #[tracing::instrument(name = "rpc.download_certificate", skip_all)]
    async fn download_certificate(
        &self,
        request: Request<wire::DownloadCertificateRequest>,
    ) -> Result<Response<wire::DownloadCertificateResponse>, Status> {
        let request = request.into_inner();
        let unknown = || Refusal::new(Reason::CertificateUnknown, "there is no such certificate").status(404);
        let outcome = match (request.directory.parse(), pki::Serial::from_hex(&request.serial)) {
            (Ok(directory), Ok(serial)) => self.ca.download(&directory, serial).await,
            _ => Err(unknown().into()),
        };
        self.reply(outcome, |download| wire::DownloadCertificateResponse {
            account_id: download.account,
            alternates: alternates(download.alternates),
            chain: download.chain.into_iter().map(Into::into).collect(),
        })
    }

    #[tracing::instrument(name = "rpc.revoke", skip_all)]
    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeResponse>, Status> {
        let request = request.into_inner();
        let outcome = match evidence(request.authorizations) {
            Ok(authorizations) => self.ca.revoke(&request.revocation_jws, authorizations).await,
            Err(refusal) => Err(refusal.into()),
        };
        self.reply(outcome, |()| wire::RevokeResponse {})
    }

    #[tracing::instrument(name = "rpc.renewal_info", skip_all)]
    async fn renewal_info(
        &self,
        request: Request<wire::RenewalInfoRequest>,
    ) -> Result<Response<wire::RenewalInfoResponse>, Status> {
        let request = request.into_inner();
        let malformed = || Refusal::new(Reason::PayloadMalformed, "not a certificate's id (RFC 9773 §4.1)");
        let outcome = match (request.directory.parse(), request.certificate_id.parse()) {
            (Ok(directory), Ok(id)) => self.ca.renewal_info(&directory, &id).await,
            _ => Err(malformed().into()),
        };
        self.reply(outcome, |info| wire::RenewalInfoResponse {
            window_start: rpc::seconds(info.window.start()),
            window_end: rpc::seconds(info.window.end()),
            explanation_url: info.explanation_url.unwrap_or_default(),
            retry_after_seconds: u32::try_from(info.retry_after.seconds()).unwrap_or(u32::MAX),
        })
    }

    #[tracing::instrument(name = "rpc.issue_server_certificate", skip_all)]
    async fn issue_server_certificate(
        &self,
        request: Request<wire::IssueServerCertificateRequest>,
    ) -> Result<Response<wire::IssueServerCertificateResponse>, Status> {
        let node = PeerIdentity::of(&request)?.name.as_str().to_owned();
        let outcome = self.ca.issue_server_certificate(&node, &request.get_ref().csr).await;
        self.reply(outcome, |chain| wire::IssueServerCertificateResponse {
            chain: chain.into_iter().map(Into::into).collect(),
        })
    }
}

/// A failure on the wire: refusals with their problem, the rest by class and without a secret.
#[must_use]
pub(crate) fn status_of(failure: &Failure) -> Status {
    match failure {
        Failure::Refused(refusal) => rpc::Refusal {
            problem: (*refusal.problem).clone(),
            reason: refusal.reason.as_str().to_owned(),
            account_id: refusal.account.clone(),
            retry_after: refusal.retry_after,
        }
        .into_status(),
        Failure::Busy { retry_after } => {
            rpc::busy("the signer has as much in flight as it takes", *retry_after)
        }
        Failure::Door(DoorError::Hsm(error)) if error.retry_after().is_some() => rpc::busy(
            "the token has as many jobs as it takes",
            error.retry_after().unwrap_or(TRANSIENT_RETRY),
        ),
        other if other.class() == pki::ErrorClass::Transient => {
            rpc::unavailable(&other.to_string(), TRANSIENT_RETRY)
        }
        other => rpc::failure(other.class(), other.to_string()),
    }
}

fn alternates(chains: Vec<Vec<Vec<u8>>>) -> Vec<wire::AlternateChain> {
    let chain = |issuers: Vec<Vec<u8>>| wire::AlternateChain {
        issuers: issuers.into_iter().map(Into::into).collect(),
    };
    chains.into_iter().map(chain).collect()
}

fn evidence(authorizations: Vec<wire::AuthorizationEvidence>) -> Result<Vec<NameEvidence>, Refusal> {
    authorizations
        .into_iter()
        .map(NameEvidence::try_from)
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new(Reason::EvidenceMalformed, error.to_string()))
}

fn authorized_name(name: crate::order::AuthorizedName) -> wire::AuthorizedName {
    use wire::authorized_name::Authority;
    wire::AuthorizedName {
        identifier: Some((&name.name).into()),
        authorization_id: name.authorization.to_string(),
        expires: rpc::seconds(name.expires),
        ancestor: name.ancestor.map(|above| (&pki::Name::Dns(above)).into()),
        authority: Some(match name.grant {
            Some(grant) => Authority::GrantId(grant),
            None => Authority::Challenge(true),
        }),
    }
}

fn directory_message(directory: &Directory, now: Timestamp) -> wire::Directory {
    let policy = &directory.policy;
    let profiles = directory.profiles().iter().map(|profile| {
        let name = profile.name().to_owned();
        let description = policy.profile_descriptions.get(&name).cloned().unwrap_or_else(|| name.clone());
        wire::Profile { name, description }
    });
    let text = |url: &Option<url::Url>| url.as_ref().map(ToString::to_string).unwrap_or_default();
    wire::Directory {
        name: policy.name.to_string(),
        base_urls: policy.base_urls.iter().map(ToString::to_string).collect(),
        terms_of_service: text(&policy.terms_of_service),
        website: text(&policy.website),
        caa_identities: policy.caa_identities.iter().map(ToString::to_string).collect(),
        external_account_required: policy.external_account_required,
        profiles: profiles.collect(),
        methods: policy.methods.iter().map(ToString::to_string).collect(),
        maximum_names: policy.maximum_names,
        order_lifetime_seconds: policy.order_lifetime.seconds(),
        authorization_lifetime_seconds: policy.authorization_lifetime.seconds(),
        validation_reuse_seconds: policy.validation_reuse_at(now).seconds(),
        limits: Some(rpc::limits_message(&policy.limits_of(&LimitSettings::default()))),
        pre_authorization: policy.pre_authorization,
        subdomain_authorization: policy.subdomain_auth,
        renewal_info: policy.renewal.offered,
        always_valid: policy.always_valid,
        validations_since: policy.validations_since.map_or(0, rpc::seconds),
        perspectives: policy.quorum.perspectives.iter().cloned().collect(),
        perspectives_needed: u32::try_from(policy.quorum.needed()).unwrap_or(u32::MAX),
    }
}
