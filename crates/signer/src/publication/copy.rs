//! Objects as a whole, for those who carry them elsewhere.

use bytes::Bytes;
use pki::Timestamp;
use rpc::proto::status::v1::ObjectKind;
use tokio::sync::broadcast;

use super::{Content, Object, Objects, sha256};

/// What is known of an object without reading it.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// A CRL or a certificate.
    pub(crate) kind: ObjectKind,
    /// The CRL's number, or the certificate's notBefore.
    pub(crate) revision: u64,
    /// SHA-256 of its octets.
    pub(crate) sha256: [u8; 32],
    /// thisUpdate and nextUpdate of a CRL.
    pub(crate) updates: Option<(Timestamp, Timestamp)>,
    /// SHA-256 of the certificate whose key signed it.
    pub(crate) issuer_sha256: [u8; 32],
}

impl Objects {
    /// Hears the path of everything that is published from now on. Who lags is told so, and looks at everything.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<String> {
        self.published.subscribe()
    }

    /// Every path, with the kind of what is there.
    pub(crate) fn paths(&self) -> Vec<(String, ObjectKind)> {
        self.current.read().iter().map(|(path, object)| (path.clone(), object.kind)).collect()
    }

    /// What is at hand of a path; nothing while it is to be published again.
    pub(crate) fn mark(&self, path: &str) -> Option<Mark> {
        self.current.read().get(path).filter(|object| !object.spoiled).map(Object::mark)
    }

    /// The whole of it, and its digest is right. One whose file is gone or was changed counts as not there, and is published
    /// again by those who make it.
    pub(crate) async fn copy(&self, path: &str) -> Option<(Mark, Bytes)> {
        let object = self.object(path).filter(|object| !object.spoiled)?;
        let octets = match &object.content {
            Content::Memory(octets) => Ok(octets.clone()),
            Content::File(file) => tokio::fs::read(file).await.map(Bytes::from),
        };
        match octets {
            Ok(octets) if sha256(&octets) == object.sha256 => return Some((object.mark(), octets)),
            Ok(_) => {}
            Err(error) => tracing::warn!(path, %error, "publication.file_unreadable"),
        }
        self.spoil(path, object.revision);
        None
    }
}

impl Object {
    fn mark(&self) -> Mark {
        Mark {
            kind: self.kind,
            revision: self.revision,
            sha256: self.sha256,
            updates: self.updates,
            issuer_sha256: self.issuer_sha256,
        }
    }
}
