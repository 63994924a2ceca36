//! The HTTPS certificate (DESIGN §9): a pair of files, watched, or one of the signer's, renewed by itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pki::chain::pem_block;
use pki::{Certificate, NameSet, Timestamp};
use runtime::{Causes, Dependency, SharedClock};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::csr::{self, CsrError};
use crate::signer::{Signer, SignerError};

/// How often the age of the certificate is looked at, and the pause after a signer that does not answer.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// While there is none at all, clients wait.
const RETRY: Duration = Duration::from_secs(1);
/// In the state folder; key and chain in one file, so that no crash can leave the one without the other.
const FILE: &str = "https.pem";

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpsError {
    /// A file cannot be read or written.
    #[error("{}: cannot be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it must be.
    #[error("{}: not PEM of a certificate chain and its key", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The key is not the certificate's, or is not usable.
    #[error("the HTTPS key and certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// The leaf cannot be read.
    #[error("the HTTPS certificate cannot be read")]
    Certificate(#[from] pki::CertificateError),
    /// The request could not be made.
    #[error("the request for an HTTPS certificate cannot be made")]
    Csr(#[from] CsrError),
    /// The signer does not issue it.
    #[error("the signer does not issue the HTTPS certificate")]
    Signer(#[from] SignerError),
    /// The chain is empty.
    #[error("there is no certificate")]
    Empty,
}

/// The certificate that handshakes use at the moment.
pub(crate) struct Served {
    provider: Arc<CryptoProvider>,
    current: ArcSwapOption<CertifiedKey>,
    present: watch::Sender<bool>,
}

impl Served {
    pub(crate) fn new() -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Arc::new(Self { provider, current: ArcSwapOption::empty(), present: watch::Sender::new(false) })
    }

    /// How TLS is spoken: 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub(crate) fn config(self: &Arc<Self>) -> Result<rustls::ServerConfig, rustls::Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Once there is one.
    pub(crate) async fn is_present(&self) {
        // The sender is in `self`: it outlives the receiver.
        let _ = self.present.subscribe().wait_for(|present| *present).await;
    }

    fn serve(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), HttpsError> {
        // Refuses a key that is not the certificate's.
        let certified = CertifiedKey::from_der(chain, key, &self.provider)?;
        self.current.store(Some(Arc::new(certified)));
        self.present.send_replace(true);
        Ok(())
    }

    /// Serves with a pair of files.
    pub(crate) fn load_files(&self, certificate: &Path, key: &Path) -> Result<(), HttpsError> {
        let chain = read_chain(certificate, &read(certificate)?)?;
        let key = read_key(key, &read(key)?)?;
        self.serve(chain, key)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("present", &*self.present.borrow()).finish_non_exhaustive()
    }
}

/// A certificate of the signer's, kept in the state folder and renewed at a third of its life.
pub(crate) struct OwnIssue {
    pub(crate) served: Arc<Served>,
    pub(crate) state: PathBuf,
    pub(crate) names: NameSet,
    pub(crate) signer: Signer,
    pub(crate) clock: SharedClock,
    pub(crate) dependency: Dependency,
}

impl OwnIssue {
    /// Takes up what the state folder has, and keeps it young, until the drain.
    pub(crate) async fn keep(self, draining: CancellationToken) {
        let mut renew_at = match self.take_up() {
            Ok(renew_at) => Some(renew_at),
            Err(error) => {
                tracing::info!(reason = %Causes(&error), "no HTTPS certificate is kept; asking the signer for one");
                None
            }
        };
        loop {
            let now: Timestamp = self.clock.now().into();
            let mut pause = LOOK_EVERY;
            if renew_at.is_none_or(|due| due <= now) {
                match self.renew().await {
                    Ok(due) => renew_at = Some(due),
                    Err(error) => {
                        let reason = Causes(&error).to_string();
                        tracing::warn!(reason, "the HTTPS certificate is not renewed");
                        if renew_at.is_none() {
                            self.dependency.down(reason);
                            pause = RETRY;
                        }
                    }
                }
            }
            tokio::select! {
                () = draining.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// From the state folder, if it is still good for these names. When to renew it.
    fn take_up(&self) -> Result<Timestamp, HttpsError> {
        let path = self.state.join(FILE);
        let text = read(&path)?;
        let (chain, key) = (read_chain(&path, &text)?, read_key(&path, &text)?);
        let leaf = Certificate::from_der(chain.first().ok_or(HttpsError::Empty)?)?;
        let now: Timestamp = self.clock.now().into();
        let covers = leaf.names().is_some_and(|names| self.names.iter().all(|name| names.contains(name)));
        if !covers || !leaf.is_valid_at(now) {
            return Err(HttpsError::Empty);
        }
        self.serve(&leaf, chain, key)
    }

    async fn renew(&self) -> Result<Timestamp, HttpsError> {
        let new = csr::generate(&self.names)?;
        let chain = self.signer.issue_server_certificate(new.request).await?;
        let leaf = Certificate::from_der(chain.first().ok_or(HttpsError::Empty)?)?;
        let mut text = pem_block("PRIVATE KEY", &new.pkcs8);
        for der in &chain {
            text.push_str(&pem_block("CERTIFICATE", der));
        }
        let path = self.state.join(FILE);
        let key = read_key(&path, text.as_bytes())?;
        let chain = chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let due = self.serve(&leaf, chain, key)?;
        // Served first: a full disk must not keep clients away.
        runtime::files::write_atomically(&path, text.as_bytes(), 0o600)
            .map_err(|source| HttpsError::File { path, source })?;
        tracing::info!(serial = %leaf.serial(), not_after = %leaf.not_after(), "HTTPS certificate");
        Ok(due)
    }

    fn serve(
        &self,
        leaf: &Certificate,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Timestamp, HttpsError> {
        self.served.serve(chain, key)?;
        self.dependency.up();
        let life = leaf.not_after().since(leaf.not_before());
        Ok(leaf.not_before().plus(pki::Period::from_seconds(life.seconds() / 3)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, HttpsError> {
    std::fs::read(path).map_err(|source| HttpsError::File { path: path.to_owned(), source })
}

fn read_chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, HttpsError> {
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|source| HttpsError::Pem { path: path.to_owned(), source })
}

fn read_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, HttpsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|source| HttpsError::Pem { path: path.to_owned(), source })
}
