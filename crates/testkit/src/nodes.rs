//! A node CA for tests: identities, good and bad, without a signer.

#![expect(clippy::unwrap_used, reason = "a test that has no identity cannot go on")]

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rpc::{
    NodeCredentials, NodeFiles, NodeName, Role,
    enroll::{Fingerprint, requested_key},
    files::write_atomically,
    uri,
};
use runtime::{Clock, SystemClock};
use tempfile::TempDir;
use time::OffsetDateTime;

/// A node CA whose files live as long as it does.
pub struct NodeAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    pem: String,
    folder: TempDir,
    next: AtomicU64,
}

/// What a node certificate is to say; the defaults make a good one.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The URIs; one in a good one.
    pub uris: Vec<String>,
    /// Its beginning.
    pub not_before: OffsetDateTime,
    /// Its end.
    pub not_after: OffsetDateTime,
    /// What it is for.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Wish {
    /// A good certificate for a node, good for a day.
    pub fn of(role: Role, name: &str) -> Self {
        let now = SystemClock.now();
        Self {
            uris: vec![uri(role, &node_name(name))],
            not_before: now - Duration::from_secs(3600),
            not_after: now + Duration::from_secs(24 * 3600),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        }
    }
}

impl Default for NodeAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeAuthority {
    /// A new CA with a key of its own.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Test node CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial(0));
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().to_vec(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            folder: tempfile::tempdir().unwrap(),
            next: AtomicU64::new(1),
        }
    }

    /// Its certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// What a join token says of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node's identity, loaded.
    pub fn node(&self, role: Role, name: &str) -> Arc<NodeCredentials> {
        NodeCredentials::load(self.files(role, name)).unwrap()
    }

    /// The files of a good identity.
    pub fn files(&self, role: Role, name: &str) -> NodeFiles {
        let files = self.paths(role, name);
        self.write(&files, &Wish::of(role, name));
        files
    }

    /// Where a node's files are to be; nothing is written.
    pub fn paths(&self, role: Role, name: &str) -> NodeFiles {
        let path = |end| self.folder.path().join(format!("{role}-{name}.{end}"));
        NodeFiles { certificate: path("crt"), key: path("key"), authority: path("authority.crt") }
    }

    /// Writes an identity with a new key, as wished.
    pub fn write(&self, files: &NodeFiles, wish: &Wish) {
        let key = KeyPair::generate().unwrap();
        let certificate = self.certify(&key, wish);
        let pem = pki::chain::pem_block("CERTIFICATE", &certificate);
        write_atomically(&files.authority, self.pem.as_bytes(), 0o644).unwrap();
        write_atomically(&files.certificate, pem.as_bytes(), 0o644).unwrap();
        write_atomically(&files.key, key.serialize_pem().as_bytes(), 0o600).unwrap();
    }

    /// The chain that answers a node's request (PKCS#10, DER): leaf, then CA.
    pub fn answer(&self, request: &[u8], wish: &Wish) -> Vec<Vec<u8>> {
        let key = requested_key(request).unwrap();
        vec![self.certify(&EcPoint(key.raw().to_vec()), wish), self.certificate.clone()]
    }

    fn certify(&self, key: &impl PublicKeyData, wish: &Wish) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names =
            wish.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        params.not_before = wish.not_before;
        params.not_after = wish.not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = wish.usages.clone();
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(self.next.fetch_add(1, Ordering::Relaxed)));
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }
}

struct EcPoint(Vec<u8>);

impl PublicKeyData for EcPoint {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A name that is one.
pub fn node_name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, common_name);
    name
}

fn serial(number: u64) -> SerialNumber {
    let mut bytes = [0x40; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    SerialNumber::from_slice(&bytes)
}
