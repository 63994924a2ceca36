//! A certificate with its chain, for its account's front (RFC 8555 §7.4.2).

use acme::DirectoryName;
use ca_store::{JournalKey, JournalKind};
use pki::{Certificate, Serial};

use crate::ca::Ca;
use crate::issue::issued;
use crate::refusal::{Failure, Outcome, Reason, Refusal};

/// A certificate to be shown to its account and to nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The account.
    pub account: String,
    /// DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// What else may stand above the leaf (RFC 8555 §7.4.2): DER, the leaf's issuer first, without the root.
    pub alternates: Vec<Vec<Vec<u8>>>,
}

impl Ca {
    /// The certificate with this serial, if this directory issued it. It stays downloadable when it is revoked: its
    /// holder may need it to find that out.
    ///
    /// # Errors
    /// A refusal when there is none.
    pub async fn download(&self, directory: &DirectoryName, serial: Serial) -> Outcome<Download> {
        let unknown = || {
            Refusal::new(Reason::CertificateUnknown, "there is no such certificate")
                .status(404)
                .directory(directory.as_str())
        };
        let entries = self.store.journal(&JournalKey::Serial(serial)).await?;
        let entry = entries.into_iter().find(|entry| entry.row.unverified().kind == JournalKind::Final);
        let row = self.journal.open(entry.ok_or_else(unknown)?)?;
        let account = match (&row.account, &row.directory, &row.signature) {
            (Some(account), Some(of), Some(_)) if of == directory.as_str() => account.clone(),
            _ => return Err(unknown().into()),
        };
        let leaf = issued(&row)?.certificate;
        let alternates = self.alternates_of(&row.issuer)?;
        Ok(Download { account, chain: self.with_issuers(leaf, &row.issuer)?, alternates })
    }

    /// The issuer's other chains, as far as all their certificates are valid now.
    pub(crate) fn alternates_of(&self, issuer: &str) -> Outcome<Vec<Vec<Vec<u8>>>> {
        let Some(entry) = self.registry.issuer(issuer) else { return Ok(Vec::new()) };
        let der = |chain: &[Certificate]| chain.iter().map(|one| one.der().to_vec()).collect();
        Ok(entry.alternates_at(self.now()?).map(der).collect())
    }

    /// A leaf and what is above it, without the root.
    pub(crate) fn with_issuers(&self, leaf: Vec<u8>, issuer: &str) -> Outcome<Vec<Vec<u8>>> {
        let entry = self.registry.issuer(issuer).ok_or_else(|| Failure::Unreadable {
            table: "journal",
            detail: format!("issuer {issuer:?} is not configured"),
        })?;
        Ok(std::iter::once(leaf)
            .chain(entry.chain.iter().map(|certificate| certificate.der().to_vec()))
            .collect())
    }
}
