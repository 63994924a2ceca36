//! What one address may take up: connections, handshakes, work (RFC 8555 §6.6).

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::client::Client;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a18_a_client_has_so_much_done_and_others_are_not_concerned() {
    let stage = Stage::with(|config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.limits.work_per_second = 1;
        config.limits.work_burst = 60;
    })
    .await;
    let (busy, other) = (stage.wire.forwarded_for("192.0.2.1"), stage.wire.forwarded_for("192.0.2.2"));
    // newNonce 1, newAccount 10.
    let client = Client::registered(&busy, "open").await;
    let mut served = 0;
    let refused = loop {
        let answer = client.order(&["busy.example.org"]).await;
        if answer.status != 201 {
            break answer;
        }
        served += 1;
        assert!(served < 20, "nobody counts");
    };
    assert!((3..=5).contains(&served), "{served} orders at 10 each of 60");
    let problem = refused.problem(429, "rateLimited");
    assert!(problem["detail"].as_str().unwrap().contains("from this address"), "{problem}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=11).contains(&wait), "{wait}");
    let other = Client::registered(&other, "open").await;
    other.order(&["other.example.org"]).await.ok(201);
    // And the busy one has room again when it waits.
    let started = std::time::Instant::now();
    while busy.get(&busy.directory_url("open")).await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "the bucket does not fill again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_a_peer_has_so_many_connections() {
    let stage = Stage::with(|config| config.limits.connections_per_peer = 3).await;
    let mut held = Vec::new();
    while held.len() < 3 {
        // Those of the start may not all be gone yet.
        match stage.wire.try_connect().await {
            Some(stream) => held.push(stream),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    assert!(stage.wire.try_connect().await.is_none(), "a fourth connection");
    // Whoever is refused costs those who are in nothing.
    let waiting = tokio::time::timeout(Duration::from_millis(100), held[0].read_u8()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    held.pop();
    let started = std::time::Instant::now();
    while stage.wire.try_connect().await.is_none() {
        assert!(started.elapsed() < Duration::from_secs(20), "a place that was left is not free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_a_peer_begins_so_many_connections_a_second() {
    let stage = Stage::with(|config| {
        config.limits.handshakes_per_second = 1;
        config.limits.handshake_burst = 20;
    })
    .await;
    let mut made = 0;
    while stage.wire.try_connect().await.is_some() {
        made += 1;
        assert!(made <= 40, "nobody counts");
    }
    let started = std::time::Instant::now();
    while stage.wire.try_connect().await.is_none() {
        assert!(started.elapsed() < Duration::from_secs(20), "the bucket does not fill again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
