//! A CA with an OCSP responder at work, whose key fails when a test says so.

use std::sync::Arc;
use std::time::Duration;

use ca_store::{JournalKind, JournalRow};
use futures::future::BoxFuture;
use hsm::Signing;
use pki::ocsp::{Answer, CertId, CertIdHash, CertStatus, IssuerHashes, Response, encode_request};
use pki::{Period, PublicKey, Serial};
use signer::Change;
use signer::config::Limits;
use signer::doors::{DoorError, DoorPlan, KeyPlace, KeySource, RESPONDER_OF};
use signer::issue::Issued;
use signer::ocsp::{Answered, Responder};
use testkit::Cluster;
use testkit::signing::SoftKey;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::World;
use super::authorities::SUCCESSOR;

/// The issuer of the policy.
pub(crate) const ISSUER: &str = "tls-1";

#[derive(Debug)]
struct ResponderKeys {
    issuer: SoftKey,
    node: SoftKey,
    responder: SoftKey,
}

impl KeySource for ResponderKeys {
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>> {
        let key = match plan.name.as_str() {
            signer::doors::NODE_CA => &self.node,
            name if name.starts_with(RESPONDER_OF) => &self.responder,
            "tls-2" => &*SUCCESSOR,
            _ => &self.issuer,
        };
        Some(Arc::new(key.clone()))
    }

    fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
        assert_eq!((place.token.as_str(), place.id.as_slice()), ("soft", [3].as_slice()));
        Box::pin(async { Ok(self.responder.public().clone()) })
    }
}

pub(crate) struct OcspWorld {
    pub(crate) world: World,
    pub(crate) responder: Arc<Responder>,
    pub(crate) key: SoftKey,
    draining: CancellationToken,
    _ends_with_this: DropGuard,
}

impl OcspWorld {
    /// With a responder that has its certificate.
    pub(crate) async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        let this = Self::without_certificate(limits).await;
        this.ready().await;
        this
    }

    /// Nobody makes its certificate until [`OcspWorld::work`].
    pub(crate) async fn idle(limits: Limits) -> Self {
        let (issuer, node) = (SoftKey::generate(), SoftKey::generate());
        let responder = SoftKey::generate();
        let keys = ResponderKeys { issuer: issuer.clone(), node: node.clone(), responder: responder.clone() };
        let public_key = issuer.public().clone();
        let world = World::with_keys(limits, Arc::new(keys), &public_key, issuer, node).await;
        Self::of(world, responder)
    }

    pub(crate) async fn without_certificate(limits: Limits) -> Self {
        let this = Self::idle(limits).await;
        this.work();
        this
    }

    /// The first signer of a server.
    pub(crate) async fn on_server(cluster: &Cluster) -> Self {
        let (issuer, node) = (SoftKey::generate(), SoftKey::generate());
        let responder = SoftKey::generate();
        let keys = ResponderKeys { issuer: issuer.clone(), node: node.clone(), responder: responder.clone() };
        let public_key = issuer.public().clone();
        let place = (tempfile::tempdir().unwrap(), super::store_on(cluster, 1).await);
        let limits = Limits { lease_seconds: 1, ..Limits::default() };
        let world = World::with_store(limits, Arc::new(keys), &public_key, (issuer, node), place).await;
        Self::of(world, responder)
    }

    /// Another signer of the same server, with the same tokens.
    pub(crate) async fn beside(&self, cluster: &Cluster, life: u8) -> Self {
        let world = &self.world;
        let keys = (Arc::clone(&world.keys), world.issuer_key.clone());
        Self::of(world.beside_with(cluster, life, world.clock.clone(), keys).await, self.key.clone())
    }

    pub(crate) fn of(world: World, key: SoftKey) -> Self {
        let responder = Arc::new(Responder::new(Arc::clone(&world.ca)));
        let draining = CancellationToken::new();
        Self { world, responder, key, _ends_with_this: draining.clone().drop_guard(), draining }
    }

    /// Lets its certificate be made and renewed.
    pub(crate) fn work(&self) {
        tokio::spawn(Arc::clone(&self.responder).keep_current(self.draining.clone()));
        let (ca, draining) = (Arc::clone(&self.world.ca), self.draining.clone());
        tokio::spawn(async move { ca.follow_others(draining).await });
    }

    /// Waits until it answers.
    pub(crate) async fn ready(&self) {
        let request = self.request(&[serial(0)], None);
        wait(async || matches!(read(&self.responder.answer(&request, false).await), Answer::Successful(_)))
            .await;
    }

    /// The process ends, and is started again with another policy; its responder does not work yet.
    pub(crate) async fn with_policy(self, from: &str, to: &str) -> Self {
        let Self { world, responder, key, draining, .. } = self;
        draining.cancel();
        drop(responder);
        Self::of(world.with_policy(from, to).await, key)
    }

    /// The process dies, and another is started whose responder does not work yet.
    pub(crate) async fn restart(self) -> Self {
        let Self { world, responder, key, draining, .. } = self;
        draining.cancel();
        drop(responder);
        // Its tasks let the database go when they have ended.
        Self::of(world.restart().await, key)
    }

    pub(crate) fn id(&self, hash: CertIdHash, serial: &Serial) -> CertId {
        CertId::new(hash, &IssuerHashes::of(&self.world.authorities.issuer), serial)
    }

    pub(crate) fn request(&self, serials: &[Serial], nonce: Option<&[u8]>) -> Vec<u8> {
        let ids: Vec<_> = serials.iter().map(|serial| self.id(CertIdHash::Sha256, serial)).collect();
        encode_request(&ids, nonce)
    }

    /// The answer to a request, verified as a relying party does.
    pub(crate) async fn answer(&self, request: &[u8]) -> Response {
        let answered = self.responder.answer(request, false).await;
        match read(&answered) {
            Answer::Successful(response) => {
                response.verify(&self.world.authorities.issuer, self.world.now()).unwrap();
                *response
            }
            Answer::Error(number) => panic!("error {number}"),
        }
    }

    pub(crate) async fn status(&self, serial: &Serial) -> CertStatus {
        self.answer(&self.request(&[*serial], None)).await.singles()[0].status
    }

    /// The number of the error that a request is answered with.
    pub(crate) async fn error(&self, request: &[u8]) -> u8 {
        let answered = self.responder.answer(request, false).await;
        assert!(answered.basis.is_none());
        match read(&answered) {
            Answer::Error(number) => number,
            Answer::Successful(response) => panic!("{response:?}"),
        }
    }

    pub(crate) async fn certificate(&self, name: &str) -> Issued {
        let client = self.world.client().await;
        let ready = self.world.ready_one(&client, name).await;
        self.world.issue(ready.finalized_by(&client)).await.unwrap()
    }

    /// The journal's certificates of responders.
    pub(crate) async fn responder_rows(&self) -> Vec<JournalRow> {
        let rows = self.world.journal().await;
        rows.into_iter().filter(|row| row.kind == JournalKind::Responder).collect()
    }

    /// The same without the hands of a test.
    pub(crate) async fn responder_rows_unaltered(&self) -> Vec<JournalRow> {
        self.world.store.leave_alone();
        self.responder_rows().await
    }

    /// Lets its certificate be looked at now.
    pub(crate) fn nudge(&self) {
        self.world.ca.events().announce(Change::Missed);
    }

    /// Lets its certificate be looked at, and waits until that was done.
    pub(crate) async fn look(&self) {
        let looks = || self.world.store.calls().iter().filter(|call| **call == "blocked_keys").count();
        // When the second has begun, the first has ended.
        for _ in 0..2 {
            let before = looks();
            self.nudge();
            wait(async || looks() > before).await;
        }
    }

    /// Time goes on, and the clock is compared.
    pub(crate) async fn advance(&self, period: Period) {
        self.world.clock.advance(Duration::from_secs(period.seconds()));
        self.world.ca.check_clock().await.unwrap();
    }
}

/// A serial that nobody has.
pub(crate) fn serial(tag: u8) -> Serial {
    Serial::from_random([tag; 16])
}

pub(crate) fn read(answered: &Answered) -> Answer {
    pki::ocsp::read(&answered.response).unwrap()
}

/// Waits for something that another task does.
pub(crate) async fn wait(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come");
}
