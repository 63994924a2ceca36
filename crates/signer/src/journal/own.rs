//! Certificates that no order asked for: those of our own servers, nodes and responders.

use ca_store::{Evidence, JournalKind, JournalRow};
use pki::{PublicKey, Serial, Timestamp, Validity};

use super::CertificateDraft;
use crate::audit::Event;

/// A certificate of our own, and what the journal says of it.
pub(crate) struct OwnCertificate<'a> {
    /// Server, node or responder.
    pub(crate) kind: JournalKind,
    /// Its serial.
    pub(crate) serial: Serial,
    /// Identity of the issuer in `ca`.
    pub(crate) issuer: &'a str,
    /// The profile's name.
    pub(crate) profile: &'a str,
    /// The CRL shard.
    pub(crate) shard: u32,
    /// Its key.
    pub(crate) public_key: &'a PublicKey,
    /// SHA-256 of the request, where there was one.
    pub(crate) csr_sha256: Option<[u8; 32]>,
    /// When it is valid.
    pub(crate) validity: Validity,
    /// The bytes to be signed.
    pub(crate) tbs: Vec<u8>,
    /// When it is intended.
    pub(crate) at: Timestamp,
    /// For whom, as the audit names actors.
    pub(crate) actor: &'a str,
    /// Its names, for the index.
    pub(crate) names: Vec<String>,
    /// What the lints found, where that is kept.
    pub(crate) lints: Option<Vec<u8>>,
    /// The thumbprint that its key would have as an account's.
    pub(crate) account_key: Option<[u8; 32]>,
}

impl From<OwnCertificate<'_>> for CertificateDraft {
    fn from(own: OwnCertificate<'_>) -> Self {
        let event = Event::CertificateIntended {
            serial: own.serial,
            actor: own.actor,
            issuer: own.issuer,
            directory: None,
            quorum: None,
            replaces: None,
        };
        let audit = vec![event.at(own.at)];
        let row = JournalRow {
            serial: own.serial,
            kind: own.kind,
            order: None,
            new_order: None,
            directory: None,
            account: None,
            issuer: own.issuer.to_owned(),
            profile: own.profile.to_owned(),
            shard: own.shard,
            spki_sha256: own.public_key.sha256(),
            csr_sha256: own.csr_sha256,
            not_before: own.validity.not_before,
            not_after: own.validity.not_after,
            tbs: own.tbs,
            created_at: own.at,
            signature: None,
            signed_at: None,
            abandoned_at: None,
            replaces: None,
            counted: false,
        };
        Self {
            row,
            names: own.names,
            domains: Vec::new(),
            evidence: own.lints.map(|lints| Evidence { lints, ..Evidence::default() }),
            cites: Vec::new(),
            authorizations: Vec::new(),
            account_key: own.account_key,
            past: Vec::new(),
            limits: Vec::new(),
            audit,
        }
    }
}
