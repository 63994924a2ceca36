//! A CA in a temporary folder: real SQLite behind a store that can fail, keys in memory that can fail, a clock that stands
//! still, clients that sign, and validators that have seen whatever a test says.

pub(crate) mod authorities;
pub(crate) mod bucket;
mod client;
mod grants;
mod keys;
pub(crate) mod metrics;
pub(crate) mod ocsp;
pub(crate) mod operator;
mod orders;
mod peek;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acme::receipt::ReceiptKey;
use acme::{AccountId, Thumbprint, TierSecret, TierSecrets};
use ca_store::{CaStore, Incarnation, NewRevocation};
use pki::{PublicKey, Serial, Timestamp};
use runtime::Clock as _;
use runtime::config::FilePath;
use signer::config::Limits;
use signer::doors::{Doors, KeySource};
use signer::policy::Policy;
use signer::{
    Ca, Failure, NodeCa, Parts, Reason, Registry, Secrets, SigningClock, SystemRandomness, WeakKeys,
};
use tempfile::TempDir;
use testkit::signing::SoftKey;
use testkit::store::FaultyStore;
use testkit::{Cluster, TestClock};

pub(crate) use authorities::Authorities;
pub(crate) use client::{Client, csr, csr_of};
use keys::{SoftKeys, TokenKeys};
pub(crate) use ocsp::OcspWorld;
pub(crate) use orders::Ready;
pub(crate) use peek::Peek;

/// The directories of the policy.
pub(crate) const OPEN: &str = "open";
pub(crate) const OTHER: &str = "other";
pub(crate) const MANAGED: &str = "managed";
pub(crate) const STRICT: &str = "strict";
pub(crate) const BASE: &str = "https://ca.test";
/// Where this file is, nobody looks at the marks of test CAs.
const UNMARKED: &str = "unmarked";
/// The file of a test's list of weak keys.
const WEAK_KEYS: &str = "weak-keys";
/// Perspectives of the directories; one of them may dissent.
pub(crate) const PERSPECTIVES: [&str; 3] = ["validator-1", "validator-2", "validator-3"];

/// A revocation that no client and no operator asked for.
pub(crate) fn superseded(serial: Serial, at: Timestamp) -> NewRevocation {
    NewRevocation {
        serial,
        at,
        reason: pki::Reason::Superseded,
        upgrade: false,
        source: "test".to_owned(),
        request: None,
        block: None,
        audit: Vec::new(),
    }
}

pub(crate) struct World {
    pub(crate) ca: Arc<Ca>,
    pub(crate) store: FaultyStore,
    pub(crate) issuer_key: SoftKey,
    pub(crate) node_key: SoftKey,
    pub(crate) clock: TestClock,
    pub(crate) secrets: Secrets,
    pub(crate) authorities: Authorities,
    pub(crate) folder: TempDir,
    keys: Arc<dyn KeySource>,
    validators: Vec<ReceiptKey>,
    limits: Limits,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        let (issuer_key, node_key) = (SoftKey::generate(), SoftKey::generate());
        let keys = Arc::new(SoftKeys { issuer: issuer_key.clone(), node: node_key.clone() });
        let public_key = issuer_key.public().clone();
        Self::with_keys(limits, keys, &public_key, issuer_key, node_key).await
    }

    /// With an issuer whose key is in a token; the node CA's stays in memory.
    pub(crate) async fn with_token(public_key: &PublicKey, tokens: Arc<dyn KeySource>) -> Self {
        let node_key = SoftKey::generate();
        let keys = Arc::new(TokenKeys { tokens, node: node_key.clone() });
        Self::with_keys(Limits::default(), keys, public_key, SoftKey::generate(), node_key).await
    }

    async fn with_keys(
        limits: Limits,
        keys: Arc<dyn KeySource>,
        public_key: &PublicKey,
        issuer_key: SoftKey,
        node_key: SoftKey,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path(), 1).await;
        Self::with_store(limits, keys, public_key, (issuer_key, node_key), (folder, store)).await
    }

    /// The first signer of a PostgreSQL server.
    pub(crate) async fn on_server(cluster: &Cluster, limits: Limits) -> Self {
        let (issuer_key, node_key) = (SoftKey::generate(), SoftKey::generate());
        let keys = Arc::new(SoftKeys { issuer: issuer_key.clone(), node: node_key.clone() });
        let public_key = issuer_key.public().clone();
        let place = (tempfile::tempdir().unwrap(), store_on(cluster, 1).await);
        Self::with_store(limits, keys, &public_key, (issuer_key, node_key), place).await
    }

    /// Another signer of the same server, with the same keys in tokens of its own, the same secret, policy and clock.
    pub(crate) async fn beside(&self, cluster: &Cluster, life: u8) -> Self {
        self.beside_at(cluster, life, self.clock.clone()).await
    }

    /// As [`World::beside`], with another clock.
    pub(crate) async fn beside_at(&self, cluster: &Cluster, life: u8, clock: TestClock) -> Self {
        let issuer_key = self.issuer_key.in_another_token();
        let keys = Arc::new(SoftKeys { issuer: issuer_key.clone(), node: self.node_key.clone() });
        self.beside_with(cluster, life, clock, (keys, issuer_key)).await
    }

    async fn beside_with(
        &self,
        cluster: &Cluster,
        life: u8,
        clock: TestClock,
        (keys, issuer_key): (Arc<dyn KeySource>, SoftKey),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let store = store_on(cluster, life).await;
        store.follow(&clock);
        let (limits, secrets) = (self.limits.clone(), self.secrets.clone());
        let materials = (&store, &clock, &secrets, &keys, &limits);
        let ca = start_ca(folder.path(), &self.authorities, materials).await;
        Self {
            ca,
            store,
            issuer_key,
            node_key: self.node_key.clone(),
            clock,
            secrets,
            authorities: self.authorities.clone(),
            folder,
            keys,
            validators: validators(),
            limits,
        }
    }

    async fn with_store(
        limits: Limits,
        keys: Arc<dyn KeySource>,
        public_key: &PublicKey,
        (issuer_key, node_key): (SoftKey, SoftKey),
        (folder, store): (TempDir, FaultyStore),
    ) -> Self {
        let clock = TestClock::default();
        let authorities = Authorities::make(folder.path(), clock.now(), public_key, &node_key);
        std::fs::write(folder.path().join("policy.toml"), POLICY).unwrap();
        let secret = TierSecret::new(1, std::array::from_fn(|at| at as u8 + 1)).unwrap();
        let secrets = Secrets::new(TierSecrets::new(vec![secret]).unwrap()).unwrap();
        store.follow(&clock);
        let ca = start_ca(folder.path(), &authorities, (&store, &clock, &secrets, &keys, &limits)).await;
        let validators = validators();
        let world = Self {
            ca,
            store,
            keys,
            issuer_key,
            node_key,
            clock,
            secrets,
            authorities,
            folder,
            validators,
            limits,
        };
        for validator in &world.validators {
            world.admit_validator(validator).await;
        }
        world.ca.reload_nodes().await.unwrap();
        world
    }

    /// The process dies and another is started: the same database, another incarnation.
    pub(crate) async fn restart(self) -> Self {
        let World {
            ca,
            store,
            keys,
            issuer_key,
            node_key,
            clock,
            secrets,
            authorities,
            folder,
            validators,
            limits,
        } = self;
        let life = u8::try_from(store.info().await.unwrap().incarnation).unwrap();
        store.close().await;
        // The lock goes with the last hand on the database.
        drop((ca, store));
        let store = open_store(folder.path(), life + 1).await;
        store.follow(&clock);
        let ca = start_ca(folder.path(), &authorities, (&store, &clock, &secrets, &keys, &limits)).await;
        Self {
            ca,
            store,
            keys,
            issuer_key,
            node_key,
            clock,
            secrets,
            authorities,
            folder,
            validators,
            limits,
        }
    }

    /// The process ends, and is started again with a list of weak keys.
    pub(crate) async fn with_weak_keys(self, list: &[u8]) -> Self {
        std::fs::write(self.folder.path().join(WEAK_KEYS), list).unwrap();
        self.restart().await
    }

    /// The process ends, and is started again with another policy.
    pub(crate) async fn with_policy(self, from: &str, to: &str) -> Self {
        let file = self.folder.path().join("policy.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        self.restart().await
    }

    /// From its next start on, it takes policies whose directories and issuers do not go together.
    pub(crate) fn unmarked(self) -> Self {
        std::fs::write(self.folder.path().join(UNMARKED), "").unwrap();
        self
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.clock.now().unix_timestamp() as u64)
    }

    /// A new account of the open directory.
    pub(crate) async fn client(&self) -> Client {
        self.client_of(OPEN).await
    }

    pub(crate) async fn client_of(&self, directory: &str) -> Client {
        let mut client = Client::new(directory);
        let registered = self.ca.register_account(&client.new_account()).await.unwrap();
        assert!(registered.created);
        client.account = Some(registered.account.id);
        client
    }

    /// Certificates and intents of the journal.
    pub(crate) async fn journal(&self) -> Vec<ca_store::JournalRow> {
        let query = ca_store::CertificateQuery::first(ca_store::CertificateFilter::All, 1000);
        let page = self.store.certificates(&query).await.unwrap();
        page.items.iter().map(|entry| entry.row.unverified().clone()).collect()
    }

    /// Refusals as the store has them: reason, directory, count.
    pub(crate) async fn refusals(&self) -> Vec<(String, String, u64)> {
        let counts = self.store.refusals(Timestamp::from_unix(0)).await.unwrap();
        counts.into_iter().map(|count| (count.reason, count.directory, count.count)).collect()
    }

    pub(crate) async fn audit_kinds(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        for head in self.store.audit_heads().await.unwrap() {
            let records = self.store.audit(head.number, 0, 10_000).await.unwrap();
            ca_store::verify_chain(&head, &records).unwrap();
            kinds.extend(records.into_iter().map(|record| record.event.kind));
        }
        kinds
    }
}

/// The reason of a refusal.
#[track_caller]
pub(crate) fn reason<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> Reason {
    match outcome {
        Err(Failure::Refused(refusal)) => refusal.reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn validators() -> Vec<ReceiptKey> {
    PERSPECTIVES
        .iter()
        .enumerate()
        .map(|(at, name)| ReceiptKey::from_seed(name.parse().unwrap(), &[at as u8 + 1; 32]).unwrap())
        .collect()
}

async fn store_on(cluster: &Cluster, life: u8) -> FaultyStore {
    let mut options = postgres::Options::from_url(&cluster.owner_url()).unwrap();
    options.accept_lost_commits = true;
    postgres::Ca::migrate(&options).await.unwrap();
    let incarnation = Incarnation { id: [life; 16], node: format!("signer-{life}") };
    FaultyStore::new(Arc::new(postgres::Ca::open(options, incarnation).await.unwrap()))
}

async fn open_store(folder: &Path, life: u8) -> FaultyStore {
    let incarnation = Incarnation { id: [life; 16], node: "signer-1".to_owned() };
    // The store of the life before lets its lock go when its last task has ended.
    for _ in 0..200 {
        match sqlite::Ca::open(sqlite::Options::new(folder.join("ca.db")), incarnation.clone()).await {
            Ok(store) => return FaultyStore::new(Arc::new(store)),
            Err(ca_store::StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the database stays locked");
}

type Materials<'a> = (&'a FaultyStore, &'a TestClock, &'a Secrets, &'a Arc<dyn KeySource>, &'a Limits);

async fn start_ca(folder: &Path, authorities: &Authorities, materials: Materials<'_>) -> Arc<Ca> {
    let (store, clock, secrets, keys, limits) = materials;
    let registry = registry(folder);
    let place =
        signer::doors::KeyPlace { token: "soft".to_owned(), id: vec![2], origin: hsm::Origin::Generated };
    let node_ca = NodeCa::new(authorities.node_ca.clone(), place).unwrap();
    let doors =
        Doors::open(&**keys, registry.door_plans(), Some(node_ca.door_plan()), limits.signature()).unwrap();
    let doors = doors.with_responders(keys, registry.responder_plans(), limits.ocsp_signature()).unwrap();
    Ca::start(Parts {
        store: Arc::new(store.clone()),
        registry,
        doors,
        node_ca: Some(node_ca),
        secrets: secrets.clone(),
        clock: SigningClock::new(clock.shared(), limits.clock_skew()),
        random: Arc::new(SystemRandomness::new()),
        weak_keys: weak_keys(folder),
        limits: limits.clone(),
        node: "signer-1".to_owned(),
    })
    .await
    .unwrap()
}

/// The list of weak keys in this folder, if a test has put one there.
fn weak_keys(folder: &Path) -> WeakKeys {
    let list = folder.join(WEAK_KEYS);
    let files = list.exists().then(|| FilePath::from(list.as_path()));
    WeakKeys::load(files.as_slice()).unwrap()
}

/// The registry of the policy file in this folder; where a test wants to see what comes after it, without the look at marks.
pub(crate) fn registry(folder: &Path) -> Registry {
    let policy: Policy = runtime::config::load(&folder.join("policy.toml")).unwrap();
    let tokens = BTreeSet::from(["soft"]);
    match folder.join(UNMARKED).exists() {
        true => Registry::unmarked(policy, &tokens).unwrap(),
        false => Registry::from_policy(policy, &tokens).unwrap(),
    }
}

/// The policy of these tests.
pub(crate) const POLICY: &str = include_str!("policy.toml");

/// An id that nobody has.
pub(crate) fn foreign_account() -> AccountId {
    AccountId::derive(&OPEN.parse().unwrap(), &Thumbprint::from_bytes([9; 32]))
}
