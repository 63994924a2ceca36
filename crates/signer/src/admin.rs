//! The admin service (`proto/chancery/admin/v1`): operators' requests, as gRPC. What they do is in [`crate::operator`],
//! [`crate::node`] and [`crate::revoke`].

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ca_store::{GrantRow, NameScope, NodeRow, NodeState, State};
use rpc::proto::admin::v1 as proto;
use rpc::proto::admin::v1::admin_server::Admin;
use rpc::{PeerIdentity, Role, seconds};
use tonic::{Request, Response, Status};

use crate::ca::Ca;
use crate::crl::CrlState;
use crate::doors::Tokens;
use crate::node::{JOIN_LIFETIME, NodeSettings};
use crate::operator::{EAB_LIFETIME, LimitInForce, RegistrationSettings, page};
use crate::publication::Objects;
use crate::refusal::{Outcome, Reason, Refusal};
use crate::service::status_of;

mod certificates;
mod incidents;
mod selection;

/// The service.
#[derive(Debug, Clone)]
pub struct AdminService {
    ca: Arc<Ca>,
    tokens: Option<Tokens>,
    objects: Option<Objects>,
}

impl AdminService {
    /// The admin service of this CA; `tokens` for the overview.
    #[must_use]
    pub const fn new(ca: Arc<Ca>, tokens: Option<Tokens>) -> Self {
        Self { ca, tokens, objects: None }
    }

    /// The same; lists of CRLs say how large those are that this signer publishes.
    #[must_use]
    pub fn showing(self, objects: Objects) -> Self {
        Self { objects: Some(objects), ..self }
    }

    /// The operator's name. An operator of the ceremony is known, and listed, from its first act on.
    async fn operator<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let peer = PeerIdentity::of(request)?.clone();
        let known = self.ca.know_node(&peer).await;
        self.ca.observe(known).map_err(|failure| status_of(&failure))?;
        Ok(peer.name.as_str().to_owned())
    }

    /// The answer of an operator's request, refusals counted like all others.
    fn answer<T>(&self, outcome: Outcome<T>) -> Result<Response<T>, Status> {
        self.ca.observe(outcome).map(Response::new).map_err(|failure| status_of(&failure))
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn overview(
        &self,
        request: Request<proto::OverviewRequest>,
    ) -> Result<Response<proto::OverviewResponse>, Status> {
        self.operator(&request).await?;
        let ca = &self.ca;
        let issuers = ca.registry.issuers().map(|entry| proto::IssuerState {
            id: entry.id.clone(),
            subject: entry.issuer.certificate().subject_text(),
            pool: entry.pool.clone(),
            not_after: seconds(entry.issuer.certificate().not_after()),
            healthy: ca
                .doors
                .issuer(&entry.id)
                .is_ok_and(|door| matches!(door.health(), hsm::KeyHealth::Ready(_))),
            shards: entry.shards,
            test_ca: entry.issuer.certificate().is_test_ca(),
        });
        let names: Vec<&str> = self.tokens.iter().flat_map(Tokens::names).collect();
        let tokens = names.into_iter().map(|name| {
            let trouble = self.tokens.as_ref().and_then(|tokens| tokens.trouble(name));
            proto::TokenState {
                name: name.to_owned(),
                healthy: trouble.is_none(),
                detail: trouble.unwrap_or_default(),
            }
        });
        let mut epoch = format!("{}-", ca.info.epoch.number);
        epoch.push_str(&hex::encode(ca.info.epoch.random));
        Ok(Response::new(proto::OverviewResponse {
            signer: ca.node.clone(),
            directories: ca.registry.directories().map(|directory| directory.name().to_string()).collect(),
            always_valid: ca
                .registry
                .directories()
                .filter(|directory| directory.policy.always_valid)
                .map(|directory| directory.name().to_string())
                .collect(),
            issuers: issuers.collect(),
            tokens: tokens.collect(),
            epoch,
        }))
    }

    async fn create_registration(
        &self,
        request: Request<proto::CreateRegistrationRequest>,
    ) -> Result<Response<proto::Registration>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let made = self
            .ca
            .create_registration(&operator, &request.directory, &request.name, &request.profiles)
            .await;
        self.answer(made.map(registration))
    }

    async fn list_registrations(
        &self,
        request: Request<proto::ListRegistrationsRequest>,
    ) -> Result<Response<proto::ListRegistrationsResponse>, Status> {
        self.operator(&request).await?;
        let request = request.into_inner();
        let directory = Some(request.directory.as_str()).filter(|name| !name.is_empty());
        let rows = self.ca.list_registrations(directory, page(request.page_token, request.page_size)).await;
        self.answer(rows.map(|rows| proto::ListRegistrationsResponse {
            registrations: rows.items.into_iter().map(registration).collect(),
            next_page_token: rows.next.map(|cursor| cursor.0).unwrap_or_default(),
        }))
    }

    async fn set_profiles(
        &self,
        request: Request<proto::SetProfilesRequest>,
    ) -> Result<Response<proto::Registration>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let set = self.ca.set_profiles(&operator, &request.registration_id, &request.profiles).await;
        self.answer(set.map(registration))
    }

    async fn list_limits(
        &self,
        request: Request<proto::ListLimitsRequest>,
    ) -> Result<Response<proto::ListLimitsResponse>, Status> {
        self.operator(&request).await?;
        let limits = self.ca.list_limits(&request.into_inner().registration_id).await;
        self.answer(limits.map(|limits| limits_message(&limits)))
    }

    async fn set_limits(
        &self,
        request: Request<proto::SetLimitsRequest>,
    ) -> Result<Response<proto::ListLimitsResponse>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let limits: Vec<_> = request.limits.into_iter().map(|one| (one.name, one.rate)).collect();
        let set = self.ca.set_limits(&operator, &request.registration_id, &limits).await;
        self.answer(set.map(|limits| limits_message(&limits)))
    }

    async fn add_grant(
        &self,
        request: Request<proto::AddGrantRequest>,
    ) -> Result<Response<proto::Grant>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let made = match scope(request.kind()) {
            Ok(scope) => self.ca.add_grant(&operator, &request.registration_id, scope, &request.value).await,
            Err(refusal) => Err(refusal.into()),
        };
        self.answer(made.map(grant))
    }

    async fn remove_grant(
        &self,
        request: Request<proto::RemoveGrantRequest>,
    ) -> Result<Response<proto::Grant>, Status> {
        let operator = self.operator(&request).await?;
        let gone = self.ca.remove_grant(&operator, &request.into_inner().grant_id).await;
        self.answer(gone.map(grant))
    }

    async fn list_grants(
        &self,
        request: Request<proto::ListGrantsRequest>,
    ) -> Result<Response<proto::ListGrantsResponse>, Status> {
        self.operator(&request).await?;
        let rows = self.ca.list_grants(&request.into_inner().registration_id).await;
        self.answer(
            rows.map(|rows| proto::ListGrantsResponse { grants: rows.into_iter().map(grant).collect() }),
        )
    }

    async fn add_permit(
        &self,
        request: Request<proto::AddPermitRequest>,
    ) -> Result<Response<proto::Permit>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let made = match scope(request.kind()) {
            Ok(scope) => self.ca.add_permit(&operator, &request.registration_id, scope, &request.value).await,
            Err(refusal) => Err(refusal.into()),
        };
        self.answer(made.map(|row| proto::Permit {
            id: row.id,
            registration_id: row.registration,
            kind: kind(row.scope).into(),
            value: row.name,
        }))
    }

    async fn create_eab_key(
        &self,
        request: Request<proto::CreateEabKeyRequest>,
    ) -> Result<Response<proto::CreateEabKeyResponse>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let lifetime = or_default(request.lifetime_seconds, EAB_LIFETIME);
        let uses = request.uses.max(1);
        let made = self.ca.create_eab_key(&operator, &request.registration_id, uses, lifetime).await;
        self.answer(made.map(|key| proto::CreateEabKeyResponse {
            kid: key.row.kid,
            hmac_key: URL_SAFE_NO_PAD.encode(*key.secret),
            expires_at: key.row.expires_at.map_or(0, seconds),
        }))
    }

    async fn revoke_eab_key(
        &self,
        request: Request<proto::RevokeEabKeyRequest>,
    ) -> Result<Response<proto::RevokeEabKeyResponse>, Status> {
        let operator = self.operator(&request).await?;
        let done = self.ca.revoke_eab_key(&operator, &request.into_inner().kid).await;
        self.answer(done.map(|()| proto::RevokeEabKeyResponse {}))
    }

    async fn create_join_token(
        &self,
        request: Request<proto::CreateJoinTokenRequest>,
    ) -> Result<Response<proto::CreateJoinTokenResponse>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let lifetime = or_default(request.lifetime_seconds, JOIN_LIFETIME);
        let made = match role(&request.role) {
            Ok(role) => {
                self.ca
                    .create_join_token(&operator, role, &request.name, request.server_names, lifetime)
                    .await
            }
            Err(refusal) => Err(refusal.into()),
        };
        self.answer(made.map(|(token, expires_at)| proto::CreateJoinTokenResponse {
            token: token.to_string(),
            expires_at: seconds(expires_at),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<proto::ListNodesRequest>,
    ) -> Result<Response<proto::ListNodesResponse>, Status> {
        self.operator(&request).await?;
        let reloaded = self.ca.reload_nodes().await.map_err(Into::into);
        let nodes = self.ca.membership.nodes();
        self.answer(reloaded.map(|()| proto::ListNodesResponse { nodes: nodes.iter().map(node).collect() }))
    }

    async fn revoke_node(
        &self,
        request: Request<proto::RevokeNodeRequest>,
    ) -> Result<Response<proto::Node>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let revoked = match role(&request.role) {
            Ok(role) => self.ca.revoke_node(&operator, role, &request.name).await,
            Err(refusal) => Err(refusal.into()),
        };
        self.answer(revoked.map(|row| node(&row)))
    }

    async fn list_certificates(
        &self,
        request: Request<proto::ListCertificatesRequest>,
    ) -> Result<Response<proto::ListCertificatesResponse>, Status> {
        self.operator(&request).await?;
        let listed = certificates::list(&self.ca, request.into_inner()).await;
        self.answer(listed)
    }

    async fn show_certificate(
        &self,
        request: Request<proto::ShowCertificateRequest>,
    ) -> Result<Response<proto::ShowCertificateResponse>, Status> {
        self.operator(&request).await?;
        let shown = certificates::show(&self.ca, &request.into_inner()).await;
        self.answer(shown)
    }

    async fn revoke_certificate(
        &self,
        request: Request<proto::RevokeCertificateRequest>,
    ) -> Result<Response<proto::RevokeCertificateResponse>, Status> {
        let operator = self.operator(&request).await?;
        let revoked = certificates::revoke(&self.ca, &operator, &request.into_inner()).await;
        self.answer(revoked)
    }

    async fn import_crl(
        &self,
        request: Request<proto::ImportCrlRequest>,
    ) -> Result<Response<proto::ImportCrlResponse>, Status> {
        let operator = self.operator(&request).await?;
        let request = request.into_inner();
        let imported = self.ca.import_crl(&operator, request.crl.into(), request.allow_removals).await;
        self.answer(imported.map(|(root, row)| proto::ImportCrlResponse {
            root,
            number: row.number,
            this_update: seconds(row.this_update),
            next_update: seconds(row.next_update),
        }))
    }

    async fn list_crls(
        &self,
        request: Request<proto::ListCrlsRequest>,
    ) -> Result<Response<proto::ListCrlsResponse>, Status> {
        self.operator(&request).await?;
        let size = |path: &str| self.objects.as_ref().and_then(|objects| objects.size(path)).unwrap_or(0);
        let listed = self.ca.list_crls().await;
        self.answer(listed.map(|crls| {
            proto::ListCrlsResponse {
                crls: crls
                    .into_iter()
                    .map(|crl| proto::CrlState { size: size(&crl.path), ..crl_state_of(crl) })
                    .collect(),
            }
        }))
    }

    async fn select_certificates(
        &self,
        request: Request<proto::SelectCertificatesRequest>,
    ) -> Result<Response<proto::SelectionPage>, Status> {
        self.operator(&request).await?;
        let selected = selection::select(&self.ca, request.into_inner()).await;
        self.answer(selected)
    }

    async fn revoke_selected(
        &self,
        request: Request<proto::RevokeSelectedRequest>,
    ) -> Result<Response<proto::SelectionPage>, Status> {
        let operator = self.operator(&request).await?;
        let revoked = selection::revoke(&self.ca, &operator, request.into_inner()).await;
        self.answer(revoked)
    }

    async fn open_incident(
        &self,
        request: Request<proto::OpenIncidentRequest>,
    ) -> Result<Response<proto::Incident>, Status> {
        let operator = self.operator(&request).await?;
        let opened = incidents::open(&self.ca, &operator, request.into_inner()).await;
        self.answer(opened)
    }

    async fn collect_incident(
        &self,
        request: Request<proto::CollectIncidentRequest>,
    ) -> Result<Response<proto::CollectIncidentResponse>, Status> {
        let operator = self.operator(&request).await?;
        let collected = incidents::collect(&self.ca, &operator, request.into_inner()).await;
        self.answer(collected)
    }

    async fn start_incident(
        &self,
        request: Request<proto::IncidentRequest>,
    ) -> Result<Response<proto::Incident>, Status> {
        let operator = self.operator(&request).await?;
        let started = self.ca.start_incident(&operator, &request.into_inner().incident).await;
        self.answer(started.map(|row| incidents::message(row, Vec::new())))
    }

    async fn close_incident(
        &self,
        request: Request<proto::IncidentRequest>,
    ) -> Result<Response<proto::Incident>, Status> {
        let operator = self.operator(&request).await?;
        let closed = self.ca.close_incident(&operator, &request.into_inner().incident).await;
        self.answer(closed.map(|row| incidents::message(row, Vec::new())))
    }

    async fn extend_incident(
        &self,
        request: Request<proto::ExtendIncidentRequest>,
    ) -> Result<Response<proto::Incident>, Status> {
        let operator = self.operator(&request).await?;
        let extended = incidents::extend(&self.ca, &operator, request.into_inner()).await;
        self.answer(extended)
    }

    async fn list_incidents(
        &self,
        request: Request<proto::ListIncidentsRequest>,
    ) -> Result<Response<proto::ListIncidentsResponse>, Status> {
        self.operator(&request).await?;
        let listed = incidents::list(&self.ca, request.into_inner()).await;
        self.answer(listed)
    }

    async fn show_incident(
        &self,
        request: Request<proto::IncidentRequest>,
    ) -> Result<Response<proto::Incident>, Status> {
        self.operator(&request).await?;
        let shown = incidents::show(&self.ca, &request.into_inner().incident).await;
        self.answer(shown)
    }

    async fn review_incident(
        &self,
        request: Request<proto::ReviewIncidentRequest>,
    ) -> Result<Response<proto::ReviewIncidentResponse>, Status> {
        self.operator(&request).await?;
        let reviewed = incidents::review(&self.ca, request.into_inner()).await;
        self.answer(reviewed)
    }

    async fn list_incident_accounts(
        &self,
        request: Request<proto::ListIncidentAccountsRequest>,
    ) -> Result<Response<proto::ListIncidentAccountsResponse>, Status> {
        self.operator(&request).await?;
        let listed = incidents::accounts(&self.ca, request.into_inner()).await;
        self.answer(listed)
    }
}

/// A CRL as operators see it.
fn crl_state_of(crl: CrlState) -> proto::CrlState {
    proto::CrlState {
        authority: crl.authority,
        shard: crl.shard,
        kind: crl.kind.to_owned(),
        path: crl.path,
        number: crl.number,
        base: crl.base.unwrap_or(0),
        revision: crl.revision,
        shard_revision: crl.shard_revision,
        entries: crl.entries,
        size: 0,
        this_update: seconds(crl.this_update),
        next_update: seconds(crl.next_update),
    }
}

fn refused(detail: &str) -> Refusal {
    Refusal::new(Reason::OperatorRequest, detail)
}

fn role(text: &str) -> Result<Role, Refusal> {
    text.parse().map_err(|_| refused("a role is front, validator, signer, status or operator"))
}

fn scope(kind: proto::GrantKind) -> Result<NameScope, Refusal> {
    match kind {
        proto::GrantKind::Exact => Ok(NameScope::Exact),
        proto::GrantKind::Wildcard => Ok(NameScope::Wildcard),
        proto::GrantKind::Subtree => Ok(NameScope::Subtree),
        proto::GrantKind::IpRange => Ok(NameScope::IpRange),
        proto::GrantKind::Unspecified => Err(refused("say which kind: exact, wildcard, subtree or ip-range")),
    }
}

const fn kind(scope: NameScope) -> proto::GrantKind {
    match scope {
        NameScope::Exact => proto::GrantKind::Exact,
        NameScope::Wildcard => proto::GrantKind::Wildcard,
        NameScope::Subtree => proto::GrantKind::Subtree,
        NameScope::IpRange => proto::GrantKind::IpRange,
    }
}

fn or_default(seconds: u64, default: Duration) -> Duration {
    if seconds == 0 { default } else { Duration::from_secs(seconds) }
}

fn limits_message(limits: &[LimitInForce]) -> proto::ListLimitsResponse {
    let message = |limit: &LimitInForce| proto::Limit {
        name: limit.name.as_str().to_owned(),
        rate: limit.rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string()),
        own: limit.own,
    };
    proto::ListLimitsResponse { limits: limits.iter().map(message).collect() }
}

fn registration(row: ca_store::RegistrationRow) -> proto::Registration {
    let settings = RegistrationSettings::of(&row);
    proto::Registration {
        created_by: settings.created_by,
        profiles: settings.profiles,
        id: row.id,
        directory: row.directory,
        name: row.title,
        state: row.state.as_str().to_owned(),
        created_at: seconds(row.created_at),
    }
}

fn grant(row: GrantRow) -> proto::Grant {
    proto::Grant {
        id: row.id,
        registration_id: row.registration,
        kind: kind(row.scope).into(),
        value: row.name,
        created_at: seconds(row.created_at),
        in_force: row.state == State::Active,
    }
}

fn node(row: &NodeRow) -> proto::Node {
    let settings = NodeSettings::of(row);
    proto::Node {
        role: row.role.clone(),
        name: row.name.clone(),
        state: match row.state {
            NodeState::Active => "active".to_owned(),
            NodeState::Revoked => "revoked".to_owned(),
        },
        joined_at: seconds(row.created_at),
        not_after: i64::try_from(settings.not_after).unwrap_or(i64::MAX),
        server_names: row.server_names.clone(),
    }
}
