//! What is revoked is not served as good once a signer has said so.

use std::time::Duration;

use pki::ocsp::{CertStatus, encode_request};
use rpc::proto::status::v1::RevocationNotice;

use super::{TRY_LATER, following, is_error, path, said, status};
use crate::world::meter::Meter;
use crate::world::oracle::{notice, serial};
use crate::world::{NOW, Node, World};

/// Nothing is found by comparison: what comes, came by a notice.
const NO_POLL: &str = "ocsp = { poll_seconds = 3600 }";
const FAST_POLL: &str = "ocsp = { poll_seconds = 1 }";

async fn ready(more: &str) -> (World, Node) {
    let world = World::new().await;
    world.publish_all();
    world.oracle.assign(0..100);
    let node = following(&world, more).await;
    (world, node)
}

async fn is_good(world: &World, node: &Node, number: u16) -> bool {
    status(&node.post(&world.oracle.request(number), "").await) == CertStatus::Good
}

async fn until_revoked(world: &World, node: &Node, number: u16) {
    node.wait(|| async { !is_good(world, node, number).await }).await;
}

#[tokio::test]
async fn a_notice_drops_what_it_names_and_asks_again_at_once() {
    let (world, node) = ready(NO_POLL).await;
    for number in 1..=3 {
        assert!(is_good(&world, &node, number).await);
    }
    node.post(&encode_request(&[world.oracle.id_sha256(2)], None), "").await;
    assert_eq!(world.oracle.asked(), 4);
    world.oracle.revoke(&[2]);
    // Nobody asks, and both are there again.
    node.wait(|| async { world.oracle.asked() == 6 }).await;
    until_revoked(&world, &node, 2).await;
    assert!(is_good(&world, &node, 1).await && is_good(&world, &node, 3).await);
    assert_eq!(
        world.oracle.asked(),
        6,
        "what the notice does not name was dropped, or the named one not kept"
    );
    // What is not kept is not asked for either.
    world.oracle.revoke(&[50]);
    world.oracle.revoke(&[3]);
    node.wait(|| async { world.oracle.asked() == 7 }).await;
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_was_made_before_a_notice_is_not_kept_after_it() {
    let (world, node) = ready(NO_POLL).await;
    world.oracle.hold(true);
    let asking = async { node.post(&world.oracle.request(5), "").await };
    let nonce = encode_request(&[world.oracle.id(5)], Some(&[9; 32]));
    let with_nonce = async { node.post(&nonce, "").await };
    let revoking = async {
        // `good` is made, and on its way.
        node.wait(|| async { world.oracle.asked() == 2 }).await;
        world.oracle.revoke(&[5]);
        // Somebody else's notice behind it: when that is done, the first is.
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.oracle.hold(false);
    };
    let (answer, with_nonce, ()) = tokio::join!(asking, with_nonce, revoking);
    for answer in [answer, with_nonce] {
        assert!(matches!(status(&answer), CertStatus::Revoked { .. }), "{answer:?}");
    }
    assert!(!is_good(&world, &node, 5).await);
    node.stop().await;
}

#[tokio::test]
async fn a_long_notice_comes_in_pieces() {
    let (world, node) = ready(NO_POLL).await;
    for number in 1..=3 {
        assert!(is_good(&world, &node, number).await);
    }
    let old = world.oracle.revision();
    let last = world.oracle.revoke_silently(&[1, 2]);
    let revision = last.shard.clone().unwrap().revision;
    assert_eq!(revision, old + 1);
    world.oracle.tell(notice(0, old, [serial(1)].into_iter()));
    // Although the revision is not told yet.
    until_revoked(&world, &node, 1).await;
    world.oracle.tell(notice(0, revision, [serial(2)].into_iter()));
    until_revoked(&world, &node, 2).await;
    // Now both are kept.
    node.wait(|| async {
        let before = world.oracle.asked();
        is_good(&world, &node, 1).await;
        is_good(&world, &node, 2).await;
        world.oracle.asked() == before
    })
    .await;
    assert!(is_good(&world, &node, 3).await);
    node.stop().await;
}

#[tokio::test]
async fn a_lost_notice_is_found_by_comparison() {
    let (world, node) = ready(FAST_POLL).await;
    assert!(is_good(&world, &node, 1).await);
    let streams = world.oracle.streams();
    world.oracle.revoke_silently(&[1]);
    until_revoked(&world, &node, 1).await;
    assert!(world.oracle.streams() > streams);
    node.stop().await;
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_where_it_ended() {
    let (mut world, node) = ready(NO_POLL).await;
    for number in 1..=3 {
        assert!(is_good(&world, &node, number).await);
    }
    world.oracle.revoke(&[1]);
    until_revoked(&world, &node, 1).await;
    world.stop_signer().await;
    world.oracle.revoke_silently(&[2]);
    assert!(is_good(&world, &node, 2).await, "nobody has told it yet");
    world.restart_signer().await;
    until_revoked(&world, &node, 2).await;
    assert!(is_good(&world, &node, 3).await);
    node.stop().await;
}

#[tokio::test]
async fn a_restored_database_voids_what_was_kept_of_it() {
    let (mut world, node) = ready(NO_POLL).await;
    let request = world.oracle.request(1);
    assert!(is_good(&world, &node, 1).await);
    world.oracle.revoke(&[2]);
    world.oracle.revoke(&[3]);
    until_revoked(&world, &node, 3).await;
    let asked = world.oracle.asked();
    assert!(is_good(&world, &node, 1).await);
    assert_eq!(world.oracle.asked(), asked);
    world.stop_signer().await;
    world.oracle.rewind(10);
    world.restart_signer().await;
    // Asked for anew, because nothing that was said before has to be true.
    node.wait(|| async {
        node.post(&request, "").await;
        world.oracle.asked() > asked
    })
    .await;
    node.wait(|| async { is_good(&world, &node, 1).await }).await;
    world.oracle.revoke(&[1]);
    until_revoked(&world, &node, 1).await;
    node.stop().await;
}

#[tokio::test]
async fn an_answer_from_before_a_restoration_is_not_kept_after_it() {
    let (world, node) = ready(NO_POLL).await;
    for number in [60, 61] {
        world.oracle.revoke(&[number]);
    }
    world.oracle.hold(true);
    let asking = async { node.post(&world.oracle.request(1), "").await };
    let restoring = async {
        node.wait(|| async { world.oracle.asked() == 1 }).await;
        world.oracle.rewind(10);
        world.oracle.tell(RevocationNotice { reset: true, ..notice(0, 10, [].into_iter()) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.oracle.hold(false);
    };
    let (answer, ()) = tokio::join!(asking, restoring);
    assert_eq!(status(&answer), CertStatus::Good);
    assert_eq!(world.oracle.asked(), 2, "what was made of the old database was believed");
    node.stop().await;
}

#[tokio::test]
async fn more_revocations_than_are_remembered_lose_none() {
    let more = "ocsp = { poll_seconds = 3600, recent_revocations = 4 }";
    let (world, node) = ready(more).await;
    for number in 0..40 {
        assert!(is_good(&world, &node, number).await);
    }
    let all: Vec<u16> = (0..30).collect();
    world.oracle.revoke(&all);
    for number in all {
        until_revoked(&world, &node, number).await;
    }
    for number in 30..40 {
        assert!(is_good(&world, &node, number).await);
    }
    node.stop().await;
}

#[tokio::test]
async fn revoked_is_never_followed_by_good_under_load() {
    let (world, node) = ready(NO_POLL).await;
    let get = path(&world.oracle.request(1));
    for number in 1..20 {
        let other = path(&world.oracle.request(number));
        let asking = async {
            let mut was_revoked = false;
            for _ in 0..40 {
                let answer = node.get(&other).await;
                if is_error(&answer, TRY_LATER) {
                    continue;
                }
                let is_revoked = matches!(status(&answer), CertStatus::Revoked { .. });
                assert!(is_revoked || !was_revoked, "good after revoked");
                was_revoked |= is_revoked;
            }
        };
        let revoking = async {
            tokio::time::sleep(Duration::from_millis(u64::from(number) % 7)).await;
            world.oracle.revoke(&[number]);
        };
        tokio::join!(asking, revoking);
        until_revoked(&world, &node, number).await;
    }
    assert!(matches!(said(&node.get(&get).await), super::Said::Response(_)));
    node.stop().await;
}

#[tokio::test]
async fn how_long_a_revocation_took_and_how_old_answers_are_is_measured() {
    Meter::on(async |meter| {
        let (world, node) = ready(NO_POLL).await;
        for number in [1, 2] {
            assert!(is_good(&world, &node, number).await);
        }
        let took = || meter.values("chancery_status_revocation_to_ocsp_seconds");
        let ages = || meter.values("chancery_status_ocsp_answer_age_seconds");
        // Made for who asked.
        assert_eq!((took(), ages()), (vec![], vec![0.0; 2]));
        // The newer answer is seven seconds on its way.
        world.oracle.hold(true);
        world.oracle.revoke(&[1]);
        node.wait(|| async { world.oracle.asked() == 3 }).await;
        assert_eq!(took(), [0.0; 0]);
        world.set_clock(NOW + 7);
        world.oracle.hold(false);
        node.wait(|| async { !took().is_empty() }).await;
        assert_eq!(took(), [7.0]);
        assert!(!is_good(&world, &node, 1).await);
        world.set_clock(NOW + 3600);
        assert!(is_good(&world, &node, 2).await);
        assert_eq!(ages()[2..], [7.0, 3600.0]);
        // Nobody had been told something else, so nobody was told late.
        world.oracle.revoke(&[3]);
        assert!(!is_good(&world, &node, 3).await);
        assert_eq!(took(), [7.0]);
        node.stop().await;
    })
    .await;
}
