//! The files that a policy names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hsm::Origin;
use pki::crl::Crl;
use pki::ocsp::IssuerHashes;
use pki::{Certificate, Issuer, chain};
use runtime::config::FilePath;

use super::{DeltaCrls, Directory, IssuerEntry, OcspSettings, Root};
use crate::doors::KeyPlace;
use crate::policy::{IssuerPolicy, OcspPolicy, Policy, RootPolicy};

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The policy file.
    #[error(transparent)]
    Config(#[from] runtime::ConfigError),
    /// What the policy says.
    #[error("policy: {0}")]
    Policy(#[from] crate::policy::PolicyError),
    /// A file that the policy names.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A chain of certificates that is none.
    #[error("{}: {error}", path.display())]
    Chain {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: chain::ChainError,
    },
    /// A certificate that cannot be an issuer.
    #[error("issuer {issuer:?}: {error}")]
    Issuer {
        /// Which.
        issuer: String,
        /// Why.
        error: pki::IssuerError,
    },
    /// Another chain that is not the issuer's.
    #[error("issuer {issuer:?}: {}: {fault}", path.display())]
    Alternate {
        /// Which issuer.
        issuer: String,
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        fault: AlternateFault,
    },
    /// Challenges that all succeed, under a CA that is none for tests.
    #[error(
        "directory {directory:?} has always_valid, but the certificate of issuer {issuer:?} in its pool has no mark of a test CA: the \
         ceremony writes it (test_ca = true), and it cannot be put on later"
    )]
    NotTestCa {
        /// Which directory.
        directory: String,
        /// Which issuer.
        issuer: String,
    },
    /// Public trust in a test CA.
    #[error(
        "directory {directory:?} has public_trust, but the certificate of issuer {issuer:?} in its pool has the mark of a test CA"
    )]
    PublicTestCa {
        /// Which directory.
        directory: String,
        /// Which issuer.
        issuer: String,
    },
    /// Two issuers have one key: their CRLs and OCSP answers would be each other's.
    #[error("issuers {0:?} and {1:?} have the same key identifier")]
    SameKey(String, String),
    /// A root's CRL that is not the root's.
    #[error("{}: not a CRL of the root beside it", path.display())]
    RootCrl {
        /// The file.
        path: std::path::PathBuf,
    },
    /// An issuer's token is not declared in `signer.toml`.
    #[error(
        "issuer {issuer:?} refers to token {token:?}, which is not declared in the signer's configuration"
    )]
    Token {
        /// Which issuer.
        issuer: String,
        /// Which token.
        token: String,
    },
}

/// Why a chain is no alternate one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AlternateFault {
    /// Its first certificate does not certify what the issuer signs.
    #[error("its first certificate has not the issuer's subject, key and key identifier")]
    Other,
    /// Its first certificate may not sign certificates.
    #[error("its first certificate is not a CA's that may sign certificates")]
    NotCa,
    /// It is the issuer's chain, or one that was named before.
    #[error("it is a chain that the issuer has already")]
    Twice,
    /// One of the two is marked as a test CA: what is good enough under that one is not under the other.
    #[error("of its first certificate and the issuer's, one has the mark of a test CA and one has not")]
    TestCa,
}

impl IssuerEntry {
    fn load(declared: &IssuerPolicy, tokens: &BTreeSet<&str>) -> Result<Self, RegistryError> {
        let named = [Some(&declared.token), declared.ocsp.as_ref().map(|ocsp| &ocsp.token)];
        if let Some(token) = named.into_iter().flatten().find(|token| !tokens.contains(token.as_str())) {
            return Err(RegistryError::Token { issuer: declared.name.clone(), token: token.clone() });
        }
        let chain = load_chain(&declared.certificate)?;
        let wrong = |error| RegistryError::Issuer { issuer: declared.name.clone(), error };
        let certificate = chain.first().cloned().ok_or_else(|| wrong(pki::IssuerError::NotCa))?;
        let signature = certificate.public_key().algorithm().default_signature();
        let issuer = Issuer::new(certificate, signature)
            .and_then(|issuer| issuer.with_crl_url_base(declared.crl_url_base.as_str().trim_end_matches('/')))
            .and_then(|issuer| match &declared.ca_issuers_url {
                Some(url) => issuer.with_ca_issuers_url(url.as_str()),
                None => Ok(issuer),
            })
            .and_then(|issuer| match &declared.ocsp {
                Some(ocsp) => issuer.with_ocsp_url(ocsp.url.as_str()),
                None => Ok(issuer),
            })
            .map_err(wrong)?
            .with_delta_crls(declared.delta_crls);
        let alternates = load_alternates(declared, &chain)?;
        Ok(Self {
            id: declared.name.clone(),
            alternates,
            ocsp: declared.ocsp.as_ref().map(|ocsp| OcspSettings::of(ocsp, issuer.certificate())),
            issuer,
            chain,
            pool: declared.pool.clone(),
            shards: declared.shards,
            state: declared.state.into(),
            crl_lifetime: declared.crl_lifetime,
            crl_interval: declared.crl_interval,
            deltas: declared.delta_crls.then_some(DeltaCrls {
                lifetime: declared.delta_crl_lifetime,
                entries: declared.delta_crl_entries,
                percent: declared.delta_crl_percent,
            }),
            last_crl: declared.last_crl,
            place: place(&declared.token, &declared.key_id, declared.origin),
        })
    }
}

/// The other chains: each certifies the same subject and key, so that what the issuer signs has all of them.
fn load_alternates(
    declared: &IssuerPolicy,
    chain: &[Certificate],
) -> Result<Vec<Vec<Certificate>>, RegistryError> {
    let Some(own) = chain.first() else { return Ok(Vec::new()) };
    let mut alternates: Vec<Vec<Certificate>> = Vec::new();
    for path in &declared.alternates {
        let alternate = load_chain(path)?;
        let same = |one: &Certificate| {
            one.subject_der() == own.subject_der()
                && one.public_key() == own.public_key()
                && one.key_id() == own.key_id()
        };
        let fault = match alternate.first() {
            Some(first) if !same(first) => Some(AlternateFault::Other),
            Some(first) if !first.is_ca() || !first.may_sign_certificates() => Some(AlternateFault::NotCa),
            Some(first) if first.is_test_ca() != own.is_test_ca() => Some(AlternateFault::TestCa),
            _ if alternate == chain || alternates.contains(&alternate) => Some(AlternateFault::Twice),
            _ => None,
        };
        if let Some(fault) = fault {
            let (issuer, path) = (declared.name.clone(), path.to_path_buf());
            return Err(RegistryError::Alternate { issuer, path, fault });
        }
        alternates.push(alternate);
    }
    Ok(alternates)
}

impl OcspSettings {
    fn of(declared: &OcspPolicy, issuer: &Certificate) -> Self {
        Self {
            validity: declared.validity,
            certificate_lifetime: declared.certificate_lifetime,
            archive_cutoff: declared.archive_cutoff,
            hashes: IssuerHashes::of(issuer),
            place: place(&declared.token, &declared.key_id, declared.origin),
        }
    }
}

fn place(token: &str, key_id: &str, origin: Origin) -> KeyPlace {
    // The policy was validated: it is hexadecimal.
    KeyPlace { token: token.to_owned(), id: hex::decode(key_id).unwrap_or_default(), origin }
}

pub(super) fn load_issuers(
    policy: &Policy,
    tokens: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Arc<IssuerEntry>>, RegistryError> {
    let mut issuers = BTreeMap::new();
    let mut keys: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for declared in &policy.issuer {
        let entry = IssuerEntry::load(declared, tokens)?;
        if let Some(other) = keys.insert(entry.issuer.key_id().to_vec(), entry.id.clone()) {
            return Err(RegistryError::SameKey(other, entry.id));
        }
        issuers.insert(entry.id.clone(), Arc::new(entry));
    }
    Ok(issuers)
}

/// Which directories issue by test CAs: one in which nobody looks by nothing else, one of public trust by none. Every issuer of
/// the pool counts, whatever it does at the moment.
pub(super) fn check_marks(directory: &Directory) -> Result<(), RegistryError> {
    let policy = &directory.policy;
    let other = |marked: bool| {
        let mut issuers = directory.pool.issuers.iter();
        issuers.find(|entry| entry.issuer.certificate().is_test_ca() == marked).map(|entry| entry.id.clone())
    };
    let name = || policy.name.to_string();
    if policy.always_valid
        && let Some(issuer) = other(false)
    {
        return Err(RegistryError::NotTestCa { directory: name(), issuer });
    }
    if policy.public_trust
        && let Some(issuer) = other(true)
    {
        return Err(RegistryError::PublicTestCa { directory: name(), issuer });
    }
    Ok(())
}

pub(super) fn load_root(declared: &RootPolicy) -> Result<Root, RegistryError> {
    let chain = load_chain(&declared.certificate)?;
    let not_a_chain = || RegistryError::Chain {
        path: declared.certificate.to_path_buf(),
        error: chain::ChainError::Order { index: 0 },
    };
    let [certificate] = <[Certificate; 1]>::try_from(chain).map_err(|_| not_a_chain())?;
    let crl = declared.crl.as_ref().map(|path| {
        let der = pem_or_der(read(path)?);
        let own = Crl::from_der(&der).is_ok_and(|crl| crl.verify_signed_by(certificate.public_key()).is_ok());
        if own { Ok(der) } else { Err(RegistryError::RootCrl { path: path.to_path_buf() }) }
    });
    Ok(Root { name: declared.name.clone(), crl: crl.transpose()?, certificate })
}

fn load_chain(path: &FilePath) -> Result<Vec<Certificate>, RegistryError> {
    let wrong = |error| RegistryError::Chain { path: path.to_path_buf(), error };
    let text = read(path)?;
    let chain = chain::from_pem(&String::from_utf8_lossy(&text)).map_err(wrong)?;
    chain::check_order(&chain).map_err(wrong)?;
    Ok(chain)
}

fn read(path: &FilePath) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|source| RegistryError::Read { path: path.to_path_buf(), source })
}

/// The DER inside of a PEM block; other bytes as they are.
pub(crate) fn pem_or_der(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&bytes) else { return bytes };
    if !text.contains("-----BEGIN ") {
        return bytes;
    }
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap_or(bytes)
}
