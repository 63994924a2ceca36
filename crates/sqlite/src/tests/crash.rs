//! A signer that is killed in the middle of its work: what it was told is durable, and what it left can be finished.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use ca_store::{
    CaStore, IntentOutcome, JournalKey, RecordOutcome, RowMacKeys,
    contract::sample::{intent, journal_row, keys, serial, signed},
    verify_chain,
};
use tempfile::TempDir;

use super::incarnation;
use crate::{Ca, Options};

/// How many certificates a life of the signer tries to make; it is killed before it has.
const TAGS: u64 = 100_000;

/// The signer: says on standard output what it was answered. Its first line of input is the database.
#[tokio::test]
#[ignore = "no test: the process that `a_killed_signer_loses_nothing` starts and kills"]
async fn child() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let (path, life) = line.trim().rsplit_once(' ').unwrap();
    let life: u8 = life.parse().unwrap();
    let ca = Ca::open(Options::new(path), incarnation(life)).await.unwrap();
    let say = |word: &str, tag: u64| {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{word} {tag}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let first = u64::from(life) * TAGS;
    futures::future::join_all((0..24).map(|client| {
        let ca = &ca;
        async move {
            for tag in (first + client..first + TAGS).step_by(24) {
                let committed = ca.commit_intents(vec![intent(tag)]).await.unwrap();
                assert_eq!(committed, [IntentOutcome::Committed]);
                say("committed", tag);
                let recorded = ca.record_certificates(vec![signed(&journal_row(tag), b"sig")]).await.unwrap();
                assert_eq!(recorded, [RecordOutcome::Recorded]);
                say("recorded", tag);
            }
        }
    }))
    .await;
}

/// Runs a life of the signer, kills it after a number of answers; what it was answered: committed, and recorded.
fn live_and_die(path: &Path, life: u8, answers: usize) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::child", "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{} {life}", path.display()).unwrap();
    let (mut committed, mut recorded) = (BTreeSet::new(), BTreeSet::new());
    for (count, line) in BufReader::new(child.stdout.take().unwrap()).lines().enumerate() {
        let line = line.unwrap();
        // The test harness says things of its own, and the line that death cut is no answer.
        match line.split_once(' ').and_then(|(word, tag)| Some((word, tag.parse().ok()?))) {
            Some(("committed", tag)) => _ = committed.insert(tag),
            Some(("recorded", tag)) => _ = recorded.insert(tag),
            _ => {}
        }
        if count == answers {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it was killed");
    assert!(recorded.len() > 20, "{recorded:?}");
    (committed, recorded)
}

#[tokio::test]
async fn a_killed_signer_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ca.db");
    let keys = keys();
    for (life, answers) in [(1, 100), (2, 777), (3, 333)] {
        let (committed, recorded) = live_and_die(&path, life, answers);
        let ca = Ca::open(Options::new(&path), incarnation(100 + life)).await.unwrap();
        let mut unsigned = BTreeSet::new();
        // Some more than were answered may be there: their answers were lost.
        for tag in committed.iter().copied().chain(last(&committed)..last(&committed) + 100) {
            let entries = ca.journal(&JournalKey::Order(format!("order-{tag}"))).await.unwrap();
            assert!(entries.len() == 1 || !committed.contains(&tag), "{tag} was committed");
            let Some(entry) = entries.first() else { continue };
            let row = keys.verify(&entry.row).unwrap();
            assert_eq!(row.tbs, journal_row(tag).tbs);
            assert_eq!(ca.evidence(&serial(tag)).await.unwrap(), intent(tag).evidence);
            assert!(row.signature.is_some() || !recorded.contains(&tag), "{tag} was recorded");
            if row.signature.is_none() {
                unsigned.insert(row.serial);
            }
        }
        finish(&ca, &keys, &unsigned).await;
        for head in ca.audit_heads().await.unwrap() {
            let records = ca.audit(head.number, 0, u32::MAX).await.unwrap();
            assert_eq!(verify_chain(&head, &records), Ok(()));
        }
        ca.close().await;
    }
}

fn last(tags: &BTreeSet<u64>) -> u64 {
    tags.last().copied().unwrap_or_default() + 1
}

/// Every intent that was left is taken over at once, and can be finished.
async fn finish(ca: &Ca, keys: &RowMacKeys, left: &BTreeSet<ca_store::Serial>) {
    let orphans = ca.claim_orphans(Duration::from_secs(60), 1000).await.unwrap();
    let found: BTreeSet<_> = orphans.iter().map(|entry| entry.row.unverified().serial).collect();
    assert_eq!(&found, left);
    for orphan in orphans {
        let row = keys.verify(&orphan.row).unwrap();
        let recorded = ca.record_certificates(vec![signed(row, b"late")]).await.unwrap();
        assert_eq!(recorded, [RecordOutcome::Recorded]);
    }
    assert_eq!(ca.claim_orphans(Duration::ZERO, 1000).await.unwrap(), []);
}
