//! The objects that are served, before and after they were verified.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use pki::Certificate;
use rpc::proto::status::v1::{ObjectKind, ObjectRevision};
use serde::{Deserialize, Serialize};

use crate::readers::Readers;

/// Where an object is served, below the prefix, and its identity: `crl/4f…/0.crl`, `issuer/4f….crt`.
///
/// One to eight segments of letters, digits, `-`, `_` and `.`, none beginning with a dot; at most 200 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectPath(Arc<str>);

impl ObjectPath {
    /// The path as text, without a slash before it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no path that would be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of an object")]
pub struct BadPath;

impl TryFrom<String> for ObjectPath {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, BadPath> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let good =
            |segment: &str| !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(plain);
        let segments = text.split('/').count();
        if text.len() <= 200 && segments <= 8 && text.split('/').all(good) {
            Ok(Self(text.into()))
        } else {
            Err(BadPath)
        }
    }
}

impl From<ObjectPath> for String {
    fn from(path: ObjectPath) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl std::borrow::Borrow<str> for ObjectPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A CA certificate. Sorts before CRLs, which are checked against certificates.
    Certificate,
    /// A CRL.
    Crl,
}

/// SHA-256 of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        for (to, from) in
            out.iter_mut().zip(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
        {
            *to = *from;
        }
        Self(out)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut out = [0; 32];
        hex::decode_to_slice(text, &mut out)?;
        Ok(Self(out))
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        hex::encode(digest.0)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

/// What a signer, or the spool's manifest, says about an object. Nothing of it is believed before
/// [`verify`](crate::verify) has seen the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Identity and place.
    pub path: ObjectPath,
    /// What it is.
    pub kind: Kind,
    /// Rises with each publication of the path.
    pub revision: u64,
    /// Of the bytes.
    pub sha256: Sha256,
    /// Of the bytes.
    pub size: u64,
    /// Of a CRL, seconds since the epoch; 0 for certificates.
    pub this_update: i64,
    /// As `this_update`.
    pub next_update: i64,
    /// SHA-256 of the DER of the certificate that the object is checked against.
    pub issuer_sha256: Sha256,
}

/// A message that describes no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRevision {
    /// The path.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// A kind that this version does not know: newer signers may have more.
    #[error("an unknown kind of object")]
    Kind,
    /// A digest that is no SHA-256.
    #[error("a digest of the wrong length")]
    Digest,
}

impl TryFrom<ObjectRevision> for Revision {
    type Error = BadRevision;

    fn try_from(message: ObjectRevision) -> Result<Self, BadRevision> {
        let kind = match message.kind() {
            ObjectKind::Certificate => Kind::Certificate,
            ObjectKind::Crl => Kind::Crl,
            ObjectKind::Unspecified => return Err(BadRevision::Kind),
        };
        let digest = |bytes: &[u8]| bytes.try_into().map(Sha256).map_err(|_| BadRevision::Digest);
        Ok(Self {
            kind,
            revision: message.revision,
            sha256: digest(&message.sha256)?,
            size: message.size,
            this_update: message.this_update,
            next_update: message.next_update,
            issuer_sha256: digest(&message.issuer_sha256)?,
            path: message.path.try_into()?,
        })
    }
}

/// An object whose bytes were verified; only [`verify`](crate::verify) makes one.
#[derive(Debug, Clone)]
pub struct Object {
    pub(crate) revision: Revision,
    pub(crate) bytes: Bytes,
    pub(crate) content: Content,
    /// When the content was made, for Last-Modified.
    pub(crate) made_at: i64,
    pub(crate) readers: Readers,
}

/// What the bytes turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Certificate(Certificate),
    Crl {
        /// CRLNumber.
        number: u64,
    },
}

impl Object {
    /// Where it is served.
    #[must_use]
    pub fn path(&self) -> &ObjectPath {
        &self.revision.path
    }

    /// The certificate that it is, when its digest is this one.
    pub(crate) fn certificate(&self, sha256: &Sha256) -> Option<Certificate> {
        match &self.content {
            Content::Certificate(certificate) if self.revision.sha256 == *sha256 => Some(certificate.clone()),
            _ => None,
        }
    }

    /// When it must have been replaced; `None` for certificates.
    #[must_use]
    pub fn next_update(&self) -> Option<i64> {
        match self.content {
            Content::Certificate(_) => None,
            Content::Crl { .. } => Some(self.revision.next_update),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A CRL without content.
    pub(crate) fn crl(number: u64, revision: u64, this_update: i64, digest: u8) -> Object {
        let revision = Revision {
            path: "crl/00/0.crl".to_owned().try_into().unwrap(),
            kind: Kind::Crl,
            revision,
            sha256: Sha256([digest; 32]),
            size: 0,
            this_update,
            next_update: this_update + 10,
            issuer_sha256: Sha256([0; 32]),
        };
        let content = Content::Crl { number };
        Object { revision, bytes: Bytes::new(), content, made_at: this_update, readers: Readers::default() }
    }

    #[test]
    fn a_path_cannot_leave_its_folder() {
        for good in ["crl/00ff/0.crl", "issuer/ab.crt", "a", "a/b/c/d/e/f/g/h", "A_b-c.1/x"] {
            assert_eq!(ObjectPath::try_from(good.to_owned()).unwrap().as_str(), good);
        }
        let long = "x".repeat(201);
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/.b",
            "a b",
            "a\\b",
            "a%2fb",
            "a?b",
            "ä",
            "a\0",
            "a/b/c/d/e/f/g/h/i",
            &long,
        ] {
            assert_eq!(ObjectPath::try_from(bad.to_owned()), Err(BadPath), "{bad:?}");
        }
    }

    #[test]
    fn a_message_must_be_complete() {
        let message = ObjectRevision {
            path: "crl/00/0.crl".to_owned(),
            kind: ObjectKind::Crl.into(),
            revision: 3,
            sha256: vec![1; 32].into(),
            size: 5,
            this_update: 1,
            next_update: 2,
            issuer_sha256: vec![2; 32].into(),
        };
        assert_eq!(Revision::try_from(message.clone()).unwrap().revision, 3);
        let with = |change: fn(&mut ObjectRevision)| {
            let mut changed = message.clone();
            change(&mut changed);
            Revision::try_from(changed)
        };
        assert_eq!(with(|m| m.kind = 77), Err(BadRevision::Kind));
        assert_eq!(with(|m| m.sha256 = vec![1; 31].into()), Err(BadRevision::Digest));
        assert_eq!(with(|m| m.issuer_sha256 = vec![].into()), Err(BadRevision::Digest));
        assert_eq!(with(|m| m.path = "../x".to_owned()), Err(BadRevision::Path(BadPath)));
    }
}
