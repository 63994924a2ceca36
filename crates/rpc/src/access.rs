//! Who may call what: deny by default, per RPC.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, debug_span, warn};

use crate::{
    identity::{Peer, PeerIdentity, Role},
    limit,
    revocation::Revocations,
};

/// One RPC and the roles that may call it.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The full path, `/package.Service/Method`.
    pub method: &'static str,
    /// Who may.
    pub roles: &'static [Role],
}

const fn rule(method: &'static str, roles: &'static [Role]) -> Rule {
    Rule { method, roles }
}

const FRONT: &[Role] = &[Role::Front];
const OPERATOR: &[Role] = &[Role::Operator];
const STATUS: &[Role] = &[Role::Status];
const VALIDATOR: &[Role] = &[Role::Validator];

/// What fronts ask of signers.
pub const AUTHORITY: &[Rule] = &[
    rule("/chancery.signer.v1.Authority/ListDirectories", FRONT),
    rule("/chancery.signer.v1.Authority/AuthorizeOrder", FRONT),
    rule("/chancery.signer.v1.Authority/AuthorizeIdentifier", FRONT),
    rule("/chancery.signer.v1.Authority/DeactivateAuthorization", FRONT),
    rule("/chancery.signer.v1.Authority/RegisterAccount", FRONT),
    rule("/chancery.signer.v1.Authority/UpdateAccount", FRONT),
    rule("/chancery.signer.v1.Authority/ChangeKey", FRONT),
    rule("/chancery.signer.v1.Authority/LookUpAccount", FRONT),
    rule("/chancery.signer.v1.Authority/WatchAccounts", FRONT),
    rule("/chancery.signer.v1.Authority/Issue", FRONT),
    rule("/chancery.signer.v1.Authority/DownloadCertificate", FRONT),
    rule("/chancery.signer.v1.Authority/Revoke", FRONT),
    rule("/chancery.signer.v1.Authority/RenewalInfo", FRONT),
    rule("/chancery.signer.v1.Authority/IssueServerCertificate", FRONT),
];

/// What every node asks of signers.
pub const MEMBERSHIP: &[Rule] = &[rule("/chancery.signer.v1.Membership/Renew", &Role::ALL)];

/// What status nodes ask of signers.
pub const PUBLICATION: &[Rule] = &[
    rule("/chancery.status.v1.Publication/ListObjects", STATUS),
    rule("/chancery.status.v1.Publication/FetchObject", STATUS),
    rule("/chancery.status.v1.Publication/WatchObjects", STATUS),
];

/// What status nodes ask of signers about single certificates.
pub const RESPONDER: &[Rule] = &[
    rule("/chancery.status.v1.Responder/Answer", STATUS),
    rule("/chancery.status.v1.Responder/ListRevisions", STATUS),
    rule("/chancery.status.v1.Responder/WatchRevocations", STATUS),
];

/// What operators ask of signers.
pub const ADMIN: &[Rule] = &[
    rule("/chancery.admin.v1.Admin/Overview", OPERATOR),
    rule("/chancery.admin.v1.Admin/CreateRegistration", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListRegistrations", OPERATOR),
    rule("/chancery.admin.v1.Admin/SetProfiles", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListLimits", OPERATOR),
    rule("/chancery.admin.v1.Admin/SetLimits", OPERATOR),
    rule("/chancery.admin.v1.Admin/AddGrant", OPERATOR),
    rule("/chancery.admin.v1.Admin/RemoveGrant", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListGrants", OPERATOR),
    rule("/chancery.admin.v1.Admin/AddPermit", OPERATOR),
    rule("/chancery.admin.v1.Admin/CreateEabKey", OPERATOR),
    rule("/chancery.admin.v1.Admin/RevokeEabKey", OPERATOR),
    rule("/chancery.admin.v1.Admin/CreateJoinToken", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListNodes", OPERATOR),
    rule("/chancery.admin.v1.Admin/RevokeNode", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListCertificates", OPERATOR),
    rule("/chancery.admin.v1.Admin/ShowCertificate", OPERATOR),
    rule("/chancery.admin.v1.Admin/RevokeCertificate", OPERATOR),
    rule("/chancery.admin.v1.Admin/ImportCrl", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListCrls", OPERATOR),
    rule("/chancery.admin.v1.Admin/SelectCertificates", OPERATOR),
    rule("/chancery.admin.v1.Admin/RevokeSelected", OPERATOR),
    rule("/chancery.admin.v1.Admin/OpenIncident", OPERATOR),
    rule("/chancery.admin.v1.Admin/CollectIncident", OPERATOR),
    rule("/chancery.admin.v1.Admin/StartIncident", OPERATOR),
    rule("/chancery.admin.v1.Admin/CloseIncident", OPERATOR),
    rule("/chancery.admin.v1.Admin/ExtendIncident", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListIncidents", OPERATOR),
    rule("/chancery.admin.v1.Admin/ShowIncident", OPERATOR),
    rule("/chancery.admin.v1.Admin/ReviewIncident", OPERATOR),
    rule("/chancery.admin.v1.Admin/ListIncidentAccounts", OPERATOR),
];

/// What fronts ask of fronts.
pub const NONCES: &[Rule] = &[rule("/chancery.front.v1.Nonces/Redeem", FRONT)];

/// What fronts ask of their primary validator.
pub const VALIDATE: &[Rule] = &[rule("/chancery.validator.v1.Validator/Validate", FRONT)];

/// What primary validators ask of remote perspectives.
pub const PERSPECTIVE: &[Rule] = &[rule("/chancery.validator.v1.Perspective/Observe", VALIDATOR)];

/// What anybody may ask, on the enrolment port alone; no table of a mutual port can hold these.
pub const ENROLLMENT: &[&str] = &["/chancery.signer.v1.Enrollment/Join"];

/// The rules of one port.
#[derive(Clone, Debug, Default)]
pub struct AccessTable {
    rules: HashMap<&'static str, &'static [Role]>,
    watcher: Option<Watcher>,
}

/// Hears of every call that the port turned away before its service saw it.
#[derive(Clone)]
struct Watcher(Arc<dyn Fn(Refused) + Send + Sync>);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Watcher")
    }
}

impl AccessTable {
    /// Puts tables together; a path that is in none of them is nobody's.
    pub fn of(tables: &[&[Rule]]) -> Self {
        let rules = tables.iter().copied().flatten().map(|rule| (rule.method, rule.roles)).collect();
        Self { rules, watcher: None }
    }

    /// The same; `watcher` hears of every call that is turned away, so that a role can account for it.
    #[must_use]
    pub fn watched(mut self, watcher: impl Fn(Refused) + Send + Sync + 'static) -> Self {
        self.watcher = Some(Watcher(Arc::new(watcher)));
        self
    }

    /// A signer's port.
    pub fn signer() -> Self {
        Self::of(&[AUTHORITY, MEMBERSHIP, PUBLICATION, RESPONDER, ADMIN])
    }

    /// A front's port.
    pub fn front() -> Self {
        Self::of(&[NONCES])
    }

    /// A validator's port: primary and perspective alike.
    pub fn validator() -> Self {
        Self::of(&[VALIDATE, PERSPECTIVE])
    }

    /// The roles that may call a path.
    pub fn roles(&self, path: &str) -> &'static [Role] {
        self.rules.get(path).copied().unwrap_or_default()
    }

    fn rule(&self, path: &str) -> Option<Rule> {
        self.rules.get_key_value(path).map(|(method, roles)| Rule { method, roles })
    }
}

/// Stands before every handler of a port.
#[derive(Clone)]
pub(crate) struct Gate {
    policy: Arc<Policy>,
}

struct Policy {
    kind: PolicyKind,
    maximum_request_bytes: usize,
}

enum PolicyKind {
    Mutual { table: AccessTable, revocations: Revocations },
    Anonymous,
}

impl Gate {
    pub(crate) fn mutual(table: AccessTable, revocations: Revocations, maximum_request_bytes: usize) -> Self {
        let kind = PolicyKind::Mutual { table, revocations };
        Self { policy: Arc::new(Policy { kind, maximum_request_bytes }) }
    }

    pub(crate) fn anonymous(maximum_request_bytes: usize) -> Self {
        Self { policy: Arc::new(Policy { kind: PolicyKind::Anonymous, maximum_request_bytes }) }
    }
}

impl Policy {
    fn turned_away(&self, refused: Refused) {
        metrics::counter!("chancery_rpc_refused_total", "reason" => refused.as_str()).increment(1);
        if let PolicyKind::Mutual { table: AccessTable { watcher: Some(watcher), .. }, .. } = &self.kind {
            (watcher.0)(refused);
        }
    }

    /// The method that may be called, or why it may not.
    fn decide(&self, path: &str, peer: Option<&PeerIdentity>) -> Result<&'static str, Refused> {
        match &self.kind {
            PolicyKind::Anonymous => {
                ENROLLMENT.iter().find(|method| **method == path).copied().ok_or(Refused::Unlisted)
            }
            PolicyKind::Mutual { table, revocations } => {
                let peer = peer.ok_or(Refused::Nobody)?;
                // The connection is being closed at this moment; what it still carries counts no more.
                if revocations.contains(peer) {
                    return Err(Refused::Revoked);
                }
                let rule = table.rule(path).ok_or(Refused::Unlisted)?;
                if rule.roles.contains(&peer.role) { Ok(rule.method) } else { Err(Refused::Role) }
            }
        }
    }
}

/// Why a call did not come to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The caller has no certificate.
    Nobody,
    /// The caller is revoked.
    Revoked,
    /// The caller's role may not.
    Role,
    /// The port has no such RPC.
    Unlisted,
    /// The message is larger than the port takes.
    TooLarge,
    /// The message is not what its definition says.
    Malformed,
}

impl Refused {
    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "no_certificate",
            Self::Revoked => "revoked",
            Self::Role => "role",
            Self::Unlisted => "unlisted",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
        }
    }

    fn status(self) -> Status {
        match self {
            Self::Nobody => Status::unauthenticated("a client certificate is required"),
            Self::Revoked => Status::permission_denied("this node is revoked"),
            // One answer for both: a caller learns nothing of what else there is.
            Self::Role | Self::Unlisted => Status::permission_denied("not for this role"),
            Self::TooLarge => Status::out_of_range("the request is too large"),
            Self::Malformed => Status::internal("the request cannot be read"),
        }
    }

    /// What tonic has answered before it called the service. Services of ours never say `OutOfRange`, and none speaks
    /// of Protobuf.
    fn before_the_service(answer: &Response<Body>) -> Option<Self> {
        let status = Status::from_header_map(answer.headers())?;
        match status.code() {
            Code::OutOfRange => Some(Self::TooLarge),
            Code::ResourceExhausted if status.message() == limit::TOO_LARGE => Some(Self::TooLarge),
            Code::Internal if status.message().contains("decode Protobuf") => Some(Self::Malformed),
            _ => None,
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated { inner, policy: Arc::clone(&self.policy) }
    }
}

/// A service behind its gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let identity = peer.as_ref().and_then(|peer| peer.identity.as_deref());
        let path = request.uri().path();
        let method = match self.policy.decide(path, identity) {
            Ok(method) => method,
            Err(refused) => {
                let name = identity.map(ToString::to_string).unwrap_or_default();
                let address = peer.as_ref().map(|peer| peer.address.to_string()).unwrap_or_default();
                warn!(peer = name, address, path, reason = refused.as_str(), "rpc.refused");
                self.policy.turned_away(refused);
                return Box::pin(std::future::ready(Ok(refused.status().into_http())));
            }
        };
        let span = debug_span!("rpc.serve", method, peer = identity.map(tracing::field::display));
        let maximum = self.policy.maximum_request_bytes;
        let request = request.map(|body| limit::body(body, maximum));
        let answer = self.inner.call(request).instrument(span);
        let started = Instant::now();
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let answer = answer.await;
            if let Some(refused) = answer.as_ref().ok().and_then(Refused::before_the_service) {
                warn!(method, reason = refused.as_str(), "rpc.refused");
                policy.turned_away(refused);
            }
            metrics::histogram!("chancery_rpc_seconds", "method" => method)
                .record(started.elapsed().as_secs_f64());
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use pki::{Serial, Timestamp};

    use super::*;
    use crate::revocation::Revoked;

    fn peer(role: Role) -> PeerIdentity {
        PeerIdentity {
            role,
            name: "a".parse().unwrap(),
            serial: Serial::from_random([7; 16]),
            not_before: Timestamp::from_unix(0),
            not_after: Timestamp::MAX,
        }
    }

    #[test]
    fn every_request_is_judged_by_path_role_and_list() {
        let revocations = Revocations::new();
        let gate = Gate::mutual(AccessTable::signer(), revocations.clone(), 1);
        let decide = |path: &str, peer: Option<&PeerIdentity>| gate.policy.decide(path, peer);
        let (issue, front) = ("/chancery.signer.v1.Authority/Issue", peer(Role::Front));
        assert_eq!(decide(issue, Some(&front)), Ok(issue));
        assert_eq!(decide(issue, Some(&peer(Role::Status))), Err(Refused::Role));
        assert_eq!(decide(issue, None), Err(Refused::Nobody));
        for path in ["/chancery.signer.v1.Authority/issue", "/chancery.signer.v1.Authority/", "", "/"] {
            assert_eq!(decide(path, Some(&front)), Err(Refused::Unlisted), "{path}");
        }
        // No mutual port enrols.
        assert_eq!(decide(ENROLLMENT[0], Some(&front)), Err(Refused::Unlisted));
        revocations.revoke(Revoked::Certificate(front.serial));
        assert_eq!(decide(issue, Some(&front)), Err(Refused::Revoked));
        revocations.replace([Revoked::Node(Role::Front, "b".parse().unwrap())]);
        assert_eq!(decide(issue, Some(&front)), Ok(issue));
        revocations.replace([Revoked::Node(Role::Front, "a".parse().unwrap())]);
        assert_eq!(decide(issue, Some(&front)), Err(Refused::Revoked));

        let anonymous = Gate::anonymous(1);
        assert_eq!(anonymous.policy.decide(ENROLLMENT[0], None), Ok(ENROLLMENT[0]));
        assert_eq!(anonymous.policy.decide(issue, Some(&front)), Err(Refused::Unlisted));
    }
}
