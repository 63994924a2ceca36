//! Time does not go backwards (DESIGN §2.10).

use std::time::Duration;

use ca_store::CaStore as _;
use pki::Certificate;
use signer::{ClockError, Failure};
use testkit::TestClock;

use crate::support::World;

#[tokio::test]
async fn a_clock_that_steps_back_signs_nothing() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.clock.rewind(Duration::from_secs(61));
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Clock(ClockError::Behind { seconds: 61 }))), "{outcome:?}");
    assert!(world.issuer_key.signed().is_empty());
    world.clock.advance(Duration::from_secs(61));
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn a_small_step_back_is_held() {
    let world = World::start().await;
    let client = world.client().await;
    let before = world.now();
    let ready = world.ready(&client, &["example.org"]).await;
    world.clock.rewind(Duration::from_secs(30));
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let not_before = Certificate::from_der(&issued.certificate).unwrap().not_before();
    assert_eq!(not_before, before.minus(pki::Period::from_hours(1)));
}

#[tokio::test]
async fn the_mark_outlives_the_process() {
    let world = World::start().await;
    let client = world.client().await;
    world.ca.check_clock().await.unwrap();
    let ready = world.ready(&client, &["example.org"]).await;
    let world = world.restart().await;
    world.ca.reload_nodes().await.unwrap();
    world.clock.rewind(Duration::from_secs(3600));
    world.ca.check_clock().await.unwrap();
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Clock(ClockError::Behind { .. }))), "{outcome:?}");
}

#[tokio::test]
async fn a_clock_far_from_the_databases_signs_nothing() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let database = TestClock::default();
    world.store.follow(&database);
    for ahead in [true, false] {
        match ahead {
            true => database.advance(Duration::from_secs(300)),
            false => database.rewind(Duration::from_secs(600)),
        }
        world.ca.check_clock().await.unwrap();
        let outcome = world.ca.issue(ready.finalized_by(&client)).await;
        assert!(
            matches!(outcome, Err(Failure::Clock(ClockError::Skewed { milliseconds: 300_000 }))),
            "{outcome:?}"
        );
    }
    world.store.follow(&world.clock);
    world.ca.check_clock().await.unwrap();
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

/// One clock far ahead must not stand in everyone's way once it is set right.
#[tokio::test]
async fn a_clock_that_was_far_ahead_leaves_no_mark() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.store.follow(&TestClock::default());
    let day = Duration::from_secs(86_400);
    world.clock.advance(day);
    world.ca.check_clock().await.unwrap();
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Clock(ClockError::Skewed { .. }))), "{outcome:?}");
    world.clock.rewind(day);
    world.ca.check_clock().await.unwrap();
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

/// The mark is the cluster's: this process itself has never seen a later time.
#[tokio::test]
async fn a_time_that_another_signer_has_seen_is_passed() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let ahead = world.now().plus(pki::Period::from_hours(1));
    world.store.advance_clock(ahead).await.unwrap();
    world.ca.check_clock().await.unwrap();
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Clock(ClockError::Behind { seconds: 3600 }))), "{outcome:?}");
    assert!(world.issuer_key.signed().is_empty());
}
