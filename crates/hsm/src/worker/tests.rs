//! The token's side with a real SoftHSM. Its configuration comes by the environment, which only a process of its own can
//! have: each test here runs again as a child, and does its work there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::frame::{Event, NewKey, NewKeyKind};
use crate::job::Mechanism;
use crate::key::Origin;

/// Makes a token and runs the test `name` in a process that knows it.
fn in_a_process_with_a_token(name: &str, work: impl FnOnce(Backend, UnixStream)) {
    const FOLDER: &str = "HSM_TEST_FOLDER";
    #[expect(clippy::disallowed_methods, reason = "how the parent talks to the child")]
    if let Ok(folder) = std::env::var(FOLDER) {
        let path = |name: &str| Path::new(&folder).join(name).to_string_lossy().into_owned();
        let configure = crate::frame::Configure {
            module: "/usr/lib/softhsm/libsofthsm2.so".to_owned(),
            label: "worker".to_owned(),
            serial: None,
            pin_file: path("pin"),
            latch_file: path("latch"),
            sessions: 1,
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let backend = Backend::open(configure, Arc::new(Outbox::new(theirs))).unwrap();
        return work(backend, ours);
    }
    let softhsm = testkit::token::TestToken::create("worker");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(FOLDER, softhsm.folder())
        .env("SOFTHSM2_CONF", softhsm.conf())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

fn declare(backend: &Backend) {
    let key = NewKey { kind: NewKeyKind::P256, label: "key".to_owned(), id: vec![1] };
    let made = backend.generate(&key).unwrap();
    backend.keys.declare(0, vec![1], &made.spki.unwrap(), Origin::Generated);
    backend.check_key(0).unwrap();
}

fn job(id: u64) -> SignJob {
    let now = Instant::now();
    SignJob {
        id,
        key: 0,
        mechanism: Mechanism::EcdsaP256,
        data: bytes::Bytes::from_static(&[7; 32]),
        arrived: now,
        deadline: now + Duration::from_secs(60),
    }
}

/// Reports up to the answer to the job `last`.
fn reports_until(socket: UnixStream, last: u64) -> Vec<Report> {
    let mut socket = socket;
    let (mut splitter, mut reports) = (Splitter::default(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "the worker said no more than {reports:?}");
        splitter.extend(&buffer[..count]);
        while let Some(frame) = splitter.next().unwrap() {
            let report = Report::decode(frame).unwrap();
            let is_last =
                matches!(&report, Report::Signed { id, .. } | Report::Refused { id, .. } if *id == last);
            reports.push(report);
            if is_last {
                return reports;
            }
        }
    }
}

#[test]
fn a_lost_login_costs_a_session_and_no_job() {
    in_a_process_with_a_token("worker::tests::a_lost_login_costs_a_session_and_no_job", |backend, socket| {
        declare(&backend);
        let backend = Arc::new(backend);
        let jobs = Arc::new(Jobs::new(1));
        let signer = start_signer(0, &jobs, &backend, &backend.outbox);
        jobs.push(job(1));
        jobs.wake();
        let before = reports_until(socket.try_clone().unwrap(), 1);
        assert!(matches!(before.last(), Some(Report::Signed { .. })), "{before:?}");

        let epoch = backend.epoch();
        backend.log_out();
        jobs.push(job(2));
        jobs.wake();
        let after = reports_until(socket, 2);
        assert!(matches!(after.last(), Some(Report::Signed { .. })), "{after:?}");
        let failed = after.iter().any(|report| matches!(report, Report::Event(Event::CallFailed { .. })));
        assert!(failed, "the lost login was noticed by a failed call: {after:?}");
        assert!(after.contains(&Report::Event(Event::LoggedIn { epoch: epoch + 1 })), "{after:?}");
        assert!(after.contains(&Report::Event(Event::Reopened)), "{after:?}");
        jobs.close();
        signer.join().unwrap();
        backend.finalize();
    });
}

#[test]
fn a_handle_lives_for_one_epoch() {
    in_a_process_with_a_token("worker::tests::a_handle_lives_for_one_epoch", |backend, _socket| {
        declare(&backend);
        let session = backend.session().unwrap();
        let (before, length) = backend.locate(&session, 0).unwrap();
        assert_eq!(length, 64);
        backend.log_out();
        drop(session);
        let session = backend.session().unwrap();
        // SoftHSM numbers its objects anew.
        let (after, _) = backend.locate(&session, 0).unwrap();
        assert_ne!(before.handle(), after.handle());
        drop(session);
        backend.finalize();
    });
}

#[test]
fn undeclared_keys_and_other_peoples_keys_are_not_used() {
    in_a_process_with_a_token(
        "worker::tests::undeclared_keys_and_other_peoples_keys_are_not_used",
        |backend, _socket| {
            declare(&backend);
            assert_eq!(backend.check_key(5), Err(Fault::KeyUndeclared { index: 5 }));
            let other = NewKey { kind: NewKeyKind::P256, label: "other".to_owned(), id: vec![2] };
            let other = backend.generate(&other).unwrap();
            backend.keys.declare(1, vec![1], &other.spki.unwrap(), Origin::Generated);
            assert_eq!(backend.check_key(1), Err(Fault::PublicKeyMismatch { id: "01".to_owned() }));
            backend.keys.declare(2, vec![9], &[], Origin::Generated);
            assert_eq!(backend.check_key(2), Err(Fault::KeyNotFound { id: "09".to_owned() }));
            backend.finalize();
        },
    );
}

/// Threads are woken for jobs whatever arrives together with them. (Keys are declared again whenever somebody opens a door:
/// at a signer's start that follows the first jobs by microseconds.)
#[test]
fn a_job_with_another_request_behind_it_is_not_left_lying() {
    let name = "worker::tests::a_job_with_another_request_behind_it_is_not_left_lying";
    in_a_process_with_a_token(name, |backend, socket| {
        declare(&backend);
        let backend = Arc::new(backend);
        let jobs = Arc::new(Jobs::new(1));
        let signer = start_signer(0, &jobs, &backend, &backend.outbox);
        let (mut supervisor, theirs) = UnixStream::pair().unwrap();
        let (ask, questions) = mpsc::channel();
        let (its_jobs, its_backend) = (Arc::clone(&jobs), Arc::clone(&backend));
        let reader = thread::spawn(move || {
            take_requests(&mut Requests::new(theirs), &its_jobs, &its_backend, &ask);
            drop(questions);
        });
        let mut both = Vec::new();
        let SignJob { id, key, mechanism, data, .. } = job(1);
        Request::Sign { id, key, mechanism, remaining_micros: 60_000_000, data }.encode(&mut both);
        Request::Recycle { session: 0, key: 0 }.encode(&mut both);
        // The signing thread sleeps by then, most likely; if not, this test shows nothing, and fails nothing.
        thread::sleep(Duration::from_millis(100));
        std::io::Write::write_all(&mut supervisor, &both).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let reports = reports_until(socket, 1);
        assert!(matches!(reports.last(), Some(Report::Signed { .. })), "{reports:?}");
        drop(supervisor);
        reader.join().unwrap();
        jobs.close();
        signer.join().unwrap();
        backend.finalize();
    });
}
