mod oracles;
mod strict;

use super::*;
use crate::{
    Certificate, Issuer, KeyAlgorithm, Period, PublicKey, Serial, SignatureAlgorithm, SignatureError,
    Validity,
    tbs::{self, ResponderRequest},
    testing::{Hierarchy, Key, NOW, validity},
};
use proptest::prelude::*;

/// A delegated responder of a hierarchy.
struct Responder {
    key: Key,
    certificate: Certificate,
}

impl Responder {
    fn of(hierarchy: &Hierarchy, key: Key) -> Self {
        let certificate = certify(&hierarchy.issuer, &hierarchy.key, &key.public(), validity(7));
        Self { key, certificate }
    }

    fn fixed(hierarchy: &Hierarchy) -> Self {
        Self::of(hierarchy, Key::fixed(3))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.certificate.public_key().algorithm().default_signature()
    }

    fn sign(&self, data: &[u8], certificates: &[&[u8]]) -> Vec<u8> {
        assemble(data, self.algorithm(), &self.key.sign(self.algorithm(), data), certificates)
    }

    fn answer(&self, singles: &[Single<'_>], nonce: Option<&[u8]>) -> Vec<u8> {
        let data = response_data(self.certificate.public_key(), NOW, singles, nonce);
        self.sign(&data, &[self.certificate.der()])
    }
}

fn certify(issuer: &Issuer, key: &Key, public_key: &PublicKey, validity: Validity) -> Certificate {
    let serial = Serial::from_random([0x44; 16]);
    let request = ResponderRequest { serial, common_name: "OCSP E1", public_key, validity };
    key.certify(&tbs::responder(issuer, request).unwrap())
}

fn serial(n: u8) -> Serial {
    Serial::from_random([n; 16])
}

fn id(hierarchy: &Hierarchy, hash: CertIdHash, n: u8) -> CertId {
    CertId::new(hash, &IssuerHashes::of(hierarchy.issuer.certificate()), &serial(n))
}

fn single(id: &CertId, status: CertStatus) -> Single<'_> {
    let next_update = NOW.plus(Period::from_days(2));
    Single { id, status, this_update: NOW, next_update, archive_cutoff: None }
}

fn successful(der: &[u8]) -> Response {
    match read(der).unwrap() {
        Answer::Successful(response) => *response,
        Answer::Error(status) => panic!("error {status}"),
    }
}

#[test]
fn requests_are_read_back() {
    let hierarchy = Hierarchy::fixed();
    let ids: Vec<_> = (1..=16).map(|n| id(&hierarchy, CertIdHash::ALL[usize::from(n % 2)], n)).collect();
    let issuer = IssuerHashes::of(hierarchy.issuer.certificate());
    let root = IssuerHashes::of(hierarchy.root.certificate());
    for (count, nonce) in [(1, None), (1, Some(&[7; 16][..])), (16, Some(&[0; 128])), (2, None)] {
        let der = encode_request(&ids[..count], nonce);
        let request = Request::from_der(&der).unwrap();
        assert_eq!(request.cert_ids(), &ids[..count]);
        assert_eq!(request.nonce(), nonce);
        assert!(request.is_plain());
        for (n, id) in (1..).zip(request.cert_ids()) {
            assert_eq!(id.serial(), Some(serial(n)));
            assert_eq!(id.hash(), Some(CertIdHash::ALL[usize::from(n % 2)]));
            assert!(id.is_of(&issuer) && !id.is_of(&root));
        }
    }
}

#[test]
fn answers_are_read_back_and_verify() {
    let hierarchy = Hierarchy::fixed();
    let responder = Responder::fixed(&hierarchy);
    let ids: Vec<_> = (1..=3).map(|n| id(&hierarchy, CertIdHash::Sha1, n)).collect();
    let at = NOW.minus(Period::from_hours(3));
    let cutoff = NOW.minus(Period::from_days(400));
    let singles = [
        Single { archive_cutoff: Some(cutoff), ..single(&ids[0], CertStatus::Good) },
        single(&ids[1], CertStatus::Revoked { at, reason: Reason::KeyCompromise }),
        single(&ids[2], CertStatus::Unknown),
    ];
    let response = successful(&responder.answer(&singles, Some(&[9; 32])));
    let issuer = hierarchy.issuer.certificate();
    assert_eq!(response.verify(issuer, NOW), Ok(()));
    assert_eq!(response.responder(), Some(&responder.certificate));
    assert_eq!((response.produced_at(), response.nonce()), (NOW, Some(&[9; 32][..])));
    assert_eq!(response.next_update(), Some(NOW.plus(Period::from_days(2))));
    assert!(response.is_plain());
    for (read, written) in response.singles().iter().zip(&singles) {
        assert_eq!((&read.id, read.status), (written.id, written.status));
        assert_eq!((read.this_update, read.next_update), (NOW, Some(written.next_update)));
        assert_eq!(read.archive_cutoff, written.archive_cutoff);
    }
}

#[test]
fn every_algorithm_signs_answers() {
    for (issuer, key) in [
        (KeyAlgorithm::EcdsaP384, KeyAlgorithm::EcdsaP256),
        (KeyAlgorithm::Rsa { bits: 2048 }, KeyAlgorithm::EcdsaP521),
        (KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa { bits: 2048 }),
        (KeyAlgorithm::Ed25519, KeyAlgorithm::Ed25519),
    ] {
        let hierarchy = Hierarchy::generate(issuer);
        let id = id(&hierarchy, CertIdHash::Sha256, 1);
        let responder = Responder::of(&hierarchy, Key::generate(key));
        let response = successful(&responder.answer(&[single(&id, CertStatus::Good)], None));
        assert_eq!(response.verify(hierarchy.issuer.certificate(), NOW), Ok(()), "{issuer} {key}");
        assert_eq!(response.signature_algorithm(), key.default_signature());
    }
}

#[test]
fn errors_are_five_octets_that_read_back() {
    for (status, number) in [
        (ErrorStatus::MalformedRequest, 1),
        (ErrorStatus::InternalError, 2),
        (ErrorStatus::TryLater, 3),
        (ErrorStatus::Unauthorized, 6),
    ] {
        assert_eq!(error(status), [0x30, 3, 0x0a, 1, number]);
        assert_eq!(read(error(status)), Ok(Answer::Error(number)));
    }
    for number in [0, 4, 7, 0x80, 0xff] {
        assert!(read(&[0x30, 3, 0x0a, 1, number]).is_err(), "{number}");
    }
}

#[test]
fn l6_only_the_delegated_responder_of_the_issuer_is_believed() {
    let hierarchy = Hierarchy::fixed();
    let issuer = hierarchy.issuer.certificate();
    let responder = Responder::fixed(&hierarchy);
    let id = id(&hierarchy, CertIdHash::Sha1, 1);
    let good = single(&id, CertStatus::Good);
    let data = |key: &PublicKey, singles: &[Single<'_>]| response_data(key, NOW, singles, None);
    let fault = |der: &[u8]| successful(der).verify(issuer, NOW).unwrap_err();

    // No certificate, another's, the issuer itself.
    let octets = data(responder.certificate.public_key(), &[good]);
    assert_eq!(fault(&responder.sign(&octets, &[])), ResponseError::NoResponder);
    assert_eq!(fault(&responder.sign(&octets, &[issuer.der()])), ResponseError::NoResponder);
    let both = [issuer.der(), responder.certificate.der()];
    assert_eq!(successful(&responder.sign(&octets, &both)).verify(issuer, NOW), Ok(()));
    let direct = data(issuer.public_key(), &[good]);
    let signature = hierarchy.key.sign(SignatureAlgorithm::Ed25519, &direct);
    let direct = assemble(&direct, SignatureAlgorithm::Ed25519, &signature, &[issuer.der()]);
    assert_eq!(fault(&direct), ResponseError::NotIssued);

    // Of another issuer with the same name, and one of the root's.
    let other = Hierarchy::build(Key::fixed(1), Key::fixed(5));
    let key = responder.key.public();
    let foreign = certify(&other.issuer, &other.key, &key, validity(7));
    assert_eq!(fault(&responder.sign(&octets, &[foreign.der()])), ResponseError::NotIssued);
    let forged = certify(&hierarchy.issuer, &other.key, &key, validity(7));
    assert_eq!(fault(&responder.sign(&octets, &[forged.der()])), ResponseError::NotIssued);
    let of_root = certify(&hierarchy.root, &hierarchy.root_key, &key, validity(7));
    assert_eq!(fault(&responder.sign(&octets, &[of_root.der()])), ResponseError::NotIssued);

    // Issued, but not for this.
    let leaf = hierarchy.leaf(&crate::testing::profile(crate::ProfileKind::Private), &["a.example"], &key);
    let leaf = hierarchy.key.certify(&leaf);
    assert_eq!(fault(&responder.sign(&octets, &[leaf.der()])), ResponseError::NotDelegated);

    // Too early, too late, and for longer than the certificate.
    let answer = responder.answer(&[good], None);
    let (begin, end) = (responder.certificate.not_before(), responder.certificate.not_after());
    for at in [begin.minus(Period::from_seconds(1)), end.plus(Period::from_seconds(1))] {
        assert_eq!(successful(&answer).verify(issuer, at), Err(ResponseError::NotValid(at)));
    }
    for at in [begin, end] {
        assert_eq!(successful(&answer).verify(issuer, at), Ok(()));
    }
    let exactly = Single { next_update: end, ..good };
    assert_eq!(successful(&responder.answer(&[exactly], None)).verify(issuer, NOW), Ok(()));
    let longer = Single { next_update: end.plus(Period::from_seconds(1)), ..good };
    assert_eq!(fault(&responder.answer(&[good, longer], None)), ResponseError::Outlives);

    // About another issuer's certificate.
    let hashes = IssuerHashes::of(hierarchy.root.certificate());
    let of_root = CertId::new(CertIdHash::Sha1, &hashes, &serial(1));
    let mixed = [good, single(&of_root, CertStatus::Good)];
    assert_eq!(fault(&responder.answer(&mixed, None)), ResponseError::OtherIssuer);

    // Signed by another key, or something else signed.
    let stranger = Responder { key: Key::fixed(6), certificate: responder.certificate.clone() };
    let invalid = ResponseError::Signature(SignatureError::Invalid);
    assert_eq!(fault(&stranger.answer(&[good], None)), invalid);
    let signature = responder.key.sign(SignatureAlgorithm::Ed25519, &octets);
    let bad = data(responder.certificate.public_key(), &[single(&id, CertStatus::Unknown)]);
    let swapped = assemble(&bad, SignatureAlgorithm::Ed25519, &signature, &[responder.certificate.der()]);
    assert_eq!(fault(&swapped), invalid);
    let mismatch =
        assemble(&octets, SignatureAlgorithm::EcdsaSha256, &signature, &[responder.certificate.der()]);
    assert_eq!(fault(&mismatch), ResponseError::Signature(SignatureError::KeyMismatch));
}

/// Serial numbers of 1 to 20 octets, statuses and times of every kind.
fn any_single() -> impl Strategy<Value = (bool, Vec<u8>, u8, u64, usize, u64, u64, Option<u64>)> {
    let seconds = || 0..=253_402_300_799_u64;
    (
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 1..=20)
            .prop_filter("a serial", |octets| Serial::from_bytes(octets).is_ok()),
        0_u8..3,
        seconds(),
        0_usize..8,
        seconds(),
        seconds(),
        prop::option::of(seconds()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_request_round_trips(
        ids in prop::collection::vec((any::<bool>(), any::<[u8; 16]>()), 1..=MAX_REQUESTS),
        nonce in prop::option::of(prop::collection::vec(any::<u8>(), NONCE_MIN..=NONCE_MAX)),
    ) {
        let hashes = HIERARCHY.with(|hierarchy| IssuerHashes::of(hierarchy.issuer.certificate()));
        let ids: Vec<_> = ids
            .into_iter()
            .map(|(sha1, serial)| CertId::new(CertIdHash::ALL[usize::from(sha1)], &hashes, &Serial::from_random(serial)))
            .collect();
        let der = encode_request(&ids, nonce.as_deref());
        let request = Request::from_der(&der).unwrap();
        prop_assert_eq!((request.cert_ids(), request.nonce()), (&ids[..], nonce.as_deref()));
        prop_assert!(request.is_plain() && der.len() <= MAX_REQUEST_OCTETS);
    }

    #[test]
    fn any_answer_round_trips(
        singles in prop::collection::vec(any_single(), 1..=MAX_REQUESTS),
        produced_at in 0..=253_402_300_799_u64,
        nonce in prop::option::of(prop::collection::vec(any::<u8>(), 1..=NONCE_MAX)),
    ) {
        let (hashes, responder) =
            HIERARCHY.with(|h| (IssuerHashes::of(h.issuer.certificate()), Responder::fixed(h)));
        let ids: Vec<_> = singles
            .iter()
            .map(|(sha1, serial, ..)| {
                CertId::new(CertIdHash::ALL[usize::from(*sha1)], &hashes, &Serial::from_bytes(serial).unwrap())
            })
            .collect();
        let time = Timestamp::from_unix;
        let written: Vec<_> = ids
            .iter()
            .zip(&singles)
            .map(|(id, (_, _, status, at, reason, this_update, next_update, cutoff))| Single {
                id,
                status: match status {
                    0 => CertStatus::Good,
                    1 => CertStatus::Revoked { at: time(*at), reason: Reason::ALL[*reason] },
                    _ => CertStatus::Unknown,
                },
                this_update: time(*this_update),
                next_update: time(*next_update),
                archive_cutoff: cutoff.map(time),
            })
            .collect();
        let data = response_data(responder.certificate.public_key(), time(produced_at), &written, nonce.as_deref());
        let response = successful(&responder.sign(&data, &[responder.certificate.der()]));
        prop_assert_eq!(response.data(), &data);
        prop_assert_eq!((response.produced_at(), response.nonce()), (time(produced_at), nonce.as_deref()));
        prop_assert!(response.is_plain());
        prop_assert_eq!(response.singles().len(), written.len());
        for (read, written) in response.singles().iter().zip(&written) {
            prop_assert_eq!((&read.id, read.status), (written.id, written.status));
            prop_assert_eq!((read.this_update, read.next_update), (written.this_update, Some(written.next_update)));
            prop_assert_eq!(read.archive_cutoff, written.archive_cutoff);
        }
    }

    #[test]
    fn no_octets_make_the_readers_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::from_der(&octets);
        let _ = read(&octets);
    }
}

thread_local! {
    static HIERARCHY: Hierarchy = Hierarchy::fixed();
}
