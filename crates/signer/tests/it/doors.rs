//! The doors to the keys: each takes what it is for, of its own issuer.

use std::sync::Arc;

use ca_store::{JournalKind, JournalRow};
use pki::Serial;
use signer::doors::{DoorError, NODE_CA};
use signer::journal::{CertificateDraft, CertificateIntent, Commit, Journal, Journaled};

use crate::support::World;

/// A journaled intent of this kind and issuer, whatever sense it makes.
async fn journaled(
    world: &World,
    kind: JournalKind,
    issuer: &str,
    serial: u8,
) -> Journaled<CertificateIntent> {
    let journal = Journal::new(
        Arc::new(world.store.clone()),
        Arc::clone(&world.secrets.rows),
        std::time::Duration::from_secs(30),
    );
    let row = JournalRow {
        serial: Serial::from_random([serial; 16]),
        kind,
        order: None,
        new_order: None,
        directory: None,
        account: None,
        issuer: issuer.to_owned(),
        profile: "tls".to_owned(),
        shard: 0,
        spki_sha256: [0; 32],
        csr_sha256: None,
        not_before: world.now(),
        not_after: world.now(),
        tbs: vec![0x30, 0],
        created_at: world.now(),
        signature: None,
        signed_at: None,
        abandoned_at: None,
        replaces: None,
        counted: true,
    };
    let draft = CertificateDraft {
        row,
        names: Vec::new(),
        domains: Vec::new(),
        evidence: None,
        cites: Vec::new(),
        authorizations: Vec::new(),
        account_key: None,
        past: Vec::new(),
        limits: Vec::new(),
        audit: Vec::new(),
    };
    match journal.commit(draft).await.unwrap() {
        Commit::Committed(intent) => intent,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_issuers_door_takes_its_own_certificates() {
    let world = World::start().await;
    let door = world.ca.doors().issuer("tls-1").unwrap();
    let refused = [
        journaled(&world, JournalKind::Final, "tls-2", 1).await,
        journaled(&world, JournalKind::Node, "tls-1", 2).await,
        journaled(&world, JournalKind::Authority, "tls-1", 3).await,
        journaled(&world, JournalKind::Node, NODE_CA, 4).await,
    ];
    for intent in refused {
        let outcome = door.sign(&intent).await;
        assert!(matches!(outcome, Err(DoorError::WrongDoor { .. })), "{outcome:?}");
    }
    assert!(world.issuer_key.signed().is_empty());
    for (serial, kind) in [(5, JournalKind::Final), (6, JournalKind::Server)] {
        door.sign(&journaled(&world, kind, "tls-1", serial).await).await.unwrap();
    }
    assert!(matches!(world.ca.doors().issuer(NODE_CA), Err(DoorError::NoDoor(_))));
}

#[tokio::test]
async fn the_node_cas_door_takes_nodes() {
    let world = World::start().await;
    let subscriber = journaled(&world, JournalKind::Final, NODE_CA, 1).await;
    assert!(subscriber.into_node_request().is_err());
    let node = journaled(&world, JournalKind::Node, NODE_CA, 2).await.into_node_request().unwrap();
    world.ca.doors().node().unwrap().sign(&node).await.unwrap();
    assert_eq!((world.node_key.signed().len(), world.issuer_key.signed().len()), (1, 0));
}
