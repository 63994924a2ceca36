//! Time does not go backwards (DESIGN §2.10).

use std::time::Duration;

use ca_store::CaStore as _;
use pki::Certificate;
use signer::{ClockError, Failure};
use testkit::TestClock;

use crate::support::{Client, OPEN, World};

#[tokio::test]
async fn m3_a_clock_that_steps_back_signs_nothing() {
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

/// As far as clocks may differ, and one second further, in both directions.
#[tokio::test]
async fn clocks_may_differ_by_the_skew_and_no_more() {
    let world = World::start().await;
    let client = world.client().await;
    let skew = signer::config::Limits::default().clock_skew();
    let second = Duration::from_secs(1);
    for ahead in [true, false] {
        let database = TestClock::default();
        world.store.follow(&database);
        let shift = |by| if ahead { database.advance(by) } else { database.rewind(by) };
        shift(skew);
        world.ca.check_clock().await.unwrap();
        let ready = world.ready(&client, &["example.org"]).await;
        world.issue(ready.finalized_by(&client)).await.unwrap();
        let ready = world.ready(&client, &["example.org"]).await;
        // The time that the comparison itself takes counts as allowed: no more than a second of it, here.
        shift(second * 2);
        world.ca.check_clock().await.unwrap();
        let outcome = world.ca.issue(ready.finalized_by(&client)).await;
        assert!(
            matches!(outcome, Err(Failure::Clock(ClockError::Skewed { milliseconds: 62_000 }))),
            "ahead: {ahead}: {outcome:?}"
        );
    }
}

/// A clock behind the mark by exactly the skew is held at the mark.
#[tokio::test]
async fn the_longest_step_back_that_is_held() {
    let world = World::start().await;
    let client = world.client().await;
    let before = world.now();
    let ready = world.ready(&client, &["example.org"]).await;
    world.clock.rewind(signer::config::Limits::default().clock_skew());
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let not_before = Certificate::from_der(&issued.certificate).unwrap().not_before();
    assert_eq!(not_before, before.minus(pki::Period::from_hours(1)));
}

/// The clock steps between journal and record, in either direction: what was signed meanwhile is not delivered, and when
/// time is right again the same bytes become the one certificate.
#[tokio::test]
async fn a_step_while_a_signature_is_made_delays_its_record() {
    for ahead in [true, false] {
        let world = World::start().await;
        let client = world.client().await;
        let ready = world.ready(&client, &["example.org"]).await;
        world.store.follow(&TestClock::default());
        world.issuer_key.hold(true);
        let caller = tokio::spawn({
            let (ca, order) = (world.ca.clone(), ready.finalized_by(&client));
            async move { ca.issue(order).await }
        });
        while !world.issuer_key.is_asked() {
            tokio::task::yield_now().await;
        }
        let day = Duration::from_secs(86_400);
        if ahead {
            world.clock.advance(day)
        } else {
            world.clock.rewind(day)
        }
        world.ca.check_clock().await.unwrap();
        world.issuer_key.hold(false);
        let outcome = caller.await.unwrap();
        assert!(matches!(outcome, Err(Failure::Clock(_))), "ahead: {ahead}: {outcome:?}");
        let intent = world.journal().await.remove(0);
        assert_eq!(intent.signature, None, "ahead: {ahead}");
        // As long as time is wrong it stays so, whoever asks; the takeover as well.
        let signed = world.issuer_key.signed().len();
        let outcome = world.ca.issue(ready.finalized_by(&client)).await;
        assert!(matches!(outcome, Err(Failure::Clock(_))), "ahead: {ahead}: {outcome:?}");
        assert_eq!(world.issuer_key.signed().len(), signed, "no key signs while time is wrong");
        if ahead {
            world.clock.rewind(day)
        } else {
            world.clock.advance(day)
        }
        world.ca.check_clock().await.unwrap();
        let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
        assert_eq!(issued.serial, intent.serial, "ahead: {ahead}");
        assert_eq!(world.journal().await.len(), 1);
    }
}

/// Nothing that has a time in it is written by a clock that is wrong: no account, no revocation.
#[tokio::test]
async fn a_wrong_clock_registers_and_revokes_nothing() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    world.store.follow(&TestClock::default());
    for ahead in [true, false] {
        let hour = Duration::from_secs(3_600);
        if ahead {
            world.clock.advance(hour)
        } else {
            world.clock.rewind(hour)
        }
        world.ca.check_clock().await.unwrap();
        let outcome = world.ca.register_account(&Client::new(OPEN).new_account()).await;
        assert!(matches!(outcome, Err(Failure::Clock(_))), "ahead: {ahead}: {outcome:?}");
        let outcome = world.ca.authorize_order(&client.new_order(&["example.org"])).await;
        assert!(matches!(outcome, Err(Failure::Clock(_))), "ahead: {ahead}: {outcome:?}");
        let outcome = world.ca.revoke_by_operator("op", issued.serial, pki::Reason::Superseded).await;
        assert!(matches!(outcome, Err(Failure::Clock(_))), "ahead: {ahead}: {outcome:?}");
        if ahead {
            world.clock.rewind(hour)
        } else {
            world.clock.advance(hour)
        }
        world.ca.check_clock().await.unwrap();
    }
    world.ca.revoke_by_operator("op", issued.serial, pki::Reason::Superseded).await.unwrap();
}

/// A signer that comes back with a clock behind the mark signs no intent of its former life until time has passed the mark.
#[tokio::test]
async fn a_restart_with_a_clock_that_is_behind_takes_nothing_over() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.issuer_key.fail_next(testkit::signing::KeyFault::FailedAfterSigning);
    world.ca.issue(ready.finalized_by(&client)).await.unwrap_err();
    world.ca.check_clock().await.unwrap();
    let world = world.restart().await;
    let hour = Duration::from_secs(3_600);
    world.clock.rewind(hour);
    world.ca.check_clock().await.unwrap();
    let left = signer::Takeover { left: 1, ..signer::Takeover::default() };
    assert_eq!(world.ca.take_over().await.unwrap(), left);
    assert_eq!(world.journal().await[0].signature, None);
    world.clock.advance(hour);
    world.ca.check_clock().await.unwrap();
    world.ca.reload_nodes().await.unwrap();
    // This life has taken the intent over; whoever asks for the order has it signed.
    world.issue(ready.finalized_by(&client)).await.unwrap();
    assert_eq!(world.journal().await.len(), 1);
}
