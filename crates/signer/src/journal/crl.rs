//! CRLs: what is journaled of one is its digest, and what it can be made of again (DESIGN §2.1).

use aws_lc_rs::digest;
use bytes::Bytes;
use ca_store::{AuditEvent, CrlJournal, CrlKey, CrlRow};
use hsm::{Job, Lane};
use pki::SignatureAlgorithm;

use super::{IssuerObject, Journal, Journaled};
use crate::refusal::Outcome;

/// A CRL that is intended.
#[derive(Debug)]
pub struct CrlIntent {
    key: CrlKey,
    job: Job,
}

impl CrlIntent {
    /// Which CRL.
    #[must_use]
    pub const fn key(&self) -> &CrlKey {
        &self.key
    }
}

impl IssuerObject for CrlIntent {
    fn issuer(&self) -> &str {
        &self.key.shard.issuer
    }

    fn is_for_issuers(&self) -> bool {
        true
    }

    fn job(&self, _: SignatureAlgorithm) -> Job {
        self.job.clone()
    }

    fn lane(&self) -> Lane {
        Lane::Bulk
    }
}

impl Journal {
    /// Journals a CRL. `row.tbs_sha256` is set here, from the digester that has seen the bytes, so that what is durable
    /// and what is signed are of one origin.
    ///
    /// # Errors
    /// When the store does not answer, or has another row of this number.
    pub async fn commit_crl(
        &self,
        mut row: CrlRow,
        bytes: CrlDigester,
        audit: Vec<AuditEvent>,
    ) -> Outcome<Journaled<CrlIntent>> {
        let (sha256, job) = bytes.finish();
        row.tbs_sha256 = sha256;
        let key = row.key.clone();
        self.store.journal_crl(CrlJournal { row, audit }).await?;
        Ok(Journaled(CrlIntent { key, job }))
    }
}

/// Sees a CRL's to-be-signed bytes go by, and keeps what the journal and the token need of them.
pub struct CrlDigester {
    sha256: digest::Context,
    algorithm: SignatureAlgorithm,
    signed: Signable,
}

/// What an algorithm signs.
enum Signable {
    /// SHA-256 of the bytes, which the journal needs anyway.
    Sha256,
    /// Another digest.
    Digest(digest::Context),
    /// The bytes themselves.
    Message(Vec<u8>),
}

impl CrlDigester {
    /// For a CRL that is signed with this algorithm.
    #[must_use]
    pub fn new(algorithm: SignatureAlgorithm) -> Self {
        let signed = match algorithm {
            SignatureAlgorithm::EcdsaSha256 | SignatureAlgorithm::RsaSha256 => Signable::Sha256,
            SignatureAlgorithm::EcdsaSha384 | SignatureAlgorithm::RsaSha384 => {
                Signable::Digest(digest::Context::new(&digest::SHA384))
            }
            SignatureAlgorithm::EcdsaSha512 | SignatureAlgorithm::RsaSha512 => {
                Signable::Digest(digest::Context::new(&digest::SHA512))
            }
            SignatureAlgorithm::Ed25519 => Signable::Message(Vec::new()),
        };
        Self { sha256: digest::Context::new(&digest::SHA256), algorithm, signed }
    }

    /// SHA-256 of what went by until now.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sha256.clone().finish().as_ref());
        sha256
    }

    fn finish(self) -> ([u8; 32], Job) {
        let sha256 = self.sha256.finish();
        let mut journaled = [0; 32];
        journaled.copy_from_slice(sha256.as_ref());
        let algorithm = self.algorithm;
        let job = match self.signed {
            Signable::Sha256 => Job::Digest { algorithm, digest: Bytes::copy_from_slice(&journaled) },
            Signable::Digest(context) => {
                Job::Digest { algorithm, digest: Bytes::copy_from_slice(context.finish().as_ref()) }
            }
            Signable::Message(message) => Job::Message(message.into()),
        };
        (journaled, job)
    }
}

impl std::io::Write for CrlDigester {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.sha256.update(bytes);
        match &mut self.signed {
            Signable::Sha256 => {}
            Signable::Digest(context) => context.update(bytes),
            Signable::Message(message) => message.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
