//! A refused PIN is tried once, by nobody again, until it is another one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail so"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use hsm::{Fault, HsmError, TokenState};
use pki::ErrorClass;
use support::{becomes, eventually, soon, start};
use testkit::token::{PIN, TestToken};

/// Time of the last change of SoftHSM's token file, which every login that reaches the token rewrites.
fn last_login(softhsm: &TestToken) -> std::time::SystemTime {
    let folder = fs::read_dir(softhsm.folder().join("tokens")).unwrap().next().unwrap().unwrap().path();
    fs::metadata(folder.join("token.object")).unwrap().modified().unwrap()
}

/// Whether the token counts failed logins.
fn counts_failures(softhsm: &TestToken) -> bool {
    let slots = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(softhsm.module())
        .arg("--list-slots")
        .env("SOFTHSM2_CONF", softhsm.conf())
        .output()
        .expect("apt-get install opensc");
    String::from_utf8_lossy(&slots.stdout).contains("user PIN count low")
}

#[tokio::test]
async fn a_refused_pin_is_latched_and_a_new_one_clears_the_latch() {
    let softhsm = TestToken::create("latched");
    softhsm.set_pin("000000");
    let mut config = softhsm.config();
    config.respawn_max = Duration::from_millis(50);
    let token = start(config.clone());
    let refused = token.ready(soon()).await.unwrap_err();
    assert!(matches!(&refused, HsmError::Unavailable { cause: Fault::PinRefused { .. }, .. }), "{refused}");
    assert_eq!(refused.class(), ErrorClass::Fatal);
    assert!(!refused.to_string().contains("000000"));
    assert!(counts_failures(&softhsm));
    let first_try = last_login(&softhsm);

    // The supervisor goes on starting workers, and so does a service manager with the signer.
    becomes(&token, |state| matches!(state, TokenState::Down(Fault::PinLatched { .. }))).await;
    eventually("five workers", || token.health().respawns >= 5).await;
    token.shutdown().await;
    for _ in 0..3 {
        let token = start(config.clone());
        let refused = token.ready(soon()).await.unwrap_err();
        assert!(
            matches!(refused, HsmError::Unavailable { cause: Fault::PinLatched { .. }, .. }),
            "{refused}"
        );
        token.shutdown().await;
    }
    assert_eq!(last_login(&softhsm), first_try, "the token saw another login");
    let latch = fs::read(softhsm.latch_file()).unwrap();
    assert!(!latch.windows(6).any(|part| part == b"000000"));

    // The right PIN, and nobody need restart anything.
    let token = start(config);
    softhsm.set_pin(PIN);
    token.probe();
    becomes(&token, |state| matches!(state, TokenState::Ready(_))).await;
    assert!(!softhsm.latch_file().exists());
    assert!(!counts_failures(&softhsm));
}

#[tokio::test]
async fn a_login_that_was_cut_off_and_failed_counts_as_refused() {
    let softhsm = TestToken::create("cut");
    // What a worker leaves that is killed between C_Login and its answer: the mark, and the token's counter.
    softhsm.set_pin("000000");
    let token = start(softhsm.config());
    token.ready(soon()).await.unwrap_err();
    token.shutdown().await;
    let latch = fs::read_to_string(softhsm.latch_file()).unwrap();
    fs::write(softhsm.latch_file(), latch.replace("\nrefused", "\ntrying")).unwrap();
    let before = last_login(&softhsm);
    let token = start(softhsm.config());
    let refused = token.ready(soon()).await.unwrap_err();
    assert!(matches!(refused, HsmError::Unavailable { cause: Fault::PinRefused { .. }, .. }), "{refused}");
    assert_eq!(last_login(&softhsm), before);
    token.shutdown().await;

    // The mark alone, without a failed login in the token, costs nothing.
    let softhsm = TestToken::create("cut");
    fs::write(softhsm.latch_file(), latch.replace("\nrefused", "\ntrying")).unwrap();
    let token = start(softhsm.config());
    token.ready(soon()).await.unwrap();
}

#[tokio::test]
async fn pin_files_that_are_missing_empty_or_open_to_all_are_not_used() {
    let softhsm = TestToken::create("files");
    let before = last_login(&softhsm);
    let mut config = softhsm.config();
    config.pin_file = softhsm.folder().join("nowhere");
    let refused = start(config).ready(soon()).await.unwrap_err();
    assert!(matches!(refused, HsmError::Unavailable { cause: Fault::PinUnreadable { .. }, .. }), "{refused}");
    softhsm.set_pin("");
    let refused = start(softhsm.config()).ready(soon()).await.unwrap_err();
    assert!(matches!(refused, HsmError::Unavailable { cause: Fault::PinUnreadable { .. }, .. }), "{refused}");
    softhsm.set_pin(PIN);
    fs::set_permissions(softhsm.pin_file(), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = start(softhsm.config()).ready(soon()).await.unwrap_err();
    assert!(matches!(refused, HsmError::Unavailable { cause: Fault::PinExposed { .. }, .. }), "{refused}");
    assert_eq!(last_login(&softhsm), before);
}
