//! The same path with a key in a real token: SoftHSM behind its worker process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hsm::{Deadline, KeyHealth, KeySpec, Signing, Token};
use pki::ocsp::{Answer, CertStatus};
use pki::{Certificate, KeyAlgorithm, PublicKey};
use signer::config::TokenSection;
use signer::doors::{DoorError, DoorPlan, Doors, KeyPlace, KeySource, Tokens};
use testkit::signing::SoftKey;
use testkit::token::TestToken;

use crate::support::ocsp::{ISSUER, read};
use crate::support::{OcspWorld, World};

/// As the policy of these tests names them.
const ISSUER_KEY: u8 = 0x01;
const RESPONDER_KEY: u8 = 0x03;

/// A token with keys of these ids.
struct Keys {
    public: Vec<PublicKey>,
    tokens: Tokens,
    _softhsm: TestToken,
    _state: tempfile::TempDir,
}

async fn keys(ids: &[u8]) -> Keys {
    let softhsm = TestToken::create("signer-test");
    let token = Token::start(softhsm.config(), testkit::token::worker());
    token.ready(Deadline::after(Duration::from_secs(30))).await.unwrap();
    let mut public = Vec::new();
    for id in ids {
        let spec = KeySpec { algorithm: KeyAlgorithm::EcdsaP256, label: format!("key {id}"), id: vec![*id] };
        public.push(token.generate(spec).await.unwrap().public_key);
    }
    token.shutdown().await;
    let state = tempfile::tempdir().unwrap();
    let section = TokenSection {
        name: "soft".to_owned(),
        label: softhsm.label().to_owned(),
        serial: None,
        module: softhsm.module().into(),
        pin_file: softhsm.pin_file().into(),
        sessions: Some(2),
        hang_timeout_milliseconds: None,
        respawn_max_milliseconds: None,
        environment: BTreeMap::from([(
            "SOFTHSM2_CONF".to_owned(),
            softhsm.conf().to_string_lossy().into_owned(),
        )]),
        user: None,
        group: None,
    };
    let tokens = Tokens::start(&[section], state.path(), &testkit::token::worker());
    Keys { public, tokens, _softhsm: softhsm, _state: state }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_from_a_token() {
    let Keys { public, tokens, .. } = &keys(&[ISSUER_KEY]).await;
    let public_key = &public[0];
    let world = World::with_token(public_key, Arc::new(tokens.clone())).await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let issued = world.issue_patiently(ready.finalized_by(&client)).await;
    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    certificate.verify_signed_by(public_key).unwrap();
    assert_eq!(tokens.trouble("soft"), None);

    // A burst over the token's sessions.
    let orders = futures::future::join_all(
        ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"]
            .map(|name| world.ready_one(&client, name)),
    );
    let issued = orders.await.into_iter().map(|ready| world.issue_patiently(ready.finalized_by(&client)));
    for issued in futures::future::join_all(issued).await {
        Certificate::from_der(&issued.certificate).unwrap().verify_signed_by(public_key).unwrap();
    }
    tokens.shutdown().await;
}

/// The responder's public key is what the token says; its certificate, and then its answers, are made in the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_from_a_token() {
    let Keys { public, tokens, .. } = &keys(&[ISSUER_KEY, RESPONDER_KEY]).await;
    let world = World::with_token(&public[0], Arc::new(tokens.clone())).await;
    let it = OcspWorld::of(world, SoftKey::generate());
    it.work();
    it.ready().await;
    let client = it.world.client().await;
    let ready = it.world.ready_one(&client, "example.org").await;
    let issued = it.world.issue_patiently(ready.finalized_by(&client)).await;
    let response = it.answer(&it.request(&[issued.serial], Some(&[5; 32]))).await;
    assert_eq!(response.singles()[0].status, CertStatus::Good);
    assert_eq!(response.responder().unwrap().public_key(), &public[1]);
    // Nobody waits: another lane, the same key.
    let ahead = it.responder.answer(&it.request(&[issued.serial], None), true).await;
    assert!(matches!(read(&ahead), Answer::Successful(_)));
    assert!(matches!(it.world.ca.doors().responder(ISSUER).unwrap().health(), KeyHealth::Ready(_)));
    tokens.shutdown().await;
    assert_eq!(it.error(&it.request(&[issued.serial], None)).await, 3, "the token is away: try later");
}

/// A place without a key: nothing is answered, and nothing else is harmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_responder_without_a_key_answers_nothing() {
    let Keys { public, tokens, .. } = &keys(&[ISSUER_KEY]).await;
    let world = World::with_token(&public[0], Arc::new(tokens.clone())).await;
    let refused = world.ca.doors().responder(ISSUER).unwrap().public_key().await;
    assert!(matches!(&refused, Err(DoorError::NoPublicKey { id, .. }) if id == "03"), "{refused:?}");
    let it = OcspWorld::of(world, SoftKey::generate());
    it.work();
    let client = it.world.client().await;
    let ready = it.world.ready_one(&client, "example.org").await;
    let issued = it.world.issue_patiently(ready.finalized_by(&client)).await;
    assert_eq!(it.error(&it.request(&[issued.serial], None)).await, 3);
    assert_eq!(it.responder_rows().await.len(), 0);
    tokens.shutdown().await;
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_opens_no_door() {
    #[derive(Debug)]
    struct Other(SoftKey);
    impl KeySource for Other {
        fn key(&self, _: &DoorPlan) -> Option<Arc<dyn Signing>> {
            Some(Arc::new(self.0.clone()))
        }

        fn public_key<'a>(&'a self, _: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
            Box::pin(async { Ok(self.0.public().clone()) })
        }
    }
    let world = World::start().await;
    let plans = || world.ca.registry().door_plans();
    let deadline = Duration::from_secs(1);
    let other = Other(SoftKey::generate());
    let outcome = Doors::open(&other, plans(), None, deadline);
    assert!(matches!(&outcome, Err(DoorError::WrongKey(issuer)) if issuer == "tls-1"), "{outcome:?}");
    assert!(Doors::open(&Other(world.issuer_key.clone()), plans(), None, deadline).is_ok());
}
