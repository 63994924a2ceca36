//! Requests (RFC 6960 §4.1).

use const_oid::db::rfc6960 as oid;
use der::{Decode, ErrorKind, Reader, SliceReader, asn1::OctetStringRef};

use super::CertId;
use crate::{
    ErrorClass,
    decode::{self, ExtensionRef},
    encode::{encode, tag},
    extension::extension,
};

/// How many certificates one request may ask for. RFC 9919 §3.1 asks clients for one each.
pub const MAX_REQUESTS: usize = 16;

/// How long a request may be, in octets: [`MAX_REQUESTS`], and a signature with a chain.
pub const MAX_REQUEST_OCTETS: usize = 8 * 1024;

/// RFC 9654 §2.1: a responder may ignore a nonce of fewer octets.
pub const NONCE_MIN: usize = 16;

/// RFC 9654 §2.1: longer ones are malformed.
pub const NONCE_MAX: usize = 128;

/// A request that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    cert_ids: Vec<CertId>,
    nonce: Option<Vec<u8>>,
    is_plain: bool,
}

/// Why octets are not a request; `malformedRequest` whatever the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More octets than [`MAX_REQUEST_OCTETS`].
    #[error("the request has more than {MAX_REQUEST_OCTETS} octets")]
    TooLong,
    /// Not the DER of an OCSPRequest.
    #[error("not the DER of an OCSPRequest: {0}")]
    Der(der::Error),
    /// Another version than v1.
    #[error("the request is not of version 1")]
    Version,
    /// No certificate, or more than [`MAX_REQUESTS`].
    #[error("a request asks for 1 to {MAX_REQUESTS} certificates")]
    Count,
    /// A nonce of a length that RFC 9654 §2.1 refuses.
    #[error("a nonce has 1 to {NONCE_MAX} octets, a critical one at least {NONCE_MIN}")]
    Nonce,
    /// A critical extension that is not understood (RFC 6960 §4.4).
    #[error("the request has a critical extension that is not supported")]
    CriticalExtension,
}

impl RequestError {
    /// Always the client's fault.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Client
    }
}

impl From<der::Error> for RequestError {
    fn from(error: der::Error) -> Self {
        Self::Der(error)
    }
}

impl Request {
    /// Reads a request. A requestorName, a signature and extensions that are not critical are read
    /// over; so is a nonce of fewer than sixteen octets.
    ///
    /// # Errors
    /// When the octets are not exactly one request in DER, or ask for what nobody is given.
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST_OCTETS {
            return Err(RequestError::TooLong);
        }
        let (tbs, signature) = decode::sequence(der, |reader| {
            let tbs = reader.tlv_bytes()?;
            Ok((tbs, decode::context(reader, 0, Reader::tlv_bytes)?))
        })?;
        let fields = decode::sequence(tbs, Fields::read)?;
        if fields.version.is_some_and(|version| version != 0) {
            return Err(RequestError::Version);
        } else if fields.version.is_some() {
            // DEFAULT v1 is not written (X.690 §11.5).
            return Err(der::Error::from(ErrorKind::Failed).into());
        }
        let mut request = Self {
            cert_ids: Vec::new(),
            nonce: None,
            is_plain: signature.is_none() && !fields.has_requestor,
        };
        request.read_list(fields.list)?;
        for extension in fields.extensions {
            request.read_extension(&extension)?;
        }
        Ok(request)
    }

    fn read_list(&mut self, list: &[u8]) -> Result<(), RequestError> {
        let mut reader = SliceReader::new(list)?;
        while !reader.is_finished() {
            if self.cert_ids.len() == MAX_REQUESTS {
                return Err(RequestError::Count);
            }
            let (id, extensions) = reader.sequence(|reader| {
                let id = CertId::decode(reader)?;
                Ok::<_, der::Error>((id, decode::context(reader, 0, decode::extensions)?))
            })?;
            self.cert_ids.push(id);
            self.is_plain &= extensions.is_none();
            if extensions.into_iter().flatten().any(|extension| extension.critical) {
                return Err(RequestError::CriticalExtension);
            }
        }
        if self.cert_ids.is_empty() { Err(RequestError::Count) } else { Ok(()) }
    }

    fn read_extension(&mut self, extension: &ExtensionRef<'_>) -> Result<(), RequestError> {
        if extension.oid != oid::ID_PKIX_OCSP_NONCE {
            self.is_plain = false;
            return if extension.critical { Err(RequestError::CriticalExtension) } else { Ok(()) };
        }
        self.is_plain &= !extension.critical;
        let nonce = <&OctetStringRef>::from_der(extension.value)?.as_bytes();
        match nonce.len() {
            NONCE_MIN..=NONCE_MAX => self.nonce = Some(nonce.to_vec()),
            1..NONCE_MIN if !extension.critical => self.is_plain = false,
            _ => return Err(RequestError::Nonce),
        }
        Ok(())
    }

    /// The certificates that it asks for, in its order: one to [`MAX_REQUESTS`].
    #[must_use]
    pub fn cert_ids(&self) -> &[CertId] {
        &self.cert_ids
    }

    /// The nonce that the answer has to repeat, of [`NONCE_MIN`] to [`NONCE_MAX`] octets.
    #[must_use]
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// Whether nothing in it was passed over: [`encode_request`] makes the same octets again.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }
}

/// TBSRequest, field by field.
struct Fields<'a> {
    version: Option<u8>,
    has_requestor: bool,
    /// The content of requestList.
    list: &'a [u8],
    extensions: Vec<ExtensionRef<'a>>,
}

impl<'a> Fields<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        let version = decode::context(reader, 0, u8::decode)?;
        let requestor = decode::context(reader, 1, Reader::tlv_bytes)?;
        let list = reader.sequence(|reader| reader.read_slice(reader.remaining_len()))?;
        let extensions = decode::context(reader, 2, decode::extensions)?.unwrap_or_default();
        Ok(Self { version, has_requestor: requestor.is_some(), list, extensions })
    }
}

/// An OCSPRequest for these certificates.
#[must_use]
pub fn encode_request(ids: &[CertId], nonce: Option<&[u8]>) -> Vec<u8> {
    encode(|e| {
        e.sequence(|e| {
            e.sequence(|e| {
                e.sequence(|e| {
                    for id in ids {
                        e.sequence(|e| {
                            e.raw(id.as_der());
                        });
                    }
                });
                if let Some(nonce) = nonce {
                    e.nested(tag::context_constructed(2), |e| {
                        e.sequence(|e| encode_nonce(e, nonce));
                    });
                }
            });
        });
    })
}

/// id-pkix-ocsp-nonce, not critical (RFC 9654 §2.1): an OCTET STRING in an OCTET STRING.
pub(super) fn encode_nonce(e: &mut crate::encode::Encoder, nonce: &[u8]) {
    extension(e, &oid::ID_PKIX_OCSP_NONCE, false, |e| {
        e.primitive(tag::OCTET_STRING, nonce);
    });
}
