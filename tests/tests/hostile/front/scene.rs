//! The stage of the attacks: the signer, the front's key, honest clients, and what was refused so far.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use acme::challenge::Method;
use acme::receipt::{Outcome, Receipt, Run};
use acme::{AuthorizationId, DirectoryName};
use pki::{Name, Timestamp};
use rpc::Channel;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_client::AuthorityClient;
use tonic::{Code, Status};

use crate::support::System;
use crate::support::{Client, Database, csr_for, digest};

pub(crate) struct Scene {
    pub(crate) system: System,
    pub(crate) front: AuthorityClient<Channel>,
    database: Database,
    attack: &'static str,
    before: Vec<String>,
    reasons: BTreeSet<String>,
    faults: Vec<String>,
    /// Every refusal of all attacks, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
}

/// An order whose names were all seen by every perspective.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) new_order: Vec<u8>,
    pub(crate) order: String,
    pub(crate) names: Vec<String>,
    pub(crate) evidence: Vec<wire::AuthorizationEvidence>,
}

impl Ready {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The client's own finalize, with a CSR for what it ordered.
    pub(crate) fn finalized_by(&self, client: &Client) -> wire::IssueRequest {
        self.finalized_with(client, &csr_for(&self.names()))
    }

    pub(crate) fn finalized_with(&self, client: &Client, csr: &[u8]) -> wire::IssueRequest {
        self.with(client.finalize(&self.order, csr))
    }

    pub(crate) fn with(&self, finalize: Vec<u8>) -> wire::IssueRequest {
        wire::IssueRequest {
            new_order_jws: self.new_order.clone().into(),
            finalize_jws: finalize.into(),
            authorizations: self.evidence.clone(),
        }
    }

    pub(crate) fn authorization(&self) -> AuthorizationId {
        self.evidence[0].authorization_id.parse().expect("an id")
    }
}

impl Scene {
    pub(crate) async fn open() -> Self {
        let system = System::start().await;
        let front =
            AuthorityClient::new(system.channel(&system.node("front"))).max_encoding_message_size(usize::MAX);
        let database = system.database().await;
        Self {
            system,
            front,
            database,
            attack: "",
            before: Vec::new(),
            reasons: BTreeSet::new(),
            faults: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    pub(crate) async fn begin(&mut self, attack: &'static str) {
        self.attack = attack;
        self.reasons.clear();
        self.meanwhile().await;
    }

    /// Whatever honest clients and operators have done until now is theirs.
    pub(crate) async fn meanwhile(&mut self) {
        self.before = self.database.everything().await;
    }

    /// What is wrong with how the attack ended.
    pub(crate) async fn end(&mut self, expected: &BTreeSet<String>) -> Vec<String> {
        let mut faults = std::mem::take(&mut self.faults);
        if self.reasons != *expected {
            faults.push(format!("{}: refused for {:?}, not for {expected:?}", self.attack, self.reasons));
        }
        let after = self.database.everything().await;
        for row in after.iter().filter(|row| !self.before.contains(row)) {
            faults.push(format!("{}: it left {row}", self.attack));
        }
        for row in self.before.iter().filter(|row| !after.contains(row)) {
            faults.push(format!("{}: it took {row}", self.attack));
        }
        faults
    }

    fn count(&mut self, reason: &str) {
        self.reasons.insert(reason.to_owned());
        *self.refused.entry(reason.to_owned()).or_default() += 1;
    }

    fn fault(&mut self, what: &str) {
        self.faults.push(format!("{}: {what}", self.attack));
    }

    /// The signer must have refused this, and said why.
    pub(crate) fn refuse<T: Debug>(&mut self, outcome: Result<T, Status>) {
        match outcome {
            Ok(answer) => self.fault(&format!("IT SUCCEEDED: {answer:.200?}")),
            Err(status) => match rpc::refusal(&status) {
                Some(refusal) if !refusal.reason.is_empty() => self.count(&refusal.reason),
                _ => self.fault(&format!("it failed otherwise: {status}")),
            },
        }
    }

    /// The port must have turned this away, before any service saw it.
    pub(crate) fn turned_away<T: Debug>(&mut self, outcome: Result<T, Status>, code: Code, reason: &str) {
        match outcome {
            Err(status) if status.code() == code && rpc::refusal(&status).is_none() => self.count(reason),
            other => self.fault(&format!("not turned away: {other:.200?}")),
        }
    }

    /// What must be as it is.
    pub(crate) fn check(&mut self, holds: bool, what: &str) {
        if !holds {
            self.fault(what);
        }
    }

    /// Every refusal in the audit trail, after the last batch.
    pub(crate) async fn audited(&mut self) -> BTreeMap<String, u64> {
        self.system.stop_signer();
        self.database.refusals().await
    }

    // What honest clients do

    pub(crate) fn stranger(&self, directory: &str) -> Client {
        Client::new(&self.system.base, directory)
    }

    pub(crate) async fn register(
        &mut self,
        new_account: Vec<u8>,
    ) -> Result<wire::RegisterAccountResponse, Status> {
        let request = wire::RegisterAccountRequest { new_account_jws: new_account.into() };
        Ok(self.front.register_account(request).await?.into_inner())
    }

    pub(crate) async fn client_of(&mut self, directory: &str) -> Client {
        let client = self.stranger(directory);
        let request = client.new_account();
        self.registered(client, request).await
    }

    pub(crate) async fn registered(&mut self, mut client: Client, request: Vec<u8>) -> Client {
        let answer = self.register(request).await.expect("an account");
        client.account = Some(answer.account.expect("an account").id.parse().expect("an id"));
        client
    }

    pub(crate) async fn client(&mut self) -> Client {
        self.client_of("strict").await
    }

    pub(crate) async fn order(&mut self, new_order: &[u8]) -> Result<wire::AuthorizeOrderResponse, Status> {
        let request = wire::AuthorizeOrderRequest { new_order_jws: new_order.to_vec().into() };
        Ok(self.front.authorize_order(request).await?.into_inner())
    }

    pub(crate) async fn authorize(
        &mut self,
        new_authorization: Vec<u8>,
    ) -> Result<wire::AuthorizeIdentifierResponse, Status> {
        let request = wire::AuthorizeIdentifierRequest { new_authorization_jws: new_authorization.into() };
        Ok(self.front.authorize_identifier(request).await?.into_inner())
    }

    pub(crate) async fn deactivate(
        &mut self,
        jws: Vec<u8>,
        authorization: &wire::AuthorizationEvidence,
    ) -> Result<wire::DeactivateAuthorizationResponse, Status> {
        let authorization = Some(authorization.clone());
        let request = wire::DeactivateAuthorizationRequest { authorization_jws: jws.into(), authorization };
        Ok(self.front.deactivate_authorization(request).await?.into_inner())
    }

    pub(crate) async fn update(&mut self, jws: Vec<u8>) -> Result<wire::UpdateAccountResponse, Status> {
        let request = wire::UpdateAccountRequest { account_jws: jws.into() };
        Ok(self.front.update_account(request).await?.into_inner())
    }

    pub(crate) async fn change_key(&mut self, jws: Vec<u8>) -> Result<wire::ChangeKeyResponse, Status> {
        let request = wire::ChangeKeyRequest { key_change_jws: jws.into() };
        Ok(self.front.change_key(request).await?.into_inner())
    }

    pub(crate) async fn revoke(&mut self, jws: Vec<u8>) -> Result<wire::RevokeResponse, Status> {
        self.revoke_with(jws, Vec::new()).await
    }

    pub(crate) async fn revoke_with(
        &mut self,
        jws: Vec<u8>,
        authorizations: Vec<wire::AuthorizationEvidence>,
    ) -> Result<wire::RevokeResponse, Status> {
        let request = wire::RevokeRequest { revocation_jws: jws.into(), authorizations };
        Ok(self.front.revoke(request).await?.into_inner())
    }

    pub(crate) async fn server_certificate(
        &mut self,
        request: wire::IssueServerCertificateRequest,
    ) -> Result<wire::IssueServerCertificateResponse, Status> {
        Ok(self.front.issue_server_certificate(request).await?.into_inner())
    }

    /// Issue, asked until it has an outcome.
    pub(crate) async fn issue(
        &mut self,
        request: wire::IssueRequest,
    ) -> Result<wire::IssuedCertificate, Status> {
        issue(self.front.clone(), request).await
    }

    pub(crate) async fn ready(&mut self, client: &Client, names: &[&str]) -> Ready {
        let new_order = client.new_order(names);
        self.ready_with(client, new_order).await
    }

    /// An order for this newOrder, with the receipts of honest perspectives that saw each of its names.
    pub(crate) async fn ready_with(&mut self, client: &Client, new_order: Vec<u8>) -> Ready {
        let answer = self.order(&new_order).await.expect("an order");
        let created_by = digest(&new_order);
        let mut ready = Ready { new_order, order: answer.order_id, names: Vec::new(), evidence: Vec::new() };
        for name in answer.names {
            let identifier = name.identifier.expect("an identifier");
            let parsed: Name = identifier.clone().try_into().expect("a name");
            let authorization = name.authorization_id.parse().expect("an id");
            let receipt = self.receipt(client, &parsed, authorization);
            ready.names.push(parsed.to_string());
            ready.evidence.push(wire::AuthorizationEvidence {
                identifier: Some(identifier),
                authorization_id: name.authorization_id,
                created_by_digest: created_by.to_vec().into(),
                receipts: self.seen(&receipt, &[0, 1, 2]),
                ancestor: None,
            });
        }
        ready
    }

    /// What an honest perspective would have seen now.
    pub(crate) fn receipt(&self, client: &Client, name: &Name, authorization: AuthorizationId) -> Receipt {
        let now = now();
        let directory: DirectoryName = client.directory.parse().expect("a directory");
        Receipt {
            authorization,
            directory,
            account: client.account.expect("an account"),
            account_url: client.account_url().parse().expect("a URL"),
            thumbprint: client.thumbprint(),
            name: name.clone(),
            method: Method::Http01,
            requirement: acme::receipt::requirement(Method::Http01, name),
            token: acme::id::token(&authorization),
            attempt: 1,
            run: Run::from_bytes([7; 16]),
            perspective: self.system.perspectives[0].perspective().clone(),
            addresses: vec!["192.0.2.1".parse().expect("an address")],
            caa: None,
            persisted: None,
            dnssec: true,
            started: now,
            finished: now,
            outcome: Outcome::Valid,
        }
    }

    /// The receipt as each of these perspectives signs it.
    pub(crate) fn seen(&self, receipt: &Receipt, perspectives: &[usize]) -> Vec<String> {
        let sign = |at: &usize| {
            let key = &self.system.perspectives[*at];
            let receipt = Receipt { perspective: key.perspective().clone(), ..receipt.clone() };
            key.sign(&receipt).expect("a receipt")
        };
        perspectives.iter().map(sign).collect()
    }

    /// A certificate of a client.
    pub(crate) async fn certificate(&mut self, client: &Client, name: &str) -> Vec<u8> {
        let ready = self.ready(client, &[name]).await;
        self.issue(ready.finalized_by(client)).await.expect("a certificate").chain.remove(0).to_vec()
    }
}

#[expect(clippy::disallowed_methods, reason = "the signer under test lives in real time")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_unix(since.expect("a time after 1970").as_secs())
}

/// Every client has names of its own, so that nothing is refused for a reason of another attack.
pub(crate) fn name(attack: &str) -> String {
    format!("{attack}.victim.test")
}

/// Asks for a certificate until there is one: "processing" is no outcome.
pub(crate) async fn issue(
    mut front: AuthorityClient<Channel>,
    request: wire::IssueRequest,
) -> Result<wire::IssuedCertificate, Status> {
    loop {
        match front.issue(request.clone()).await?.into_inner().outcome.expect("an outcome") {
            wire::issue_response::Outcome::Certificate(certificate) => return Ok(certificate),
            wire::issue_response::Outcome::Processing(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
        }
    }
}
