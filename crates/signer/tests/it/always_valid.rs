//! Receipts of validators that looked at nothing: the directories that take them, and the CAs that they are good for.

use std::time::Duration;

use acme::challenge::Method;
use acme::receipt::{Caa, NO_REQUIREMENT, Outcome as Observation, Receipt, Run};
use ca_store::CaStore as _;
use pki::{Certificate, Period};
use signer::authority::{IssueOrder, NameEvidence};
use signer::policy::Policy;
use signer::registry::{AlternateFault, RegistryError};
use signer::{Failure, Reason, Registry};

use crate::support::{Client, POLICY, Peek as _, Ready, World, csr_of};

/// The issuer of these tests' policy, and the same key with a certificate that its ceremony marked.
const ISSUER: &str = "name = \"tls-1\"\ncertificate = \"issuer.pem\"\ntoken = \"soft\"\nkey_id = \"01\"\npool = \"tls\"\n\
                      shards = 4\ncrl_url_base = \"http://status.test/crl\"\n\
                      ca_issuers_url = \"http://status.test/issuer/tls-1.cer\"";
const SECOND: &str = "[[issuer]]\nname = \"tls-2\"\ncertificate = \"successor.pem\"\ntoken = \"soft\"\nkey_id = \"04\"\npool = \"tls\"\n\
                      crl_url_base = \"http://status.test/crl\"\n\n[[profile]]\nname = \"tls\"\n";
const PROFILE: &str = "[[profile]]\nname = \"tls\"\n";
/// In the open directory.
const OPEN: &str = "maximum_names = 5\n";
const ALWAYS: &str = "maximum_names = 5\nalways_valid = true\n";

fn marked() -> String {
    ISSUER.replace("tls-1", "test-1").replace("issuer.pem", "marked.pem")
}

impl World {
    async fn of_a_test_ca(self) -> Self {
        self.with_policy(ISSUER, &marked()).await
    }

    async fn always_valid(self) -> Self {
        self.with_policy(OPEN, ALWAYS).await
    }

    /// What a perspective signs that looks at nothing.
    fn assumed(&self, client: &Client, evidence: &NameEvidence) -> Receipt {
        Receipt {
            requirement: NO_REQUIREMENT.to_owned(),
            addresses: Vec::new(),
            dnssec: false,
            outcome: Observation::Assumed,
            ..self.receipt(client, &evidence.name, evidence)
        }
    }

    /// An order for one name, of which all three perspectives assumed what they were asked for.
    async fn unseen(&self, client: &Client, name: &str) -> Ready {
        let mut ready = self.ready(client, &[name]).await;
        let receipt = self.assumed(client, &ready.evidence[0]);
        ready.evidence[0].receipts = self.sign_receipts(&receipt, &[0, 1, 2]);
        ready
    }
}

fn with(ready: &Ready, client: &Client, receipts: Vec<String>) -> IssueOrder {
    let mut ready = ready.clone();
    ready.evidence[0].receipts = receipts;
    ready.finalized_by(client)
}

#[tokio::test]
async fn an_assumed_receipt_counts_where_policy_and_issuer_both_say_so() {
    let world = World::start().await.of_a_test_ca().await.always_valid().await;
    let client = world.client().await;
    let ready = world.unseen(&client, "unseen.example.org").await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    assert_eq!(issued.issuer, "test-1");
    // The evidence says that nobody looked, and so does the audit trail.
    let evidence = world.store.evidence_of(&issued.serial).await;
    let record: serde_json::Value = serde_json::from_slice(&evidence.receipts).unwrap();
    let compact = record[0]["receipts"][0].as_str().unwrap();
    let payload = acme::base64url::decode(compact.split('.').nth(1).unwrap()).unwrap();
    let receipt: Receipt = serde_json::from_slice(&payload).unwrap();
    assert_eq!((receipt.requirement.as_str(), receipt.outcome), ("none", Observation::Assumed));
    let mut quorum = Vec::new();
    for head in world.store.audit_heads().await.unwrap() {
        let records = world.store.audit(head.number, 0, 10_000).await.unwrap();
        let intended = records.into_iter().filter(|record| record.event.kind == "certificate.intended");
        quorum.extend(intended.map(|record| record.event.detail));
    }
    assert!(
        quorum.iter().any(|detail| detail.contains(r#""unseen.example.org":"3/3 assumed""#)),
        "{quorum:?}"
    );
    // A perspective that looked is as good, and is not called what it is not.
    let seen = world.ready(&client, &["seen.example.org"]).await;
    world.issue(seen.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn an_assumed_receipt_is_nothing_without_the_policy() {
    for world in [World::start().await, World::start().await.of_a_test_ca().await] {
        let client = world.client().await;
        let ready = world.unseen(&client, "example.org").await;
        assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::ReceiptAssumed);
        // Nor does it make a quorum with one that looked.
        let receipt = world.receipt(&client, &ready.evidence[0].name, &ready.evidence[0]);
        let assumed = world.assumed(&client, &ready.evidence[0]);
        let seen = |of: &[usize]| world.sign_receipts(&receipt, of);
        let mixed = [seen(&[0]), world.sign_receipts(&assumed, &[1, 2])].concat();
        assert_eq!(world.refusal(with(&ready, &client, mixed)).await, Reason::ReceiptAssumed);
        assert!(world.journal().await.is_empty());
        assert!(world.issuer_key.signed().is_empty());
        // It is as if it were not there.
        let enough = [seen(&[0, 1]), world.sign_receipts(&assumed, &[2])].concat();
        world.issue(with(&ready, &client, enough)).await.unwrap();
    }
}

#[tokio::test]
async fn under_another_issuer_than_a_test_ca_an_assumed_receipt_is_refused_at_issuance() {
    // A signer whose policy does not go together does not start: this one has not looked.
    let world = World::start().await.unmarked().always_valid().await;
    let client = world.client().await;
    let ready = world.unseen(&client, "example.org").await;
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::IssuerNotTest);
    assert!(world.journal().await.is_empty());
    assert!(world.issuer_key.signed().is_empty());
    // Where somebody looked, it issues as ever.
    let seen = world.ready(&client, &["seen.example.org"]).await;
    world.issue(seen.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn of_a_mixed_pool_only_the_test_ca_issues_what_nobody_has_seen() {
    let world = World::start().await.unmarked().of_a_test_ca().await.with_policy(PROFILE, SECOND).await;
    let world = world.always_valid().await;
    let client = world.client().await;
    let mut refused = 0;
    for number in 0..6 {
        let ready = world.unseen(&client, &format!("n{number}.example.org")).await;
        // They take turns: asked again, it is the other's.
        let issued = loop {
            match world.issue(ready.finalized_by(&client)).await {
                Ok(issued) => break issued,
                Err(Failure::Refused(refusal)) => assert_eq!(refusal.reason, Reason::IssuerNotTest),
                Err(other) => panic!("{other}"),
            }
            refused += 1;
        };
        assert_eq!(issued.issuer, "test-1");
    }
    assert!(refused > 0);
    assert!(world.journal().await.iter().all(|row| row.issuer == "test-1"));
}

#[tokio::test]
async fn a_policy_that_does_not_go_with_its_issuers_is_refused() {
    let world = World::start().await;
    let load = |changes: &[(&str, &str)]| {
        let mut text = POLICY.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let path = world.folder.path().join("changed.toml");
        std::fs::write(&path, text).unwrap();
        let policy: Policy = runtime::config::load(&path).unwrap();
        Registry::from_policy(policy, &["soft"].into()).map(drop)
    };
    let marked = marked();
    let marked = marked.as_str();
    load(&[(ISSUER, marked), (OPEN, ALWAYS)]).unwrap();
    // A test CA may be used as any other.
    load(&[(ISSUER, marked)]).unwrap();
    let error = load(&[(OPEN, ALWAYS)]).unwrap_err();
    assert!(
        error.to_string().contains("\"open\" has always_valid, but the certificate of issuer \"tls-1\""),
        "{error}"
    );
    let mixed = [(ISSUER, marked), (PROFILE, SECOND), (OPEN, ALWAYS)];
    let not_test = |outcome: Result<(), RegistryError>| match outcome {
        Err(RegistryError::NotTestCa { directory, issuer }) => (directory, issuer),
        other => panic!("{other:?}"),
    };
    assert_eq!(not_test(load(&mixed)), ("open".to_owned(), "tls-2".to_owned()));
    // Whatever the other one does at the moment: tomorrow it may do something else.
    for state in ["standby", "retired"] {
        let idle = SECOND.replace("pool = ", &format!("state = \"{state}\"\npool = "));
        assert_eq!(not_test(load(&[(ISSUER, marked), (PROFILE, &idle), (OPEN, ALWAYS)])).1, "tls-2");
    }
    // Not in a pool that the directory has nothing to do with.
    let apart = SECOND.replace("pool = \"tls\"", "pool = \"apart\"");
    load(&[(ISSUER, marked), (PROFILE, &apart), (OPEN, ALWAYS)]).unwrap();

    // Public trust in a test CA.
    let public = "maximum_names = 5\npublic_trust = true\ncaa_identities = [\"ca.test\"]\n";
    let profiles = "profiles = [\"tls\", \"short\", \"linted\", \"stapled\", \"unstapled\"]\nmaximum_names";
    let of_public = [
        ("validity = \"90d\"", "validity = \"90d\"\nkind = \"public-dv\""),
        (OPEN, public),
        (profiles, "profiles = [\"tls\"]\nmaximum_names"),
    ];
    load(&of_public).unwrap();
    let error = load(&[&of_public[..], &[(ISSUER, marked)]].concat()).unwrap_err();
    assert!(
        matches!(&error, RegistryError::PublicTestCa { directory, issuer } if directory == "open" && issuer == "test-1"),
        "{error:?}"
    );

    // Another chain of a test CA's key leads to a CA that is none.
    let other = marked.replace("token = ", "alternates = [\"issuer.pem\"]\ntoken = ");
    let error = load(&[(ISSUER, &other)]).unwrap_err();
    assert!(matches!(error, RegistryError::Alternate { fault: AlternateFault::TestCa, .. }), "{error:?}");
    let other = ISSUER.replace("token = ", "alternates = [\"marked.pem\"]\ntoken = ");
    let error = load(&[(ISSUER, &other)]).unwrap_err();
    assert!(matches!(error, RegistryError::Alternate { fault: AlternateFault::TestCa, .. }), "{error:?}");
}

/// Nobody looked, but everything else that a receipt says is compared as ever.
#[tokio::test]
async fn quorum_and_freshness_hold_for_assumed_receipts() {
    let world = World::start().await.of_a_test_ca().await.always_valid().await;
    let client = world.client().await;
    let stranger = world.client().await;
    let ready = world.unseen(&client, "example.org").await;
    let good = world.assumed(&client, &ready.evidence[0]);
    let sign = |receipt: &Receipt, of: &[usize]| world.sign_receipts(receipt, of);
    let again = Receipt { run: Run::from_bytes([2; 16]), ..good.clone() };
    let cases = [
        ("one of three", sign(&good, &[0]), Reason::QuorumMissed),
        ("one of three, three times", sign(&good, &[0, 0, 0]), Reason::QuorumMissed),
        ("two runs", [sign(&good, &[0]), sign(&again, &[1])].concat(), Reason::QuorumMissed),
        (
            "another method",
            sign(&Receipt { method: Method::Dns01, ..good.clone() }, &[0, 1, 2]),
            Reason::ReceiptMethod,
        ),
        (
            "another key",
            sign(&Receipt { thumbprint: stranger.thumbprint(), ..good.clone() }, &[0, 1, 2]),
            Reason::ReceiptKey,
        ),
        (
            "another account",
            sign(&Receipt { account: stranger.account.unwrap(), ..good.clone() }, &[0, 1, 2]),
            Reason::ReceiptAccount,
        ),
        (
            "the requirements of a look",
            sign(&Receipt { requirement: "BR 2.2.6 3.2.2.4.19".to_owned(), ..good.clone() }, &[0, 1, 2]),
            Reason::ReceiptMalformed,
        ),
    ];
    for (case, receipts, expected) in cases {
        assert_eq!(world.refusal(with(&ready, &client, receipts)).await, expected, "{case}");
    }
    let late = world.unseen(&client, "late.example.org").await;
    world.clock.advance(Duration::from_secs(6 * 86_400));
    let fresh = world.ready(&client, &["late.example.org"]).await;
    let mut reused = fresh.clone();
    reused.evidence = late.evidence.clone();
    world.clock.advance(Duration::from_secs(5 * 86_400));
    assert_eq!(world.refusal(reused.finalized_by(&client)).await, Reason::ReceiptStale);
    assert!(world.journal().await.is_empty());
}

/// Nobody asks CAA, and nobody misses it: of those who looked neither.
#[tokio::test]
async fn caa_is_not_missed_where_nobody_looks() {
    let world = World::start().await.of_a_test_ca().await;
    let caa = format!("{ALWAYS}caa_identities = [\"ca.test\"]\n");
    let world = world.with_policy(OPEN, &caa).await;
    let client = world.client().await;
    let ready = world.unseen(&client, "unseen.example.org").await;
    world.issue(ready.finalized_by(&client)).await.unwrap();
    let ready = world.ready(&client, &["seen.example.org"]).await;
    let old = Some(Caa {
        permitted: true,
        identities: vec!["ca.test".parse().unwrap()],
        found_at: None,
        ttl_seconds: 60,
        checked: world.now().minus(Period::from_hours(9)),
    });
    let seen = world.receipt(&client, &ready.evidence[0].name, &ready.evidence[0]);
    for caa in [old, None] {
        let ready = world.ready(&client, &["seen.example.org"]).await;
        let receipt = Receipt {
            authorization: ready.evidence[0].authorization,
            token: acme::id::token(&ready.evidence[0].authorization),
            caa,
            ..seen.clone()
        };
        world.issue(with(&ready, &client, world.sign_receipts(&receipt, &[0, 1, 2]))).await.unwrap();
    }
    // Where CAA is asked, a no is a no.
    let no = Caa {
        permitted: false,
        identities: vec!["ca.test".parse().unwrap()],
        found_at: None,
        ttl_seconds: 60,
        checked: world.now(),
    };
    let receipt = Receipt { caa: Some(no), ..seen };
    let order = with(&ready, &client, world.sign_receipts(&receipt, &[0, 1, 2]));
    assert_eq!(world.refusal(order).await, Reason::Caa);
}

/// A directory may have issued by a CA that is none for tests before it was one for tests.
#[tokio::test]
async fn a_certificate_of_another_ca_is_not_revoked_because_nobody_looked() {
    let world = World::start().await.unmarked().always_valid().await;
    let (owner, other) = (world.client().await, world.client().await);
    let ready = world.ready(&owner, &["example.org"]).await;
    let issued = world.issue(ready.finalized_by(&owner)).await.unwrap();
    let body = serde_json::json!({ "certificate": acme::base64url::encode(&issued.certificate) });
    let unseen = world.unseen(&other, "example.org").await;
    let revocation = other.request("revoke-cert", &body);
    let refused = world.ca.revoke(&revocation, unseen.evidence).await;
    assert_eq!(crate::support::reason(refused), Reason::IssuerNotTest);

    let world = World::start().await.of_a_test_ca().await.always_valid().await;
    let (owner, other) = (world.client().await, world.client().await);
    let ready = world.unseen(&owner, "example.org").await;
    let issued = world.issue(ready.finalized_by(&owner)).await.unwrap();
    let body = serde_json::json!({ "certificate": acme::base64url::encode(&issued.certificate) });
    let unseen = world.unseen(&other, "example.org").await;
    world.ca.revoke(&other.request("revoke-cert", &body), unseen.evidence).await.unwrap();
}

/// A CSR may ask for the mark: the profile has it not.
#[tokio::test]
async fn no_csr_brings_the_mark_of_a_test_ca() {
    let world = World::start().await.of_a_test_ca().await.always_valid().await;
    let client = world.client().await;
    let mut ready = world.unseen(&client, "example.org").await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let mark = [1, 2, 840, 113_556, 1, 8000, 2554, 8159, 42, 15_363, 17_507, 42_332, 4_744_162, 16_393_338];
    parameters.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&mark, vec![5, 0])];
    let asking = parameters.serialize_request(&key).unwrap().der().to_vec();
    assert!(asking.len() > csr_of(&["example.org"], &key).len() + 30, "the mark is in the request");
    ready.csr = asking;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let text = hex::encode(&issued.certificate);
    // The arc that the mark is below.
    assert!(!text.contains("2a864886f7140"), "{text}");
    assert!(!Certificate::from_der(&issued.certificate).unwrap().is_test_ca());
    let marked = std::fs::read_to_string(world.folder.path().join("marked.pem")).unwrap();
    let marked = &pki::chain::from_pem(&marked).unwrap()[0];
    assert!(marked.is_test_ca() && hex::encode(marked.der()).contains("2a864886f7140"));
}
