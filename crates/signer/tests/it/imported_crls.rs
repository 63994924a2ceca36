//! The CRL of an offline root: imported by an operator, published by every signer, never an older one over a newer one.

use std::sync::Arc;
use std::time::Duration;

use ca_store::CaStore as _;
use pki::crl::{Crl, CrlParameters, CrlScope, CrlTotals, CrlWriter, Entry};
use pki::{Certificate, Issuer, Period, Reason as Why, Serial, SignatureAlgorithm, Timestamp};
use runtime::Readiness;
use signer::config::Limits;
use signer::crl::ImportedCrls;
use signer::publication::Objects;
use signer::{Failure, Reason};
use testkit::Cluster;
use testkit::signing::SoftKey;
use tokio_util::sync::CancellationToken;

use crate::crls::wait;
use crate::support::{World, reason};

fn crl(root: &Certificate, key: &SoftKey, number: u64, this_update: Timestamp) -> Vec<u8> {
    let revoked =
        Entry { serial: Serial::from_random([7; 16]), revoked_at: this_update, reason: Why::CaCompromise };
    crl_of(root, key, number, this_update, &[revoked])
}

fn crl_of(
    root: &Certificate,
    key: &SoftKey,
    number: u64,
    this_update: Timestamp,
    entries: &[Entry],
) -> Vec<u8> {
    let issuer = Issuer::new(root.clone(), SignatureAlgorithm::EcdsaSha256).unwrap();
    let parameters = CrlParameters {
        issuer: &issuer,
        number,
        this_update,
        next_update: this_update.plus(Period::from_days(100)),
        scope: CrlScope::Complete,
        delta_base: None,
    };
    let totals: CrlTotals = entries.iter().collect();
    let mut writer = CrlWriter::start(&parameters, totals, Vec::new()).unwrap();
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    let (tbs, facts) = writer.finish().unwrap();
    pki::crl::assemble(&tbs, facts.algorithm, &key.sign_message(&tbs))
}

fn of_root(world: &World, number: u64, this_update: Timestamp) -> Vec<u8> {
    crl(&world.authorities.root, &world.authorities.root_key, number, this_update)
}

struct Publishes {
    objects: Objects,
    readiness: Readiness,
    draining: CancellationToken,
}

impl Publishes {
    fn start(world: &World) -> Self {
        let objects = Objects::of(world.ca.registry());
        let (readiness, draining) = (Readiness::default(), CancellationToken::new());
        let imported = ImportedCrls::new(Arc::clone(&world.ca), objects.clone(), &readiness);
        tokio::spawn(imported.keep_current(draining.clone()));
        Self { objects, readiness, draining }
    }

    fn notice(&self) -> serde_json::Value {
        let report = serde_json::to_value(self.readiness.report(false)).unwrap();
        report["dependencies"]["crl of root root"].clone()
    }
}

impl Drop for Publishes {
    fn drop(&mut self) {
        self.draining.cancel();
    }
}

fn path(world: &World) -> String {
    world.ca.registry().roots()[0].crl_path()
}

fn detail<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> String {
    match outcome {
        Err(Failure::Refused(refusal)) => {
            assert_eq!(refusal.reason, Reason::OperatorRequest);
            refusal.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_imported_crl_is_published_and_rises() {
    let world = World::start().await;
    let works = Publishes::start(&world);
    let path = path(&world);
    wait(|| works.notice()["state"] == "down").await;
    let der = of_root(&world, 5, world.now());
    // As the ceremony writes it, too.
    let pem = pki::chain::pem_block("X509 CRL", &der);
    let (root, row) = world.ca.import_crl("alice", pem.into_bytes(), false).await.unwrap();
    assert_eq!((root.as_str(), row.number, &row.der), ("root", 5, &der));
    wait(|| works.objects.revision(&path) == Some(5)).await;
    assert_eq!(works.objects.size(&path), Some(der.len() as u64));
    wait(|| works.notice()["state"] == "up").await;
    // Said twice, it is there.
    world.ca.import_crl("alice", der.clone(), false).await.unwrap();

    world.clock.advance(Duration::from_secs(10));
    let now = world.now();
    for (number, at) in [(5, now), (4, now), (6, now.minus(Period::from_seconds(10)))] {
        let said = detail(world.ca.import_crl("alice", of_root(&world, number, at), false).await);
        assert!(said.contains("is not newer than number 5"), "{said}");
    }
    world.ca.import_crl("bob", of_root(&world, 6, now), false).await.unwrap();
    wait(|| works.objects.revision(&path) == Some(6)).await;
    let kinds = world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "crl.imported").count(), 2);
    let listed = world.ca.list_crls().await.unwrap();
    assert_eq!((listed[0].authority.as_str(), listed[0].kind, listed[0].number), ("root", "imported", 6));
    drop(works);

    // After a restart the row is what counts; and someone is told in time.
    let world = world.restart().await;
    let works = Publishes::start(&world);
    wait(|| works.objects.revision(&path) == Some(6)).await;
    world.clock.advance(Duration::from_secs(79 * 86_400));
    wait(|| works.notice()["state"] == "up").await;
    world.clock.advance(Duration::from_secs(86_400 + 1));
    world.ca.events().announce(signer::Change::ImportedCrl);
    wait(|| works.notice()["state"] == "down").await;
    let text = works.notice()["detail"].to_string();
    assert!(text.contains("import it"), "{text}");
}

#[tokio::test]
async fn what_is_not_the_roots_is_not_imported() {
    let world = World::start().await;
    let (root, now) = (&world.authorities.root, world.now());
    let later = now.plus(Period::from_seconds(1));
    let mut changed = of_root(&world, 5, now);
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let cases = [
        (b"nothing".to_vec(), "not the DER"),
        (crl(root, &SoftKey::generate(), 5, now), "none of the roots"),
        (crl(&world.authorities.issuer, &world.issuer_key, 5, now), "none of the roots"),
        (of_root(&world, 5, later), "in the future"),
        (of_root(&world, 5, now.minus(Period::from_days(101))), "is past"),
    ];
    for (der, expected) in cases {
        let said = detail(world.ca.import_crl("alice", der, false).await);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(reason(world.ca.import_crl("alice", changed, false).await), Reason::OperatorRequest);
    assert_eq!(world.store.imported_crls().await.unwrap(), []);
}

/// What the root has revoked stays revoked, unless its operators say that it may leave.
#[tokio::test]
async fn an_entry_leaves_only_when_that_is_said() {
    let world = World::start().await;
    world.ca.import_crl("alice", of_root(&world, 5, world.now()), false).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    let empty = crl_of(&world.authorities.root, &world.authorities.root_key, 6, world.now(), &[]);
    let said = detail(world.ca.import_crl("alice", empty.clone(), false).await);
    assert!(
        said.contains("1 certificates that number 5 lists") && said.contains("--allow-removals"),
        "{said}"
    );
    world.ca.import_crl("alice", empty, true).await.unwrap();
}

/// A CRL for end entities' certificates says nothing about intermediates.
#[tokio::test]
async fn a_crl_without_cas_in_its_scope_is_not_imported() {
    let world = World::start().await;
    let der = of_root(&world, 5, world.now());
    let crl = Crl::from_der(&der).unwrap();
    // A critical issuingDistributionPoint with onlyContainsUserCerts, and signed again.
    let point = hex::decode("300f0603551d1c0101ff040530038101ff").unwrap();
    let tbs = with_extension(crl.tbs_bytes(), &point);
    let signature = world.authorities.root_key.sign_message(&tbs);
    let partial = pki::crl::assemble(&tbs, SignatureAlgorithm::EcdsaSha256, &signature);
    assert!(!Crl::from_der(&partial).unwrap().lists_ca_certificates());
    let said = detail(world.ca.import_crl("alice", partial, false).await);
    assert!(said.contains("onlyContainsUserCerts"), "{said}");
}

/// A TBSCertList with one more extension at its end: the lengths of the three structures around it grow.
fn with_extension(tbs: &[u8], extension: &[u8]) -> Vec<u8> {
    fn header(der: &[u8]) -> (usize, usize) {
        match der[1] {
            length @ 0..=0x7f => (2, usize::from(length)),
            0x81 => (3, usize::from(der[2])),
            0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
            other => panic!("{other}"),
        }
    }
    fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let length = match content.len() {
            0..0x80 => vec![length[1]],
            0x80..0x100 => vec![0x81, length[1]],
            _ => vec![0x82, length[0], length[1]],
        };
        [&[tag][..], &length, content].concat()
    }
    let content = &tbs[header(tbs).0..];
    // The last element is [0] EXPLICIT Extensions.
    let mut at = 0;
    let mut last = 0;
    while at < content.len() {
        last = at;
        let (head, length) = header(&content[at..]);
        at += head + length;
    }
    let explicit = &content[last..];
    assert_eq!(explicit[0], 0xa0);
    let list = &explicit[header(explicit).0..];
    let extensions = &list[header(list).0..];
    let list = wrapped(0x30, &[extensions, extension].concat());
    wrapped(0x30, &[&content[..last], &wrapped(0xa0, &list)].concat())
}

/// The first is in a file that the policy names: nothing older gets over it.
#[tokio::test]
async fn the_first_crl_is_the_policys() {
    let world = World::start().await;
    world.clock.advance(Duration::from_secs(100));
    let first = of_root(&world, 3, world.now());
    std::fs::write(world.folder.path().join("root.crl"), &first).unwrap();
    let from = "certificate = \"root.pem\"\n";
    let world = world.with_policy(from, &format!("{from}crl = \"root.crl\"\n")).await;
    let works = Publishes::start(&world);
    assert_eq!(works.objects.revision(&path(&world)), Some(3));
    world.clock.advance(Duration::from_secs(1));
    let said = detail(world.ca.import_crl("alice", of_root(&world, 3, world.now()), false).await);
    assert!(said.contains("is not newer than number 3"), "{said}");
    world.ca.import_crl("alice", of_root(&world, 4, world.now()), false).await.unwrap();
    wait(|| works.objects.revision(&path(&world)) == Some(4)).await;
}

/// A row that somebody else wrote is not published: the root did not sign it.
#[tokio::test]
async fn a_row_is_not_believed() {
    let cluster = Cluster::start();
    let world = World::on_server(&cluster, Limits::default()).await;
    world.ca.import_crl("alice", of_root(&world, 5, world.now()), false).await.unwrap();
    let forged = crl(&world.authorities.root, &SoftKey::generate(), 9, world.now());
    let sql = format!("UPDATE ca.imported_crls SET number = 9, der = '\\x{}'", hex::encode(&forged));
    cluster.sql("postgres", &sql);
    let works = Publishes::start(&world);
    wait(|| world.store.calls().iter().filter(|call| **call == "imported_crls").count() >= 1).await;
    tokio::task::yield_now().await;
    wait(|| works.notice()["state"] == "down").await;
    assert_eq!(works.objects.revision(&path(&world)), None);
    assert!(Crl::from_der(&forged).is_ok());
}

/// Another signer publishes it by event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_signers_hear_of_it() {
    let cluster = Cluster::start();
    let one = World::on_server(&cluster, Limits::default()).await;
    let two = one.beside(&cluster, 2).await;
    let draining = CancellationToken::new();
    let (ca, end) = (Arc::clone(&two.ca), draining.clone());
    tokio::spawn(async move { ca.follow_others(end).await });
    let works = Publishes::start(&two);
    let mut changes = two.ca.events().subscribe();
    wait(|| two.store.calls().contains(&"imported_crls")).await;
    one.ca.import_crl("alice", of_root(&one, 5, one.now()), false).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.unwrap().unwrap();
    assert_eq!(heard, signer::Change::ImportedCrl);
    wait(|| works.objects.revision(&path(&two)) == Some(5)).await;
    draining.cancel();
}
