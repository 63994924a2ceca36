//! A worker that dies or hangs under load: no client notices.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::chaos::audit::Auditor;
use e2e::chaos::load::Load;
use e2e::chaos::{Director, Kind, Stack, Tally};
use e2e::demo::{is_alive, signal};

const PATIENCE: Duration = Duration::from_secs(60);

async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sixteen clients issue, and the worker gets the signal so many times, each time a new one, while it signs.
async fn no_request_is_lost(name: &str, times: usize) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let director = Director::new("sqlite", Arc::clone(&tally), 1);
    let stack = Stack::start(Kind::Sqlite, &director).await.unwrap();
    let load = Load::start(&stack, &director, 16);
    for number in 1..=times {
        // Not during its login: SoftHSM's token does not survive that.
        eventually("a worker", || (stack.said("signer", "token is ready") >= number).then_some(())).await;
        let worker = eventually("a worker", || stack.worker()).await;
        let issued = load.issued();
        eventually("certificates", || (load.issued() >= issued + 20).then_some(())).await;
        signal(worker, name);
        eventually("its end", || (!is_alive(worker)).then_some(())).await;
    }
    let issued = load.issued();
    eventually("certificates", || (load.issued() >= issued + 20).then_some(())).await;
    let quiet = load.pause(PATIENCE).await;
    assert!(quiet.is_some(), "clients are stuck\n{}", stack.logs());
    let mut held = std::mem::take(&mut *load.held.lock().unwrap());
    let found = Auditor::default().audit(&stack, &mut held).await.unwrap();
    assert_eq!((found, director.faults()), (Vec::new(), Vec::new()), "{}", stack.logs());
    // Nobody had to ask twice: the signer gives a lost job to the next worker.
    assert_eq!(director.retries(), 0, "{}", stack.logs());
    drop(load);
    stack.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_under_load_loses_no_request() {
    no_request_is_lost("KILL", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_under_load_loses_no_request() {
    no_request_is_lost("STOP", 3).await;
}
