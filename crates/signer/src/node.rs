//! The nodes: joining, renewal, revocation (DESIGN §1). The node CA signs for identities that a row of `ca` holds, and
//! for nothing else.

use std::sync::Arc;
use std::time::Duration;

use ca_store::{
    AuthorityChange, AuthorityChanges, AuthorityRow, JoinTokenRow, JournalKey, JournalKind, NodeRow,
    NodeState, PutOutcome,
};
use pki::lint::{self, LintContext};
use pki::tbs::NodeRequest;
use pki::{Certificate, Name, NameSet, NodeIdentity, Period, PublicKey, Serial, Timestamp, Validity};
use rpc::enroll::{Fingerprint, JoinToken, requested_key};
use rpc::{PeerIdentity, Role};
use serde::{Deserialize, Serialize};

use crate::audit::Event;
use crate::ca::Ca;
use crate::doors::NODE_CA;
use crate::events::Change;
use crate::issue::issued;
use crate::journal::{CertificateDraft, Commit, OwnCertificate, Record};
use crate::membership::Nodes;
use crate::operator::parse_name;
use crate::refusal::{Failure, Outcome, Reason, Refusal};

/// How long a node's certificate is valid. It renews itself at a third of it, so that it outlives many days without an HSM.
pub const NODE_VALIDITY: Period = Period::from_days(30);

/// How long a join token lives if the operator does not say, and at most.
pub const JOIN_LIFETIME: Duration = Duration::from_secs(3600);
/// The longest life of a join token: whoever finds one becomes a node.
pub const LONGEST_JOIN_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// A node renews every ten days or so. More often than this it is a loop or an attack, and would fill the journal.
const RENEWAL_SPACING: Period = Period::from_seconds(60);
/// Names that a node's services can have.
const MOST_SERVER_NAMES: usize = 100;

/// Nodes' clocks may be behind this signer's by this much.
const BACKDATE: Period = Period::from_hours(1);

/// What a node's row says beside its columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSettings {
    /// SHA-256 of the key that its newest certificate is for, hexadecimal.
    #[serde(default)]
    pub(crate) spki_sha256: String,
    /// Digest of the token that it joined with, hexadecimal: a lost answer is asked for again with the same token and key.
    #[serde(default)]
    pub(crate) joined_with: String,
    /// When its newest certificate ends, seconds since the epoch; 0: not known.
    #[serde(default)]
    pub(crate) not_after: u64,
    /// Its newest certificate's serial number, hexadecimal: one token, one certificate.
    #[serde(default)]
    pub(crate) serial: String,
    /// When it was renewed, seconds since the epoch.
    #[serde(default)]
    pub(crate) renewed_at: u64,
}

impl NodeSettings {
    pub(crate) fn of(row: &NodeRow) -> Self {
        serde_json::from_str(&row.settings).unwrap_or_default()
    }

    fn text(&self) -> String {
        // A struct of strings and numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Ca {
    /// The nodes as this signer knows them.
    #[must_use]
    pub fn nodes(&self) -> Arc<Nodes> {
        self.membership.nodes()
    }

    /// Makes a join token: its text, to be shown once, and when it ends. What is stored is its digest.
    ///
    /// # Errors
    /// A refusal when role, name or server names are not ones, or the node exists and is active.
    pub async fn create_join_token(
        &self,
        operator: &str,
        role: Role,
        name: &str,
        server_names: Vec<String>,
        lifetime: Duration,
    ) -> Outcome<(JoinToken, Timestamp)> {
        let node_ca = self.node_ca.as_ref().ok_or_else(no_node_ca)?;
        let bad = |detail: String| Refusal::new(Reason::OperatorRequest, detail);
        NodeIdentity::new(role.as_str(), name).map_err(|error| bad(error.to_string()))?;
        let server_names = checked_server_names(&server_names)?;
        if lifetime.is_zero() || lifetime > LONGEST_JOIN_LIFETIME {
            return Err(bad("a join token lives for 1 second to 7 days".to_owned()).into());
        }
        // A revoked name never returns: certificates of its former life would be good again.
        self.reload_nodes().await?;
        if self.membership.nodes().node(role, name).is_some() {
            return Err(bad(format!("there is, or was, a node {role}/{name}; names are used once")).into());
        }
        let now = self.now()?;
        let expires_at = now.plus(Period::from_seconds(lifetime.as_secs()));
        let authority = Fingerprint::of(node_ca.issuer.certificate().der());
        let token = JoinToken::new(self.random.bytes()?, authority);
        let row = JoinTokenRow {
            digest: token.digest(),
            role: role.to_string(),
            name: name.to_owned(),
            server_names,
            settings: String::new(),
            expires_at,
            used_at: None,
            created_at: now,
            version: 1,
        };
        let detail = serde_json::json!({ "server_names": row.server_names, "expires_at": expires_at.unix() });
        let subject = format!("{role}/{name}");
        let event = Event::Operator { kind: "node.token_created", operator, subject: &subject, detail };
        let changes = vec![AuthorityChange {
            row: AuthorityRow::JoinToken(self.secrets.rows.seal(row)),
            expected: None,
        }];
        self.put(AuthorityChanges { changes, audit: vec![event.at(now)] }).await?;
        Ok((token, expires_at))
    }

    /// Redeems a join token: DER chain, leaf first, node CA last. The same token with the same key may be redeemed again while
    /// it lives, since the answer may have been lost.
    ///
    /// # Errors
    /// A refusal when the token does not exist, was used or has expired, or the request is not one.
    pub async fn join(&self, token: &str, csr: &[u8], receipt_key: &[u8]) -> Outcome<Vec<Vec<u8>>> {
        // One refusal for all: a stranger learns nothing about tokens.
        let refused = || Refusal::new(Reason::JoinToken, "the token is unknown, used or expired").status(403);
        // Before a token is used up for nothing.
        let node_ca = self.node_ca.as_ref().ok_or_else(no_node_ca)?;
        let digest = JoinToken::digest_of(token).map_err(|_| refused())?;
        let sealed = self.store.join_token(&digest).await?.ok_or_else(refused)?;
        let row = self.secrets.rows.open(sealed)?;
        let now = self.now()?;
        if row.expires_at <= now {
            return Err(refused().into());
        }
        let role: Role = row.role.parse().map_err(|_| unreadable("join_tokens", "role"))?;
        let key = requested_key(csr).map_err(|error| Refusal::new(Reason::CsrInvalid, error.to_string()))?;
        let receipt_key = checked_receipt_key(role, receipt_key)?;
        let spki = hex::encode(key.sha256());
        let joined_with = hex::encode(digest);
        let known = self.store.nodes().await?.into_iter().find(|sealed| {
            let node = sealed.unverified();
            node.role == row.role && node.name == row.name
        });
        let known = known.map(|sealed| self.secrets.rows.open(sealed)).transpose()?;
        if row.used_at.is_some() {
            let node = known.filter(|node| node.state == NodeState::Active).ok_or_else(refused)?;
            let settings = NodeSettings::of(&node);
            if settings.joined_with != joined_with
                || settings.spki_sha256 != spki
                || node.receipt_key != receipt_key
            {
                return Err(refused().into());
            }
            return self.certify_node(&node, &settings, &key, now).await;
        }
        if known.is_some() {
            return Err(refused().into());
        }
        let settings = NodeSettings {
            spki_sha256: spki,
            joined_with,
            not_after: validity_within(node_ca.issuer.certificate(), now).not_after.unix(),
            serial: Serial::from_random(self.random.bytes()?).to_string(),
            renewed_at: 0,
        };
        let node = NodeRow {
            role: row.role.clone(),
            name: row.name.clone(),
            settings: settings.text(),
            receipt_key,
            server_names: row.server_names.clone(),
            state: NodeState::Active,
            created_at: now,
            version: 1,
        };
        let subject = format!("{}/{}", node.role, node.name);
        let token_version = row.version;
        let used = JoinTokenRow { used_at: Some(now), version: token_version + 1, ..row };
        let changes = vec![
            AuthorityChange {
                row: AuthorityRow::JoinToken(self.secrets.rows.seal(used)),
                expected: Some(token_version),
            },
            AuthorityChange { row: AuthorityRow::Node(self.secrets.rows.seal(node.clone())), expected: None },
        ];
        let audit = vec![Event::NodeJoined { node: &subject }.at(now)];
        match self.store.put_authority(AuthorityChanges { changes, audit }).await? {
            PutOutcome::Applied => {}
            // Somebody else redeemed it in this moment.
            PutOutcome::Conflict(_) => return Err(refused().into()),
        }
        self.nodes_changed().await?;
        self.certify_node(&node, &settings, &key, now).await
    }

    /// A new certificate for a node's own identity; DER chain as in [`Ca::join`].
    ///
    /// # Errors
    /// A refusal when the node is revoked, its row was lost, or it renews in a loop.
    pub async fn renew(&self, peer: &PeerIdentity, csr: &[u8]) -> Outcome<Vec<Vec<u8>>> {
        let node_ca = self.node_ca.as_ref().ok_or_else(no_node_ca)?;
        let key = requested_key(csr).map_err(|error| Refusal::new(Reason::CsrInvalid, error.to_string()))?;
        let now = self.now()?;
        let known = self.membership.nodes().node(peer.role, peer.name.as_str()).cloned();
        let expected = known.as_ref().map(|node| node.version);
        let mut node = match known {
            Some(node) => node,
            None => self.ceremony_node(peer, now).await?,
        };
        if node.state != NodeState::Active {
            return Err(Refusal::new(Reason::NodeForbidden, "this node was revoked").status(403).into());
        }
        let renewed_at = Timestamp::from_unix(NodeSettings::of(&node).renewed_at);
        if now < renewed_at.plus(RENEWAL_SPACING) {
            let mut refusal = Refusal::new(Reason::RateLimited, "this node was renewed a moment ago");
            refusal.retry_after = Some(RENEWAL_SPACING.duration());
            return Err(refusal.into());
        }
        let settings = NodeSettings {
            spki_sha256: hex::encode(key.sha256()),
            joined_with: String::new(),
            not_after: validity_within(node_ca.issuer.certificate(), now).not_after.unix(),
            serial: Serial::from_random(self.random.bytes()?).to_string(),
            renewed_at: now.unix(),
        };
        node.settings = settings.text();
        node.version += 1;
        let subject = format!("{}/{}", node.role, node.name);
        let changes =
            vec![AuthorityChange { row: AuthorityRow::Node(self.secrets.rows.seal(node.clone())), expected }];
        // Revoked in this moment by another signer: the version says so.
        let audit = vec![Event::NodeRenewed { node: &subject }.at(now)];
        self.put(AuthorityChanges { changes, audit }).await?;
        self.nodes_changed().await?;
        self.certify_node(&node, &settings, &key, now).await
    }

    /// Keeps a row of a node that the ceremony made, so that it is listed: its certificate was all that it had.
    ///
    /// # Errors
    /// A refusal when it is no node of the ceremony and yet has no row.
    pub async fn know_node(&self, peer: &PeerIdentity) -> Outcome<()> {
        if self.membership.nodes().node(peer.role, peer.name.as_str()).is_some() {
            return Ok(());
        }
        let now = self.now()?;
        let settings = NodeSettings { not_after: peer.not_after.unix(), ..NodeSettings::default() };
        let row = NodeRow { settings: settings.text(), version: 1, ..self.ceremony_node(peer, now).await? };
        let subject = format!("{}/{}", peer.role, peer.name);
        let changes =
            vec![AuthorityChange { row: AuthorityRow::Node(self.secrets.rows.seal(row)), expected: None }];
        let audit = vec![Event::NodeKnown { node: &subject }.at(now)];
        // A conflict: it has a row by now, or one that was tampered with and is left as it is.
        if self.store.put_authority(AuthorityChanges { changes, audit }).await? == PutOutcome::Applied {
            self.nodes_changed().await?;
        }
        Ok(())
    }

    /// The row that a node of the ceremony gets: its certificate, of this node CA and not of the journal, is what it has.
    async fn ceremony_node(&self, peer: &PeerIdentity, now: Timestamp) -> Outcome<NodeRow> {
        if !self.store.journal(&JournalKey::Serial(peer.serial)).await?.is_empty() {
            // It joined: its row was taken away, and with it perhaps that it was revoked.
            let detail = "this node's row is not there any more; it must join again under another name";
            return Err(Refusal::new(Reason::NodeForbidden, detail).status(403).into());
        }
        Ok(bare_node(peer.role, peer.name.as_str(), now))
    }

    /// Revokes a node. Its living connections end; other signers follow within seconds.
    ///
    /// # Errors
    /// A refusal when there is no such node, or it is revoked already.
    pub async fn revoke_node(&self, operator: &str, role: Role, name: &str) -> Outcome<NodeRow> {
        let bad = |detail: &str| Refusal::new(Reason::OperatorRequest, detail);
        let now = self.now()?;
        self.reload_nodes().await?;
        let known = self.membership.nodes().node(role, name).cloned();
        if known.as_ref().is_some_and(|node| node.state == NodeState::Revoked) {
            return Err(bad("this node is revoked already").into());
        }
        let expected = known.as_ref().map(|node| node.version);
        // A node of the ceremony may have no row; its name can be revoked all the same.
        let mut node = match known {
            Some(node) => node,
            None => {
                NodeIdentity::new(role.as_str(), name).map_err(|error| bad(&error.to_string()))?;
                bare_node(role, name, now)
            }
        };
        node.state = NodeState::Revoked;
        node.version += 1;
        let subject = format!("{role}/{name}");
        let event = Event::Operator {
            kind: "node.revoked",
            operator,
            subject: &subject,
            detail: serde_json::Value::Null,
        };
        let changes =
            vec![AuthorityChange { row: AuthorityRow::Node(self.secrets.rows.seal(node.clone())), expected }];
        self.put(AuthorityChanges { changes, audit: vec![event.at(now)] }).await?;
        self.nodes_changed().await?;
        Ok(node)
    }

    async fn nodes_changed(&self) -> Outcome<()> {
        self.reload_nodes().await?;
        self.events.announce(Change::Nodes);
        Ok(())
    }

    /// Rows that grant or take authority; somebody else's change in between is a conflict that the caller may repeat.
    pub(crate) async fn put(&self, changes: AuthorityChanges) -> Outcome<()> {
        match self.store.put_authority(changes).await? {
            PutOutcome::Applied => Ok(()),
            PutOutcome::Conflict(_) => {
                Err(Refusal::new(Reason::Conflict, "somebody else changed it at the same time; look again")
                    .into())
            }
        }
    }

    /// Journals, signs and records a node's certificate; the one that is there, if it is the lost answer that is asked for.
    async fn certify_node(
        &self,
        node: &NodeRow,
        settings: &NodeSettings,
        key: &PublicKey,
        now: Timestamp,
    ) -> Outcome<Vec<Vec<u8>>> {
        let node_ca = self.node_ca.as_ref().ok_or_else(no_node_ca)?;
        let issuer = &node_ca.issuer;
        let serial =
            Serial::from_hex(&settings.serial).map_err(|_| unreadable("nodes", "settings.serial"))?;
        if let Some(entry) = self.store.journal(&JournalKey::Serial(serial)).await?.into_iter().next() {
            let row = self.journal.open(entry)?;
            if row.signature.is_none() {
                // Somebody is about to sign it, or will take it over.
                return Err(Failure::Contended);
            }
            return Ok(vec![issued(&row)?.certificate, issuer.certificate().der().to_vec()]);
        }
        let identity = NodeIdentity::new(&node.role, &node.name).map_err(|_| unreadable("nodes", "name"))?;
        let names: Result<Vec<Name>, _> = node.server_names.iter().map(|name| name.parse()).collect();
        let names = names.map_err(|_| unreadable("nodes", "server_names"))?;
        let names = if names.is_empty() {
            None
        } else {
            Some(NameSet::new(names).map_err(|_| unreadable("nodes", "server_names"))?)
        };
        let validity = validity_within(issuer.certificate(), now);
        let request =
            NodeRequest { serial, identity: &identity, names: names.as_ref(), public_key: key, validity };
        let tbs = pki::tbs::node(issuer, request)
            .map_err(|error| Failure::Unmakeable { detail: error.to_string() })?;
        let findings = lint::check(tbs.as_bytes(), &LintContext::new(lint::Subject::Node, Some(issuer), now));
        if lint::stops(&findings) {
            let said: Vec<_> = findings.iter().map(|found| found.lint).collect();
            return Err(Failure::Unmakeable { detail: said.join(", ") });
        }
        let actor = format!("{}/{}", node.role, node.name);
        let draft = CertificateDraft::from(OwnCertificate {
            kind: JournalKind::Node,
            serial,
            issuer: NODE_CA,
            profile: "node",
            shard: 0,
            public_key: key,
            csr_sha256: None,
            validity,
            tbs: tbs.as_bytes().to_vec(),
            at: now,
            actor: &actor,
            names: Vec::new(),
            lints: None,
            account_key: None,
        });
        let intent = match self.journal.commit(draft).await? {
            Commit::Committed(intent) => intent,
            Commit::KeyBlocked => {
                let detail = "the node's key is known to be compromised or weak; make another one";
                return Err(Refusal::new(Reason::NodeForbidden, detail).into());
            }
            _ => return Err(Failure::Contended),
        };
        match self.sign_and_record(intent).await? {
            Record::Issued(row) => Ok(vec![issued(&row)?.certificate, issuer.certificate().der().to_vec()]),
            Record::Abandoned => Err(Failure::Contended),
        }
    }
}

fn no_node_ca() -> Refusal {
    Refusal::new(Reason::NodeForbidden, "this signer does not have the node CA's key; ask another one")
}

fn unreadable(table: &'static str, column: &str) -> Failure {
    Failure::Unreadable { table, detail: format!("column {column}") }
}

fn bare_node(role: Role, name: &str, now: Timestamp) -> NodeRow {
    NodeRow {
        role: role.to_string(),
        name: name.to_owned(),
        settings: String::new(),
        receipt_key: None,
        server_names: Vec::new(),
        state: NodeState::Active,
        created_at: now,
        version: 0,
    }
}

fn validity_within(issuer: &Certificate, now: Timestamp) -> Validity {
    Validity {
        not_before: now.minus(BACKDATE).max(issuer.not_before()),
        not_after: now.plus(NODE_VALIDITY).min(issuer.not_after()),
    }
}

/// In their one spelling.
fn checked_server_names(names: &[String]) -> Outcome<Vec<String>> {
    let bad = |detail: String| Refusal::new(Reason::OperatorRequest, detail);
    if names.len() > MOST_SERVER_NAMES {
        return Err(bad(format!("a node has at most {MOST_SERVER_NAMES} server names")).into());
    }
    let name = |text: &String| match parse_name(text) {
        Some(name) if !name.is_wildcard() => Ok(name.to_string()),
        Some(_) => {
            Err(bad(format!("server name {text:?}: a server has a name of its own, no wildcard")).into())
        }
        None => Err(bad(format!("server name {text:?} is no DNS name or IP address")).into()),
    };
    names.iter().map(name).collect()
}

/// A validator joins with the key that its receipts are signed with; nobody else has one.
fn checked_receipt_key(role: Role, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
    match (role, key.len()) {
        (Role::Validator, 32) => Ok(Some(key.to_vec())),
        (Role::Validator, _) => {
            Err(Refusal::new(Reason::JoinToken, "a validator joins with an Ed25519 receipt key of 32 octets")
                .into())
        }
        (_, 0) => Ok(None),
        _ => Err(Refusal::new(Reason::JoinToken, "only a validator joins with a receipt key").into()),
    }
}
