//! The public objects, for status nodes: issuers' certificates and CRLs, each under the path at which it is served.

mod copy;

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

pub(crate) use self::copy::Mark;
use crate::crl::Finished;
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
    /// Its file is gone or was changed: it counts as not there until it is published again.
    spoiled: bool,
}

#[derive(Debug, Clone)]
enum Content {
    Memory(Bytes),
    File(PathBuf),
}

impl Object {
    /// A CRL in a file.
    pub(crate) fn crl(
        number: u64,
        updates: (Timestamp, Timestamp),
        issuer: &Certificate,
        finished: Finished,
    ) -> Self {
        Self {
            kind: wire::ObjectKind::Crl,
            revision: number,
            sha256: finished.sha256,
            size: finished.size,
            updates: Some(updates),
            issuer_sha256: sha256(issuer.der()),
            content: Content::File(finished.file),
            spoiled: false,
        }
    }

    fn certificate(certificate: &Certificate, issuer: &Certificate) -> Self {
        let der = Bytes::copy_from_slice(certificate.der());
        Self {
            kind: wire::ObjectKind::Certificate,
            // Rises when a certificate is replaced by a younger one of the same name.
            revision: certificate.not_before().unix().max(1),
            sha256: sha256(&der),
            size: der.len() as u64,
            updates: None,
            issuer_sha256: sha256(issuer.der()),
            content: Content::Memory(der),
            spoiled: false,
        }
    }

    /// A root's CRL that was made elsewhere; none if the root did not sign it.
    pub(crate) fn imported_crl(der: &[u8], root: &Certificate) -> Option<Self> {
        let crl = Crl::from_der(der).ok().filter(|crl| crl.verify_issued_by(root).is_ok())?;
        Some(Self {
            kind: wire::ObjectKind::Crl,
            revision: crl.number(),
            sha256: sha256(der),
            size: der.len() as u64,
            updates: Some((crl.this_update(), crl.next_update())),
            issuer_sha256: sha256(root.der()),
            content: Content::Memory(Bytes::copy_from_slice(der)),
            spoiled: false,
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
        self.current.read().get(path).filter(|object| !object.spoiled).map(|object| object.revision)
    }

    /// The octets of what is at hand of a path.
    #[must_use]
    pub fn size(&self, path: &str) -> Option<u64> {
        self.current.read().get(path).map(|object| object.size)
    }

    /// thisUpdate and nextUpdate of the CRL that is at hand of a path.
    #[must_use]
    pub fn updates(&self, path: &str) -> Option<(Timestamp, Timestamp)> {
        self.current.read().get(path)?.updates
    }

    /// Publishes a newer revision; an older one changes nothing. Answers the file of the one before.
    pub fn publish(&self, path: &str, object: Object) -> Option<PathBuf> {
        let mut current = self.current.write();
        let stays = |there: &Object| match there.spoiled {
            false => there.revision >= object.revision,
            true => there.revision > object.revision,
        };
        if current.get(path).is_some_and(stays) {
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

    /// What is at hand of a path is no good: it is to be published again.
    fn spoil(&self, path: &str, revision: u64) {
        let mut current = self.current.write();
        if let Some(object) = current.get_mut(path).filter(|object| object.revision == revision) {
            tracing::warn!(path, revision, "publication.spoiled");
            object.spoiled = true;
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
            Content::File(file) => {
                let file = match tokio::fs::File::open(&file).await {
                    Ok(file) => file,
                    Err(error) => {
                        tracing::warn!(file = %file.display(), %error, "publication.file_missing");
                        self.objects.spoil(&request.path, object.revision);
                        return Err(Status::unavailable("the object is being made again"));
                    }
                };
                let reading = Reading {
                    file,
                    digest: digest::Context::new(&digest::SHA256),
                    expected: object.sha256,
                    revision: object.revision,
                    path: request.path,
                    objects: self.objects.clone(),
                };
                Box::pin(stream::unfold(Some(reading), next_piece))
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
        let watch = async move {
            for object in objects.list() {
                if sender.send(Ok(object)).await.is_err() {
                    return;
                }
            }
            loop {
                let path = tokio::select! {
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
        };
        // A watcher that reads nothing does not hold up the drain either.
        tokio::spawn(async move { draining.run_until_cancelled(watch).await });
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

/// A file on its way to a status node.
struct Reading {
    file: tokio::fs::File,
    digest: digest::Context,
    expected: [u8; 32],
    revision: u64,
    path: String,
    objects: Objects,
}

async fn next_piece(
    reading: Option<Reading>,
) -> Option<(Result<wire::ObjectPiece, Status>, Option<Reading>)> {
    let mut reading = reading?;
    let mut buffer = Vec::with_capacity(PIECE);
    match (&mut reading.file).take(PIECE as u64).read_to_end(&mut buffer).await {
        Ok(0) if reading.digest.clone().finish().as_ref() == reading.expected.as_slice() => None,
        // Somebody changed it on the disk: the status node hears that it is none, and it is made again.
        Ok(0) => {
            reading.objects.spoil(&reading.path, reading.revision);
            Some((Err(Status::unavailable("the object is being made again")), None))
        }
        Ok(_) => {
            reading.digest.update(&buffer);
            Some((Ok(wire::ObjectPiece { data: buffer.into() }), Some(reading)))
        }
        Err(error) => {
            reading.objects.spoil(&reading.path, reading.revision);
            tracing::warn!(path = reading.path, %error, "publication.file_unreadable");
            Some((Err(Status::unavailable("the object is being made again")), None))
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
