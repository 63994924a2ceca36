//! Alternate chains (RFC 8555 §7.4.2): other certificates for an issuer's key.

use std::path::Path;

use pki::chain;
use pki::tbs::{self, IntermediateRequest, RootRequest};
use pki::{Certificate, Issuer, Period, Serial, SignatureAlgorithm, Timestamp, Validity};
use signer::Registry;
use signer::policy::Policy;
use signer::registry::{AlternateFault, RegistryError};
use testkit::signing::SoftKey;

use crate::support::{OPEN, World};

/// Another hierarchy, which certifies the issuer's key too.
struct Elsewhere {
    key: SoftKey,
    root: Certificate,
}

impl Elsewhere {
    fn new(now: Timestamp, common_name: &str) -> Self {
        let key = SoftKey::generate();
        let request = RootRequest {
            serial: Serial::from_random([9; 16]),
            subject: &pki::DistinguishedName::new(Some("XX"), Some("Elsewhere"), common_name).unwrap(),
            public_key: key.public(),
            signature: SignatureAlgorithm::EcdsaSha256,
            validity: lasting(now, 3650),
            test_ca: false,
        };
        let root = signed(&tbs::root(request).unwrap(), &key);
        Self { key, root }
    }

    /// A cross-certificate of this issuer, with another subject if one is given.
    fn certify(&self, issuer: &Certificate, common_name: &str, validity: Validity) -> Certificate {
        let above = Issuer::new(self.root.clone(), SignatureAlgorithm::EcdsaSha256).unwrap();
        let above = above.with_crl_url_base("http://elsewhere.test/crl").unwrap();
        let request = IntermediateRequest {
            serial: Serial::from_random([10; 16]),
            subject: &pki::DistinguishedName::new(Some("XX"), Some("Test"), common_name).unwrap(),
            public_key: issuer.public_key(),
            validity,
            shard: 0,
            path_length: Some(0),
            extended_key_usages: &[],
            policies: &[],
            test_ca: false,
        };
        signed(&tbs::intermediate(&above, request).unwrap(), &self.key)
    }
}

fn lasting(now: Timestamp, days: u32) -> Validity {
    Validity { not_before: now.minus(Period::from_days(1)), not_after: now.plus(Period::from_days(days)) }
}

fn signed(tbs: &pki::Tbs, key: &SoftKey) -> Certificate {
    Certificate::from_der(&pki::assemble(tbs, &key.sign_message(tbs.as_bytes()))).unwrap()
}

const CERTIFICATE: &str = "certificate = \"issuer.pem\"";

#[tokio::test]
async fn e9_a_certificate_comes_with_every_chain_of_its_issuer() {
    let world = World::start().await;
    let now = world.now();
    let [older, oldest] = ["Older Root", "Oldest Root"].map(|name| Elsewhere::new(now, name));
    let issuer = &world.authorities.issuer;
    let cross = older.certify(issuer, "Test TLS 1", lasting(now, 100));
    let ending = oldest.certify(issuer, "Test TLS 1", lasting(now, 10));
    let write = |name: &str, pem: String| std::fs::write(world.folder.path().join(name), pem).unwrap();
    write("ending.pem", ending.pem());
    // With more above it, as far as the operator wants it shown.
    write("cross.pem", chain::to_pem([&cross, &older.root]));
    let expected: Vec<Vec<u8>> = vec![cross.der().to_vec(), older.root.der().to_vec()];
    let own = issuer.der().to_vec();
    let list = format!("{CERTIFICATE}\nalternates = [\"ending.pem\", \"cross.pem\"]");
    let world = world.with_policy(CERTIFICATE, &list).await;

    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let download = world.ca.download(&OPEN.parse().unwrap(), issued.serial).await.unwrap();
    assert_eq!(download.chain, [issued.certificate.clone(), own]);
    assert_eq!(download.alternates, [vec![ending.der().to_vec()], expected.clone()]);
    let leaf = Certificate::from_der(&issued.certificate).unwrap();
    for above in [&cross, &ending] {
        chain::is_issued_by(&leaf, above).unwrap();
    }
    // A chain whose certificate has ended leads nowhere.
    world.clock.advance(std::time::Duration::from_secs(11 * 86_400));
    let download = world.ca.download(&OPEN.parse().unwrap(), issued.serial).await.unwrap();
    assert_eq!(download.alternates, [expected]);
}

#[tokio::test]
async fn e9_what_is_no_other_chain_of_the_issuer_is_named_at_start() {
    let world = World::start().await;
    let now = world.now();
    let elsewhere = Elsewhere::new(now, "Older Root");
    let issuer = &world.authorities.issuer;
    let folder = world.folder.path();
    let load = |name: &str, pem: String| {
        std::fs::write(folder.join(name), pem).unwrap();
        fault(folder, &format!("alternates = [\"{name}\"]"))
    };
    let good = elsewhere.certify(issuer, "Test TLS 1", lasting(now, 100));
    assert_eq!(load("good.pem", good.pem()).map_err(|error| error.to_string()), Ok(()));
    let fault_of = |outcome: Result<(), RegistryError>| match outcome {
        Err(RegistryError::Alternate { issuer, fault, .. }) => {
            assert_eq!(issuer, "tls-1");
            fault
        }
        other => panic!("{other:?}"),
    };
    // Another subject; another key; the chain that it has; twice the same.
    let renamed = elsewhere.certify(issuer, "Test TLS 9", lasting(now, 100));
    assert_eq!(fault_of(load("renamed.pem", renamed.pem())), AlternateFault::Other);
    let other_key = elsewhere.certify(&world.authorities.node_ca, "Test TLS 1", lasting(now, 100));
    assert_eq!(fault_of(load("other-key.pem", other_key.pem())), AlternateFault::Other);
    assert_eq!(fault_of(load("own.pem", issuer.pem())), AlternateFault::Twice);
    let twice = fault(folder, "alternates = [\"good.pem\", \"good.pem\"]");
    assert_eq!(fault_of(twice), AlternateFault::Twice);
    // What stands above it has not signed it.
    let stranger = Elsewhere::new(now, "Older Root");
    let broken = load("broken.pem", chain::to_pem([&good, &stranger.root]));
    assert!(matches!(broken, Err(RegistryError::Chain { .. })), "{broken:?}");
    let missing = fault(folder, "alternates = [\"missing.pem\"]");
    assert!(matches!(missing, Err(RegistryError::Read { .. })), "{missing:?}");
    let nine = format!("alternates = {:?}", ["good.pem"; 9]);
    assert!(matches!(fault(folder, &nine), Err(RegistryError::Policy(_))));
}

/// What is said of the policy with these alternates.
fn fault(folder: &Path, alternates: &str) -> Result<(), RegistryError> {
    let text = crate::support::POLICY.replacen(CERTIFICATE, &format!("{CERTIFICATE}\n{alternates}"), 1);
    let path = folder.join("alternates.toml");
    std::fs::write(&path, text).unwrap();
    let policy: Policy = runtime::config::load(&path).unwrap();
    Registry::from_policy(policy, &["soft"].into()).map(drop)
}
