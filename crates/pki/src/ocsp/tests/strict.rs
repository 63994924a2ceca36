//! What is refused, and that nothing which is read has two encodings.

use super::*;
use crate::{
    encode::{Encoder, encode, tag},
    extension::extension,
};
use const_oid::{ObjectIdentifier, db::rfc6960 as oid};

fn hex_value(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    nested(tag::SEQUENCE, parts)
}

fn nested(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    encode(|e| {
        e.nested(tag, |e| {
            e.raw(&parts.concat());
        });
    })
}

fn one_extension(id: &ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    encode(|e| {
        extension(e, id, critical, |e| {
            e.raw(value);
        });
    })
}

fn octets(content: &[u8]) -> Vec<u8> {
    nested(tag::OCTET_STRING, &[content])
}

/// A request with these TBSRequest fields.
fn request(fields: &[&[u8]]) -> Result<Request, RequestError> {
    Request::from_der(&sequence(&[&sequence(fields)]))
}

/// A good requestList of one.
fn list() -> Vec<u8> {
    let id = HIERARCHY.with(|hierarchy| id(hierarchy, CertIdHash::Sha1, 1));
    sequence(&[&sequence(&[id.as_der()])])
}

fn with_extensions(extensions: &[&[u8]]) -> Result<Request, RequestError> {
    request(&[&list(), &nested(0xa2, &[&sequence(extensions)])])
}

fn with_nonce(critical: bool, value: &[u8]) -> Result<Request, RequestError> {
    with_extensions(&[&one_extension(&oid::ID_PKIX_OCSP_NONCE, critical, value)])
}

#[test]
fn l7_nonces_are_as_long_as_rfc_9654_says() {
    for (length, read) in [(1, None), (15, None), (16, Some(16)), (32, Some(32)), (128, Some(128))] {
        let request = with_nonce(false, &octets(&vec![7; length])).unwrap();
        assert_eq!(request.nonce().map(<[u8]>::len), read, "{length}");
        assert_eq!(request.is_plain(), read.is_some(), "{length}");
    }
    for length in [0, 129, 200] {
        assert_eq!(with_nonce(false, &octets(&vec![7; length])), Err(RequestError::Nonce), "{length}");
    }
    // Critical is understood, but then it cannot be passed over.
    assert_eq!(with_nonce(true, &octets(&[7; 16])).unwrap().nonce(), Some(&[7; 16][..]));
    assert!(!with_nonce(true, &octets(&[7; 16])).unwrap().is_plain());
    assert_eq!(with_nonce(true, &octets(&[7; 15])), Err(RequestError::Nonce));
    // Bare octets, as before RFC 8954; two values; nothing.
    for bad in [&[7; 16][..], &[&octets(&[7; 16])[..], &[5, 0]].concat(), &[]] {
        assert!(matches!(with_nonce(false, bad), Err(RequestError::Der(_))));
    }
    let twice = one_extension(&oid::ID_PKIX_OCSP_NONCE, false, &octets(&[7; 16]));
    assert!(matches!(with_extensions(&[&twice, &twice]), Err(RequestError::Der(_))));
}

#[test]
fn l9_what_may_be_passed_over_is_and_what_is_critical_is_not() {
    let unknown = |critical| one_extension(&oid::ID_PKIX_OCSP_SERVICE_LOCATOR, critical, &[0x30, 0]);
    assert!(!with_extensions(&[&unknown(false)]).unwrap().is_plain());
    assert_eq!(with_extensions(&[&unknown(true)]), Err(RequestError::CriticalExtension));
    let id = HIERARCHY.with(|hierarchy| id(hierarchy, CertIdHash::Sha1, 1));
    let single = |critical| {
        let extensions = nested(0xa0, &[&sequence(&[&unknown(critical)])]);
        request(&[&sequence(&[&sequence(&[id.as_der(), &extensions])])])
    };
    assert!(!single(false).unwrap().is_plain());
    assert_eq!(single(true), Err(RequestError::CriticalExtension));
    // A requestorName, and a signature of whatever.
    let name = nested(0xa1, &[&[0x82, 1, b'a']]);
    let named = request(&[&name, &list()]).unwrap();
    assert!(!named.is_plain() && named.cert_ids() == [id.clone()]);
    let signature = nested(0xa0, &[&sequence(&[&[5, 0]])]);
    let signed = Request::from_der(&sequence(&[&sequence(&[&list()]), &signature])).unwrap();
    assert!(!signed.is_plain() && signed.cert_ids() == [id]);
}

#[test]
fn requests_are_bounded() {
    let id = HIERARCHY.with(|hierarchy| id(hierarchy, CertIdHash::Sha1, 1));
    let ids = |count| encode_request(&vec![id.clone(); count], None);
    assert!(Request::from_der(&ids(MAX_REQUESTS)).is_ok());
    assert_eq!(Request::from_der(&ids(MAX_REQUESTS + 1)), Err(RequestError::Count));
    assert_eq!(Request::from_der(&ids(0)), Err(RequestError::Count));
    let fill = |length: usize| {
        let filler = one_extension(&oid::ID_PKIX_OCSP_SERVICE_LOCATOR, false, &octets(&vec![0; length]));
        sequence(&[&sequence(&[&list(), &nested(0xa2, &[&sequence(&[&filler])])])])
    };
    let overhead = fill(8_000).len() - 8_000;
    assert!(Request::from_der(&fill(MAX_REQUEST_OCTETS - overhead)).is_ok());
    assert_eq!(Request::from_der(&fill(MAX_REQUEST_OCTETS - overhead + 1)), Err(RequestError::TooLong));
    // As many small extensions as fit: none is compared with thousands.
    let many: Vec<_> = (0..400_u32)
        .map(|n| one_extension(&format!("1.3.{}.1", n).parse().unwrap(), false, &[5, 0]))
        .collect();
    let many: Vec<_> = many.iter().map(Vec::as_slice).collect();
    assert!(with_extensions(&many[..64]).is_ok());
    assert!(matches!(with_extensions(&many[..65]), Err(RequestError::Der(_))));
    assert!(matches!(with_extensions(&many), Err(RequestError::Der(_))));
}

#[test]
fn requests_that_are_not_der_are_refused() {
    let good = sequence(&[&sequence(&[&list()])]);
    assert!(Request::from_der(&good).unwrap().is_plain());
    let refused =
        |fields: &[&[u8]]| assert!(matches!(request(fields), Err(RequestError::Der(_))), "{fields:x?}");
    // DEFAULT v1 written out; v2; an empty list of extensions; something after the fields; nothing.
    refused(&[&hex_value("a003 020100"), &list()]);
    assert_eq!(request(&[&hex_value("a003 020101"), &list()]), Err(RequestError::Version));
    refused(&[&list(), &nested(0xa2, &[&sequence(&[])])]);
    refused(&[&list(), &[5, 0]]);
    refused(&[]);
    assert!(Request::from_der(&[&good[..], &[0]].concat()).is_err());
    assert!(Request::from_der(&good[..good.len() - 1]).is_err());
    // BER: an indefinite length, and a length with a leading zero.
    assert!(Request::from_der(&[&[0x30, 0x80], &good[2..], &[0, 0]].concat()).is_err());
    assert!(Request::from_der(&[&[0x30, 0x81], &good[1..]].concat()).is_err());
    // `critical FALSE` written out, and TRUE that is not ff.
    for boolean in ["010100", "010101"] {
        let odd = sequence(&[&hex_value("06092b0601050507300107"), &hex_value(boolean), &octets(&[5, 0])]);
        assert!(matches!(with_extensions(&[&odd]), Err(RequestError::Der(_))), "{boolean}");
    }
    // An identifier with a padded number.
    let padded = sequence(&[&hex_value("060a2b06010505073080 0102"), &octets(&octets(&[7; 16]))]);
    assert!(matches!(with_extensions(&[&padded]), Err(RequestError::Der(_))));
}

#[test]
fn cert_ids_of_other_kinds_are_kept_but_nobodys() {
    let good = HIERARCHY.with(|hierarchy| id(hierarchy, CertIdHash::Sha1, 1));
    let hashes = HIERARCHY.with(|hierarchy| IssuerHashes::of(hierarchy.issuer.certificate()));
    let read = |algorithm: &str, serial: &str| {
        let [name, key] = ["11", "22"].map(|octet| octets(&hex_value(&octet.repeat(20))));
        let id = sequence(&[&sequence(&[&hex_value(algorithm)]), &name, &key, &hex_value(serial)]);
        let request = request(&[&sequence(&[&sequence(&[&id])])])?;
        assert_eq!(request.cert_ids()[0].as_der(), id, "echoed byte for byte");
        Ok::<_, RequestError>(request.cert_ids()[0].clone())
    };
    // SHA-1 with NULL and without; SHA-224, and one with parameters.
    for (algorithm, hash) in [
        ("06052b0e03021a 0500", Some(CertIdHash::Sha1)),
        ("06052b0e03021a", Some(CertIdHash::Sha1)),
        ("0609608648016503040201", Some(CertIdHash::Sha256)),
        ("0609608648016503040204 0500", None),
        ("0609608648016503040204 3003020101", None),
    ] {
        let id = read(algorithm, "020101").unwrap();
        assert_eq!((id.hash(), id.is_of(&hashes)), (hash, false), "{algorithm}");
        assert_eq!(id.serial().unwrap().as_bytes(), [1]);
    }
    for bad in ["06052b0e03021a 0501 00", "06052b0e03021a 020101", "06052b0e03021a 0500 0500", "", "0500"] {
        assert!(read(bad, "020101").is_err(), "{bad}");
    }
    // Negative, zero, too long: integers, but no serial numbers.
    for serial in ["0201ff", "020100", &format!("0215{}", "11".repeat(21))] {
        assert_eq!(read("06052b0e03021a 0500", serial).unwrap().serial(), None, "{serial}");
    }
    for bad in ["02020001", "0202ff80", "0200", "0a0101"] {
        assert!(read("06052b0e03021a 0500", bad).is_err(), "{bad}");
    }
    // The two parameters make two certIDs, which are both the issuer's.
    let mut without = good.as_der().to_vec();
    without.drain(11..13);
    (without[1], without[3]) = (without[1] - 2, without[3] - 2);
    let without = request(&[&sequence(&[&sequence(&[&without])])]).unwrap().cert_ids()[0].clone();
    assert!(without != good && without.is_of(&hashes) && without.serial() == good.serial());
    // A hash of another length is nobody's: SHA-1's values under SHA-256's name.
    let swapped = good.as_der()[13..].to_vec();
    let swapped = sequence(&[&sequence(&[&hex_value("0609608648016503040201 0500")]), &swapped]);
    let swapped = request(&[&sequence(&[&sequence(&[&swapped])])]).unwrap().cert_ids()[0].clone();
    assert_eq!((swapped.hash(), swapped.is_of(&hashes)), (Some(CertIdHash::Sha256), false));
}

/// An answer to one certificate, with these parts changed.
#[derive(Clone)]
struct Parts {
    kind: ObjectIdentifier,
    version: Vec<u8>,
    responder: Vec<u8>,
    status: Vec<u8>,
    single_rest: Vec<u8>,
    data_rest: Vec<u8>,
    after: Vec<u8>,
}

impl Parts {
    fn good() -> Self {
        Self {
            kind: oid::ID_PKIX_OCSP_BASIC,
            version: Vec::new(),
            responder: nested(0xa2, &[&octets(&[7; 20])]),
            status: vec![0x80, 0],
            single_rest: nested(0xa0, &[b"\x18\x0f20261126120000Z"]),
            data_rest: Vec::new(),
            after: Vec::new(),
        }
    }

    fn read(&self) -> Result<Answer, ResponseError> {
        let id = HIERARCHY.with(|hierarchy| id(hierarchy, CertIdHash::Sha1, 1));
        let time = b"\x18\x0f20261124120000Z";
        let single = sequence(&[id.as_der(), &self.status, time, &self.single_rest]);
        let data = sequence(&[&self.version, &self.responder, time, &sequence(&[&single]), &self.data_rest]);
        let signature = encode(|e| {
            e.bit_string(&[1; 64]);
        });
        let algorithm = SignatureAlgorithm::Ed25519.identifier_der();
        let basic = octets(&sequence(&[&data, algorithm, &signature, &self.after]));
        let kind = encode(|e: &mut Encoder| {
            e.oid(&self.kind);
        });
        read(&sequence(&[&[0x0a, 1, 0], &nested(0xa0, &[&sequence(&[&kind, &basic])])]))
    }

    fn with(change: impl FnOnce(&mut Self)) -> Result<Answer, ResponseError> {
        let mut parts = Self::good();
        change(&mut parts);
        parts.read()
    }
}

fn is_plain(answer: Result<Answer, ResponseError>) -> bool {
    match answer.unwrap() {
        Answer::Successful(response) => response.is_plain(),
        Answer::Error(status) => panic!("error {status}"),
    }
}

#[test]
fn answers_that_are_not_der_or_not_understood_are_refused() {
    use ResponseError::{CriticalExtension, Kind, Nonce, Reason as BadReason};
    assert!(is_plain(Parts::good().read()));
    let der = |result: Result<Answer, ResponseError>| {
        assert!(matches!(result, Err(ResponseError::Der(_))), "{result:?}")
    };
    assert_eq!(Parts::with(|p| p.kind = oid::ID_PKIX_OCSP_CRL), Err(Kind));
    assert_eq!(Parts::with(|p| p.version = hex_value("a003 020100")), Err(Kind));
    // byKey of another length, byName that is no name, a third kind.
    der(Parts::with(|p| p.responder = nested(0xa2, &[&octets(&[7; 19])])));
    der(Parts::with(|p| p.responder = nested(0xa1, &[&octets(&[7; 20])])));
    der(Parts::with(|p| p.responder = nested(0xa3, &[&octets(&[7; 20])])));
    der(Parts::with(|p| p.responder = nested(0xa2, &[&octets(&[7; 20]), &[]]).split_off(2)));
    // good and unknown with content, constructed good, a fourth status.
    for status in ["8001 00", "a000", "8201 00", "8300"] {
        der(Parts::with(|p| p.status = hex_value(status)));
    }
    let time = hex::encode("20261123120000Z");
    let revoked = |rest: &str| {
        let content = hex_value(&format!("180f {time} {rest}"));
        Parts::with(|p| p.status = nested(0xa1, &[&content]))
    };
    assert!(is_plain(revoked("")) && is_plain(revoked("a003 0a0101")));
    for reason in ["00", "06", "07", "08", "0b", "7f"] {
        assert_eq!(revoked(&format!("a003 0a01 {reason}")), Err(BadReason), "{reason}");
    }
    for bad in ["8001 01", "a004 0a020001", "a003 020101", "a003 0a01ff", "0500"] {
        der(revoked(bad));
    }
    // Times: UTCTime, a fraction, no Z, a month that is none.
    for bad in [
        "170d 3236313132363132303030305a",
        "1811 32303236313132363132303030302e355a",
        "180e 3230323631313236313230303030",
    ] {
        der(Parts::with(|p| p.single_rest = nested(0xa0, &[&hex_value(bad)])));
    }
    der(Parts::with(|p| p.single_rest = nested(0xa0, &[b"\x18\x0f20261326120000Z"])));
    // Without nextUpdate: read, but not ours.
    assert!(!is_plain(Parts::with(|p| p.single_rest.clear())));
    let extended = |critical| {
        let reason = one_extension(&const_oid::db::rfc5280::ID_CE_CRL_REASONS, critical, &[0x0a, 1, 1]);
        Parts::with(|p| p.single_rest.extend(nested(0xa1, &[&sequence(&[&reason])])))
    };
    assert!(!is_plain(extended(false)));
    assert_eq!(extended(true), Err(CriticalExtension));
    let cutoff = |value: &[u8]| {
        let cutoff = one_extension(&oid::ID_PKIX_OCSP_ARCHIVE_CUTOFF, false, value);
        Parts::with(|p| p.single_rest.extend(nested(0xa1, &[&sequence(&[&cutoff])])))
    };
    assert!(is_plain(cutoff(b"\x18\x0f20251020120000Z")));
    der(cutoff(b"\x17\x0d251020120000Z"));
    der(cutoff(b"\x18\x0f20251020120000Z\x05\x00"));
    let nonce = |critical, value: &[u8]| {
        let nonce = one_extension(&oid::ID_PKIX_OCSP_NONCE, critical, value);
        Parts::with(|p| p.data_rest = nested(0xa1, &[&sequence(&[&nonce])]))
    };
    assert!(is_plain(nonce(false, &octets(&[1]))) && !is_plain(nonce(true, &octets(&[1]))));
    assert_eq!(nonce(false, &octets(&[])), Err(Nonce));
    assert_eq!(nonce(false, &octets(&[1; 129])), Err(Nonce));
    der(nonce(false, &[1; 16]));
    let extended = one_extension(&oid::ID_PKIX_OCSP_EXTENDED_REVOKE, true, &[5, 0]);
    let extended = Parts::with(|p| p.data_rest = nested(0xa1, &[&sequence(&[&extended])]));
    assert_eq!(extended, Err(CriticalExtension));
    // An empty list of certificates, one that is none, too many.
    assert!(!is_plain(Parts::with(|p| p.after = nested(0xa0, &[&sequence(&[])]))));
    let bad = Parts::with(|p| p.after = nested(0xa0, &[&sequence(&[&[5, 0]])]));
    assert!(matches!(bad, Err(ResponseError::Certificate(_))));
    let certificate = HIERARCHY.with(|hierarchy| hierarchy.issuer.certificate().der().to_vec());
    let many = |count| Parts::with(|p| p.after = nested(0xa0, &[&sequence(&vec![&certificate[..]; count])]));
    assert!(is_plain(many(8)));
    assert_eq!(many(9), Err(ResponseError::Certificates));
    der(Parts::with(|p| p.after = vec![5, 0]));
}

#[test]
fn answers_are_bounded() {
    let hierarchy = Hierarchy::fixed();
    let responder = Responder::fixed(&hierarchy);
    let id = id(&hierarchy, CertIdHash::Sha1, 1);
    let singles = vec![single(&id, CertStatus::Good); MAX_REQUESTS + 1];
    assert_eq!(successful(&responder.answer(&singles[1..], None)).singles().len(), MAX_REQUESTS);
    assert_eq!(read(&responder.answer(&singles, None)), Err(ResponseError::Count));
    assert_eq!(read(&responder.answer(&[], None)), Err(ResponseError::Count));
    assert_eq!(read(&vec![0x30; 64 * 1024 + 1]), Err(ResponseError::TooLong));
    // Success without an answer, an error with one.
    let good = responder.answer(&singles[..1], None);
    let mut failed = good.clone();
    let status = good.windows(3).position(|window| window == [0x0a, 1, 0]).unwrap();
    failed[status + 2] = 1;
    assert!(read(&good).is_ok() && read(&failed).is_err());
    assert!(read(&[&good[..], &[0]].concat()).is_err());
    assert!(read(&good[..good.len() - 1]).is_err());
}

/// Writes again what was read; only a plain answer to which the responder's certificate came.
fn written_again(response: &Response) -> Option<Vec<u8>> {
    let singles: Option<Vec<_>> = (response.singles().iter())
        .map(|single| {
            Some(Single {
                id: &single.id,
                status: single.status,
                this_update: single.this_update,
                next_update: single.next_update?,
                archive_cutoff: single.archive_cutoff,
            })
        })
        .collect();
    let data = response_data(
        response.responder()?.public_key(),
        response.produced_at(),
        &singles?,
        response.nonce(),
    );
    let certificates: Vec<_> = response.certificates().iter().map(Certificate::der).collect();
    Some(assemble(&data, response.signature_algorithm(), response.signature(), &certificates))
}

/// Every octet changed in every bit: what is still read is still the one encoding of what it says.
#[test]
fn nothing_that_is_read_has_two_encodings() {
    let hierarchy = Hierarchy::fixed();
    let ids = [id(&hierarchy, CertIdHash::Sha1, 1), id(&hierarchy, CertIdHash::Sha256, 2)];
    let good = encode_request(&ids, Some(&[9; 32]));
    let (mut plain, mut refused) = (0, 0);
    for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = good.clone();
        changed[at] ^= 1 << bit;
        match Request::from_der(&changed) {
            Ok(request) if request.is_plain() => {
                assert_eq!(encode_request(request.cert_ids(), request.nonce()), changed, "{at}.{bit}");
                plain += 1;
            }
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(plain > 1000 && refused > 200, "{plain} {refused}");
    let responder = Responder::fixed(&hierarchy);
    let revoked = CertStatus::Revoked { at: NOW, reason: Reason::KeyCompromise };
    let cutoff = Some(NOW.minus(Period::from_days(30)));
    let singles =
        [Single { archive_cutoff: cutoff, ..single(&ids[0], CertStatus::Good) }, single(&ids[1], revoked)];
    let good = responder.answer(&singles, Some(&[9; 32]));
    let issuer = hierarchy.issuer.certificate();
    let mut plain = 0;
    for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = good.clone();
        changed[at] ^= 1 << bit;
        let Ok(Answer::Successful(response)) = read(&changed) else { continue };
        assert!(response.verify(issuer, NOW).is_err(), "{at}.{bit} is believed");
        if let Some(again) = written_again(&response).filter(|_| response.is_plain()) {
            assert_eq!(again, changed, "{at}.{bit}");
            plain += 1;
        }
    }
    assert!(plain > 1000, "{plain}");
}
