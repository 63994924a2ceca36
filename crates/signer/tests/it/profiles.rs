//! Profiles (draft-ietf-acme-profiles): which an order gets, what they make of a CSR, and who may use them.

use acme::problem::ErrorType;
use pki::Certificate;
use rcgen::CustomExtension;
use serde_json::json;
use signer::{AuthorityService, Failure, Reason, Refusal};

use crate::support::{Client, World, reason};

/// id-pe-tlsfeature, and `SEQUENCE { INTEGER 5 }`: status_request (RFC 7633 §4.2.3).
const TLS_FEATURE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
const STATUS_REQUEST: &[u8] = &[0x30, 3, 2, 1, 5];
/// The identifier of [`TLS_FEATURE`] in DER.
const TLS_FEATURE_DER: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 1, 24];

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> Refusal {
    match outcome {
        Err(Failure::Refused(refusal)) => *refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// A CSR with these extensions beside the names.
fn csr_with(name: &str, extensions: &[(&[u64], bool, &[u8])]) -> Vec<u8> {
    let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.custom_extensions = extensions
        .iter()
        .map(|(oid, critical, value)| {
            let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
            extension.set_criticality(*critical);
            extension
        })
        .collect();
    parameters.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn contains(der: &[u8], part: &[u8]) -> bool {
    der.windows(part.len()).any(|window| window == part)
}

impl World {
    /// The outcome of an order in a profile with this CSR.
    async fn try_csr(&self, client: &Client, profile: &str, csr: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let new_order = client.new_order_with(&["example.org"], json!({ "profile": profile }));
        let mut ready = self.ready_with(client, new_order).await;
        ready.csr = csr;
        Ok(self.issue(ready.finalized_by(client)).await?.certificate)
    }
}

#[tokio::test]
async fn i4_the_directory_tells_its_profiles_and_the_order_its_own() {
    use rpc::proto::signer::v1::authority_server::Authority as _;
    let world = World::start().await;
    let service = AuthorityService::new(world.ca.clone(), tokio_util::sync::CancellationToken::new());
    let listed =
        service.list_directories(tonic::Request::new(Default::default())).await.unwrap().into_inner();
    let open = listed.directories.into_iter().find(|directory| directory.name == "open").unwrap();
    let names: Vec<_> = open.profiles.iter().map(|profile| profile.name.as_str()).collect();
    assert_eq!(names, ["tls", "short", "linted", "stapled", "unstapled"]);
    assert!(open.profiles.iter().all(|profile| !profile.description.is_empty()));
    let client = world.client().await;
    assert_eq!(world.ready(&client, &["example.org"]).await.order.profile, "tls");
    let unknown = client.new_order_with(&["example.org"], json!({ "profile": "front" }));
    let refusal = refused(world.ca.authorize_order(&unknown).await);
    assert_eq!((refusal.reason, refusal.problem.kind), (Reason::ProfileUnknown, ErrorType::InvalidProfile));
    assert!(refusal.problem.detail.contains("tls, short, linted"), "{}", refusal.problem.detail);
}

/// What a front shows its clients comes to the same as what the signer counts.
#[tokio::test]
async fn d7_the_directory_tells_whose_receipts_count_and_how_many() {
    use rpc::proto::signer::v1::authority_server::Authority as _;
    let mut world = World::start().await;
    for (dissent, needed) in [(1, 2), (0, 3), (2, 1)] {
        let text = |dissent: u32| format!("maximum_dissent = {dissent}");
        if dissent != 1 {
            world = world.with_policy(&text(if dissent == 0 { 1 } else { 0 }), &text(dissent)).await;
        }
        let service = AuthorityService::new(world.ca.clone(), tokio_util::sync::CancellationToken::new());
        let listed =
            service.list_directories(tonic::Request::new(Default::default())).await.unwrap().into_inner();
        drop(service);
        let of = |name: &str| listed.directories.iter().find(|one| one.name == name).unwrap();
        assert_eq!(of("open").perspectives, ["validator-1", "validator-2", "validator-3"]);
        assert_eq!(of("open").perspectives_needed, needed);
        let other = listed.directories.iter().find(|one| one.name != "open").unwrap();
        assert_eq!(
            (other.perspectives.as_slice(), other.perspectives_needed),
            (&["validator-1".to_owned()][..], 1)
        );
    }
}

#[tokio::test]
async fn i4_a_profile_that_is_withdrawn_before_finalize_is_invalid() {
    let world = World::start().await;
    let client = world.client().await;
    let named = client.new_order_with(&["example.org"], json!({ "profile": "short" }));
    let named = world.ready_with(&client, named).await;
    let by_default = world.ready(&client, &["www.example.org"]).await;
    let kept = client.new_order_with(&["mail.example.org"], json!({ "profile": "stapled" }));
    let kept = world.ready_with(&client, kept).await;
    let world = world.with_policy(r#"profiles = ["tls", "short", "#, r#"profiles = ["#).await;
    let refusal = refused(world.issue(named.finalized_by(&client)).await);
    assert_eq!((refusal.reason, refusal.problem.kind), (Reason::ProfileUnknown, ErrorType::InvalidProfile));
    // The client named none, and was told that it would be "tls": it does not get another one instead.
    let refusal = refused(world.issue(by_default.finalized_by(&client)).await);
    assert_eq!((refusal.reason, refusal.problem.kind), (Reason::ProfileMismatch, ErrorType::InvalidProfile));
    assert!(refusal.problem.detail.contains("\"tls\""), "{}", refusal.problem.detail);
    world.issue(kept.finalized_by(&client)).await.unwrap();
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn i4_a_profile_says_whether_certificates_must_be_stapled() {
    let world = World::start().await;
    let client = world.client().await;
    let wanted = || csr_with("example.org", &[(TLS_FEATURE, false, STATUS_REQUEST)]);
    let refusal = refused(world.try_csr(&client, "tls", wanted()).await);
    assert_eq!((refusal.reason, refusal.problem.kind), (Reason::CsrInvalid, ErrorType::BadCsr));
    assert!(refusal.problem.detail.contains("\"tls\" does not offer"), "{}", refusal.problem.detail);
    let honoured = world.try_csr(&client, "stapled", wanted()).await.unwrap();
    assert!(contains(&honoured, &[TLS_FEATURE_DER, &[4, 5], STATUS_REQUEST].concat()));
    let ignored = world.try_csr(&client, "unstapled", wanted()).await.unwrap();
    assert!(!contains(&ignored, TLS_FEATURE_DER));
    // Nobody gets it who has not asked.
    let without = world.try_csr(&client, "stapled", csr_with("example.org", &[])).await.unwrap();
    assert!(!contains(&without, TLS_FEATURE_DER));
    // status_request_v2 is another feature (RFC 6961).
    let other = csr_with("example.org", &[(TLS_FEATURE, false, &[0x30, 3, 2, 1, 17])]);
    assert_eq!(reason(world.try_csr(&client, "stapled", other).await), Reason::CsrInvalid);
}

#[tokio::test]
async fn e4_a_profile_says_which_keys_it_takes() {
    let world = World::start().await;
    let client = world.client().await;
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = crate::support::csr_of(&["example.org"], &p384);
    let refusal = refused(world.try_csr(&client, "short", csr.clone()).await);
    assert_eq!((refusal.reason, refusal.problem.kind), (Reason::CsrKeyUnacceptable, ErrorType::BadCsr));
    let detail = &refusal.problem.detail;
    assert!(detail.contains("does not take ecdsa-p384 keys, but: ecdsa-p256"), "{detail}");
    world.try_csr(&client, "tls", csr).await.unwrap();
}

#[tokio::test]
async fn e3_what_a_csr_asks_for_beside_names_is_never_copied() {
    let world = World::start().await;
    let client = world.client().await;
    // basicConstraints CA:TRUE, extKeyUsage codeSigning, keyUsage keyCertSign, nameConstraints, certificatePolicies.
    let csr = csr_with(
        "example.org",
        &[
            (&[2, 5, 29, 19], true, &[0x30, 3, 1, 1, 0xff]),
            (&[2, 5, 29, 37], true, &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3]),
            (&[2, 5, 29, 15], true, &[3, 2, 2, 4]),
            (&[2, 5, 29, 30], true, &[0x30, 6, 0xa0, 4, 0x30, 2, 0x82, 0]),
            (&[2, 5, 29, 32], false, &[0x30, 6, 0x30, 4, 6, 2, 0x2a, 3]),
        ],
    );
    let der = world.try_csr(&client, "tls", csr).await.unwrap();
    assert!(!Certificate::from_der(&der).unwrap().is_ca());
    for foreign in
        [&[0x2b, 6, 1, 5, 5, 7, 3, 3][..], &[0x06, 3, 0x55, 0x1d, 0x1e], &[0x06, 3, 0x55, 0x1d, 0x20]]
    {
        assert!(!contains(&der, foreign), "{foreign:x?}");
    }
    // extKeyUsage is serverAuth alone, keyUsage digitalSignature alone.
    assert!(contains(&der, &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1]));
    assert!(contains(&der, &[0x06, 3, 0x55, 0x1d, 0x0f, 1, 1, 0xff, 4, 4, 3, 2, 7, 0x80]));
}
