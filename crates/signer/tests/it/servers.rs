//! Fronts' own certificates, and downloads.

use ca_store::{AuthorityRow, JournalKind, NodeRow, NodeState};
use pki::{Certificate, chain};
use signer::Reason;

use crate::support::{OTHER, World, csr, reason};

async fn with_front(names: &[&str]) -> World {
    let world = World::start().await;
    let row = NodeRow {
        role: "front".to_owned(),
        name: "eu-1".to_owned(),
        settings: String::new(),
        receipt_key: None,
        server_names: names.iter().map(ToString::to_string).collect(),
        state: NodeState::Active,
        created_at: world.now(),
        version: 1,
    };
    world.put(AuthorityRow::Node(world.secrets.rows.seal(row)), None).await;
    world.ca.reload_nodes().await.unwrap();
    world
}

#[tokio::test]
async fn a_front_gets_its_own_names() {
    let world = with_front(&["ca.test", "127.0.0.1"]).await;
    let chain = world.ca.issue_server_certificate("eu-1", &csr(&["ca.test", "127.0.0.1"])).await.unwrap();
    let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).unwrap()).collect();
    chain::check_order(&chain).unwrap();
    assert_eq!(chain.last(), Some(&world.authorities.issuer));
    let rows = world.journal().await;
    assert_eq!((rows.len(), rows[0].kind), (1, JournalKind::Server));
    // Nobody downloads it as his own.
    let directory = OTHER.parse().unwrap();
    assert_eq!(reason(world.ca.download(&directory, chain[0].serial()).await), Reason::CertificateUnknown);
}

#[tokio::test]
async fn a_front_gets_nothing_else() {
    let world = with_front(&["ca.test"]).await;
    for (node, names, expected) in [
        ("eu-1", &["bank.test"][..], Reason::NodeName),
        ("eu-1", &["ca.test", "bank.test"], Reason::NodeName),
        ("eu-1", &["*.ca.test"], Reason::NodeName),
        ("eu-2", &["ca.test"], Reason::NodeForbidden),
        ("validator-1", &["ca.test"], Reason::NodeForbidden),
    ] {
        let outcome = world.ca.issue_server_certificate(node, &csr(names)).await;
        assert_eq!(reason(outcome), expected, "{node} {names:?}");
    }
    assert!(world.issuer_key.signed().is_empty());
    for _ in 0..20 {
        world.ca.issue_server_certificate("eu-1", &csr(&["ca.test"])).await.unwrap();
    }
    let outcome = world.ca.issue_server_certificate("eu-1", &csr(&["ca.test"])).await;
    assert_eq!(reason(outcome), Reason::RateLimited);
}

#[tokio::test]
async fn a_certificate_is_downloaded_with_its_chain() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let directory = client.directory.parse().unwrap();
    let download = world.ca.download(&directory, issued.serial).await.unwrap();
    assert_eq!(download.account, client.account.unwrap().to_string());
    assert_eq!(download.chain[0], issued.certificate);
    let chain: Vec<_> = download.chain.iter().map(|der| Certificate::from_der(der).unwrap()).collect();
    chain::check_order(&chain).unwrap();
    chain::is_issued_by(chain.last().unwrap(), &world.authorities.root).unwrap();

    let unknown = pki::Serial::from_random([5; 16]);
    for (directory, serial) in [(&directory, unknown), (&OTHER.parse().unwrap(), issued.serial)] {
        assert_eq!(reason(world.ca.download(directory, serial).await), Reason::CertificateUnknown);
    }
}
