//! Issuers that issue no more: what they go on signing, and their last CRLs.

use std::time::Duration;

use ca_store::CaStore as _;
use ca_store::{CrlRow, JournalKey};
use pki::crl::Crl;
use pki::ocsp::CertStatus;
use pki::{Certificate, Period, Reason};

use crate::crls::{ISSUER, Works, wait};
use crate::support::metrics::Metrics;
use crate::support::ocsp::wait as wait_until;
use crate::support::{OcspWorld, World};

const SECOND: &str = r#"
[[issuer]]
name = "tls-2"
certificate = "successor.pem"
token = "soft"
key_id = "04"
pool = "tls"
crl_url_base = "http://status.test/crl"

[[profile]]
name = "tls"
"#;

/// The issuer is retired, and another one has taken its place.
async fn retire(world: World, more: &str) -> World {
    let world = world.with_policy("\n[[profile]]\nname = \"tls\"\n", SECOND).await;
    world.with_policy("shards = 4\n", &format!("shards = 4\nstate = \"retired\"\n{more}")).await
}

fn not_after(world: &World) -> pki::Timestamp {
    world.authorities.issuer.not_after()
}

/// Waits until the shard's published CRL is the last.
async fn last(world: &World, shard: u32) -> CrlRow {
    for _ in 0..1500 {
        let rows = world.store.crl_shards(Some(ISSUER)).await.unwrap();
        let row = rows.into_iter().find(|row| row.shard.shard == shard).and_then(|row| row.published);
        if let Some(row) = row.filter(|row| row.next_update == not_after(world)) {
            return row;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came");
}

/// The highest CRL number of the issuer that took its place.
async fn successor(world: &World) -> u64 {
    let rows = world.store.crl_shards(Some("tls-2")).await.unwrap();
    rows.iter().filter_map(|row| row.published.as_ref()).map(|crl| crl.key.number).max().unwrap_or(0)
}

#[tokio::test]
async fn a_retired_issuer_signs_crls_only() {
    let world = World::start().await;
    let (issued, shard) = world.some_certificate().await;
    let works = Works::start(&world);
    works.reaches(&world, shard, 2).await;
    works.stop().await;
    let world = retire(world, "").await;
    for _ in 0..3 {
        let (other, _) = world.some_certificate().await;
        let entry = world.store.journal(&JournalKey::Serial(other.serial)).await.unwrap().remove(0);
        assert_eq!(entry.row.unverified().issuer, "tls-2");
    }
    let works = Works::start(&world);
    world.later(0);
    world.withdraw(issued.serial).await;
    let der = works.reaches(&world, shard, 3).await;
    let crl = Crl::from_der(&der).unwrap();
    crl.verify_issued_by(&world.authorities.issuer).unwrap();
    assert!(crl.find(&issued.serial).is_some());
    assert!(crl.next_update() < not_after(&world), "others will follow: its certificates live");
    works.stop().await;
}

/// Relying parties ask about its certificates until the last one ends.
#[tokio::test]
async fn a_retired_issuer_answers_ocsp() {
    let it = OcspWorld::start().await;
    let (issued, other) = (it.certificate("a.example.org").await, it.certificate("b.example.org").await);
    let it = it.with_policy("\n[[profile]]\nname = \"tls\"\n", SECOND).await;
    let it = it.with_policy("shards = 4\n", "shards = 4\nstate = \"retired\"\n").await;
    it.work();
    it.ready().await;
    assert_eq!(it.status(&issued.serial).await, CertStatus::Good);
    it.world.ca.revoke_by_operator("alice", issued.serial, Reason::Superseded).await.unwrap();
    let revoked = CertStatus::Revoked { at: it.world.now(), reason: Reason::Superseded };
    assert_eq!(it.status(&issued.serial).await, revoked);
    assert_eq!(it.status(&other.serial).await, CertStatus::Good);
    // Its responder's certificate is renewed by it, too.
    let before = it.responder_rows().await.len();
    it.advance(Period::from_days(6)).await;
    wait_until(async || it.responder_rows().await.len() > before).await;
    assert_eq!(it.status(&other.serial).await, CertStatus::Good);
}

#[tokio::test]
async fn nothing_follows_the_last_crl_that_the_operator_ordered() {
    let heard = Metrics::default();
    let _listening = heard.listen();
    let world = World::start().await;
    let (issued, shard) = world.some_certificate().await;
    world.withdraw(issued.serial).await;
    let works = Works::start(&world);
    works.reaches(&world, shard, 2).await;
    works.stop().await;
    world.later(0);
    let world = retire(world, "last_crl = true\n").await;
    let works = Works::start(&world);
    let row = last(&world, shard).await;
    let der = works.reaches(&world, shard, row.key.number).await;
    assert!(Crl::from_der(&der).unwrap().find(&issued.serial).is_some(), "what was revoked stays revoked");
    for shard in 0..4 {
        last(&world, shard).await;
    }
    // Neither time nor an event makes another one.
    let before_later = successor(&world).await;
    world.later(30);
    let looks = || world.store.calls().iter().filter(|call| **call == "crl_shards").count();
    let before = looks();
    world.nudge(shard);
    wait(|| looks() > before + 1).await;
    assert_eq!(
        heard.shows("chancery_crls_late", &[("issuer", ISSUER)]),
        Some(0.0),
        "nobody waits for another one"
    );
    // The successor's are made on.
    wait_until(async || successor(&world).await > before_later).await;
    works.stop().await;
    assert_eq!(world.published(shard).await, row);
}

/// Its responder's certificate is not one that a CRL would have to be made for.
#[tokio::test]
async fn a_responder_that_renews_itself_does_not_hold_the_last_crl_up() {
    let it = OcspWorld::start().await;
    let (issued, shard) = it.world.some_certificate().await;
    let it = it.with_policy("\n[[profile]]\nname = \"tls\"\n", SECOND).await;
    let it = it.with_policy("shards = 4\n", "shards = 4\nstate = \"retired\"\n").await;
    let ended = Certificate::from_der(&issued.certificate).unwrap().not_after();
    it.world.clock.advance(Duration::from_secs(ended.since(it.world.now()).seconds() + 30 * 86400));
    it.work();
    it.ready().await;
    let works = Works::start(&it.world);
    assert_eq!(last(&it.world, shard).await.entries, 0);
    works.stop().await;
}

#[tokio::test]
async fn k3_an_issuer_whose_certificates_have_all_ended_makes_its_last_crl() {
    let world = World::start().await;
    let (issued, shard) = world.some_certificate().await;
    world.withdraw(issued.serial).await;
    let works = Works::start(&world);
    works.reaches(&world, shard, 2).await;
    works.stop().await;
    let world = retire(world, "").await;
    // It has ended, but has not yet been in a scheduled CRL since.
    let ended = Certificate::from_der(&issued.certificate).unwrap().not_after();
    world.clock.advance(Duration::from_secs(ended.since(world.now()).seconds() + 1));
    let works = Works::start(&world);
    let der = works.reaches(&world, shard, 3).await;
    works.stop().await;
    let crl = Crl::from_der(&der).unwrap();
    assert!(crl.find(&issued.serial).is_some());
    assert!(crl.next_update() < not_after(&world));
    world.later(2);
    let works = Works::start(&world);
    let row = last(&world, shard).await;
    works.stop().await;
    assert_eq!(row.entries, 0);
    // After the end of its certificate, too, there is nothing to make.
    let left = not_after(&world).since(world.now()).seconds();
    world.clock.advance(Duration::from_secs(left + 1));
    let works = Works::start(&world);
    let looks = || world.store.calls().iter().filter(|call| **call == "crl_shards").count();
    let before = looks();
    wait(|| looks() > before + 3).await;
    works.stop().await;
    assert_eq!(world.published(shard).await, row);
}

#[tokio::test]
async fn an_issuer_whose_own_certificate_has_ended_makes_none() {
    let world = retire(World::start().await, "").await;
    world.clock.advance(Duration::from_secs(not_after(&world).since(world.now()).seconds()));
    let works = Works::start(&world);
    // Both issuers' first looks.
    wait(|| world.store.calls().iter().filter(|call| **call == "crl_shards").count() >= 5).await;
    works.stop().await;
    assert_eq!(world.store.crl_shards(Some(ISSUER)).await.unwrap(), [], "no number was taken");
}

/// Deltas end with the complete CRLs, and the last one is of the last complete one, also when it was made before that.
#[tokio::test]
async fn the_last_delta_is_of_the_last_complete_crl() {
    let world = World::start().await;
    let deltas = "shards = 4\ndelta_crls = true\ndelta_crl_lifetime = \"2h\"\n";
    let world = world.with_policy("shards = 4\n", deltas).await;
    let ticks = async |world: &World| loop {
        world.later(0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let delta = async |world: &World, good: &dyn Fn(&CrlRow, &CrlRow) -> bool| {
        wait_until(async || {
            let rows = world.store.crl_shards(Some(ISSUER)).await.unwrap();
            let row = rows.into_iter().find(|row| row.shard.shard == 0);
            let both = row.and_then(|row| row.published.zip(row.published_delta));
            both.is_some_and(|(complete, delta)| good(&complete, &delta))
        })
        .await;
    };
    let works = Works::start(&world);
    tokio::select! {
        () = delta(&world, &|_, _| true) => {}
        () = ticks(&world) => {}
    }
    works.stop().await;
    let world = retire(world, "last_crl = true\n").await;
    // The complete CRL's signature: the delta is made first.
    world.issuer_key.fail_next(testkit::signing::KeyFault::Failed);
    let end = not_after(&world);
    let works = Works::start(&world);
    tokio::select! {
        () = async {
            delta(&world, &|complete, delta| complete.next_update != end && delta.next_update == end).await;
            delta(&world, &|complete, delta| {
                complete.next_update == end && delta.next_update == end && delta.base == Some(complete.key.number)
            })
            .await;
        } => {}
        () = ticks(&world) => {}
    }
    works.stop().await;
}
