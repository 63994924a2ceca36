//! Revocation (RFC 8555 §7.6, DESIGN §6): by the account that the certificate was issued to, by the certificate's own key, by
//! an account that holds all of its names, by an operator. A revocation raises its shard's revision in its own transaction; the
//! CRL follows by event.

use std::collections::BTreeSet;
use std::sync::Arc;

use acme::jws::KeyReference;
use acme::resource::Resource;
use acme::revocation::{Revocation, RevocationError};
use ca_store::{
    AuditEvent, AuthorityChange, AuthorityChanges, AuthorityRow, BlockedKeyRow, CertificateFilter,
    CertificateQuery, Digest, JournalEntry, JournalKey, JournalKind, JournalRow, NewRevocation,
    RevocationRow, RevokeOutcome,
};
use pki::{Certificate, Reason as Because, Serial, Timestamp};

use crate::audit::Event;
use crate::authority::NameEvidence;
use crate::ca::Ca;
use crate::events::Change;
use crate::issue::issued;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::request::{AccountSlot, ClientRequest};

mod compromised;
mod incident;
mod run;
mod selection;

pub(crate) use compromised::ROUND as COMPROMISED_ROUND;
pub use incident::IncidentRound;
pub(crate) use incident::{Cursors, INCIDENT_ROUND, Plan};
pub(crate) use run::{PageRequest, RunRequest, Selected, SelectionPage};
pub(crate) use selection::{Selector, names_of};

/// On whose word a certificate is revoked.
#[derive(Debug, Clone)]
enum By {
    /// The account that it was issued to, by its id.
    Account(String),
    /// Another account, which holds all of its names.
    Names(String),
    /// The certificate's own key: it may also say that the key is compromised after another reason was given.
    Key,
    /// The key of a certificate that is said to be compromised, for another certificate that has it (BR §4.9.1.1).
    SharedKey(Serial),
    /// An operator, by name.
    Operator(String),
    /// An operator's run, by its id.
    Run(String, String),
    /// Whoever had the certificate's key blocked as compromised, in his words.
    Block(String),
    /// An incident at its deadline, by its id.
    Incident(String),
}

impl By {
    /// The value of the label `source`.
    const fn word(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Names(_) => "names",
            Self::Key | Self::SharedKey(_) | Self::Block(_) => "key",
            Self::Operator(_) | Self::Run(..) | Self::Incident(_) => "operator",
        }
    }
}

/// Whether a revocation, by what its row has, was the CA's own decision and nothing that a client could bring about.
pub(crate) fn is_by_the_ca(source: &str) -> bool {
    [OPERATOR, INCIDENT].iter().any(|word| source.split_once(' ').is_some_and(|(first, _)| first == *word))
}

const OPERATOR: &str = "operator";
const INCIDENT: &str = "incident";

/// As the revocation's row has it.
impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(id) | Self::Names(id) => write!(f, "account {id}"),
            Self::Key => f.write_str("certificate key"),
            Self::Block(who) => write!(f, "key blocked by {who}"),
            Self::SharedKey(serial) => write!(f, "certificate key of {serial}"),
            Self::Operator(name) => write!(f, "{OPERATOR} {name}"),
            Self::Run(name, run) => write!(f, "{OPERATOR} {name} run {run}"),
            Self::Incident(id) => write!(f, "{INCIDENT} {id}"),
        }
    }
}

/// A certificate of the journal.
struct Found {
    row: JournalRow,
    /// That it is revoked, if it is.
    revocation: Option<RevocationRow>,
}

impl Found {
    fn of(ca: &Ca, entry: JournalEntry) -> Outcome<Self> {
        let revocation = entry.revocation.clone();
        Ok(Self { row: ca.journal.open(entry)?, revocation })
    }

    /// Why it is revoked, if it is.
    fn revoked(&self) -> Option<Because> {
        self.revocation.as_ref().map(RevocationRow::current_reason)
    }

    /// Whether a revocation for this reason, by somebody who may raise it to keyCompromise, changes anything.
    fn is_revocable(&self, reason: Because, now: Timestamp) -> bool {
        let raised = reason == Because::KeyCompromise && self.revoked() != Some(reason);
        now <= self.row.not_after && (self.revocation.is_none() || raised)
    }
}

impl Ca {
    /// Revokes as a client's revokeCert JWS says; as compromised by the certificate's own key, with all other certificates
    /// that have the key.
    ///
    /// # Errors
    /// A refusal, or what keeps it from being done. Repeating it is refused as "already revoked".
    pub async fn revoke(&self, body: &[u8], evidence: Vec<NameEvidence>) -> Outcome<()> {
        let request = ClientRequest::read(&self.registry, body)?;
        if !matches!(request.resource(), Resource::RevokeCertificate) {
            return Err(request.wrong_operation().into());
        }
        let (revocation, found, by) = match &request.jws().header().key {
            KeyReference::Jwk(jwk) => {
                let verified = request.verify(jwk)?;
                let revocation = read(&request, &verified, true)?;
                let (found, certificate) = self.certificate_of(&request, &revocation.certificate).await?;
                if jwk.public_key() != certificate.public_key() {
                    return Err(request
                        .refuse(Reason::RevocationForeign, "the JWS is not signed with the certificate's key")
                        .status(403)
                        .into());
                }
                (revocation, found, By::Key)
            }
            KeyReference::Kid(_) => {
                let signer = AccountSlot::default();
                let (account, verified) = self.authenticate_now(&request, &signer).await?;
                let revocation = read(&request, &verified, false)?;
                let (found, certificate) = self.certificate_of(&request, &revocation.certificate).await?;
                let id = account.row.id.clone();
                if found.row.account.as_deref() == Some(id.as_str()) {
                    (revocation, found, By::Account(id))
                } else {
                    let names = certificate.names().ok_or_else(|| unknown(&request))?;
                    let issuer = self.registry.issuer(&found.row.issuer);
                    let test_ca = issuer.is_some_and(|entry| entry.issuer.certificate().is_test_ca());
                    self.check_names_held(&request, account, names, &evidence, test_ca).await?;
                    (revocation, found, By::Names(id))
                }
            }
        };
        let now = self.now()?;
        // An account may not even have the key: of clients only who has it blocks it for ever (BR §6.1.1.3).
        let proven = matches!(by, By::Key) && revocation.reason == Because::KeyCompromise;
        let block = if proven { self.block_of(&found, &by, now).await? } else { None };
        let request_jws = Some(request.jws().to_json().into_bytes());
        let new = NewRevocation {
            upgrade: proven,
            request: request_jws,
            block,
            ..of(&found, revocation.reason, &by, now)
        };
        let outcome = self.revoke_one(&found.row, new, &by).await?;
        // Also when it was revoked before: a request whose answer was lost goes on where it was.
        if proven {
            self.revoke_others(&found, &By::SharedKey(found.row.serial), now).await?;
        }
        match outcome {
            RevokeOutcome::Revoked(_) | RevokeOutcome::Upgraded(_) => Ok(()),
            RevokeOutcome::Already(_) => {
                Err(request.refuse(Reason::AlreadyRevoked, "the certificate is revoked already").into())
            }
            RevokeOutcome::Unknown => Err(unknown(&request).into()),
        }
    }

    /// Revokes on an operator's word, as compromised with all other certificates that have the key; answers since when it is
    /// revoked.
    ///
    /// # Errors
    /// A refusal when there is no such certificate, the reason is none for certificates, or it is revoked already.
    pub async fn revoke_by_operator(
        &self,
        operator: &str,
        serial: Serial,
        reason: Because,
    ) -> Outcome<Timestamp> {
        let refuse = |reason, detail: &str| Refusal::new(reason, detail);
        check_operators_reason(reason)?;
        let entries = self.store.journal(&JournalKey::Serial(serial)).await?;
        let entry = entries.into_iter().find(|entry| entry.row.unverified().kind != JournalKind::Node);
        let entry =
            entry.ok_or_else(|| refuse(Reason::CertificateUnknown, "there is no such certificate"))?;
        // Whatever may have been signed can be revoked, an intent as well (DESIGN §2.4).
        let found = Found::of(self, entry)?;
        let now = self.now()?;
        let by = By::Operator(operator.to_owned());
        let compromised = reason == Because::KeyCompromise;
        // A CA that was made aware of a compromise certifies the key no more (BR §6.1.1.3).
        let block = if compromised { self.block_of(&found, &by, now).await? } else { None };
        let new = NewRevocation { block, ..of(&found, reason, &by, now) };
        let outcome = self.revoke_one(&found.row, new, &by).await?;
        if compromised {
            self.revoke_others(&found, &by, now).await?;
        }
        match outcome {
            RevokeOutcome::Revoked(row) | RevokeOutcome::Upgraded(row) => Ok(row.revoked_at),
            RevokeOutcome::Already(_) => {
                Err(refuse(Reason::AlreadyRevoked, "the certificate is revoked already").into())
            }
            RevokeOutcome::Unknown => {
                Err(refuse(Reason::CertificateUnknown, "there is no such certificate").into())
            }
        }
    }

    /// Revokes, as compromised, every other certificate with the key of `found`, which is blocked: of whatever directory and
    /// account, a page a commit.
    async fn revoke_others(&self, found: &Found, by: &By, now: Timestamp) -> Outcome<()> {
        self.revoke_sharers(found.row.spki_sha256, Some(found.row.serial), by, now).await.map(drop)
    }

    /// Revokes every certificate that has a compromised key but `first`, with which it began; says how many.
    async fn revoke_sharers(
        &self,
        key: Digest,
        first: Option<Serial>,
        by: &By,
        now: Timestamp,
    ) -> Outcome<u64> {
        let (reason, mut revoked) = (Because::KeyCompromise, 0);
        let filter = CertificateFilter::Key(key);
        let mut query = CertificateQuery::first(filter, self.limits.revocation_page);
        loop {
            let page = self.store.certificates(&query).await?;
            let others = self.open_each(page.items, shares_keys).found.into_iter();
            let others: Vec<_> = others
                .filter(|other| Some(other.row.serial) != first && other.is_revocable(reason, now))
                .collect();
            revoked += others.len() as u64;
            let new = others.iter().map(|other| of_with(other, reason, by, now, first)).collect();
            self.revoke_all(others.iter().map(|other| &other.row), new, by).await?;
            match page.next {
                Some(cursor) => query = query.after(cursor),
                None => return Ok(revoked),
            }
        }
    }

    /// How a certificate's key is blocked together with the revocation, if it is not yet. When the certificate was revoked as
    /// compromised already, by somebody who could not know, there is no revocation to do it with: it is blocked at once.
    async fn block_of(&self, found: &Found, by: &By, at: Timestamp) -> Outcome<Option<BlockedKeyRow>> {
        let key = found.row.spki_sha256;
        if found.revoked() == Some(Because::KeyCompromise) {
            self.block_keys(&[key], by, at).await?;
            return Ok(None);
        }
        let known = !self.store.blocked_keys(&[key]).await?.is_empty();
        Ok((!known).then(|| block(key, by, at)))
    }

    /// Blocks those of these keys that are not; says how many.
    async fn block_keys(&self, keys: &[Digest], by: &By, at: Timestamp) -> Outcome<u64> {
        let known = self.store.blocked_keys(keys).await?;
        let is_new = |key: &&Digest| known.iter().all(|row| row.spki_sha256 != **key);
        let rows: Vec<_> = keys.iter().filter(is_new).map(|key| block(*key, by, at)).collect();
        let count = rows.len() as u64;
        if rows.is_empty() {
            return Ok(count);
        }
        let audit = rows.iter().map(blocked).collect();
        let changes = rows
            .into_iter()
            .map(|row| AuthorityChange { row: AuthorityRow::BlockedKey(row), expected: None });
        self.put(AuthorityChanges { changes: changes.collect(), audit }).await?;
        Ok(count)
    }

    async fn revoke_one(&self, row: &JournalRow, mut new: NewRevocation, by: &By) -> Outcome<RevokeOutcome> {
        new.audit.extend(new.block.as_ref().map(blocked));
        let outcomes = self.revoke_all(std::iter::once(row), vec![new], by).await?;
        outcomes.into_iter().next().ok_or_else(no_outcome)
    }

    /// Revokes in one commit: the one place where it is done. One outcome a certificate, in order.
    async fn revoke_all<'a>(
        &self,
        rows: impl Iterator<Item = &'a JournalRow> + Send,
        new: Vec<NewRevocation>,
        by: &By,
    ) -> Outcome<Vec<RevokeOutcome>> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let shards: BTreeSet<_> = rows.map(|row| (row.issuer.clone(), row.shard)).collect();
        let reasons: Vec<_> = new.iter().map(|new| new.reason.as_str()).collect();
        fail::fail_point!("signer.revoke.before");
        let outcome = self.store.revoke(new).await;
        fail::fail_point!("signer.revoke.after");
        // Also when the answer was lost: it is a hint, and the revision says what is true.
        for (issuer, shard) in shards {
            self.events.announce(Change::Shard { issuer: Arc::from(issuer.as_str()), shard });
        }
        let outcomes = outcome?;
        if outcomes.len() != reasons.len() {
            return Err(no_outcome());
        }
        for (outcome, reason) in outcomes.iter().zip(reasons) {
            if matches!(outcome, RevokeOutcome::Revoked(_) | RevokeOutcome::Upgraded(_)) {
                metrics::counter!("chancery_revocations_total", "source" => by.word(), "reason" => reason)
                    .increment(1);
            }
        }
        Ok(outcomes)
    }

    /// Entries of the kinds that are meant, those apart whose row something else than a signer has changed.
    fn open_each(&self, entries: Vec<JournalEntry>, is_meant: fn(JournalKind) -> bool) -> Opened {
        let mut opened = Opened::default();
        for entry in entries {
            let (serial, kind) = (entry.row.unverified().serial, entry.row.unverified().kind);
            if !is_meant(kind) {
                continue;
            }
            match Found::of(self, entry) {
                Ok(found) => opened.found.push(found),
                Err(failure) => {
                    self.alarm(&failure);
                    opened.tampered.push(serial);
                }
            }
        }
        opened
    }

    /// The journal's certificate that these very bytes are, of the request's directory. All else is "unknown", with one answer.
    async fn certificate_of(&self, request: &ClientRequest, der: &[u8]) -> Outcome<(Found, Certificate)> {
        let certificate = Certificate::from_der(der).map_err(|_| unknown(request))?;
        let entries = self.store.journal(&JournalKey::Serial(certificate.serial())).await?;
        let is_final = |entry: &JournalEntry| entry.row.unverified().kind == JournalKind::Final;
        let entry = entries.into_iter().find(is_final).ok_or_else(|| unknown(request))?;
        let found = Found::of(self, entry)?;
        let row = &found.row;
        let ours = row.directory.as_deref() == Some(request.directory().name().as_str());
        if !ours || row.signature.is_none() || issued(row)?.certificate != der {
            return Err(unknown(request).into());
        }
        Ok((found, certificate))
    }
}

/// Entries of the journal, their MACs verified.
#[derive(Default)]
struct Opened {
    found: Vec<Found>,
    tampered: Vec<Serial>,
}

/// The kinds that a compromised key's certificates may have: a node's is a node's to lose, a CA's its ceremony's.
const fn shares_keys(kind: JournalKind) -> bool {
    !matches!(kind, JournalKind::Node | JournalKind::Authority)
}

/// What operators may say: what subscribers may, and that a privilege is withdrawn (BR §7.2.2).
fn check_operators_reason(reason: Because) -> Result<(), Refusal> {
    if reason.is_for_subscribers() || reason == Because::PrivilegeWithdrawn {
        return Ok(());
    }
    let detail = "reasons for certificates are 0, 1, 3, 4, 5 and 9 (BR §7.2.2)";
    Err(Refusal::new(Reason::RevocationReason, detail))
}

/// A revocation by somebody who may raise an older reason to keyCompromise, if that is the reason.
fn of(found: &Found, reason: Because, by: &By, at: Timestamp) -> NewRevocation {
    of_with(found, reason, by, at, None)
}

fn of_with(found: &Found, reason: Because, by: &By, at: Timestamp, with: Option<Serial>) -> NewRevocation {
    let (serial, source) = (found.row.serial, by.to_string());
    let event = Event::CertificateRevoked { serial, actor: &source, reason: reason.as_str(), with };
    let audit = vec![event.at(at)];
    let upgrade = reason == Because::KeyCompromise;
    NewRevocation { serial, at, reason, upgrade, source, request: None, block: None, audit }
}

fn no_outcome() -> Failure {
    Failure::Unreadable {
        table: "revocations",
        detail: "the store answered with another number of outcomes".to_owned(),
    }
}

/// As the row of a compromised key has it.
const fn block_reason() -> &'static str {
    Because::KeyCompromise.as_str()
}

fn block(spki_sha256: Digest, by: &By, at: Timestamp) -> BlockedKeyRow {
    BlockedKeyRow { spki_sha256, reason: block_reason().to_owned(), source: by.to_string(), at }
}

fn blocked(block: &BlockedKeyRow) -> AuditEvent {
    let key = hex::encode(block.spki_sha256);
    Event::KeyBlocked { spki_sha256: &key, actor: &block.source }.at(block.at)
}

fn unknown(request: &ClientRequest) -> Refusal {
    request.refuse(Reason::CertificateUnknown, "there is no such certificate in this directory").status(404)
}

/// The payload, its reason one that the directory takes from who asks; `by_key`: who has the certificate's key.
fn read(
    request: &ClientRequest,
    verified: &acme::jws::Verified<'_>,
    by_key: bool,
) -> Result<Revocation, Refusal> {
    let revocation = Revocation::from_verified(verified).map_err(|error| {
        let reason = match error {
            RevocationError::Reason => Reason::RevocationReason,
            RevocationError::Jws(_) => Reason::PayloadMalformed,
        };
        Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
    })?;
    let policy = &request.directory().policy;
    if !policy.revocation_reasons.contains(&revocation.reason) {
        let words: Vec<_> =
            policy.revocation_reasons.iter().map(|it| format!("{} ({it})", it.code())).collect();
        let detail = format!("the reason must be one of {}", words.join(", "));
        return Err(request.refuse(Reason::RevocationReason, detail));
    }
    if revocation.reason == Because::KeyCompromise && !by_key && !policy.key_compromise_by_account {
        let detail = "that the key is compromised is said with the certificate's key";
        return Err(request.refuse(Reason::RevocationReason, detail));
    }
    Ok(revocation)
}
