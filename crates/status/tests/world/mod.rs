//! A CA, a signer that publishes what a test tells it to, and a status node in front of both.

pub mod meter;
pub mod oracle;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use rpc::proto::status::v1::publication_server::{Publication, PublicationServer};
use rpc::proto::status::v1::responder_server::ResponderServer;
use rpc::proto::status::v1::{
    FetchObjectRequest, ListObjectsRequest, ListObjectsResponse, ObjectKind, ObjectPiece, ObjectRevision,
    WatchObjectsRequest,
};
use rpc::{AccessTable, Limits, NodeFiles, Revocations, Role};
use runtime::Lifecycle;
use status::{Config, RunError};
use tempfile::TempDir;
use testkit::TestClock;
use testkit::nodes::NodeAuthority;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use oracle::Oracle;

/// 2026-06-01T00:00:00Z.
pub const NOW: i64 = 1_780_272_000;
pub const DAY: i64 = 86_400;

pub fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

/// A CA certificate with its key.
pub struct Ca {
    pub der: Bytes,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn root(name: &str) -> Self {
        let (params, key) = Self::params(name);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: Bytes::copy_from_slice(certificate.der()),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn sub(&self, name: &str) -> Self {
        let (params, key) = Self::params(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            der: Bytes::copy_from_slice(certificate.der()),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn params(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        (params, KeyPair::generate().unwrap())
    }

    pub fn sha256(&self) -> Vec<u8> {
        sha256(&self.der)
    }

    /// A CRL with so many entries, and how it is announced.
    pub fn crl(&self, number: u64, this_update: i64, entries: u64) -> (Bytes, ObjectRevision) {
        let revoked = |serial: u64| rcgen::RevokedCertParams {
            serial_number: SerialNumber::from((serial + 1) << 40),
            revocation_time: at(this_update - DAY),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(this_update),
            next_update: at(this_update + 7 * DAY),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: (0..entries).map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let der = Bytes::copy_from_slice(params.signed_by(&self.issuer).unwrap().der());
        let revision = ObjectRevision {
            path: "crl/0a/0.crl".to_owned(),
            kind: ObjectKind::Crl.into(),
            revision: number,
            sha256: sha256(&der).into(),
            size: der.len() as u64,
            this_update,
            next_update: this_update + 7 * DAY,
            issuer_sha256: self.sha256().into(),
        };
        (der, revision)
    }

    /// The certificate, and how it is announced.
    pub fn object(&self, path: &str, issuer: &Self) -> (Bytes, ObjectRevision) {
        let revision = ObjectRevision {
            path: path.to_owned(),
            kind: ObjectKind::Certificate.into(),
            revision: 1,
            sha256: self.sha256().into(),
            size: self.der.len() as u64,
            this_update: 0,
            next_update: 0,
            issuer_sha256: issuer.sha256().into(),
        };
        (self.der.clone(), revision)
    }
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

type Objects = Arc<Mutex<BTreeMap<String, (Bytes, ObjectRevision)>>>;

/// A signer's publication service over mutual TLS.
pub struct Signer {
    pub address: SocketAddr,
    objects: Objects,
    events: broadcast::Sender<ObjectRevision>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Signer {
    pub async fn start(nodes: &NodeAuthority, oracle: &Oracle) -> Self {
        Self::start_on(nodes, oracle, (std::net::Ipv4Addr::LOCALHOST, 0).into()).await
    }

    pub async fn start_on(nodes: &NodeAuthority, oracle: &Oracle, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (objects, events) = (Objects::default(), broadcast::Sender::new(64));
        let stop = CancellationToken::new();
        let service = Service { objects: Arc::clone(&objects), events: events.clone(), stop: stop.clone() };
        // Its streams end with this signer, its database does not.
        let oracle = oracle.clone().until(stop.clone());
        let serve = rpc::serve(
            listener,
            nodes.node(Role::Signer, "s-1"),
            tonic::service::Routes::new(PublicationServer::new(service))
                .add_service(ResponderServer::new(oracle)),
            AccessTable::signer(),
            Revocations::new(),
            Limits::default(),
            stop.clone().cancelled_owned(),
        );
        let task = tokio::spawn(async move { serve.await.unwrap() });
        Self { address, objects, events, stop, task }
    }

    /// Publishes with an event.
    pub fn publish(&self, (bytes, revision): (Bytes, ObjectRevision)) {
        self.publish_silently((bytes, revision.clone()));
        let _ = self.events.send(revision);
    }

    /// Publishes, and the event is lost.
    pub fn publish_silently(&self, (bytes, revision): (Bytes, ObjectRevision)) {
        self.objects.lock().unwrap().insert(revision.path.clone(), (bytes, revision));
    }

    pub fn withdraw(&self, path: &str) {
        self.objects.lock().unwrap().remove(path);
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

struct Service {
    objects: Objects,
    events: broadcast::Sender<ObjectRevision>,
    stop: CancellationToken,
}

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Publication for Service {
    async fn list_objects(
        &self,
        _: Request<ListObjectsRequest>,
    ) -> Result<Response<ListObjectsResponse>, Status> {
        let objects = self.objects.lock().unwrap().values().map(|(_, revision)| revision.clone()).collect();
        Ok(Response::new(ListObjectsResponse { objects }))
    }

    type FetchObjectStream = Reply<ObjectPiece>;

    async fn fetch_object(
        &self,
        request: Request<FetchObjectRequest>,
    ) -> Result<Response<Reply<ObjectPiece>>, Status> {
        let asked = request.into_inner();
        let objects = self.objects.lock().unwrap();
        let (bytes, revision) =
            objects.get(&asked.path).ok_or_else(|| Status::not_found("no such object"))?;
        if asked.revision != revision.revision {
            return Err(Status::not_found("superseded"));
        }
        let pieces: Vec<_> =
            bytes.chunks(1000).map(|data| Ok(ObjectPiece { data: Bytes::copy_from_slice(data) })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    type WatchObjectsStream = Reply<ObjectRevision>;

    async fn watch_objects(
        &self,
        _: Request<WatchObjectsRequest>,
    ) -> Result<Response<Reply<ObjectRevision>>, Status> {
        let stop = self.stop.clone().cancelled_owned();
        // Subscribed before the list is made: nothing falls between.
        let events = BroadcastStream::new(self.events.subscribe()).filter_map(Result::ok);
        let list: Vec<_> =
            self.objects.lock().unwrap().values().map(|(_, revision)| revision.clone()).collect();
        let events = tokio_stream::iter(list).chain(events).map(Ok);
        Ok(Response::new(Box::pin(futures::StreamExt::take_until(events, stop))))
    }
}

/// Everything a test needs, with a root, an issuer under it, and nothing published yet.
pub struct World {
    pub nodes: NodeAuthority,
    pub oracle: Oracle,
    pub signer: Option<Signer>,
    pub signer_address: SocketAddr,
    pub root: Ca,
    pub issuer: Ca,
    pub folder: TempDir,
    pub clock: TestClock,
    markers: AtomicUsize,
}

impl World {
    pub async fn new() -> Self {
        let nodes = NodeAuthority::new();
        let root = Ca::root("Test root");
        let issuer = root.sub("Test issuer");
        let clock = TestClock::at(at(NOW));
        let oracle = Oracle::new(&issuer, &clock);
        let signer = Signer::start(&nodes, &oracle).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), &root.pem).unwrap();
        Self {
            oracle,
            signer_address: signer.address,
            nodes,
            signer: Some(signer),
            root,
            issuer,
            folder,
            clock,
            markers: AtomicUsize::new(0),
        }
    }

    pub fn signer(&self) -> &Signer {
        self.signer.as_ref().unwrap()
    }

    pub fn set_clock(&self, seconds: i64) {
        self.clock.set(at(seconds));
    }

    /// Both certificates and a first CRL.
    pub fn publish_all(&self) {
        self.signer().publish(self.root.object("issuer/00.crt", &self.root));
        self.signer().publish(self.issuer.object("issuer/0a.crt", &self.root));
        self.signer().publish(self.issuer.crl(5, NOW - 100, 3));
    }

    pub async fn stop_signer(&mut self) {
        if let Some(signer) = self.signer.take() {
            signer.stop().await;
        }
    }

    pub async fn restart_signer(&mut self) {
        self.signer = Some(Signer::start_on(&self.nodes, &self.oracle, self.signer_address).await);
    }

    /// Publishes an object and waits until a node has judged it: what is announced after it is served.
    pub async fn offer(&self, node: &Node, object: (Bytes, ObjectRevision)) {
        self.signer().publish(object);
        let marker = format!("issuer/marker-{}.crt", self.markers.fetch_add(1, Ordering::Relaxed));
        self.signer().publish(self.root.object(&marker, &self.root));
        node.until(&format!("/{marker}"), &self.root.der).await;
    }

    pub fn spool(&self) -> std::path::PathBuf {
        self.folder.path().join("spool")
    }

    /// The configuration; `more` are lines before its tables.
    pub fn config(&self, port: u16, more: &str) -> Config {
        let NodeFiles { certificate, key, authority } = self.nodes.files(Role::Status, "st-1");
        let node =
            format!("[node]\ncertificate = {certificate:?}\nkey = {key:?}\nauthority = {authority:?}\n");
        let text = format!(
            "version = 1\nlisten = \"127.0.0.1:{port}\"\nspool = \"spool\"\nsigners = [\"{}\"]\n{more}\n{node}",
            self.signer_address
        );
        runtime::config::parse(&text, &self.folder.path().join("status.toml")).unwrap()
    }

    pub async fn node(&self, more: &str) -> Node {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let lifecycle = Lifecycle::new(self.clock.shared());
        let task = tokio::spawn(status::run(self.config(free.port(), more), lifecycle.clone()));
        let node = Node { address: free, lifecycle, task };
        while TcpStream::connect(free).await.is_err() {
            assert!(!node.task.is_finished(), "{:?}", node.task.await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node
    }
}

/// A running status node.
pub struct Node {
    pub address: SocketAddr,
    pub lifecycle: Lifecycle,
    task: JoinHandle<Result<(), RunError>>,
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Node {
    pub async fn stop(self) {
        self.lifecycle.drain();
        self.task.await.unwrap().unwrap();
        self.lifecycle.finished().await.unwrap();
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: pki.example\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    /// A POST of an OCSP request.
    pub async fn post(&self, body: &[u8], headers: &str) -> Answer {
        let head = format!(
            "POST /ocsp HTTP/1.1\r\nHost: pki.example\r\nConnection: close\r\n\
             Content-Type: application/ocsp-request\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.send_bytes(&[head.as_bytes(), body].concat()).await
    }

    /// Sends this and reads until the node closes.
    pub async fn send(&self, request: &str) -> Answer {
        self.send_bytes(request.as_bytes()).await
    }

    pub async fn send_bytes(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A node that refuses may close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut bytes = Vec::new();
        // A reset after a refusal is no answer either.
        let _ = stream.read_to_end(&mut bytes).await;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).map_or(0, |code| code.parse().unwrap_or(0));
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Answer { status, headers, body: bytes[end..].to_vec() }
    }

    /// Waits until a path has this body.
    pub async fn until(&self, path: &str, body: &[u8]) {
        self.wait(|| async { self.get(path).await.body == body }).await;
    }

    pub async fn wait<F: Future<Output = bool>>(&self, condition: impl Fn() -> F) {
        let wait = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it did not come");
    }

    pub fn is_ready(&self) -> bool {
        self.lifecycle.readiness().report(false).is_ready()
    }
}
