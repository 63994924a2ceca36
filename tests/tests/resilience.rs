//! A role or worker that is killed while a client works: it is started again, and the client gets its certificate.

use e2e::demo::{is_alive, signal};
use e2e::program::run;
use e2e::{Demo, client};

/// A client works in the background; meanwhile the process is killed.
fn survives_the_loss_of(word: &str) {
    let demo = Demo::start();
    let victim = demo.process_of(word);
    let folder = demo.client_folder("certbot");
    std::thread::scope(|scope| {
        let working = scope.spawn(|| client::certbot(&demo, &folder, &["kill.demo.test"]));
        // Whenever in the client's work it hits: certbot takes about a second to import itself, then some to work.
        for delay in [400, 900, 900] {
            std::thread::sleep(std::time::Duration::from_millis(delay));
            signal(demo.process_of(word), "KILL");
        }
        working.join().expect("the client got its certificate");
    });
    assert!(!is_alive(victim));
    let successor = demo.process_of(word);
    assert_ne!(successor, victim);
    let again = demo.client_folder("again");
    let _ = client::certbot(&demo, &again, &["after.demo.test"]);
}

#[test]
fn a_killed_signer_is_started_again() {
    survives_the_loss_of("signer");
}

#[test]
fn a_killed_worker_is_started_again() {
    survives_the_loss_of("hsm-worker");
}

/// A client's connections die with the front, and certbot takes a broken connection for the end: it is run again, as its timer
/// would, until it has its certificate. What the front had kept is still there.
#[test]
fn a_killed_front_is_started_again() {
    let demo = Demo::start();
    let victim = demo.process_of("front");
    let folder = demo.client_folder("certbot");
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let tries = (0..5).find(|_| {
                run(&mut client::certbot_certonly(&demo, &folder, &["kill.demo.test"])).status.success()
            });
            tries.expect("the client got its certificate");
        });
        for delay in [400, 900, 900] {
            std::thread::sleep(std::time::Duration::from_millis(delay));
            signal(demo.process_of("front"), "KILL");
        }
        working.join().expect("the client got its certificate");
    });
    assert!(!is_alive(victim));
    assert_ne!(demo.process_of("front"), victim);
}

#[test]
fn a_killed_validator_is_started_again() {
    survives_the_loss_of("validator");
}

#[test]
fn a_killed_status_node_is_started_again() {
    survives_the_loss_of("status");
}

#[test]
fn a_state_folder_is_kept_and_used_again() {
    let demo = Demo::start();
    let folder = demo.client_folder("certbot");
    let _ = client::certbot(&demo, &folder, &["kept.demo.test"]);
    let before = demo.facts.clone();
    let demo = Demo::start_in(demo.stop());
    assert_eq!(demo.facts.directory, before.directory, "account URLs stay good");
    assert_eq!(demo.facts.crl, before.crl);
    // The same client, with its account of before.
    let folder = demo.client_folder("certbot");
    let _ = client::certbot(&demo, &folder, &["kept.demo.test", "more.demo.test"]);
}
