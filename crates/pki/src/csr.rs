//! Certificate requests (PKCS #10, RFC 2986), read strictly and believed in three things only: the
//! key, the names, and "must staple".

use const_oid::{
    ObjectIdentifier,
    db::{rfc4519, rfc5280::ID_CE_SUBJECT_ALT_NAME, rfc5912::ID_EXTENSION_REQ},
};
use der::{
    Decode, ErrorKind, Header, Reader, SliceReader, Tag,
    asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef},
};

use crate::{
    ErrorClass, KeyError, Name, NameError, NameSet, PublicKey, SignatureAlgorithm,
    certificate::read_name,
    decode::{self, ExtensionRef, Signed},
    extension::{ID_PE_TLS_FEATURE, MUST_STAPLE},
};

/// A certificate request whose own signature has been verified.
///
/// Whatever else it asks for – key usages, constraints, a validity – is dropped here, so that it
/// cannot be copied into a certificate (RFC 8555 §7.4, BR §7.1.2.7).
#[derive(Clone, Debug)]
pub struct Csr {
    names: NameSet,
    public_key: PublicKey,
    must_staple: bool,
}

/// Why a request is refused (`badCSR`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// More octets than a request of a hundred long names needs.
    #[error("the request is longer than {MAX_OCTETS} octets")]
    TooLong,
    /// PEM where DER belongs.
    #[error("the request is PEM; it has to be the base64url of its DER")]
    Pem,
    /// Not the DER of a PKCS #10 request, or something after it.
    #[error("the request is not exactly one PKCS #10 request in DER")]
    Der(#[from] der::Error),
    /// Its key is malformed or not of a supported kind.
    #[error("the key of the request: {0}")]
    Key(#[from] KeyError),
    /// Signed with SHA-1, MD5 or something else that is not accepted.
    #[error("the signature algorithm of the request is not accepted")]
    SignatureAlgorithm,
    /// The request was not signed by its own key.
    #[error("the signature of the request is not by its own key")]
    Signature,
    /// It asks for a subject attribute twice, or for extensions twice.
    #[error("the request has two {0}")]
    Twice(&'static str),
    /// A common name or subject alternative name that is not a DNS name or IP address.
    #[error("the request names something that is not a DNS name or IP address: {0}")]
    Name(#[from] NameError),
    /// A subject alternative name of another type.
    #[error("the request has a subject alternative name that is neither a DNS name nor an IP address")]
    NameType,
    /// A TLS feature other than status_request.
    #[error("the request asks for a TLS feature other than status_request")]
    TlsFeature,
}

impl CsrError {
    /// Always the client's fault.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Client
    }
}

/// A hundred names of 253 octets and an RSA-8192 key fit twice.
const MAX_OCTETS: usize = 64 * 1024;

impl Csr {
    /// Reads a request and verifies its signature.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_OCTETS {
            return Err(CsrError::TooLong);
        }
        if der.starts_with(b"-----BEGIN") {
            return Err(CsrError::Pem);
        }
        let signed = Signed::read(der)?;
        let info = decode::sequence(signed.content, RequestInfo::read)?;
        let algorithm =
            SignatureAlgorithm::from_identifier_der(signed.algorithm).ok_or(CsrError::SignatureAlgorithm)?;
        let public_key = PublicKey::from_spki_der(info.public_key)?;
        if !algorithm.is_for(public_key.algorithm()) {
            return Err(CsrError::SignatureAlgorithm);
        }
        let extensions = requested_extensions(info.attributes)?;
        let names = requested_names(info.subject, &extensions)?;
        let must_staple = requested_staple(&extensions)?;
        // Last, because it costs the most.
        public_key.verify(algorithm, signed.content, signed.signature).map_err(|_| CsrError::Signature)?;
        Ok(Self { names, public_key, must_staple })
    }

    /// Common name and subject alternative names together.
    #[must_use]
    pub const fn names(&self) -> &NameSet {
        &self.names
    }

    /// The key that signed it.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Whether it asks for the TLS feature `status_request` (RFC 7633).
    #[must_use]
    pub const fn must_staple(&self) -> bool {
        self.must_staple
    }
}

/// CertificationRequestInfo (RFC 2986 §4.1).
struct RequestInfo<'a> {
    subject: &'a [u8],
    public_key: &'a [u8],
    /// The content of `attributes [0] IMPLICIT SET OF Attribute`.
    attributes: &'a [u8],
}

impl<'a> RequestInfo<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        if u8::decode(reader)? != 0 {
            return Err(ErrorKind::Failed.into());
        }
        let subject = reader.tlv_bytes()?;
        let public_key = reader.tlv_bytes()?;
        let attributes = decode::context(reader, 0, |reader| reader.read_slice(reader.remaining_len()))?;
        // RFC 2986 has them mandatory, if empty; some clients leave empty ones out.
        Ok(Self { subject, public_key, attributes: attributes.unwrap_or_default() })
    }
}

/// The extensions of the one extensionRequest attribute (RFC 2985 §5.4.2).
fn requested_extensions(attributes: &[u8]) -> Result<Vec<ExtensionRef<'_>>, CsrError> {
    let mut found = None;
    let mut reader = SliceReader::new(attributes)?;
    while !reader.is_finished() {
        let (id, values) = reader.sequence(|reader| {
            let id = ObjectIdentifier::decode(reader)?;
            Ok::<_, der::Error>((id, reader.tlv_bytes()?))
        })?;
        if id == ID_EXTENSION_REQ && found.replace(values).is_some() {
            return Err(CsrError::Twice("lists of extensions"));
        }
    }
    let Some(values) = found else { return Ok(Vec::new()) };
    let mut reader = SliceReader::new(values)?;
    let header = Header::decode(&mut reader)?;
    header.tag().assert_eq(Tag::Set)?;
    let extensions = reader.read_nested(header.length(), decode::extensions)?;
    reader.finish()?;
    Ok(extensions)
}

fn requested_names(subject: &[u8], extensions: &[ExtensionRef<'_>]) -> Result<NameSet, CsrError> {
    let mut names = Vec::new();
    if let Some(common_name) = common_name(subject)? {
        names.push(common_name.parse::<Name>()?);
    }
    if let Some(extension) = extensions.iter().find(|extension| extension.oid == ID_CE_SUBJECT_ALT_NAME) {
        for (choice, content) in decode::general_names(extension.value)? {
            match choice {
                2 | 7 => names.push(read_name(choice, content)?),
                _ => return Err(CsrError::NameType),
            }
        }
    }
    Ok(NameSet::new(names)?)
}

/// The common name, if the subject has one; other attributes are dropped.
fn common_name(subject: &[u8]) -> Result<Option<&str>, CsrError> {
    let attributes = decode::sequence(subject, |reader| {
        let mut attributes = Vec::new();
        while !reader.is_finished() {
            let header = Header::decode(reader)?;
            header.tag().assert_eq(Tag::Set)?;
            reader.read_nested(header.length(), |reader| {
                while !reader.is_finished() {
                    attributes.push(reader.sequence(|reader| {
                        let id = ObjectIdentifier::decode(reader)?;
                        Ok::<_, der::Error>((id, reader.tlv_bytes()?))
                    })?);
                }
                Ok::<_, der::Error>(())
            })?;
        }
        Ok(attributes)
    })?;
    let mut values = attributes.iter().filter(|(id, _)| *id == rfc4519::COMMON_NAME).map(|(_, value)| *value);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CsrError::Twice("common names"));
    }
    let text = text(value)?;
    Ok((!text.is_empty()).then_some(text))
}

/// The strings that clients put into a common name.
fn text(value: &[u8]) -> der::Result<&str> {
    match value.first() {
        Some(0x13) => Ok(PrintableStringRef::from_der(value)?.as_str()),
        Some(0x14) => Ok(TeletexStringRef::from_der(value)?.as_str()),
        _ => Ok(Utf8StringRef::from_der(value)?.as_str()),
    }
}

fn requested_staple(extensions: &[ExtensionRef<'_>]) -> Result<bool, CsrError> {
    match extensions.iter().find(|extension| extension.oid == ID_PE_TLS_FEATURE) {
        None => Ok(false),
        Some(extension) if extension.value == MUST_STAPLE => Ok(true),
        Some(_) => Err(CsrError::TlsFeature),
    }
}

#[cfg(test)]
mod tests;
