//! The strict reader of answers, and their verification.

use const_oid::db::rfc6960 as oid;
use der::{Decode, ErrorKind, Reader, SliceReader, asn1::OctetStringRef};

use super::{CertId, CertStatus, IssuerHashes, MAX_REQUESTS, NONCE_MAX, cert_id::key_hash};
use crate::{
    Certificate, CertificateError, ErrorClass, Reason, SignatureAlgorithm, SignatureError, Timestamp,
    decode::{self, ExtensionRef},
    encode::{encode, tag},
};

/// How long an answer may be, in octets: one to every certificate of a request, with a chain of RSA.
const MAX_RESPONSE_OCTETS: usize = 64 * 1024;

/// How many certificates an answer may carry.
const MAX_CERTIFICATES: usize = 8;

/// An OCSPResponse that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A BasicOCSPResponse.
    Successful(Box<Response>),
    /// An error, by its number in RFC 6960 §4.2.1: 1, 2, 3, 5 or 6.
    Error(u8),
}

/// A BasicOCSPResponse that has been read; [`Response::verify`] says whether to believe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    data: Vec<u8>,
    /// The whole ResponderID.
    responder: Vec<u8>,
    produced_at: Timestamp,
    singles: Vec<SingleRead>,
    nonce: Option<Vec<u8>>,
    signature_algorithm: SignatureAlgorithm,
    signature: Vec<u8>,
    certificates: Vec<Certificate>,
    is_plain: bool,
}

/// What an answer says about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleRead {
    /// The certificate.
    pub id: CertId,
    /// Its state.
    pub status: CertStatus,
    /// When that was known to be right.
    pub this_update: Timestamp,
    /// When something newer will be there at the latest; `None`: at any time.
    pub next_update: Option<Timestamp>,
    /// How far back the responder remembers certificates that expired.
    pub archive_cutoff: Option<Timestamp>,
}

/// Why octets are not an answer, or one that is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// More octets than any answer of ours.
    #[error("the response has more than {MAX_RESPONSE_OCTETS} octets")]
    TooLong,
    /// Not the DER of an OCSPResponse.
    #[error("not the DER of an OCSPResponse: {0}")]
    Der(#[from] der::Error),
    /// Another kind of response than id-pkix-ocsp-basic.
    #[error("the response is not a BasicOCSPResponse of version 1")]
    Kind,
    /// No single response, or more than [`MAX_REQUESTS`].
    #[error("a response speaks of 1 to {MAX_REQUESTS} certificates")]
    Count,
    /// A reason that no CRL of ours has, or `unspecified`, which is not written (BR §7.3).
    #[error("a reason for revocation that is not permitted")]
    Reason,
    /// A nonce of a length that RFC 9654 §2.1 does not have.
    #[error("a nonce has 1 to {NONCE_MAX} octets")]
    Nonce,
    /// A critical extension that is not understood.
    #[error("the response has a critical extension that is not supported")]
    CriticalExtension,
    /// Signed by an algorithm that this CA does not accept.
    #[error("the signature algorithm is not supported")]
    SignatureAlgorithm,
    /// More certificates than anybody needs.
    #[error("the response has more than {MAX_CERTIFICATES} certificates")]
    Certificates,
    /// A certificate in it is malformed.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// It speaks of certificates of another issuer.
    #[error("the response speaks of a certificate of another issuer")]
    OtherIssuer,
    /// The certificate of the responder that it names is not in it.
    #[error("the responder's certificate is not in the response")]
    NoResponder,
    /// The responder's certificate is of another issuer.
    #[error("the responder's certificate was not issued by this issuer")]
    NotIssued,
    /// The responder's certificate is not one of a delegated responder (RFC 6960 §4.2.2.2).
    #[error("the responder's certificate has no OCSPSigning, or may not sign")]
    NotDelegated,
    /// The responder's certificate is not valid at this time.
    #[error("the responder's certificate is not valid at {0}")]
    NotValid(Timestamp),
    /// The signature is wrong.
    #[error("signature: {0}")]
    Signature(#[from] SignatureError),
    /// It promises to be right for longer than its responder's certificate is.
    #[error("nextUpdate is after the end of the responder's certificate")]
    Outlives,
}

impl ResponseError {
    /// Whoever sent it will send it again.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Fatal
    }
}

/// Reads an answer.
///
/// # Errors
/// When the octets are not exactly one answer in DER, or one that says what cannot be understood.
pub fn read(der: &[u8]) -> Result<Answer, ResponseError> {
    if der.len() > MAX_RESPONSE_OCTETS {
        return Err(ResponseError::TooLong);
    }
    let (status, bytes) = decode::sequence(der, |reader| {
        Ok((enumerated(reader)?, decode::context(reader, 0, |reader| reader.sequence(read_bytes))?))
    })?;
    match (status, bytes) {
        (0, Some((kind, response))) if kind == oid::ID_PKIX_OCSP_BASIC => {
            Response::read(response).map(|response| Answer::Successful(Box::new(response)))
        }
        (0, Some(_)) => Err(ResponseError::Kind),
        (1 | 2 | 3 | 5 | 6, None) => Ok(Answer::Error(status)),
        _ => Err(der::Error::from(ErrorKind::Failed).into()),
    }
}

fn read_bytes<'a>(reader: &mut SliceReader<'a>) -> der::Result<(const_oid::ObjectIdentifier, &'a [u8])> {
    Ok((decode::oid(reader)?, decode::octets(reader)?))
}

/// An ENUMERATED of one octet that is not negative.
fn enumerated(reader: &mut SliceReader<'_>) -> der::Result<u8> {
    match reader.tlv_bytes()? {
        [tag::ENUMERATED, 1, number @ 0..0x80] => Ok(*number),
        _ => Err(ErrorKind::Failed.into()),
    }
}

impl Response {
    fn read(der: &[u8]) -> Result<Self, ResponseError> {
        let basic = decode::sequence(der, Basic::read)?;
        let fields = decode::sequence(basic.data, Fields::read)?;
        if fields.has_version {
            return Err(ResponseError::Kind);
        }
        let mut response = Self {
            data: basic.data.to_vec(),
            responder: fields.responder.to_vec(),
            produced_at: fields.produced_at,
            singles: Vec::new(),
            nonce: None,
            signature_algorithm: SignatureAlgorithm::from_identifier_der(basic.algorithm)
                .ok_or(ResponseError::SignatureAlgorithm)?,
            signature: basic.signature.to_vec(),
            certificates: Vec::new(),
            // Ours are named by their keys.
            is_plain: matches!(fields.responder, [0xa2, ..]),
        };
        response.read_singles(fields.singles)?;
        for extension in fields.extensions {
            response.read_extension(&extension)?;
        }
        response.read_certificates(basic.certificates)?;
        Ok(response)
    }

    fn read_singles(&mut self, list: &[u8]) -> Result<(), ResponseError> {
        let mut reader = SliceReader::new(list)?;
        while !reader.is_finished() {
            if self.singles.len() == MAX_REQUESTS {
                return Err(ResponseError::Count);
            }
            let fields = reader.sequence(SingleFields::read)?;
            let single = self.read_single(fields)?;
            self.singles.push(single);
        }
        if self.singles.is_empty() { Err(ResponseError::Count) } else { Ok(()) }
    }

    fn read_single(&mut self, fields: SingleFields<'_>) -> Result<SingleRead, ResponseError> {
        let mut archive_cutoff = None;
        for extension in fields.extensions {
            if extension.oid == oid::ID_PKIX_OCSP_ARCHIVE_CUTOFF {
                let mut reader = SliceReader::new(extension.value)?;
                archive_cutoff = Some(decode::generalized_time(&mut reader)?);
                reader.finish()?;
                self.is_plain &= !extension.critical;
            } else {
                self.pass_over(&extension)?;
            }
        }
        let status = match fields.status {
            StatusFields::Good => CertStatus::Good,
            StatusFields::Unknown => CertStatus::Unknown,
            StatusFields::Revoked(at, code) => {
                let reason = code.map_or(Ok(Reason::Unspecified), |code| Reason::try_from(i64::from(code)));
                let reason = reason.ok().filter(|reason| code.is_none() || *reason != Reason::Unspecified);
                CertStatus::Revoked { at, reason: reason.ok_or(ResponseError::Reason)? }
            }
        };
        // Ours always have one (BR §4.9.9).
        self.is_plain &= fields.next_update.is_some();
        let SingleFields { id, this_update, next_update, .. } = fields;
        Ok(SingleRead { id, status, this_update, next_update, archive_cutoff })
    }

    fn read_extension(&mut self, extension: &ExtensionRef<'_>) -> Result<(), ResponseError> {
        if extension.oid != oid::ID_PKIX_OCSP_NONCE {
            return self.pass_over(extension);
        }
        self.is_plain &= !extension.critical;
        let nonce = <&OctetStringRef>::from_der(extension.value)?.as_bytes();
        if !(1..=NONCE_MAX).contains(&nonce.len()) {
            return Err(ResponseError::Nonce);
        }
        self.nonce = Some(nonce.to_vec());
        Ok(())
    }

    fn pass_over(&mut self, extension: &ExtensionRef<'_>) -> Result<(), ResponseError> {
        self.is_plain = false;
        if extension.critical { Err(ResponseError::CriticalExtension) } else { Ok(()) }
    }

    fn read_certificates(&mut self, list: Option<&[u8]>) -> Result<(), ResponseError> {
        let Some(list) = list else { return Ok(()) };
        let mut reader = SliceReader::new(list)?;
        while !reader.is_finished() {
            if self.certificates.len() == MAX_CERTIFICATES {
                return Err(ResponseError::Certificates);
            }
            self.certificates.push(Certificate::from_der(reader.tlv_bytes()?)?);
        }
        // An empty list has no reason to be there.
        self.is_plain &= !self.certificates.is_empty();
        Ok(())
    }

    /// What it says about each certificate, in its order.
    #[must_use]
    pub fn singles(&self) -> &[SingleRead] {
        &self.singles
    }

    /// When it was signed.
    #[must_use]
    pub const fn produced_at(&self) -> Timestamp {
        self.produced_at
    }

    /// The earliest nextUpdate: until then all of it may be served. `None` if one has none.
    #[must_use]
    pub fn next_update(&self) -> Option<Timestamp> {
        self.singles.iter().map(|single| single.next_update).min().flatten()
    }

    /// The nonce, if there is one.
    #[must_use]
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// The octets that were signed: ResponseData.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The signature, as X.509 carries it.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The algorithm of the signature.
    #[must_use]
    pub const fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.signature_algorithm
    }

    /// The certificates that came along.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The certificate of the responder that it names, if it came along.
    #[must_use]
    pub fn responder(&self) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| self.names(certificate))
    }

    /// Whether it is of the form that [`response_data`](super::response_data) has, and nothing in it
    /// was passed over: whoever writes the same again makes the same octets.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether the ResponderID is that of this certificate, by its key or by its name.
    fn names(&self, certificate: &Certificate) -> bool {
        if let [0xa2, 22, tag::OCTET_STRING, 20, hash @ ..] = self.responder.as_slice() {
            return hash == key_hash(certificate.public_key()).as_ref();
        }
        let by_name = encode(|e| {
            e.nested(tag::context_constructed(1), |e| {
                e.raw(certificate.subject_der());
            });
        });
        self.responder == by_name
    }

    /// Checks that a delegated responder of `issuer` made it: the certificate of that responder is
    /// in it, was issued by `issuer` for OCSPSigning, is valid at `at`, signed the data, and no
    /// nextUpdate is later than its end (RFC 6960 §4.2.2.2, BR §4.9.9). It speaks of `issuer`'s
    /// certificates alone. Whether it is still fresh is the caller's question.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn verify(&self, issuer: &Certificate, at: Timestamp) -> Result<(), ResponseError> {
        let hashes = IssuerHashes::of(issuer);
        if !self.singles.iter().all(|single| single.id.is_of(&hashes)) {
            return Err(ResponseError::OtherIssuer);
        }
        let responder = self.responder().ok_or(ResponseError::NoResponder)?;
        let same_key_id =
            responder.authority_key_id().is_none_or(|authority| Some(authority) == issuer.key_id());
        if responder.issuer_der() != issuer.subject_der() || !same_key_id {
            return Err(ResponseError::NotIssued);
        }
        responder.verify_signed_by(issuer.public_key()).map_err(|_| ResponseError::NotIssued)?;
        if !responder.may_sign_ocsp() {
            return Err(ResponseError::NotDelegated);
        }
        if !responder.is_valid_at(at) {
            return Err(ResponseError::NotValid(at));
        }
        if self.singles.iter().any(|single| single.next_update > Some(responder.not_after())) {
            return Err(ResponseError::Outlives);
        }
        Ok(responder.public_key().verify(self.signature_algorithm, &self.data, &self.signature)?)
    }
}

/// BasicOCSPResponse.
struct Basic<'a> {
    data: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// The content of the list, if there is one.
    certificates: Option<&'a [u8]>,
}

impl<'a> Basic<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        let data = reader.tlv_bytes()?;
        let algorithm = reader.tlv_bytes()?;
        let signature = der::asn1::BitStringRef::decode(reader)?.as_bytes().ok_or(ErrorKind::Failed)?;
        let certificates = decode::context(reader, 0, content)?;
        Ok(Self { data, algorithm, signature, certificates })
    }
}

/// The content of a SEQUENCE.
fn content<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    reader.sequence(|reader| reader.read_slice(reader.remaining_len()))
}

/// ResponseData.
struct Fields<'a> {
    has_version: bool,
    responder: &'a [u8],
    produced_at: Timestamp,
    singles: &'a [u8],
    extensions: Vec<ExtensionRef<'a>>,
}

impl<'a> Fields<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        // DEFAULT v1 is not written (X.690 §11.5), and there is no other.
        let has_version = decode::context(reader, 0, Reader::tlv_bytes)?.is_some();
        let responder = reader.tlv_bytes()?;
        match responder {
            [0xa1, ..] => check_name(responder)?,
            [0xa2, 22, tag::OCTET_STRING, 20, ..] => {}
            _ => return Err(ErrorKind::Failed.into()),
        }
        let produced_at = decode::generalized_time(reader)?;
        let singles = content(reader)?;
        let extensions = decode::context(reader, 1, decode::extensions)?.unwrap_or_default();
        Ok(Self { has_version, responder, produced_at, singles, extensions })
    }
}

/// `byName [1] Name`, EXPLICIT.
fn check_name(responder: &[u8]) -> der::Result<()> {
    let mut reader = SliceReader::new(responder)?;
    decode::context(&mut reader, 1, x509_cert::name::RdnSequence::decode)?;
    reader.finish()
}

/// SingleResponse.
struct SingleFields<'a> {
    id: CertId,
    status: StatusFields,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
    extensions: Vec<ExtensionRef<'a>>,
}

/// CertStatus, with the number of the reason.
enum StatusFields {
    Good,
    Revoked(Timestamp, Option<u8>),
    Unknown,
}

impl<'a> SingleFields<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        let id = CertId::decode(reader)?;
        let status = StatusFields::read(reader)?;
        let this_update = decode::generalized_time(reader)?;
        let next_update = decode::context(reader, 0, decode::generalized_time)?;
        let extensions = decode::context(reader, 1, decode::extensions)?.unwrap_or_default();
        Ok(Self { id, status, this_update, next_update, extensions })
    }
}

impl StatusFields {
    fn read(reader: &mut SliceReader<'_>) -> der::Result<Self> {
        let revoked = decode::context(reader, 1, |reader| {
            let at = decode::generalized_time(reader)?;
            Ok(Self::Revoked(at, decode::context(reader, 0, enumerated)?))
        })?;
        match revoked {
            Some(revoked) => Ok(revoked),
            None => match reader.tlv_bytes()? {
                [0x80, 0] => Ok(Self::Good),
                [0x82, 0] => Ok(Self::Unknown),
                _ => Err(ErrorKind::Failed.into()),
            },
        }
    }
}
