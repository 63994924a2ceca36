//! What is reported: a closed list of events, each written inside the transaction of what it reports; refusals, which
//! have no transaction, are counted here and written in batches.

use std::collections::{BTreeMap, BTreeSet};

use ca_store::{AuditEvent, CaStore, RefusalCount, StoreError};
use parking_lot::Mutex;
use pki::{Serial, Timestamp};
use serde_json::{Value, json};

use crate::refusal::{Reason, Refusal};

/// Something worth reporting. The words are stable: auditors search for them.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A signer started.
    SignerStarted {
        /// Its node name.
        node: &'a str,
    },
    /// The policy file's contents went into `ca`.
    PolicySynchronized {
        /// Rows that changed.
        rows: usize,
    },
    /// A row was changed by something else than a signer.
    RowTampered {
        /// Its table.
        table: &'a str,
        /// Its key.
        key: &'a str,
    },
    /// An account was made.
    AccountRegistered {
        /// Its id.
        account: &'a str,
        /// Its directory.
        directory: &'a str,
        /// The EAB key that it came with.
        eab_kid: Option<&'a str>,
    },
    /// An account's contacts changed.
    AccountUpdated {
        /// Its id.
        account: &'a str,
    },
    /// An account was given up by its client.
    AccountDeactivated {
        /// Its id.
        account: &'a str,
    },
    /// An account has another key.
    AccountKeyChanged {
        /// Its id.
        account: &'a str,
        /// The new key's thumbprint.
        thumbprint: String,
    },
    /// An authorization was given up by its client.
    AuthorizationDeactivated {
        /// Its id.
        authorization: &'a str,
        /// Whose it was.
        account: &'a str,
        /// For which name.
        name: String,
    },
    /// A certificate was journaled, and may be signed from now on.
    CertificateIntended {
        /// Its serial.
        serial: Serial,
        /// Who asked: an account's id, or a node.
        actor: &'a str,
        /// The issuer.
        issuer: &'a str,
        /// The directory; none for our own servers and nodes.
        directory: Option<&'a str>,
        /// How many perspectives confirmed each name that was validated, and out of how many; names by grant are left
        /// out.
        quorum: Option<Value>,
        /// The certificate that it replaces.
        replaces: Option<Serial>,
    },
    /// An intent was given up.
    CertificateAbandoned {
        /// Its serial.
        serial: Serial,
        /// Why.
        why: &'a str,
    },
    /// An intent of a signer that is gone was taken over.
    CertificateTakenOver {
        /// Its serial.
        serial: Serial,
    },
    /// Anything that an operator did, in words of `admin.rs`.
    Operator {
        /// What: a dotted word.
        kind: &'static str,
        /// The operator's name.
        operator: &'a str,
        /// To what.
        subject: &'a str,
        /// The rest.
        detail: Value,
    },
    /// A certificate was revoked, or its reason became keyCompromise.
    CertificateRevoked {
        /// Its serial.
        serial: Serial,
        /// Who asked.
        actor: &'a str,
        /// Why.
        reason: &'a str,
        /// The certificate whose key it shares, if that is why.
        with: Option<Serial>,
    },
    /// A key is certified no more.
    KeyBlocked {
        /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
        spki_sha256: &'a str,
        /// Who asked.
        actor: &'a str,
    },
    /// Something that a signer did about an incident.
    Incident {
        /// What: a dotted word.
        kind: &'static str,
        /// The incident's id.
        incident: &'a str,
        /// The rest.
        detail: Value,
    },
    /// A CRL was journaled, and may be signed from now on.
    CrlIntended {
        /// Its path.
        path: &'a str,
        /// Its number.
        number: u64,
        /// Its entries.
        entries: u64,
    },
    /// A CRL was published.
    CrlPublished {
        /// Its path.
        path: &'a str,
        /// Its number.
        number: u64,
    },
    /// An operator imported the CRL of a root.
    CrlImported {
        /// Its path.
        path: &'a str,
        /// Its number.
        number: u64,
        /// Its entries.
        entries: u64,
        /// Who.
        operator: &'a str,
    },
    /// A node joined.
    NodeJoined {
        /// `role/name`.
        node: &'a str,
    },
    /// A node gets a new certificate.
    NodeRenewed {
        /// `role/name`.
        node: &'a str,
    },
    /// A node that the ceremony made was seen for the first time.
    NodeKnown {
        /// `role/name`.
        node: &'a str,
    },
}

impl Event<'_> {
    /// The row.
    #[must_use]
    pub fn at(self, at: Timestamp) -> AuditEvent {
        let (kind, actor, subject, detail) = self.parts();
        let detail = match detail {
            Value::Null => String::new(),
            detail => detail.to_string(),
        };
        AuditEvent { at, kind: kind.to_owned(), actor, subject, detail }
    }

    fn parts(self) -> (&'static str, String, String, Value) {
        let signer = String::new;
        match self {
            Self::SignerStarted { node } => ("signer.started", signer(), node.to_owned(), Value::Null),
            Self::PolicySynchronized { rows } => {
                ("policy.synchronized", signer(), String::new(), json!({ "rows": rows }))
            }
            Self::RowTampered { table, key } => {
                ("row.tampered", signer(), key.to_owned(), json!({ "table": table }))
            }
            Self::AccountRegistered { account, directory, eab_kid } => {
                let detail = json!({ "directory": directory, "eab_kid": eab_kid });
                ("account.registered", account.to_owned(), account.to_owned(), detail)
            }
            Self::AccountUpdated { account } => {
                ("account.updated", account.to_owned(), account.to_owned(), Value::Null)
            }
            Self::AccountDeactivated { account } => {
                ("account.deactivated", account.to_owned(), account.to_owned(), Value::Null)
            }
            Self::AccountKeyChanged { account, thumbprint } => {
                let detail = json!({ "thumbprint": thumbprint });
                ("account.key_changed", account.to_owned(), account.to_owned(), detail)
            }
            Self::AuthorizationDeactivated { authorization, account, name } => {
                let detail = json!({ "name": name });
                ("authorization.deactivated", account.to_owned(), authorization.to_owned(), detail)
            }
            Self::CertificateIntended { serial, actor, issuer, directory, quorum, replaces } => {
                let mut detail = json!({ "issuer": issuer });
                let members = detail.as_object_mut().into_iter();
                members.for_each(|members| {
                    members.extend(directory.map(|directory| ("directory".to_owned(), directory.into())));
                    members.extend(quorum.clone().map(|quorum| ("quorum".to_owned(), quorum)));
                    members.extend(replaces.map(|serial| ("replaces".to_owned(), serial.to_string().into())));
                });
                ("certificate.intended", actor.to_owned(), serial.to_string(), detail)
            }
            Self::CertificateAbandoned { serial, why } => {
                ("certificate.abandoned", signer(), serial.to_string(), json!({ "why": why }))
            }
            Self::CertificateTakenOver { serial } => {
                ("certificate.taken_over", signer(), serial.to_string(), Value::Null)
            }
            Self::Operator { kind, operator, subject, detail } => {
                (kind, format!("operator/{operator}"), subject.to_owned(), detail)
            }
            Self::CertificateRevoked { serial, actor, reason, with } => {
                let mut detail = json!({ "reason": reason });
                if let (Some(with), Some(members)) = (with, detail.as_object_mut()) {
                    members.insert("shares_key_with".to_owned(), with.to_string().into());
                }
                ("certificate.revoked", actor.to_owned(), serial.to_string(), detail)
            }
            Self::KeyBlocked { spki_sha256, actor } => {
                ("key.blocked", actor.to_owned(), spki_sha256.to_owned(), Value::Null)
            }
            Self::Incident { kind, incident, detail } => (kind, signer(), incident.to_owned(), detail),
            Self::CrlIntended { path, number, entries } => {
                let detail = json!({ "number": number, "entries": entries });
                ("crl.intended", signer(), path.to_owned(), detail)
            }
            Self::CrlPublished { path, number } => {
                ("crl.published", signer(), path.to_owned(), json!({ "number": number }))
            }
            Self::CrlImported { path, number, entries, operator } => {
                let detail = json!({ "number": number, "entries": entries });
                ("crl.imported", format!("operator:{operator}"), path.to_owned(), detail)
            }
            Self::NodeJoined { node } => ("node.joined", node.to_owned(), node.to_owned(), Value::Null),
            Self::NodeRenewed { node } => ("node.renewed", node.to_owned(), node.to_owned(), Value::Null),
            Self::NodeKnown { node } => ("node.known", signer(), node.to_owned(), Value::Null),
        }
    }
}

/// Refusals since the last batch, and rows that were found to be somebody else's work.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: Mutex<BTreeMap<(u64, Reason, String), u64>>,
    tampered: Mutex<Tampered>,
}

/// Rows that were tampered with, by table and key: each is reported once in a signer's life.
#[derive(Debug, Default)]
struct Tampered {
    reported: BTreeSet<(&'static str, String)>,
    waiting: Vec<AuditEvent>,
}

/// Beyond this many nobody needs to be told about each: the log has them all.
const MAXIMUM_TAMPERED: usize = 10_000;

impl Refusals {
    /// Counts one. Only names of directories that exist are kept, so the map stays small whatever a front sends.
    pub fn count(&self, refusal: &Refusal, at: Timestamp) {
        let reason = refusal.reason;
        let directory = refusal.directory.clone().unwrap_or_default();
        metrics::counter!("chancery_refusals_total", "reason" => reason.as_str(), "directory" => directory.clone())
            .increment(1);
        tracing::info!(target: "audit", reason = reason.as_str(), directory, detail = refusal.problem.detail, "refused");
        *self.counts.lock().entry((at.unix() / 3600, reason, directory)).or_default() += 1;
    }

    /// Keeps a row that was tampered with for the next batch, unless it was reported before. Whether it is new.
    pub fn tampered(&self, table: &'static str, key: &str, at: Timestamp) -> bool {
        let mut tampered = self.tampered.lock();
        let new =
            tampered.reported.len() < MAXIMUM_TAMPERED && tampered.reported.insert((table, key.to_owned()));
        if new {
            tampered.waiting.push(Event::RowTampered { table, key }.at(at));
        }
        new
    }

    /// Writes what was counted. What cannot be written is counted again.
    ///
    /// # Errors
    /// By the store.
    pub async fn flush(&self, store: &dyn CaStore) -> Result<(), StoreError> {
        let counts = std::mem::take(&mut *self.counts.lock());
        let tampered = std::mem::take(&mut self.tampered.lock().waiting);
        if counts.is_empty() && tampered.is_empty() {
            return Ok(());
        }
        let rows = counts.iter().map(|((hour, reason, directory), count)| RefusalCount {
            hour: Timestamp::from_unix(hour * 3600),
            reason: reason.as_str().to_owned(),
            directory: directory.clone(),
            count: *count,
        });
        let outcome = store.append_audit(tampered.clone(), rows.collect()).await;
        if outcome.is_err() {
            self.tampered.lock().waiting.extend(tampered);
            let mut current = self.counts.lock();
            for (key, count) in counts {
                *current.entry(key).or_default() += count;
            }
        }
        outcome
    }
}
