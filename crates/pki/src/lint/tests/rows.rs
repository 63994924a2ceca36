//! What is written about certificates in the checklist, row by row: what the good ones are, octet by octet, and which lints
//! find the bad ones.

use super::*;

/// The public leaf, as x509-cert, the reader that shares nothing with the writer, sees it.
fn public_leaf(fixture: &Fixture, key: &PublicKey) -> Draft {
    let names = names_of(&["example.com", "*.example.com"]);
    let (profile, issuer) = (&profile(ProfileKind::PublicDv), &fixture.public.issuer);
    let request = LeafRequest {
        serial: Serial::from_random(SERIAL),
        names: &names,
        public_key: key,
        validity: profile.validity_at(NOW, issuer, None, None).unwrap(),
        shard: 3,
        must_staple: false,
    };
    let tbs = tbs::leaf(profile, issuer, request).unwrap();
    assert_eq!(check(tbs.as_bytes(), &profile.lint_context(issuer, NOW)), []);
    Draft::of(tbs.as_bytes())
}

impl Draft {
    /// Whether it is critical, and the value; none where there is no such extension.
    fn extension(&self, id: ObjectIdentifier) -> Option<(bool, String)> {
        let mut found = self.extensions.iter().filter(|(oid, ..)| *oid == id);
        let (_, critical, value) = found.next()?;
        assert!(found.next().is_none());
        Some((*critical, hex::encode(value)))
    }
}

/// Each of these lints has cases, and finds what was broken in each of them.
#[track_caller]
fn are_found(fixture: &Fixture, lints: &[&str]) {
    for lint in lints {
        let mut cases = 0;
        for (_, base, breaks) in CASES.iter().filter(|(name, ..)| name == lint) {
            let (tbs, mut context) = fixture.base(*base);
            let mut draft = Draft::of(&tbs);
            breaks(&mut draft, &mut context, fixture);
            assert!(check(&draft.der(), &context).iter().any(|finding| finding.lint == *lint), "{lint}");
            cases += 1;
        }
        assert!(cases > 0, "{lint} has no case");
    }
}

fn value(id: &ObjectIdentifier) -> String {
    hex::encode(id.as_bytes())
}

#[test]
fn j1_serials_are_positive_short_and_random() {
    let fixture = Fixture::new();
    // 16 octets of which 126 bits are random: positive, below 2^159, and above 64 bits of chance.
    for random in [[0; 16], [0xff; 16], SERIAL] {
        let serial = Serial::from_random(random);
        let octets = serial.as_bytes();
        assert_eq!(octets.len(), 16);
        assert!(octets[0] != 0 && octets[0] & 0x80 == 0, "{serial}");
        let kept = octets.iter().zip(&random).map(|(one, other)| (one ^ other).count_ones()).sum::<u32>();
        assert!(kept <= 2, "{serial}");
    }
    are_found(
        &fixture,
        &["rfc5280.serial_positive", "rfc5280.serial_length", "cabf_br.serial", "operator.serial"],
    );
}

#[test]
fn j2_validity_is_as_short_as_the_day_wants() {
    let fixture = Fixture::new();
    let profile = profile(ProfileKind::PublicDv);
    let validity = profile.validity_at(NOW, &fixture.public.issuer, None, None).unwrap();
    // Both seconds count, and the default is days below the 200, and even the 100, that are allowed.
    assert_eq!(validity.period(), profile.validity());
    assert!(validity.period() < Period::from_days(99));
    assert!(NOW.since(validity.not_before) <= Period::from_hours(48));
    are_found(&fixture, &["cabf_br.validity", "cabf_br.not_before", "rfc5280.validity_order"]);
}

#[test]
fn j3_the_subject_of_a_public_leaf_is_empty() {
    let fixture = Fixture::new();
    let leaf = public_leaf(&fixture, &fixture.public_key);
    assert_eq!(leaf.subject, [0x30, 0]);
    let (critical, names) = leaf.extension(oid::ID_CE_SUBJECT_ALT_NAME).unwrap();
    assert!(critical);
    assert!(names.contains(&hex::encode("*.example.com")));
    let lints = [
        "cabf_br.subject_attributes",
        "cabf_br.no_common_name",
        "cabf_br.alt_name_critical",
        "cabf_br.alt_name_present",
        "rfc5280.alt_name_for_empty_subject",
        "rfc5280.alt_name_beside_subject",
    ];
    are_found(&fixture, &lints);
}

#[test]
fn j4_a_public_leaf_is_for_servers_alone() {
    let fixture = Fixture::new();
    let leaf = public_leaf(&fixture, &fixture.public_key);
    let server = value(&oid::ID_KP_SERVER_AUTH);
    assert_eq!(leaf.extension(oid::ID_CE_EXT_KEY_USAGE), Some((false, format!("300a0608{server}"))));
    are_found(&fixture, &["cabf_br.ext_key_usage", "cabf_br.client_auth", "rfc5280.ext_key_usage"]);
}

#[test]
fn j5_key_usage_follows_the_key_and_a_leaf_is_no_ca() {
    let fixture = Fixture::new();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa { bits: 2048 }] {
        let leaf = public_leaf(&fixture, &Key::generate(algorithm).public());
        // digitalSignature, for RSA too unless the profile says more.
        assert_eq!(leaf.extension(oid::ID_CE_KEY_USAGE), Some((true, "03020780".to_owned())), "{algorithm}");
        assert_eq!(leaf.extension(oid::ID_CE_BASIC_CONSTRAINTS), Some((true, "3000".to_owned())));
        assert_eq!(leaf.extension(oid::ID_CE_NAME_CONSTRAINTS), None);
        assert_eq!(leaf.extension(oid::ID_CE_SUBJECT_KEY_IDENTIFIER), None);
    }
    let lints = [
        "cabf_br.key_usage",
        "rfc5280.key_usage_fits_key",
        "cabf_br.basic_constraints",
        "rfc5280.ca_flag",
        "cabf_br.no_name_constraints",
        "cabf_br.no_subject_key_id",
    ];
    are_found(&fixture, &lints);
}

#[test]
fn j6_a_public_leaf_has_the_one_reserved_policy() {
    let fixture = Fixture::new();
    let leaf = public_leaf(&fixture, &fixture.public_key);
    // 2.23.140.1.2.1, without qualifiers.
    let policies = (false, "300a3008060667810c010201".to_owned());
    assert_eq!(leaf.extension(oid::ID_CE_CERTIFICATE_POLICIES), Some(policies));
    are_found(&fixture, &["cabf_br.policies", "rfc5280.policies_unique"]);
}

#[test]
fn j7_the_issuer_is_named_as_it_names_itself() {
    let fixture = Fixture::new();
    let leaf = public_leaf(&fixture, &fixture.public_key);
    let issuer = &fixture.public.issuer;
    assert_eq!(leaf.issuer, issuer.certificate().subject_der());
    // keyIdentifier [0] alone.
    let identifier = (false, format!("30168014{}", issuer.id()));
    assert_eq!(leaf.extension(oid::ID_CE_AUTHORITY_KEY_IDENTIFIER), Some(identifier));
    let lints = [
        "rfc5280.issuer_is_issuers_subject",
        "rfc5280.authority_key_id_present",
        "rfc5280.authority_key_id_pair",
        "rfc5280.authority_key_id_matches",
        "cabf_br.authority_key_id",
    ];
    are_found(&fixture, &lints);
}

#[test]
fn j8_where_to_ask_is_said_over_plain_http() {
    let fixture = Fixture::new();
    let leaf = public_leaf(&fixture, &fixture.public_key);
    let issuer = &fixture.public.issuer;
    let (critical, access) = leaf.extension(oid::ID_PE_AUTHORITY_INFO_ACCESS).unwrap();
    assert!(!critical && access.contains(&hex::encode(issuer.ca_issuers_url().unwrap())));
    let points = super::cases::points(&[&issuer.crl_url(3).unwrap()]);
    assert_eq!(leaf.extension(oid::ID_CE_CRL_DISTRIBUTION_POINTS), Some((false, hex::encode(points))));
    let lints = [
        "cabf_br.authority_info_access",
        "cabf_br.ca_issuers",
        "cabf_br.crl_points",
        "cabf_br.revocation_information",
        "cabf_br.no_freshest_crl",
    ];
    are_found(&fixture, &lints);
}

#[test]
fn j9_algorithm_identifiers_are_the_listed_octets() {
    let fixture = Fixture::new();
    for (algorithm, identifier) in [
        (KeyAlgorithm::EcdsaP256, "300a06082a8648ce3d040302"),
        (KeyAlgorithm::EcdsaP384, "300a06082a8648ce3d040303"),
        (KeyAlgorithm::EcdsaP521, "300a06082a8648ce3d040304"),
        (KeyAlgorithm::Rsa { bits: 2048 }, "300d06092a864886f70d01010b0500"),
    ] {
        let hierarchy = Hierarchy::generate(algorithm);
        let tbs = hierarchy.leaf(&profile(ProfileKind::PublicDv), &["example.com"], &fixture.public_key);
        assert_eq!(hex::encode(Draft::of(tbs.as_bytes()).signature), identifier, "{algorithm}");
        // Outside of what is signed as well.
        let certificate = hex::encode(hierarchy.key.certify(&tbs).der());
        assert_eq!(certificate.matches(identifier).count(), 2, "{algorithm}");
    }
    for (algorithm, identifier) in [
        (KeyAlgorithm::EcdsaP256, "301306072a8648ce3d020106082a8648ce3d030107"),
        (KeyAlgorithm::EcdsaP384, "301006072a8648ce3d020106052b81040022"),
        (KeyAlgorithm::EcdsaP521, "301006072a8648ce3d020106052b81040023"),
        (KeyAlgorithm::Rsa { bits: 2048 }, "300d06092a864886f70d0101010500"),
    ] {
        assert!(
            hex::encode(Key::generate(algorithm).public().spki_der()).contains(identifier),
            "{algorithm}"
        );
    }
    let lints = [
        "rfc5280.signature_algorithm",
        "rfc5280.signature_fits_issuer",
        "cabf_br.signature_algorithm",
        "rfc5280.subject_public_key",
    ];
    are_found(&fixture, &lints);
}

#[test]
fn j13_ca_certificates_are_those_of_the_tables() {
    let fixture = Fixture::new();
    let Hierarchy { root, issuer, .. } = &fixture.public;
    let [root_draft, issuer_draft] = [root, issuer].map(|one| Draft::of(one.certificate().tbs_bytes()));
    let root_constraints = Some((true, "30030101ff".to_owned()));
    assert_eq!(root_draft.extension(oid::ID_CE_BASIC_CONSTRAINTS), root_constraints);
    let issuer_constraints = Some((true, "30060101ff020100".to_owned()));
    assert_eq!(issuer_draft.extension(oid::ID_CE_BASIC_CONSTRAINTS), issuer_constraints);
    for (draft, common_name) in [(&root_draft, "Root R1"), (&issuer_draft, "Issuing E1")] {
        // keyCertSign and cRLSign: OCSP is signed by delegated responders.
        assert_eq!(draft.extension(oid::ID_CE_KEY_USAGE), Some((true, "03020106".to_owned())));
        assert!(draft.extension(oid::ID_CE_SUBJECT_KEY_IDENTIFIER).is_some());
        // C, O and CN, and no OU (2.5.4.11).
        let subject = hex::encode(&draft.subject);
        for part in ["CH", "Example", common_name] {
            assert!(subject.contains(&hex::encode(part)), "{part}");
        }
        assert!(!subject.contains("060355040b"));
    }
    assert_eq!(root_draft.extension(oid::ID_CE_EXT_KEY_USAGE), None);
    let server = value(&oid::ID_KP_SERVER_AUTH);
    assert_eq!(issuer_draft.extension(oid::ID_CE_EXT_KEY_USAGE), Some((false, format!("300a0608{server}"))));
    assert!(issuer_draft.extension(oid::ID_CE_CRL_DISTRIBUTION_POINTS).is_some());
    let lints = [
        "cabf_br.ca_subject",
        "cabf_br.ca_key_usage",
        "cabf_br.ca_ext_key_usage",
        "cabf_br.ca_policies",
        "cabf_br.ca_crl_points",
        "cabf_br.ca_serial",
        "cabf_br.root_validity",
        "cabf_br.root_no_ext_key_usage",
        "cabf_br.root_no_path_length",
    ];
    are_found(&fixture, &lints);
}
