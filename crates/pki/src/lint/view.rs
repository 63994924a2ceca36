//! A TBSCertificate as the lints see it: read with `der` and `x509-cert` alone.

use der::{
    Decode, Header, Reader, SliceReader, Tag, TagNumber,
    asn1::{AnyRef, BitStringRef, ContextSpecific},
};
use x509_cert::{ext::Extension, spki::SubjectPublicKeyInfoRef, time::Time};

use super::{Finding, Severity};

/// A TBSCertificate, read but not judged.
pub(super) struct View<'a> {
    pub(super) der: &'a [u8],
    pub(super) version: u8,
    /// Content of the INTEGER.
    pub(super) serial: &'a [u8],
    /// The whole AlgorithmIdentifier.
    pub(super) signature: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) not_before: Moment,
    pub(super) not_after: Moment,
    pub(super) subject: &'a [u8],
    /// The whole SubjectPublicKeyInfo, and read.
    pub(super) spki: &'a [u8],
    pub(super) key: SubjectPublicKeyInfoRef<'a>,
    pub(super) has_unique_ids: bool,
    pub(super) extensions: Vec<Extension>,
}

/// A time, and how it was written.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) seconds: u64,
    pub(super) tag: Tag,
}

impl<'a> View<'a> {
    pub(super) fn read(tbs: &'a [u8]) -> Result<Self, Finding> {
        Self::decode(tbs).map_err(|error| Finding {
            lint: "rfc5280.decodes",
            clause: "RFC 5280 §4.1",
            severity: Severity::Error,
            detail: format!("not a TBSCertificate in DER: {error}"),
        })
    }

    fn decode(tbs: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(tbs)?;
        let view = reader.sequence(|reader| {
            let version = ContextSpecific::<u8>::decode_explicit(reader, TagNumber(0))?;
            let serial = AnyRef::decode(reader)?;
            serial.header().tag().assert_eq(Tag::Integer)?;
            let signature = reader.tlv_bytes()?;
            let issuer = reader.tlv_bytes()?;
            let (not_before, not_after) = reader
                .sequence(|reader| Ok::<_, der::Error>((Moment::read(reader)?, Moment::read(reader)?)))?;
            let subject = reader.tlv_bytes()?;
            let spki = reader.tlv_bytes()?;
            let mut has_unique_ids = false;
            for number in [1, 2] {
                let id = ContextSpecific::<BitStringRef<'_>>::decode_implicit(reader, TagNumber(number))?;
                has_unique_ids |= id.is_some();
            }
            let extensions = ContextSpecific::<Vec<Extension>>::decode_explicit(reader, TagNumber(3))?;
            Ok::<_, der::Error>(Self {
                der: tbs,
                version: version.map_or(0, |field| field.value),
                serial: serial.value(),
                signature,
                issuer,
                not_before,
                not_after,
                subject,
                spki,
                key: SubjectPublicKeyInfoRef::from_der(spki)?,
                has_unique_ids,
                extensions: extensions.map(|field| field.value).unwrap_or_default(),
            })
        })?;
        reader.finish()?;
        Ok(view)
    }
}

impl Moment {
    pub(super) fn read(reader: &mut SliceReader<'_>) -> der::Result<Self> {
        let tag = Header::peek(reader)?.tag();
        Ok(Self { seconds: Time::decode(reader)?.to_unix_duration().as_secs(), tag })
    }
}
