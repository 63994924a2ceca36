use super::*;
use crate::{
    Certificate, Period, Serial, SignatureAlgorithm,
    tbs::{self, ResponderRequest},
    testing::{Hierarchy, Key, NOW, validity},
};

/// A delegated responder of a hierarchy.
struct Responder {
    key: Key,
    certificate: Certificate,
}

impl Responder {
    fn of(hierarchy: &Hierarchy, key: Key) -> Self {
        let request = ResponderRequest {
            serial: Serial::from_random([0x44; 16]),
            common_name: "OCSP E1",
            public_key: &key.public(),
            validity: validity(7),
        };
        let certificate = hierarchy.key.certify(&tbs::responder(&hierarchy.issuer, request).unwrap());
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
