//! The short form of `make chaos`: every failpoint at least once, on SQLite.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::chaos::points::POINTS;
use e2e::chaos::{Campaign, Kind, Plan, Tally};
use e2e::program::{ours, root, run};

/// Builds that people run cannot be told to kill themselves.
#[test]
fn only_builds_for_these_tests_have_failpoints() {
    for program in ["chancery", "chancery-front", "chancery-validator", "chancery-status"] {
        let mut tree = std::process::Command::new(env!("CARGO"));
        tree.args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal,features",
            "--prefix",
            "none",
            "-p",
            program,
        ]);
        let output = run(tree.current_dir(root()));
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && tree.contains(program), "{output:?}");
        assert!(!tree.contains("feature \"failpoints\""), "{program} has failpoints by default");
    }
}

fn must_have_failpoints() {
    let mut asked = std::process::Command::new(ours("chancery"));
    let output = run(asked.arg("--version").env("CHANCERY_FAILPOINTS", "?"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("failpoint ?: not understood"),
        "the programs were built without failpoints: cargo build --workspace --bins --features chancery/failpoints"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_failpoint_loses_doubles_and_blocks_nothing() {
    must_have_failpoints();
    let tally = Arc::new(Mutex::new(Tally::default()));
    let plan = Plan {
        kills: 0,
        each: 1,
        time: Duration::from_secs(240),
        stacks: vec![Kind::Sqlite],
        clients: 24,
        round: 60,
        keep: false,
        seed: 1,
    };
    let (_going, stop) = tokio::sync::watch::channel(false);
    let outcome = Campaign::new(plan, Arc::clone(&tally), stop).run().await;
    let tally = tally.lock().unwrap();
    println!("{}", tally.table());
    outcome.unwrap();
    assert_eq!((tally.suspect(), tally.faults.len()), (0, 0));
    let missed: Vec<_> =
        POINTS.iter().map(|point| point.name).filter(|name| tally.clean("sqlite", name) == 0).collect();
    assert!(missed.is_empty(), "never killed at {missed:?}");
}

/// The harness knows the failpoints of the sources, and no others.
#[test]
fn the_list_of_failpoints_is_that_of_the_sources() {
    let mut found: Vec<String> = Vec::new();
    for folder in ["front", "signer", "validator", "hsm", "sqlite", "postgres"] {
        let output = std::process::Command::new("grep")
            .args(["-rhoE", "--include=*.rs", "fail_point!\\([^)]*\\)"])
            .arg(root().join("crates").join(folder).join("src"))
            .output()
            .unwrap();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let name = line.split('"').nth(1).unwrap();
            match name.split_once("{}") {
                Some((before, after)) => {
                    found.extend(["acme", "ca"].map(|label| format!("{before}{label}{after}")));
                }
                None => found.push(name.to_owned()),
            }
        }
    }
    found.sort();
    found.dedup();
    let mut known: Vec<_> = POINTS.iter().map(|point| point.name.to_owned()).collect();
    known.sort();
    assert_eq!(found, known);
}
