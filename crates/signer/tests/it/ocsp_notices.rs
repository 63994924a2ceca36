//! What status nodes are told of revocations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ca_store::{CaStore as _, EPOCH_JUMP, JournalKind, JournalRow, NewIntent};
use futures::StreamExt as _;
use pki::{Reason, Serial, Timestamp};
use rpc::proto::status::v1 as wire;
use rpc::proto::status::v1::responder_server::Responder;
use rpc::{Peer, PeerIdentity, Role};
use signer::ocsp::ResponderService;
use testkit::Cluster;
use testkit::store::StoreFault;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::support::ocsp::{ISSUER, wait};
use crate::support::{OcspWorld, superseded};
use signer::config::Limits;

type Stream = <ResponderService as Responder>::WatchRevocationsStream;

fn service(it: &OcspWorld) -> ResponderService {
    ResponderService::new(Arc::clone(&it.responder), CancellationToken::new())
}

fn shard(shard: u32, revision: u64) -> wire::ShardRevision {
    wire::ShardRevision { issuer_id: ISSUER.to_owned(), shard, revision }
}

fn asking(node: &str, known: Vec<wire::ShardRevision>) -> Request<wire::WatchRevocationsRequest> {
    let mut request = Request::new(wire::WatchRevocationsRequest { known });
    let identity = PeerIdentity {
        role: Role::Status,
        name: node.parse().unwrap(),
        serial: serial_of(0),
        not_before: Timestamp::from_unix(0),
        not_after: Timestamp::from_unix(u64::MAX),
    };
    let address = "127.0.0.1:1".parse().unwrap();
    request.extensions_mut().insert(Peer { address, identity: Some(Arc::new(identity)) });
    request
}

async fn watch(service: &ResponderService, known: Vec<wire::ShardRevision>) -> Stream {
    service.watch_revocations(asking("status-1", known)).await.unwrap().into_inner()
}

async fn told(stream: &mut Stream) -> wire::RevocationNotice {
    tokio::time::timeout(Duration::from_secs(30), stream.next()).await.unwrap().unwrap().unwrap()
}

async fn revisions(service: &ResponderService) -> Vec<wire::ShardRevision> {
    service.list_revisions(Request::new(wire::ListRevisionsRequest {})).await.unwrap().into_inner().shards
}

fn serial_of(n: u32) -> Serial {
    Serial::from_random((u128::from(n) << 64 | 0x11).to_be_bytes())
}

/// Intents of one shard, as many as wanted.
async fn intents(it: &OcspWorld, numbers: std::ops::Range<u32>) {
    let intent = |n: u32| {
        let row = JournalRow {
            serial: serial_of(n),
            kind: JournalKind::Final,
            order: None,
            new_order: None,
            directory: None,
            account: None,
            issuer: ISSUER.to_owned(),
            profile: "tls".to_owned(),
            shard: 2,
            spki_sha256: [0; 32],
            csr_sha256: None,
            not_before: it.world.now(),
            not_after: it.world.now(),
            tbs: vec![0x30, 0],
            created_at: it.world.now(),
            signature: None,
            signed_at: None,
            abandoned_at: None,
            replaces: None,
            counted: true,
        };
        NewIntent {
            row: it.world.secrets.rows.seal(row),
            names: Vec::new(),
            domains: Vec::new(),
            evidence: None,
            cites: Vec::new(),
            authorizations: Vec::new(),
            account_key: None,
            past: Vec::new(),
            limits: Vec::new(),
            lease: Duration::from_secs(3600),
            audit: Vec::new(),
        }
    };
    let outcomes = it.world.store.commit_intents(numbers.map(intent).collect()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == ca_store::IntentOutcome::Committed));
}

/// Without an event: as if it were lost.
async fn revoke_silently(it: &OcspWorld, numbers: std::ops::Range<u32>) {
    let revocation = |n: u32| superseded(serial_of(n), it.world.now());
    it.world.store.revoke(numbers.map(revocation).collect()).await.unwrap();
}

async fn revoke(it: &OcspWorld, n: u32) {
    it.world.ca.revoke_by_operator("alice", serial_of(n), Reason::Superseded).await.unwrap();
}

fn octets(numbers: std::ops::Range<u32>) -> Vec<Bytes> {
    numbers.map(|n| Bytes::copy_from_slice(serial_of(n).as_bytes())).collect()
}

#[tokio::test]
async fn a_revocation_is_told_as_it_happens() {
    let it = OcspWorld::idle(Limits::default()).await;
    let service = service(&it);
    intents(&it, 0..3).await;
    assert_eq!(revisions(&service).await, (0..4).map(|n| shard(n, 0)).collect::<Vec<_>>());
    revoke(&it, 0).await;
    // One that knows nothing is told of what comes; one that knows an older revision of what it has missed.
    let mut new = watch(&service, Vec::new()).await;
    let mut old = watch(&service, vec![shard(2, 0), shard(7, 0)]).await;
    let notice = told(&mut old).await;
    assert_eq!((notice.shard, notice.reset), (Some(shard(2, 1)), false));
    assert_eq!(notice.serials, octets(0..1));
    // The first look of `new` is over when it is told of a later one.
    wait(async || it.world.store.calls().iter().filter(|call| **call == "crl_shards").count() >= 3).await;
    revoke(&it, 1).await;
    for stream in [&mut new, &mut old] {
        let notice = told(stream).await;
        assert_eq!((notice.shard, notice.reset), (Some(shard(2, 2)), false));
        assert_eq!(notice.serials, octets(1..2));
    }
    // A change of the reason is a change.
    it.world.ca.revoke_by_operator("alice", serial_of(1), Reason::KeyCompromise).await.unwrap();
    // The two others have the same key, and follow: in the same notice or in later ones.
    let mut changed = Vec::new();
    loop {
        let notice = told(&mut old).await;
        changed.extend(notice.serials);
        if notice.shard == Some(shard(2, 5)) {
            break;
        }
    }
    changed.sort();
    assert_eq!(changed, octets(0..3));
    assert_eq!(revisions(&service).await[2], shard(2, 5));
}

/// The timer finds what no event told.
#[tokio::test]
async fn a_lost_event_is_made_up_for() {
    let it = OcspWorld::idle(Limits::default()).await;
    let service = service(&it);
    intents(&it, 0..2).await;
    let mut stream = watch(&service, vec![shard(2, 0)]).await;
    revoke(&it, 0).await;
    assert_eq!(told(&mut stream).await.shard, Some(shard(2, 1)));
    revoke_silently(&it, 1..2).await;
    assert_eq!(told(&mut stream).await.shard, Some(shard(2, 2)));
    // Nor is it lost when the database is away at the moment of the event.
    intents(&it, 2..3).await;
    it.world.store.fail_next("revoked_after", StoreFault::Failed);
    revoke(&it, 2).await;
    let notice = told(&mut stream).await;
    assert_eq!((notice.shard, notice.serials), (Some(shard(2, 3)), octets(2..3)));
}

#[tokio::test]
async fn long_lists_come_in_pieces() {
    let it = OcspWorld::idle(Limits::default()).await;
    let service = service(&it);
    intents(&it, 0..2500).await;
    revoke_silently(&it, 0..2500).await;
    let mut stream = watch(&service, vec![shard(2, 0)]).await;
    let mut heard = Vec::new();
    while heard.len() < 2500 {
        let notice = told(&mut stream).await;
        heard.extend(notice.serials);
        // Whoever has heard this one and those before it knows everything up to here.
        assert_eq!(notice.shard, Some(shard(2, heard.len() as u64)));
    }
    assert_eq!(heard, octets(0..2500));
}

#[tokio::test]
async fn a_restored_database_voids_what_was_known() {
    let it = OcspWorld::idle(Limits::default()).await;
    let service = service(&it);
    intents(&it, 0..1).await;
    revoke_silently(&it, 0..1).await;
    // More than there is: of a database that was thrown away.
    let mut stream = watch(&service, vec![shard(2, 5), shard(3, 0)]).await;
    let notice = told(&mut stream).await;
    assert_eq!((notice.shard, notice.reset, notice.serials.len()), (Some(shard(2, 1)), true, 0));
    // Less, but of an older epoch: what was forgotten in between nobody knows.
    it.world.store.begin_epoch([9; 16], Vec::new()).await.unwrap();
    let mut reset = Vec::new();
    for _ in 0..4 {
        let notice = told(&mut stream).await;
        assert!(notice.reset, "{notice:?}");
        reset.push(notice.shard.unwrap());
    }
    reset.sort_by_key(|shard| shard.shard);
    let begin = EPOCH_JUMP;
    assert_eq!(reset, [shard(0, begin), shard(1, begin), shard(2, begin + 1), shard(3, begin)]);
    assert_eq!(revisions(&service).await, reset);
}

#[tokio::test]
async fn a_node_has_a_few_streams() {
    let it = OcspWorld::idle(Limits::default()).await;
    let service = service(&it);
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(watch(&service, Vec::new()).await);
    }
    let refused = service.watch_revocations(asking("status-1", Vec::new())).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    // Another node has its own; and one that was closed makes room.
    service.watch_revocations(asking("status-2", Vec::new())).await.unwrap();
    streams.clear();
    wait(async || service.watch_revocations(asking("status-1", Vec::new())).await.is_ok()).await;
}

#[tokio::test]
async fn a_drain_ends_the_stream() {
    let it = OcspWorld::idle(Limits::default()).await;
    let draining = CancellationToken::new();
    let service = ResponderService::new(Arc::clone(&it.responder), draining.clone());
    let mut stream = watch(&service, Vec::new()).await;
    draining.cancel();
    assert!(tokio::time::timeout(Duration::from_secs(30), stream.next()).await.unwrap().is_none());
}

/// What another signer revokes is told as soon as the database says so; when that cannot be heard, the stream ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_signer_revokes_is_told() {
    let mut cluster = Cluster::start();
    let one = OcspWorld::on_server(&cluster).await;
    let two = one.beside(&cluster, 2).await;
    for it in [&one, &two] {
        it.work();
    }
    let service = service(&two);
    intents(&one, 0..1).await;
    let mut stream = watch(&service, vec![shard(2, 0)]).await;
    revoke(&one, 0).await;
    let notice = told(&mut stream).await;
    assert_eq!((notice.shard, notice.serials), (Some(shard(2, 1)), octets(0..1)));
    cluster.restart();
    let end = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.unwrap();
    assert!(matches!(end, Some(Err(_)) | None), "{end:?}");
}
