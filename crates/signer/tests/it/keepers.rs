//! Which signer makes a CRL: the one that revoked, at first; another one when that one's key is away. Timers are not looked
//! at here: what waits for them never comes.

use std::sync::Arc;
use std::time::Duration;

use ca_store::{CaStore as _, LeaseOutcome};
use pki::crl::Crl;
use signer::Change;
use signer::config::Limits;
use testkit::Cluster;
use tokio_util::sync::CancellationToken;

use crate::crls::{ISSUER, SHARDS, Works, wait};
use crate::support::World;
use crate::support::metrics::Metrics;
use crate::support::ocsp::wait as wait_until;

const OUT: &str = "chancery_revocation_to_crl_seconds";

/// Two signers that hear each other; their CRLs are at hand.
struct Two {
    signers: [(World, Works); 2],
    following: CancellationToken,
    _cluster: Cluster,
}

impl Two {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let one = World::on_server(&cluster, Limits::default()).await;
        let two = one.beside(&cluster, 2).await;
        let following = CancellationToken::new();
        let signers = [one, two].map(|world| {
            let (ca, end) = (Arc::clone(&world.ca), following.clone());
            tokio::spawn(async move { ca.follow_others(end).await });
            let works = Works::start_without_timers(&world);
            (world, works)
        });
        for (world, works) in &signers {
            works.all_reach(world, 2).await;
        }
        Self { signers, following, _cluster: cluster }
    }

    async fn stop(self) {
        for (_, works) in self.signers {
            works.stop().await;
        }
        self.following.cancel();
    }
}

fn calls(world: &World, method: &str) -> usize {
    world.store.calls().iter().filter(|call| **call == method).count()
}

#[tokio::test]
async fn a_signer_without_its_key_leaves_its_revocation_to_the_other() {
    let heard = Metrics::default();
    let _listening = heard.listen();
    let it = Two::start().await;
    let [(one, first), (two, second)] = &it.signers;
    let (issued, shard) = one.some_certificate().await;
    one.later(0);
    one.issuer_key.away(true);
    let before = ["claim_lease", "begin_crl"].map(|method| calls(one, method));
    one.withdraw(issued.serial).await;
    let number = 3;
    let made = second.reaches(two, shard, number).await;
    assert!(Crl::from_der(&made).unwrap().find(&issued.serial).is_some());
    assert_eq!(first.reaches(one, shard, number).await, made, "taken up");
    assert_eq!(["claim_lease", "begin_crl"].map(|method| calls(one, method)), before);
    // It was this signer's revocation, and is out.
    wait(|| heard.count(OUT) > 0).await;
    it.stop().await;
    assert_eq!(heard.count(OUT), 1);
}

#[tokio::test]
async fn a_signer_without_its_key_takes_no_number() {
    let world = World::start().await;
    world.issuer_key.away(true);
    let works = Works::start_without_timers(&world);
    // Looked at again and again: the key may come back.
    wait(|| calls(&world, "crl_shards") >= 6).await;
    assert_eq!((calls(&world, "claim_lease"), calls(&world, "begin_crl")), (0, 0));
    world.issuer_key.away(false);
    works.all_reach(&world, 2).await;
    works.stop().await;
    assert_eq!(calls(&world, "begin_crl"), 2 * SHARDS as usize, "the ceremony's number, and one more");
}

#[tokio::test]
async fn a_key_that_goes_away_frees_the_lease() {
    let cluster = Cluster::start();
    let one = World::on_server(&cluster, Limits::default()).await;
    let two = one.beside(&cluster, 2).await;
    one.issuer_key.hold(true);
    let works = Works::start_without_timers(&one);
    wait(|| one.issuer_key.is_asked()).await;
    let claim = async || two.store.claim_lease("crl/tls-1/0", Duration::from_secs(60)).await.unwrap();
    assert!(matches!(claim().await, LeaseOutcome::Taken { .. }));
    // It is renewed for as long as the key is there.
    let claims = calls(&one, "claim_lease");
    wait(|| calls(&one, "claim_lease") > claims + 4).await;
    assert!(matches!(claim().await, LeaseOutcome::Taken { .. }));
    one.issuer_key.away(true);
    wait_until(async || matches!(claim().await, LeaseOutcome::Held { .. })).await;
    // Not taken back.
    let claims = calls(&one, "claim_lease");
    wait(|| calls(&one, "claim_lease") > claims + 1).await;
    assert!(matches!(claim().await, LeaseOutcome::Held { .. }));
    one.issuer_key.hold(false);
    works.stop().await;
}

/// A disk that hangs, or a key that takes for ever and says nothing.
#[tokio::test]
async fn a_crl_that_is_not_made_for_long_frees_the_lease() {
    let cluster = Cluster::start();
    let one = World::on_server(&cluster, Limits::default()).await;
    let two = one.beside(&cluster, 2).await;
    one.issuer_key.hold(true);
    let folder = one.folder.path().join("crl");
    let works = Works::start_with(&one, folder, |maker| maker.with_longest_lease(Duration::from_secs(2)));
    wait(|| one.issuer_key.is_asked()).await;
    let claim = async || two.store.claim_lease("crl/tls-1/0", Duration::from_secs(60)).await.unwrap();
    wait_until(async || matches!(claim().await, LeaseOutcome::Held { .. })).await;
    // Not taken back.
    let claims = calls(&one, "claim_lease");
    wait(|| calls(&one, "claim_lease") > claims + 1).await;
    assert!(matches!(claim().await, LeaseOutcome::Held { .. }));
    one.issuer_key.hold(false);
    works.stop().await;
}

/// Two signers of different policies cannot make each other's CRLs again: they do not outdo each other without end.
#[tokio::test]
async fn what_cannot_be_made_again_is_made_anew_after_longer_and_longer() {
    let world = World::start().await;
    let works = Works::start_without_timers(&world);
    works.all_reach(&world, 2).await;
    // Whatever this one publishes, another one has published a later one.
    world.store.alter_shards(|mut rows| {
        for row in rows.iter_mut().filter_map(|row| row.published.as_mut()) {
            row.key.number += 1_000_000;
            row.tbs_sha256 = [9; 32];
        }
        rows
    });
    let before = calls(&world, "begin_crl");
    let looks = 20;
    for _ in 0..looks {
        world.later(0);
        world.nudge(0);
        let seen = calls(&world, "crl_shards");
        wait(|| calls(&world, "crl_shards") > seen).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let made = calls(&world, "begin_crl") - before;
    works.stop().await;
    assert!(made >= SHARDS as usize, "each at once, the first time: {made}");
    assert!(made <= 3 * SHARDS as usize, "{made} in {looks} looks");
}

#[tokio::test]
async fn the_signer_that_revoked_makes_the_crl() {
    let heard = Metrics::default();
    let _listening = heard.listen();
    let it = Two::start().await;
    let [(one, first), (two, second)] = &it.signers;
    let before = calls(two, "claim_lease");
    let mut numbers = [2; SHARDS as usize];
    let count = 12;
    for n in 1..=count {
        let (issued, shard) = one.some_certificate().await;
        one.later(0);
        one.withdraw(issued.serial).await;
        let number = &mut numbers[shard as usize];
        *number += 1;
        first.reaches(one, shard, *number).await;
        second.reaches(two, shard, *number).await;
        wait(|| heard.count(OUT) == n).await;
    }
    assert_eq!(heard.count(OUT), count, "once each");
    // On a machine that is slow it may have thought that the first one was away.
    let claims = calls(two, "claim_lease") - before;
    assert!(claims <= count / 3, "{claims}");
    it.stop().await;
}

#[tokio::test]
async fn revocations_of_others_are_looked_at_together() {
    let world = World::start().await;
    let works = Works::start_without_timers(&world);
    works.all_reach(&world, 2).await;
    let events = 200;
    let before = calls(&world, "crl_shards");
    for n in 0..events {
        world.ca.events().announce(Change::Revoked { issuer: ISSUER.into(), shard: n % SHARDS });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    wait(|| calls(&world, "crl_shards") >= before + 2).await;
    works.stop().await;
    let reads = calls(&world, "crl_shards") - before;
    assert!(reads < events as usize / 4, "{reads} reads");
}

#[tokio::test]
async fn how_a_crl_is_is_shown() {
    let heard = Metrics::default();
    let _listening = heard.listen();
    let world = World::start().await;
    let (issued, shard) = world.some_certificate().await;
    let works = Works::start(&world);
    works.reaches(&world, shard, 2).await;
    world.withdraw(issued.serial).await;
    world.later(0);
    let der = works.reaches(&world, shard, 3).await;
    let crl = Crl::from_der(&der).unwrap();
    let name = shard.to_string();
    let shows = |what: &str| {
        heard.shows(what, &[("issuer", ISSUER), ("shard", &name), ("kind", "complete")]).map(|it| it as u64)
    };
    // An hour later.
    world.clock.advance(Duration::from_secs(3600));
    wait(|| shows("chancery_crl_age_seconds") >= Some(3600)).await;
    let age = world.now().since(crl.this_update()).seconds();
    assert_eq!(shows("chancery_crl_age_seconds"), Some(age));
    assert_eq!(shows("chancery_crl_remaining_seconds"), Some(crl.next_update().since(world.now()).seconds()));
    assert_eq!(shows("chancery_crl_entries"), Some(1));
    assert_eq!(shows("chancery_crl_octets"), Some(der.len() as u64));
    works.stop().await;
}

/// An alarm while it is late, and none any longer when it is made.
#[tokio::test]
async fn a_crl_that_nobody_makes_is_late() {
    let heard = Metrics::default();
    let _listening = heard.listen();
    let world = World::start().await;
    let late = || heard.shows("chancery_crls_late", &[("issuer", ISSUER)]);
    let works = Works::start(&world);
    wait(|| late() == Some(0.0)).await;
    works.all_reach(&world, 2).await;
    works.stop().await;
    world.issuer_key.away(true);
    // Made each day, good for four.
    world.later(3);
    let works = Works::start(&world);
    wait(|| late() == Some(f64::from(SHARDS))).await;
    world.issuer_key.away(false);
    wait(|| late() == Some(0.0)).await;
    works.stop().await;
}
