//! What is kept over a restart, and what is not believed of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pki::ocsp::CertStatus;

use super::{TRY_LATER, following, is_error, ready, started, status};
use crate::world::oracle::Key;
use crate::world::{Ca, NOW, Node, World};

fn log(world: &World) -> PathBuf {
    world.spool().join("answers.log")
}

async fn body(world: &World, node: &Node, number: u16) -> Vec<u8> {
    node.post(&world.oracle.request(number), "").await.body
}

async fn is_later(world: &World, node: &Node, number: u16) -> bool {
    is_error(&node.post(&world.oracle.request(number), "").await, TRY_LATER)
}

/// Keeps answers about the certificates 0 to 4, and stops node and signer.
async fn spooled(more: &str) -> (World, Vec<Vec<u8>>) {
    let (mut world, node) = ready(more).await;
    let mut bodies = Vec::new();
    for number in 0..5 {
        bodies.push(body(&world, &node, number).await);
    }
    node.stop().await;
    world.stop_signer().await;
    (world, bodies)
}

#[tokio::test]
async fn answers_are_served_after_a_restart_without_any_signer() {
    let (world, bodies) = spooled("").await;
    let node = world.node("").await;
    for (number, kept) in bodies.iter().enumerate() {
        assert_eq!(body(&world, &node, number as u16).await, *kept, "{number}");
    }
    assert!(is_later(&world, &node, 5).await);
    assert_eq!(world.oracle.asked(), 5);
    node.stop().await;
    // Not beyond their end.
    world.set_clock(NOW + 48 * 3600);
    let node = world.node("").await;
    assert!(is_later(&world, &node, 0).await);
    node.stop().await;
}

#[tokio::test]
async fn what_was_revoked_meanwhile_is_not_served_as_good() {
    let (mut world, bodies) = spooled("").await;
    world.oracle.revoke_silently(&[2]);
    world.restart_signer().await;
    let node = world.node("ocsp = { poll_seconds = 3600 }").await;
    // From the first answer on.
    for _ in 0..20 {
        let answer = node.post(&world.oracle.request(2), "").await;
        assert!(is_error_or_revoked(&answer), "{answer:?}");
    }
    assert_eq!(body(&world, &node, 3).await, bodies[3]);
    node.wait(|| async {
        matches!(status(&node.post(&world.oracle.request(2), "").await), CertStatus::Revoked { .. })
    })
    .await;
    node.stop().await;
    // And not after another restart, with nobody to ask.
    world.stop_signer().await;
    let node = world.node("").await;
    assert!(matches!(status(&node.post(&world.oracle.request(2), "").await), CertStatus::Revoked { .. }));
    node.stop().await;
}

fn is_error_or_revoked(answer: &crate::world::Answer) -> bool {
    match super::said(answer) {
        super::Said::Error(_) => true,
        super::Said::Response(_) => matches!(status(answer), CertStatus::Revoked { .. }),
    }
}

#[tokio::test]
async fn what_a_notice_named_stays_dropped_even_if_it_was_not_asked_again() {
    let world = World::new().await;
    world.publish_all();
    world.oracle.assign(0..10);
    let node = following(&world, "ocsp = { poll_seconds = 3600, wait_milliseconds = 300 }").await;
    body(&world, &node, 1).await;
    // Nobody gets an answer any more, but notices come.
    world.oracle.hold(true);
    world.oracle.revoke(&[1]);
    node.wait(|| is_later(&world, &node, 1)).await;
    // As if the process had died: what is on the disk now is what a new one finds.
    let bytes = fs::read(log(&world)).unwrap();
    node.stop().await;
    let mut world = world;
    world.oracle.hold(false);
    world.stop_signer().await;
    fs::write(log(&world), &bytes).unwrap();
    let node = world.node("").await;
    assert!(is_later(&world, &node, 1).await, "good, after a notice said otherwise");
    node.stop().await;
}

#[tokio::test]
async fn a_log_that_ends_anywhere_is_read_up_to_there() {
    let (world, bodies) = spooled("").await;
    let bytes = fs::read(log(&world)).unwrap();
    for end in [bytes.len() - 1, bytes.len() / 2, 10, 0] {
        fs::write(log(&world), &bytes[..end]).unwrap();
        let node = world.node("").await;
        let mut kept = 0;
        for (number, body) in bodies.iter().enumerate() {
            let answer = node.post(&world.oracle.request(number as u16), "").await;
            match answer.body == *body {
                true => kept += 1,
                false => assert!(is_error(&answer, TRY_LATER)),
            }
        }
        assert!(kept == 5 * end / bytes.len() || kept + 1 == 5 * end / bytes.len(), "{kept} of {end}");
        node.stop().await;
        assert!(fs::read(log(&world)).unwrap().len() <= end);
    }
}

#[tokio::test]
async fn flipped_bits_cost_what_they_are_in_and_nothing_wrong_is_served() {
    let (world, bodies) = spooled("").await;
    let bytes = fs::read(log(&world)).unwrap();
    let step = bytes.len() / 9;
    for at in (0..bytes.len()).step_by(step) {
        let mut bent = bytes.clone();
        bent[at] ^= 4;
        fs::write(log(&world), &bent).unwrap();
        let node = world.node("").await;
        let mut kept = 0;
        for (number, body) in bodies.iter().enumerate() {
            let answer = node.post(&world.oracle.request(number as u16), "").await;
            match answer.body == *body {
                true => kept += 1,
                false => assert!(is_error(&answer, TRY_LATER), "{at}"),
            }
        }
        assert_eq!(kept, 4, "{at}");
        node.stop().await;
        // It does not stay in the file.
        let left = fs::read(log(&world)).unwrap();
        assert!(left.len() < bytes.len() - 500, "{at}");
    }
}

/// A record as the log has it, made by somebody who knows how.
fn record(body: &[u8]) -> Vec<u8> {
    let mut content = 10_u64.to_be_bytes().to_vec();
    content.extend_from_slice(&0_u32.to_be_bytes());
    content.extend_from_slice(&(crate::world::oracle::ISSUER.len() as u16).to_be_bytes());
    content.extend_from_slice(crate::world::oracle::ISSUER.as_bytes());
    content.extend_from_slice(body);
    let mut record = b"\x89OA1\x01".to_vec();
    record.extend_from_slice(&(content.len() as u32).to_be_bytes());
    record.extend_from_slice(&crate::world::sha256(&[&[1][..], &content].concat())[..16]);
    record.extend_from_slice(&content);
    record
}

#[tokio::test]
async fn answers_that_others_signed_are_refused_wherever_they_stand() {
    let (world, bodies) = spooled("").await;
    let stranger = Key::new(&Ca::root("Test issuer"));
    let planted = world.oracle.answer_to(7, &stranger);
    let true_one = world.oracle.answer_to(8, world.oracle.key());
    let mut bytes = fs::read(log(&world)).unwrap();
    bytes.extend(record(&planted));
    bytes.extend(record(&true_one));
    fs::write(log(&world), bytes).unwrap();
    let node = world.node("").await;
    assert!(is_later(&world, &node, 7).await, "an answer of another CA is served");
    // The same record with the right key is taken: it was the signature that counted.
    assert_eq!(body(&world, &node, 8).await, true_one);
    assert_eq!(body(&world, &node, 0).await, bodies[0]);
    node.stop().await;
}

#[tokio::test]
async fn a_disk_that_fails_keeps_nobody_from_answers_and_is_made_good() {
    let (mut world, node) = ready("").await;
    body(&world, &node, 0).await;
    // The file cannot be made anew where there is a folder, and the open one is lost to us.
    let fresh = world.spool().join("answers.new");
    fs::create_dir(&fresh).unwrap();
    assert_eq!(status(&node.post(&world.oracle.request(1), "").await), CertStatus::Good);
    fs::remove_dir(&fresh).unwrap();
    let kept = body(&world, &node, 1).await;
    node.stop().await;
    world.stop_signer().await;
    let node = world.node("").await;
    assert_eq!(body(&world, &node, 1).await, kept);
    node.stop().await;
}

#[tokio::test]
async fn the_log_does_not_grow_with_what_is_replaced() {
    let (world, node) = ready("ocsp = { answers_mib = 1 }").await;
    for number in 0..5 {
        body(&world, &node, number).await;
    }
    // Notices about certificates that nobody asked for, until they would fill more than the slack.
    let many: Vec<u16> = (1000..11_000).collect();
    for _ in 0..24 {
        world.oracle.revoke(&many);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.wait(|| async { fs::metadata(log(&world)).unwrap().len() < 16 << 20 }).await;
    node.stop().await;
    let mut world = world;
    world.stop_signer().await;
    let node = started(&world, "").await;
    assert_eq!(status(&node.post(&world.oracle.request(4), "").await), CertStatus::Good);
    node.stop().await;
}
