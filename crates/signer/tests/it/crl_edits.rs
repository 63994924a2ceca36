//! A complete CRL is the one before it, edited: the same octets as out of the journal alone, whatever is wrong with the one
//! before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ca_store::{CaStore as _, CrlEdits};
use parking_lot::Mutex;
use pki::crl::Crl;
use pki::{Period, Reason, Serial};
use testkit::store::StoreFault;

use crate::crls::{ISSUER, Works};
use crate::support::{World, superseded};

/// What happens to a file.
type Break<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A shard, and a maker that has been at work from the beginning.
struct Shard {
    world: World,
    works: Works,
    shard: u32,
    number: u64,
    remakers: u32,
}

impl Shard {
    async fn start() -> (Self, Serial) {
        let world = World::start().await;
        let (first, shard) = world.some_certificate().await;
        let works = Works::start(&world);
        works.reaches(&world, shard, 2).await;
        (Self { world, works, shard, number: 2, remakers: 0 }, first.serial)
    }

    /// One more of the shard.
    async fn certificate(&self) -> Serial {
        loop {
            let (issued, shard) = self.world.some_certificate().await;
            if shard == self.shard {
                return issued.serial;
            }
        }
    }

    /// The next CRL, which a maker that has only the journal makes as well.
    async fn next(&mut self) -> Vec<u8> {
        self.world.later(0);
        self.world.nudge(self.shard);
        self.number += 1;
        let der = self.works.reaches(&self.world, self.shard, self.number).await;
        self.remakers += 1;
        let folder = self.world.folder.path().join(format!("crl-{}", self.remakers));
        let other = Works::start_in(&self.world, folder);
        let remade = other.reaches(&self.world, self.shard, self.number).await;
        other.stop().await;
        assert!(remade == der, "number {}: not what the journal gives", self.number);
        der
    }

    fn file(&self) -> std::path::PathBuf {
        self.world.folder.path().join("crl").join(format!("{ISSUER}-{}-{}.crl", self.shard, self.number))
    }
}

fn listed(der: &[u8]) -> Vec<(Serial, Reason)> {
    Crl::from_der(der)
        .unwrap()
        .entries()
        .map(|entry| entry.map(|it| (it.serial, it.reason)).unwrap())
        .collect()
}

#[tokio::test]
async fn what_is_new_raised_or_gone_is_edited() {
    let (mut it, first) = Shard::start().await;
    let seen: Arc<Mutex<Vec<CrlEdits>>> = Arc::default();
    let told = Arc::clone(&seen);
    it.world.store.alter_edits(move |edits| {
        told.lock().extend(edits.clone());
        edits
    });
    let second = it.certificate().await;
    it.world.withdraw(first).await;
    assert_eq!(listed(&it.next().await), [(first, Reason::Superseded)]);
    it.world.withdraw(second).await;
    assert_eq!(listed(&it.next().await).len(), 2);
    it.world.ca.revoke_by_operator("alice", first, Reason::KeyCompromise).await.unwrap();
    assert_eq!(listed(&it.next().await), [(first, Reason::KeyCompromise), (second, Reason::Superseded)]);
    // Long after their end.
    it.world.later(400);
    let third = it.certificate().await;
    it.world.withdraw(third).await;
    let mut last = Vec::new();
    for _ in 0..3 {
        it.world.later(1);
        last = it.next().await;
    }
    assert_eq!(listed(&last), [(third, Reason::Superseded)]);
    it.works.stop().await;
    let seen = std::mem::take(&mut *seen.lock());
    assert!(seen.iter().any(|edits| edits.raised == [first]), "{seen:?}");
    assert!(seen.iter().any(|edits| edits.left.len() == 2), "{seen:?}");
}

/// What the edits say is what is done: the entries are not read again.
#[tokio::test]
async fn entries_are_copied() {
    let (mut it, first) = Shard::start().await;
    it.world.withdraw(first).await;
    it.next().await;
    it.world.store.alter_edits(move |edits| Some(CrlEdits { left: vec![first], ..edits? }));
    it.world.later(0);
    it.world.nudge(it.shard);
    let second = it.certificate().await;
    it.world.withdraw(second).await;
    it.number += 1;
    it.world.later(0);
    let der = it.works.reaches(&it.world, it.shard, it.number).await;
    assert!(!listed(&der).iter().any(|(serial, _)| *serial == first), "{:?}", listed(&der));
    it.works.stop().await;
}

#[tokio::test]
async fn an_unusable_one_before_is_not_used() {
    let (mut it, first) = Shard::start().await;
    it.world.withdraw(first).await;
    it.next().await;
    let mut expected = vec![first];
    let changed = |at: usize| {
        move |octets: &mut Vec<u8>| {
            let at = octets.len() - at;
            octets[at] ^= 1;
        }
    };
    let der = std::fs::read(it.file()).unwrap();
    let serial = der.windows(16).position(|octets| octets == first.as_bytes()).unwrap();
    let breaks: [Break<'_>; 6] = [
        // In the entry: it would be another certificate's.
        &move |octets| octets[serial + 9] ^= 1,
        // Before the entries, and after.
        &|octets| octets[30] ^= 1,
        &changed(120),
        &|octets| octets.truncate(octets.len() - 100),
        &|octets| octets.truncate(200),
        &Vec::clear,
    ];
    for change in breaks {
        let mut octets = std::fs::read(it.file()).unwrap();
        change(&mut octets);
        std::fs::write(it.file(), octets).unwrap();
        let another = it.certificate().await;
        it.world.withdraw(another).await;
        expected.push(another);
        let listed: Vec<_> = listed(&it.next().await).into_iter().map(|(serial, _)| serial).collect();
        assert_eq!(listed, expected);
    }
    std::fs::remove_file(it.file()).unwrap();
    it.world.later(1);
    assert_eq!(listed(&it.next().await).len(), expected.len());
    // The database does not say.
    it.world.store.fail_next("crl_edits", StoreFault::Failed);
    expected.push(it.certificate().await);
    it.world.withdraw(*expected.last().unwrap()).await;
    assert_eq!(listed(&it.next().await).len(), expected.len());
    // Too many edits, and some that cannot be made.
    let too_many = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&too_many);
    let stray = Serial::from_random([9; 16]);
    it.world.store.alter_edits(move |edits| {
        if now.load(Ordering::SeqCst) { None } else { Some(CrlEdits { raised: vec![stray], ..edits? }) }
    });
    for many in [true, false] {
        too_many.store(many, Ordering::SeqCst);
        expected.push(it.certificate().await);
        it.world.withdraw(*expected.last().unwrap()).await;
        assert_eq!(listed(&it.next().await).len(), expected.len());
    }
    it.works.stop().await;
}

/// What a process remembers of a database that was put back, or changed by other hands, is not believed.
#[tokio::test]
async fn the_journal_counts_and_not_what_is_remembered() {
    let (mut it, first) = Shard::start().await;
    it.world.withdraw(first).await;
    it.next().await;
    // A wrong one: it lacks an entry that the journal has.
    it.world.store.alter_edits(move |edits| Some(CrlEdits { left: vec![first], ..edits? }));
    let second = it.certificate().await;
    it.world.withdraw(second).await;
    it.world.later(0);
    it.number += 1;
    let wrong = it.works.reaches(&it.world, it.shard, it.number).await;
    assert_eq!(listed(&wrong).len(), 1);
    it.world.store.leave_alone();
    // A maker that has only the journal replaces it, and the first one sees that it was wrong.
    it.world.later(0);
    let other = Works::start_in(&it.world, it.world.folder.path().join("crl-of-another"));
    it.number += 1;
    let right = other.reaches(&it.world, it.shard, it.number).await;
    assert_eq!(listed(&right).len(), 2);
    assert!(it.works.reaches(&it.world, it.shard, it.number).await == right);
    other.stop().await;
    let third = it.certificate().await;
    it.world.withdraw(third).await;
    assert_eq!(listed(&it.next().await).len(), 3);

    // A new epoch: the next one is read whole.
    it.world.store.begin_epoch([9; 16], Vec::new()).await.unwrap();
    let edits = || it.world.store.calls().iter().filter(|call| **call == "crl_edits").count();
    let before = edits();
    let fourth = it.certificate().await;
    it.world.withdraw(fourth).await;
    it.world.later(0);
    it.world.nudge(it.shard);
    let number = 1 << 35;
    let der = it.works.reaches(&it.world, it.shard, number).await;
    assert_eq!(listed(&der).len(), 4);
    assert_eq!(edits(), before);
    it.works.stop().await;
}

/// Another signer's clock was ahead: what its entry says changes as time passes.
#[tokio::test]
async fn a_time_that_was_after_the_crls_is_read_again() {
    let (mut it, first) = Shard::start().await;
    let at = it.world.now().plus(Period::from_seconds(30));
    let revocation = superseded(first, at);
    it.world.store.revoke(vec![revocation]).await.unwrap();
    let time = |der: &[u8]| Crl::from_der(der).unwrap().find(&first).unwrap().revoked_at;
    assert!(time(&it.next().await) < at);
    it.world.clock.advance(std::time::Duration::from_secs(60));
    let second = it.certificate().await;
    it.world.withdraw(second).await;
    assert_eq!(time(&it.next().await), at);
    it.works.stop().await;
}
