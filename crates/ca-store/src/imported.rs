//! CRLs of authorities whose keys are elsewhere: an offline root's, imported by an operator.

use pki::Timestamp;

use crate::AuditEvent;

/// An imported CRL. It grants nothing, and whoever reads it verifies it with the authority's certificate: it has no MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedCrl {
    /// The key identifier of the authority, in lower-case hexadecimal.
    pub authority: String,
    /// CRLNumber.
    pub number: u64,
    /// thisUpdate.
    pub this_update: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
    /// The CRL.
    pub der: Vec<u8>,
    /// When it was imported.
    pub imported_at: Timestamp,
    /// By which operator.
    pub imported_by: String,
}

/// A CRL to be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportCrl {
    /// The CRL, verified.
    pub crl: ImportedCrl,
    /// What to report if it is imported.
    pub audit: Vec<AuditEvent>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportOutcome {
    /// It is the authority's CRL now.
    Imported,
    /// One whose number or `thisUpdate` is not less is (or this one was imported before).
    Superseded(Box<ImportedCrl>),
}
