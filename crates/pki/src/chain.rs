//! PEM, and chains of certificates as clients download them (RFC 8555 §9.1, RFC 7468).

use der::pem::{self, LineEnding};

use crate::{Certificate, CertificateError, SignatureError};

/// Why text is not a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not PEM, or another kind of block.
    #[error("the text is not a sequence of PEM certificates")]
    Pem,
    /// A block that is not a certificate.
    #[error("certificate {index} of the chain: {error}")]
    Certificate {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A certificate that is not signed by the one after it.
    #[error("certificate {index} of the chain is not issued by the one after it")]
    Order {
        /// Which one, from 0.
        index: usize,
    },
}

/// The certificates one after another, leaf first, nothing between the blocks, LF line ends.
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> String {
    certificates.into_iter().map(Certificate::pem).collect()
}

/// Reads every certificate of a PEM file; text between the blocks is skipped.
///
/// # Errors
/// When there is none, or one that cannot be read.
pub fn from_pem(text: &str) -> Result<Vec<Certificate>, ChainError> {
    let mut certificates = Vec::new();
    for block in blocks(text, "CERTIFICATE") {
        let (_, der) = pem::decode_vec(block.as_bytes()).map_err(|_| ChainError::Pem)?;
        let index = certificates.len();
        let read = Certificate::from_der(&der).map_err(|error| ChainError::Certificate { index, error })?;
        certificates.push(read);
    }
    if certificates.is_empty() { Err(ChainError::Pem) } else { Ok(certificates) }
}

/// Checks that each certificate is issued, by name and signature, by the one after it.
///
/// # Errors
/// Says which one is not.
pub fn check_order(certificates: &[Certificate]) -> Result<(), ChainError> {
    for (index, pair) in certificates.windows(2).enumerate() {
        let [subject, issuer] = pair else { continue };
        is_issued_by(subject, issuer).map_err(|_| ChainError::Order { index })?;
    }
    Ok(())
}

/// Checks name, key identifier, CA bit and signature: whether `issuer` issued `subject`.
///
/// # Errors
/// When it did not.
pub fn is_issued_by(subject: &Certificate, issuer: &Certificate) -> Result<(), SignatureError> {
    let identifiers_agree = match (subject.authority_key_id(), issuer.key_id()) {
        (Some(named), Some(own)) => named == own,
        _ => true,
    };
    if !issuer.is_ca() || subject.issuer_der() != issuer.subject_der() || !identifiers_agree {
        return Err(SignatureError::KeyMismatch);
    }
    subject.verify_signed_by(issuer.public_key())
}

/// One PEM block with LF line ends.
#[must_use]
pub fn pem_block(label: &str, der: &[u8]) -> String {
    pem::encode_string(label, LineEnding::LF, der).unwrap_or_default()
}

/// The blocks with this label, each from its BEGIN to its END line.
fn blocks<'a>(text: &'a str, label: &str) -> impl Iterator<Item = &'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(&begin)?;
        let from = rest.get(start..)?;
        let stop = from.find(&end).map_or(from.len(), |at| at + end.len());
        rest = from.get(stop..).unwrap_or_default();
        from.get(..stop)
    })
}
