//! Revocation (RFC 8555 §7.6, DESIGN §6): by the account that the certificate was issued to, by the certificate's own key, by
//! an account that holds all of its names, by an operator. A revocation raises its shard's revision in its own transaction; the
//! CRL follows by event.

use std::sync::Arc;

use acme::jws::KeyReference;
use acme::resource::Resource;
use acme::revocation::{Revocation, RevocationError};
use ca_store::{
    AuditEvent, AuthorityChange, AuthorityChanges, AuthorityRow, BlockedKeyRow, JournalEntry, JournalKey,
    JournalKind, JournalRow, NewRevocation, RevocationRow, RevokeOutcome,
};
use pki::{Certificate, Reason as Because, Serial, Timestamp};

use crate::audit::Event;
use crate::authority::NameEvidence;
use crate::ca::Ca;
use crate::events::Change;
use crate::issue::issued;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::request::{AccountSlot, ClientRequest};

/// By whose word a certificate is revoked.
enum By {
    /// An account, by its id.
    Account(String),
    /// The certificate's own key: it may also say that the key is compromised after another reason was given.
    Key,
}

/// A certificate of the journal.
struct Found {
    row: JournalRow,
    /// Why it is revoked, if it is.
    revoked: Option<Because>,
}

impl Found {
    fn of(ca: &Ca, entry: JournalEntry) -> Outcome<Self> {
        let revoked = entry.revocation.as_ref().map(RevocationRow::current_reason);
        Ok(Self { row: ca.journal.open(entry)?, revoked })
    }
}

impl Ca {
    /// Revokes as a client's revokeCert JWS says.
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
                let revocation = read(&request, &verified)?;
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
                let (account, verified) = self.authenticate(&request, &signer).await?;
                let revocation = read(&request, &verified)?;
                let (found, certificate) = self.certificate_of(&request, &revocation.certificate).await?;
                if found.row.account.as_deref() != Some(account.row.id.as_str()) {
                    let names = certificate.names().ok_or_else(|| unknown(&request))?;
                    self.check_names_held(&request, account, names, &evidence).await?;
                }
                (revocation, found, By::Account(account.row.id.clone()))
            }
        };
        let now = self.now()?;
        let source = match &by {
            By::Account(id) => format!("account {id}"),
            By::Key => "certificate key".to_owned(),
        };
        // An account may not even have the key: of clients only who has it blocks it for ever (BR §6.1.1.3).
        let proven = matches!(by, By::Key) && revocation.reason == Because::KeyCompromise;
        let block = if proven { self.block_of(&found, &source, now).await? } else { None };
        let new = NewRevocation {
            serial: found.row.serial,
            at: now,
            reason: revocation.reason,
            upgrade: proven,
            source,
            request: Some(request.jws().to_json().into_bytes()),
            block,
            audit: Vec::new(),
        };
        let outcome = self.revoke_one(&found.row, new).await?;
        match outcome {
            RevokeOutcome::Revoked(_) | RevokeOutcome::Upgraded(_) => Ok(()),
            RevokeOutcome::Already(_) => {
                Err(request.refuse(Reason::AlreadyRevoked, "the certificate is revoked already").into())
            }
            RevokeOutcome::Unknown => Err(unknown(&request).into()),
        }
    }

    /// Revokes on an operator's word; answers since when it is revoked.
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
        if !(reason.is_for_subscribers() || reason == Because::PrivilegeWithdrawn) {
            let detail = "reasons for certificates are 0, 1, 3, 4, 5 and 9 (BR §7.2.2)";
            return Err(refuse(Reason::RevocationReason, detail).into());
        }
        let entries = self.store.journal(&JournalKey::Serial(serial)).await?;
        let entry = entries.into_iter().find(|entry| entry.row.unverified().kind != JournalKind::Node);
        let entry =
            entry.ok_or_else(|| refuse(Reason::CertificateUnknown, "there is no such certificate"))?;
        // Whatever may have been signed can be revoked, an intent as well (DESIGN §2.4).
        let found = Found::of(self, entry)?;
        let now = self.now()?;
        let source = format!("operator {operator}");
        let compromised = reason == Because::KeyCompromise;
        // A CA that was made aware of a compromise certifies the key no more (BR §6.1.1.3).
        let block = if compromised { self.block_of(&found, &source, now).await? } else { None };
        let new = NewRevocation {
            serial,
            at: now,
            reason,
            upgrade: compromised,
            source,
            request: None,
            block,
            audit: Vec::new(),
        };
        match self.revoke_one(&found.row, new).await? {
            RevokeOutcome::Revoked(row) | RevokeOutcome::Upgraded(row) => Ok(row.revoked_at),
            RevokeOutcome::Already(_) => {
                Err(refuse(Reason::AlreadyRevoked, "the certificate is revoked already").into())
            }
            RevokeOutcome::Unknown => {
                Err(refuse(Reason::CertificateUnknown, "there is no such certificate").into())
            }
        }
    }

    /// How a certificate's key is blocked together with the revocation, if it is not yet. When the certificate was revoked as
    /// compromised already, by somebody who could not know, there is no revocation to do it with: it is blocked at once.
    async fn block_of(&self, found: &Found, source: &str, at: Timestamp) -> Outcome<Option<BlockedKeyRow>> {
        let spki_sha256 = found.row.spki_sha256;
        if !self.store.blocked_keys(&[spki_sha256]).await?.is_empty() {
            return Ok(None);
        }
        let (reason, source) = ("keyCompromise".to_owned(), source.to_owned());
        let block = BlockedKeyRow { spki_sha256, reason, source, at };
        if found.revoked != Some(Because::KeyCompromise) {
            return Ok(Some(block));
        }
        let audit = vec![blocked(&block)];
        let changes = vec![AuthorityChange { row: AuthorityRow::BlockedKey(block), expected: None }];
        self.put(AuthorityChanges { changes, audit }).await?;
        Ok(None)
    }

    async fn revoke_one(&self, row: &JournalRow, mut new: NewRevocation) -> Outcome<RevokeOutcome> {
        let event =
            Event::CertificateRevoked { serial: new.serial, actor: &new.source, reason: new.reason.as_str() };
        new.audit = vec![event.at(new.at)];
        new.audit.extend(new.block.as_ref().map(blocked));
        fail::fail_point!("signer.revoke.before");
        let outcome = self.store.revoke(vec![new]).await;
        fail::fail_point!("signer.revoke.after");
        // Also when the answer was lost: it is a hint, and the revision says what is true.
        self.events.announce(Change::Shard { issuer: Arc::from(row.issuer.as_str()), shard: row.shard });
        outcome?.into_iter().next().ok_or_else(|| Failure::Unreadable {
            table: "revocations",
            detail: "the store answered with no outcome".to_owned(),
        })
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

fn blocked(block: &BlockedKeyRow) -> AuditEvent {
    let key = hex::encode(block.spki_sha256);
    Event::KeyBlocked { spki_sha256: &key, actor: &block.source }.at(block.at)
}

fn unknown(request: &ClientRequest) -> Refusal {
    request.refuse(Reason::CertificateUnknown, "there is no such certificate in this directory").status(404)
}

fn read(request: &ClientRequest, verified: &acme::jws::Verified<'_>) -> Result<Revocation, Refusal> {
    Revocation::from_verified(verified).map_err(|error| {
        let reason = match error {
            RevocationError::Reason => Reason::RevocationReason,
            RevocationError::Jws(_) => Reason::PayloadMalformed,
        };
        Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
    })
}
