//! TLS 1.3 between nodes: both sides prove a certificate of the node CA, and what counts of it is the role in its URI.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    enroll::Fingerprint,
    identity::{IdentityError, PeerIdentity, Role},
    revocation::Revocations,
};

/// The one rustls provider: aws-lc-rs, passed explicitly so that nothing depends on a process-wide default.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The server between nodes: a client without a good node certificate does not get past the handshake.
pub(crate) fn mutual_server(
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    revocations: Revocations,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let chain = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(NodeClients { chain, revocations }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Ok(Arc::new(without_resumption(config)))
}

/// The server of the enrolment port: proves itself, asks nothing of the client.
pub(crate) fn anonymous_server(key: Arc<CertifiedKey>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Ok(Arc::new(without_resumption(config)))
}

/// The client between nodes: the server must be a node of the expected role.
pub(crate) fn client(
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    expected: Role,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier = NodeServers { trust: Trust::Roots(roots), expected, provider: provider() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    settle_client(&mut config);
    Ok(Arc::new(config))
}

/// The client that joins: no certificate yet, and of the node CA only the fingerprint in its token.
pub(crate) fn pinned_client(authority: Fingerprint) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier =
        NodeServers { trust: Trust::Fingerprint(authority), expected: Role::Signer, provider: provider() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    settle_client(&mut config);
    Ok(Arc::new(config))
}

// A resumed session would carry over an identity without looking at certificate, revocation and time again.
fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config
}

fn settle_client(config: &mut ClientConfig) {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // Nodes are known by role, not by host name.
    config.enable_sni = false;
}

const ALPN_H2: &[u8] = b"h2";

/// What a server demands of its clients: chain (by rustls' own verifier, clientAuth), one identity, not revoked.
#[derive(Debug)]
struct NodeClients {
    chain: Arc<dyn ClientCertVerifier>,
    revocations: Revocations,
}

impl ClientCertVerifier for NodeClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        let peer = PeerIdentity::from_certificate(leaf).map_err(unfit)?;
        if self.revocations.contains(&peer) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// How a client knows the node CA.
#[derive(Debug)]
enum Trust {
    Roots(Arc<RootCertStore>),
    Fingerprint(Fingerprint),
}

/// What a client demands of a server: chain (serverAuth) and the role. No host name: several addresses, one role.
#[derive(Debug)]
struct NodeServers {
    trust: Trust,
    expected: Role,
    provider: Arc<CryptoProvider>,
}

impl NodeServers {
    fn roots(&self, intermediates: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, rustls::Error> {
        match &self.trust {
            Trust::Roots(roots) => Ok(Arc::clone(roots)),
            Trust::Fingerprint(fingerprint) => {
                let authority = intermediates
                    .iter()
                    .find(|certificate| fingerprint.matches(certificate))
                    .ok_or(CertificateError::UnknownIssuer)?;
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone().into_owned())?;
                Ok(Arc::new(roots))
            }
        }
    }
}

impl ServerCertVerifier for NodeServers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = self.roots(intermediates)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let peer = PeerIdentity::from_certificate(leaf).map_err(unfit)?;
        if peer.role == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(other(OtherRole { expected: self.expected, found: peer.role }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn unfit(error: IdentityError) -> rustls::Error {
    other(error)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

#[derive(Debug, thiserror::Error)]
#[error("the server is a {found}, not a {expected}")]
struct OtherRole {
    expected: Role,
    found: Role,
}
