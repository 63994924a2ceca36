//! The fronts' own HTTPS certificates (DESIGN §9): from an internal profile, for names that an operator gave the node.

use std::collections::BTreeMap;

use ca_store::{JournalKind, NodeState};
use parking_lot::Mutex;
use pki::{Csr, Name, Timestamp};
use rpc::Role;

use crate::account::thumbprint_of;
use crate::ca::Ca;
use crate::issue::{Subject, bad_key, csr_reason, issued, lint_record, sha256};
use crate::journal::{CertificateDraft, Commit, OwnCertificate, Record};
use crate::refusal::{Failure, Outcome, Reason, Refusal};

/// A front renews every few days; this many in an hour is a loop or an attack, and would fill the journal.
const MOST_IN_AN_HOUR: u32 = 20;

/// Certificates by node in this hour.
#[derive(Debug, Default)]
pub(crate) struct ServerQuota(Mutex<BTreeMap<String, (u64, u32)>>);

impl ServerQuota {
    fn take(&self, node: &str, now: Timestamp) -> bool {
        let hour = now.unix() / 3600;
        let mut counts = self.0.lock();
        let (of, count) = counts.entry(node.to_owned()).or_insert((hour, 0));
        if *of != hour {
            (*of, *count) = (hour, 0);
        }
        *count += 1;
        *count <= MOST_IN_AN_HOUR
    }
}

impl Ca {
    /// Issues a front's own certificate; DER, leaf first, without the root.
    ///
    /// # Errors
    /// A refusal when the names are not the node's, or what keeps it from being done.
    pub async fn issue_server_certificate(&self, node: &str, csr: &[u8]) -> Outcome<Vec<Vec<u8>>> {
        let forbidden = |detail: &str| Refusal::new(Reason::NodeForbidden, detail);
        let servers =
            self.registry.servers().ok_or_else(|| forbidden("this CA makes no server certificates"))?;
        let csr_sha256 = sha256(csr);
        let csr = Csr::from_der(csr).map_err(|error| Refusal::new(csr_reason(&error), error.to_string()))?;
        let nodes = self.membership.nodes();
        let row = nodes.node(Role::Front, node).filter(|row| row.state == NodeState::Active);
        let row = row.ok_or_else(|| forbidden("the node is not active"))?;
        let own: Vec<Name> = row.server_names.iter().filter_map(|name| name.parse().ok()).collect();
        if !csr.names().iter().all(|name| own.contains(name)) {
            let detail = "a name is not one of the node's server names";
            return Err(Refusal::new(Reason::NodeName, detail).into());
        }
        for name in csr.names() {
            servers
                .profile
                .check_name(name)
                .map_err(|refusal| Refusal::new(Reason::NameRejected, format!("{name}: {refusal}")))?;
        }
        self.check_certificate_key(None, &servers.profile, csr.public_key())?;
        let now = self.now()?;
        if !self.server_quota.take(node, now) {
            return Err(Refusal::new(Reason::RateLimited, "too many certificates for this node").into());
        }
        let subject = Subject {
            request: None,
            profile: &servers.profile,
            pool: &servers.pool,
            csr: &csr,
            names: csr.names(),
            not_before: None,
            not_after: None,
            assumed: false,
            at: now,
        };
        let (made, findings) = self.make_tbs(&subject)?;
        let actor = format!("{}/{node}", Role::Front);
        let issuer = made.issuer.id.clone();
        let draft = CertificateDraft::from(OwnCertificate {
            kind: JournalKind::Server,
            serial: made.serial,
            issuer: &issuer,
            profile: servers.profile.name(),
            shard: made.shard,
            public_key: csr.public_key(),
            csr_sha256: Some(csr_sha256),
            validity: made.validity,
            tbs: made.tbs,
            at: now,
            actor: &actor,
            names: csr.names().iter().map(ToString::to_string).collect(),
            lints: Some(lint_record(servers.profile.name(), &findings)),
            account_key: thumbprint_of(csr.public_key()),
        });
        match self.journal.commit(draft).await? {
            Commit::Committed(intent) => match self.sign_and_record(intent).await? {
                Record::Issued(row) => self.with_issuers(issued(&row)?.certificate, &issuer),
                Record::Abandoned => Err(Failure::Contended),
            },
            Commit::KeyBlocked => Err(bad_key(None, false).into()),
            Commit::KeyOfAccount => Err(bad_key(None, true).into()),
            _ => Err(Failure::Contended),
        }
    }
}
