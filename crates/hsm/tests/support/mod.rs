//! What the tests with a real token share.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hsm::{
    Deadline, HsmError, Job, Key, KeyRef, KeySpec, Lane, Signing as _, Token, TokenConfig, TokenState,
    WorkerCommand,
};
use pki::KeyAlgorithm;

pub(crate) fn worker() -> WorkerCommand {
    WorkerCommand::new(env!("CARGO_BIN_EXE_hsm-worker"))
}

pub(crate) fn start(config: TokenConfig) -> Token {
    Token::start(config, worker())
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// A new key, declared and found.
pub(crate) async fn key(token: &Token, algorithm: KeyAlgorithm, id: &[u8]) -> Key {
    let label = format!("{algorithm} {}", hex::encode(id));
    let made = token.generate(KeySpec { algorithm, label, id: id.to_vec() }).await.unwrap();
    let key = token.key(KeyRef::generated(id, made.public_key));
    key.ready(soon()).await.unwrap();
    key
}

/// A job of its own, and whether the signature is right.
pub(crate) async fn sign_and_check(
    key: &Key,
    lane: Lane,
    number: usize,
    deadline: Deadline,
) -> Result<(), HsmError> {
    let message = format!("message {number}");
    let algorithm = key.public_key().algorithm().default_signature();
    let signature = key.sign(lane, Job::for_message(algorithm, message.as_bytes()), deadline).await?;
    key.public_key().verify(algorithm, message.as_bytes(), &signature).expect("a verified signature");
    Ok(())
}

/// Signs from `tasks` tasks until told to stop; gives the number of signatures, and panics if one fails.
pub(crate) struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<usize>>,
}

impl Load {
    pub(crate) fn start(key: &Key, tasks: usize) -> Load {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tasks = (0..tasks).map(|task| {
            let (key, stop) = (key.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    sign_and_check(&key, Lane::ALL[task % 3], done, soon()).await.unwrap();
                    done += 1;
                }
                done
            })
        });
        Load { tasks: tasks.collect(), stop }
    }

    pub(crate) async fn finish(self) -> usize {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut done = 0;
        for task in self.tasks {
            done += task.await.expect("no request is lost");
        }
        done
    }
}

/// The worker of this process for the token, if there is one.
pub(crate) fn worker_of(label: &str) -> Option<u32> {
    children_of(std::process::id()).into_iter().find(|pid| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|octet| *octet == 0);
        arguments.any(|argument| argument == label.as_bytes())
    })
}

pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // pid (name) state ppid …
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let state = fields.next();
        let is_child = fields.next() == Some(&parent.to_string());
        is_child && state != Some("Z")
    })
    .collect()
}

/// Waits for the worker of the token, another than `other`.
pub(crate) async fn wait_for_worker(label: &str, other: Option<u32>) -> u32 {
    let mut found = None;
    eventually("a worker", || {
        found = worker_of(label).filter(|pid| Some(*pid) != other);
        found.is_some()
    })
    .await;
    found.unwrap()
}

pub(crate) fn signal(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
}

/// Waits for a state of the token.
pub(crate) async fn becomes(token: &Token, is_it: impl FnMut(&TokenState) -> bool) {
    let mut state = token.watch();
    let settled = tokio::time::timeout(Duration::from_secs(60), state.wait_for(is_it)).await;
    assert!(settled.is_ok(), "after a minute {:?}", token.health());
}

/// Waits for what must come true; gives up after a time in which anything would have.
pub(crate) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
