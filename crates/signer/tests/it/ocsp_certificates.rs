//! The certificates of OCSP responders: issued through the journal, renewed in time, one among all signers.

use std::sync::Arc;
use std::time::Duration;

use ca_store::{AuthorityChange, AuthorityChanges, AuthorityRow, BlockedKeyRow, CaStore as _, JournalRow};
use hsm::Signing;
use pki::ocsp::CertStatus;
use pki::{Certificate, Period, PublicKey, Reason};
use signer::config::Limits;
use signer::doors::{DoorError, DoorPlan, Doors, KeyPlace, KeySource, ResponderPlan};
use testkit::Cluster;
use testkit::signing::{KeyFault, SoftKey};
use testkit::store::forged;

use crate::support::metrics::Metrics;
use crate::support::ocsp::{ISSUER, read, serial, wait};
use crate::support::{OcspWorld, World};

const TRY_LATER: u8 = 3;

fn der(row: &JournalRow) -> Vec<u8> {
    let tbs = pki::Tbs::from_der(&row.tbs).unwrap();
    pki::assemble(&tbs, row.signature.as_deref().unwrap())
}

/// The certificate that an answer carries now.
async fn in_use(it: &OcspWorld) -> Certificate {
    it.answer(&it.request(&[serial(9)], None)).await.responder().unwrap().clone()
}

#[tokio::test]
async fn l6_a_responders_certificate_is_issued_through_the_journal() {
    let heard = Metrics::default();
    let _listening = heard.listen();
    let it = OcspWorld::start().await;
    let rows = it.responder_rows().await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let certificate = in_use(&it).await;
    assert_eq!(certificate.der(), der(row));
    assert_eq!((certificate.serial(), row.spki_sha256), (row.serial, it.key.public().sha256()));
    assert_eq!(certificate.public_key(), it.key.public());
    assert!(
        certificate.may_sign_ocsp()
            && certificate.ocsp_urls().is_empty()
            && certificate.crl_urls().is_empty()
    );
    assert_eq!(row.not_after, it.world.now().plus(Period::from_days(7)).minus(Period::from_seconds(1)));
    assert_eq!(certificate.not_before(), it.world.now().minus(Period::from_hours(1)));
    assert!(it.world.audit_kinds().await.contains(&"certificate.intended".to_owned()));
    // Both are to be seen.
    let left = certificate.not_after().since(it.world.now()).seconds();
    let shown = heard.shows("chancery_responder_certificate_seconds", &[("issuer", ISSUER)]);
    assert_eq!(shown.map(|it| it as u64), Some(left));
    let signed = || heard.shows("chancery_ocsp_answers_total", &[("outcome", "signed")]).unwrap() as u64;
    let before = signed();
    in_use(&it).await;
    assert_eq!(signed(), before + 1);
}

/// Renewed in good time: no answer is cut short by its end, also when the issuer's key is away for a while.
#[tokio::test]
async fn a_certificate_is_renewed_before_it_limits_an_answer() {
    let it = OcspWorld::start().await;
    let first = in_use(&it).await;
    // Half of the five days in which it limits nothing.
    it.advance(Period::from_hours(59)).await;
    it.look().await;
    assert_eq!((in_use(&it).await, it.responder_rows().await.len()), (first.clone(), 1));
    it.advance(Period::from_hours(2)).await;
    it.world.issuer_key.hold(true);
    it.nudge();
    wait(async || it.responder_rows().await.len() == 2).await;
    // While the issuer's key is away the old one does it.
    it.advance(Period::from_hours(48)).await;
    let response = it.answer(&it.request(&[serial(9)], None)).await;
    assert_eq!(response.responder(), Some(&first));
    assert_eq!(response.singles()[0].next_update, Some(it.world.now().plus(Period::from_days(2))));
    it.world.issuer_key.hold(false);
    wait(async || in_use(&it).await != first).await;
    assert_eq!(it.responder_rows().await.len(), 2, "one is enough");
}

/// An issuer whose key is away for longer: answers end with the certificate, and then there are none.
#[tokio::test]
async fn l5_an_answer_does_not_outlive_its_responder() {
    let it = OcspWorld::start().await;
    let first = in_use(&it).await;
    it.world.issuer_key.hold(true);
    it.advance(Period::from_days(6)).await;
    let response = it.answer(&it.request(&[serial(9)], None)).await;
    assert_eq!(response.singles()[0].next_update, Some(first.not_after()));
    it.advance(Period::from_days(1)).await;
    assert_eq!(it.error(&it.request(&[serial(9)], None)).await, TRY_LATER);
    it.world.issuer_key.hold(false);
    it.ready().await;
}

/// Each failed try is an intent that may have been signed: the same one is tried again.
#[tokio::test]
async fn a_token_that_fails_leaves_one_intent() {
    let it = OcspWorld::idle(Limits::default()).await;
    for _ in 0..3 {
        it.world.issuer_key.fail_next(KeyFault::FailedAfterSigning);
    }
    it.work();
    it.ready().await;
    assert_eq!(it.responder_rows().await.len(), 1);
    assert_eq!(it.world.issuer_key.signed().len(), 4);
}

#[tokio::test]
async fn a_certificate_is_found_again_after_a_restart() {
    let it = OcspWorld::start().await;
    let first = in_use(&it).await;
    let it = it.restart().await;
    assert_eq!(it.error(&it.request(&[serial(9)], None)).await, TRY_LATER, "it was not looked for yet");
    it.work();
    it.ready().await;
    assert_eq!(in_use(&it).await, first);
    assert_eq!(it.responder_rows().await.len(), 1);
}

/// The signer dies between intent and signature: its successor takes the intent over, and makes no other.
#[tokio::test]
async fn an_intent_of_a_dead_signer_is_taken_over() {
    let limits = Limits { lease_seconds: 1, ..Limits::default() };
    let it = OcspWorld::idle(limits).await;
    it.world.issuer_key.hold(true);
    it.work();
    wait(async || it.responder_rows().await.len() == 1).await;
    let it = it.restart().await;
    it.world.issuer_key.hold(false);
    it.work();
    wait(async || it.world.ca.take_over().await.unwrap().signed == 1).await;
    it.ready().await;
    let rows = it.responder_rows().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(in_use(&it).await.der(), der(&rows[0]));
}

#[tokio::test]
async fn a_revoked_certificate_is_not_used() {
    let it = OcspWorld::start().await;
    let first = in_use(&it).await;
    it.world.ca.revoke_by_operator("alice", first.serial(), Reason::Superseded).await.unwrap();
    wait(async || it.responder_rows().await.len() == 2).await;
    it.ready().await;
    assert_ne!(in_use(&it).await, first);
    let status = it.status(&first.serial()).await;
    assert!(matches!(status, CertStatus::Revoked { .. }), "{status:?}");
}

#[tokio::test]
async fn a_blocked_key_is_not_used() {
    let it = OcspWorld::start().await;
    let block = BlockedKeyRow {
        spki_sha256: it.key.public().sha256(),
        reason: "keyCompromise".to_owned(),
        source: "test".to_owned(),
        at: it.world.now(),
    };
    let changes = vec![AuthorityChange { row: AuthorityRow::BlockedKey(block), expected: None }];
    it.world.store.put_authority(AuthorityChanges { changes, audit: Vec::new() }).await.unwrap();
    let request = it.request(&[serial(9)], None);
    it.look().await;
    wait(async || {
        matches!(read(&it.responder.answer(&request, false).await), pki::ocsp::Answer::Error(TRY_LATER))
    })
    .await;
    assert_eq!(it.responder_rows().await.len(), 1, "nor is it certified again");
}

/// A row that a signer did not write is none; nor is one whose signature the issuer has not made.
#[tokio::test]
async fn a_forged_certificate_is_not_used() {
    let forgeries: [fn(&mut JournalRow); 2] =
        [|row| row.not_after = row.not_after.plus(Period::from_days(1)), |row| row.signature = Some(vec![1])];
    for (n, forgery) in forgeries.into_iter().enumerate() {
        let it = OcspWorld::start().await;
        let first = in_use(&it).await;
        let keys = Arc::clone(&it.world.secrets.rows);
        let it = it.restart().await;
        it.world.store.alter_certificates(move |mut page| {
            for entry in &mut page.items {
                entry.row = match n {
                    0 => forged(&entry.row, forgery),
                    // With a good MAC: what only a signer gone wrong could write.
                    _ => {
                        let mut row = keys.open(entry.row.clone()).unwrap();
                        forgery(&mut row);
                        keys.seal(row)
                    }
                };
            }
            page
        });
        it.work();
        it.ready().await;
        assert_ne!(in_use(&it).await, first, "another one was made");
        assert_eq!(it.responder_rows_unaltered().await.len(), 2);
    }
}

/// Two signers start at the same time, and renew at the same time: one certificate each time, and both use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_signers_make_one_certificate() {
    let cluster = Cluster::start();
    let one = OcspWorld::on_server(&cluster).await;
    let two = one.beside(&cluster, 2).await;
    for it in [&one, &two] {
        it.work();
    }
    futures::join!(one.ready(), two.ready());
    assert_eq!(one.responder_rows().await.len(), 1);
    let first = in_use(&one).await;
    assert_eq!(in_use(&two).await, first);
    one.advance(Period::from_hours(61)).await;
    two.world.ca.check_clock().await.unwrap();
    one.nudge();
    two.nudge();
    wait(async || in_use(&one).await != first && in_use(&two).await != first).await;
    assert_eq!(in_use(&one).await, in_use(&two).await);
    assert_eq!(one.responder_rows().await.len(), 2);
}

/// Keys by what the token says.
#[derive(Debug)]
struct OneKey(SoftKey);

impl KeySource for OneKey {
    fn key(&self, _: &DoorPlan) -> Option<Arc<dyn Signing>> {
        Some(Arc::new(self.0.clone()))
    }

    fn public_key<'a>(
        &'a self,
        _: &'a KeyPlace,
    ) -> futures::future::BoxFuture<'a, Result<PublicKey, DoorError>> {
        Box::pin(async { Ok(self.0.public().clone()) })
    }
}

/// A responder has neither an issuer's key nor the node CA's, wherever it is kept and whatever it is called.
#[tokio::test]
async fn a_responder_has_a_key_of_its_own() {
    let world = World::start().await;
    let place = |id: u8| KeyPlace { token: "soft".to_owned(), id: vec![id], origin: hsm::Origin::Cloned };
    let open = |key: &SoftKey, id: u8| {
        let issuers: Arc<dyn KeySource> = Arc::new(OneKey(world.issuer_key.clone()));
        let node = DoorPlan {
            name: signer::doors::NODE_CA.to_owned(),
            public_key: world.node_key.public().clone(),
            algorithm: pki::SignatureAlgorithm::EcdsaSha256,
            place: place(2),
        };
        let deadline = Duration::from_secs(1);
        let both = Both { issuers, node: world.node_key.clone() };
        let doors = Doors::open(&both, world.ca.registry().door_plans(), Some(node), deadline).unwrap();
        let source: Arc<dyn KeySource> = Arc::new(OneKey(key.clone()));
        let plan = ResponderPlan { issuer: ISSUER.to_owned(), place: place(id) };
        doors.with_responders(&source, vec![plan], deadline)
    };
    // By its place, before a token was asked.
    for (id, of) in [(1, ISSUER), (2, signer::doors::NODE_CA)] {
        let refused = open(&SoftKey::generate(), id).map(drop);
        assert!(matches!(&refused, Err(DoorError::ResponderKey { other, .. }) if other == of), "{refused:?}");
    }
    // By the key that the token has there.
    for (key, of) in [(&world.issuer_key, ISSUER), (&world.node_key, signer::doors::NODE_CA)] {
        let doors = open(key, 3).unwrap();
        let refused = doors.responder(ISSUER).unwrap().public_key().await;
        assert!(matches!(&refused, Err(DoorError::ResponderKey { other, .. }) if other == of), "{refused:?}");
    }
    let own = SoftKey::generate();
    let doors = open(&own, 3).unwrap();
    assert_eq!(doors.responder(ISSUER).unwrap().public_key().await.unwrap(), *own.public());
    assert!(matches!(doors.responder("tls-2"), Err(DoorError::NoDoor(_))));
}

#[derive(Debug)]
struct Both {
    issuers: Arc<dyn KeySource>,
    node: SoftKey,
}

impl KeySource for Both {
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>> {
        match plan.name.as_str() {
            signer::doors::NODE_CA => Some(Arc::new(self.node.clone())),
            _ => self.issuers.key(plan),
        }
    }

    fn public_key<'a>(
        &'a self,
        place: &'a KeyPlace,
    ) -> futures::future::BoxFuture<'a, Result<PublicKey, DoorError>> {
        self.issuers.public_key(place)
    }
}
