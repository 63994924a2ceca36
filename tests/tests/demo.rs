//! `chancery demo` as a new user runs it.

use std::process::Command;

use e2e::program::{free_port, ours, succeed};

#[test]
fn the_demo_shows_two_certificates_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(ours("chancery"));
    command.args(["demo", "--http-01-port", &free_port().to_string()]).env("TMPDIR", temporary.path());
    let output = succeed(&mut command);
    let said = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "certbot gets a certificate",
        "lego gets one",
        "OK, OK",
        "hsm-worker",
        "chancery signer",
        "DNS:www.demo.test",
    ] {
        assert!(said.contains(expected), "the demo does not say {expected:?}:\n{said}");
    }
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let process_ids = said.lines().filter(|line| line.contains("chancery ") || line.contains("hsm-worker"));
    for line in process_ids {
        if let Some(id) = line.split_whitespace().next().and_then(|word| word.parse().ok()) {
            assert!(!e2e::demo::is_alive(id), "{line} is still running");
        }
    }
}
