//! Two signers that revoke, and make the CRLs of the same shards, at the same time. Every CRL that was ever published is
//! looked at from outside: what its file says, read strictly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ca_store::{CaStore as _, CrlShardRow};
use futures::StreamExt as _;
use pki::crl::Crl;
use pki::{Reason, Serial};
use runtime::Clock as _;
use signer::config::Limits;
use signer::crl::CrlMaker;
use signer::publication::Objects;
use testkit::{Cluster, TestClock};
use tokio_util::sync::CancellationToken;

use crate::crls::ISSUER;
use crate::support::World;

/// So many certificates are issued and revoked at the same time.
const AT_ONCE: usize = 24;
/// So many steps of the clocks the first signer's key is there, and as many it is away.
const STEPS_OF_A_KEY: usize = 40;
/// The second signer's clock shows so much less, in the test's fast time: what the first one revokes may be after the second
/// one's thisUpdate, and thisUpdate has to wait for its clock.
const BEHIND: Duration = Duration::from_secs(10);

const PARTS: usize = 4;

/// Revocations of the short form, in `make test`. `make race` says 10,000 in this variable of the environment.
const COUNT: (&str, usize) = ("CHANCERY_RACE", 1000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_signers_race_over_the_same_shards() {
    #[expect(clippy::disallowed_methods, reason = "how make race asks for more")]
    let count = std::env::var(COUNT.0).map_or(COUNT.1, |count| count.parse().unwrap());
    let cluster = Cluster::start();
    let one = World::on_server(&cluster, Limits::default()).await;
    let two = one.beside_at(&cluster, 2, clock_behind(&one)).await;
    let serials = issue(&one, count).await;

    let (draining, kept) = (CancellationToken::new(), tempfile::tempdir().unwrap());
    let mut tasks = Vec::new();
    for (at, world) in [&one, &two].into_iter().enumerate() {
        let (ca, end) = (Arc::clone(&world.ca), draining.clone());
        tasks.push(tokio::spawn(async move { ca.follow_others(end).await.unwrap() }));
        let folder = world.folder.path().join("crl");
        let objects = Objects::of(world.ca.registry());
        let maker = CrlMaker::new(Arc::clone(&world.ca), objects, folder.clone()).unwrap();
        let end = draining.clone();
        tasks.push(tokio::spawn(async move { maker.keep_current(end).await.unwrap() }));
        keep(folder, kept.path().join(at.to_string()), draining.clone());
    }
    // thisUpdate has whole seconds: time passes a good deal faster than it does.
    let (clocks, end) = ([one.clock.clone(), two.clock.clone()], draining.clone());
    let key = one.issuer_key.clone();
    tokio::spawn(async move {
        for step in 0.. {
            // The first one's CRLs are always of a later time. While its key is away the second one makes them.
            key.away(step / STEPS_OF_A_KEY % 2 == 1);
            if end.is_cancelled() {
                return;
            }
            clocks.iter().for_each(|clock| clock.advance(Duration::from_secs(1)));
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    });
    let mut times = Times::new();
    // In parts, each shown before the next: on a slow host, too, every shard has several CRLs to race for.
    for part in serials.chunks(count.div_ceil(PARTS)) {
        let revoking =
            futures::stream::iter(part.iter().enumerate()).map(|(at, serial)| {
                let ca = if at % 2 == 0 { &one.ca } else { &two.ca };
                async move {
                    (*serial, ca.revoke_by_operator("alice", *serial, Reason::Superseded).await.unwrap())
                }
            });
        times.extend(revoking.buffer_unordered(AT_ONCE).collect::<Times>().await);
        settled(&one).await;
    }
    assert_eq!(times.len(), count);
    let rows = settled(&one).await;
    draining.cancel();
    for task in tasks {
        task.await.unwrap();
    }

    let published = published(&cluster);
    let files = [0, 1].map(|at| read(&kept.path().join(at.to_string())));
    let (mut listed, mut early) = (BTreeSet::new(), 0);
    for shard in &rows {
        let seen = check_shard(&one, shard, (&published[&shard.shard.shard], &files), &times);
        listed.extend(seen.listed);
        early += seen.early;
    }
    assert!(early > 0, "the second signer never listed what the first one had revoked after its own time");
    assert_eq!(
        listed,
        serials.into_iter().collect(),
        "nothing is missing in the last CRLs, and nothing more is there"
    );
}

/// The second signer's clock: behind the first one's by less than clocks may differ.
fn clock_behind(one: &World) -> TestClock {
    let clock = TestClock::at(one.clock.now());
    clock.rewind(BEHIND);
    clock
}

async fn issue(world: &World, count: usize) -> Vec<Serial> {
    let client = world.client().await;
    let client = &client;
    let issuing = futures::stream::iter(0..count).map(|n| async move {
        let ready = world.ready_one(client, &format!("n{n}.example.org")).await;
        world.issue_patiently(ready.finalized_by(client)).await.serial
    });
    issuing.buffer_unordered(AT_ONCE).collect().await
}

/// Keeps every finished CRL of a spool: a second name for each file, before the spool removes it.
fn keep(spool: PathBuf, kept: PathBuf, end: CancellationToken) {
    std::fs::create_dir(&kept).unwrap();
    std::thread::spawn(move || {
        while !end.is_cancelled() {
            link_all(&spool, &kept);
            std::thread::sleep(Duration::from_millis(2));
        }
        link_all(&spool, &kept);
    });
}

fn link_all(spool: &Path, kept: &Path) {
    let Ok(entries) = std::fs::read_dir(spool) else { return };
    for path in
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("crl".as_ref()))
    {
        // It is there already, or gone again.
        _ = std::fs::hard_link(&path, kept.join(path.file_name().unwrap()));
    }
}

/// Until every shard's CRL has all that was revoked.
async fn settled(world: &World) -> Vec<CrlShardRow> {
    for _ in 0..3000 {
        let rows = world.store.crl_shards(Some(ISSUER)).await.unwrap();
        let done = |row: &CrlShardRow| row.published.as_ref().is_some_and(|crl| crl.revision == row.revision);
        if rows.iter().all(done) {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the CRLs never caught up");
}

/// Numbers of the CRLs that were ever published, by shard, with their revisions.
fn published(cluster: &Cluster) -> BTreeMap<u32, BTreeMap<u64, u64>> {
    let sql = "SELECT shard, number, revision FROM ca.crls WHERE signature IS NOT NULL";
    let mut shards: BTreeMap<u32, BTreeMap<u64, u64>> = BTreeMap::new();
    for line in cluster.sql("postgres", sql).lines() {
        let fields: Vec<u64> = line.split('|').map(|field| field.parse().unwrap()).collect();
        let shard = shards.entry(fields[0] as u32).or_default();
        assert_eq!(shard.insert(fields[1], fields[2]), None, "no number twice");
    }
    shards
}

/// When each certificate was revoked, as its signer said.
type Times = BTreeMap<Serial, pki::Timestamp>;

/// What a shard's CRLs list.
struct Seen {
    /// The last one.
    listed: BTreeSet<Serial>,
    /// In all of them, entries that were revoked after thisUpdate.
    early: usize,
}

type Files = BTreeMap<(u32, u64), Vec<u8>>;

fn read(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let key = |path: &Path| {
        let name = name(path);
        let mut parts = name.rsplit('-').map(|part| part.parse::<u64>());
        let (number, shard) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
        (shard as u32, number)
    };
    entries.map(|path| (key(&path), std::fs::read(&path).unwrap())).collect()
}

/// Every published CRL of a shard, in the order of its numbers.
fn check_shard(
    world: &World,
    row: &CrlShardRow,
    (published, files): (&BTreeMap<u64, u64>, &[Files; 2]),
    times: &Times,
) -> Seen {
    let mut early = 0;
    let shard = row.shard.shard;
    assert!(published.len() > 3, "there was something to race for: {published:?}");
    let mut before: Option<(pki::Timestamp, u64, Vec<Serial>)> = None;
    for (number, revision) in published {
        let of = |at: usize| files[at].get(&(shard, *number));
        let der = of(0).or(of(1)).unwrap_or_else(|| panic!("nobody kept number {number} of shard {shard}"));
        if let (Some(one), Some(two)) = (of(0), of(1)) {
            assert_eq!(one, two, "one number, one CRL");
        }
        let crl = Crl::from_der(der).unwrap();
        crl.verify_issued_by(&world.authorities.issuer).unwrap();
        assert_eq!(crl.number(), *number);
        let mut listed = Vec::new();
        for entry in crl.entries().map(Result::unwrap) {
            let revoked_at = times[&entry.serial];
            assert_eq!(entry.revoked_at, revoked_at.min(crl.this_update()), "number {number}");
            early += usize::from(revoked_at > crl.this_update());
            listed.push(entry.serial);
        }
        assert_eq!(listed.len() as u64, *revision, "one revision, one entry");
        if let Some((this_update, earlier, entries)) = before {
            assert!(crl.this_update() > this_update, "number {number} of shard {shard}");
            assert!(*revision >= earlier, "number {number} of shard {shard}");
            assert!(listed.starts_with(&entries), "number {number} of shard {shard} has lost an entry");
        }
        before = Some((crl.this_update(), *revision, listed));
    }
    let (number, der) =
        published.keys().map(|number| (number, files[0].get(&(shard, *number)))).next_back().unwrap();
    if let Some(der) = der {
        let said = openssl(der);
        assert!(said.contains(&format!("{number:x}").to_uppercase()), "{said}");
    }
    Seen { listed: before.unwrap().2.into_iter().collect(), early }
}

/// The number that openssl reads.
fn openssl(der: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crl");
    std::fs::write(&file, der).unwrap();
    let output = Command::new("openssl")
        .args(["crl", "-inform", "DER", "-noout", "-crlnumber", "-in"])
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("openssl ({error}): apt install openssl"));
    String::from_utf8(output.stdout).unwrap()
}
