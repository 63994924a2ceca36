//! Delta CRLs: what they list, when they are made, and that they and complete ones never contradict one another.

use ca_store::{CaStore as _, CrlRow, CrlShardRow};
use pki::crl::Crl;
use pki::{Reason, Serial};
use signer::issue::Issued;

use crate::crls::{ISSUER, Works, openssl, wait};
use crate::support::World;

const DELTAS: &str = "shards = 4\ndelta_crls = true\ndelta_crl_lifetime = \"2h\"\n";

async fn world_with(more: &str) -> World {
    World::start().await.with_policy("shards = 4\n", &format!("{DELTAS}{more}")).await
}

fn delta_path(world: &World, shard: u32) -> String {
    world.ca.registry().issuer(ISSUER).unwrap().delta_crl_path(shard)
}

async fn row(world: &World, shard: u32) -> Option<CrlShardRow> {
    // A fault of the store may be planned for this very method.
    let rows = world.store.crl_shards(Some(ISSUER)).await.ok()?;
    rows.into_iter().find(|row| row.shard.shard == shard)
}

/// Waits until the shard has a delta that this is true of, at hand; answers it with its complete CRL.
async fn delta(
    works: &Works,
    world: &World,
    shard: u32,
    good: impl Fn(&CrlRow, &CrlRow) -> bool,
) -> (Vec<u8>, Vec<u8>) {
    for _ in 0..1500 {
        if let Some(CrlShardRow { published: Some(complete), published_delta: Some(delta), .. }) =
            row(world, shard).await
            && good(&complete, &delta)
        {
            let path = delta_path(world, shard);
            wait(|| works.objects.revision(&path) >= Some(delta.key.number)).await;
            return (
                works.reaches(world, shard, complete.key.number).await,
                works.fetch(&path).await.unwrap(),
            );
        }
        // Each is of a second of its own.
        world.clock.advance(std::time::Duration::from_secs(1));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it never came: {:?}", row(world, shard).await);
}

fn entry(der: &[u8], serial: &Serial) -> Option<Reason> {
    Crl::from_der(der).unwrap().find(serial).map(|entry| entry.reason)
}

/// Two certificates of one shard.
async fn neighbours(world: &World) -> ([Issued; 2], u32) {
    let (first, shard) = world.some_certificate().await;
    loop {
        let (second, other) = world.some_certificate().await;
        if other == shard {
            return ([first, second], shard);
        }
    }
}

#[tokio::test]
async fn a_revocation_is_in_the_delta_alone() {
    let world = world_with("").await;
    let (issued, shard) = world.some_certificate().await;
    let works = Works::start(&world);
    let (base, empty) = delta(&works, &world, shard, |_, _| true).await;
    let read = Crl::from_der(&empty).unwrap();
    let number = Crl::from_der(&base).unwrap().number();
    assert_eq!((read.delta_base(), read.entry_count()), (Some(number), 0), "after each complete CRL a delta");
    assert!(read.number() > number, "one sequence for both");
    let url = format!("http://status.test/{}", delta_path(&world, shard));
    assert_eq!(Crl::from_der(&base).unwrap().delta_urls(), std::slice::from_ref(&url));
    let leaf = pki::Certificate::from_der(&issued.certificate).unwrap();
    assert_eq!(leaf.delta_crl_urls(), [url]);
    assert_eq!(openssl(&world, &[&base, &empty], &issued.certificate), None);

    world.later(0);
    world.withdraw(issued.serial).await;
    let (still, revoked) = delta(&works, &world, shard, |_, delta| delta.entries == 1).await;
    assert_eq!(still, base, "the complete CRL is the timer's");
    assert_eq!(entry(&revoked, &issued.serial), Some(Reason::Superseded));
    Crl::from_der(&revoked).unwrap().verify_issued_by(&world.authorities.issuer).unwrap();
    let said = openssl(&world, &[&base, &revoked], &issued.certificate).unwrap();
    assert!(said.contains("certificate revoked"), "{said}");

    // The timer's complete CRL takes it up, and a delta without it follows.
    world.later(1);
    world.nudge(shard);
    let (complete, after) = delta(&works, &world, shard, |complete, delta| {
        complete.key.number > number && delta.base == Some(complete.key.number)
    })
    .await;
    assert_eq!(entry(&complete, &issued.serial), Some(Reason::Superseded));
    assert_eq!(Crl::from_der(&after).unwrap().entry_count(), 0);
    assert!(
        openssl(&world, &[&complete, &after], &issued.certificate).unwrap().contains("certificate revoked")
    );
    works.stop().await;
}

#[tokio::test]
async fn a_delta_is_made_again_from_its_row() {
    let world = world_with("").await;
    let ([old, new], shard) = neighbours(&world).await;
    world.withdraw(old.serial).await;
    let works = Works::start(&world);
    delta(&works, &world, shard, |complete, _| complete.entries == 1).await;
    world.later(0);
    // One that is in the base, and is worse than was thought; and a new one.
    world.ca.revoke_by_operator("alice", old.serial, Reason::KeyCompromise).await.unwrap();
    world.withdraw(new.serial).await;
    let (base, before) = delta(&works, &world, shard, |_, delta| delta.entries == 2).await;
    works.stop().await;
    assert_eq!(entry(&base, &old.serial), Some(Reason::Superseded));
    assert_eq!(entry(&before, &old.serial), Some(Reason::KeyCompromise));
    assert_eq!(entry(&before, &new.serial), Some(Reason::Superseded));

    std::fs::remove_dir_all(world.folder.path().join("crl")).unwrap();
    let signed = world.issuer_key.signed().len();
    let works = Works::start(&world);
    let again = delta(&works, &world, shard, |_, _| true).await;
    assert_eq!(again, (base, before), "the same bytes");
    works.stop().await;
    assert_eq!(world.issuer_key.signed().len(), signed, "without the key");
}

#[tokio::test]
async fn a_delta_that_has_grown_makes_a_complete_crl() {
    let world = world_with("delta_crl_entries = 1\ndelta_crl_percent = 50\n").await;
    let ([one, two], shard) = neighbours(&world).await;
    let works = Works::start(&world);
    let (base, _) = delta(&works, &world, shard, |_, _| true).await;
    world.later(0);
    world.withdraw(one.serial).await;
    delta(&works, &world, shard, |_, delta| delta.entries == 1).await;
    world.later(0);
    assert_eq!(works.reaches(&world, shard, 2).await, base, "one more is what it may have");
    world.withdraw(two.serial).await;
    // Seconds pass while it is looked at: thisUpdate has whole ones.
    let (clock, ticking) = (world.clock.clone(), tokio_util::sync::CancellationToken::new());
    let end = ticking.clone();
    tokio::spawn(async move {
        while !end.is_cancelled() {
            clock.advance(std::time::Duration::from_secs(1));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let (complete, after) = delta(&works, &world, shard, |complete, delta| {
        complete.entries == 2 && delta.base == Some(complete.key.number)
    })
    .await;
    ticking.cancel();
    assert!(entry(&complete, &two.serial).is_some());
    assert_eq!(Crl::from_der(&after).unwrap().entry_count(), 0);
    works.stop().await;
}

#[tokio::test]
async fn a_delta_comes_after_every_fault() {
    use testkit::store::StoreFault;
    let faults = [StoreFault::Failed, StoreFault::FailedButPersisted];
    let methods = ["begin_crl", "crl_entries", "journal_crl", "publish_crl", "claim_lease", "crl_shards"];
    for (method, fault) in methods.into_iter().flat_map(|method| faults.map(|fault| (method, fault))) {
        let world = world_with("").await;
        let (issued, shard) = world.some_certificate().await;
        let works = Works::start(&world);
        delta(&works, &world, shard, |complete, delta| delta.base == Some(complete.key.number)).await;
        world.later(0);
        world.store.fail_next(method, fault);
        world.withdraw(issued.serial).await;
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(200));
        let clock = world.clock.clone();
        let passing = async move {
            loop {
                ticks.tick().await;
                clock.advance(std::time::Duration::from_secs(1));
            }
        };
        let found = tokio::select! {
            found = delta(&works, &world, shard, |_, delta| delta.entries == 1) => found,
            never = passing => never,
        };
        assert!(entry(&found.1, &issued.serial).is_some(), "{method} {fault:?}");
        works.stop().await;
    }
}
