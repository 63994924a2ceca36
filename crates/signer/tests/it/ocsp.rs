//! OCSP answers: what the journal says and nothing else, and what a hostile status node gets.

use std::sync::Arc;
use std::time::Duration;

use ca_store::{CaStore as _, CrlEntries, CrlShard, JournalKey, JournalKind, LedgerEntry, NewRevocation};
use futures::future::join_all;
use pki::ocsp::{Answer, CertId, CertIdHash, CertStatus, IssuerHashes, encode_request};
use pki::{Period, Reason, Serial};
use rpc::proto::status::v1 as wire;
use rpc::proto::status::v1::responder_server::Responder as _;
use signer::config::Limits;
use signer::ocsp::ResponderService;
use testkit::signing::KeyFault;
use testkit::store::{StoreFault, forged};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::support::ocsp::{ISSUER, read, serial, wait};
use crate::support::{OcspWorld, Peek as _, superseded};

const MALFORMED: u8 = 1;
const INTERNAL_ERROR: u8 = 2;
const TRY_LATER: u8 = 3;
const UNAUTHORIZED: u8 = 6;

#[tokio::test]
async fn a_certificate_is_good_by_either_hash() {
    let it = OcspWorld::start().await;
    let issued = it.certificate("example.org").await;
    let nonce = [7; 32];
    for hash in CertIdHash::ALL {
        let id = it.id(hash, &issued.serial);
        let response = it.answer(&encode_request(std::slice::from_ref(&id), Some(&nonce))).await;
        let [single] = response.singles() else { panic!("{response:?}") };
        assert_eq!((&single.id, single.status), (&id, CertStatus::Good));
        assert_eq!(response.nonce(), Some(nonce.as_slice()));
        assert_eq!(response.produced_at(), it.world.now());
        assert_eq!(single.this_update, it.world.now());
        assert_eq!(single.next_update, Some(it.world.now().plus(Period::from_days(2))));
        assert_eq!(single.archive_cutoff, None);
    }
    // Without a nonce there is none in the answer.
    assert_eq!(it.answer(&it.request(&[issued.serial], None)).await.nonce(), None);
    let answered = it.responder.answer(&it.request(&[issued.serial], None), false).await;
    let (issuer, places) = answered.basis.unwrap();
    let row = it.world.journal().await.into_iter().find(|row| row.serial == issued.serial).unwrap();
    assert_eq!(
        (issuer.as_str(), places[0].unwrap().shard, places[0].unwrap().revision),
        (ISSUER, row.shard, 0)
    );
    // The certificate says where to ask.
    let certificate = pki::Certificate::from_der(&issued.certificate).unwrap();
    assert_eq!(certificate.ocsp_urls(), ["http://status.test/ocsp"]);
}

#[tokio::test]
async fn what_may_have_been_signed_is_answered() {
    let it = OcspWorld::start().await;
    // The token signs, and its answer is lost: an intent without a record.
    let client = it.world.client().await;
    let ready = it.world.ready_one(&client, "example.org").await;
    it.world.issuer_key.fail_next(KeyFault::FailedAfterSigning);
    it.world.issue(ready.finalized_by(&client)).await.unwrap_err();
    let entry = it.world.store.entry_of_order(&ready.order.id.to_string()).await;
    let intent = it.world.secrets.rows.open(entry.row).unwrap();
    assert_eq!(intent.signature, None);
    assert_eq!(it.status(&intent.serial).await, CertStatus::Good);
    // Given up, it may still be in somebody's hands.
    let given_up = ca_store::JournalRow { abandoned_at: Some(it.world.now()), ..intent.clone() };
    let row = it.world.secrets.rows.seal(given_up);
    it.world.store.abandon(vec![ca_store::Abandonment { row, audit: Vec::new() }]).await.unwrap();
    assert_eq!(it.status(&intent.serial).await, CertStatus::Good);
    it.world.ca.revoke_by_operator("alice", intent.serial, Reason::Superseded).await.unwrap();
    let revoked = CertStatus::Revoked { at: it.world.now(), reason: Reason::Superseded };
    assert_eq!(it.status(&intent.serial).await, revoked);
    // So is the responder's own certificate.
    let own = it.responder_rows().await.remove(0);
    assert_eq!(it.status(&own.serial).await, CertStatus::Good);
}

/// What OCSP says of a revocation is what the CRL of its shard says.
#[tokio::test]
async fn f7_ocsp_and_crl_agree() {
    let it = OcspWorld::start().await;
    let serial = it.certificate("example.org").await.serial;
    let row = it.world.journal().await.into_iter().find(|row| row.serial == serial).unwrap();
    let steps = [(Reason::Superseded, false), (Reason::KeyCompromise, true)];
    for (step, (reason, upgrade)) in steps.into_iter().enumerate() {
        it.advance(Period::from_hours(1)).await;
        let new = NewRevocation {
            serial,
            at: it.world.now(),
            reason,
            upgrade,
            source: "test".to_owned(),
            request: None,
            block: None,
            audit: Vec::new(),
        };
        it.world.store.revoke(vec![new]).await.unwrap();
        it.advance(Period::from_hours(1)).await;
        let revision = step as u64 + 1;
        let entries = CrlEntries {
            shard: CrlShard { issuer: ISSUER.to_owned(), shard: row.shard },
            after_revision: 0,
            revision,
            expired_before: pki::Timestamp::from_unix(0),
            after: 0,
            span: 10,
        };
        let entry = it.world.store.crl_entries(&entries).await.unwrap().entries.remove(0);
        let expected = CertStatus::Revoked { at: entry.revoked_at, reason: entry.reason };
        assert_eq!(it.status(&serial).await, expected);
        assert_eq!(entry.reason, reason);
        let answered = it.responder.answer(&it.request(&[serial], None), false).await;
        assert_eq!(answered.basis.unwrap().1[0].unwrap().revision, revision);
    }
}

/// Another signer's clock is a little ahead: the time in the answer is not later than the answer, as in CRLs.
#[tokio::test]
async fn nothing_is_revoked_in_the_future() {
    let it = OcspWorld::start().await;
    let serial = it.certificate("example.org").await.serial;
    let new = superseded(serial, it.world.now().plus(Period::from_seconds(30)));
    it.world.store.revoke(vec![new]).await.unwrap();
    let expected = CertStatus::Revoked { at: it.world.now(), reason: Reason::Superseded };
    assert_eq!(it.status(&serial).await, expected);
}

#[tokio::test]
async fn a_serial_that_nobody_has_is_unknown() {
    let it = OcspWorld::start().await;
    let answered = it.responder.answer(&it.request(&[serial(9)], None), false).await;
    assert_eq!(answered.basis, Some((ISSUER.to_owned(), vec![None])));
    assert_eq!(it.status(&serial(9)).await, CertStatus::Unknown);
    // A negative number is nobody's; the last octets of the request are its serial.
    let mut request = it.request(&[serial(0x11)], None);
    let at = request.windows(16).position(|octets| octets == serial(0x11).as_bytes()).unwrap();
    request[at] = 0xf1;
    let response = it.answer(&request).await;
    assert_eq!(
        (response.singles()[0].status, response.singles()[0].id.serial()),
        (CertStatus::Unknown, None)
    );
    // It may be assigned the next moment.
    let issued = it.certificate("example.org").await;
    assert_eq!(it.status(&issued.serial).await, CertStatus::Good);
}

/// An answer that the node CA's or another issuer's rows could be mistaken for is `unknown`.
#[tokio::test]
async fn only_certificates_of_the_issuer_count() {
    let it = OcspWorld::start().await;
    let issued = it.certificate("example.org").await;
    let keys = Arc::clone(&it.world.secrets.rows);
    for change in [
        (|row: &mut ca_store::JournalRow| row.issuer = "tls-2".to_owned()) as fn(&mut ca_store::JournalRow),
        |row| row.kind = JournalKind::Node,
        |row| row.kind = JournalKind::Authority,
    ] {
        let keys = Arc::clone(&keys);
        // Rows that a signer wrote: their MAC is good.
        it.world.store.alter_ledger(move |entries| {
            let altered = |mut entry: LedgerEntry| {
                let mut row = keys.open(entry.entry.row).unwrap();
                change(&mut row);
                entry.entry.row = keys.seal(row);
                entry
            };
            entries.into_iter().map(altered).collect()
        });
        assert_eq!(it.status(&issued.serial).await, CertStatus::Unknown);
    }
    it.world.store.leave_alone();
    assert_eq!(it.status(&issued.serial).await, CertStatus::Good);
}

#[tokio::test]
async fn a_row_that_was_tampered_with_is_never_good() {
    let it = OcspWorld::start().await;
    let issued = it.certificate("example.org").await;
    let request = it.request(&[issued.serial, serial(9)], None);
    it.answer(&request).await;
    for change in [
        (|row: &mut ca_store::JournalRow| row.issuer = "tls-2".to_owned()) as fn(&mut ca_store::JournalRow),
        |row| row.kind = JournalKind::Node,
        |row| row.serial = serial(9),
        |row| row.shard += 1,
        |row| row.tbs.push(0),
    ] {
        it.world.store.alter_ledger(move |entries| {
            let altered = |mut entry: LedgerEntry| {
                entry.entry.row = forged(&entry.entry.row, change);
                entry
            };
            entries.into_iter().map(altered).collect()
        });
        assert_eq!(it.error(&request).await, INTERNAL_ERROR);
    }
    it.world.ca.flush_refusals().await.unwrap();
    assert!(it.world.audit_kinds().await.contains(&"row.tampered".to_owned()));
}

#[tokio::test]
async fn errors_say_whose_fault_it_is() {
    let it = OcspWorld::start().await;
    let issued = it.certificate("example.org").await;
    let good = it.request(&[issued.serial], None);
    for garbage in [b"".as_slice(), b"\x30\x00", &good[..good.len() - 1], &[good.as_slice(), b"\0"].concat()]
    {
        assert_eq!(it.error(garbage).await, MALFORMED, "{garbage:?}");
    }
    assert_eq!(it.error(&it.request(&[issued.serial], Some(&[1; 129]))).await, MALFORMED, "RFC 9654 §2.1");
    // Another issuer; one of ours and another one: a responder speaks for the issuer that has delegated it.
    let other = CertId::new(CertIdHash::Sha1, &IssuerHashes::of(&it.world.authorities.root), &issued.serial);
    let own = it.id(CertIdHash::Sha1, &issued.serial);
    for ids in [vec![other.clone()], vec![own.clone(), other.clone()], vec![other, own]] {
        assert_eq!(it.error(&encode_request(&ids, None)).await, UNAUTHORIZED);
    }
    // The database is away; its answer cannot be what a signer wrote.
    it.world.store.fail_next("ledger", StoreFault::Failed);
    assert_eq!(it.error(&good).await, TRY_LATER);
    // The token is away, and then it is there again.
    it.key.fail_next(KeyFault::Failed);
    assert_eq!(it.error(&good).await, TRY_LATER);
    it.answer(&good).await;
}

/// A clock that cannot be trusted signs nothing, also when it goes wrong while a signature is made.
#[tokio::test]
async fn while_time_is_wrong_nothing_is_signed() {
    let it = OcspWorld::start().await;
    let good = it.request(&[serial(9)], None);
    it.answer(&good).await;
    let signed = it.key.signed().len();
    it.world.clock.rewind(Duration::from_secs(3600));
    assert_eq!(it.error(&good).await, INTERNAL_ERROR);
    assert_eq!(it.key.signed().len(), signed);
    it.world.clock.advance(Duration::from_secs(3600));
    it.key.hold(true);
    let (error, ()) = futures::join!(it.error(&good), async {
        wait(async || it.key.is_asked()).await;
        it.world.clock.rewind(Duration::from_secs(3600));
        it.key.hold(false);
    });
    assert_eq!(error, INTERNAL_ERROR);
}

#[tokio::test]
async fn several_certificates_are_answered_in_order() {
    let it = OcspWorld::start().await;
    let (one, two) = (it.certificate("a.example.org").await, it.certificate("b.example.org").await);
    it.world.ca.revoke_by_operator("alice", two.serial, Reason::Superseded).await.unwrap();
    let ids = [
        it.id(CertIdHash::Sha256, &two.serial),
        it.id(CertIdHash::Sha1, &one.serial),
        it.id(CertIdHash::Sha1, &serial(9)),
        it.id(CertIdHash::Sha256, &two.serial),
    ];
    let response = it.answer(&encode_request(&ids, Some(&[3; 16]))).await;
    let found: Vec<_> = response.singles().iter().map(|single| single.id.clone()).collect();
    assert_eq!(found, ids);
    let revoked = CertStatus::Revoked { at: it.world.now(), reason: Reason::Superseded };
    let statuses: Vec<_> = response.singles().iter().map(|single| single.status).collect();
    assert_eq!(statuses, [revoked, CertStatus::Good, CertStatus::Unknown, revoked]);
}

/// One call's questions go on at once, come back in order, and are one query of the journal.
#[tokio::test]
async fn what_is_asked_together_is_looked_up_together() {
    let it = OcspWorld::start().await;
    let issued = it.certificate("example.org").await;
    let service = ResponderService::new(Arc::clone(&it.responder), CancellationToken::new());
    let question = |request: Vec<u8>| wire::Question { request: request.into(), ahead: false };
    let mut questions: Vec<_> = (0..50).map(|tag| question(it.request(&[serial(tag)], None))).collect();
    questions[20] = question(it.request(&[issued.serial], None));
    questions[30] = question(b"garbage".to_vec());
    let before = it.world.store.calls().iter().filter(|call| **call == "ledger").count();
    let request = Request::new(wire::AnswerRequest { questions });
    let answers = service.answer(request).await.unwrap().into_inner().answers;
    let after = it.world.store.calls().iter().filter(|call| **call == "ledger").count();
    assert_eq!(after - before, 1);
    assert_eq!(answers.len(), 50);
    for (at, answer) in answers.iter().enumerate() {
        match (at, pki::ocsp::read(&answer.response).unwrap()) {
            (30, Answer::Error(number)) => {
                assert_eq!((number, answer.bases.len()), (MALFORMED, 0));
            }
            (_, Answer::Successful(response)) => {
                let expected = if at == 20 { issued.serial } else { serial(at as u8) };
                assert_eq!(response.singles()[0].id.serial(), Some(expected));
                assert_eq!((answer.bases.len(), answer.bases[0].assigned), (1, at == 20));
                assert_eq!(answer.bases[0].issuer_id, ISSUER);
            }
            other => panic!("{other:?}"),
        }
    }
    // More than a call may have.
    let questions = vec![question(Vec::new()); 257];
    let status = service.answer(Request::new(wire::AnswerRequest { questions })).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

/// The database fails for all who asked in one query, and for nobody else.
#[tokio::test]
async fn a_query_that_fails_fails_for_those_who_asked() {
    let it = OcspWorld::start().await;
    it.world.store.fail_next("ledger", StoreFault::Failed);
    let request = it.request(&[serial(9)], None);
    let answers = join_all((0..5).map(|_| it.responder.answer(&request, false))).await;
    assert!(answers.iter().all(|answered| matches!(read(answered), Answer::Error(TRY_LATER))));
    it.answer(&request).await;
}

/// A status node that asks for as much as it can: it gets no more of the token than its share, what nobody waits for and
/// what is guessed less, and issuance goes on.
#[tokio::test]
async fn a_hostile_status_node_exhausts_nothing() {
    let limits = Limits {
        ocsp_in_flight: 8,
        ocsp_ahead_in_flight: 3,
        ocsp_unassigned_in_flight: 2,
        ..Limits::default()
    };
    let it = OcspWorld::with_limits(limits).await;
    let issued = it.certificate("a.example.org").await;
    let (known, guessed) = (it.request(&[issued.serial], None), it.request(&[serial(9)], None));
    let signed = it.key.signed().len();
    it.key.hold(true);
    let answer = |request: &Vec<u8>, ahead: bool| {
        let (responder, request) = (Arc::clone(&it.responder), request.clone());
        async move { responder.answer(&request, ahead).await }
    };
    // More of each kind than there is room for: what is too much is answered while the rest waits for the token.
    let crowd = |request: &Vec<u8>, ahead: bool| {
        let answers = (0..20).map(|_| answer(request, ahead));
        tokio::spawn(join_all(answers))
    };
    let ahead = crowd(&known, true);
    wait(async || it.responder.in_flight() == 3).await;
    let guesses = crowd(&guessed, false);
    wait(async || it.responder.in_flight() == 5).await;
    let asked = crowd(&known, false);
    wait(async || it.responder.in_flight() == 8).await;
    assert_eq!(it.error(&known).await, TRY_LATER, "at once");
    // Clients get their certificates meanwhile.
    it.certificate("b.example.org").await;
    it.key.hold(false);
    let count = |answers: Vec<signer::ocsp::Answered>| {
        let good = answers.iter().filter(|answered| matches!(read(answered), Answer::Successful(_))).count();
        let later = answers.iter().filter(|it| matches!(read(it), Answer::Error(TRY_LATER))).count();
        assert_eq!(good + later, 20);
        good
    };
    assert_eq!(count(ahead.await.unwrap()), 3);
    assert_eq!(count(guesses.await.unwrap()), 2);
    assert_eq!(count(asked.await.unwrap()), 3);
    assert_eq!(it.key.signed().len() - signed, 8);
    // And then there is room again.
    wait(async || it.responder.in_flight() == 0).await;
    it.answer(&guessed).await;
}

/// Whoever goes away gives his place back.
#[tokio::test]
async fn a_caller_that_hangs_up_holds_no_place() {
    let it = OcspWorld::start().await;
    let request = it.request(&[serial(9)], None);
    it.key.hold(true);
    let answering = {
        let (responder, request) = (Arc::clone(&it.responder), request.clone());
        tokio::spawn(async move { responder.answer(&request, false).await })
    };
    wait(async || it.key.is_asked()).await;
    answering.abort();
    wait(async || it.responder.in_flight() == 0).await;
    it.key.hold(false);
    it.answer(&request).await;
}

#[tokio::test]
async fn an_answer_is_no_certificate() {
    let it = OcspWorld::start().await;
    it.answer(&it.request(&[serial(9)], None)).await;
    let entries = it.world.store.journal(&JournalKey::Serial(serial(9))).await.unwrap();
    assert_eq!(entries, []);
    // The responder's key has signed answers alone, the issuer's none.
    let answers = it.key.signed().len();
    assert!(answers > 0);
    let issuer_signed = it.world.issuer_key.signed().len();
    assert_eq!(issuer_signed, 1, "the responder's certificate");
    let unknown = Serial::from_random([1; 16]);
    it.answer(&it.request(&[unknown], None)).await;
    assert_eq!((it.key.signed().len(), it.world.issuer_key.signed().len()), (answers + 1, issuer_signed));
}
