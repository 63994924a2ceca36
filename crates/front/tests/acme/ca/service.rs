//! The double as a gRPC service.

use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::authorization::{NewAuthorization, Update};
use acme::id::Scope;
use acme::jws::KeyReference;
use acme::key_change::KeyChange;
use acme::order::NewOrder;
use acme::resource::Resource;
use acme::revocation::Revocation;
use acme::{ErrorType, Problem};
use bytes::Bytes;
use pki::{Certificate, Csr};
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_server::Authority;
use rpc::proto::signer::v1::look_up_account_request::Selector;
use rpc::{AuthorizedIdentifier, AuthorizedName, AuthorizedOrder, Evidence, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{FakeCa, LIFETIME, PRE_AUTHORIZING, jws, malformed, missing, random, refuse};

#[async_trait::async_trait]
impl Authority for FakeCa {
    async fn list_directories(
        &self,
        _request: Request<wire::ListDirectoriesRequest>,
    ) -> Result<Response<wire::ListDirectoriesResponse>, Status> {
        let directories = ["open", "eab", "reuse", "pre", "sub", "limited", "dns", "test", "since", "quorum"];
        let directories = directories.map(|name| self.describe(name)).to_vec();
        Ok(Response::new(wire::ListDirectoriesResponse { directories }))
    }

    async fn authorize_order(
        &self,
        request: Request<wire::AuthorizeOrderRequest>,
    ) -> Result<Response<wire::AuthorizeOrderResponse>, Status> {
        self.check()?;
        self.order_calls.fetch_add(1, Ordering::Relaxed);
        let gate = self.order_gate.lock().take();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let jws = jws(&request.into_inner().new_order_jws)?;
        let located = self.locate(&jws.header().url)?;
        let account = self.account_of(&jws, &located.directory)?;
        self.check_agreement(&account)?;
        let verified = jws.verify(&account.key).map_err(|_| malformed("signature"))?;
        let order = NewOrder::from_verified(&verified, 100).map_err(|error| rpc::refuse(error.problem()))?;
        // This double has one validity for all: what it cannot honour exactly, it refuses (D4).
        if order.not_before.is_some() || order.not_after.is_some() {
            return Err(malformed("notBefore and notAfter cannot be chosen"));
        }
        if order.profile.as_deref().is_some_and(|profile| profile != "tls") {
            return Err(refuse(ErrorType::InvalidProfile, "no such profile"));
        }
        let (now, digest) = (self.now(), jws.digest());
        let answer = AuthorizedOrder {
            order: self.ids.mint_order(&account.directory, &account.id, &digest, now, random()),
            account: account.id,
            directory: account.directory.clone(),
            profile: "tls".parse().unwrap(),
            replaces: self.replaced(&account, &order)?,
            expires: now.plus(LIFETIME),
            names: self.authorized_names(&account, &order, &digest, now)?,
            limits: rpc::limits(Some(&limits(account.directory.as_str()))).unwrap(),
            limits_exempt: order.replaces.is_some()
                && order.names.iter().any(|name| name.to_string().starts_with("exempt.")),
        };
        Ok(Response::new(answer.into()))
    }

    async fn authorize_identifier(
        &self,
        request: Request<wire::AuthorizeIdentifierRequest>,
    ) -> Result<Response<wire::AuthorizeIdentifierResponse>, Status> {
        self.check()?;
        let jws = jws(&request.into_inner().new_authorization_jws)?;
        let located = self.locate(&jws.header().url)?;
        if located.resource != Resource::NewAuthorization
            || !PRE_AUTHORIZING.contains(&located.directory.as_str())
        {
            return Err(malformed("no pre-authorization"));
        }
        let account = self.account_of(&jws, &located.directory)?;
        let verified = jws.verify(&account.key).map_err(|_| malformed("signature"))?;
        let wanted =
            NewAuthorization::from_verified(&verified).map_err(|error| rpc::refuse(error.problem()))?;
        let (now, digest) = (self.now(), jws.digest());
        let subdomains = wanted.subdomains && located.directory.as_str() == "sub";
        let scope = Scope { pre_authorization: true, subdomains };
        let subject = (&account.directory, &account.id, &wanted.name, &digest);
        let name = AuthorizedName {
            authorization: self.ids.mint_scoped(scope, subject, now, random()),
            grant: super::below(&wanted.name, "granted.test").then(|| "grant-1".to_owned()),
            expires: now.plus(LIFETIME),
            ancestor: None,
            name: wanted.name,
        };
        let limits = rpc::limits(Some(&limits(account.directory.as_str()))).unwrap();
        let answer = AuthorizedIdentifier { account: account.id, directory: account.directory, name, limits };
        Ok(Response::new(answer.into()))
    }

    async fn deactivate_authorization(
        &self,
        request: Request<wire::DeactivateAuthorizationRequest>,
    ) -> Result<Response<wire::DeactivateAuthorizationResponse>, Status> {
        self.check()?;
        let request = request.into_inner();
        let jws = jws(&request.authorization_jws)?;
        let located = self.locate(&jws.header().url)?;
        let account = self.account_of(&jws, &located.directory)?;
        let verified = jws.verify(&account.key).map_err(|_| malformed("signature"))?;
        let claimed: Evidence =
            request.authorization.ok_or_else(|| malformed("authorization"))?.try_into()?;
        let id = claimed.authorization;
        let genuine = located.resource == Resource::Authorization(id)
            && Update::from_verified(&verified).is_ok_and(|update| update == Update::Deactivate)
            && self
                .ids
                .verify_authorization(
                    &id,
                    &account.directory,
                    &account.id,
                    &claimed.name,
                    &claimed.created_by,
                )
                .is_ok();
        if !genuine {
            return Err(refuse(ErrorType::Unauthorized, "not yours to deactivate"));
        }
        self.deactivated.lock().insert(id);
        Ok(Response::new(wire::DeactivateAuthorizationResponse {}))
    }

    async fn register_account(
        &self,
        request: Request<wire::RegisterAccountRequest>,
    ) -> Result<Response<wire::RegisterAccountResponse>, Status> {
        self.check()?;
        let (account, created) = self.new_account(&jws(&request.into_inner().new_account_jws)?)?;
        Ok(Response::new(wire::RegisterAccountResponse { account: Some(account.into()), created }))
    }

    async fn update_account(
        &self,
        request: Request<wire::UpdateAccountRequest>,
    ) -> Result<Response<wire::UpdateAccountResponse>, Status> {
        self.check()?;
        let jws = jws(&request.into_inner().account_jws)?;
        let located = self.locate(&jws.header().url)?;
        let mut account = self.account_of(&jws, &located.directory)?;
        let verified = jws.verify(&account.key).map_err(|_| malformed("signature"))?;
        let update =
            acme::account::Update::from_verified(&verified).map_err(|error| rpc::refuse(error.problem()))?;
        match update {
            acme::account::Update::Deactivate => account.status = acme::account::Status::Deactivated,
            acme::account::Update::Change { contacts, agrees } => {
                if let Some(contacts) = contacts {
                    account.contacts = contacts.iter().map(ToString::to_string).collect();
                }
                account.terms_of_service_agreed |= agrees;
            }
            acme::account::Update::Nothing => {}
        }
        {
            let mut state = self.state.lock();
            if state.updates.insert(jws.digest()) {
                account.version += 1;
                state.accounts.insert(account.id, account.clone());
            }
        }
        self.tell(account.id).await;
        Ok(Response::new(wire::UpdateAccountResponse { account: Some(account.into()) }))
    }

    async fn change_key(
        &self,
        request: Request<wire::ChangeKeyRequest>,
    ) -> Result<Response<wire::ChangeKeyResponse>, Status> {
        self.check()?;
        let jws = jws(&request.into_inner().key_change_jws)?;
        let located = self.locate(&jws.header().url)?;
        let mut account = self.account_of(&jws, &located.directory)?;
        let verified = jws.verify(&account.key).map_err(|_| malformed("signature"))?;
        let change = KeyChange::from_verified(&verified).map_err(|error| rpc::refuse(error.problem()))?;
        {
            let mut state = self.state.lock();
            let key = (located.directory, change.new_key.thumbprint());
            if let Some(holder) = state.keys.get(&key) {
                let problem = Problem::new(ErrorType::Malformed, "the key has an account").with_status(409);
                return Err(Refusal::new(problem).with_account(holder.to_string()).into_status());
            }
            state.keys.insert(key, account.id);
            state.former.entry(account.id).or_default().push(account.key.clone());
            account.key = change.new_key;
            account.version += 1;
            state.accounts.insert(account.id, account.clone());
        }
        self.tell(account.id).await;
        Ok(Response::new(wire::ChangeKeyResponse { account: Some(account.into()) }))
    }

    async fn look_up_account(
        &self,
        request: Request<wire::LookUpAccountRequest>,
    ) -> Result<Response<wire::LookUpAccountResponse>, Status> {
        self.check()?;
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        let wire::LookUpAccountRequest { directory, selector } = request.into_inner();
        let state = self.state.lock();
        let id = match selector.ok_or_else(|| Status::invalid_argument("selector"))? {
            Selector::AccountId(id) => Some(id.parse().map_err(|_| Status::invalid_argument("id"))?),
            Selector::KeyThumbprint(key) => {
                let key = key.parse().map_err(|_| Status::invalid_argument("key"))?;
                state.keys.get(&(directory.parse().unwrap(), key)).copied()
            }
        };
        let account = id.and_then(|id| state.accounts.get(&id)).cloned().map(Into::into);
        Ok(Response::new(wire::LookUpAccountResponse { account }))
    }

    type WatchAccountsStream = ReceiverStream<Result<wire::AccountsChanged, Status>>;

    async fn watch_accounts(
        &self,
        _request: Request<wire::WatchAccountsRequest>,
    ) -> Result<Response<Self::WatchAccountsStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let _ = sender.send(Ok(wire::AccountsChanged { account_ids: Vec::new() })).await;
        self.state.lock().watchers.push(sender);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn issue(
        &self,
        request: Request<wire::IssueRequest>,
    ) -> Result<Response<wire::IssueResponse>, Status> {
        self.check()?;
        self.issue_calls.fetch_add(1, Ordering::SeqCst);
        let gate = self.issue_gate.lock().take();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let fails = self
            .failing_issuances
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() {
            return Err(rpc::unavailable("the token is away", Duration::from_millis(100)));
        }
        if self.broken_issuances.load(Ordering::SeqCst) {
            return Err(Status::internal("told to be broken"));
        }
        if let Some(refusal) = self.refused_issuance.lock().take() {
            return Err(refusal.into());
        }
        let certificate = self.issue_checked(request.into_inner())?;
        if self.losing_issuances.load(Ordering::SeqCst) {
            return Err(rpc::unavailable("the answer is lost", Duration::from_millis(100)));
        }
        let outcome = Some(wire::issue_response::Outcome::Certificate(certificate));
        Ok(Response::new(wire::IssueResponse { outcome }))
    }

    async fn download_certificate(
        &self,
        request: Request<wire::DownloadCertificateRequest>,
    ) -> Result<Response<wire::DownloadCertificateResponse>, Status> {
        self.check()?;
        let serial = request.into_inner().serial.parse().map_err(|_| Status::invalid_argument("serial"))?;
        let state = self.state.lock();
        let missing =
            || rpc::refuse(Problem::new(ErrorType::Malformed, "no such certificate").with_status(404));
        let kept = state.certificates.get(&serial).ok_or_else(missing)?;
        let chain = [kept.certificate.der(), self.issuer.der()].map(Bytes::copy_from_slice).to_vec();
        Ok(Response::new(wire::DownloadCertificateResponse {
            account_id: kept.account.to_string(),
            chain,
            alternates: self.alternates(),
        }))
    }

    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeResponse>, Status> {
        self.check()?;
        let wire::RevokeRequest { revocation_jws, authorizations } = request.into_inner();
        let jws = jws(&revocation_jws)?;
        let located = self.locate(&jws.header().url)?;
        let (account, key) = match &jws.header().key {
            KeyReference::Jwk(key) => (None, key.clone()),
            KeyReference::Kid(_) => {
                let account = self.account_of(&jws, &located.directory)?;
                let key = account.key.clone();
                (Some(account), key)
            }
        };
        let verified = jws.verify(&key).map_err(|error| rpc::refuse(error.problem()))?;
        let wanted = Revocation::from_verified(&verified).map_err(|error| rpc::refuse(error.problem()))?;
        let certificate =
            Certificate::from_der(&wanted.certificate).map_err(|_| malformed("no certificate"))?;
        let evidence: Vec<Evidence> =
            authorizations.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let now = self.now();
        let mut state = self.state.lock();
        let unknown =
            || rpc::refuse(Problem::new(ErrorType::Malformed, "no such certificate").with_status(404));
        let kept = state.certificates.get_mut(&certificate.serial()).ok_or_else(unknown)?;
        let allowed = match &account {
            Some(account) => {
                let names = kept.certificate.names().unwrap();
                account.id == kept.account
                    || names.iter().all(|name| self.is_held(account, name, &evidence, now))
            }
            None => kept.certificate.public_key() == key.public_key(),
        };
        if !allowed {
            return Err(refuse(ErrorType::Unauthorized, "not yours to revoke"));
        }
        if kept.revoked {
            return Err(refuse(ErrorType::AlreadyRevoked, "already revoked"));
        }
        kept.revoked = true;
        Ok(Response::new(wire::RevokeResponse {}))
    }

    async fn renewal_info(
        &self,
        request: Request<wire::RenewalInfoRequest>,
    ) -> Result<Response<wire::RenewalInfoResponse>, Status> {
        self.check()?;
        self.renewal_calls.fetch_add(1, Ordering::SeqCst);
        let id = request.into_inner().certificate_id.parse().map_err(|_| Status::invalid_argument("id"))?;
        let state = self.state.lock();
        let kept = state.certificates.get(&self.serial_of(&id)?).ok_or_else(missing)?;
        let (start, end) = (kept.certificate.not_before(), kept.certificate.not_after());
        Ok(Response::new(wire::RenewalInfoResponse {
            window_start: rpc::seconds(start),
            window_end: rpc::seconds(end),
            explanation_url: if kept.revoked { "https://ca.test/incident".to_owned() } else { String::new() },
            retry_after_seconds: 21_600,
        }))
    }

    async fn issue_server_certificate(
        &self,
        request: Request<wire::IssueServerCertificateRequest>,
    ) -> Result<Response<wire::IssueServerCertificateResponse>, Status> {
        self.check()?;
        let csr = Csr::from_der(&request.into_inner().csr).map_err(|error| malformed(&error.to_string()))?;
        let leaf = self.node_issuer.issue(csr.public_key(), csr.names());
        let chain = [leaf.der(), self.node_issuer.der()].map(Bytes::copy_from_slice).to_vec();
        Ok(Response::new(wire::IssueServerCertificateResponse { chain }))
    }
}

/// What fronts are to count in a directory.
pub(super) fn limits(directory: &str) -> wire::Limits {
    if directory != "limited" {
        return wire::Limits::default();
    }
    let text = str::to_owned;
    wire::Limits {
        failed_validations: text("2 in 1h"),
        accounts_per_address: text("3 in 3h"),
        orders_per_account: text("6 in 3h"),
        failures_until_paused: text("4 in 2d"),
    }
}
