//! The public objects, for status nodes: issuers' certificates and CRLs, each under the path at which it is served.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures::{Stream, stream};
use parking_lot::RwLock;
use pki::crl::Crl;
use pki::{Certificate, Timestamp};
use rpc::proto::status::v1 as wire;
use rpc::proto::status::v1::publication_server::Publication;
use tokio::io::AsyncReadExt as _;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::registry::Registry;

/// Objects travel in pieces of this many octets.
const PIECE: usize = 64 * 1024;
/// A watcher that lags further behind than this starts over.
const CAPACITY: usize = 1024;

/// The objects at hand. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    current: Arc<RwLock<BTreeMap<String, Object>>>,
    published: broadcast::Sender<String>,
}

/// One of them, at one revision.
#[derive(Debug, Clone)]
pub struct Object {
    kind: wire::ObjectKind,
    revision: u64,
    sha256: [u8; 32],
    size: u64,
    updates: Option<(Timestamp, Timestamp)>,
    issuer_sha256: [u8; 32],
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Memory(Bytes),
    File(PathBuf),
}

impl Object {
    /// A CRL in a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn crl(
        number: u64,
        updates: (Timestamp, Timestamp),
        issuer: &Certificate,
        file: PathBuf,
    ) -> std::io::Result<Self> {
        let content = std::fs::read(&file)?;
        Ok(Self {
            kind: wire::ObjectKind::Crl,
            revision: number,
            sha256: sha256(&content),
            size: content.len() as u64,
            updates: Some(updates),
            issuer_sha256: sha256(issuer.der()),
            content: Content::File(file),
        })
    }

    fn certificate(certificate: &Certificate, issuer: &Certificate) -> Self {
        let der = Bytes::copy_from_slice(certificate.der());
        Self {
            kind: wire::ObjectKind::Certificate,
            revision: 1,
            sha256: sha256(&der),
            size: der.len() as u64,
            updates: None,
            issuer_sha256: sha256(issuer.der()),
            content: Content::Memory(der),
        }
    }

    fn imported_crl(der: &[u8], root: &Certificate) -> Option<Self> {
        let crl = Crl::from_der(der).ok()?;
        Some(Self {
            kind: wire::ObjectKind::Crl,
            revision: crl.number(),
            sha256: sha256(der),
            size: der.len() as u64,
            updates: Some((crl.this_update(), crl.next_update())),
            issuer_sha256: sha256(root.der()),
            content: Content::Memory(Bytes::copy_from_slice(der)),
        })
    }

    fn message(&self, path: &str) -> wire::ObjectRevision {
        wire::ObjectRevision {
            path: path.to_owned(),
            kind: self.kind.into(),
            revision: self.revision,
            sha256: Bytes::copy_from_slice(&self.sha256),
            size: self.size,
            this_update: self.updates.map_or(0, |(this, _)| rpc::seconds(this)),
            next_update: self.updates.map_or(0, |(_, next)| rpc::seconds(next)),
            issuer_sha256: Bytes::copy_from_slice(&self.issuer_sha256),
        }
    }
}

impl Objects {
    /// The objects that the policy names: certificates of issuers and roots, and the roots' imported CRLs.
    #[must_use]
    pub fn of(registry: &Registry) -> Self {
        let mut current = BTreeMap::new();
        for root in registry.roots() {
            current
                .insert(root.certificate_path(), Object::certificate(&root.certificate, &root.certificate));
            let crl = root.crl.as_deref().and_then(|der| Object::imported_crl(der, &root.certificate));
            current.extend(crl.map(|crl| (root.crl_path(), crl)));
        }
        for entry in registry.issuers() {
            let certificate = entry.issuer.certificate();
            let above = entry.chain.get(1).or_else(|| {
                let signed = |root: &&crate::registry::Root| {
                    pki::chain::is_issued_by(entry.chain.last().unwrap_or(certificate), &root.certificate)
                        .is_ok()
                };
                registry.roots().iter().find(signed).map(|root| &root.certificate)
            });
            // A certificate whose issuer is not published is its own reference.
            current.insert(
                entry.certificate_path(),
                Object::certificate(certificate, above.unwrap_or(certificate)),
            );
        }
        Self { current: Arc::new(RwLock::new(current)), published: broadcast::Sender::new(CAPACITY) }
    }

    /// The revision at hand of a path.
    #[must_use]
    pub fn revision(&self, path: &str) -> Option<u64> {
        self.current.read().get(path).map(|object| object.revision)
    }

    /// Publishes a newer revision; an older one changes nothing. Answers the file of the one before.
    pub fn publish(&self, path: &str, object: Object) -> Option<PathBuf> {
        let mut current = self.current.write();
        if current.get(path).is_some_and(|there| there.revision >= object.revision) {
            return None;
        }
        let before = current.insert(path.to_owned(), object);
        drop(current);
        // Nobody may be listening.
        let _ = self.published.send(path.to_owned());
        match before?.content {
            Content::File(file) => Some(file),
            Content::Memory(_) => None,
        }
    }

    fn list(&self) -> Vec<wire::ObjectRevision> {
        self.current.read().iter().map(|(path, object)| object.message(path)).collect()
    }

    fn object(&self, path: &str) -> Option<Object> {
        self.current.read().get(path).cloned()
    }
}

/// The service, for status nodes.
#[derive(Debug, Clone)]
pub struct PublicationService {
    objects: Objects,
    draining: CancellationToken,
}

impl PublicationService {
    /// `draining` ends its streams.
    #[must_use]
    pub const fn new(objects: Objects, draining: CancellationToken) -> Self {
        Self { objects, draining }
    }
}

type Revisions = Pin<Box<dyn Stream<Item = Result<wire::ObjectRevision, Status>> + Send>>;
type Pieces = Pin<Box<dyn Stream<Item = Result<wire::ObjectPiece, Status>> + Send>>;

#[tonic::async_trait]
impl Publication for PublicationService {
    async fn list_objects(
        &self,
        _: Request<wire::ListObjectsRequest>,
    ) -> Result<Response<wire::ListObjectsResponse>, Status> {
        Ok(Response::new(wire::ListObjectsResponse { objects: self.objects.list() }))
    }

    type FetchObjectStream = Pieces;

    async fn fetch_object(
        &self,
        request: Request<wire::FetchObjectRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let request = request.into_inner();
        let object =
            self.objects.object(&request.path).ok_or_else(|| Status::not_found("there is no such object"))?;
        if request.revision != 0 && request.revision != object.revision {
            return Err(Status::not_found("that revision is not the current one"));
        }
        Ok(Response::new(match object.content {
            Content::Memory(bytes) => Box::pin(stream::iter(pieces_of(bytes).map(Ok))),
            Content::File(path) => {
                let file = tokio::fs::File::open(&path).await.map_err(|error| {
                    tracing::warn!(path = %path.display(), %error, "publication.file_missing");
                    Status::unavailable("the object is being made again")
                })?;
                Box::pin(stream::unfold(file, next_piece))
            }
        }))
    }

    type WatchObjectsStream = Revisions;

    async fn watch_objects(
        &self,
        _: Request<wire::WatchObjectsRequest>,
    ) -> Result<Response<Revisions>, Status> {
        // Subscribed first, so that nothing published in between is missed.
        let mut published = self.objects.published.subscribe();
        let objects = self.objects.clone();
        let draining = self.draining.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            for object in objects.list() {
                if sender.send(Ok(object)).await.is_err() {
                    return;
                }
            }
            loop {
                let path = tokio::select! {
                    () = draining.cancelled() => return,
                    () = sender.closed() => return,
                    path = published.recv() => path,
                };
                // A watcher that lagged gets the end of its stream, and starts over.
                let Ok(path) = path else { return };
                let Some(object) = objects.object(&path) else { continue };
                if sender.send(Ok(object.message(&path))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }
}

fn pieces_of(bytes: Bytes) -> impl Iterator<Item = wire::ObjectPiece> + Send {
    let count = bytes.len().div_ceil(PIECE);
    (0..count).map(move |index| {
        let end = ((index + 1) * PIECE).min(bytes.len());
        wire::ObjectPiece { data: bytes.slice(index * PIECE..end) }
    })
}

async fn next_piece(
    mut file: tokio::fs::File,
) -> Option<(Result<wire::ObjectPiece, Status>, tokio::fs::File)> {
    let mut buffer = Vec::with_capacity(PIECE);
    match (&mut file).take(PIECE as u64).read_to_end(&mut buffer).await {
        Ok(0) => None,
        Ok(_) => Some((Ok(wire::ObjectPiece { data: buffer.into() }), file)),
        Err(error) => Some((Err(Status::internal(error.to_string())), file)),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
