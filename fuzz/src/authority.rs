//! An issuer and its responder, the same in every run. Their signatures are none: what is fuzzed here
//! is what is written and read.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use pki::{
    Certificate, DistinguishedName, Issuer, Period, PublicKey, Serial, SignatureAlgorithm, Tbs, Timestamp,
    Validity,
    tbs::{self, ResponderRequest, RootRequest},
};

pub(crate) const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Ed25519;

/// As long as an Ed25519 signature.
pub(crate) const SIGNATURE: [u8; 64] = [0x5a; 64];

/// Certificates from the epoch to the last day that X.509 can say.
const VALIDITY: Validity =
    Validity { not_before: Timestamp::MAX.minus(Period::from_seconds(u64::MAX)), not_after: Timestamp::MAX };

pub(crate) struct Authority {
    pub(crate) issuer: Issuer,
    pub(crate) other: Issuer,
    pub(crate) responder: Certificate,
}

pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let issuer = issuer("Issuing E1", 1);
    let request = ResponderRequest {
        serial: Serial::from_random([2; 16]),
        common_name: "OCSP E1",
        public_key: &key(3),
        validity: VALIDITY,
    };
    let responder = certificate(&tbs::responder(&issuer, request).unwrap());
    Authority { issuer, other: self::issuer("Issuing E2", 4), responder }
});

fn issuer(common_name: &str, n: u8) -> Issuer {
    let subject = DistinguishedName::new(Some("CH"), Some("Example"), common_name).unwrap();
    let request = RootRequest {
        serial: Serial::from_random([n; 16]),
        subject: &subject,
        public_key: &key(n),
        signature: ALGORITHM,
        validity: VALIDITY,
        test_ca: false,
    };
    let certificate = certificate(&tbs::root(request).unwrap());
    Issuer::new(certificate, ALGORITHM).unwrap().with_crl_url_base("http://pki.example.net/crl").unwrap()
}

fn certificate(tbs: &Tbs) -> Certificate {
    tbs::assemble_certificate(tbs, &SIGNATURE).unwrap()
}

/// The first 32 equal octets from `n` on that are a public key.
fn key(n: u8) -> PublicKey {
    (n..=u8::MAX).find_map(|octet| PublicKey::from_ed25519(&[octet; 32]).ok()).unwrap()
}

/// Any time that X.509 can say.
pub(crate) fn time(u: &mut Unstructured<'_>) -> Result<Timestamp> {
    Ok(Timestamp::from_unix(u.int_in_range(0..=Timestamp::MAX.unix())?))
}

/// Any serial number, of one to twenty octets.
pub(crate) fn serial(u: &mut Unstructured<'_>) -> Result<Serial> {
    let octets = octets(u, 1, 20)?;
    Serial::from_bytes(&octets).or_else(|_| {
        // Negative, zero or padded: the next best that is not.
        let mut positive = octets;
        positive[0] = positive[0] & 0x7f | 1;
        Serial::from_bytes(&positive).map_err(|_| arbitrary::Error::IncorrectFormat)
    })
}

/// Some octets; zeros where the input ends.
pub(crate) fn octets(u: &mut Unstructured<'_>, shortest: usize, longest: usize) -> Result<Vec<u8>> {
    let mut octets = vec![0; u.int_in_range(shortest..=longest)?];
    u.fill_buffer(&mut octets)?;
    Ok(octets)
}
