//! CRLs of the journal's revocations: numbers, entries, what a crash and a bad disk leave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ca_store::{CaStore as _, CrlRow, CrlShard, JournalKey, LeaseOutcome};
use futures::StreamExt as _;
use pki::crl::Crl;
use pki::{Reason, Serial};
use rpc::proto::status::v1 as wire;
use rpc::proto::status::v1::publication_server::Publication as _;
use signer::Change;
use signer::crl::CrlMaker;
use signer::issue::Issued;
use signer::publication::{Objects, PublicationService};
use testkit::signing::{KeyFault, SoftKey};
use testkit::store::StoreFault;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::support::World;

pub(crate) const SHARDS: u32 = 4;
pub(crate) const ISSUER: &str = "tls-1";

/// A maker at work, and what it publishes.
pub(crate) struct Works {
    pub(crate) objects: Objects,
    service: PublicationService,
    draining: CancellationToken,
    task: JoinHandle<()>,
}

impl Works {
    pub(crate) fn start(world: &World) -> Self {
        Self::start_in(world, world.folder.path().join("crl"))
    }

    /// The timers are looked at at the start, and not again in a test's time.
    pub(crate) fn start_without_timers(world: &World) -> Self {
        Self::start_with(world, world.folder.path().join("crl"), |maker| {
            maker.with_round(Duration::from_secs(86_400))
        })
    }

    pub(crate) fn start_in(world: &World, spool: PathBuf) -> Self {
        Self::start_with(world, spool, |maker| maker)
    }

    pub(crate) fn start_with(world: &World, spool: PathBuf, with: impl FnOnce(CrlMaker) -> CrlMaker) -> Self {
        let objects = Objects::of(world.ca.registry());
        let draining = CancellationToken::new();
        let maker = with(CrlMaker::new(Arc::clone(&world.ca), objects.clone(), spool).unwrap());
        let end = draining.clone();
        let task = tokio::spawn(async move { maker.keep_current(end).await.unwrap() });
        let service = PublicationService::new(objects.clone(), draining.clone());
        Self { objects, service, draining, task }
    }

    pub(crate) async fn stop(self) {
        self.draining.cancel();
        self.task.await.unwrap();
    }

    /// Waits until a shard's CRL has this number, or a later one.
    pub(crate) async fn reaches(&self, world: &World, shard: u32, number: u64) -> Vec<u8> {
        let path = path(world, shard);
        wait(|| self.objects.revision(&path) >= Some(number)).await;
        self.fetch(&path).await.unwrap()
    }

    /// As [`Works::reaches`], every shard.
    pub(crate) async fn all_reach(&self, world: &World, number: u64) {
        for shard in 0..SHARDS {
            self.reaches(world, shard, number).await;
        }
    }

    pub(crate) async fn fetch(&self, path: &str) -> Result<Vec<u8>, tonic::Status> {
        let request = wire::FetchObjectRequest { path: path.to_owned(), revision: 0 };
        let mut pieces = self.service.fetch_object(Request::new(request)).await?.into_inner();
        let mut content = Vec::new();
        while let Some(piece) = pieces.next().await {
            content.extend_from_slice(&piece?.data);
        }
        Ok(content)
    }
}

impl World {
    pub(crate) async fn some_certificate(&self) -> (Issued, u32) {
        let client = self.client().await;
        let ready = self.ready_one(&client, "example.org").await;
        let issued = self.issue(ready.finalized_by(&client)).await.unwrap();
        let entry = self.store.journal(&JournalKey::Serial(issued.serial)).await.unwrap().remove(0);
        (issued, entry.row.unverified().shard)
    }

    pub(crate) async fn withdraw(&self, serial: Serial) {
        self.ca.revoke_by_operator("alice", serial, Reason::Superseded).await.unwrap();
    }

    pub(crate) async fn published(&self, shard: u32) -> CrlRow {
        let rows = self.store.crl_shards(Some(ISSUER)).await.unwrap();
        rows.into_iter().find(|row| row.shard.shard == shard).unwrap().published.unwrap()
    }

    pub(crate) fn later(&self, days: u64) {
        self.clock.advance(Duration::from_secs(days * 86_400 + 1));
    }

    pub(crate) fn nudge(&self, shard: u32) {
        self.ca.events().announce(Change::Shard { issuer: ISSUER.into(), shard });
    }
}

pub(crate) fn path(world: &World, shard: u32) -> String {
    world.ca.registry().issuer(ISSUER).unwrap().crl_path(shard)
}

pub(crate) async fn wait(mut done: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came");
}

pub(crate) fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// What our own lints and openssl say of a CRL; `None` of the leaf: good.
fn judge(world: &World, shard: u32, der: &[u8], leaf: &[u8]) -> Option<String> {
    let issuer = &world.authorities.issuer;
    let crl = Crl::from_der(der).unwrap();
    crl.verify_issued_by(issuer).unwrap();
    let url = format!("http://status.test/{}", path(world, shard));
    let context = pki::lint::CrlLintContext {
        issuer,
        signed_at: crl.this_update(),
        url: Some(&url),
        delta_url: None,
        previous_number: Some(1),
        publicly_trusted: true,
    };
    assert_eq!(pki::lint::check_crl(crl.tbs_bytes(), &context), []);
    openssl(world, &[der], leaf)
}

/// What openssl says of a leaf by a complete CRL, and a delta on it if there is one; `None`: good.
pub(crate) fn openssl(world: &World, crls: &[&[u8]], leaf: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let pem = |label: &str, der: &[u8]| pki::chain::pem_block(label, der);
    let deltas: &[&str] = if crls.len() > 1 { &["-use_deltas", "-extended_crl"] } else { &[] };
    let crls = file("crls", crls.iter().map(|crl| pem("X509 CRL", crl)).collect());
    let issuer = file("issuer", world.authorities.issuer.pem());
    let leaf = file("leaf", pem("CERTIFICATE", leaf));
    let verified = Command::new("openssl")
        .args(["verify", "-partial_chain", "-crl_check", "-attime", &world.now().unix().to_string()])
        .args(deltas)
        .arg("-CRLfile")
        .arg(crls)
        .arg("-trusted")
        .arg(issuer)
        .arg(leaf)
        .output()
        .unwrap_or_else(|error| panic!("openssl ({error}): apt install openssl"));
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    (!verified.status.success()).then_some(said)
}

#[tokio::test]
async fn f7_a_revoked_certificate_is_in_the_next_crl() {
    let world = World::start().await;
    let (issued, shard) = world.some_certificate().await;
    let works = Works::start(&world);
    let first = works.reaches(&world, shard, 2).await;
    assert_eq!(Crl::from_der(&first).unwrap().entry_count(), 0);
    assert_eq!(judge(&world, shard, &first, &issued.certificate), None);

    world.later(0);
    world.withdraw(issued.serial).await;
    world.later(0);
    let second = works.reaches(&world, shard, 3).await;
    let crl = Crl::from_der(&second).unwrap();
    let entry = crl.find(&issued.serial).unwrap();
    assert_eq!(entry.reason, Reason::Superseded);
    let said = judge(&world, shard, &second, &issued.certificate).unwrap();
    assert!(said.contains("certificate revoked"), "{said}");
    // The others had no reason to change.
    for other in (0..SHARDS).filter(|other| *other != shard) {
        works.reaches(&world, other, 2).await;
        assert_eq!(works.objects.revision(&path(&world, other)), Some(2));
    }
    works.stop().await;
    let kinds = world.audit_kinds().await;
    let count = |kind: &str| kinds.iter().filter(|one| *one == kind).count();
    assert_eq!((count("crl.intended"), count("crl.published")), (5, 5));
}

#[tokio::test]
async fn k5_shards_together_list_all_that_is_revoked() {
    let world = World::start().await;
    let works = Works::start(&world);
    works.all_reach(&world, 2).await;
    world.later(0);
    let client = world.client().await;
    let (mut revoked, mut shards) = (BTreeMap::new(), BTreeSet::new());
    while revoked.len() < 8 || shards.len() < 2 {
        let name = format!("n{}.example.org", revoked.len());
        let ready = world.ready_one(&client, &name).await;
        let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
        let entry = world.store.journal(&JournalKey::Serial(issued.serial)).await.unwrap().remove(0);
        let shard = entry.row.unverified().shard;
        world.withdraw(issued.serial).await;
        revoked.insert(issued.serial, (shard, issued.certificate));
        shards.insert(shard);
    }
    world.later(0);
    let mut listed = BTreeMap::new();
    for shard in 0..SHARDS {
        let wanted = revoked.values().filter(|(of, _)| *of == shard).count() as u64;
        let crl = loop {
            let der = works.fetch(&path(&world, shard)).await.unwrap();
            let crl = Crl::from_der(&der).unwrap();
            if crl.entry_count() >= wanted {
                break der;
            }
            world.later(0);
            world.nudge(shard);
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // Each names itself in a critical extension, by the very URL of its certificates: the lints look at it.
        if let Some((_, certificate)) = revoked.values().find(|(of, _)| *of == shard) {
            assert!(judge(&world, shard, &crl, certificate).unwrap().contains("certificate revoked"));
        }
        for entry in Crl::from_der(&crl).unwrap().entries() {
            assert_eq!(listed.insert(entry.unwrap().serial, shard), None, "in two shards");
        }
    }
    assert_eq!(listed, revoked.iter().map(|(serial, (shard, _))| (*serial, *shard)).collect());
    works.stop().await;
}

#[tokio::test]
async fn k1_numbers_and_times_rise_over_restarts_and_makers() {
    let mut world = World::start().await;
    let mut last: Option<CrlRow> = None;
    for life in 0..2 {
        // Two at once, as two signers would be.
        let works = Works::start(&world);
        let other = Works::start_in(&world, world.folder.path().join("crl-2"));
        world.later(1);
        world.nudge(0);
        let number = last.as_ref().map_or(2, |row| row.key.number + 1);
        let der = works.reaches(&world, 0, number).await;
        let theirs = other.reaches(&world, 0, number).await;
        works.stop().await;
        other.stop().await;
        let row = world.published(0).await;
        for crl in [&der, &theirs] {
            let crl = Crl::from_der(crl).unwrap();
            if let Some(last) = &last {
                assert!(crl.number() > last.key.number, "life {life}");
                assert!(crl.this_update() > last.this_update, "life {life}");
            }
        }
        last = Some(row);
        if life == 0 {
            world = world.restart().await;
        }
    }
}

#[tokio::test]
async fn k3_an_expired_certificate_leaves_one_scheduled_crl_later() {
    let world = World::start().await;
    let (issued, shard) = world.some_certificate().await;
    let works = Works::start(&world);
    works.reaches(&world, shard, 2).await;
    world.withdraw(issued.serial).await;
    world.later(0);
    let has = |der: &[u8]| Crl::from_der(der).unwrap().find(&issued.serial).is_some();
    let mut number = 3;
    assert!(has(&works.reaches(&world, shard, number).await));

    // Its last second.
    let not_after = pki::Certificate::from_der(&issued.certificate).unwrap().not_after();
    let left = not_after.since(world.now()).seconds();
    world.clock.advance(Duration::from_secs(left));
    world.nudge(shard);
    number += 1;
    assert!(has(&works.reaches(&world, shard, number).await), "it has not expired");

    // Expired. CRLs by event, soon one after another, do not count as the one that it must be in.
    world.later(0);
    let (another, other_shard) = loop {
        let (another, at) = world.some_certificate().await;
        if at == shard {
            break (another, at);
        }
    };
    world.withdraw(another.serial).await;
    number += 1;
    world.later(0);
    assert!(has(&works.reaches(&world, other_shard, number).await), "in the first after its end");
    world.ca.revoke_by_operator("alice", another.serial, Reason::KeyCompromise).await.unwrap();
    number += 1;
    world.later(0);
    assert!(has(&works.reaches(&world, shard, number).await), "the one before was by event");

    world.later(1);
    world.nudge(shard);
    number += 1;
    assert!(has(&works.reaches(&world, shard, number).await), "the scheduled one after its end");
    world.later(1);
    world.nudge(shard);
    number += 1;
    assert!(!has(&works.reaches(&world, shard, number).await), "gone after it");
    works.stop().await;
}

#[tokio::test]
async fn a_crl_is_made_again_from_its_revision() {
    let world = World::start().await;
    let (issued, shard) = world.some_certificate().await;
    let works = Works::start(&world);
    works.reaches(&world, shard, 2).await;
    world.withdraw(issued.serial).await;
    world.later(0);
    let der = works.reaches(&world, shard, 3).await;
    works.stop().await;
    let row = world.published(shard).await;
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, Crl::from_der(&der).unwrap().tbs_bytes());
    assert_eq!(digest.as_ref(), row.tbs_sha256, "the journal has the digest of what was signed");
    assert_eq!(row.entries, 1);

    // What was changed on the disk is replaced: another shard's CRL of that number, which is signed as well.
    let spool = world.folder.path().join("crl");
    let file = |shard: u32, number: u64| spool.join(format!("{ISSUER}-{shard}-{number}.crl"));
    let other = (shard + 1) % SHARDS;
    let signed = world.issuer_key.signed().len();
    std::fs::write(file(shard, 3), std::fs::read(file(other, 2)).unwrap()).unwrap();
    std::fs::write(file(other, 2), b"torn").unwrap();
    std::fs::write(file(shard, 1), b"of an earlier life").unwrap();
    std::fs::write(spool.join("tls-1-0-9.tbs"), b"of an earlier life").unwrap();
    let works = Works::start(&world);
    assert_eq!(works.reaches(&world, shard, 3).await, der, "the same bytes");
    assert_eq!(Crl::from_der(&works.reaches(&world, other, 2).await).unwrap().number(), 2);
    works.all_reach(&world, 2).await;
    works.stop().await;
    assert_eq!(std::fs::read(file(shard, 3)).unwrap(), der);
    assert_eq!(files(&spool).len(), SHARDS as usize, "{:?}", files(&spool));
    // And all of it without the key.
    assert_eq!(world.issuer_key.signed().len(), signed);
}

#[tokio::test]
async fn a_file_that_is_changed_while_it_is_served_is_made_again() {
    let world = World::start().await;
    let works = Works::start(&world);
    let der = works.reaches(&world, 0, 2).await;
    let file = world.folder.path().join("crl").join("tls-1-0-2.crl");
    let mut changed = der.clone();
    changed[40] ^= 1;
    for content in [Some(changed), None] {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let path = path(&world, 0);
        assert_eq!(works.fetch(&path).await.unwrap_err().code(), tonic::Code::Unavailable);
        assert_eq!(works.objects.revision(&path), None);
        world.nudge(0);
        assert_eq!(works.reaches(&world, 0, 2).await, der);
    }
    works.stop().await;
}

#[tokio::test]
async fn what_cannot_be_made_again_is_made_anew() {
    let world = World::start().await;
    let works = Works::start(&world);
    // All of them, so that nothing is being written any longer when the folder goes.
    works.all_reach(&world, 2).await;
    works.stop().await;
    // Its URL has changed: the journaled bytes cannot come out any more.
    let policy = world.folder.path().join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, text.replace("http://status.test/crl", "http://moved.test/crl")).unwrap();
    std::fs::remove_dir_all(world.folder.path().join("crl")).unwrap();
    let world = world.restart().await;
    world.later(0);
    let works = Works::start(&world);
    let der = works.reaches(&world, 0, 3).await;
    works.stop().await;
    let urls = Crl::from_der(&der).unwrap().distribution_urls().to_vec();
    assert!(urls[0].starts_with("http://moved.test/crl/"), "{urls:?}");
}

#[tokio::test]
async fn k7_a_signature_that_is_not_the_issuers_is_never_published() {
    let world = World::start().await;
    let works = Works::start(&world);
    works.reaches(&world, 0, 2).await;
    works.stop().await;
    // Of the database, with a spool that was lost.
    std::fs::remove_dir_all(world.folder.path().join("crl")).unwrap();
    world.store.alter_shards(|mut rows| {
        for row in rows.iter_mut().filter_map(|row| row.published.as_mut()).filter(|row| row.key.number == 2)
        {
            row.signature = Some(SoftKey::generate().sign_message(b"something else"));
        }
        rows
    });
    world.later(0);
    let works = Works::start(&world);
    let der = works.reaches(&world, 0, 2).await;
    works.stop().await;
    let crl = Crl::from_der(&der).unwrap();
    crl.verify_issued_by(&world.authorities.issuer).unwrap();
    assert_eq!(crl.number(), 3, "another was made");
}

#[tokio::test]
async fn a_crl_comes_after_every_fault() {
    let methods = ["begin_crl", "crl_entries", "journal_crl", "publish_crl", "claim_lease", "crl_shards"];
    let faults = [StoreFault::Failed, StoreFault::FailedButPersisted];
    let cases = methods.into_iter().flat_map(|method| faults.map(|fault| (method, fault)));
    let all = cases.map(|(method, fault)| async move {
        let world = World::start().await;
        world.store.fail_next(method, fault);
        let works = Works::start(&world);
        for shard in 0..SHARDS {
            let der = works.reaches(&world, shard, 2).await;
            Crl::from_der(&der).unwrap().verify_issued_by(&world.authorities.issuer).unwrap();
        }
        works.stop().await;
    });
    futures::future::join_all(all).await;
}

#[tokio::test]
async fn a_key_that_was_away_signs_when_it_is_back() {
    let world = World::start().await;
    for _ in 0..SHARDS {
        world.issuer_key.fail_next(KeyFault::Failed);
    }
    world.issuer_key.fail_next(KeyFault::FailedAfterSigning);
    let works = Works::start(&world);
    works.all_reach(&world, 2).await;
    works.stop().await;
}

#[tokio::test]
async fn another_signers_lease_is_respected_and_left_alone() {
    let world = World::start().await;
    let works = Works::start(&world);
    works.all_reach(&world, 2).await;
    works.stop().await;
    let (before, number) = (world.store.calls().len(), world.published(0).await.key.number);
    world.store.alter_leases(|_| LeaseOutcome::Taken { owner: 77, until_ms: i64::MAX });
    world.later(1);
    let works = Works::start(&world);
    wait(|| world.store.calls()[before..].iter().filter(|call| **call == "claim_lease").count() >= 4).await;
    works.stop().await;
    let calls = world.store.calls();
    let claims = calls[before..].iter().filter(|call| **call == "claim_lease").count();
    let begun = calls[before..].iter().filter(|call| **call == "begin_crl").count();
    // Looked at again and again: the other one may die.
    assert!(claims >= SHARDS as usize, "{claims}");
    assert_eq!(begun, 0, "nothing made");
    assert_eq!(world.published(0).await.key.number, number);

    // What was revoked here does not wait for the other: its CRL may have been begun before. The lease stays the other's.
    world.store.leave_alone();
    let (issued, shard) = world.some_certificate().await;
    let works = Works::start(&world);
    works.all_reach(&world, number + 1).await;
    world.store.alter_leases(|_| LeaseOutcome::Taken { owner: 77, until_ms: i64::MAX });
    let before = world.store.calls().len();
    world.withdraw(issued.serial).await;
    world.later(0);
    let der = works.reaches(&world, shard, number + 2).await;
    assert!(Crl::from_der(&der).unwrap().find(&issued.serial).is_some());
    works.stop().await;
    let calls = world.store.calls();
    let claims = calls[before..].iter().filter(|call| **call == "claim_lease").count();
    assert_eq!(claims, 1, "claimed, not given up");
}

/// The lease of a CRL is short, so that a signer that dies holds nobody up, and renewed while the CRL is made.
#[tokio::test]
async fn the_lease_of_a_crl_is_renewed_while_it_is_made() {
    let world = World::start().await;
    let works = Works::start(&world);
    works.all_reach(&world, 2).await;
    works.stop().await;
    let before = world.store.calls().len();
    let claims = || world.store.calls()[before..].iter().filter(|call| **call == "claim_lease").count();
    let begun = || world.store.calls()[before..].iter().filter(|call| **call == "begin_crl").count();
    world.issuer_key.hold(true);
    world.later(1);
    let works = Works::start(&world);
    wait(|| claims() >= 4).await;
    assert_eq!(begun(), 1, "it is one CRL that they are about");
    world.issuer_key.hold(false);
    works.all_reach(&world, 3).await;
    works.stop().await;
}

#[tokio::test]
async fn objects_are_listed_and_watched_until_the_drain() {
    let world = World::start().await;
    let works = Works::start(&world);
    works.all_reach(&world, 2).await;
    let list = works.service.list_objects(Request::new(wire::ListObjectsRequest {})).await.unwrap();
    let list = list.into_inner().objects;
    let paths: Vec<&str> = list.iter().map(|object| object.path.as_str()).collect();
    assert!(paths.contains(&"issuer/tls-1.cer") && paths.contains(&"issuer/root.cer"), "{paths:?}");
    assert_eq!(list.len(), 2 + SHARDS as usize);
    let sha256 = |der: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref().to_vec();
    for object in &list {
        let content = works.fetch(&object.path).await.unwrap();
        assert_eq!(object.sha256, sha256(&content));
        assert_eq!(object.size, content.len() as u64);
        let crl = object.kind() == wire::ObjectKind::Crl;
        let issuer = if crl { &world.authorities.issuer } else { &world.authorities.root };
        assert_eq!(object.issuer_sha256, sha256(issuer.der()), "{}", object.path);
        assert_eq!(object.next_update - object.this_update, if crl { 4 * 86_400 } else { 0 });
    }

    let watch = works.service.watch_objects(Request::new(wire::WatchObjectsRequest {})).await.unwrap();
    let mut watch = watch.into_inner();
    let mut seen = Vec::new();
    for _ in 0..list.len() {
        seen.push(watch.next().await.unwrap().unwrap());
    }
    assert_eq!(seen, list, "the stream opens with the full list");
    world.later(1);
    world.nudge(1);
    let next = watch.next().await.unwrap().unwrap();
    assert_eq!((next.kind(), next.revision), (wire::ObjectKind::Crl, 3));

    let unknown = works.fetch("crl/nothing/0.crl").await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let old = wire::FetchObjectRequest { path: path(&world, 1), revision: 1 };
    let old = works.service.fetch_object(Request::new(old)).await.err().unwrap();
    assert_eq!(old.code(), tonic::Code::NotFound);
    works.stop().await;
    while let Some(more) = watch.next().await {
        more.unwrap();
    }
}

#[tokio::test]
async fn a_shard_that_is_not_published_is_not_listed() {
    let world = World::start().await;
    world.issuer_key.hold(true);
    let works = Works::start(&world);
    wait(|| world.store.calls().contains(&"journal_crl")).await;
    let list = works.service.list_objects(Request::new(wire::ListObjectsRequest {})).await.unwrap();
    assert!(list.into_inner().objects.iter().all(|object| object.kind() == wire::ObjectKind::Certificate));
    let rows = world.store.crl_shards(Some(ISSUER)).await.unwrap();
    assert!(rows.iter().all(|row| row.published.is_none()));
    assert_eq!(rows[0].shard, CrlShard { issuer: ISSUER.to_owned(), shard: 0 });
    works.stop().await;
    world.issuer_key.hold(false);
}
