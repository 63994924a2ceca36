//! tls-alpn-01 (RFC 8737, RFC 8738 §6, BR 3.2.2.4.20): asks the identifier's own TLS server for a certificate that shows the
//! digest of the key authorization.
//!
//! Addresses are found, judged and tried as http-01 does. No byte of an application is sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use pki::{ChallengeCertificate, Name};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as crypto, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use url::Host;

use crate::address::AddressPolicy;
use crate::connect::{candidates, connect};
use crate::failure::{Ending, Failure, FailureKind, LocalFault, excerpt};
use crate::resolver::Resolver;
use crate::slots::Slots;
use crate::tls;

/// RFC 8737 §6.2.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// What tls-alpn-01 may do; see the fields of [`crate::Config`] for the defaults.
#[derive(Debug, Clone)]
pub struct TlsAlpn01Settings {
    /// The port.
    pub port: u16,
    /// For one TCP connection.
    pub connect_timeout: Duration,
    /// For the whole attempt, from the first query to the end of the handshake.
    pub total_timeout: Duration,
    /// Connections at once to one address, over all attempts.
    pub per_address: usize,
}

/// The method, ready to run.
pub struct TlsAlpn01 {
    settings: TlsAlpn01Settings,
    resolver: Resolver,
    policy: AddressPolicy,
    connector: TlsConnector,
    addresses: Slots<IpAddr>,
}

impl TlsAlpn01 {
    /// A method over its own TLS configuration.
    ///
    /// # Errors
    /// When the TLS provider does not work.
    pub fn new(
        settings: TlsAlpn01Settings,
        resolver: Resolver,
        policy: AddressPolicy,
    ) -> Result<Self, rustls::Error> {
        let addresses = Slots::new(settings.per_address);
        Ok(Self { settings, resolver, policy, connector: connector()?, addresses })
    }

    /// Looks. `contacted` gets every address that a connection was made or tried to, in order, also of a failed attempt.
    ///
    /// # Errors
    /// What was found instead of the certificate.
    pub async fn observe(
        &self,
        name: &Name,
        key_authorization: &str,
        contacted: &mut Vec<IpAddr>,
    ) -> Result<(), Ending> {
        let deadline = Instant::now() + self.settings.total_timeout;
        let host = match name {
            Name::Dns(name) | Name::Wildcard(name) => Host::Domain(name.as_str()),
            Name::Ip(IpAddr::V4(address)) => Host::Ipv4(*address),
            Name::Ip(IpAddr::V6(address)) => Host::Ipv6(*address),
        };
        let found = candidates(&self.resolver, &self.policy, &host);
        let candidates = match tokio::time::timeout_at(deadline, found).await {
            Ok(candidates) => candidates?,
            Err(_) if !self.resolver.answers().await => return Err(LocalFault::Resolver.into()),
            Err(_) => {
                let detail = format!("looking up {name}: no answer in time");
                return Err(Failure::new(FailureKind::Dns, detail).into());
            }
        };
        let mut causes = Vec::new();
        for address in candidates {
            let patience = deadline.saturating_duration_since(Instant::now()) / 2;
            let slot = tokio::time::timeout(patience, self.addresses.wait(address)).await;
            let _slot = slot.map_err(|_| LocalFault::Busy)?;
            contacted.push(address);
            let place = SocketAddr::new(address, self.settings.port);
            match connect(place, self.settings.connect_timeout).await {
                Err(cause) => causes.push(format!("{place}: {cause}")),
                Ok(stream) => {
                    let handshake = self.handshake(name, key_authorization, stream);
                    let outcome = tokio::time::timeout_at(deadline, handshake).await.unwrap_or_else(|_| {
                        Err((FailureKind::Connection, "no complete handshake in time".to_owned()))
                    });
                    return outcome.map_err(|(kind, cause)| {
                        Failure::new(kind, format!("{place}: {name}: {cause}")).into()
                    });
                }
            }
        }
        Err(Failure::new(FailureKind::Connection, format!("{name}: {}", causes.join("; "))).into())
    }

    async fn handshake(
        &self,
        name: &Name,
        key_authorization: &str,
        stream: TcpStream,
    ) -> Result<(), (FailureKind, String)> {
        let tls_failed = |cause: String| (FailureKind::Tls, cause);
        let server_name = ServerName::try_from(name.server_name())
            .map_err(|_| tls_failed("the name is not one for a TLS handshake".to_owned()))?;
        let stream = self
            .connector
            .connect(server_name, stream)
            .await
            .map_err(|error| tls_failed(format!("TLS handshake failed: {}", tls::describe(&error))))?;
        let (_, session) = stream.get_ref();
        let unauthorized = |cause: String| (FailureKind::Unauthorized, cause);
        if session.alpn_protocol() != Some(PROTOCOL) {
            return Err(unauthorized("the server did not negotiate the protocol acme-tls/1".to_owned()));
        }
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.ok_or_else(|| unauthorized("no certificate was shown".to_owned()))?;
        let certificate = ChallengeCertificate::from_der(certificate)
            .map_err(|error| unauthorized(format!("the certificate was refused: {error}")))?;
        judge(&certificate, name, key_authorization).map_err(unauthorized)
    }
}

fn judge(certificate: &ChallengeCertificate, name: &Name, key_authorization: &str) -> Result<(), String> {
    if certificate.name() != name {
        return Err(format!("the certificate is for {}", excerpt(certificate.name().to_string().as_bytes())));
    }
    let expected = digest(&SHA256, key_authorization.as_bytes());
    if certificate.digest() != expected.as_ref() {
        let (found, expected) = (hex::encode(certificate.digest()), hex::encode(expected));
        return Err(format!("the acmeIdentifier is {found}, and {expected} is expected"));
    }
    Ok(())
}

fn connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(crypto::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OwnKey { provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Lets every certificate through, to be judged after the handshake, and has the handshake signed with its key. (The library's
/// own check would stop at the critical extension.)
#[derive(Debug)]
struct OwnKey {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OwnKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = public_key(cert)?;
        let supported = self.provider.signature_verification_algorithms.mapping;
        let mut algorithms =
            supported.iter().filter(|(scheme, _)| *scheme == dss.scheme).flat_map(|(_, all)| *all);
        // One of them is for the key's curve; the others do not verify.
        let verifies = |algorithm: &dyn rustls::pki_types::SignatureVerificationAlgorithm| {
            algorithm.verify_signature(key.raw(), message, dss.signature()).is_ok()
        };
        if algorithms.any(|algorithm| verifies(*algorithm)) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = public_key(cert)?;
        let spki = SubjectPublicKeyInfoDer::from(key.spki_der());
        verify_tls13_signature_with_raw_key(
            message,
            &spki,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The key of a certificate of whatever content: what is wrong with that is said after the handshake.
fn public_key(certificate: &CertificateDer<'_>) -> Result<pki::PublicKey, rustls::Error> {
    pki::subject_public_key(certificate).map_err(|_| CertificateError::BadEncoding.into())
}
