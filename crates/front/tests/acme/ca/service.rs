//! The double as a gRPC service.

use std::sync::atomic::Ordering;
use std::time::Duration;

use acme::jws::KeyReference;
use acme::key_change::KeyChange;
use acme::order::NewOrder;
use acme::revocation::Revocation;
use acme::{ErrorType, Problem};
use bytes::Bytes;
use pki::{Certificate, Csr};
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_server::Authority;
use rpc::{AuthorizedOrder, Evidence, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{FakeCa, LIFETIME, jws, malformed, missing, random, refuse};

#[async_trait::async_trait]
impl Authority for FakeCa {
    async fn list_directories(
        &self,
        _request: Request<wire::ListDirectoriesRequest>,
    ) -> Result<Response<wire::ListDirectoriesResponse>, Status> {
        let directories = ["open", "eab", "reuse"].map(|name| self.describe(name)).to_vec();
        Ok(Response::new(wire::ListDirectoriesResponse { directories }))
    }

    async fn authorize_order(
        &self,
        request: Request<wire::AuthorizeOrderRequest>,
    ) -> Result<Response<wire::AuthorizeOrderResponse>, Status> {
        self.check()?;
        let gate = self.order_gate.lock().take();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let jws = jws(&request.into_inner().new_order_jws)?;
        let located = self.locate(&jws.header().url)?;
        let account = self.account_of(&jws, &located.directory)?;
        let verified = jws.verify(&account.key).map_err(|_| malformed("signature"))?;
        let order = NewOrder::from_verified(&verified, 10).map_err(|error| rpc::refuse(error.problem()))?;
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
        };
        Ok(Response::new(answer.into()))
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
            acme::account::Update::Contacts(contacts) => {
                account.contacts = contacts.iter().map(ToString::to_string).collect();
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
        let Some(wire::look_up_account_request::Selector::AccountId(id)) = request.into_inner().selector
        else {
            return Err(Status::invalid_argument("selector"));
        };
        let id = id.parse().map_err(|_| Status::invalid_argument("id"))?;
        let account = self.state.lock().accounts.get(&id).cloned().map(Into::into);
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
        let certificate = self.issue_checked(request.into_inner())?;
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
        Ok(Response::new(wire::DownloadCertificateResponse { account_id: kept.account.to_string(), chain }))
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
