//! A real process: signals, exit codes, what a person reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

use std::{
    io::{BufRead, BufReader, Lines},
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

struct Role {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    config: PathBuf,
    _folder: TempDir,
}

impl Role {
    fn start(config: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("role.toml");
        std::fs::write(&path, config).unwrap();
        // cargo builds the examples with the tests, beside them.
        let tests = std::env::current_exe().unwrap();
        let program = tests.ancestors().nth(2).unwrap().join("examples/role");
        let mut child = Command::new(program)
            .arg("--config")
            .arg(&path)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, config: path, _folder: folder }
    }

    /// Reads on until a line has this text.
    fn expect(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        for line in self.lines.by_ref().map(Result::unwrap) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("never said: {text}\n{}", seen.join("\n"));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ends_with(&mut self, code: i32) {
        let rest: Vec<_> = self.lines.by_ref().map(Result::unwrap).collect();
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{}", rest.join("\n"));
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const GOOD: &str = "version = 1\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn it_drains_on_sigterm_and_on_sigint() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut role = Role::start(GOOD, &[]);
        role.expect("ready");
        role.signal(signal);
        role.expect("draining");
        role.ends_with(0);
    }
}

#[test]
fn a_drain_has_a_limit_and_a_second_signal_ends_it() {
    let stubborn = format!("{GOOD}manner = \"stubborn\"\n");
    let mut role = Role::start(&stubborn, &[]);
    role.expect("ready");
    role.signal(Signal::TERM);
    role.expect("draining");
    role.signal(Signal::TERM);
    role.ends_with(1);
    let mut role = Role::start(&format!("{stubborn}drain_seconds = 1\n"), &[]);
    role.expect("ready");
    role.signal(Signal::TERM);
    role.expect("not finished within 1 s");
    role.ends_with(1);
}

#[test]
fn sighup_reloads_and_a_broken_file_changes_nothing() {
    let mut role = Role::start(GOOD, &[]);
    role.expect("ready");
    role.signal(Signal::HUP);
    role.expect("reload.done");
    std::fs::write(&role.config, "version = 1\nnonsense = 1\n").unwrap();
    role.signal(Signal::HUP);
    let refused = role.expect("reload.refused");
    assert!(refused.contains("log filter"), "{refused}");
    role.expect("unknown field");
    role.signal(Signal::TERM);
    role.ends_with(0);
}

#[test]
fn exit_codes_say_what_to_do() {
    Role::start(&format!("{GOOD}manner = \"refused\"\n"), &[]).ends_with(3);
    let mut panicking = Role::start(&format!("{GOOD}manner = \"panicking\"\n"), &[]);
    panicking.expect("panic: on purpose");
    panicking.ends_with(70);
    let mut unknown = Role::start(&format!("{GOOD}manners = \"good\"\n"), &[]);
    unknown.expect("role.toml");
    unknown.expect("^^^^^^^");
    unknown.ends_with(2);
    Role::start(&format!("{GOOD}drain_seconds = 0\n"), &[]).ends_with(2);
}

#[test]
fn check_looks_and_does_not_start() {
    let mut good = Role::start(GOOD, &["--check"]);
    good.expect("the configuration is good");
    good.ends_with(0);
    Role::start(&format!("{GOOD}drain_seconds = 0\n"), &["--check"]).ends_with(2);
    Role::start(&format!("{GOOD}[log]\nfilter = \"a=b=c\"\n"), &["--check"]).ends_with(2);
}

#[test]
fn json_lines_are_json() {
    let mut role = Role::start(&format!("{GOOD}[log]\nformat = \"json\"\n"), &[]);
    let line = role.expect("ready");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("INFO"), Some("ready")));
}
