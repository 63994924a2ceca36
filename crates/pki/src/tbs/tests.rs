mod golden;

use super::*;
use crate::{
    Period, ProfileKind, ProfileSettings, Timestamp, ValidityError,
    lint::{self, LintContext, Subject},
    testing::{BASE, Hierarchy, Key, NOW, names_of, openssl, profile, run, validity, write},
};
use der::{Decode as _, Encode as _};
use proptest::prelude::*;

const ISSUERS: [KeyAlgorithm; 4] = [
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    KeyAlgorithm::Rsa { bits: 2048 },
    KeyAlgorithm::Ed25519,
];

fn settings(change: impl FnOnce(&mut ProfileSettings)) -> Profile {
    let mut settings = ProfileSettings::new("test", ProfileKind::Private);
    change(&mut settings);
    settings.try_into().unwrap()
}

#[test]
fn openssl_verifies_chains_of_every_algorithm() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in ISSUERS {
        let hierarchy = Hierarchy::generate(algorithm);
        let root = write(folder.path(), "root.pem", hierarchy.root.certificate().pem());
        let issuer = write(folder.path(), "issuer.pem", hierarchy.issuer.certificate().pem());
        for subject in ISSUERS {
            let tbs = hierarchy.leaf(
                &profile(ProfileKind::Private),
                &["a.example", "192.0.2.1"],
                &Key::generate(subject).public(),
            );
            let leaf = write(folder.path(), "leaf.pem", hierarchy.key.certify(&tbs).pem());
            let at = NOW.unix().to_string();
            let verified = openssl(
                &[
                    "verify",
                    "-x509_strict",
                    "-check_ss_sig",
                    "-policy_check",
                    "-purpose",
                    "sslserver",
                    "-verify_hostname",
                    "a.example",
                    "-attime",
                    &at,
                    "-CAfile",
                    &root,
                    "-untrusted",
                    &issuer,
                    &leaf,
                ],
                b"",
            );
            assert!(verified.ends_with("leaf.pem: OK\n"), "{verified}");
        }
    }
}

#[test]
fn openssl_prints_what_was_meant() {
    let hierarchy = Hierarchy::generate(KeyAlgorithm::EcdsaP256);
    let profile = settings(|s| {
        s.extended_key_usages = Some(vec![ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth]);
        s.rsa_key_encipherment = Some(true);
        s.common_name = Some(CommonName::FirstDnsName);
        s.must_staple = Some(crate::MustStaple::Honour);
        s.policies = Some(vec!["1.3.6.1.4.1.99999.1".parse().unwrap()]);
    });
    let names = names_of(&["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"]);
    let issuer = hierarchy.issuer.clone().with_ocsp_url("http://ocsp.example.net/").unwrap();
    let tbs = leaf(
        &profile,
        &issuer,
        LeafRequest {
            serial: Serial::from_random([0xab; 16]),
            names: &names,
            public_key: &Key::generate(KeyAlgorithm::Rsa { bits: 2048 }).public(),
            validity: profile.validity_at(NOW, &issuer, None, None).unwrap(),
            shard: 7,
            must_staple: true,
        },
    )
    .unwrap();
    let certificate = hierarchy.key.certify(&tbs);
    let text = openssl(&["x509", "-noout", "-text"], certificate.pem().as_bytes());
    let crl = format!("URI:{BASE}/crl/{}/7.crl", issuer.id());
    for expected in [
        "Version: 3 (0x2)",
        "6b:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab:ab",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: C = CH, O = Example, CN = Issuing E1",
        "Not Before: Nov 24 11:00:00 2026 GMT",
        "Not After : Feb 22 10:59:59 2027 GMT",
        "Subject: CN = a.example",
        "Public-Key: (2048 bit)",
        "X509v3 Subject Alternative Name: \n                DNS:a.example, DNS:*.b.example, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication",
        "Policy: 1.3.6.1.4.1.99999.1",
        "OCSP - URI:http://ocsp.example.net/",
        "CA Issuers - URI:",
        crl.as_str(),
        "TLS Feature: \n                status_request",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
}

/// Reading alone: certtool judges validity by the wall clock, which this crate's tests do not have.
#[test]
fn certtool_reads_every_certificate() {
    for algorithm in ISSUERS {
        let hierarchy = Hierarchy::generate(algorithm);
        let key = Key::generate(KeyAlgorithm::EcdsaP256).public();
        let leaf =
            hierarchy.key.certify(&hierarchy.leaf(&profile(ProfileKind::PublicDv), &["example.com"], &key));
        for certificate in [hierarchy.root.certificate(), hierarchy.issuer.certificate(), &leaf] {
            let output = run("certtool", "gnutls-bin", &["--certificate-info"], certificate.pem().as_bytes());
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && !text.contains("warning") && !text.contains("error"),
                "{text}"
            );
        }
    }
}

#[test]
fn the_subject_alternative_name_is_critical_exactly_when_the_subject_is_empty() {
    let hierarchy = Hierarchy::fixed();
    let key = Key::fixed(9).public();
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(20));
    let named = settings(|s| s.common_name = Some(CommonName::FirstDnsName));
    for (profile, names, subject) in [
        (&profile(ProfileKind::Private), &["a.example"][..], ""),
        (&named, &["b.example", "*.a.example"], "CN=b.example"),
        (&named, &["*.a.example"], ""),
        (&named, &["192.0.2.1"], ""),
        (&named, &[long.as_str()], ""),
        (&named, &[long.as_str(), "c.example"], "CN=c.example"),
    ] {
        let tbs = hierarchy.leaf(profile, names, &key);
        let certificate = hierarchy.key.certify(&tbs);
        assert_eq!(certificate.subject_text(), subject);
        let findings = lint::check(tbs.as_bytes(), &profile.lint_context(&hierarchy.issuer, NOW));
        assert_eq!(findings, [], "{subject}");
    }
}

#[test]
fn profiles_decide_what_is_in_it() {
    let hierarchy = Hierarchy::fixed();
    let (ed25519, p256) = (Key::fixed(9).public(), Key::generate(KeyAlgorithm::EcdsaP256).public());
    let read = |profile: &Profile, name: &str, key: &PublicKey| {
        hierarchy.key.certify(&hierarchy.leaf(profile, &[name], key))
    };
    let private = read(&profile(ProfileKind::Private), "a.example", &ed25519);
    assert_eq!(private.key_id(), Some(&ed25519.key_id()[..]));
    assert_eq!(private.crl_urls(), [hierarchy.issuer.crl_url(3).unwrap()]);
    assert_eq!(private.authority_key_id(), Some(hierarchy.issuer.key_id()));
    assert_eq!(private.issuer_der(), hierarchy.issuer.certificate().subject_der());
    assert!(!private.is_ca());
    let public = read(&profile(ProfileKind::PublicDv), "example.com", &p256);
    assert_eq!(public.key_id(), None);
    let internal = read(&profile(ProfileKind::Internal), "front.internal", &p256);
    assert!(internal.crl_urls().is_empty() && internal.ocsp_urls().is_empty());
    let bare = settings(|s| {
        s.basic_constraints = Some(false);
        s.subject_key_identifier = Some(false);
        s.crl = Some(false);
        s.ca_issuers = Some(false);
    });
    let bare = read(&bare, "a.example", &p256);
    assert!(bare.key_id().is_none() && bare.crl_urls().is_empty());
    assert!(
        bare.der().len() + 200 < private.der().len() + 100,
        "{} {}",
        bare.der().len(),
        private.der().len()
    );
}

#[test]
fn what_the_profile_does_not_allow_is_refused() {
    let hierarchy = Hierarchy::fixed();
    let key = Key::fixed(9).public();
    let try_leaf = |profile: &Profile, names: &[&str], key: &PublicKey, change: fn(&mut LeafRequest<'_>)| {
        let names = names_of(names);
        let mut request = LeafRequest {
            serial: Serial::from_random([0x33; 16]),
            names: &names,
            public_key: key,
            validity: profile.validity_at(NOW, &hierarchy.issuer, None, None).unwrap(),
            shard: 0,
            must_staple: false,
        };
        change(&mut request);
        leaf(profile, &hierarchy.issuer, request).unwrap_err()
    };
    let private = profile(ProfileKind::Private);
    let names: Vec<String> = (0..101).map(|n| format!("n{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(try_leaf(&private, &names, &key, |_| {}), TbsError::TooManyNames { count: 101, maximum: 100 });
    assert_eq!(try_leaf(&private, &["a.example"], &key, |r| r.must_staple = true), TbsError::MustStaple);
    assert_eq!(
        try_leaf(&private, &["a.example"], &Key::generate(KeyAlgorithm::EcdsaP521).public(), |_| {}),
        TbsError::KeyAlgorithm(KeyAlgorithm::EcdsaP521)
    );
    let longer: fn(&mut LeafRequest<'_>) =
        |r| r.validity.not_after = r.validity.not_after.plus(Period::from_seconds(1));
    assert_eq!(try_leaf(&private, &["a.example"], &key, longer), TbsError::Validity);
    let earlier: fn(&mut LeafRequest<'_>) =
        |r| r.validity = Validity { not_before: NOW.minus(Period::from_days(1)), not_after: NOW };
    assert_eq!(try_leaf(&private, &["a.example"], &key, earlier), TbsError::Validity);
    let reversed: fn(&mut LeafRequest<'_>) =
        |r| r.validity.not_after = r.validity.not_before.minus(Period::from_seconds(1));
    assert_eq!(try_leaf(&private, &["a.example"], &key, reversed), TbsError::Validity);
    let own = hierarchy.issuer.certificate().public_key().clone();
    assert_eq!(try_leaf(&private, &["a.example"], &own, |_| {}), TbsError::IssuerKey);
    let public = try_leaf(
        &profile(ProfileKind::PublicDv),
        &["a.internal"],
        &Key::generate(KeyAlgorithm::EcdsaP256).public(),
        |_| {},
    );
    assert!(matches!(public, TbsError::Name { refusal: NameRefusal::NotPublic, .. }));
}

#[test]
fn roots_and_issuers_are_checked() {
    let subject = DistinguishedName::new(None, None, "R").unwrap();
    let key = Key::fixed(1).public();
    let request = RootRequest {
        serial: Serial::from_random([1; 16]),
        subject: &subject,
        public_key: &key,
        signature: SignatureAlgorithm::EcdsaSha256,
        validity: validity(10),
        test_ca: false,
    };
    assert!(matches!(root(request), Err(TbsError::Signature { .. })));
    let request = RootRequest { signature: SignatureAlgorithm::Ed25519, ..request };
    let reversed = Validity { not_before: NOW, not_after: NOW.minus(Period::from_seconds(1)) };
    assert_eq!(root(RootRequest { validity: reversed, ..request }), Err(TbsError::Validity));
    let hierarchy = Hierarchy::fixed();
    let certificate = Key::fixed(1).certify(&node_ca(request).unwrap());
    assert_eq!(certificate.path_length(), Some(0));
    assert!(certificate.is_ca() && certificate.is_self_issued());
    assert!(Issuer::new(certificate.clone(), SignatureAlgorithm::RsaSha256).is_err());
    let leaf = hierarchy.key.certify(&hierarchy.leaf(&profile(ProfileKind::Private), &["a.example"], &key));
    assert_eq!(Issuer::new(leaf, SignatureAlgorithm::Ed25519).unwrap_err(), crate::IssuerError::NotCa);
    let issuer = Issuer::new(certificate, SignatureAlgorithm::Ed25519).unwrap();
    // keyCertSign alone: it could not sign its own CRLs.
    let tbs = hierarchy.root.certificate().tbs_bytes().to_vec();
    let both = tbs.windows(4).position(|window| window == [3, 2, 1, 6]).unwrap();
    let mut alone = tbs;
    alone[both + 2..both + 4].copy_from_slice(&[2, 4]);
    let certificate = hierarchy.root_key.certify(&Tbs::from_der(&alone).unwrap());
    assert_eq!(
        Issuer::new(certificate, SignatureAlgorithm::Ed25519).unwrap_err(),
        crate::IssuerError::KeyUsage
    );
    for url in [
        "",
        "https://a.example/",
        "http://",
        "http:///x",
        "http://a b/",
        "http://a@b/",
        "http://a/#x",
        "ftp://a/",
        "http://a/\n",
    ] {
        assert!(issuer.clone().with_crl_url_base(url).is_err(), "{url:?}");
    }
    assert_eq!(crate::crl_url("http://a.example/", &[0xab], 12), "http://a.example/ab/12.crl");
}

#[test]
fn a_test_ca_is_marked_and_told_apart() {
    let (marked, plain) = (Hierarchy::marked(), Hierarchy::fixed());
    let clean = |certificate: &Certificate, subject, issuer| {
        let findings = lint::check(certificate.tbs_bytes(), &LintContext::new(subject, issuer, NOW));
        assert_eq!(findings, []);
    };
    clean(marked.root.certificate(), Subject::Root, None);
    clean(marked.issuer.certificate(), Subject::Intermediate, Some(&marked.root));
    for certificate in [marked.root.certificate(), marked.issuer.certificate()] {
        assert!(certificate.is_test_ca());
    }
    for certificate in [plain.root.certificate(), plain.issuer.certificate()] {
        assert!(!certificate.is_test_ca());
    }
    // What it issues has no mark.
    let private = profile(ProfileKind::Private);
    let leaf = marked.leaf(&private, &["a.example"], &Key::fixed(9).public());
    let mark = extension::TEST_CA.as_bytes();
    let has_mark = |tbs: &[u8]| tbs.windows(mark.len()).any(|window| window == mark);
    assert!(has_mark(marked.issuer.certificate().tbs_bytes()) && !has_mark(leaf.as_bytes()));
    // Nor would it be a test CA, had it one.
    let issuer = &marked.issuer;
    let fields = Fields {
        serial: Serial::from_random([0x44; 16]),
        signature: issuer.signature(),
        issuer: issuer.certificate().subject_der(),
        validity: validity(7),
        subject: issuer.certificate().subject_der(),
        public_key: &Key::fixed(9).public(),
    };
    assert!(!marked.key.certify(&fields.encode(extension::test_ca)).is_test_ca());
    // Readers that take 31 bits for an arc can read it.
    assert!(extension::TEST_CA.arcs().all(|arc| u64::from(arc) < 1 << 31));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, certificate: &Certificate| write(folder.path(), name, certificate.pem());
    let root = file("root.pem", marked.root.certificate());
    let issuer = file("issuer.pem", marked.issuer.certificate());
    let leaf = file("leaf.pem", &marked.key.certify(&leaf));
    let at = NOW.unix().to_string();
    let arguments =
        ["verify", "-x509_strict", "-attime", &at, "-CAfile", &root, "-untrusted", &issuer, &leaf];
    assert!(openssl(&arguments, b"").ends_with("leaf.pem: OK\n"));
}

#[test]
fn a_mark_that_is_no_null_is_no_certificate() {
    let certificate = Hierarchy::marked().root.certificate().clone();
    let tbs = certificate.tbs_bytes();
    let value = [extension::TEST_CA.as_bytes(), &[0x04, 0x02, 0x05, 0x00]].concat();
    let at = tbs.windows(value.len()).position(|window| window == value).unwrap() + value.len() - 2;
    let mut changed = certificate.der().to_vec();
    let offset = changed.windows(tbs.len()).position(|window| window == tbs).unwrap();
    // An empty OCTET STRING in its place.
    changed[offset + at] = 0x04;
    assert!(matches!(Certificate::from_der(&changed), Err(CertificateError::Der(_))));
}

#[test]
fn issuers_and_nodes_pass_the_lints() {
    let hierarchy = Hierarchy::fixed();
    let clean = |certificate: &Certificate, subject, issuer| {
        let findings = lint::check(certificate.tbs_bytes(), &LintContext::new(subject, issuer, NOW));
        assert_eq!(findings, []);
    };
    clean(hierarchy.root.certificate(), Subject::Root, None);
    clean(hierarchy.issuer.certificate(), Subject::Intermediate, Some(&hierarchy.root));
    let identity = NodeIdentity::new("signer", "a").unwrap();
    let names = names_of(&["localhost", "127.0.0.1"]);
    for names in [None, Some(&names)] {
        let request = NodeRequest {
            serial: Serial::from_random([5; 16]),
            identity: &identity,
            names,
            public_key: &Key::fixed(9).public(),
            validity: validity(30),
        };
        let certificate = hierarchy.root_key.certify(&node(&hierarchy.root, request).unwrap());
        clean(&certificate, Subject::Node, Some(&hierarchy.root));
        assert_eq!(certificate.uris(), ["chancery://signer/a"]);
        assert_eq!(certificate.names(), names);
    }
}

#[test]
fn validities_are_inclusive_and_fit_the_issuer() {
    let hierarchy = Hierarchy::fixed();
    let profile = profile(ProfileKind::Private);
    let at = |now: Timestamp, before: Option<Timestamp>, after: Option<Timestamp>| {
        profile.validity_at(now, &hierarchy.issuer, before, after)
    };
    let later = NOW.plus(Period::from_days(10));
    let usual = at(later, None, None).unwrap();
    assert_eq!(usual.not_before, later.minus(Period::from_hours(1)));
    assert_eq!(usual.period(), Period::from_days(90));
    assert_eq!(at(NOW.minus(Period::from_hours(2)), None, None), Err(ValidityError::Issuer), "not yet valid");
    // The issuer began an hour ago: no leaf begins before it.
    assert_eq!(
        at(NOW.minus(Period::from_seconds(60)), None, None).unwrap().not_before,
        hierarchy.issuer.certificate().not_before()
    );
    assert_eq!(at(NOW.plus(Period::from_days(3650)), None, None), Err(ValidityError::Issuer));
    assert_eq!(at(NOW.plus(Period::from_days(3600)), None, None), Err(ValidityError::Issuer));
    let short = later.plus(Period::from_days(1));
    assert_eq!(at(later, None, Some(short)).unwrap().not_after, short);
    assert_eq!(
        at(later, Some(later), Some(short)).unwrap(),
        Validity { not_before: later, not_after: short }
    );
    for (before, after) in [
        (None, Some(usual.not_after.plus(Period::from_seconds(1)))),
        (None, Some(later.minus(Period::from_seconds(1)))),
        (Some(later), Some(later.minus(Period::from_seconds(1)))),
        (Some(later.plus(Period::from_days(3))), None),
        (Some(later.minus(Period::from_hours(2))), None),
    ] {
        assert_eq!(at(later, before, after), Err(ValidityError::Requested), "{before:?} {after:?}");
    }
}

#[test]
fn assembled_octets_are_what_was_signed() {
    let hierarchy = Hierarchy::fixed();
    let tbs = hierarchy.leaf(&profile(ProfileKind::Private), &["a.example"], &Key::fixed(9).public());
    let again = Tbs::from_der(tbs.as_bytes()).unwrap();
    assert_eq!(again, tbs);
    let certificate = hierarchy.key.certify(&tbs);
    assert_eq!(certificate.tbs_bytes(), tbs.as_bytes());
    assert_eq!(certificate.verify_signed_by(hierarchy.issuer.certificate().public_key()), Ok(()));
    assert!(Tbs::from_der(&[tbs.as_bytes(), &[0]].concat()).is_err());
    assert!(Tbs::from_der(&tbs.as_bytes()[1..]).is_err());
}

proptest! {
    /// Whatever names, serials and times: DER that x509-cert reads and writes back, the same twice,
    /// and nothing for the lints to find.
    #[test]
    fn every_leaf_is_canonical(
        labels in prop::collection::btree_set("[a-z]([a-z0-9-]{0,3}[a-z0-9])?\\.example", 1..40),
        addresses in prop::collection::vec(any::<[u8; 4]>(), 0..4),
        random: [u8; 16],
        shard: u32,
        day in 0_u32..3500,
    ) {
        let hierarchy = HIERARCHY.with(std::rc::Rc::clone);
        let profile = profile(ProfileKind::Private);
        let names = labels.iter().filter_map(|label| label.parse().ok()).chain(addresses.into_iter().map(|a| Name::Ip(a.into())));
        let Ok(names) = NameSet::new(names) else { return Ok(()) };
        let now = NOW.plus(Period::from_days(day));
        let key = Key::fixed(9).public();
        let request = LeafRequest {
            serial: Serial::from_random(random),
            names: &names,
            public_key: &key,
            validity: profile.validity_at(now, &hierarchy.issuer, None, None).unwrap(),
            shard,
            must_staple: false,
        };
        let tbs = leaf(&profile, &hierarchy.issuer, request).unwrap();
        prop_assert_eq!(&leaf(&profile, &hierarchy.issuer, request).unwrap(), &tbs);
        let expected = lint::Expected { serial: request.serial, names: Some(&names), public_key: &key, validity: request.validity, shard: Some(shard) };
        let context = profile.lint_context(&hierarchy.issuer, now).expecting(expected);
        prop_assert_eq!(lint::check(tbs.as_bytes(), &context), []);
        let theirs = x509_cert::TbsCertificate::from_der(tbs.as_bytes()).unwrap();
        prop_assert_eq!(theirs.to_der().unwrap(), tbs.as_bytes());
        let certificate = hierarchy.key.certify(&tbs);
        prop_assert_eq!(certificate.names(), Some(&names));
        prop_assert_eq!(certificate.serial(), request.serial);
        prop_assert_eq!(certificate.not_before(), request.validity.not_before);
        prop_assert_eq!(certificate.not_after(), request.validity.not_after);
    }
}

thread_local! {
    static HIERARCHY: std::rc::Rc<Hierarchy> = std::rc::Rc::new(Hierarchy::fixed());
}
