//! Certificates for tests, made by rcgen.

use pki::{Certificate, Name, NameSet, PublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use time::{Duration, OffsetDateTime};

/// A CA.
pub(crate) struct Authority {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A key that is known by its public part only.
struct Known<'a>(&'a PublicKey);

impl PublicKeyData for Known<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.raw()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap();
        Self { name: name.to_owned(), issuer }
    }

    /// Another certificate of the same subject and key, DER.
    pub(crate) fn certified_by(&self, other: &Self) -> Vec<u8> {
        let params = authority(&self.name);
        params.signed_by(self.issuer.key(), &other.issuer).unwrap().der().to_vec()
    }

    pub(crate) fn der(&self) -> &[u8] {
        self.issuer.as_ref().der()
    }

    /// A leaf for these names.
    pub(crate) fn issue(&self, key: &PublicKey, names: &NameSet) -> Certificate {
        let mut params = base();
        params.subject_alt_names = names.iter().map(general_name).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&Known(key), &self.issuer).unwrap();
        Certificate::from_der(certificate.der()).unwrap()
    }
}

/// A CSR with a key of its own; the key comes as PKCS#8.
pub(crate) fn csr(names: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    (csr_with(&key, names), key.serialize_der())
}

pub(crate) fn csr_with(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names.iter().map(|name| general_name(&name.parse().unwrap())).collect();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn general_name(name: &Name) -> SanType {
    match name {
        Name::Dns(_) | Name::Wildcard(_) => SanType::DnsName(name.to_string().try_into().unwrap()),
        Name::Ip(address) => SanType::IpAddress(*address),
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = base();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn base() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    let now = runtime::Clock::now(&runtime::SystemClock);
    params.not_before = hour(now - Duration::hours(2));
    params.not_after = hour(now + Duration::days(30));
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).unwrap();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn hour(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_minute(0).unwrap().replace_second(0).unwrap().replace_nanosecond(0).unwrap()
}
