//! Certificate revocation lists (RFC 5280 §5, BR §7.2): a streaming writer and a strict reader.
//!
//! The writer needs flat memory for any number of entries. It is told beforehand how many octets
//! they take ([`CrlTotals`]; an [`EntryWriter`] has written and counted them), writes the TBSCertList once, and feeds a
//! digest on the way: the same snapshot gives the same octets again, so the octets need not be kept to be signed.

mod edit;
mod reader;
mod writer;

use crate::{ErrorClass, Issuer, Reason, Serial, SignatureAlgorithm, Timestamp, encode::Encoder};

pub use edit::CrlEdits;
pub use reader::{Crl, CrlReadError, is_signed_by};
pub use writer::{CrlTbs, CrlTotals, CrlWriter, EntryWriter};

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its serial number.
    pub serial: Serial,
    /// When it was revoked; not after the CRL's thisUpdate.
    pub revoked_at: Timestamp,
    /// Why; [`Reason::Unspecified`] is not written (RFC 5280 §5.3.1).
    pub reason: Reason,
}

/// What a CRL says beside its entries.
#[derive(Clone, Copy, Debug)]
pub struct CrlParameters<'a> {
    /// Who issues it.
    pub issuer: &'a Issuer,
    /// CRLNumber, rising with each CRL of the same issuer and scope (RFC 5280 §5.2.3).
    pub number: u64,
    /// When the snapshot was taken.
    pub this_update: Timestamp,
    /// When the next one will be there at the latest.
    pub next_update: Timestamp,
    /// Which certificates it speaks of.
    pub scope: CrlScope,
    /// For a delta CRL the number of the complete one that it adds to (RFC 5280 §5.2.4): it lists what
    /// was revoked since. Complete and delta CRLs of a scope share one sequence of numbers. An entry
    /// that left the list because its certificate expired is not taken back by `removeFromCRL`: that
    /// is a MUST only for certificates on hold, of which there are none.
    pub delta_base: Option<u64>,
}

/// Which certificates of its issuer a CRL speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrlScope {
    /// All of them: no issuing distribution point. For roots, which have one small CRL.
    Complete,
    /// The subscribers' certificates of this shard: a critical issuing distribution point with the
    /// URL that stands in those certificates, and onlyContainsUserCerts (BR §7.2.2.1).
    Shard(u32),
}

/// Why a CRL cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The output failed.
    #[error("writing the CRL: {0}")]
    Io(#[from] std::io::Error),
    /// nextUpdate is not after thisUpdate.
    #[error("nextUpdate must be after thisUpdate")]
    Times,
    /// A shard without a URL to stand in the issuing distribution point.
    #[error("the issuer publishes no CRLs, so a shard has no URL")]
    NoUrl,
    /// A delta CRL that is not newer than its base.
    #[error("a delta CRL has a higher number than its base")]
    Base,
    /// An entry later than the snapshot.
    #[error("serial {0} was revoked after thisUpdate")]
    RevokedLater(Serial),
    /// The entries written are not those that were counted.
    #[error("the entries are not the ones that were counted")]
    Totals,
}

impl CrlError {
    /// A failed output may work again; the rest is a broken invariant.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Io(_) => ErrorClass::Transient,
            Self::Times | Self::NoUrl | Self::Base | Self::RevokedLater(_) | Self::Totals => {
                ErrorClass::Fatal
            }
        }
    }
}

/// The longest that the octets before a TBSCertList can get: a writer of files leaves this much room
/// in front, because the header's length depends on the signature's.
pub const PREFIX_MAX: usize = 6;

/// What stands before and after a TBSCertList of `tbs_len` octets.
#[must_use]
pub fn envelope(tbs_len: u64, algorithm: SignatureAlgorithm, signature: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut suffix = Encoder::with_capacity(signature.len() + 24);
    suffix.raw(algorithm.identifier_der()).bit_string(signature);
    let suffix = suffix.into_bytes();
    let content = usize::try_from(tbs_len).unwrap_or(usize::MAX).saturating_add(suffix.len());
    let mut buffer = [0; PREFIX_MAX];
    let prefix = crate::encode::write_header(&mut buffer, crate::encode::tag::SEQUENCE, content).to_vec();
    (prefix, suffix)
}

/// A CRL whose TBSCertList is at hand.
#[must_use]
pub fn assemble(tbs: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    let (prefix, suffix) = envelope(tbs.len() as u64, algorithm, signature);
    [prefix.as_slice(), tbs, &suffix].concat()
}

#[cfg(test)]
mod tests;
