//! Root, issuer and node CA of a test, from keys in memory.

use std::path::Path;
use std::sync::LazyLock;

use pki::crl::{CrlParameters, CrlScope, CrlTotals, CrlWriter};
use pki::tbs::{self, IntermediateRequest, RootRequest};
use pki::{
    Certificate, DistinguishedName, Issuer, Period, PublicKey, Serial, SignatureAlgorithm, Tbs, Timestamp,
    Validity,
};
use testkit::signing::SoftKey;
use time::OffsetDateTime;

#[derive(Clone)]
pub(crate) struct Authorities {
    pub(crate) root: Certificate,
    pub(crate) issuer: Certificate,
    pub(crate) node_ca: Certificate,
    pub(crate) root_key: SoftKey,
}

/// The key of `successor.pem`, another issuer that a policy may have.
pub(crate) static SUCCESSOR: LazyLock<SoftKey> = LazyLock::new(SoftKey::generate);

impl Authorities {
    /// Makes them and writes `root.pem` and `issuer.pem`; and `successor.pem`, and `marked.pem`, a test CA's for the issuer's key.
    pub(crate) fn make(
        folder: &Path,
        now: OffsetDateTime,
        issuer_key: &PublicKey,
        node_key: &SoftKey,
    ) -> Self {
        let now = Timestamp::from_unix(now.unix_timestamp() as u64);
        let validity = Validity {
            not_before: now.minus(Period::from_days(1)),
            not_after: now.plus(Period::from_days(3650)),
        };
        let root_key = SoftKey::generate();
        let name = |common_name: &str| DistinguishedName::new(Some("XX"), Some("Test"), common_name).unwrap();
        let own = |serial: u8, subject: &DistinguishedName, key: &SoftKey, test_ca: bool| {
            let request = RootRequest {
                serial: Serial::from_random([serial; 16]),
                subject,
                public_key: key.public(),
                signature: SignatureAlgorithm::EcdsaSha256,
                validity,
                test_ca,
            };
            signed(&tbs::root(request).unwrap(), key)
        };
        let root = own(1, &name("Test Root"), &root_key, false);
        let marked_root = own(5, &name("Test Root for Tests"), &root_key, true);
        let node_ca = own(2, &name("Test Nodes"), node_key, false);
        let intermediate = |serial: u8, root: &Certificate, common_name: &str, public_key: &PublicKey| {
            let above = Issuer::new(root.clone(), SignatureAlgorithm::EcdsaSha256).unwrap();
            let above = above.with_crl_url_base("http://status.test/crl").unwrap();
            let subject = name(common_name);
            let request = IntermediateRequest {
                serial: Serial::from_random([serial; 16]),
                subject: &subject,
                public_key,
                validity,
                shard: 0,
                path_length: Some(0),
                extended_key_usages: &[],
                policies: &[],
                test_ca: root.is_test_ca(),
            };
            signed(&tbs::intermediate(&above, request).unwrap(), &root_key)
        };
        let issuer = intermediate(3, &root, "Test TLS 1", issuer_key);
        let successor = intermediate(4, &root, "Test TLS 2", SUCCESSOR.public());
        let marked = intermediate(6, &marked_root, "Test TLS 1", issuer_key);
        std::fs::write(folder.join("marked.pem"), marked.pem()).unwrap();
        std::fs::write(folder.join("successor.pem"), successor.pem()).unwrap();
        std::fs::write(folder.join("root.pem"), root.pem()).unwrap();
        std::fs::write(folder.join("issuer.pem"), issuer.pem()).unwrap();
        Self { root, issuer, node_ca, root_key }
    }

    /// An empty CRL of the root, made so many seconds after it: of the issuer's shard, for somebody else's place; or its own.
    pub(crate) fn root_crl(&self, number: u64, seconds: u64, scope: CrlScope) -> Vec<u8> {
        let issuer = Issuer::new(self.root.clone(), SignatureAlgorithm::EcdsaSha256).unwrap();
        let issuer = issuer.with_crl_url_base("http://status.test/crl").unwrap();
        let this_update = self.root.not_before().plus(Period::from_seconds(seconds));
        let parameters = CrlParameters {
            issuer: &issuer,
            number,
            this_update,
            next_update: this_update.plus(Period::from_days(365)),
            scope,
            delta_base: None,
        };
        let writer = CrlWriter::start(&parameters, CrlTotals::default(), Vec::new()).unwrap();
        let (octets, _) = writer.finish().unwrap();
        self.root_signed(&octets)
    }

    /// What the root signs as a CRL, whatever it is.
    pub(crate) fn root_signed(&self, tbs: &[u8]) -> Vec<u8> {
        pki::crl::assemble(tbs, SignatureAlgorithm::EcdsaSha256, &self.root_key.sign_message(tbs))
    }
}

fn signed(tbs: &Tbs, key: &SoftKey) -> Certificate {
    Certificate::from_der(&pki::assemble(tbs, &key.sign_message(tbs.as_bytes()))).unwrap()
}
