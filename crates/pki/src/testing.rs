//! What the tests of this crate share: keys, a small hierarchy, and OpenSSL as an oracle.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa,
    signature::{self as aws, KeyPair as _},
};

use crate::{
    Certificate, DistinguishedName, Issuer, KeyAlgorithm, NameSet, Period, Profile, ProfileKind, PublicKey,
    Serial, SignatureAlgorithm, Tbs, Timestamp, Validity,
    tbs::{self, IntermediateRequest, LeafRequest, RootRequest},
};

/// 2026-11-24T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_const(1_795_521_600);

/// A private key that plays the token.
pub(crate) enum Key {
    Ecdsa(aws::EcdsaKeyPair, SignatureAlgorithm, KeyAlgorithm),
    Rsa(rsa::KeyPair),
    Ed25519(aws::Ed25519KeyPair),
}

impl Key {
    pub(crate) fn generate(algorithm: KeyAlgorithm) -> Self {
        let ecdsa = |signing, signature| {
            Self::Ecdsa(aws::EcdsaKeyPair::generate(signing).unwrap(), signature, algorithm)
        };
        match algorithm {
            KeyAlgorithm::EcdsaP256 => {
                ecdsa(&aws::ECDSA_P256_SHA256_ASN1_SIGNING, SignatureAlgorithm::EcdsaSha256)
            }
            KeyAlgorithm::EcdsaP384 => {
                ecdsa(&aws::ECDSA_P384_SHA384_ASN1_SIGNING, SignatureAlgorithm::EcdsaSha384)
            }
            KeyAlgorithm::EcdsaP521 => {
                ecdsa(&aws::ECDSA_P521_SHA512_ASN1_SIGNING, SignatureAlgorithm::EcdsaSha512)
            }
            KeyAlgorithm::Rsa { bits: 2048 } => {
                Self::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap())
            }
            KeyAlgorithm::Rsa { bits: 3072 } => {
                Self::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa3072).unwrap())
            }
            KeyAlgorithm::Rsa { .. } => Self::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa4096).unwrap()),
            KeyAlgorithm::Ed25519 => Self::Ed25519(aws::Ed25519KeyPair::generate().unwrap()),
        }
    }

    /// The Ed25519 key of a seed of 32 times this octet: the same in every run.
    pub(crate) fn fixed(seed: u8) -> Self {
        Self::Ed25519(aws::Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        match self {
            Self::Ecdsa(pair, _, algorithm) => {
                PublicKey::from_ec_point(*algorithm, pair.public_key().as_ref()).unwrap()
            }
            Self::Rsa(pair) => {
                PublicKey::from_spki_der(pair.public_key().as_der().unwrap().as_ref()).unwrap()
            }
            Self::Ed25519(pair) => {
                PublicKey::from_ed25519(pair.public_key().as_ref().try_into().unwrap()).unwrap()
            }
        }
    }

    pub(crate) fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa(pair, own, _) => {
                assert_eq!(*own, algorithm);
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let encoding: &dyn aws::RsaEncoding = match algorithm {
                    SignatureAlgorithm::RsaSha256 => &aws::RSA_PKCS1_SHA256,
                    SignatureAlgorithm::RsaSha384 => &aws::RSA_PKCS1_SHA384,
                    SignatureAlgorithm::RsaSha512 => &aws::RSA_PKCS1_SHA512,
                    other => panic!("RSA does not sign with {other}"),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub(crate) fn certify(&self, tbs: &Tbs) -> Certificate {
        let signature = self.sign(tbs.signature(), tbs.as_bytes());
        tbs::assemble_certificate(tbs, &signature).unwrap()
    }
}

pub(crate) const BASE: &str = "http://pki.example.net";

pub(crate) fn validity(days: u32) -> Validity {
    let not_before = NOW.minus(Period::from_hours(1));
    Validity {
        not_before,
        not_after: not_before.plus(Period::from_days(days)).minus(Period::from_seconds(1)),
    }
}

/// A root, an intermediate below it, and their keys.
pub(crate) struct Hierarchy {
    pub(crate) root_key: Key,
    pub(crate) root: Issuer,
    pub(crate) key: Key,
    pub(crate) issuer: Issuer,
}

impl Hierarchy {
    pub(crate) fn generate(algorithm: KeyAlgorithm) -> Self {
        Self::build(Key::generate(algorithm), Key::generate(algorithm))
    }

    /// The same in every run, signatures included.
    pub(crate) fn fixed() -> Self {
        Self::build(Key::fixed(1), Key::fixed(2))
    }

    pub(crate) fn build(root_key: Key, key: Key) -> Self {
        Self::build_as(root_key, key, false)
    }

    /// [`Hierarchy::fixed`], marked as a test CA.
    pub(crate) fn marked() -> Self {
        Self::build_as(Key::fixed(1), Key::fixed(2), true)
    }

    fn build_as(root_key: Key, key: Key, test_ca: bool) -> Self {
        let public_key = root_key.public();
        let subject = DistinguishedName::new(Some("CH"), Some("Example"), "Root R1").unwrap();
        let signature = public_key.algorithm().default_signature();
        let tbs = tbs::root(RootRequest {
            serial: Serial::from_random([0x11; 16]),
            subject: &subject,
            public_key: &public_key,
            signature,
            validity: validity(7300),
            test_ca,
        })
        .unwrap();
        let root = published(Issuer::new(root_key.certify(&tbs), signature).unwrap());
        let subject = DistinguishedName::new(Some("CH"), Some("Example"), "Issuing E1").unwrap();
        let public_key = key.public();
        let tbs = tbs::intermediate(
            &root,
            IntermediateRequest {
                serial: Serial::from_random([0x22; 16]),
                subject: &subject,
                public_key: &public_key,
                validity: validity(3650),
                shard: 0,
                path_length: Some(0),
                extended_key_usages: &[crate::ExtendedKeyUsage::ServerAuth],
                policies: &[crate::PolicyOid::DOMAIN_VALIDATED],
                test_ca,
            },
        )
        .unwrap();
        let signature = public_key.algorithm().default_signature();
        let issuer = published(Issuer::new(root_key.certify(&tbs), signature).unwrap());
        Self { root_key, root, key, issuer }
    }

    pub(crate) fn leaf(&self, profile: &Profile, names: &[&str], key: &PublicKey) -> Tbs {
        let names = names_of(names);
        let request = LeafRequest {
            serial: Serial::from_random([0x33; 16]),
            names: &names,
            public_key: key,
            validity: profile.validity_at(NOW, &self.issuer, None, None).unwrap(),
            shard: 3,
            must_staple: false,
        };
        tbs::leaf(profile, &self.issuer, request).unwrap()
    }
}

fn published(issuer: Issuer) -> Issuer {
    let ca_issuers = format!("{BASE}/{}.crt", issuer.id());
    issuer
        .with_ca_issuers_url(&ca_issuers)
        .and_then(|issuer| issuer.with_crl_url_base(&format!("{BASE}/crl")))
        .unwrap()
}

pub(crate) fn names_of(names: &[&str]) -> NameSet {
    NameSet::new(names.iter().map(|name| name.parse().unwrap())).unwrap()
}

pub(crate) fn profile(kind: ProfileKind) -> Profile {
    Profile::preset("test", kind).unwrap()
}

/// Runs a program of the machine; its absence is a failure.
pub(crate) fn run(program: &str, package: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; install it with: apt-get install {package}"));
    // A program that stops reading early closes the pipe: what it says about that is in its output.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// `openssl`, which has to succeed; what it printed.
pub(crate) fn openssl(arguments: &[&str], input: &[u8]) -> String {
    let output = run("openssl", "openssl", arguments, input);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "openssl {arguments:?}: {stdout}{stderr}");
    format!("{stdout}{stderr}")
}

/// Writes a file into a folder of the test's own.
pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
