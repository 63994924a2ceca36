use super::*;
use crate::{
    KeyAlgorithm, ProfileKind,
    chain::{self, ChainError},
    testing::{Hierarchy, Key, names_of, openssl, profile, write},
};
use proptest::prelude::*;

fn leaf(hierarchy: &Hierarchy) -> Certificate {
    let tbs = hierarchy.leaf(
        &profile(ProfileKind::Private),
        &["a.example", "*.b.example", "192.0.2.1"],
        &Key::fixed(9).public(),
    );
    hierarchy.key.certify(&tbs)
}

#[test]
fn fields_are_read() {
    let hierarchy = Hierarchy::fixed();
    let certificate = leaf(&hierarchy);
    assert_eq!(certificate.names(), Some(&names_of(&["a.example", "*.b.example", "192.0.2.1"])));
    assert_eq!(certificate.public_key(), &Key::fixed(9).public());
    assert_eq!(certificate.signature_algorithm(), SignatureAlgorithm::Ed25519);
    assert!(
        certificate.is_valid_at(certificate.not_before()) && certificate.is_valid_at(certificate.not_after())
    );
    assert!(!certificate.is_valid_at(certificate.not_after().plus(crate::Period::from_seconds(1))));
    assert!(!certificate.is_ca() && !certificate.is_self_issued());
    let issuer = hierarchy.issuer.certificate();
    assert_eq!(issuer.path_length(), Some(0));
    assert_eq!(issuer.subject_text(), "CN=Issuing E1,O=Example,C=CH");
    assert_eq!(issuer.names(), None);
    assert_eq!(Certificate::from_der(certificate.der()), Ok(certificate));
}

#[test]
fn certificates_of_openssl_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (algorithm, option) in [("EC", "ec_paramgen_curve:P-384"), ("RSA", "rsa_keygen_bits:2048")] {
        let key = write(
            folder.path(),
            "key.pem",
            openssl(&["genpkey", "-quiet", "-algorithm", algorithm, "-pkeyopt", option], b""),
        );
        let pem = openssl(
            &[
                "req",
                "-x509",
                "-new",
                "-key",
                &key,
                "-subj",
                "/C=CH/O=Example/OU=Unit/CN=Root",
                "-days",
                "3650",
                "-addext",
                "nameConstraints=critical,permitted;DNS:example.org,excluded;IP:0.0.0.0/0.0.0.0",
            ],
            b"",
        );
        let certificate = chain::from_pem(&format!("text\n{pem}")).unwrap().remove(0);
        assert!(certificate.is_ca() && certificate.is_self_issued());
        assert_eq!(certificate.verify_signed_by(certificate.public_key()), Ok(()));
        for (name, permitted) in [
            ("a.example.org", true),
            ("*.example.org", true),
            ("example.com", false),
            ("192.0.2.1", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(certificate.permits(&name.parse().unwrap()), permitted, "{name}");
        }
    }
}

#[test]
fn what_is_not_exactly_one_certificate_is_refused() {
    let certificate = leaf(&Hierarchy::fixed());
    let der = certificate.der();
    assert!(Certificate::from_der(&[der, &[0]].concat()).is_err());
    assert!(Certificate::from_der(&der[..der.len() - 1]).is_err());
    assert!(Certificate::from_der(&[]).is_err());
    assert!(Certificate::from_der(certificate.pem().as_bytes()).is_err());
    // The outer algorithm says something else than the inner one.
    let mut other = der.to_vec();
    let at = other.windows(7).rposition(|w| w == [0x30, 5, 6, 3, 0x2b, 0x65, 0x70]).unwrap();
    other[at + 6] = 0x71;
    assert_eq!(Certificate::from_der(&other), Err(CertificateError::SignatureAlgorithm));
}

#[test]
fn no_changed_octet_is_believed() {
    let hierarchy = Hierarchy::fixed();
    let certificate = leaf(&hierarchy);
    let key = hierarchy.issuer.certificate().public_key();
    for at in 0..certificate.der().len() {
        let mut changed = certificate.der().to_vec();
        changed[at] ^= 1;
        let believed = Certificate::from_der(&changed).is_ok_and(|read| read.verify_signed_by(key).is_ok());
        assert!(!believed, "octet {at}");
    }
}

#[test]
fn chains_keep_their_order() {
    let hierarchy = Hierarchy::generate(KeyAlgorithm::EcdsaP256);
    let certificates =
        [leaf(&hierarchy), hierarchy.issuer.certificate().clone(), hierarchy.root.certificate().clone()];
    let pem = chain::to_pem(&certificates);
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"));
    assert!(!pem.contains('\r') && !pem.contains("\n\n"));
    assert_eq!(pem.lines().filter(|line| line.len() > 64).count(), 0);
    assert_eq!(chain::from_pem(&pem).unwrap(), certificates);
    assert_eq!(chain::check_order(&certificates), Ok(()));
    assert_eq!(chain::check_order(&certificates[..1]), Ok(()));
    let [first, second, third] = certificates;
    assert_eq!(chain::check_order(&[first.clone(), third.clone()]), Err(ChainError::Order { index: 0 }));
    assert_eq!(chain::check_order(&[first.clone(), second, first]), Err(ChainError::Order { index: 1 }));
    let foreign = Hierarchy::generate(KeyAlgorithm::EcdsaP256);
    assert!(chain::is_issued_by(foreign.issuer.certificate(), &third).is_err(), "same names, another key");
    for text in
        ["", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nMII"]
    {
        assert!(chain::from_pem(text).is_err(), "{text:?}");
    }
    let key = chain::pem_block("PUBLIC KEY", Key::fixed(1).public().spki_der());
    assert_eq!(chain::from_pem(&key), Err(ChainError::Pem));
    let mislabelled = key.replace("PUBLIC KEY", "CERTIFICATE");
    assert!(matches!(chain::from_pem(&mislabelled), Err(ChainError::Certificate { index: 0, .. })));
}

proptest! {
    #[test]
    fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Certificate::from_der(&octets);
    }
}
