//! A TBSCertificate as the lints see it: read with `der` and `x509-cert` alone.

use const_oid::{
    ObjectIdentifier,
    db::{rfc5280 as oid, rfc6960::ID_PKIX_OCSP_NOCHECK},
};
use der::{
    Decode, Encode, Header, Reader, SliceReader, Tag, TagNumber,
    asn1::{AnyRef, BitStringRef, ContextSpecific},
};
use x509_cert::{
    ext::{
        Extension,
        pkix::{
            AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies,
            CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName,
            SubjectKeyIdentifier,
            name::{DistributionPointName, GeneralName},
        },
    },
    name::RdnSequence,
    spki::SubjectPublicKeyInfoRef,
    time::Time,
};

use super::{
    Finding, Severity,
    rfc5280::algorithm::{self, Family},
};

/// id-pe-tlsfeature (RFC 7633 §4).
pub(super) const TLS_FEATURE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.24");

/// The mark of a test CA.
pub(super) const TEST_CA: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113556.1.8000.2554.8159.42.15363.17507.42332.4744162.16393338");

/// A TBSCertificate, read but not judged.
pub(super) struct View<'a> {
    pub(super) version: u8,
    /// Content of the INTEGER.
    pub(super) serial: &'a [u8],
    /// The whole AlgorithmIdentifier.
    pub(super) signature: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) not_before: Moment,
    pub(super) not_after: Moment,
    pub(super) subject: &'a [u8],
    pub(super) issuer_name: RdnSequence,
    pub(super) subject_name: RdnSequence,
    /// The whole SubjectPublicKeyInfo, and read.
    pub(super) spki: &'a [u8],
    pub(super) key: SubjectPublicKeyInfoRef<'a>,
    /// What signs it and what it certifies; `None` if that is not encoded as it should be.
    pub(super) signature_family: Option<(Family, u16)>,
    pub(super) key_family: Option<Family>,
    pub(super) has_unique_ids: bool,
    /// The content of the SEQUENCE of extensions, and read.
    pub(super) extensions_der: &'a [u8],
    pub(super) extensions: Vec<Extension>,
    /// Extensions whose value is not the DER of their type.
    pub(super) undecodable: Vec<ObjectIdentifier>,
    pub(super) basic_constraints: Option<BasicConstraints>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) extended_key_usage: Option<ExtendedKeyUsage>,
    pub(super) alternative_names: Option<SubjectAltName>,
    pub(super) subject_key_id: Option<SubjectKeyIdentifier>,
    pub(super) authority_key_id: Option<AuthorityKeyIdentifier>,
    pub(super) policies: Option<CertificatePolicies>,
    pub(super) authority_info: Option<AuthorityInfoAccessSyntax>,
    pub(super) crl_points: Option<CrlDistributionPoints>,
    pub(super) freshest_crl: Option<CrlDistributionPoints>,
    /// Whether id-pkix-ocsp-nocheck is there, as NULL.
    pub(super) ocsp_nocheck: Option<()>,
    pub(super) name_constraints: Option<NameConstraints>,
    pub(super) tls_features: Option<Vec<u16>>,
    /// Whether the mark of a test CA is there, as NULL.
    pub(super) test_ca: Option<()>,
}

/// A time, and how it was written.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) seconds: u64,
    pub(super) tag: Tag,
}

/// The fixed fields, before the extensions are looked into.
struct Fields<'a> {
    version: u8,
    serial: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    not_before: Moment,
    not_after: Moment,
    subject: &'a [u8],
    spki: &'a [u8],
    has_unique_ids: bool,
    extensions_der: &'a [u8],
    extensions: Vec<Extension>,
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
        let fields = reader.sequence(Fields::read)?;
        reader.finish()?;
        let mut values = Values { extensions: &fields.extensions, undecodable: Vec::new() };
        Ok(Self {
            version: fields.version,
            serial: fields.serial,
            signature: fields.signature,
            issuer: fields.issuer,
            not_before: fields.not_before,
            not_after: fields.not_after,
            subject: fields.subject,
            issuer_name: RdnSequence::from_der(fields.issuer)?,
            subject_name: RdnSequence::from_der(fields.subject)?,
            spki: fields.spki,
            key: SubjectPublicKeyInfoRef::from_der(fields.spki)?,
            signature_family: algorithm::signature(fields.signature),
            key_family: algorithm::key(fields.spki),
            extensions_der: fields.extensions_der,
            has_unique_ids: fields.has_unique_ids,
            basic_constraints: values.decode(oid::ID_CE_BASIC_CONSTRAINTS),
            key_usage: values.decode(oid::ID_CE_KEY_USAGE),
            extended_key_usage: values.decode(oid::ID_CE_EXT_KEY_USAGE),
            alternative_names: values.decode(oid::ID_CE_SUBJECT_ALT_NAME),
            subject_key_id: values.decode(oid::ID_CE_SUBJECT_KEY_IDENTIFIER),
            authority_key_id: values.decode(oid::ID_CE_AUTHORITY_KEY_IDENTIFIER),
            policies: values.decode(oid::ID_CE_CERTIFICATE_POLICIES),
            authority_info: values.decode(oid::ID_PE_AUTHORITY_INFO_ACCESS),
            crl_points: values.decode(oid::ID_CE_CRL_DISTRIBUTION_POINTS),
            freshest_crl: values.decode(oid::ID_CE_FRESHEST_CRL),
            ocsp_nocheck: values.decode::<der::asn1::Null>(ID_PKIX_OCSP_NOCHECK).map(drop),
            name_constraints: values.decode(oid::ID_CE_NAME_CONSTRAINTS),
            tls_features: values.decode(TLS_FEATURE),
            test_ca: values.decode::<der::asn1::Null>(TEST_CA).map(drop),
            undecodable: values.undecodable,
            extensions: fields.extensions,
        })
    }

    /// The extension with this identifier, if there is one.
    pub(super) fn extension(&self, id: ObjectIdentifier) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.extn_id == id)
    }

    pub(super) fn is_critical(&self, id: ObjectIdentifier) -> bool {
        self.extension(id).is_some_and(|extension| extension.critical)
    }

    pub(super) fn has_empty_subject(&self) -> bool {
        self.subject == [0x30, 0x00]
    }

    pub(super) fn is_ca(&self) -> bool {
        self.basic_constraints.as_ref().is_some_and(|constraints| constraints.ca)
    }

    pub(super) fn names(&self) -> &[GeneralName] {
        self.alternative_names.as_ref().map_or(&[], |names| names.0.as_slice())
    }

    pub(super) fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.names().iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str()),
            _ => None,
        })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &[u8]> {
        self.names().iter().filter_map(|name| match name {
            GeneralName::IpAddress(octets) => Some(octets.as_bytes()),
            _ => None,
        })
    }

    /// The general names of every CRL distribution point's full name.
    pub(super) fn crl_names(&self) -> impl Iterator<Item = &GeneralName> {
        full_names(self.crl_points.as_ref())
    }

    /// The same of the freshest CRL.
    pub(super) fn delta_crl_names(&self) -> impl Iterator<Item = &GeneralName> {
        full_names(self.freshest_crl.as_ref())
    }

    /// Seconds, both ends counted.
    pub(super) fn validity_seconds(&self) -> u64 {
        (self.not_after.seconds + 1).saturating_sub(self.not_before.seconds)
    }
}

fn full_names(points: Option<&CrlDistributionPoints>) -> impl Iterator<Item = &GeneralName> {
    let points = points.into_iter().flat_map(|points| &points.0);
    points
        .filter_map(|point| match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(names),
            _ => None,
        })
        .flatten()
}

impl<'a> Fields<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        let version = ContextSpecific::<u8>::decode_explicit(reader, TagNumber(0))?;
        let serial = AnyRef::decode(reader)?;
        serial.header().tag().assert_eq(Tag::Integer)?;
        let signature = reader.tlv_bytes()?;
        let issuer = reader.tlv_bytes()?;
        let (not_before, not_after) =
            reader.sequence(|reader| Ok::<_, der::Error>((Moment::read(reader)?, Moment::read(reader)?)))?;
        let subject = reader.tlv_bytes()?;
        let spki = reader.tlv_bytes()?;
        let mut has_unique_ids = false;
        for number in [1, 2] {
            let id = ContextSpecific::<BitStringRef<'_>>::decode_implicit(reader, TagNumber(number))?;
            has_unique_ids |= id.is_some();
        }
        let extensions = ContextSpecific::<AnyRef<'_>>::decode_explicit(reader, TagNumber(3))?;
        let (extensions_der, extensions) = match extensions {
            Some(field) => (field.value.value(), field.value.decode_as()?),
            None => (&[][..], Vec::new()),
        };
        Ok(Self {
            version: version.map_or(0, |field| field.value),
            serial: serial.value(),
            signature,
            issuer,
            not_before,
            not_after,
            subject,
            spki,
            has_unique_ids,
            extensions_der,
            extensions,
        })
    }
}

impl Moment {
    pub(super) fn read(reader: &mut SliceReader<'_>) -> der::Result<Self> {
        let tag = Header::peek(reader)?.tag();
        Ok(Self { seconds: Time::decode(reader)?.to_unix_duration().as_secs(), tag })
    }
}

/// Decodes values of extensions, and remembers those that are not what they should be.
struct Values<'a> {
    extensions: &'a [Extension],
    undecodable: Vec<ObjectIdentifier>,
}

impl<'a> Values<'a> {
    fn decode<T: Decode<'a, Error = der::Error> + Encode>(&mut self, id: ObjectIdentifier) -> Option<T> {
        let extension = self.extensions.iter().find(|extension| extension.extn_id == id)?;
        let octets = extension.extn_value.as_bytes();
        // Only what encodes to the same octets was DER.
        let value = T::from_der(octets).ok().filter(|value| value.to_der().is_ok_and(|der| der == octets));
        if value.is_none() {
            self.undecodable.push(id);
        }
        value
    }
}
