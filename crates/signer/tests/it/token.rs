//! The same path with a key in a real token: SoftHSM behind its worker process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hsm::{Deadline, KeySpec, Signing, Token};
use pki::{Certificate, KeyAlgorithm, PublicKey};
use signer::config::TokenSection;
use signer::doors::{DoorError, DoorPlan, Doors, KeyPlace, KeySource, Tokens};
use testkit::signing::SoftKey;
use testkit::token::TestToken;

use crate::support::World;

const KEY_ID: [u8; 1] = [0x01];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_from_a_token() {
    let softhsm = TestToken::create("signer-test");
    let public_key = {
        let token = Token::start(softhsm.config(), testkit::token::worker());
        let spec =
            KeySpec { algorithm: KeyAlgorithm::EcdsaP256, label: "tls-1".to_owned(), id: KEY_ID.to_vec() };
        token.ready(Deadline::after(Duration::from_secs(30))).await.unwrap();
        let key = token.generate(spec).await.unwrap();
        token.shutdown().await;
        key.public_key
    };
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
    let world = World::with_token(&public_key, Arc::new(tokens.clone())).await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let issued = world.issue_patiently(ready.finalized_by(&client)).await;
    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    certificate.verify_signed_by(&public_key).unwrap();
    assert_eq!(tokens.trouble("soft"), None);

    // A burst over the token's sessions.
    let orders = futures::future::join_all(
        ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"]
            .map(|name| world.ready_one(&client, name)),
    );
    let issued = orders.await.into_iter().map(|ready| world.issue_patiently(ready.finalized_by(&client)));
    for issued in futures::future::join_all(issued).await {
        Certificate::from_der(&issued.certificate).unwrap().verify_signed_by(&public_key).unwrap();
    }
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
