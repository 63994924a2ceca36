//! Real fronts over real sockets: HTTPS before them, gRPC with mutual TLS behind them, SQLite below.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use acme_store::{AcmeStore, OrderStatus};
use front::Config;
use rpc::proto::signer::v1::authority_server::AuthorityServer;
use rpc::proto::validator::v1::validator_server::ValidatorServer;
use rpc::{AccessTable, Limits, Revocations, Role};
use runtime::{Clock as _, Failure, Lifecycle};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::TestClock;
use testkit::front_store::FaultyFrontStore;
use testkit::nodes::NodeAuthority;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::ca::FakeCa;
use crate::client::{Answer, Client, Wire};
use crate::pki_double::{self, Authority};
use crate::validator::FakeValidator;

pub(crate) const BASE: &str = "https://acme.test";
/// A second base URL, on the same fronts.
pub(crate) const OTHER_BASE: &str = "https://acme.test:8443/tls";

/// What lies behind the fronts.
struct World {
    folder: TempDir,
    nodes: NodeAuthority,
    clock: TestClock,
    ca: Arc<FakeCa>,
    validator: Arc<FakeValidator>,
    signer: SocketAddr,
    validators: SocketAddr,
    root: CertificateDer<'static>,
    behind: Lifecycle,
    fronts: AtomicU32,
}

impl Drop for World {
    fn drop(&mut self) {
        self.behind.drain();
    }
}

/// A front, and what lies behind it.
pub(crate) struct Stage {
    pub(crate) wire: Wire,
    pub(crate) ca: Arc<FakeCa>,
    pub(crate) validator: Arc<FakeValidator>,
    pub(crate) clock: TestClock,
    pub(crate) store: Arc<dyn AcmeStore>,
    /// What the front asks of its database.
    pub(crate) asked: FaultyFrontStore,
    world: Arc<World>,
    lifecycle: Lifecycle,
    running: JoinHandle<Result<(), Failure>>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a changed configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(World::new().await, "eu-1", free_port(), &[], "acme.db", change).await
    }

    /// With an HTTPS certificate of its own making, which clients are to trust.
    pub(crate) async fn trusting(root: CertificateDer<'static>, change: impl FnOnce(&mut Config)) -> Self {
        let mut world = World::build().await;
        world.root = root;
        Self::start(Arc::new(world), "eu-1", free_port(), &[], "acme.db", change).await
    }

    /// Two fronts of one service.
    pub(crate) async fn pair() -> (Self, Self) {
        let world = World::new().await;
        let (one, two) = (free_port(), free_port());
        let first = Self::start(Arc::clone(&world), "eu-1", one, &[("eu-2", two)], "acme.db", |_| {}).await;
        let second = Self::start(world, "eu-2", two, &[("eu-1", one)], "acme.db", |_| {}).await;
        (first, second)
    }

    async fn start(
        world: Arc<World>,
        name: &str,
        peer_port: u16,
        peers: &[(&str, u16)],
        database: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let port = free_port();
        let text = world.configuration(name, port, peer_port, peers);
        let mut config: Config = runtime::config::parse(&text, &world.path("front.toml")).unwrap();
        runtime::RoleConfig::check(&config).unwrap();
        // All clients of a test are one address.
        let limits = &mut config.limits;
        (limits.work_per_second, limits.work_burst) = (1_000_000, 1_000_000);
        (limits.handshakes_per_second, limits.handshake_burst) = (1_000_000, 1_000_000);
        limits.connections_per_peer = 10_000;
        change(&mut config);
        let options = sqlite::Options::new(world.path(database));
        let asked = FaultyFrontStore::new(Arc::new(sqlite::Acme::open(options).await.unwrap()));
        let store: Arc<dyn AcmeStore> = Arc::new(asked.clone());
        let lifecycle = Lifecycle::new(world.clock.shared());
        let running = tokio::spawn(front::run(config, lifecycle.clone(), Arc::clone(&store)));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let wire = Wire::new(address, BASE, world.root.clone());
        let stage = Self {
            wire,
            ca: Arc::clone(&world.ca),
            validator: Arc::clone(&world.validator),
            clock: world.clock.clone(),
            store,
            asked,
            world,
            lifecycle,
            running,
        };
        stage.wait_until_serving().await;
        stage
    }

    async fn wait_until_serving(&self) {
        for _ in 0..500 {
            assert!(!self.running.is_finished(), "the front ended");
            let listening = tokio::net::TcpStream::connect(self.wire.address()).await.is_ok();
            if listening && self.wire.get(&self.wire.directory_url("open")).await.status == 200 {
                return;
            }
            pause().await;
        }
        panic!("the front does not serve");
    }

    /// Ends this front and starts another one on the same database.
    pub(crate) async fn restart(self) -> Self {
        let world = Arc::clone(&self.world);
        self.stop().await;
        Self::start(world, "eu-1", free_port(), &[], "acme.db", |_| {}).await
    }

    /// Ends this front as a kill would: no drain, no word to anybody. The database stays open until the last task is
    /// gone, and its leases stay as they are.
    pub(crate) async fn kill(self) -> Self {
        let world = Arc::clone(&self.world);
        self.running.abort();
        self.lifecycle.drain();
        Self::start(world, "eu-1", free_port(), &[], "acme.db", |_| {}).await
    }

    pub(crate) async fn stop(self) {
        self.lifecycle.drain();
        self.running.await.unwrap().unwrap();
        self.lifecycle.finished().await.unwrap();
    }

    pub(crate) fn readiness(&self) -> Value {
        serde_json::to_value(self.lifecycle.readiness().report(false)).unwrap()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.world.folder.path().to_owned()
    }

    pub(crate) fn reload(&self) {
        self.lifecycle.reload();
    }

    /// A CSR whose key nobody keeps.
    pub(crate) fn csr(&self, names: &[&str]) -> Vec<u8> {
        pki_double::csr(names).0
    }

    /// An order all of whose names are authorized, and its URL.
    pub(crate) async fn ready_order(&self, client: &Client, names: &[&str]) -> (Value, String) {
        let answer = client.order(names).await.ok(201);
        let url = answer.location();
        for authorization in answer.json()["authorizations"].as_array().unwrap() {
            self.authorize(client, authorization.as_str().unwrap()).await;
        }
        let order = client.post_as_get(&url).await.ok(200).json();
        assert_eq!(order["status"], "ready", "{order}");
        (order, url)
    }

    /// Meets an authorization's challenge.
    pub(crate) async fn authorize(&self, client: &Client, url: &str) -> Value {
        let authorization = client.post_as_get(url).await.ok(200).json();
        if authorization["status"] == "pending" {
            let challenge = authorization["challenges"][0]["url"].as_str().unwrap();
            client.post(challenge, &json!({})).await.ok(200);
        }
        self.poll(client, url, &["valid", "invalid"]).await.json()
    }

    /// Polls until the object has one of these states.
    pub(crate) async fn poll(&self, client: &Client, url: &str, wanted: &[&str]) -> Answer {
        for _ in 0..1_000 {
            let answer = client.post_as_get(url).await.ok(200);
            if wanted.contains(&answer.json()["status"].as_str().unwrap()) {
                return answer;
            }
            pause().await;
        }
        panic!("{url} never became one of {wanted:?}");
    }

    /// Waits for the order to have this status, without a client that looks at it.
    pub(crate) async fn poll_unseen(&self, id: &str, wanted: OrderStatus) {
        until("the order's end", async || self.store.order(id).await.unwrap().unwrap().status == wanted)
            .await;
    }

    pub(crate) async fn finalize(&self, client: &Client, order: &Value, names: &[&str]) -> Answer {
        let csr = crate::client::encode(self.csr(names));
        client.post(order["finalize"].as_str().unwrap(), &json!({"csr": csr})).await
    }

    /// A certificate for these names: its URL.
    pub(crate) async fn issue(&self, client: &Client, names: &[&str]) -> String {
        let (order, url) = self.ready_order(client, names).await;
        self.finalize(client, &order, names).await.ok(200);
        let order = self.poll(client, &url, &["valid"]).await.json();
        order["certificate"].as_str().unwrap().to_owned()
    }

    /// The leaf at a certificate's URL, DER.
    pub(crate) async fn leaf(&self, client: &Client, url: &str) -> Vec<u8> {
        let answer = client.post_as_get(url).await.ok(200);
        let text = std::str::from_utf8(&answer.body).unwrap().to_owned();
        pki::chain::from_pem(&text).unwrap()[0].der().to_vec()
    }
}

impl World {
    async fn new() -> Arc<Self> {
        Arc::new(Self::build().await)
    }

    async fn build() -> Self {
        // A process has one rustls provider, and tests come in any order.
        runtime::install_crypto_provider();
        let now = runtime::SystemClock.now();
        let clock = TestClock::at(now);
        let nodes = NodeAuthority::new();
        let https_issuer = Authority::new("Test HTTPS CA");
        let root = CertificateDer::from(https_issuer.der().to_vec());
        let validator = Arc::new(FakeValidator::new(clock.shared()));
        let bases = [BASE, OTHER_BASE].map(|base| base.parse().unwrap()).to_vec();
        let ca = Arc::new(FakeCa::new(bases, https_issuer, validator.verifiers(), clock.shared()));
        let behind = Lifecycle::new(clock.shared());
        let routes = Routes::new(AuthorityServer::from_arc(Arc::clone(&ca)));
        let signer = serve(&nodes, Role::Signer, "signer-1", routes, AccessTable::signer(), &behind).await;
        let routes = Routes::new(ValidatorServer::from_arc(Arc::clone(&validator)));
        let validators =
            serve(&nodes, Role::Validator, "validator-1", routes, AccessTable::validator(), &behind).await;
        let folder = tempfile::tempdir().unwrap();
        let key = crate::client::encode(std::array::from_fn::<u8, 32, _>(|at| at as u8));
        runtime::files::write_atomically(&folder.path().join("nonce.key"), key.as_bytes(), 0o600).unwrap();
        let fronts = AtomicU32::new(0);
        Self { folder, nodes, clock, ca, validator, signer, validators, root, behind, fronts }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configuration(&self, name: &str, port: u16, peer_port: u16, peers: &[(&str, u16)]) -> String {
        let files = self.nodes.files(Role::Front, name);
        let number = self.fronts.fetch_add(1, Ordering::SeqCst);
        let peers: String = peers
            .iter()
            .map(|(id, port)| format!("[[peer]]\nid = \"{id}\"\naddresses = [\"127.0.0.1:{port}\"]\n"))
            .collect();
        format!(
            "version = 1
            listen = \"127.0.0.1:{port}\"
            peer_listen = \"127.0.0.1:{peer_port}\"
            base_urls = [\"{BASE}\", \"{OTHER_BASE}\"]
            state = \"state-{number}\"
            nonce_key = \"nonce.key\"
            drain_seconds = 10
            [node]
            certificate = {:?}
            key = {:?}
            authority = {:?}
            [signer]
            addresses = [\"{}\"]
            [validator]
            addresses = [\"{}\"]
            [database]
            sqlite = \"acme.db\"
            [https]
            mode = \"self\"
            names = [\"acme.test\"]
            [validation]
            retry_milliseconds = [50, 100]
            {peers}",
            files.certificate, files.key, files.authority, self.signer, self.validators,
        )
    }
}

async fn serve(
    nodes: &NodeAuthority,
    role: Role,
    name: &str,
    routes: Routes,
    access: AccessTable,
    behind: &Lifecycle,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let credentials = nodes.node(role, name);
    let serving = rpc::serve(
        listener,
        credentials,
        routes,
        access,
        Revocations::new(),
        Limits::default(),
        behind.draining(),
    );
    tokio::spawn(serving);
    address
}

/// A port that nothing else of these tests gets: from below the range that outgoing connections take theirs from, each
/// once in a process, and processes begin at different places.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 120 * 100).unwrap();
    (0..10_000)
        .map(|_| 20_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::SeqCst)) % 12_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// Between two looks at something that happens by itself.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Waits for something that happens by itself.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..1_500 {
        if condition().await {
            return;
        }
        pause().await;
    }
    panic!("never happened: {what}");
}
