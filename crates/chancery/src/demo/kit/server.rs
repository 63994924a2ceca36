//! HTTP and HTTPS for the kit's calls: a few connections of people and scripts on this host.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// For a handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// The front's own certificate, which it renews in a file.
#[derive(Debug)]
pub(crate) struct FrontCertificate {
    path: PathBuf,
    /// What tells the file that was read, and what it held.
    read: Mutex<Option<(u64, Arc<CertifiedKey>)>>,
}

impl FrontCertificate {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    /// The certificate as the file has it now.
    fn current(&self) -> anyhow::Result<Arc<CertifiedKey>> {
        let mut file = File::open(&self.path).with_context(|| format!("no {}", self.path.display()))?;
        // It is replaced by rename: another content is another inode.
        let inode = file.metadata()?.ino();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, certified)) = &*read
            && *known == inode
        {
            return Ok(Arc::clone(certified));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&text)?;
        let certified = Arc::new(CertifiedKey::from_der(chain, key, &rpc::provider())?);
        *read = Some((inode, Arc::clone(&certified)));
        Ok(certified)
    }
}

impl ResolvesServerCert for FrontCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
            .inspect_err(|error| tracing::error!("no certificate for the management calls: {error:#}"))
            .ok()
    }
}

/// TLS with the front's certificate.
///
/// # Errors
///
/// When there is none, or it cannot be used.
pub(crate) fn tls(certificate: FrontCertificate) -> anyhow::Result<TlsAcceptor> {
    certificate.current()?;
    let mut config = rustls::ServerConfig::builder_with_provider(rpc::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves over TLS until it is aborted.
pub(crate) async fn https(listener: TcpListener, acceptor: TlsAcceptor, app: Router) {
    let mut connections = JoinSet::new();
    loop {
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, acceptor.clone(), app.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, app: Router) {
    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let builder = Builder::new(TokioExecutor::new());
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
            if let Err(error) = served.await {
                tracing::debug!(%error, "connection ended");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("no TLS handshake"),
    }
}

/// Serves without TLS until it is aborted.
pub(crate) async fn http(listener: TcpListener, app: Router) {
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the name server's calls ended");
    }
}
