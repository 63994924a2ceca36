//! Certificates, read strictly (RFC 5280 §4.1).

mod constraints;

use std::{fmt, net::IpAddr, ops::Range, sync::Arc};

use const_oid::{ObjectIdentifier, db::rfc5280 as oid};
use der::{
    Decode, ErrorKind, SliceReader,
    asn1::{Null, OctetStringRef},
};
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage,
    name::{DistributionPointName, GeneralName},
};

use crate::{
    KeyError, Name, NameError, NameSet, PublicKey, Serial, SerialError, SignatureAlgorithm, SignatureError,
    Timestamp,
    decode::{self, ExtensionRef, Signed},
    extension::TEST_CA,
};
use constraints::Constraints;

/// A parsed certificate and its exact bytes. Cheap to clone; equal if the bytes are.
///
/// Reading checks form, not trust: a signature is checked by [`Certificate::verify_signed_by`].
#[derive(Clone)]
pub struct Certificate(Arc<Parsed>);

struct Parsed {
    der: Box<[u8]>,
    tbs: Range<usize>,
    issuer: Range<usize>,
    subject: Range<usize>,
    signature: Range<usize>,
    signature_algorithm: SignatureAlgorithm,
    serial: Serial,
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: PublicKey,
    extensions: Extensions,
}

#[derive(Default)]
struct Extensions {
    names: Option<NameSet>,
    uris: Vec<String>,
    key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
    crl_urls: Vec<String>,
    delta_crl_urls: Vec<String>,
    ocsp_urls: Vec<String>,
    /// `cA` is TRUE; inside, the path length.
    ca: Option<Option<u8>>,
    key_usage: Option<KeyUsage>,
    signs_ocsp: bool,
    test_ca: bool,
    constraints: Constraints,
}

/// Why octets are not a certificate that this CA can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not the DER of an X.509 v3 certificate.
    #[error("not the DER of an X.509 v3 certificate")]
    Der(#[from] der::Error),
    /// Its serial number is malformed.
    #[error("serial number: {0}")]
    Serial(#[from] SerialError),
    /// Its public key is malformed or of an unknown kind.
    #[error("public key: {0}")]
    Key(#[from] KeyError),
    /// One of its names is malformed.
    #[error("subject alternative name: {0}")]
    Name(#[from] NameError),
    /// Signed by an algorithm that this CA does not accept, or inside and outside differ.
    #[error("the signature algorithm is not supported, or is not the same inside and outside")]
    SignatureAlgorithm,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When the octets are not exactly one certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let signed = Signed::read(der)?;
        let tbs = decode::sequence(signed.content, TbsFields::read)?;
        let signature_algorithm = SignatureAlgorithm::from_identifier_der(signed.algorithm)
            .filter(|_| tbs.algorithm == signed.algorithm)
            .ok_or(CertificateError::SignatureAlgorithm)?;
        Ok(Self(Arc::new(Parsed {
            tbs: range_of(der, signed.content),
            issuer: range_of(der, tbs.issuer),
            subject: range_of(der, tbs.subject),
            signature: range_of(der, signed.signature),
            signature_algorithm,
            serial: Serial::from_bytes(tbs.serial)?,
            not_before: tbs.not_before,
            not_after: tbs.not_after,
            public_key: PublicKey::from_spki_der(tbs.public_key)?,
            extensions: Extensions::read(&tbs.extensions)?,
            der: der.into(),
        })))
    }

    /// The whole certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The whole certificate as one PEM block with LF line ends.
    #[must_use]
    pub fn pem(&self) -> String {
        crate::chain::pem_block("CERTIFICATE", self.der())
    }

    /// The octets that were signed.
    #[must_use]
    pub fn tbs_bytes(&self) -> &[u8] {
        self.slice(&self.0.tbs)
    }

    /// The issuer's name, DER.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        self.slice(&self.0.issuer)
    }

    /// The subject, DER.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        self.slice(&self.0.subject)
    }

    /// The subject for people (RFC 4514).
    #[must_use]
    pub fn subject_text(&self) -> String {
        x509_cert::name::Name::from_der(self.subject_der()).map(|name| name.to_string()).unwrap_or_default()
    }

    /// The signature, as X.509 carries it.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.slice(&self.0.signature)
    }

    /// The algorithm of the signature.
    #[must_use]
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.0.signature_algorithm
    }

    /// The serial number.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.0.serial
    }

    /// The first second of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.0.not_before
    }

    /// The last second of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    /// Whether `at` lies in its validity.
    #[must_use]
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        (self.0.not_before..=self.0.not_after).contains(&at)
    }

    /// The subject's public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// DNS names and addresses of the subject alternative name.
    #[must_use]
    pub fn names(&self) -> Option<&NameSet> {
        self.0.extensions.names.as_ref()
    }

    /// URIs of the subject alternative name.
    #[must_use]
    pub fn uris(&self) -> &[String] {
        &self.0.extensions.uris
    }

    /// The subject key identifier.
    #[must_use]
    pub fn key_id(&self) -> Option<&[u8]> {
        self.0.extensions.key_id.as_deref()
    }

    /// The key identifier of the issuer.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.0.extensions.authority_key_id.as_deref()
    }

    /// The URLs of its CRL distribution points.
    #[must_use]
    pub fn crl_urls(&self) -> &[String] {
        &self.0.extensions.crl_urls
    }

    /// The URLs of its delta CRLs (freshestCRL, RFC 5280 §4.2.1.15).
    #[must_use]
    pub fn delta_crl_urls(&self) -> &[String] {
        &self.0.extensions.delta_crl_urls
    }

    /// The URLs of its OCSP responders.
    #[must_use]
    pub fn ocsp_urls(&self) -> &[String] {
        &self.0.extensions.ocsp_urls
    }

    /// Whether basicConstraints says that it is a CA.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.0.extensions.ca.is_some()
    }

    /// How many CAs may follow below this one, if it is a CA and says so.
    #[must_use]
    pub fn path_length(&self) -> Option<u8> {
        self.0.extensions.ca.flatten()
    }

    /// Whether it is a CA that its ceremony marked as one for tests: nobody should trust it with anything.
    #[must_use]
    pub fn is_test_ca(&self) -> bool {
        self.is_ca() && self.0.extensions.test_ca
    }

    /// Whether its key usage, if there is one, lets it sign certificates.
    #[must_use]
    pub fn may_sign_certificates(&self) -> bool {
        self.0.extensions.key_usage.is_none_or(|usage| usage.key_cert_sign())
    }

    /// Whether its key usage, if there is one, lets it sign CRLs.
    #[must_use]
    pub fn may_sign_crls(&self) -> bool {
        self.0.extensions.key_usage.is_none_or(|usage| usage.crl_sign())
    }

    /// Whether it is a delegated OCSP responder's (RFC 6960 §4.2.2.2): its purposes contain
    /// OCSPSigning, and its key usage, if there is one, lets it sign.
    #[must_use]
    pub fn may_sign_ocsp(&self) -> bool {
        let extensions = &self.0.extensions;
        extensions.signs_ocsp && extensions.key_usage.is_none_or(|usage| usage.digital_signature())
    }

    /// Whether its name constraints, if it is a CA and has some, let it issue for `name`.
    #[must_use]
    pub fn permits(&self, name: &Name) -> bool {
        match name {
            Name::Ip(address) => self.permits_ip(*address),
            Name::Dns(_) | Name::Wildcard(_) => self.permits_dns(&name.to_string()),
        }
    }

    /// The same for a dNSName as it stands in a certificate, wildcards included.
    pub(crate) fn permits_dns(&self, name: &str) -> bool {
        self.0.extensions.constraints.permit_dns(name)
    }

    /// The same for an iPAddress.
    pub(crate) fn permits_ip(&self, address: IpAddr) -> bool {
        self.0.extensions.constraints.permit_ip(address)
    }

    /// Whether it names itself as its issuer.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.issuer_der() == self.subject_der()
    }

    /// Checks the signature alone.
    ///
    /// # Errors
    /// When `key` did not make it.
    pub fn verify_signed_by(&self, key: &PublicKey) -> Result<(), SignatureError> {
        key.verify(self.0.signature_algorithm, self.tbs_bytes(), self.signature())
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.0.der.get(range.clone()).unwrap_or_default()
    }
}

/// The key of a certificate, whatever else stands there: nothing of it is judged.
///
/// # Errors
/// When the octets are no certificate, or its key is of a kind that is not known.
pub fn subject_public_key(der: &[u8]) -> Result<PublicKey, CertificateError> {
    let tbs = decode::sequence(Signed::read(der)?.content, TbsFields::read)?;
    Ok(PublicKey::from_spki_der(tbs.public_key)?)
}

/// Where `part`, a piece of `whole`, begins and ends in it.
fn range_of(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

/// TBSCertificate, field by field.
pub(crate) struct TbsFields<'a> {
    pub(crate) serial: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) subject: &'a [u8],
    pub(crate) public_key: &'a [u8],
    pub(crate) extensions: Vec<ExtensionRef<'a>>,
}

impl<'a> TbsFields<'a> {
    pub(crate) fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        use der::Reader as _;
        let version = decode::context(reader, 0, u8::decode)?;
        if version != Some(2) {
            return Err(ErrorKind::Failed.into());
        }
        let serial = decode::integer(reader)?;
        let algorithm = reader.tlv_bytes()?;
        let issuer = reader.tlv_bytes()?;
        let (not_before, not_after) =
            reader.sequence(|reader| Ok::<_, der::Error>((decode::time(reader)?, decode::time(reader)?)))?;
        let subject = reader.tlv_bytes()?;
        let public_key = reader.tlv_bytes()?;
        // Unique identifiers are never written by conforming CAs (RFC 5280 §4.1.2.8): not read.
        let extensions = decode::context(reader, 3, decode::extensions)?.unwrap_or_default();
        Ok(Self { serial, algorithm, issuer, not_before, not_after, subject, public_key, extensions })
    }
}

impl Extensions {
    fn read(list: &[ExtensionRef<'_>]) -> Result<Self, CertificateError> {
        let value =
            |oid: ObjectIdentifier| list.iter().find(|extension| extension.oid == oid).map(|e| e.value);
        let mut this = Self::default();
        if let Some(der) = value(oid::ID_CE_SUBJECT_ALT_NAME) {
            (this.names, this.uris) = read_alternative_names(der)?;
        }
        if let Some(der) = value(oid::ID_CE_SUBJECT_KEY_IDENTIFIER) {
            this.key_id = Some(<&OctetStringRef>::from_der(der)?.as_bytes().to_vec());
        }
        if let Some(der) = value(oid::ID_CE_AUTHORITY_KEY_IDENTIFIER) {
            let id = AuthorityKeyIdentifier::from_der(der)?.key_identifier;
            this.authority_key_id = id.map(|octets| octets.as_bytes().to_vec());
        }
        if let Some(der) = value(oid::ID_CE_CRL_DISTRIBUTION_POINTS) {
            this.crl_urls = read_points(der)?;
        }
        if let Some(der) = value(oid::ID_CE_FRESHEST_CRL) {
            this.delta_crl_urls = read_points(der)?;
        }
        if let Some(der) = value(oid::ID_PE_AUTHORITY_INFO_ACCESS) {
            let descriptions = AuthorityInfoAccessSyntax::from_der(der)?.0;
            let ocsp = descriptions.into_iter().filter(|access| access.access_method == oid::ID_AD_OCSP);
            this.ocsp_urls = ocsp.filter_map(|access| uri(access.access_location)).collect();
        }
        if let Some(der) = value(oid::ID_CE_BASIC_CONSTRAINTS) {
            let constraints = BasicConstraints::from_der(der)?;
            this.ca = constraints.ca.then_some(constraints.path_len_constraint);
        }
        if let Some(der) = value(oid::ID_CE_KEY_USAGE) {
            this.key_usage = Some(KeyUsage::from_der(der)?);
        }
        if let Some(der) = value(oid::ID_CE_EXT_KEY_USAGE) {
            this.signs_ocsp = ExtendedKeyUsage::from_der(der)?.0.contains(&oid::ID_KP_OCSP_SIGNING);
        }
        if let Some(der) = value(TEST_CA) {
            Null::from_der(der)?;
            this.test_ca = true;
        }
        if let Some(der) = value(oid::ID_CE_NAME_CONSTRAINTS) {
            this.constraints = Constraints::read(der)?;
        }
        Ok(this)
    }
}

fn read_points(der: &[u8]) -> der::Result<Vec<String>> {
    let points = CrlDistributionPoints::from_der(der)?.0.into_iter();
    let names = points.filter_map(|point| match point.distribution_point {
        Some(DistributionPointName::FullName(names)) => Some(names),
        _ => None,
    });
    Ok(names.flatten().filter_map(uri).collect())
}

fn uri(name: GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    }
}

/// Names and URIs; other kinds of general names are nothing that this CA puts there or looks for.
fn read_alternative_names(der: &[u8]) -> Result<(Option<NameSet>, Vec<String>), CertificateError> {
    let mut names = Vec::new();
    let mut uris = Vec::new();
    for (choice, content) in decode::general_names(der)? {
        match choice {
            2 | 7 => names.push(read_name(choice, content)?),
            6 => uris
                .push(str::from_utf8(content).map_err(|_| der::Error::from(ErrorKind::Failed))?.to_owned()),
            _ => {}
        }
    }
    Ok((NameSet::new(names).ok(), uris))
}

/// A dNSName `[2]` or iPAddress `[7]`.
pub(crate) fn read_name(choice: u8, content: &[u8]) -> Result<Name, NameError> {
    if choice == 2 {
        return Name::parse_dns(str::from_utf8(content).map_err(|_| NameError::Character)?);
    }
    if let Ok(octets) = <[u8; 4]>::try_from(content) {
        return Ok(Name::Ip(IpAddr::from(octets)));
    }
    <[u8; 16]>::try_from(content).map(|octets| Name::Ip(IpAddr::from(octets))).map_err(|_| NameError::Address)
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate(serial {}, subject {:?})", self.serial(), self.subject_text())
    }
}

#[cfg(test)]
mod tests;
