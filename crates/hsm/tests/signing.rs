//! Keys and signatures in a real SoftHSM token.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail so"
)]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use hsm::{
    Attributes, Deadline, Fault, HsmError, Job, KeyHealth, KeyQuery, KeyRef, KeySpec, Lane, Origin, Signing,
};
use pki::{ErrorClass, KeyAlgorithm, SignatureAlgorithm};
use support::{key, sign_and_check, soon, start};
use testkit::token::TestToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_algorithm_signs_and_its_key_cannot_leave() {
    let softhsm = TestToken::create("algorithms");
    let token = start(softhsm.config());
    let algorithms = [
        (KeyAlgorithm::EcdsaP256, &[SignatureAlgorithm::EcdsaSha256][..]),
        (KeyAlgorithm::EcdsaP384, &[SignatureAlgorithm::EcdsaSha384]),
        (KeyAlgorithm::Ed25519, &[SignatureAlgorithm::Ed25519]),
        (
            KeyAlgorithm::Rsa { bits: 2048 },
            &[SignatureAlgorithm::RsaSha256, SignatureAlgorithm::RsaSha384, SignatureAlgorithm::RsaSha512],
        ),
        (KeyAlgorithm::Rsa { bits: 3072 }, &[SignatureAlgorithm::RsaSha256]),
        (KeyAlgorithm::Rsa { bits: 4096 }, &[SignatureAlgorithm::RsaSha256]),
    ];
    for (number, (algorithm, signatures)) in algorithms.into_iter().enumerate() {
        let id = vec![0x10, number as u8];
        let label = format!("key {number}");
        let spec = KeySpec { algorithm, label: label.clone(), id: id.clone() };
        let made = token.generate(spec.clone()).await.unwrap();
        assert_eq!((made.public_key.algorithm(), &made.label), (algorithm, &label));
        let expected = Attributes {
            token: Some(true),
            private: Some(true),
            sensitive: Some(true),
            extractable: Some(false),
            always_sensitive: Some(true),
            never_extractable: Some(true),
            local: Some(true),
            sign: Some(true),
            sign_recover: Some(false),
            decrypt: Some(false),
            unwrap: Some(false),
            derive: Some(false),
            always_authenticate: Some(false),
            modifiable: Some(false),
            copyable: Some(false),
            destroyable: Some(true),
        };
        assert_eq!(made.attributes, expected, "{algorithm}");

        let again = token.generate(spec).await.unwrap_err();
        assert!(matches!(again, HsmError::Token(Fault::KeyExists { .. })), "{again}");
        assert_eq!(again.class(), ErrorClass::Conflict);

        let key = token.key(KeyRef::generated(id.clone(), made.public_key.clone()));
        assert_eq!(key.ready(soon()).await.unwrap(), expected);
        assert_eq!(key.health(), KeyHealth::Ready(expected));
        for signature_algorithm in signatures {
            let message = b"to be signed";
            let job = Job::for_message(*signature_algorithm, message);
            let signature = key.sign(Lane::Issuance, job, soon()).await.unwrap();
            made.public_key.verify(*signature_algorithm, message, &signature).unwrap();
        }

        let found = token.find(KeyQuery::label(label)).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].id, found[0].public_key.as_ref()), (&id, Some(&made.public_key)));
        assert_eq!(token.find(KeyQuery::id(id)).await.unwrap(), found);
    }
    assert_eq!(token.find(KeyQuery::default()).await.unwrap().len(), algorithms.len());
    assert!(token.find(KeyQuery::label("nobody")).await.unwrap().is_empty());
    assert!(token.health().is_ready());
    token.shutdown().await;
}

#[tokio::test]
async fn only_whole_digests_of_the_right_algorithm_are_signed() {
    let softhsm = TestToken::create("digests");
    let token = start(softhsm.config());
    let key = key(&token, KeyAlgorithm::EcdsaP256, b"1").await;
    for length in [0, 20, 31, 33, 48, 64] {
        let digest = Bytes::from(vec![1; length]);
        let job = Job::Digest { algorithm: SignatureAlgorithm::EcdsaSha256, digest };
        let refused = key.sign(Lane::Issuance, job, soon()).await.unwrap_err();
        assert_eq!(refused, HsmError::DigestLength { expected: 32, found: length });
        assert_eq!(refused.class(), ErrorClass::Client);
    }
    let digest = Bytes::from(vec![1; 48]);
    let other = Job::Digest { algorithm: SignatureAlgorithm::EcdsaSha384, digest };
    assert!(matches!(key.sign(Lane::Issuance, other, soon()).await, Err(HsmError::WrongAlgorithm { .. })));
    let message = Job::Message(Bytes::from_static(b"m"));
    assert!(matches!(key.sign(Lane::Issuance, message, soon()).await, Err(HsmError::SignsDigests { .. })));
}

#[tokio::test]
async fn long_messages_pass_the_socket() {
    let softhsm = TestToken::create("messages");
    let token = start(softhsm.config());
    let key = key(&token, KeyAlgorithm::Ed25519, b"1").await;
    let message = vec![0x5a; 3 << 20];
    let signature = key.sign(Lane::Bulk, Job::Message(Bytes::from(message.clone())), soon()).await.unwrap();
    key.public_key().verify(SignatureAlgorithm::Ed25519, &message, &signature).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_and_lanes_are_served_at_once() {
    let softhsm = TestToken::create("many");
    let token = start(softhsm.config());
    let mut keys = Vec::new();
    for number in 0..12 {
        keys.push(key(&token, KeyAlgorithm::EcdsaP256, &[number]).await);
    }
    keys.push(key(&token, KeyAlgorithm::Rsa { bits: 2048 }, b"rsa").await);
    keys.push(key(&token, KeyAlgorithm::Ed25519, b"ed").await);
    let tasks: Vec<_> = (0..1400)
        .map(|number| {
            let key = keys[number % keys.len()].clone();
            tokio::spawn(async move { sign_and_check(&key, Lane::ALL[number % 3], number, soon()).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(token.health().respawns, 0);
}

#[tokio::test]
async fn a_declared_key_must_be_the_one_in_the_token() {
    let softhsm = TestToken::create("declared");
    let token = start(softhsm.config());
    let first = key(&token, KeyAlgorithm::EcdsaP256, b"1").await;
    let second = key(&token, KeyAlgorithm::EcdsaP256, b"2").await;

    let swapped = token.key(KeyRef::generated(*b"1", second.public_key().clone()));
    let refused = swapped.ready(soon()).await.unwrap_err();
    assert_eq!(refused, HsmError::Token(Fault::PublicKeyMismatch { id: hex::encode(b"1") }));
    assert_eq!(refused.class(), ErrorClass::Fatal);
    let job = Job::for_message(SignatureAlgorithm::EcdsaSha256, b"m");
    assert_eq!(swapped.sign(Lane::Issuance, job, soon()).await.unwrap_err(), refused);
    assert!(!token.health().is_ready());

    let missing = token.key(KeyRef::generated(*b"3", first.public_key().clone()));
    let refused = missing.ready(soon()).await.unwrap_err();
    assert_eq!(refused, HsmError::Token(Fault::KeyNotFound { id: hex::encode(b"3") }));
    // The others go on.
    sign_and_check(&first, Lane::Issuance, 1, soon()).await.unwrap();
}

#[tokio::test]
async fn an_imported_key_is_refused_by_the_attribute_that_gives_it_away() {
    let softhsm = TestToken::create("imported");
    let pem = softhsm.folder().join("key.pem");
    let openssl = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
        .arg(&pem)
        .output()
        .expect("apt-get install openssl");
    assert!(openssl.status.success());
    let imported = std::process::Command::new("softhsm2-util")
        .args([
            "--token",
            "imported",
            "--id",
            "0a",
            "--label",
            "foreign",
            "--pin",
            testkit::token::PIN,
            "--import",
        ])
        .arg(&pem)
        .env("SOFTHSM2_CONF", softhsm.conf())
        .output()
        .unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));

    let token = start(softhsm.config());
    let found = token.find(KeyQuery::label("foreign")).await.unwrap().remove(0);
    assert_eq!(found.attributes.local, Some(false));
    let public_key = found.public_key.unwrap();
    let declared = token.key(KeyRef::generated(found.id.clone(), public_key.clone()));
    match declared.ready(soon()).await.unwrap_err() {
        HsmError::Token(Fault::Attribute { attribute, expected: true, found: Some(false), .. }) => {
            assert_eq!(attribute, "CKA_LOCAL");
        }
        other => panic!("{other}"),
    }
    // softhsm2-util makes imported keys do all they can, which no clone of a CA key may.
    let cloned = token.key(KeyRef { id: found.id, public_key, origin: Origin::Cloned });
    assert!(matches!(cloned.ready(soon()).await, Err(HsmError::Token(Fault::Attribute { .. }))));
}

#[tokio::test]
async fn full_queues_refuse_with_a_hint_and_late_jobs_are_dropped() {
    let softhsm = TestToken::create("full");
    let mut config = softhsm.config();
    config.sessions = Some(1);
    config.queue_capacity = 20;
    let token = start(config);
    let key = key(&token, KeyAlgorithm::Rsa { bits: 4096 }, b"1").await;
    let attempts: Vec<_> = (0..200)
        .map(|number| {
            let key = key.clone();
            tokio::spawn(async move { sign_and_check(&key, Lane::Bulk, number, soon()).await })
        })
        .collect();
    let (mut done, mut full) = (0, 0);
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(()) => done += 1,
            Err(error) => {
                assert!(matches!(error, HsmError::QueueFull { .. }), "{error}");
                assert_eq!(error.class(), ErrorClass::Transient);
                assert!(error.retry_after().unwrap() > Duration::ZERO);
                full += 1;
            }
        }
    }
    // What was admitted was done: the queue, and what the worker may have at once.
    assert!((20..=30).contains(&done), "{done} done, {full} refused");

    let past = Deadline::at(Instant::now());
    assert_eq!(sign_and_check(&key, Lane::Issuance, 0, past).await, Err(HsmError::Expired));
    // Ten jobs of some four milliseconds each, nobody waits longer than one: most never reach the token.
    let short = Deadline::after(Duration::from_millis(5));
    let late: Vec<_> = (0..10)
        .map(|number| {
            let key = key.clone();
            tokio::spawn(async move { sign_and_check(&key, Lane::Issuance, number, short).await })
        })
        .collect();
    let mut expired = 0;
    for attempt in late {
        if let Err(error) = attempt.await.unwrap() {
            assert!(matches!(error, HsmError::Expired | HsmError::DeadlineExceeded), "{error}");
            expired += 1;
        }
    }
    assert!(expired > 0);
    // They leave room for others.
    sign_and_check(&key, Lane::Issuance, 0, soon()).await.unwrap();
    assert_eq!(token.health().waiting, 0);
}
