//! Golden files: the octets of one certificate of each kind, and their text for reviewers.
//!
//! A change in them is a change in what is signed. `PKI_BLESS=1 cargo test -p pki golden` writes
//! them anew.

use std::{fmt::Write as _, path::PathBuf};

use der::{Decode as _, Header, Reader as _, SliceReader, Tag, asn1::ObjectIdentifier};

use super::*;

/// The public key of RFC 6979 §A.2.5.
fn p256() -> PublicKey {
    let point = hex::decode(
        "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
         7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
    );
    PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, &point.unwrap()).unwrap()
}

#[test]
fn golden_files_have_not_changed() {
    let hierarchy = Hierarchy::fixed();
    check("root", hierarchy.root.certificate().tbs_bytes());
    check("intermediate", hierarchy.issuer.certificate().tbs_bytes());
    let marked = Hierarchy::marked();
    check("root-test", marked.root.certificate().tbs_bytes());
    check("intermediate-test", marked.issuer.certificate().tbs_bytes());
    let names = ["example.com", "*.example.com", "xn--bcher-kva.example"];
    check(
        "leaf-private",
        hierarchy
            .leaf(&profile(ProfileKind::Private), &["a.internal", "10.0.0.1", "fd00::1"], &p256())
            .as_bytes(),
    );
    check("leaf-public-dv", hierarchy.leaf(&profile(ProfileKind::PublicDv), &names[..2], &p256()).as_bytes());
    check(
        "leaf-internal",
        hierarchy.leaf(&profile(ProfileKind::Internal), &["localhost", "127.0.0.1"], &p256()).as_bytes(),
    );
    let everything = settings(|s| {
        s.extended_key_usages = Some(vec![ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth]);
        s.common_name = Some(CommonName::FirstDnsName);
        s.must_staple = Some(crate::MustStaple::Honour);
        s.policies =
            Some(vec!["1.3.6.1.4.1.99999.1".parse().unwrap(), "1.3.6.1.4.1.99999.2".parse().unwrap()]);
    });
    let issuer = hierarchy.issuer.clone().with_ocsp_url("http://ocsp.example.net/").unwrap();
    let (names, key) = (names_of(&names), p256());
    let request = LeafRequest {
        serial: Serial::from_random([0x44; 16]),
        names: &names,
        public_key: &key,
        validity: everything.validity_at(NOW, &issuer, None, None).unwrap(),
        shard: 4_294_967_295,
        must_staple: true,
    };
    check("leaf-everything", leaf(&everything, &issuer, request).unwrap().as_bytes());
    let request = LeafRequest { shard: 3, must_staple: false, ..request };
    let delta = hierarchy.issuer.clone().with_delta_crls(true);
    check("leaf-delta", leaf(&profile(ProfileKind::Private), &delta, request).unwrap().as_bytes());
    let request = ResponderRequest {
        serial: Serial::from_random([0x77; 16]),
        common_name: "OCSP of E1",
        public_key: &p256(),
        validity: validity(7),
    };
    check("responder", responder(&hierarchy.issuer, request).unwrap().as_bytes());
    let subject = DistinguishedName::new(None, Some("Example"), "Nodes of Example").unwrap();
    let public_key = Key::fixed(3).public();
    let request = RootRequest {
        serial: Serial::from_random([0x55; 16]),
        subject: &subject,
        public_key: &public_key,
        signature: SignatureAlgorithm::Ed25519,
        // Beyond 2049: GeneralizedTime.
        validity: validity(10_950),
        test_ca: false,
    };
    let tbs = node_ca(request).unwrap();
    check("node-ca", tbs.as_bytes());
    let issuer = Issuer::new(Key::fixed(3).certify(&tbs), SignatureAlgorithm::Ed25519).unwrap();
    let identity = NodeIdentity::new("front", "eu-1").unwrap();
    let names = names_of(&["front.internal", "10.0.0.2"]);
    let request = NodeRequest {
        serial: Serial::from_random([0x66; 16]),
        identity: &identity,
        names: Some(&names),
        public_key: &p256(),
        validity: validity(30),
    };
    check("node", node(&issuer, request).unwrap().as_bytes());
}

#[test]
fn golden_crls_have_not_changed() {
    use crate::{
        Reason,
        crl::{CrlParameters, CrlScope, CrlWriter, Entry},
    };
    let hierarchy = Hierarchy::fixed();
    let shard = CrlParameters {
        issuer: &hierarchy.issuer,
        number: 128,
        this_update: NOW,
        next_update: NOW.plus(Period::from_days(4)),
        scope: CrlScope::Shard(3),
        delta_base: None,
    };
    let delta = CrlParameters { number: 129, delta_base: Some(128), ..shard };
    let with_delta = hierarchy.issuer.clone().with_delta_crls(true);
    let freshest = CrlParameters { issuer: &with_delta, ..shard };
    let complete = CrlParameters { issuer: &hierarchy.root, scope: CrlScope::Complete, ..shard };
    let entries = Reason::ALL.map(|reason| Entry {
        serial: Serial::from_random([reason.code(); 16]),
        revoked_at: NOW.minus(Period::from_days(reason.code().into())),
        reason,
    });
    for (name, parameters, entries) in [
        ("crl-shard", shard, &entries[..]),
        ("crl-delta", delta, &entries[..1]),
        ("crl-shard-freshest", freshest, &[]),
        ("crl-complete-empty", complete, &[]),
    ] {
        let mut writer = CrlWriter::start(&parameters, entries.iter().collect(), Vec::new()).unwrap();
        entries.iter().for_each(|entry| writer.entry(entry).unwrap());
        check(name, &writer.finish().unwrap().0);
    }
}

#[test]
fn golden_answers_have_not_changed() {
    use crate::{
        Reason,
        ocsp::{CertId, CertIdHash, CertStatus, IssuerHashes, Single, encode_request, response_data},
    };
    let hierarchy = Hierarchy::fixed();
    let issuer = IssuerHashes::of(hierarchy.issuer.certificate());
    let ids = [CertIdHash::Sha1, CertIdHash::Sha256, CertIdHash::Sha1, CertIdHash::Sha256];
    let ids = [0, 1, 2, 3].map(|n| CertId::new(ids[n], &issuer, &Serial::from_random([n as u8; 16])));
    let nonce = [0x5a; 32];
    check("ocsp-request", &encode_request(&ids, Some(&nonce)));
    let at = NOW.minus(Period::from_days(3));
    let statuses = [
        CertStatus::Good,
        CertStatus::Revoked { at, reason: Reason::KeyCompromise },
        CertStatus::Revoked { at, reason: Reason::Unspecified },
        CertStatus::Unknown,
    ];
    let singles: Vec<_> = (ids.iter().zip(statuses))
        .map(|(id, status)| Single {
            id,
            status,
            this_update: NOW,
            next_update: NOW.plus(Period::from_days(2)),
            archive_cutoff: (status == CertStatus::Good).then(|| NOW.minus(Period::from_days(400))),
        })
        .collect();
    let responder = Key::fixed(3).public();
    check("ocsp-response-data", &response_data(&responder, NOW, &singles, Some(&nonce)));
    check("ocsp-response-data-short", &response_data(&responder, NOW, &singles[1..2], None));
}

fn check(name: &str, tbs: &[u8]) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tbs/golden"));
    let (der, txt) = (folder.join(format!("{name}.der")), folder.join(format!("{name}.txt")));
    let mut text = String::new();
    dump(tbs, 0, &mut text);
    if std::env::var_os("PKI_BLESS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&der, tbs).unwrap();
        std::fs::write(&txt, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&txt).unwrap_or_default();
    assert_eq!(text, golden, "{name}");
    assert!(std::fs::read(&der).unwrap() == tbs, "{name}: octets differ, though the text does not");
}

/// One line a value, two spaces a level; values inside OCTET STRINGs as well.
fn dump(bytes: &[u8], depth: usize, text: &mut String) {
    let mut reader = SliceReader::new(bytes).unwrap();
    while !reader.is_finished() {
        let header = Header::decode(&mut reader).unwrap();
        let content = reader.read_slice(header.length()).unwrap();
        let tag = header.tag();
        write!(text, "{:indent$}{tag}", "", indent = depth * 2).unwrap();
        if tag.is_constructed() || (tag == Tag::OctetString && is_der(content)) {
            text.push('\n');
            dump(content, depth + 1, text);
        } else {
            writeln!(text, " {}", value(tag, content)).unwrap();
        }
    }
}

fn is_der(content: &[u8]) -> bool {
    der::asn1::AnyRef::from_der(content).is_ok()
}

fn value(tag: Tag, content: &[u8]) -> String {
    let readable = content.iter().all(|octet| octet.is_ascii_graphic() || *octet == b' ');
    match tag {
        Tag::ObjectIdentifier => ObjectIdentifier::from_bytes(content).unwrap().to_string(),
        Tag::Integer | Tag::BitString | Tag::OctetString => hex::encode(content),
        _ if readable => String::from_utf8_lossy(content).into_owned(),
        _ => hex::encode(content),
    }
}
