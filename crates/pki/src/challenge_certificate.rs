//! The certificate with which a server answers tls-alpn-01 (RFC 8737 §3, RFC 8738 §6): read strictly, and judged.

use const_oid::{ObjectIdentifier, db::rfc5280 as oid};
use der::{Decode, asn1::OctetStringRef};

use crate::{
    DnsName, Name, PublicKey, SignatureAlgorithm,
    certificate::{TbsFields, read_name},
    decode::{self, ExtensionRef, Signed},
};

/// id-pe-acmeIdentifier (RFC 8737 §3).
const ACME_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.31");
/// What may be critical beside the acmeIdentifier: extensions that this certificate may have without meaning more.
const MAY_BE_CRITICAL: [ObjectIdentifier; 4] = [
    oid::ID_CE_SUBJECT_ALT_NAME,
    oid::ID_CE_KEY_USAGE,
    oid::ID_CE_EXT_KEY_USAGE,
    oid::ID_CE_BASIC_CONSTRAINTS,
];

/// A certificate of one name with an acmeIdentifier, signed with its own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeCertificate {
    public_key: PublicKey,
    name: Name,
    digest: [u8; 32],
}

/// Why a certificate does not answer tls-alpn-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeCertificateError {
    /// Not a certificate.
    #[error("it is not the DER of an X.509 v3 certificate, or has an extension twice")]
    Der,
    /// A key or a signature of a kind that is not accepted.
    #[error("its key or signature algorithm is not one that is accepted")]
    Algorithm,
    /// Signed by somebody else.
    #[error("it is not self-signed")]
    SelfSigned,
    /// Not one name.
    #[error("it must have exactly one subject alternative name, a dNSName or an iPAddress")]
    Names,
    /// No acmeIdentifier.
    #[error("it has no acmeIdentifier extension")]
    NoIdentifier,
    /// An acmeIdentifier that others may pass over.
    #[error("its acmeIdentifier extension is not critical")]
    NotCritical,
    /// An acmeIdentifier without a digest.
    #[error("its acmeIdentifier extension is not an OCTET STRING of 32 octets")]
    Identifier,
    /// A critical extension that nobody here understands.
    #[error("it has a critical extension that does not belong there")]
    Critical,
}

impl ChallengeCertificate {
    /// Reads a certificate and judges all of it but what it says. When it is valid is no matter.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, ChallengeCertificateError> {
        use ChallengeCertificateError as Error;
        let signed = Signed::read(der).map_err(|_| Error::Der)?;
        let tbs = decode::sequence(signed.content, TbsFields::read).map_err(|_| Error::Der)?;
        let algorithm = SignatureAlgorithm::from_identifier_der(signed.algorithm)
            .filter(|_| tbs.algorithm == signed.algorithm)
            .ok_or(Error::Algorithm)?;
        let public_key = PublicKey::from_spki_der(tbs.public_key).map_err(|_| Error::Algorithm)?;
        let verified = public_key.verify(algorithm, signed.content, signed.signature);
        if tbs.issuer != tbs.subject || verified.is_err() {
            return Err(Error::SelfSigned);
        }
        let find = |oid| tbs.extensions.iter().find(|extension| extension.oid == oid);
        let name = find(oid::ID_CE_SUBJECT_ALT_NAME).and_then(only_name).ok_or(Error::Names)?;
        let identifier = find(ACME_IDENTIFIER).ok_or(Error::NoIdentifier)?;
        if !identifier.critical {
            return Err(Error::NotCritical);
        }
        let digest = <&OctetStringRef>::from_der(identifier.value).map_err(|_| Error::Identifier)?;
        let digest = digest.as_bytes().try_into().map_err(|_| Error::Identifier)?;
        let foreign = |extension: &ExtensionRef<'_>| {
            extension.critical
                && extension.oid != ACME_IDENTIFIER
                && !MAY_BE_CRITICAL.contains(&extension.oid)
        };
        if tbs.extensions.iter().any(foreign) {
            return Err(Error::Critical);
        }
        Ok(Self { public_key, name, digest })
    }

    /// The key, with which the server must have signed the handshake.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The one name that it is for.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// What stands in the acmeIdentifier: SHA-256 of the key authorization, if all is well.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

fn only_name(extension: &ExtensionRef<'_>) -> Option<Name> {
    match decode::general_names(extension.value).ok()?.as_slice() {
        [(choice @ (2 | 7), content)] => read_name(*choice, content).ok(),
        _ => None,
    }
}

impl Name {
    /// The server name of a TLS handshake that asks for this name: for an address, its name in the reverse tree (RFC 8738 §6).
    #[must_use]
    pub fn server_name(&self) -> String {
        match self {
            Self::Dns(name) | Self::Wildcard(name) => DnsName::as_str(name).to_owned(),
            Self::Ip(std::net::IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            Self::Ip(std::net::IpAddr::V6(address)) => {
                let octets = address.octets().into_iter().rev();
                let nibbles = octets.map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
                nibbles.collect::<String>() + "ip6.arpa"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_an_address_is_asked_for_by_its_reverse_name() {
        let name = |text: &str| text.parse::<Name>().unwrap().server_name();
        assert_eq!(name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        // RFC 3596 §2.5.
        let v6 = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa";
        assert_eq!(name("4321:0:1:2:3:4:567:89ab"), v6);
        assert_eq!(name("example.org"), "example.org");
    }

    #[test]
    fn other_octets_are_no_certificate() {
        for der in [&b""[..], b"\x30\x00", b"\x30\x03\x02\x01\x00", &[0x30; 64]] {
            assert_eq!(ChallengeCertificate::from_der(der), Err(ChallengeCertificateError::Der));
        }
    }
}
