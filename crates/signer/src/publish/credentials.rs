//! The bucket's access key, from files that may be exchanged while the signer runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use runtime::files::SecretError;
use zeroize::Zeroizing;

/// Two files.
#[derive(Debug)]
pub(super) struct KeyFiles {
    pub(super) access: PathBuf,
    pub(super) secret: PathBuf,
}

/// Why there is no key. Says nothing of what the files hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} must hold one line of printable text", path.display())]
    Content { path: PathBuf },
}

/// Reads both files.
pub(super) fn read(access: &Path, secret: &Path) -> Result<AwsCredential, KeyError> {
    let key_id = std::fs::read(access);
    let key_id = key_id.map_err(|source| KeyError::Read { path: access.to_owned(), source })?;
    let octets = Zeroizing::new(runtime::files::read_secret(secret)?);
    Ok(AwsCredential {
        key_id: line(&key_id, access)?.to_owned(),
        secret_key: line(&octets, secret)?.to_owned(),
        token: None,
    })
}

fn line<'a>(octets: &'a [u8], path: &Path) -> Result<&'a str, KeyError> {
    let text = std::str::from_utf8(octets).unwrap_or_default().trim_end_matches(['\n', '\r']);
    if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(KeyError::Content { path: path.to_owned() })
    }
}

#[tonic::async_trait]
impl CredentialProvider for KeyFiles {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // Two short files of this host.
        read(&self.access, &self.secret)
            .map(Arc::new)
            .map_err(|error| object_store::Error::Generic { store: "key files", source: Box::new(error) })
    }
}

/// What the environment says of credentials, and nothing else that it says: buckets and endpoints are configured.
pub(super) fn of_environment(builder: AmazonS3Builder) -> AmazonS3Builder {
    std::env::vars_os().fold(builder, |builder, (name, value)| {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return builder };
        match CREDENTIALS.iter().find(|(known, _)| *known == name) {
            Some((_, key)) => builder.with_config(*key, value),
            None => builder,
        }
    })
}

const CREDENTIALS: &[(&str, AmazonS3ConfigKey)] = &[
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];
