use super::*;
use crate::{
    KeyAlgorithm, Period, ProfileKind,
    lint::{CrlLintContext, check_crl},
    testing::{Hierarchy, Key, NOW, openssl, profile, run, write},
};
use proptest::prelude::*;

fn parameters(issuer: &Issuer) -> CrlParameters<'_> {
    CrlParameters {
        issuer,
        number: 7,
        this_update: NOW,
        next_update: NOW.plus(Period::from_days(4)),
        scope: CrlScope::Shard(3),
        delta_base: None,
    }
}

fn entry(n: u32, reason: Reason) -> Entry {
    let mut random = [0x5a; 16];
    random[..4].copy_from_slice(&n.to_be_bytes());
    Entry {
        serial: Serial::from_random(random),
        revoked_at: NOW.minus(Period::from_seconds(n.into())),
        reason,
    }
}

fn entries(count: u32) -> Vec<Entry> {
    (0..count).map(|n| entry(n, Reason::ALL[n as usize % Reason::ALL.len()])).collect()
}

fn tbs(parameters: &CrlParameters<'_>, entries: &[Entry]) -> (Vec<u8>, CrlTbs) {
    let mut writer = CrlWriter::start(parameters, entries.iter().collect(), Vec::new()).unwrap();
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    writer.finish().unwrap()
}

fn sign(key: &Key, parameters: &CrlParameters<'_>, entries: &[Entry]) -> Vec<u8> {
    let (octets, tbs) = tbs(parameters, entries);
    assemble(&octets, tbs.algorithm, &key.sign(tbs.algorithm, &octets))
}

fn context(issuer: &Issuer) -> CrlLintContext<'_> {
    CrlLintContext {
        issuer: issuer.certificate(),
        signed_at: NOW,
        url: None,
        delta_url: None,
        previous_number: Some(6),
        publicly_trusted: false,
    }
}

#[test]
fn what_is_written_is_read_back() {
    let hierarchy = Hierarchy::fixed();
    let issuer = &hierarchy.issuer;
    let url = issuer.crl_url(3).unwrap();
    for count in [0, 1, 2, 3, 100, 5_000] {
        let list = entries(count);
        let parameters = parameters(issuer);
        let (octets, summary) = tbs(&parameters, &list);
        assert_eq!((summary.len, summary.entries), (octets.len() as u64, u64::from(count)));
        let der = sign(&hierarchy.key, &parameters, &list);
        let crl = Crl::from_der(&der).unwrap();
        assert_eq!(crl.entries().map(Result::unwrap).collect::<Vec<_>>(), list);
        assert_eq!((crl.number(), crl.this_update(), crl.next_update()), (7, NOW, parameters.next_update));
        assert_eq!((crl.entry_count(), crl.delta_base()), (u64::from(count), None));
        assert_eq!(crl.distribution_urls(), std::slice::from_ref(&url));
        assert_eq!(crl.authority_key_id(), issuer.key_id());
        assert_eq!(crl.tbs_bytes(), octets);
        assert_eq!(crl.verify_issued_by(issuer.certificate()), Ok(()));
        assert!(crl.verify_issued_by(hierarchy.root.certificate()).is_err());
        let context = CrlLintContext { url: Some(&url), ..context(issuer) };
        assert_eq!(check_crl(&octets, &context), []);
        if let Some(first) = list.first() {
            assert_eq!(crl.find(&first.serial), Some(*first));
        }
        assert_eq!(crl.find(&Serial::from_random([0; 16])), None);
    }
}

#[test]
fn k5_the_distribution_point_has_the_octets_of_the_certificates() {
    let hierarchy = Hierarchy::fixed();
    let leaf = hierarchy.leaf(&profile(ProfileKind::Private), &["a.example"], &Key::fixed(9).public());
    let (crl, _) = tbs(&parameters(&hierarchy.issuer), &[]);
    let url = hierarchy.issuer.crl_url(3).unwrap();
    let mut name = crate::encode::Encoder::default();
    crate::extension::distribution_point_name(&mut name, &url);
    for octets in [leaf.as_bytes(), &crl] {
        assert_eq!(octets.windows(name.len()).filter(|window| *window == name.as_bytes()).count(), 1);
    }
}

#[test]
fn digest_and_octets_agree_for_every_algorithm() {
    for algorithm in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa { bits: 2048 },
        KeyAlgorithm::Ed25519,
    ] {
        let hierarchy = Hierarchy::generate(algorithm);
        // Enough for the buffer to be flushed several times.
        let (octets, summary) = tbs(&parameters(&hierarchy.issuer), &entries(6_000));
        assert_eq!(summary.digest, summary.algorithm.digest(&octets));
        let signature = hierarchy.key.sign(summary.algorithm, &octets);
        let key = hierarchy.issuer.certificate().public_key();
        if let Some(digest) = &summary.digest {
            assert_eq!(key.verify_digest(summary.algorithm, digest, &signature), Ok(()));
        }
        let (prefix, suffix) = envelope(summary.len, summary.algorithm, &signature);
        assert!(prefix.len() <= PREFIX_MAX);
        let whole = [prefix.as_slice(), &octets, &suffix].concat();
        assert_eq!(whole, assemble(&octets, summary.algorithm, &signature));
        assert_eq!(Crl::from_der(&whole).unwrap().verify_signed_by(key), Ok(()));
    }
}

#[test]
fn openssl_checks_revocation_by_these_crls() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa { bits: 2048 },
        KeyAlgorithm::Ed25519,
    ] {
        let hierarchy = Hierarchy::generate(algorithm);
        let tbs = hierarchy.leaf(&profile(ProfileKind::Private), &["a.example"], &Key::fixed(9).public());
        let leaf = hierarchy.key.certify(&tbs);
        let complete = CrlParameters { scope: CrlScope::Complete, ..parameters(&hierarchy.root) };
        let of_root = sign(&hierarchy.root_key, &complete, &[]);
        let revoked = Entry { serial: leaf.serial(), ..entry(1, Reason::KeyCompromise) };
        let file = |name, content: &str| write(folder.path(), name, content);
        let root = file("root.pem", &hierarchy.root.certificate().pem());
        let issuer = file("issuer.pem", &hierarchy.issuer.certificate().pem());
        let leaf = file("leaf.pem", &leaf.pem());
        for (list, answer) in
            [(&[][..], "leaf.pem: OK"), (&[revoked], "certificate revoked"), (&entries(50), "leaf.pem: OK")]
        {
            let der = sign(&hierarchy.key, &parameters(&hierarchy.issuer), list);
            let of_issuer = crate::chain::pem_block("X509 CRL", &der);
            let crls =
                file("crls.pem", &(of_issuer.clone() + &crate::chain::pem_block("X509 CRL", &of_root)));
            let at = NOW.plus(Period::from_hours(1)).unix().to_string();
            let arguments = [
                "verify",
                "-x509_strict",
                "-crl_check_all",
                "-attime",
                &at,
                "-CAfile",
                &root,
                "-CRLfile",
                &crls,
                "-untrusted",
                &issuer,
                &leaf,
            ];
            let output = run("openssl", "openssl", &arguments, b"");
            let text = [output.stdout, output.stderr].concat();
            assert!(
                String::from_utf8_lossy(&text).contains(answer),
                "{answer}: {}",
                String::from_utf8_lossy(&text)
            );
            let checked = openssl(&["crl", "-noout", "-CAfile", &issuer], of_issuer.as_bytes());
            assert!(checked.contains("verify OK"), "{checked}");
            let certtool = run("certtool", "gnutls-bin", &["--crl-info"], of_issuer.as_bytes());
            assert!(certtool.status.success());
        }
    }
}

#[test]
fn openssl_prints_what_was_meant() {
    let hierarchy = Hierarchy::fixed();
    let der = sign(&hierarchy.key, &parameters(&hierarchy.issuer), &entries(4));
    let text = openssl(&["crl", "-inform", "DER", "-noout", "-text"], &der);
    let url = hierarchy.issuer.crl_url(3).unwrap();
    for expected in [
        "Version 2 (0x1)",
        "Issuer: C = CH, O = Example, CN = Issuing E1",
        "Last Update: Nov 24 12:00:00 2026 GMT",
        "Next Update: Nov 28 12:00:00 2026 GMT",
        "X509v3 CRL Number: \n                7",
        "X509v3 Issuing Distribution Point: critical",
        "Only User Certificates",
        url.as_str(),
        "CA Compromise",
        "Key Compromise",
        "Affiliation Changed",
        "Revocation Date: Nov 24 11:59:57 2026 GMT",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
    assert_eq!(text.matches("X509v3 CRL Reason Code").count(), 3, "unspecified is not written");
}

#[test]
fn contradictions_are_refused() {
    let hierarchy = Hierarchy::fixed();
    let start = |parameters: &CrlParameters<'_>, totals| CrlWriter::start(parameters, totals, Vec::new());
    let good = parameters(&hierarchy.issuer);
    let old = CrlParameters { delta_base: Some(7), ..good };
    assert!(matches!(start(&old, CrlTotals::default()), Err(CrlError::Base)));
    let stale = CrlParameters { next_update: NOW, ..good };
    assert!(matches!(start(&stale, CrlTotals::default()), Err(CrlError::Times)));
    let unpublished =
        Issuer::new(hierarchy.issuer.certificate().clone(), SignatureAlgorithm::Ed25519).unwrap();
    assert!(matches!(start(&parameters(&unpublished), CrlTotals::default()), Err(CrlError::NoUrl)));
    let later = Entry { revoked_at: NOW.plus(Period::from_seconds(1)), ..entry(1, Reason::Unspecified) };
    let mut writer = start(&good, [later].iter().collect()).unwrap();
    assert!(matches!(writer.entry(&later), Err(CrlError::RevokedLater(_))));
    let list = entries(2);
    let mut writer = start(&good, list.iter().collect()).unwrap();
    writer.entry(&list[0]).unwrap();
    assert!(matches!(writer.finish(), Err(CrlError::Totals)), "one too few");
    let mut writer = start(&good, list[..1].iter().collect()).unwrap();
    list.iter().for_each(|entry| writer.entry(entry).unwrap());
    assert!(matches!(writer.finish(), Err(CrlError::Totals)), "one too many");
    let mut writer = start(&good, [entry(1, Reason::KeyCompromise)].iter().collect()).unwrap();
    writer.entry(&entry(1, Reason::Unspecified)).unwrap();
    assert!(matches!(writer.finish(), Err(CrlError::Totals)), "as many, but shorter");
}

#[test]
fn a_failing_output_is_an_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let hierarchy = Hierarchy::fixed();
    let writer = CrlWriter::start(&parameters(&hierarchy.issuer), CrlTotals::default(), Full).unwrap();
    let error = writer.finish().map(|_| ()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[test]
fn what_is_no_entry_is_not_copied() {
    let copy = |octets: &[u8], edits: &mut CrlEdits| EntryWriter::new(NOW, Vec::new()).copy(octets, edits);
    let serial = entries(1)[0].serial;
    let mut none = CrlEdits::default();
    for part in [&[][..], &[0x30], &[0x30, 5, 2, 1]] {
        assert_eq!(copy(part, &mut none).unwrap(), 0, "not yet whole");
    }
    for broken in [
        &[0x31, 0][..],
        &[0x30, 0x81, 0x80],
        &[0x30, 0],
        &[0x30, 2, 2, 1],
        &[0x30, 3, 2, 1, 7],
        &[0x30, 5, 2, 1, 7, 5, 0],
    ] {
        assert!(matches!(copy(broken, &mut none), Err(CrlError::Totals)), "{broken:02x?}");
    }
    // A serial number that none of ours is.
    let zero = [0x30, 6, 2, 1, 0, 0x17, 1, 0x41];
    let mut edits = CrlEdits::new([serial], []);
    assert!(matches!(copy(&zero, &mut edits), Err(CrlError::Totals)));
    assert!(!edits.are_made(), "was not there");
}

#[test]
fn where_the_entries_begin_is_told() {
    let hierarchy = Hierarchy::fixed();
    for count in [1, 3, 9_000] {
        let list = entries(count);
        let (octets, summary) = tbs(&parameters(&hierarchy.issuer), &list);
        let mut writer = EntryWriter::new(NOW, Vec::new());
        list.iter().for_each(|entry| writer.entry(entry).unwrap());
        let (encoded, totals) = writer.finish().unwrap();
        let from = usize::try_from(summary.entries_at).unwrap();
        assert_eq!(octets[from..from + usize::try_from(totals.octets()).unwrap()], encoded);
    }
}

#[test]
fn a_crl_that_cannot_be_read_is_known_by_its_signature() {
    let hierarchy = Hierarchy::fixed();
    let (issuer, key) = (hierarchy.issuer.certificate().public_key(), &hierarchy.key);
    for count in [0, 1, 9, 3_000] {
        let (mut octets, summary) = tbs(&parameters(&hierarchy.issuer), &entries(count));
        // An extension that nobody knows stands where one did.
        let last = octets.len() - 1;
        octets[last] ^= 1;
        let at = octets.windows(5).rposition(|it| it == [6, 3, 0x55, 0x1d, 0x1c]).unwrap();
        octets[at + 4] = 0x7f;
        let mut signed = assemble(&octets, summary.algorithm, &key.sign(summary.algorithm, &octets));
        assert!(Crl::from_der(&signed).is_err());
        assert!(is_signed_by(&signed, issuer), "{count}");
        assert!(!is_signed_by(&signed, hierarchy.root.certificate().public_key()));
        let last = signed.len() - 1;
        signed[last] ^= 1;
        assert!(!is_signed_by(&signed, issuer));
    }
    let leaf = hierarchy.leaf(&profile(ProfileKind::Private), &["a.example"], &Key::fixed(9).public());
    let tbs = leaf.as_bytes();
    let signed = assemble(tbs, hierarchy.issuer.signature(), &key.sign(hierarchy.issuer.signature(), tbs));
    assert!(!is_signed_by(&signed, issuer), "a certificate is no CRL");
    assert!(!is_signed_by(b"0", issuer));
}

#[test]
fn deltas_name_their_base() {
    let hierarchy = Hierarchy::fixed();
    let delta = CrlParameters { delta_base: Some(5), ..parameters(&hierarchy.issuer) };
    let der = sign(&hierarchy.key, &delta, &entries(1));
    assert_eq!(Crl::from_der(&der).unwrap().delta_base(), Some(5));
    let text = openssl(&["crl", "-inform", "DER", "-noout", "-text"], &der);
    assert!(text.contains("X509v3 Delta CRL Indicator: critical"), "{text}");
}

#[test]
fn complete_crls_and_certificates_lead_to_the_delta() {
    let hierarchy = Hierarchy::fixed();
    let issuer = hierarchy.issuer.clone().with_delta_crls(true);
    let (url, delta_url) = (issuer.crl_url(3).unwrap(), issuer.delta_crl_url(3).unwrap());
    assert_eq!(delta_url, format!("{}.delta.crl", url.strip_suffix(".crl").unwrap()));
    assert_eq!(hierarchy.issuer.delta_crl_url(3), None);
    let context = CrlLintContext { url: Some(&url), delta_url: Some(&delta_url), ..context(&issuer) };
    let complete = parameters(&issuer);
    let delta = CrlParameters { delta_base: Some(5), ..complete };
    for (parameters, urls) in [(complete, std::slice::from_ref(&delta_url)), (delta, &[])] {
        let der = sign(&hierarchy.key, &parameters, &entries(4));
        let crl = Crl::from_der(&der).unwrap();
        assert_eq!(crl.delta_urls(), urls);
        assert_eq!(crl.distribution_urls(), std::slice::from_ref(&url), "of both the same");
        assert_eq!(check_crl(crl.tbs_bytes(), &context), []);
    }
    let text = openssl(&["crl", "-inform", "DER", "-noout", "-text"], &sign(&hierarchy.key, &complete, &[]));
    assert!(text.contains("X509v3 Freshest CRL") && text.contains(&delta_url), "{text}");
    // A root has one small CRL, and no delta.
    let root = hierarchy.root.clone().with_delta_crls(true);
    let of_root = CrlParameters { scope: CrlScope::Complete, ..parameters(&root) };
    assert!(Crl::from_der(&sign(&hierarchy.root_key, &of_root, &[])).unwrap().delta_urls().is_empty());
}

#[test]
fn openssl_adds_a_delta_to_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name, content: &str| write(folder.path(), name, content);
    let hierarchy = Hierarchy::generate(KeyAlgorithm::EcdsaP256);
    let issuer = hierarchy.issuer.clone().with_delta_crls(true);
    let profile = profile(ProfileKind::Private);
    let names = crate::testing::names_of(&["a.example"]);
    let request = crate::tbs::LeafRequest {
        serial: Serial::from_random([0x33; 16]),
        names: &names,
        public_key: &Key::fixed(9).public(),
        validity: profile.validity_at(NOW, &issuer, None, None).unwrap(),
        shard: 3,
        must_staple: false,
    };
    let leaf = hierarchy.key.certify(&crate::tbs::leaf(&profile, &issuer, request).unwrap());
    assert_eq!(leaf.delta_crl_urls(), [issuer.delta_crl_url(3).unwrap()]);
    let trusted = hierarchy.root.certificate().pem() + &issuer.certificate().pem();
    let (trusted, leaf_file) = (file("trusted.pem", &trusted), file("leaf.pem", &leaf.pem()));
    let revoked = Entry { serial: leaf.serial(), ..entry(1, Reason::KeyCompromise) };
    let base = sign(&hierarchy.key, &CrlParameters { number: 5, ..parameters(&issuer) }, &entries(2));
    let at = NOW.plus(Period::from_hours(1)).unix().to_string();
    for (list, answer) in [(&[][..], "leaf.pem: OK"), (&[revoked], "certificate revoked")] {
        let delta = sign(&hierarchy.key, &CrlParameters { delta_base: Some(5), ..parameters(&issuer) }, list);
        let crls = crate::chain::pem_block("X509 CRL", &base) + &crate::chain::pem_block("X509 CRL", &delta);
        let crls = file("crls.pem", &crls);
        let arguments = [
            "verify",
            "-x509_strict",
            "-crl_check",
            "-use_deltas",
            "-extended_crl",
            "-attime",
            &at,
            "-partial_chain",
            "-CAfile",
            &trusted,
            "-CRLfile",
            &crls,
            &leaf_file,
        ];
        let output = run("openssl", "openssl", &arguments, b"");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(text.contains(answer), "{answer}: {text}");
    }
}

#[test]
fn numbers_of_every_size_are_read_back() {
    let hierarchy = Hierarchy::fixed();
    for number in [0, 1, 127, 128, 255, 256, u64::from(u32::MAX), u64::MAX] {
        let der = sign(&hierarchy.key, &CrlParameters { number, ..parameters(&hierarchy.issuer) }, &[]);
        assert_eq!(Crl::from_der(&der).unwrap().number(), number);
    }
}

#[test]
fn broken_crls_are_not_read() {
    let hierarchy = Hierarchy::fixed();
    let der = sign(&hierarchy.key, &parameters(&hierarchy.issuer), &entries(3));
    assert!(Crl::from_der(&[&der[..], &[0]].concat()).is_err());
    assert!(Crl::from_der(&der[..der.len() - 1]).is_err());
    assert!(Crl::from_der(&[]).is_err());
    let key = hierarchy.issuer.certificate().public_key();
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let believed = Crl::from_der(&changed).is_ok_and(|crl| crl.verify_signed_by(key).is_ok());
        assert!(!believed, "octet {at}");
    }
}

proptest! {
    #[test]
    fn any_entries_round_trip_and_x509_cert_agrees(
        list in prop::collection::vec((any::<[u8; 16]>(), 0..=253_402_300_799_u64, 0_usize..8), 0..60),
        number: u64,
    ) {
        use der::{Decode as _, Encode as _};
        let hierarchy = Hierarchy::fixed();
        let list: Vec<Entry> = list.into_iter().map(|(random, at, reason)| Entry {
            serial: Serial::from_random(random),
            revoked_at: Timestamp::from_unix(at),
            reason: Reason::ALL[reason],
        }).collect();
        let this_update = Timestamp::MAX.minus(Period::from_days(1));
        let parameters = CrlParameters {
            number,
            this_update,
            next_update: Timestamp::MAX,
            ..parameters(&hierarchy.issuer)
        };
        let list: Vec<Entry> = list.into_iter().filter(|entry| entry.revoked_at <= this_update).collect();
        let der = sign(&hierarchy.key, &parameters, &list);
        let crl = Crl::from_der(&der).unwrap();
        prop_assert_eq!(crl.entries().map(Result::unwrap).collect::<Vec<_>>(), list);
        let theirs = x509_cert::crl::CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der).unwrap();
        prop_assert_eq!(theirs.to_der().unwrap(), der);
    }

    #[test]
    fn an_edited_copy_is_what_would_be_written_anew(
        count in 0..60_u32,
        fates in prop::collection::vec(0..6_u8, 60),
        pieces in prop::collection::vec(1..300_usize, 1..20),
    ) {
        let earlier = entries(count);
        let mut writer = EntryWriter::new(NOW, Vec::new());
        earlier.iter().for_each(|entry| writer.entry(entry).unwrap());
        let (encoded, _) = writer.finish().unwrap();
        let (mut left, mut raised, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for (entry, fate) in earlier.iter().zip(fates) {
            let mut kept = *entry;
            match fate {
                0 => left.push(entry.serial),
                // Leaving counts for more.
                1 => { left.push(entry.serial); raised.push(entry.serial); }
                2 => { raised.push(entry.serial); kept.reason = Reason::KeyCompromise; }
                _ => {}
            }
            if fate > 1 {
                later.push(kept);
            }
        }
        let mut edits = CrlEdits::new(left, raised);
        let mut copy = EntryWriter::new(NOW, Vec::new());
        let (mut begin, mut end) = (0, 0);
        for piece in pieces.iter().cycle() {
            end = (end + piece).min(encoded.len());
            begin += copy.copy(&encoded[begin..end], &mut edits).unwrap();
            if end == encoded.len() {
                break;
            }
        }
        prop_assert_eq!(begin, encoded.len());
        prop_assert!(edits.are_made());
        let mut anew = EntryWriter::new(NOW, Vec::new());
        later.iter().for_each(|entry| anew.entry(entry).unwrap());
        prop_assert_eq!(copy.finish().unwrap(), anew.finish().unwrap());
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Crl::from_der(&octets);
        let hierarchy = Hierarchy::fixed();
        let _ = check_crl(&octets, &context(&hierarchy.issuer));
    }
}
