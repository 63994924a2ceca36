//! Join and renewal: ask, check, write.
//!
//! A new key lies beside the old one as `<key>.next` until the certificate for it is written; only then it takes the old
//! one's name. Whoever loads the files in between, or after a crash, takes the key that fits the certificate.

use std::{fs, io};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tonic::Status;

use super::{
    request::{KeyPair, RequestError},
    token::JoinToken,
};
use crate::{
    channel::{AddressError, Channel},
    credentials::{CredentialsError, Material, NodeCredentials, NodeFiles, next_key},
    files,
    identity::PeerIdentity,
    proto::signer::v1::{
        JoinRequest, RenewRequest, enrollment_client::EnrollmentClient, membership_client::MembershipClient,
    },
};

/// Joins: makes a key, redeems the token, writes key (0600), certificate and node CA. Repeating it after a lost answer
/// asks with the same key again.
///
/// # Errors
/// When the node has a certificate already, no signer answers, the token is refused, or the answer is not a
/// certificate for this key from the node CA that the token names. Nothing is written then but the key.
pub async fn join(
    addresses: Vec<String>,
    token: &JoinToken,
    receipt_key: Option<[u8; 32]>,
    node: &NodeFiles,
) -> Result<PeerIdentity, JoinError> {
    if node.certificate.exists() {
        return Err(JoinError::Member { path: node.certificate.display().to_string() });
    }
    let pair = pending_key(node)?;
    let channel = Channel::connect_pinned(addresses, token.authority())?;
    let request = JoinRequest {
        token: token.secret(),
        csr: pair.request()?.into(),
        receipt_key: receipt_key.map(|key| key.to_vec()).unwrap_or_default().into(),
    };
    let answer = EnrollmentClient::new(channel).join(request).await.map_err(Box::new)?.into_inner();
    let mut chain = chain_of(answer.chain);
    let authority = chain.pop().filter(|last| token.authority().matches(last)).ok_or(JoinError::Authority)?;
    let authority = vec![authority];
    let identity = checked(node, &chain, &authority, &pair)?;
    files::write_atomically(&node.authority, pem(&authority).as_bytes(), 0o644)?;
    settle(node, &chain)?;
    Ok(identity)
}

/// Renews: a new key and a new certificate for the same role and name, in the same files and in `credentials`.
///
/// # Errors
/// When no signer answers, it refuses, or the answer is not a certificate for this node from the node CA it has. The
/// old certificate stays in force then.
pub async fn renew(credentials: &NodeCredentials, signer: Channel) -> Result<PeerIdentity, RenewError> {
    let node = credentials.files();
    finish_key(credentials)?;
    let pair = KeyPair::generate()?;
    files::write_atomically(&next_key(node), pair.pem()?.as_bytes(), 0o600)?;
    let request = RenewRequest { csr: pair.request()?.into() };
    let answer = MembershipClient::new(signer).renew(request).await.map_err(Box::new)?.into_inner();
    let mut chain = chain_of(answer.chain);
    let authority = credentials.authority();
    chain.retain(|certificate| !authority.contains(certificate));
    let identity = checked(node, &chain, &authority, &pair)?;
    let current = credentials.identity();
    if (identity.role, &identity.name) != (current.role, &current.name) {
        return Err(RenewError::OtherNode { found: identity.to_string() });
    }
    settle(node, &chain)?;
    credentials.reload()?;
    Ok(identity)
}

fn checked(
    node: &NodeFiles,
    chain: &[CertificateDer<'static>],
    authority: &[CertificateDer<'static>],
    pair: &KeyPair,
) -> Result<PeerIdentity, CredentialsError> {
    let key = PrivateKeyDer::Pkcs8(pair.pkcs8().to_vec().into());
    Ok(Material::assemble(node, chain.to_vec(), vec![key], authority.to_vec())?.identity)
}

/// The certificate first: a crash after it leaves the pair of certificate and `<key>.next`.
fn settle(node: &NodeFiles, chain: &[CertificateDer<'static>]) -> io::Result<()> {
    files::write_atomically(&node.certificate, pem(chain).as_bytes(), 0o644)?;
    files::rename_durably(&next_key(node), &node.key)
}

/// The key of an earlier try to join, or a new one; on disk before it is used.
fn pending_key(node: &NodeFiles) -> Result<KeyPair, JoinError> {
    let path = next_key(node);
    if let Ok(pem) = fs::read(&path)
        && let Ok(PrivateKeyDer::Pkcs8(key)) = PrivateKeyDer::from_pem_slice(&pem)
        && let Ok(pair) = KeyPair::from_pkcs8(key.secret_pkcs8_der())
    {
        return Ok(pair);
    }
    let pair = KeyPair::generate()?;
    files::write_atomically(&path, pair.pem()?.as_bytes(), 0o600)?;
    Ok(pair)
}

/// After a crash between the two writes of `settle`, `<key>.next` is the key in force: it must not be overwritten.
fn finish_key(credentials: &NodeCredentials) -> io::Result<()> {
    let node = credentials.files();
    if credentials.uses_next_key() && next_key(node).exists() {
        files::rename_durably(&next_key(node), &node.key)?;
    }
    Ok(())
}

fn chain_of(chain: Vec<bytes::Bytes>) -> Vec<CertificateDer<'static>> {
    chain.into_iter().map(|der| CertificateDer::from(Vec::from(der))).collect()
}

fn pem(chain: &[CertificateDer<'static>]) -> String {
    chain.iter().map(|certificate| block(certificate)).collect()
}

fn block(der: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap_or_default()
}

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is one already.
    #[error("{path} exists: this node has joined; to join anew, remove it")]
    Member {
        /// The certificate's file.
        path: String,
    },
    /// Not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No key.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The signer refused, or none was reached.
    #[error("the signer did not let this node join: {}", _0.message())]
    Refused(#[from] Box<Status>),
    /// Another node CA than the token's.
    #[error("the answer does not come from the node CA that the token names")]
    Authority,
    /// The certificate is not ours.
    #[error("the answer cannot be used")]
    Credentials(#[from] CredentialsError),
    /// A file could not be written.
    #[error("key and certificate cannot be written")]
    Write(#[from] io::Error),
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No key.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The signer refused, or none was reached.
    #[error("the signer did not renew the certificate: {}", _0.message())]
    Refused(#[from] Box<Status>),
    /// The certificate is not for this key, or not from our node CA.
    #[error("the answer cannot be used")]
    Credentials(#[from] CredentialsError),
    /// The certificate is another node's.
    #[error("the answer is a certificate of {found}")]
    OtherNode {
        /// Whose.
        found: String,
    },
    /// A file could not be written.
    #[error("key and certificate cannot be written")]
    Write(#[from] io::Error),
}
