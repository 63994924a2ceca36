//! A CA in a temporary folder: real SQLite behind a store that can fail, keys in memory that can fail, a clock that stands
//! still, clients that sign, and validators that have seen whatever a test says.

pub(crate) mod authorities;
pub(crate) mod bucket;
mod client;
pub(crate) mod ocsp;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acme::receipt::{Outcome as Observation, Receipt, ReceiptKey};
use acme::{AccountId, Thumbprint, TierSecret, TierSecrets};
use ca_store::{
    AuthorityChange, AuthorityChanges, AuthorityRow, CaStore, EabKeyRow, EabState, GrantRow, Incarnation,
    NameScope, NodeRow, NodeState, PutOutcome, RegistrationRow, State,
};
use futures::future::BoxFuture;
use hsm::Signing;
use pki::{Name, PublicKey, Timestamp};
use runtime::Clock as _;
use signer::authority::{IssueOrder, NameEvidence};
use signer::config::Limits;
use signer::doors::{DoorError, DoorPlan, Doors, KeyPlace, KeySource};
use signer::issue::{Issuance, Issued};
use signer::order::AuthorizedOrder;
use signer::policy::Policy;
use signer::{Ca, Failure, NodeCa, Parts, Reason, Registry, Secrets, SigningClock, SystemRandomness};
use tempfile::TempDir;
use testkit::signing::SoftKey;
use testkit::store::FaultyStore;
use testkit::{Cluster, TestClock};

pub(crate) use authorities::Authorities;
pub(crate) use client::{Client, csr, csr_of};
pub(crate) use ocsp::OcspWorld;

/// The directories of the policy.
pub(crate) const OPEN: &str = "open";
pub(crate) const OTHER: &str = "other";
pub(crate) const MANAGED: &str = "managed";
pub(crate) const STRICT: &str = "strict";
pub(crate) const BASE: &str = "https://ca.test";
/// Perspectives of the directories; one of them may dissent.
pub(crate) const PERSPECTIVES: [&str; 3] = ["validator-1", "validator-2", "validator-3"];

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

#[derive(Debug)]
struct TokenKeys {
    tokens: Arc<dyn KeySource>,
    node: SoftKey,
}

impl KeySource for TokenKeys {
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>> {
        match plan.name.as_str() {
            signer::doors::NODE_CA => Some(Arc::new(self.node.clone())),
            _ => self.tokens.key(plan),
        }
    }

    fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
        self.tokens.public_key(place)
    }
}

#[derive(Debug)]
struct SoftKeys {
    issuer: SoftKey,
    node: SoftKey,
}

impl KeySource for SoftKeys {
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>> {
        let key = if plan.name == signer::doors::NODE_CA { &self.node } else { &self.issuer };
        Some(Arc::new(key.clone()))
    }

    fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
        // These worlds have no responder at work.
        Box::pin(async { Err(DoorError::NoDoor(place.token.clone())) })
    }
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

    /// Another signer of the same server, with the same keys, secret and policy.
    pub(crate) async fn beside(&self, cluster: &Cluster, life: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let store = store_on(cluster, life).await;
        store.follow(&self.clock);
        let (keys, limits, secrets) = (Arc::clone(&self.keys), self.limits.clone(), self.secrets.clone());
        let materials = (&store, &self.clock, &secrets, &keys, &limits);
        let ca = start_ca(folder.path(), &self.authorities, materials).await;
        Self {
            ca,
            store,
            issuer_key: self.issuer_key.clone(),
            node_key: self.node_key.clone(),
            clock: self.clock.clone(),
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
        store.close().await;
        // The lock goes with the last hand on the database.
        drop((ca, store));
        let store = open_store(folder.path(), 2).await;
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

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.clock.now().unix_timestamp() as u64)
    }

    pub(crate) async fn put(&self, row: AuthorityRow, expected: Option<u64>) {
        let changes =
            AuthorityChanges { changes: vec![AuthorityChange { row, expected }], audit: Vec::new() };
        assert_eq!(self.store.put_authority(changes).await.unwrap(), PutOutcome::Applied);
    }

    async fn admit_validator(&self, validator: &ReceiptKey) {
        let row = NodeRow {
            role: "validator".to_owned(),
            name: validator.perspective().to_string(),
            settings: String::new(),
            receipt_key: Some(validator.public_key().to_vec()),
            server_names: Vec::new(),
            state: NodeState::Active,
            created_at: self.now(),
            version: 1,
        };
        self.put(AuthorityRow::Node(self.secrets.rows.seal(row)), None).await;
    }

    /// A registration with an EAB key; answers the key's id and the key.
    pub(crate) async fn registration(&self, id: &str, uses: Option<u32>) -> (String, Vec<u8>) {
        let row = RegistrationRow {
            id: id.to_owned(),
            directory: MANAGED.to_owned(),
            title: id.to_owned(),
            settings: String::new(),
            state: State::Active,
            created_at: self.now(),
            version: 1,
        };
        self.put(AuthorityRow::Registration(self.secrets.rows.seal(row)), None).await;
        let epoch = self.store.info().await.unwrap().epoch.number;
        let seed = id.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        let kid = self.secrets.new_eab_key_id(epoch, [seed; 16]);
        let row = EabKeyRow {
            kid: kid.to_string(),
            registration: id.to_owned(),
            secret_version: 1,
            epoch,
            max_uses: uses,
            uses: 0,
            state: EabState::Active,
            expires_at: None,
            created_at: self.now(),
            version: 1,
        };
        self.put(AuthorityRow::EabKey(self.secrets.rows.seal(row)), None).await;
        (kid.to_string(), self.secrets.eab_key(&kid).unwrap().to_vec())
    }

    pub(crate) fn grant_row(&self, id: &str, registration: &str, scope: NameScope, name: &str) -> GrantRow {
        GrantRow {
            id: id.to_owned(),
            registration: registration.to_owned(),
            scope,
            name: name.to_owned(),
            state: State::Active,
            expires_at: None,
            created_at: self.now(),
            version: 1,
        }
    }

    pub(crate) async fn grant(&self, id: &str, registration: &str, scope: NameScope, name: &str) {
        let row = self.grant_row(id, registration, scope, name);
        self.put(AuthorityRow::Grant(self.secrets.rows.seal(row)), None).await;
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

    /// What an honest perspective would have seen for a name.
    pub(crate) fn receipt(&self, client: &Client, name: &Name, evidence: &NameEvidence) -> Receipt {
        let now = self.now();
        Receipt {
            authorization: evidence.authorization,
            directory: client.directory.parse().unwrap(),
            account: client.account.unwrap(),
            thumbprint: client.thumbprint(),
            name: name.clone(),
            method: acme::challenge::Method::Http01,
            token: acme::id::token(&evidence.authorization),
            attempt: 1,
            run: acme::receipt::Run::from_bytes([1; 16]),
            perspective: PERSPECTIVES[0].parse().unwrap(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            caa: None,
            started: now,
            finished: now,
            outcome: Observation::Valid,
        }
    }

    /// Signs a receipt as each of these perspectives (by place).
    pub(crate) fn sign_receipts(&self, receipt: &Receipt, perspectives: &[usize]) -> Vec<String> {
        let sign = |at: &usize| {
            let key = &self.validators[*at];
            key.sign(&Receipt { perspective: key.perspective().clone(), ..receipt.clone() }).unwrap()
        };
        perspectives.iter().map(sign).collect()
    }

    /// An order whose names were all seen by every perspective, ready to be finalized with a new key's CSR.
    pub(crate) async fn ready(&self, client: &Client, names: &[&str]) -> Ready {
        let new_order = client.new_order(names);
        self.ready_with(client, new_order).await
    }

    pub(crate) async fn ready_with(&self, client: &Client, new_order: Vec<u8>) -> Ready {
        let order = self.ca.authorize_order(&new_order).await.unwrap();
        let digest = acme::Jws::from_slice(&new_order).unwrap().digest();
        let evidence = order.names.iter().map(|name| {
            let mut evidence = NameEvidence {
                name: name.name.clone(),
                authorization: name.authorization,
                created_by: digest,
                receipts: Vec::new(),
            };
            let receipt = self.receipt(client, &name.name, &evidence);
            evidence.receipts = self.sign_receipts(&receipt, &[0, 1, 2]);
            evidence
        });
        let evidence = evidence.collect();
        let names: Vec<String> = order.names.iter().map(|name| name.name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ready { csr: csr(&names), new_order, order: Arc::new(order), evidence }
    }

    pub(crate) async fn ready_one(&self, client: &Client, name: &str) -> Ready {
        self.ready(client, &[name]).await
    }

    /// Issues, asking again for as long as it takes.
    pub(crate) async fn issue_patiently(&self, order: IssueOrder) -> Issued {
        loop {
            match self.ca.issue(order.clone()).await.unwrap() {
                Issuance::Issued(issued) => return issued,
                Issuance::Processing => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Issues at once.
    pub(crate) async fn issue(&self, order: IssueOrder) -> Result<Issued, Failure> {
        match self.ca.issue(order).await? {
            Issuance::Issued(issued) => Ok(issued),
            Issuance::Processing => panic!("still processing"),
        }
    }

    /// The reason why an order is refused.
    pub(crate) async fn refusal(&self, order: IssueOrder) -> Reason {
        reason(self.ca.issue(order).await)
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

/// An order ready to be finalized, in parts that a test can swap.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) new_order: Vec<u8>,
    pub(crate) order: Arc<AuthorizedOrder>,
    pub(crate) evidence: Vec<NameEvidence>,
    pub(crate) csr: Vec<u8>,
}

impl Ready {
    pub(crate) fn finalized_by(&self, client: &Client) -> IssueOrder {
        self.with_finalize(client.finalize(&self.order.id.to_string(), &self.csr))
    }

    pub(crate) fn with_finalize(&self, finalize: Vec<u8>) -> IssueOrder {
        IssueOrder {
            new_order_jws: self.new_order.clone().into(),
            finalize_jws: finalize.into(),
            authorizations: self.evidence.clone(),
        }
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
        limits: limits.clone(),
        node: "signer-1".to_owned(),
    })
    .await
    .unwrap()
}

/// The registry of the policy file in this folder.
pub(crate) fn registry(folder: &Path) -> Registry {
    let policy: Policy = runtime::config::load(&folder.join("policy.toml")).unwrap();
    Registry::from_policy(policy, &BTreeSet::from(["soft"])).unwrap()
}

/// An id that nobody has.
pub(crate) fn foreign_account() -> AccountId {
    AccountId::derive(&OPEN.parse().unwrap(), &Thumbprint::from_bytes([9; 32]))
}

/// The policy of these tests.
pub(crate) const POLICY: &str = r#"
version = 1

[[tenant]]
name = "tenant"

[[root]]
name = "root"
certificate = "root.pem"

[[issuer]]
name = "tls-1"
certificate = "issuer.pem"
token = "soft"
key_id = "01"
pool = "tls"
shards = 4
crl_url_base = "http://status.test/crl"
ca_issuers_url = "http://status.test/issuer/tls-1.cer"
[issuer.ocsp]
url = "http://status.test/ocsp"
token = "soft"
key_id = "03"

[[profile]]
name = "tls"
validity = "90d"

[[profile]]
name = "short"
validity = "6d"
key_algorithms = ["ecdsa-p256"]

[[profile]]
name = "linted"
lints = ["rfc5280", "cabf-br", "operator"]

[[profile]]
name = "front"
kind = "internal"

[[directory]]
name = "open"
tenant = "tenant"
base_urls = ["https://ca.test", "https://other-base.test"]
pool = "tls"
profiles = ["tls", "short", "linted"]
maximum_names = 5
order_lifetime = "7d"
validation_reuse = "10d"
[directory.quorum]
perspectives = ["validator-1", "validator-2", "validator-3"]
maximum_dissent = 1
[directory.names]
denied_suffixes = ["denied.test"]

[[directory]]
name = "other"
tenant = "tenant"
base_urls = ["https://ca.test"]
pool = "tls"
profiles = ["tls"]
terms_of_service = "https://ca.test/terms"
[directory.quorum]
perspectives = ["validator-1"]

[[directory]]
name = "managed"
tenant = "tenant"
base_urls = ["https://ca.test"]
pool = "tls"
profiles = ["tls"]
external_account_required = true
[directory.quorum]
perspectives = ["validator-1"]

[[directory]]
name = "strict"
tenant = "tenant"
base_urls = ["https://ca.test"]
pool = "tls"
profiles = ["tls"]
revocation_reasons = ["keyCompromise", "cessationOfOperation"]
key_compromise_by_account = false
[directory.quorum]
perspectives = ["validator-1"]
"#;

/// What the tests read of the database, unverified.
#[async_trait::async_trait]
pub(crate) trait Peek {
    async fn nodes_unverified(&self) -> Vec<NodeRow>;
    async fn authority_of(&self, registration: &str) -> ca_store::Authority;
    async fn eab_key_of(&self, kid: &str) -> EabKeyRow;
    async fn evidence_of(&self, serial: &pki::Serial) -> ca_store::Evidence;
    async fn entry_of_order(&self, order: &str) -> ca_store::JournalEntry;
    async fn record_of(&self, account: &str) -> ca_store::AccountRecord;
    async fn account_count(&self, directory: &str) -> usize;
}

#[async_trait::async_trait]
impl Peek for FaultyStore {
    async fn nodes_unverified(&self) -> Vec<NodeRow> {
        self.nodes().await.unwrap().iter().map(|row| row.unverified().clone()).collect()
    }

    async fn authority_of(&self, registration: &str) -> ca_store::Authority {
        let selector = ca_store::AuthoritySelector::Registration(registration.to_owned());
        self.authority(&selector).await.unwrap().unwrap()
    }

    async fn eab_key_of(&self, kid: &str) -> EabKeyRow {
        let selector = ca_store::AuthoritySelector::EabKey(kid.to_owned());
        let authority = self.authority(&selector).await.unwrap().unwrap();
        let key = authority.eab_keys.iter().find(|row| row.unverified().kid == kid).unwrap();
        key.unverified().clone()
    }

    async fn evidence_of(&self, serial: &pki::Serial) -> ca_store::Evidence {
        self.evidence(serial).await.unwrap().unwrap()
    }

    async fn entry_of_order(&self, order: &str) -> ca_store::JournalEntry {
        self.journal(&ca_store::JournalKey::Order(order.to_owned())).await.unwrap().remove(0)
    }

    async fn record_of(&self, account: &str) -> ca_store::AccountRecord {
        self.account(&ca_store::AccountSelector::Id(account.to_owned())).await.unwrap().unwrap()
    }

    async fn account_count(&self, directory: &str) -> usize {
        let filter = ca_store::AccountFilter::Directory(directory.to_owned());
        self.accounts(&filter, &ca_store::Page::first(100)).await.unwrap().items.len()
    }
}
