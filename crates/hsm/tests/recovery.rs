//! Workers that die, hang, or outlive their supervisor; tokens that come and go.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail so"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use hsm::{Fault, HsmError, KeyRef, Lane, Signing as _, Token, TokenState};
use pki::{ErrorClass, KeyAlgorithm};
use support::{
    Load, becomes, eventually, key, sign_and_check, signal, soon, start, wait_for_worker, worker_of,
};
use testkit::token::TestToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_no_request() {
    let softhsm = TestToken::create("killed");
    let token = start(softhsm.config());
    let key = key(&token, KeyAlgorithm::EcdsaP256, b"1").await;
    let load = Load::start(&key, 32);
    let mut last = None;
    for _ in 0..5 {
        let worker = wait_for_worker("killed", last).await;
        last = Some(worker);
        token.ready(soon()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        signal(worker, "KILL");
    }
    wait_for_worker("killed", last).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(load.finish().await > 100);
    assert!(token.health().respawns >= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_worker_loses_no_request() {
    let softhsm = TestToken::create("hung");
    let mut config = softhsm.config();
    config.hang_timeout = Duration::from_millis(500);
    let token = start(config);
    let key = key(&token, KeyAlgorithm::EcdsaP256, b"1").await;
    let load = Load::start(&key, 32);
    let mut last = None;
    for _ in 0..3 {
        let worker = wait_for_worker("hung", last).await;
        last = Some(worker);
        token.ready(soon()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        signal(worker, "STOP");
        eventually("the stopped worker is gone", || worker_of("hung") != Some(worker)).await;
    }
    wait_for_worker("hung", last).await;
    token.ready(soon()).await.unwrap();
    assert!(load.finish().await > 100);
    assert!(token.health().respawns >= 3);
}

#[tokio::test]
async fn a_token_that_is_away_at_start_is_picked_up() {
    let softhsm = TestToken::create("away");
    let made = {
        let token = start(softhsm.config());
        let made = key(&token, KeyAlgorithm::EcdsaP256, b"1").await.public_key().clone();
        token.shutdown().await;
        made
    };
    softhsm.unplug();
    let mut config = softhsm.config();
    config.respawn_max = Duration::from_millis(200);
    let token = start(config);
    let key = token.key(KeyRef::generated(*b"1", made));
    let away = token.ready(soon()).await.unwrap_err();
    assert!(matches!(&away, HsmError::Unavailable { cause: Fault::TokenNotFound { .. }, .. }), "{away}");
    assert_eq!(away.class(), ErrorClass::Transient);
    assert!(matches!(token.health().state, TokenState::Down(Fault::TokenNotFound { .. })));
    // Nobody waits for a token that is known to be away.
    let refused = sign_and_check(&key, Lane::Issuance, 1, soon()).await.unwrap_err();
    assert!(matches!(refused, HsmError::Unavailable { .. }), "{refused}");
    softhsm.plug();
    becomes(&token, |state| matches!(state, TokenState::Ready(_))).await;
    key.ready(soon()).await.unwrap();
    sign_and_check(&key, Lane::Issuance, 2, soon()).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_cannot_be_run_is_said_to_be_so() {
    let softhsm = TestToken::create("spawn");
    let token = Token::start(softhsm.config(), hsm::WorkerCommand::new("/nowhere/hsm-worker"));
    let refused = token.ready(soon()).await.unwrap_err();
    assert!(matches!(refused, HsmError::Unavailable { cause: Fault::Spawn { .. }, .. }), "{refused}");
    let mut config = softhsm.config();
    config.module = "/nowhere/module.so".into();
    let token = start(config);
    let refused = token.ready(soon()).await.unwrap_err();
    assert!(matches!(refused, HsmError::Unavailable { cause: Fault::Module { .. }, .. }), "{refused}");
}

#[tokio::test]
async fn the_worker_has_one_socket_its_own_environment_and_leaves_no_core() {
    let softhsm = TestToken::create("alone");
    // Two descriptors that a careless child would inherit: duplicates are not closed on exec.
    #[expect(unsafe_code, reason = "the standard library marks all it opens")]
    // SAFETY: `dup` of a descriptor that this process has.
    let inheritable = unsafe { [libc::dup(1), libc::dup(2)] };
    assert!(inheritable.iter().all(|fd| *fd > 2));
    let token = start(softhsm.config());
    token.ready(soon()).await.unwrap();
    let worker = wait_for_worker("alone", None).await;
    let read = |name: &str| fs::read_to_string(format!("/proc/{worker}/{name}"));
    let limits = read("limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    assert!(read("status").unwrap().contains("NoNewPrivs:\t1"));
    // The kernel gives the environment and descriptors of a process that is not dumpable to root alone.
    match read("environ") {
        Ok(environment) => {
            let variables: Vec<_> = environment.split('\0').filter(|text| !text.is_empty()).collect();
            assert_eq!(variables, [format!("SOFTHSM2_CONF={}", softhsm.conf().display())]);
            let inherited = descriptors(worker);
            let beyond_standard: Vec<_> = inherited.iter().filter(|(fd, _)| *fd > 2).collect();
            // Its socket: once to read, once to write, once to watch.
            let expected = |target: &str| {
                target.starts_with("socket:") || target.contains(&*softhsm.folder().to_string_lossy())
            };
            assert!(beyond_standard.iter().all(|(_, target)| expected(target)), "{inherited:?}");
            let sockets = beyond_standard.iter().filter(|(_, target)| target.starts_with("socket:"));
            assert_eq!(sockets.count(), 3, "{inherited:?}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
}

#[tokio::test]
async fn the_worker_can_have_a_user_of_its_own() {
    let softhsm = TestToken::create("user");
    let us = fs::metadata("/proc/self").unwrap();
    // Only root can become somebody else; others stay who they are.
    let (user, group) = if us.uid() == 0 { (65534, 65534) } else { (us.uid(), us.gid()) };
    let worker = softhsm.folder().join("hsm-worker");
    fs::copy(env!("CARGO_BIN_EXE_hsm-worker"), &worker).unwrap();
    let owned = Command::new("chown").arg("-R").arg(format!("{user}:{group}")).arg(softhsm.folder()).status();
    assert!(owned.unwrap().success());
    let mut config = softhsm.config();
    (config.user, config.group) = (Some(user), Some(group));
    let token = Token::start(config, hsm::WorkerCommand::new(worker));
    let key = key(&token, KeyAlgorithm::EcdsaP256, b"1").await;
    sign_and_check(&key, Lane::Issuance, 1, soon()).await.unwrap();
    let worker = wait_for_worker("user", None).await;
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    for (name, id) in [("Uid", user), ("Gid", group)] {
        assert!(status.contains(&format!("{name}:\t{id}\t{id}\t{id}\t{id}")), "{status}");
    }
    if us.uid() == 0 {
        assert!(status.contains("Groups:\t\n") || status.contains("Groups:\t \n"), "{status}");
    }
}

fn descriptors(pid: u32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let target = fs::read_link(entry.path()).unwrap();
            (entry.file_name().to_str().unwrap().parse().unwrap(), target.to_string_lossy().into_owned())
        })
        .collect()
}

#[tokio::test]
async fn no_worker_outlives_its_supervisor() {
    for stop_first in [false, true] {
        let softhsm = TestToken::create("orphan");
        let mut supervisor = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "supervisor_that_will_be_killed", "--nocapture"])
            .env(SUPERVISED, softhsm.folder())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        let worker: u32 = lines
            .map(|line| line.unwrap())
            .find_map(|line| line.split("worker=").nth(1).map(|pid| pid.trim().parse().unwrap()))
            .unwrap();
        assert!(fs::exists(format!("/proc/{worker}")).unwrap());
        if stop_first {
            signal(worker, "STOP");
        }
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        eventually("the worker is gone", || {
            let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
        .await;
    }
}

/// SoftHSM writes the token's file anew at each login. A worker that was killed together with its supervisor right then
/// left an empty file, and so no token.
#[tokio::test]
async fn a_supervisor_that_dies_during_a_login_costs_no_token() {
    let softhsm = TestToken::create("orphan");
    for number in 0..60 {
        let mut supervisor = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "supervisor_that_will_be_killed", "--nocapture"])
            .env(SUPERVISED, softhsm.folder())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().contains("starting")).unwrap().unwrap();
        // Somewhere in the worker's start, which takes some thirty milliseconds.
        std::thread::sleep(Duration::from_micros(700 * number));
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
    }
    start(softhsm.config()).ready(soon()).await.unwrap();
}

const SUPERVISED: &str = "HSM_TEST_SUPERVISED";

/// It tells its worker and lives until it is killed.
#[tokio::test]
#[ignore = "no test: the process that `no_worker_outlives_its_supervisor` starts and kills"]
async fn supervisor_that_will_be_killed() {
    #[expect(clippy::disallowed_methods, reason = "how the other test talks to this process")]
    let Ok(folder) = std::env::var(SUPERVISED) else { return };
    let folder = std::path::Path::new(&folder);
    let config = hsm::TokenConfig::new(
        "/usr/lib/softhsm/libsofthsm2.so",
        "orphan",
        folder.join("pin"),
        folder.join("latch"),
    )
    .with_environment("SOFTHSM2_CONF", folder.join("softhsm2.conf").to_string_lossy());
    println!("starting");
    let token = start(config);
    token.ready(soon()).await.unwrap();
    println!("worker={}", worker_of("orphan").unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_worker_ends_with_the_last_handle_and_at_shutdown() {
    let softhsm = TestToken::create("handles");
    let token = start(softhsm.config());
    let key = key(&token, KeyAlgorithm::EcdsaP256, b"1").await;
    let worker = wait_for_worker("handles", None).await;
    drop(token);
    sign_and_check(&key, Lane::Issuance, 1, soon()).await.unwrap();
    assert_eq!(worker_of("handles"), Some(worker));
    drop(key);
    eventually("the worker is gone", || worker_of("handles").is_none()).await;

    let token = start(softhsm.config());
    let key = token.find(hsm::KeyQuery::id(*b"1")).await.unwrap().remove(0);
    let key = token.key(KeyRef::generated(*b"1", key.public_key.unwrap()));
    key.ready(soon()).await.unwrap();
    token.shutdown().await;
    assert_eq!(worker_of("handles"), None);
    assert_eq!(sign_and_check(&key, Lane::Issuance, 1, soon()).await, Err(HsmError::ShutDown));
}

#[tokio::test]
async fn a_worker_started_by_hand_does_nothing() {
    for arguments in [&[][..], &["--fd", "0"], &["--fd", "99"], &["--fd"], &["--pin", "1"]] {
        let status =
            Command::new(env!("CARGO_BIN_EXE_hsm-worker")).args(arguments).stderr(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(64), "{arguments:?}");
    }
}
