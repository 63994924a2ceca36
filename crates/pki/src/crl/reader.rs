//! The strict reader of CRLs.

use const_oid::db::rfc5280 as oid;
use der::{Decode, ErrorKind, Reader, SliceReader, asn1::UintRef};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, CrlDistributionPoints,
    crl::dp::IssuingDistributionPoint,
    name::{DistributionPointName, GeneralName},
};

use super::Entry;
use crate::{
    PublicKey, Reason, Serial, SignatureAlgorithm, SignatureError, Timestamp,
    decode::{self, ExtensionRef, Signed},
    encode::tag,
};

/// A CRL that has been read; it borrows its octets, of which there may be many.
#[derive(Clone, Debug)]
pub struct Crl<'a> {
    tbs: &'a [u8],
    signature_algorithm: SignatureAlgorithm,
    signature: &'a [u8],
    issuer: &'a [u8],
    this_update: Timestamp,
    next_update: Timestamp,
    /// The content of revokedCertificates.
    entries: &'a [u8],
    entry_count: u64,
    number: u64,
    delta_base: Option<u64>,
    authority_key_id: Vec<u8>,
    lists_ca_certificates: bool,
    urls: Vec<String>,
    delta_urls: Vec<String>,
}

/// Why octets are not a CRL that this CA can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlReadError {
    /// Not the DER of a v2 CRL with the extensions of RFC 5280 §5.2.
    #[error("not the DER of an X.509 v2 CRL with authority key identifier, number and nextUpdate")]
    Der(der::Error),
    /// Signed by an algorithm that this CA does not accept, or inside and outside differ.
    #[error("the signature algorithm is not supported, or is not the same inside and outside")]
    SignatureAlgorithm,
    /// A critical extension that is not understood, or an indirect or partial scope.
    #[error("the CRL has a critical extension or a scope that is not supported")]
    Unsupported,
    /// An entry that is not one.
    #[error("entry {0} of the CRL is malformed")]
    Entry(u64),
}

impl From<der::Error> for CrlReadError {
    fn from(error: der::Error) -> Self {
        Self::Der(error)
    }
}

impl<'a> Crl<'a> {
    /// Reads a CRL and all its entries.
    ///
    /// # Errors
    /// When the octets are not exactly one CRL in DER.
    pub fn from_der(der: &'a [u8]) -> Result<Self, CrlReadError> {
        let signed = Signed::read(der)?;
        let fields = decode::sequence(signed.content, Fields::read)?;
        let signature_algorithm = SignatureAlgorithm::from_identifier_der(signed.algorithm)
            .filter(|_| fields.algorithm == signed.algorithm)
            .ok_or(CrlReadError::SignatureAlgorithm)?;
        let mut crl = Self {
            tbs: signed.content,
            signature_algorithm,
            signature: signed.signature,
            issuer: fields.issuer,
            this_update: fields.this_update,
            next_update: fields.next_update,
            entries: fields.entries,
            entry_count: 0,
            number: 0,
            delta_base: None,
            authority_key_id: Vec::new(),
            urls: Vec::new(),
            lists_ca_certificates: true,
            delta_urls: Vec::new(),
        };
        crl.read_extensions(&fields.extensions)?;
        for (index, entry) in (0..).zip(crl.entries()) {
            entry.map_err(|_| CrlReadError::Entry(index))?;
            crl.entry_count += 1;
        }
        Ok(crl)
    }

    fn read_extensions(&mut self, extensions: &[ExtensionRef<'_>]) -> Result<(), CrlReadError> {
        let mut number = None;
        for extension in extensions {
            let value = extension.value;
            match extension.oid {
                oid::ID_CE_CRL_NUMBER => number = Some(unsigned(value)?),
                oid::ID_CE_DELTA_CRL_INDICATOR => self.delta_base = Some(unsigned(value)?),
                oid::ID_CE_AUTHORITY_KEY_IDENTIFIER => {
                    let id = AuthorityKeyIdentifier::from_der(value)?.key_identifier;
                    self.authority_key_id = id.map(|octets| octets.as_bytes().to_vec()).unwrap_or_default();
                }
                oid::ID_CE_ISSUING_DISTRIBUTION_POINT => self.read_scope(value)?,
                oid::ID_CE_FRESHEST_CRL => {
                    let points = CrlDistributionPoints::from_der(value)?.0;
                    self.delta_urls =
                        points.into_iter().flat_map(|point| urls(point.distribution_point)).collect();
                }
                _ if extension.critical => return Err(CrlReadError::Unsupported),
                _ => {}
            }
        }
        self.number = number.ok_or(der::Error::from(ErrorKind::Failed))?;
        if self.authority_key_id.is_empty() {
            return Err(der::Error::from(ErrorKind::Failed).into());
        }
        Ok(())
    }

    fn read_scope(&mut self, value: &[u8]) -> Result<(), CrlReadError> {
        let point = IssuingDistributionPoint::from_der(value)?;
        if point.indirect_crl || point.only_contains_attribute_certs || point.only_some_reasons.is_some() {
            return Err(CrlReadError::Unsupported);
        }
        self.lists_ca_certificates = !point.only_contains_user_certs;
        self.urls = urls(point.distribution_point);
        Ok(())
    }

    /// Whether CAs' certificates are in its scope: not with onlyContainsUserCerts (RFC 5280 §5.2.5).
    #[must_use]
    pub const fn lists_ca_certificates(&self) -> bool {
        self.lists_ca_certificates
    }

    /// The octets that were signed.
    #[must_use]
    pub const fn tbs_bytes(&self) -> &'a [u8] {
        self.tbs
    }

    /// The issuer's name, DER.
    #[must_use]
    pub const fn issuer_der(&self) -> &'a [u8] {
        self.issuer
    }

    /// The key identifier of the issuer.
    #[must_use]
    pub fn authority_key_id(&self) -> &[u8] {
        &self.authority_key_id
    }

    /// CRLNumber.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Of a delta CRL the number of its base.
    #[must_use]
    pub const fn delta_base(&self) -> Option<u64> {
        self.delta_base
    }

    /// When it was made.
    #[must_use]
    pub const fn this_update(&self) -> Timestamp {
        self.this_update
    }

    /// When the next one is due.
    #[must_use]
    pub const fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// The URLs of its issuing distribution point; none if it is complete.
    #[must_use]
    pub fn distribution_urls(&self) -> &[String] {
        &self.urls
    }

    /// Of a complete CRL the URLs of its delta CRL (RFC 5280 §5.2.6).
    #[must_use]
    pub fn delta_urls(&self) -> &[String] {
        &self.delta_urls
    }

    /// How many certificates it lists.
    #[must_use]
    pub const fn entry_count(&self) -> u64 {
        self.entry_count
    }

    /// The revoked certificates, in the order of the CRL.
    pub fn entries(&self) -> impl Iterator<Item = der::Result<Entry>> + use<'a> {
        let mut reader = SliceReader::new(self.entries).ok();
        std::iter::from_fn(move || {
            let current = reader.as_mut().filter(|reader| !reader.is_finished())?;
            let entry = current.sequence(read_entry);
            if entry.is_err() {
                reader = None;
            }
            Some(entry)
        })
    }

    /// Whether, and how, this certificate is revoked.
    #[must_use]
    pub fn find(&self, serial: &Serial) -> Option<Entry> {
        self.entries().filter_map(Result::ok).find(|entry| entry.serial == *serial)
    }

    /// The signature, as X.509 carries it.
    #[must_use]
    pub const fn signature(&self) -> &'a [u8] {
        self.signature
    }

    /// The algorithm of the signature.
    #[must_use]
    pub const fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.signature_algorithm
    }

    /// Checks the signature alone.
    ///
    /// # Errors
    /// When `key` did not make it.
    pub fn verify_signed_by(&self, key: &PublicKey) -> Result<(), SignatureError> {
        key.verify(self.signature_algorithm, self.tbs, self.signature)
    }

    /// Checks that `issuer` made it: name, key identifier and signature.
    ///
    /// # Errors
    /// When it did not.
    pub fn verify_issued_by(&self, issuer: &crate::Certificate) -> Result<(), SignatureError> {
        if self.issuer != issuer.subject_der() || issuer.key_id() != Some(self.authority_key_id()) {
            return Err(SignatureError::KeyMismatch);
        }
        self.verify_signed_by(issuer.public_key())
    }
}

/// Whether `key` signed this and it begins as a CRL does (RFC 5280 §5.1.2.1), whatever else it is: a CRL that this version
/// cannot read was made by another one.
#[must_use]
pub fn is_signed_by(der: &[u8], key: &PublicKey) -> bool {
    let Ok(signed) = Signed::read(der) else { return false };
    // A certificate has a tag of its own around its version.
    let header = match signed.content.get(1) {
        Some(len @ 0x81..=0x84) => 2 + usize::from(len & 0x7f),
        _ => 2,
    };
    let begins_as_a_crl = signed.content.get(header..).is_some_and(|it| it.starts_with(&[2, 1, 1]));
    begins_as_a_crl
        && SignatureAlgorithm::from_identifier_der(signed.algorithm)
            .is_some_and(|algorithm| key.verify(algorithm, signed.content, signed.signature).is_ok())
}

/// The URIs of a full name.
fn urls(name: Option<DistributionPointName>) -> Vec<String> {
    let Some(DistributionPointName::FullName(names)) = name else { return Vec::new() };
    let uri = |name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    };
    names.into_iter().filter_map(uri).collect()
}

/// TBSCertList, field by field (RFC 5280 §5.1).
struct Fields<'a> {
    algorithm: &'a [u8],
    issuer: &'a [u8],
    this_update: Timestamp,
    next_update: Timestamp,
    entries: &'a [u8],
    extensions: Vec<ExtensionRef<'a>>,
}

impl<'a> Fields<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        if u8::decode(reader)? != 1 {
            return Err(ErrorKind::Failed.into());
        }
        let algorithm = reader.tlv_bytes()?;
        let issuer = reader.tlv_bytes()?;
        let (this_update, next_update) = (decode::time(reader)?, decode::time(reader)?);
        let mut entries: &[u8] = &[];
        if decode::next_tag(reader) == Some(tag::SEQUENCE) {
            entries = reader.sequence(|reader| reader.read_slice(reader.remaining_len()))?;
            if entries.is_empty() {
                return Err(ErrorKind::Failed.into());
            }
        }
        let extensions = decode::context(reader, 0, decode::extensions)?.unwrap_or_default();
        Ok(Self { algorithm, issuer, this_update, next_update, entries, extensions })
    }
}

fn read_entry(reader: &mut SliceReader<'_>) -> der::Result<Entry> {
    let serial = Serial::from_bytes(decode::integer(reader)?).map_err(|_| ErrorKind::Failed)?;
    let revoked_at = decode::time(reader)?;
    let mut reason = Reason::Unspecified;
    if !reader.is_finished() {
        for extension in decode::extensions(reader)? {
            if extension.oid == oid::ID_CE_CRL_REASONS {
                reason = read_reason(extension.value)?;
            } else if extension.critical {
                return Err(ErrorKind::Failed.into());
            }
        }
    }
    Ok(Entry { serial, revoked_at, reason })
}

/// A reasonCode: ENUMERATED of one octet.
fn read_reason(value: &[u8]) -> der::Result<Reason> {
    match value {
        [tag::ENUMERATED, 1, code] => {
            Reason::try_from(i64::from(*code)).map_err(|_| ErrorKind::Failed.into())
        }
        _ => Err(ErrorKind::Failed.into()),
    }
}

fn unsigned(value: &[u8]) -> der::Result<u64> {
    let number = UintRef::from_der(value)?;
    number
        .as_bytes()
        .iter()
        .try_fold(0_u64, |sum, octet| sum.checked_mul(256)?.checked_add((*octet).into()))
        .ok_or_else(|| ErrorKind::Overflow.into())
}
