//! A bucket of Amazon S3 or of a store that speaks its protocol, written by conditional put: `If-None-Match: *` where
//! nothing is, `If-Match` with the ETag of what was read otherwise.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, Error, GetOptions, ObjectStore as _, PutMode, PutOptions,
    RetryConfig, UpdateVersion,
};
use tokio::sync::OnceCell;

use super::config::{PublishSection, S3Section, authorities};
use super::credentials::{self, KeyFiles};
use super::place::{Look, PlaceError, Put, Version};
use crate::publication::Mark;
use rpc::proto::status::v1::ObjectKind;

/// The bucket.
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: Path,
    timeout: Duration,
    read_limit: u64,
    crl_cache_seconds: u32,
    certificate_cache_seconds: u32,
    /// Whether it was seen to honour conditions.
    conditional: OnceCell<()>,
}

/// An object of no content beside the others, on which conditions are tried.
const TRIAL: &str = "conditional-put";

impl Bucket {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the client cannot be made of what is configured.
    pub(super) fn new(section: &PublishSection, s3: &S3Section) -> Result<Self, PlaceError> {
        let timeout = section.timeout();
        let mut options = ClientOptions::new()
            .with_timeout(timeout)
            .with_connect_timeout(timeout)
            .with_allow_http(s3.allow_http);
        if let Some(file) = &s3.authority {
            let certificates = authorities(file).map_err(|detail| PlaceError::Store { detail })?;
            options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
        }
        // What failed is looked at before it is tried again: of a put nobody knows what became of it.
        let once = RetryConfig { max_retries: 0, retry_timeout: timeout, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new();
        builder = match (&s3.access_key_file, &s3.secret_key_file) {
            (Some(access), Some(secret)) => builder.with_credentials(std::sync::Arc::new(KeyFiles {
                access: access.to_path_buf(),
                secret: secret.to_path_buf(),
            })),
            _ => credentials::of_environment(builder),
        };
        if let Some(endpoint) = &s3.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder
            .with_bucket_name(&s3.bucket)
            .with_region(&s3.region)
            .with_client_options(options)
            .with_retry(once)
            .build()
            .map_err(|error| failed(&error))?;
        Ok(Self {
            store,
            prefix: path(s3.prefix())?,
            timeout,
            read_limit: section.read_limit_octets,
            crl_cache_seconds: section.crl_cache_seconds,
            certificate_cache_seconds: section.certificate_cache_seconds,
            conditional: OnceCell::new(),
        })
    }

    pub(super) const fn read_limit(&self) -> u64 {
        self.read_limit
    }

    pub(super) async fn look(&self, path: &str, known: Option<&Version>) -> Result<Look, PlaceError> {
        let options =
            GetOptions { if_none_match: known.map(|known| known.0.clone()), ..GetOptions::default() };
        let location = self.location(path)?;
        self.timely(async {
            let found = match self.store.get_opts(&location, options).await {
                Ok(found) => found,
                Err(Error::NotFound { .. }) => return Ok(Look::Absent),
                Err(Error::NotModified { .. }) => return Ok(Look::Unchanged),
                Err(error) => return Err(failed(&error)),
            };
            let version = Version(found.meta.e_tag.clone().ok_or(PlaceError::NoEtag)?);
            if found.meta.size > self.read_limit {
                return Ok(Look::TooLong { octets: found.meta.size });
            }
            let mut content = BytesMut::new();
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.try_next().await.map_err(|error| failed(&error))? {
                content.extend_from_slice(&piece);
            }
            Ok(Look::There { version, content: content.freeze() })
        })
        .await
    }

    pub(super) async fn put(
        &self,
        path: &str,
        before: Option<&Version>,
        (mark, content): (&Mark, Bytes),
    ) -> Result<Put, PlaceError> {
        let location = self.location(path)?;
        self.timely(async {
            self.conditional.get_or_try_init(|| self.try_conditions()).await?;
            self.put_if(&location, before, content, self.attributes(mark)).await
        })
        .await
    }

    async fn put_if(
        &self,
        location: &Path,
        before: Option<&Version>,
        content: Bytes,
        attributes: Attributes,
    ) -> Result<Put, PlaceError> {
        let mode = match before {
            None => PutMode::Create,
            Some(Version(tag)) => PutMode::Update(UpdateVersion { e_tag: Some(tag.clone()), version: None }),
        };
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        match self.store.put_opts(location, content.into(), options).await {
            Ok(result) => result.e_tag.map(|tag| Put::Done(Version(tag))).ok_or(PlaceError::NoEtag),
            // 412, and 409 where two are at it at once.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Contested),
            Err(error) => Err(failed(&error)),
        }
    }

    /// A store that ignores conditions, as some that speak S3's protocol do, is found out with an object that does no harm.
    async fn try_conditions(&self) -> Result<(), PlaceError> {
        let trial = self.location(TRIAL)?;
        let put = async |before: Option<&Version>| {
            self.put_if(&trial, before, Bytes::new(), Attributes::new()).await
        };
        // It may be there; after this it is.
        put(None).await?;
        if matches!(put(None).await?, Put::Done(_)) {
            return Err(PlaceError::Unconditional { condition: "If-None-Match" });
        }
        if matches!(
            put(Some(&Version("\"00000000000000000000000000000000\"".to_owned()))).await?,
            Put::Done(_)
        ) {
            return Err(PlaceError::Unconditional { condition: "If-Match" });
        }
        Ok(())
    }

    fn attributes(&self, mark: &Mark) -> Attributes {
        // RFC 2585 §4.
        let (content_type, seconds) = match mark.updates {
            Some((this, next)) => {
                let longest = next.since(this).seconds();
                ("application/pkix-crl", u64::from(self.crl_cache_seconds).min(longest))
            }
            None => ("application/pkix-cert", u64::from(self.certificate_cache_seconds)),
        };
        debug_assert!((mark.kind == ObjectKind::Crl) == mark.updates.is_some());
        Attributes::from_iter([
            (Attribute::ContentType, content_type.to_owned()),
            (Attribute::CacheControl, format!("public, max-age={seconds}, no-transform")),
        ])
    }

    fn location(&self, object: &str) -> Result<Path, PlaceError> {
        Ok(self.prefix.parts().chain(path(object)?.parts()).collect())
    }

    /// The client has the same limit for a request, but not for what gives it its credentials.
    async fn timely<T>(&self, work: impl Future<Output = Result<T, PlaceError>>) -> Result<T, PlaceError> {
        let late = || Err(PlaceError::Timeout { seconds: self.timeout.as_secs() });
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| late())
    }
}

fn path(text: &str) -> Result<Path, PlaceError> {
    Path::parse(text).map_err(|_| PlaceError::Path { path: text.to_owned() })
}

/// What went wrong, in a line, without what the store's answer repeats of the request.
fn failed(error: &Error) -> PlaceError {
    let mut detail = match error {
        Error::Generic { source, .. }
        | Error::NotFound { source, .. }
        | Error::PermissionDenied { source, .. }
        | Error::Unauthenticated { source, .. } => source.to_string(),
        error => error.to_string(),
    };
    let mut cause = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(deeper) = cause {
        let said = deeper.to_string();
        if !detail.contains(&said) {
            detail = format!("{detail}: {said}");
        }
        cause = deeper.source();
    }
    let code = between(&detail, "<Code>", "</Code>").map(str::to_owned);
    if let Some(answer) = detail.find('<') {
        detail.truncate(answer);
    }
    let detail = detail.trim_end_matches([':', ' ', '\n']).replace(['\n', '\r'], " ");
    let detail: String = detail.chars().take(LONGEST_DETAIL).collect();
    PlaceError::Store {
        detail: match code {
            Some(code) => format!("{detail} ({code})"),
            None => detail,
        },
    }
}

/// Of a sentence for the log, characters.
const LONGEST_DETAIL: usize = 500;

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

impl std::fmt::Debug for Bucket {
    /// Without the client: it has credentials.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
