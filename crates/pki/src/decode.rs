//! Strict DER reading for requests, certificates and CRLs, on top of the `der` crate.
//!
//! `der` refuses indefinite and over-long lengths, trailing octets and bad integers by itself; what
//! it lets pass and DER does not (an encoded DEFAULT) is refused here.

use const_oid::ObjectIdentifier;
use der::{
    Decode, ErrorKind, Header, Reader, SliceReader, Tag, TagNumber,
    asn1::{BitStringRef, GeneralizedTime, IntRef, OctetStringRef},
};

use crate::{Timestamp, encode::tag};

/// Reads `bytes` as one SEQUENCE and nothing after it.
pub(crate) fn sequence<'a, T>(
    bytes: &'a [u8],
    content: impl FnOnce(&mut SliceReader<'a>) -> der::Result<T>,
) -> der::Result<T> {
    let mut reader = SliceReader::new(bytes)?;
    let value = reader.sequence(content)?;
    reader.finish()?;
    Ok(value)
}

/// The outermost shape of everything that is signed (RFC 5280 §4.1.1, §5.1.1, RFC 2986 §4.2).
pub(crate) struct Signed<'a> {
    pub(crate) content: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> der::Result<Self> {
        sequence(bytes, |reader| {
            let content = reader.tlv_bytes()?;
            let algorithm = reader.tlv_bytes()?;
            let signature = BitStringRef::decode(reader)?.as_bytes().ok_or(ErrorKind::Failed)?;
            Ok(Self { content, algorithm, signature })
        })
    }
}

/// The content octets of an INTEGER; whether they are minimal is the caller's question.
pub(crate) fn integer<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    Ok(IntRef::decode(reader)?.as_bytes())
}

pub(crate) fn time(reader: &mut SliceReader<'_>) -> der::Result<Timestamp> {
    let time = x509_cert::time::Time::decode(reader)?;
    Ok(Timestamp::from_unix(time.to_unix_duration().as_secs()))
}

/// A GeneralizedTime, whatever the year.
pub(crate) fn generalized_time(reader: &mut SliceReader<'_>) -> der::Result<Timestamp> {
    Ok(Timestamp::from_unix(GeneralizedTime::decode(reader)?.to_unix_duration().as_secs()))
}

/// An OCTET STRING's content.
pub(crate) fn octets<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    let octets: &'a OctetStringRef = <&OctetStringRef>::decode(reader)?;
    Ok(octets.as_bytes())
}

/// An OBJECT IDENTIFIER; no number of it is padded (X.690 §8.19.2), which `const-oid` lets pass.
pub(crate) fn oid(reader: &mut SliceReader<'_>) -> der::Result<ObjectIdentifier> {
    let oid = ObjectIdentifier::decode(reader)?;
    let mut starts = true;
    for octet in oid.as_bytes() {
        if starts && *octet == 0x80 {
            return Err(ErrorKind::Noncanonical { tag: Tag::ObjectIdentifier }.into());
        }
        starts = octet & 0x80 == 0;
    }
    Ok(oid)
}

/// The first octet of the next value, if there is one. All tags that occur here have one octet.
pub(crate) fn next_tag(reader: &SliceReader<'_>) -> Option<u8> {
    reader.peek_byte()
}

/// `[number]`, constructed, with `content` inside; `None` if the next value is something else.
pub(crate) fn context<'a, T>(
    reader: &mut SliceReader<'a>,
    number: u8,
    content: impl FnOnce(&mut SliceReader<'a>) -> der::Result<T>,
) -> der::Result<Option<T>> {
    if next_tag(reader) != Some(tag::context_constructed(number)) {
        return Ok(None);
    }
    let header = Header::decode(reader)?;
    reader.read_nested(header.length(), content).map(Some)
}

/// One extension of a certificate, CRL, CRL entry or request.
#[derive(Clone, Copy)]
pub(crate) struct ExtensionRef<'a> {
    pub(crate) oid: ObjectIdentifier,
    pub(crate) critical: bool,
    pub(crate) value: &'a [u8],
}

/// `Extensions`: at least one, none twice (RFC 5280 §4.2), `critical` only when TRUE.
pub(crate) fn extensions<'a>(reader: &mut SliceReader<'a>) -> der::Result<Vec<ExtensionRef<'a>>> {
    let mut extensions: Vec<ExtensionRef<'a>> = Vec::new();
    reader.sequence(|reader| {
        while !reader.is_finished() {
            let extension = reader.sequence(extension)?;
            if extensions.len() == MAX_EXTENSIONS {
                return Err(ErrorKind::Overlength.into());
            }
            if extensions.iter().any(|other| other.oid == extension.oid) {
                return Err(der::Error::from(ErrorKind::Failed));
            }
            extensions.push(extension);
        }
        Ok(())
    })?;
    if extensions.is_empty() { Err(ErrorKind::Failed.into()) } else { Ok(extensions) }
}

/// More than anybody has: each is compared with all before it, and the octets are a stranger's.
const MAX_EXTENSIONS: usize = 64;

fn extension<'a>(reader: &mut SliceReader<'a>) -> der::Result<ExtensionRef<'a>> {
    let oid = oid(reader)?;
    let critical = next_tag(reader) == Some(tag::BOOLEAN);
    if critical && !bool::decode(reader)? {
        return Err(ErrorKind::Noncanonical { tag: Tag::Boolean }.into());
    }
    Ok(ExtensionRef { oid, critical, value: octets(reader)? })
}

/// `GeneralNames` as `(number of the choice, content)` (RFC 5280 §4.2.1.6).
pub(crate) fn general_names(bytes: &[u8]) -> der::Result<Vec<(u8, &[u8])>> {
    let names = sequence(bytes, |reader| {
        let mut names = Vec::new();
        while !reader.is_finished() {
            let header = Header::decode(reader)?;
            let content = reader.read_slice(header.length())?;
            match header.tag() {
                Tag::ContextSpecific { number: TagNumber(number), .. } if number <= 8 => {
                    names.push((u8::try_from(number).unwrap_or(u8::MAX), content));
                }
                other => return Err(other.unexpected_error(None).into()),
            }
        }
        Ok(names)
    })?;
    if names.is_empty() { Err(ErrorKind::Failed.into()) } else { Ok(names) }
}
