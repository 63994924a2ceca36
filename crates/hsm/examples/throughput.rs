//! Signatures a second through the whole pipe (queue, socket, worker, token, verification), beside a bare `C_Sign` loop.
//!
//! `cargo run --release -p hsm --example throughput [seconds] [algorithm…]`

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, not a service"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use hsm::{Deadline, Job, Key, KeyRef, KeySpec, Lane, Signing as _, Token};
use pki::KeyAlgorithm;
use testkit::token::{PIN, TestToken};

fn main() {
    if let Ok(id) = std::env::var("RAW_ID") {
        return raw(
            &id,
            &std::env::var("RAW_MODULE").unwrap(),
            std::env::var("RAW_MS").unwrap().parse().unwrap(),
        );
    }
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(2.0, |text| text.parse().unwrap());
    let mut algorithms: Vec<KeyAlgorithm> = arguments.map(|text| text.parse().unwrap()).collect();
    if algorithms.is_empty() {
        algorithms =
            ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-2048"].map(|name| name.parse().unwrap()).to_vec();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(Duration::from_secs_f64(seconds), &algorithms));
}

async fn measure(time: Duration, algorithms: &[KeyAlgorithm]) {
    for sessions in [1, 2] {
        let softhsm = TestToken::create("throughput");
        let mut config = softhsm.config();
        config.sessions = Some(sessions);
        let token = Token::start(config, testkit::token::worker());
        for (number, algorithm) in algorithms.iter().enumerate() {
            let id = vec![number as u8];
            let spec = KeySpec { algorithm: *algorithm, label: algorithm.to_string(), id: id.clone() };
            let made = token.generate(spec).await.unwrap();
            let key = token.key(KeyRef::generated(id.clone(), made.public_key));
            key.ready(Deadline::after(Duration::from_secs(10))).await.unwrap();
            if sessions == 1 {
                println!("{algorithm}: verification alone {:.1} µs of CPU", verification(&key).await);
                bare_loop(&softhsm, &id, 1, time);
                bare_loop(&softhsm, &id, 2, time);
            }
            for tasks in [1, 8, 32, 256] {
                pipe(&key, sessions, tasks, time).await;
            }
        }
        token.shutdown().await;
    }
}

async fn pipe(key: &Key, sessions: u16, tasks: usize, time: Duration) {
    let stop = Arc::new(AtomicBool::new(false));
    let worker = worker_pid();
    let before = (cpu(Path::new("/proc/self/stat")), cpu(&worker));
    let began = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (key, stop) = (key.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let algorithm = key.public_key().algorithm().default_signature();
                let (mut count, mut slowest) = (0_u64, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let job = Job::for_message(algorithm, &task.to_le_bytes());
                    let asked = Instant::now();
                    key.sign(Lane::Issuance, job, Deadline::after(Duration::from_secs(10))).await.unwrap();
                    slowest = slowest.max(asked.elapsed());
                    count += 1;
                }
                (count, slowest)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let (count, mut total, mut slowest) = (tasks.len(), 0, Duration::ZERO);
    for task in tasks {
        let (done, slow) = task.await.unwrap();
        total += done;
        slowest = slowest.max(slow);
    }
    let elapsed = began.elapsed().as_secs_f64();
    let each = |seconds: f64| seconds * 1e6 / total as f64;
    println!(
        "  pipe, {sessions} session(s), {count:3} tasks: {:8.0}/s  CPU a signature: supervisor {:6.1} µs, worker {:6.1} µs  slowest {:.1} ms",
        total as f64 / elapsed,
        each(cpu(Path::new("/proc/self/stat")) - before.0),
        each(cpu(&worker) - before.1),
        slowest.as_secs_f64() * 1e3,
    );
}

async fn verification(key: &Key) -> f64 {
    let algorithm = key.public_key().algorithm().default_signature();
    let job = Job::for_message(algorithm, b"m");
    let signature = key.sign(Lane::Issuance, job, Deadline::after(Duration::from_secs(10))).await.unwrap();
    let (began, mut rounds) = (cpu(Path::new("/proc/self/stat")), 0.0);
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        key.public_key().verify(algorithm, b"m", &signature).unwrap();
        rounds += 1.0;
    }
    (cpu(Path::new("/proc/self/stat")) - began) * 1e6 / rounds
}

/// The bare loop in processes of their own.
fn bare_loop(softhsm: &TestToken, id: &[u8], processes: usize, time: Duration) {
    let children: Vec<_> = (0..processes)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .env("RAW_ID", hex::encode(id))
                .env("RAW_MODULE", softhsm.module())
                .env("RAW_MS", time.as_millis().to_string())
                .env("SOFTHSM2_CONF", softhsm.conf())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let (mut rate, mut each) = (0.0, 0.0);
    for child in children {
        let output = child.wait_with_output().unwrap().stdout;
        let numbers: Vec<f64> = std::str::from_utf8(&output)
            .unwrap()
            .split_whitespace()
            .map(|text| text.parse().unwrap())
            .collect();
        rate += numbers[0];
        each += numbers[1] / processes as f64;
    }
    println!(
        "  bare C_SignInit + C_Sign, {processes} process(es): {rate:8.0}/s  CPU a signature {each:6.1} µs"
    );
}

fn raw(id: &str, module: &str, milliseconds: u64) {
    let pkcs11 = Pkcs11::new(module).unwrap();
    // The other process may be rewriting the token's file.
    let slot = loop {
        pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        if let Some(slot) = pkcs11.get_slots_with_initialized_token().unwrap().first() {
            break *slot;
        }
        pkcs11.clone().finalize().unwrap();
    };
    let session = pkcs11.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(hex::decode(id).unwrap())];
    let key = session.find_objects(&template).unwrap()[0];
    let (mechanism, data): (Mechanism<'_>, &[u8]) = match id {
        "00" => (Mechanism::Ecdsa, &[7; 32]),
        "01" => (Mechanism::Ecdsa, &[7; 48]),
        "02" => (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), &[7; 8]),
        _ => (Mechanism::RsaPkcs, &[7; 51]),
    };
    let (began, before) = (Instant::now(), cpu(Path::new("/proc/self/stat")));
    let time = Duration::from_millis(milliseconds);
    let mut count = 0_u64;
    while began.elapsed() < time {
        session.sign(&mechanism, key, data).unwrap();
        count += 1;
    }
    let spent = cpu(Path::new("/proc/self/stat")) - before;
    println!("{} {}", count as f64 / began.elapsed().as_secs_f64(), spent * 1e6 / count as f64);
    drop(session);
    pkcs11.finalize().unwrap();
}

/// User and system time of a process, seconds.
fn cpu(stat: &Path) -> f64 {
    let text = std::fs::read_to_string(stat).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn worker_pid() -> PathBuf {
    let entries = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let ours = entries.filter(|path| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.contains("(hsm-worker)") && stat.split(' ').nth(3) == Some(&std::process::id().to_string())
    });
    ours.last().unwrap().join("stat")
}
