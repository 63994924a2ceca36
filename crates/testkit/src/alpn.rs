//! A TLS server that answers tls-alpn-01, well or badly, on a free loopback port.

#![expect(clippy::expect_used, reason = "a test that has no certificate cannot go on")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType, SignatureAlgorithm};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The protocol's name (RFC 8737 §6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The server. It ends when it is dropped.
pub struct AlpnResponder {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

struct Shared {
    config: Arc<ServerConfig>,
    asked: Asked,
    connections: usize,
}

type Asked = Arc<Mutex<Vec<Option<String>>>>;

/// What the server shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8.
    pub key: Vec<u8>,
}

/// A certificate for the challenge, as a test wants it; [`AlpnCertificate::new`] is right.
#[derive(Debug, Clone)]
pub struct AlpnCertificate {
    /// Its subject alternative names.
    pub names: Vec<SanType>,
    /// Its extensions beside these.
    pub extensions: Vec<CustomExtension>,
    /// Its key's algorithm.
    pub algorithm: &'static SignatureAlgorithm,
}

impl AlpnCertificate {
    /// For one name, with the digest of a key authorization.
    ///
    /// # Panics
    /// When the name cannot stand in a certificate.
    #[must_use]
    pub fn new(name: &str, digest: &[u8; 32]) -> Self {
        Self {
            names: vec![alternative_name(name)],
            extensions: vec![CustomExtension::new_acme_identifier(digest)],
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }

    /// Self-signed.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn sign(&self) -> Shown {
        let key = KeyPair::generate_for(self.algorithm).expect("a key");
        let certificate = self.params().self_signed(&key).expect("a certificate");
        Shown { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }

    /// Signed by another key, under the same name.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn sign_by_another(&self) -> Shown {
        let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let issuer = rcgen::Issuer::new(self.params(), other);
        let certificate = self.params().signed_by(&key, &issuer).expect("a certificate");
        Shown { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names.clone_from(&self.names);
        params.custom_extensions.clone_from(&self.extensions);
        params
    }
}

/// A dNSName or iPAddress.
///
/// # Panics
/// When the text is neither.
#[must_use]
pub fn alternative_name(name: &str) -> SanType {
    match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("a name")),
    }
}

impl AlpnResponder {
    /// On a free port of 127.0.0.1, showing this with the right protocol.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(shown: &Shown) -> io::Result<Self> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), shown).await
    }

    /// On this address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start_on(address: SocketAddr, shown: &Shown) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let asked = Asked::default();
        let config = config(shown, &[PROTOCOL], rustls::ALL_VERSIONS, &asked).map_err(io::Error::other)?;
        let shared = Arc::new(Mutex::new(Shared { config, asked, connections: 0 }));
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Shows something else from now on, by these protocols and versions.
    ///
    /// # Panics
    /// When key and certificate do not go together.
    pub fn show(&self, shown: &Shown, protocols: &[&[u8]], versions: &[&'static SupportedProtocolVersion]) {
        let mut shared = self.shared();
        shared.config = config(shown, protocols, versions, &shared.asked).expect("a configuration");
    }

    /// The server names that were asked for so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Option<String>> {
        self.shared().asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared().connections
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AlpnResponder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let mut running = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let config = {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.connections += 1;
            Arc::clone(&shared.config)
        };
        running.spawn(serve(stream, config));
        while running.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let mut stream = TlsAcceptor::from(config).accept(stream).await?;
    // Until the other side has seen enough.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(drop)
}

/// Shows the same to everybody, and remembers whom they asked for: before they see it.
#[derive(Debug)]
struct Always {
    key: Arc<CertifiedKey>,
    asked: Asked,
}

impl ResolvesServerCert for Always {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_owned);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        Some(Arc::clone(&self.key))
    }
}

fn config(
    shown: &Shown,
    protocols: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
    asked: &Asked,
) -> Result<Arc<ServerConfig>, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(shown.key.clone()));
    // The library would not take a certificate with a critical extension that it does not know.
    let key = provider.key_provider.load_private_key(key)?;
    let chain = vec![CertificateDer::from(shown.certificate.clone())];
    let resolver = Always { key: Arc::new(CertifiedKey::new(chain, key)), asked: Arc::clone(asked) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
