//! What a place for objects can do: say what is there, and exchange it for something else if it is still that.

use std::path::PathBuf;

use bytes::Bytes;

use super::bucket::Bucket;
use super::folder::Folder;
use crate::publication::Mark;

/// A place.
#[derive(Debug)]
pub(super) enum Place {
    Folder(Folder),
    Bucket(Bucket),
}

/// Which content of an object this is: a strong ETag of the store's, or a digest. Means nothing elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version(pub(super) String);

/// What is there.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing.
    Absent,
    /// What was there before.
    Unchanged,
    /// This.
    There { version: Version, content: Bytes },
    /// Something that is longer than what is read.
    TooLong { octets: u64 },
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Put {
    /// It is there, as this version.
    Done(Version),
    /// Something else is there than was expected; nothing was changed.
    Contested,
}

/// Why a place cannot be used. Of a put the outcome is unknown then.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The folder, or something in it.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// Another process writes, and does not end.
    #[error("{} is locked by another process", path.display())]
    Locked { path: PathBuf },
    /// No answer.
    #[error("no answer within {seconds} s")]
    Timeout { seconds: u64 },
    /// The store refuses, fails or cannot be reached.
    #[error("{detail}")]
    Store { detail: String },
    /// The store gives no ETag, so nothing there can be replaced safely.
    #[error("the store gives objects no ETag: what is there cannot be replaced safely")]
    NoEtag,
    /// The store does not honour conditions.
    #[error(
        "the store ignores {condition} of a put: signers could put older CRLs over newer ones, so nothing is published there"
    )]
    Unconditional { condition: &'static str },
    /// The path cannot be one there.
    #[error("{path:?} is no path of an object")]
    Path { path: String },
}

impl Place {
    /// The most octets that are read.
    pub(super) const fn read_limit(&self) -> u64 {
        match self {
            Self::Folder(folder) => folder.read_limit(),
            Self::Bucket(bucket) => bucket.read_limit(),
        }
    }

    /// What is at a path; `known`: what was there when it was last looked at.
    pub(super) async fn look(&self, path: &str, known: Option<&Version>) -> Result<Look, PlaceError> {
        match self {
            Self::Folder(folder) => folder.look(path, known).await,
            Self::Bucket(bucket) => bucket.look(path, known).await,
        }
    }

    /// Puts an object where `before` is, or nothing.
    pub(super) async fn put(
        &self,
        path: &str,
        before: Option<&Version>,
        object: (&Mark, Bytes),
    ) -> Result<Put, PlaceError> {
        match self {
            Self::Folder(folder) => folder.put(path, before, object.1).await,
            Self::Bucket(bucket) => bucket.put(path, before, object).await,
        }
    }

    /// Removes what writers have left that died. No object.
    pub(super) async fn sweep(&self) -> Result<(), PlaceError> {
        match self {
            Self::Folder(folder) => folder.sweep().await,
            Self::Bucket(_) => Ok(()),
        }
    }
}
