//! A node's certificate, key and the node CA: loaded from files, replaced while running.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, pki_types::UnixTime, server::ParsedCertificate,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::{
    files::{SecretError, read_secret, with_suffix},
    identity::{IdentityError, PeerIdentity, Role},
    revocation::Revocations,
    tls,
};

/// The files of a node's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFiles {
    /// The node's certificate, PEM; intermediates, if any, after it.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8 PEM, mode 0600. Who holds it is this node until it is revoked.
    pub key: PathBuf,
    /// The node CA's certificate, PEM. Several while the node CA is being replaced.
    pub authority: PathBuf,
}

/// A node's identity, shared by all of its servers and channels; new handshakes use what [`reload`](Self::reload)
/// found last.
pub struct NodeCredentials {
    files: NodeFiles,
    current: ArcSwap<Material>,
}

impl NodeCredentials {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file is missing or unreadable, certificate and key do not belong together, the certificate names no node
    /// or the node CA did not issue it. An expired certificate loads: the node says so in its health and renews.
    pub fn load(files: NodeFiles) -> Result<Arc<Self>, CredentialsError> {
        let material = Material::read(&files)?;
        Ok(Arc::new(Self { files, current: ArcSwap::from_pointee(material) }))
    }

    /// Reads the files again. The old identity stays in force when the new one is refused.
    ///
    /// # Errors
    /// As [`load`](Self::load), and when role or name changed: that takes a restart.
    pub fn reload(&self) -> Result<(), CredentialsError> {
        let material = Material::read(&self.files)?;
        let current = self.identity();
        if (material.identity.role, &material.identity.name) != (current.role, &current.name) {
            return Err(CredentialsError::OtherNode {
                current: current.to_string(),
                found: material.identity.to_string(),
            });
        }
        self.current.store(Arc::new(material));
        Ok(())
    }

    /// Who this node is, by the certificate in force.
    pub fn identity(&self) -> PeerIdentity {
        self.current.load().identity.clone()
    }

    /// The files, for watching and renewal.
    pub fn files(&self) -> &NodeFiles {
        &self.files
    }

    /// The certificates of the node CA, DER.
    pub fn authority(&self) -> Vec<CertificateDer<'static>> {
        self.current.load().authority.clone()
    }

    /// Whether the key in force still has its provisional name: a renewal was cut off in the middle.
    pub(crate) fn uses_next_key(&self) -> bool {
        let chain = self.current.load().key.cert.clone();
        private_key(&self.files.key).and_then(|key| fitting(&self.files, &chain, vec![key])).is_err()
    }

    pub(crate) fn mutual_server(
        &self,
        revocations: &Revocations,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let material = self.current.load();
        tls::mutual_server(Arc::clone(&material.key), Arc::clone(&material.roots), revocations.clone())
    }

    pub(crate) fn anonymous_server(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        // The node CA's own certificate goes along, so that a joining node can match it with its token.
        let material = self.current.load();
        let mut chain = material.key.cert.clone();
        chain.extend(material.authority.iter().cloned());
        let key = CertifiedKey::new(chain, Arc::clone(&material.key.key));
        tls::anonymous_server(Arc::new(key))
    }

    pub(crate) fn client(&self, expected: Role) -> Result<Arc<ClientConfig>, rustls::Error> {
        let material = self.current.load();
        tls::client(Arc::clone(&material.key), Arc::clone(&material.roots), expected)
    }
}

impl fmt::Debug for NodeCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NodeCredentials").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

/// One consistent reading of the files.
pub(crate) struct Material {
    pub(crate) identity: PeerIdentity,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    authority: Vec<CertificateDer<'static>>,
}

impl Material {
    fn read(files: &NodeFiles) -> Result<Self, CredentialsError> {
        let chain = certificates(&files.certificate)?;
        let authority = certificates(&files.authority)?;
        // A crash in the middle of a renewal leaves the certificate's key under its provisional name.
        let keys = match (private_key(&files.key), private_key(&next_key(files)).ok()) {
            (Err(error), None) => return Err(error),
            (key, next) => key.ok().into_iter().chain(next).collect(),
        };
        Self::assemble(files, chain, keys, authority)
    }

    /// Puts an identity together; the key is the first that fits the certificate.
    pub(crate) fn assemble(
        files: &NodeFiles,
        chain: Vec<CertificateDer<'static>>,
        keys: Vec<PrivateKeyDer<'static>>,
        authority: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CredentialsError> {
        let leaf = chain
            .first()
            .ok_or_else(|| CredentialsError::Pem { path: files.certificate.clone(), what: "certificate" })?;
        let identity = PeerIdentity::from_certificate(leaf)
            .map_err(|source| CredentialsError::Identity { path: files.certificate.clone(), source })?;
        let roots = root_store(&authority)
            .map_err(|source| CredentialsError::Tls { path: files.authority.clone(), source })?;
        issued_by(leaf, &roots, &chain, &identity)
            .map_err(|source| CredentialsError::Chain { path: files.certificate.clone(), source })?;
        let key = fitting(files, &chain, keys)?;
        Ok(Self { identity, key: Arc::new(key), roots: Arc::new(roots), authority })
    }
}

/// The first key that the certificate is for.
fn fitting(
    files: &NodeFiles,
    chain: &[CertificateDer<'static>],
    keys: Vec<PrivateKeyDer<'static>>,
) -> Result<CertifiedKey, CredentialsError> {
    let mut refusal = rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch);
    for key in keys {
        let pair = CertifiedKey::from_der(chain.to_vec(), key, &tls::provider());
        match pair.and_then(|pair| pair.keys_match().map(|()| pair)) {
            Ok(pair) => return Ok(pair),
            Err(error) => refusal = error,
        }
    }
    Err(CredentialsError::Tls { path: files.key.clone(), source: refusal })
}

/// Where a key waits for its certificate.
pub(crate) fn next_key(files: &NodeFiles) -> PathBuf {
    with_suffix(&files.key, ".next")
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let pem = read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| CredentialsError::Pem { path: path.to_owned(), what: "private key" })
}

/// Checks the signature chain, at a moment within the certificate's own life: age is the handshake's business.
fn issued_by(
    leaf: &CertificateDer<'_>,
    roots: &RootCertStore,
    chain: &[CertificateDer<'_>],
    identity: &PeerIdentity,
) -> Result<(), rustls::Error> {
    let moment = UnixTime::since_unix_epoch(Duration::from_secs(identity.not_after.unix()));
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        roots,
        chain.get(1..).unwrap_or_default(),
        moment,
        tls::provider().signature_verification_algorithms.all,
    )
}

pub(crate) fn root_store(authority: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in authority {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let pem = read(path)?;
    let missing = || CredentialsError::Pem { path: path.to_owned(), what: "certificate" };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| missing())?;
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    fs::read(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
}

/// Why a node's files are no identity.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is missing, or others may read it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file holds something else.
    #[error("{} holds no PEM {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The certificate is not a node's.
    #[error("{} is no node certificate", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// The node CA did not issue it.
    #[error("{} was not issued by the node CA", path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Key or certificate unusable, or not belonging together.
    #[error("{} cannot be used", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Reloaded files are another node's.
    #[error("the files are now {found}'s; a running {current} stays what it is until it is restarted")]
    OtherNode {
        /// This node.
        current: String,
        /// What the files say.
        found: String,
    },
}
