//! The extensions that this CA writes (RFC 5280 §4.2, §5.2), each as one function.

use std::net::IpAddr;

use const_oid::{
    ObjectIdentifier,
    db::{rfc5280 as oid, rfc6960::ID_PKIX_OCSP_NOCHECK},
};

use crate::{
    ExtendedKeyUsage, Name, NameSet,
    encode::{Encoder, encode, tag},
};

/// id-pe-tlsfeature (RFC 7633 §4).
pub(crate) const ID_PE_TLS_FEATURE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.24");

/// The TLS feature `status_request`, "must staple": SEQUENCE OF INTEGER, just 5 (RFC 7633 §6).
pub(crate) const MUST_STAPLE: &[u8] = &[0x30, 0x03, 0x02, 0x01, 0x05];

/// The mark of a test CA, an extension of our own: not critical, NULL. The ceremony writes it into the certificates of roots and
/// intermediates whose plan says `test_ca`. A directory whose challenges all succeed without a look issues by no other CA.
///
/// Below the arc that Microsoft gives away for OIDs made of a UUID. As one arc below 2.25 it would have 128 bits, and the readers of
/// Go and others, which take 31 for one, would refuse the whole certificate.
pub(crate) const TEST_CA: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113556.1.8000.2554.8159.42.15363.17507.42332.4744162.16393338");

/// Bits of KeyUsage (RFC 5280 §4.2.1.3), counted from the left.
pub(crate) mod key_usage {
    pub(crate) const DIGITAL_SIGNATURE: u8 = 0;
    pub(crate) const KEY_ENCIPHERMENT: u8 = 2;
    pub(crate) const KEY_CERT_SIGN: u8 = 5;
    pub(crate) const CRL_SIGN: u8 = 6;
}

/// `Extension ::= SEQUENCE { extnID, critical DEFAULT FALSE, extnValue }`.
pub(crate) fn extension(
    e: &mut Encoder,
    id: &ObjectIdentifier,
    critical: bool,
    value: impl FnOnce(&mut Encoder),
) {
    e.sequence(|e| {
        e.oid(id);
        if critical {
            e.boolean(true);
        }
        e.nested(tag::OCTET_STRING, value);
    });
}

/// RFC 5280 §4.2.1.3: critical, as it SHOULD be; a named bit list has no trailing zero bits.
pub(crate) fn key_usage(e: &mut Encoder, bits: &[u8]) {
    let octet = bits.iter().fold(0_u8, |octet, bit| octet | (0x80 >> bit));
    let unused = u8::try_from(octet.trailing_zeros()).unwrap_or(0);
    extension(e, &oid::ID_CE_KEY_USAGE, true, |e| {
        e.primitive(tag::BIT_STRING, &[unused, octet]);
    });
}

/// RFC 5280 §4.2.1.12, not critical (BR §7.1.2.7.6).
pub(crate) fn extended_key_usage(e: &mut Encoder, usages: &[ExtendedKeyUsage]) {
    purposes(e, usages.iter().map(|usage| usage.oid()));
}

/// The purpose that only a delegated OCSP responder has, and which a profile cannot give
/// (RFC 6960 §4.2.2.2): OCSPSigning alone (BR §7.1.2.8.5).
pub(crate) fn ocsp_signing(e: &mut Encoder) {
    purposes(e, [oid::ID_KP_OCSP_SIGNING]);
}

fn purposes(e: &mut Encoder, usages: impl IntoIterator<Item = ObjectIdentifier>) {
    extension(e, &oid::ID_CE_EXT_KEY_USAGE, false, |e| {
        e.sequence(|e| {
            for usage in usages {
                e.oid(&usage);
            }
        });
    });
}

/// id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1), not critical: NULL. Nobody asks for the state of a
/// responder's certificate; its short life bounds what its key can do.
pub(crate) fn ocsp_nocheck(e: &mut Encoder) {
    extension(e, &ID_PKIX_OCSP_NOCHECK, false, |e| {
        e.primitive(tag::NULL, &[]);
    });
}

/// [`TEST_CA`].
pub(crate) fn test_ca(e: &mut Encoder) {
    extension(e, &TEST_CA, false, |e| {
        e.primitive(tag::NULL, &[]);
    });
}

/// RFC 5280 §4.2.1.9, critical. `cA` is DEFAULT FALSE: absent for end entities.
pub(crate) fn basic_constraints(e: &mut Encoder, ca: bool, path_length: Option<u8>) {
    extension(e, &oid::ID_CE_BASIC_CONSTRAINTS, true, |e| {
        e.sequence(|e| {
            if ca {
                e.boolean(true);
            }
            if let Some(length) = path_length {
                e.unsigned(&[length]);
            }
        });
    });
}

/// RFC 5280 §4.2.1.2.
pub(crate) fn subject_key_identifier(e: &mut Encoder, key_id: &[u8]) {
    extension(e, &oid::ID_CE_SUBJECT_KEY_IDENTIFIER, false, |e| {
        e.primitive(tag::OCTET_STRING, key_id);
    });
}

/// RFC 5280 §4.2.1.1: the key identifier alone (BR §7.1.2.11.1). A whole extension, because every
/// certificate and CRL of an issuer has the same one.
pub(crate) fn authority_key_identifier(key_id: &[u8]) -> Vec<u8> {
    encode(|e| {
        extension(e, &oid::ID_CE_AUTHORITY_KEY_IDENTIFIER, false, |e| {
            e.sequence(|e| {
                e.primitive(tag::context(0), key_id);
            });
        });
    })
}

/// RFC 5280 §4.2.1.4: identifiers alone, no qualifiers (BR §7.1.2.7.9).
pub(crate) fn certificate_policies(e: &mut Encoder, policies: impl IntoIterator<Item = ObjectIdentifier>) {
    extension(e, &oid::ID_CE_CERTIFICATE_POLICIES, false, |e| {
        e.sequence(|e| {
            for policy in policies {
                e.sequence(|e| {
                    e.oid(&policy);
                });
            }
        });
    });
}

/// RFC 5280 §4.2.2.1.
pub(crate) fn authority_info_access(e: &mut Encoder, ocsp: Option<&str>, ca_issuers: Option<&str>) {
    extension(e, &oid::ID_PE_AUTHORITY_INFO_ACCESS, false, |e| {
        e.sequence(|e| {
            for (method, url) in [(oid::ID_AD_OCSP, ocsp), (oid::ID_AD_CA_ISSUERS, ca_issuers)] {
                if let Some(url) = url {
                    e.sequence(|e| {
                        e.oid(&method);
                        general_uri(e, url);
                    });
                }
            }
        });
    });
}

/// RFC 5280 §4.2.1.13: one distribution point with one full name (BR §7.1.2.11.2).
pub(crate) fn crl_distribution_points(e: &mut Encoder, url: &str) {
    distribution_points(e, &oid::ID_CE_CRL_DISTRIBUTION_POINTS, url);
}

/// RFC 5280 §4.2.1.15 (certificates) and §5.2.6 (complete CRLs): where the delta CRL is.
pub(crate) fn freshest_crl(e: &mut Encoder, url: &str) {
    distribution_points(e, &oid::ID_CE_FRESHEST_CRL, url);
}

fn distribution_points(e: &mut Encoder, id: &ObjectIdentifier, url: &str) {
    extension(e, id, false, |e| {
        e.sequence(|e| {
            e.sequence(|e| distribution_point_name(e, url));
        });
    });
}

/// `distributionPoint [0] DistributionPointName` with `fullName [0]`: the same bytes in a
/// certificate's CRL distribution point and in the CRL's issuing distribution point.
pub(crate) fn distribution_point_name(e: &mut Encoder, url: &str) {
    e.nested(tag::context_constructed(0), |e| {
        e.nested(tag::context_constructed(0), |e| general_uri(e, url));
    });
}

/// RFC 7633 §4, not critical.
pub(crate) fn must_staple(e: &mut Encoder) {
    extension(e, &ID_PE_TLS_FEATURE, false, |e| {
        e.raw(MUST_STAPLE);
    });
}

/// RFC 5280 §4.2.1.6: critical exactly when the subject is empty.
pub(crate) fn subject_alt_name(e: &mut Encoder, critical: bool, names: &NameSet) {
    extension(e, &oid::ID_CE_SUBJECT_ALT_NAME, critical, |e| {
        e.sequence(|e| names.iter().for_each(|name| general_name(e, name)));
    });
}

/// A subject alternative name of a node: its URI first, then its names.
pub(crate) fn node_alt_name(e: &mut Encoder, uri: &str, names: Option<&NameSet>) {
    extension(e, &oid::ID_CE_SUBJECT_ALT_NAME, true, |e| {
        e.sequence(|e| {
            general_uri(e, uri);
            names.into_iter().flatten().for_each(|name| general_name(e, name));
        });
    });
}

fn general_name(e: &mut Encoder, name: &Name) {
    match name {
        Name::Dns(name) => e.primitive(tag::context(2), name.as_str().as_bytes()),
        Name::Wildcard(base) => e.nested(tag::context(2), |e| {
            e.raw(b"*.").raw(base.as_str().as_bytes());
        }),
        Name::Ip(IpAddr::V4(address)) => e.primitive(tag::context(7), &address.octets()),
        Name::Ip(IpAddr::V6(address)) => e.primitive(tag::context(7), &address.octets()),
    };
}

fn general_uri(e: &mut Encoder, url: &str) {
    e.primitive(tag::context(6), url.as_bytes());
}

/// A URL that relying parties can fetch without TLS: `http://`, a host, visible ASCII, no
/// credentials and no fragment.
pub(crate) fn is_http_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    !host.is_empty()
        && !host.starts_with(':')
        && !host.contains('@')
        && url
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'#' | b'"' | b'<' | b'>' | b'\\'))
}
