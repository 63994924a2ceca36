//! Keys of a token: how they are declared, what the token says about them, and the handle that signs.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use pki::{KeyAlgorithm, PublicKey};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::token::Handle;
use crate::{Deadline, HsmError, Job, Lane};

/// Anything that signs: a [`Key`], later a pool of clones, in tests a double that fails on purpose.
#[async_trait]
pub trait Signing: Send + Sync + fmt::Debug {
    /// The signature of `job` as X.509 carries it (ECDSA as `ECDSA-Sig-Value`, RFC 3279 §2.2.3), verified.
    ///
    /// # Errors
    /// [`HsmError::DeadlineExceeded`] leaves open whether the token signed; every other error means that no signature
    /// left this process either.
    async fn sign(&self, lane: Lane, job: Job, deadline: Deadline) -> Result<Vec<u8>, HsmError>;

    /// The public key that verifies the signatures.
    fn public_key(&self) -> &PublicKey;

    /// What is known about the key now.
    fn health(&self) -> KeyHealth;
}

/// A key as the configuration declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    /// `CKA_ID`, the same for both halves. Labels are not unique in a token.
    pub id: Vec<u8>,
    /// The public key that the token must have under this id: the issuer certificate's.
    pub public_key: PublicKey,
    /// Where the key came from; its attributes must agree.
    pub origin: Origin,
}

impl KeyRef {
    /// A key that was generated in this very token.
    pub fn generated(id: impl Into<Vec<u8>>, public_key: PublicKey) -> KeyRef {
        KeyRef { id: id.into(), public_key, origin: Origin::Generated }
    }
}

/// Where a private key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Generated in this token: it was never anywhere else (`CKA_LOCAL`, `CKA_ALWAYS_SENSITIVE`, `CKA_NEVER_EXTRACTABLE`).
    Generated,
    /// Came from another token by the vendor's cloning or wrapping, on the operator's word. Sensitive and not
    /// extractable here.
    Cloned,
}

/// A key to be generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// P-256, P-384, RSA of 2048, 3072 or 4096 bits, or Ed25519.
    pub algorithm: KeyAlgorithm,
    /// `CKA_LABEL` of both halves.
    pub label: String,
    /// `CKA_ID` of both halves.
    pub id: Vec<u8>,
}

/// A key that was just generated, read back from the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedKey {
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: String,
    /// The public half.
    pub public_key: PublicKey,
    /// Attributes of the private half.
    pub attributes: Attributes,
}

/// Which keys to look for; an empty query means all private keys of the token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyQuery {
    /// `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// `CKA_LABEL`.
    pub label: Option<String>,
}

impl KeyQuery {
    /// Keys with this id.
    pub fn id(id: impl Into<Vec<u8>>) -> KeyQuery {
        KeyQuery { id: Some(id.into()), label: None }
    }

    /// Keys with this label.
    pub fn label(label: impl Into<String>) -> KeyQuery {
        KeyQuery { id: None, label: Some(label.into()) }
    }
}

/// A private key that the token has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: String,
    /// The public half, where the token tells it and its type is known here.
    pub public_key: Option<PublicKey>,
    /// Attributes of the private half.
    pub attributes: Attributes,
}

/// Attributes of a private key as the token tells them; `None` where it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// `CKA_TOKEN`: it outlives the session.
    pub token: Option<bool>,
    /// `CKA_PRIVATE`: it needs a login.
    pub private: Option<bool>,
    /// `CKA_SENSITIVE`: its value cannot be read in plain.
    pub sensitive: Option<bool>,
    /// `CKA_EXTRACTABLE`: it can be wrapped.
    pub extractable: Option<bool>,
    /// `CKA_ALWAYS_SENSITIVE`.
    pub always_sensitive: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`.
    pub never_extractable: Option<bool>,
    /// `CKA_LOCAL`: generated in this token.
    pub local: Option<bool>,
    /// `CKA_SIGN`.
    pub sign: Option<bool>,
    /// `CKA_SIGN_RECOVER`.
    pub sign_recover: Option<bool>,
    /// `CKA_DECRYPT`.
    pub decrypt: Option<bool>,
    /// `CKA_UNWRAP`.
    pub unwrap: Option<bool>,
    /// `CKA_DERIVE`.
    pub derive: Option<bool>,
    /// `CKA_ALWAYS_AUTHENTICATE`: it wants the PIN before each signature.
    pub always_authenticate: Option<bool>,
    /// `CKA_MODIFIABLE`.
    pub modifiable: Option<bool>,
    /// `CKA_COPYABLE`.
    pub copyable: Option<bool>,
    /// `CKA_DESTROYABLE`.
    pub destroyable: Option<bool>,
}

/// What is known about a key now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyHealth {
    /// The token has not been asked yet, or is away.
    Unknown,
    /// Found, compared with the expected public key, attributes checked.
    Ready(Attributes),
    /// Not to be used.
    Refused(Fault),
}

/// A key of a token, ready to sign. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    pub(crate) token: Arc<Handle>,
    pub(crate) entry: Arc<KeyEntry>,
}

/// What the supervisor knows about one declared key.
pub(crate) struct KeyEntry {
    pub(crate) index: u32,
    pub(crate) declared: KeyRef,
    pub(crate) health: tokio::sync::watch::Sender<KeyHealth>,
}

impl Key {
    /// `CKA_ID` of the key.
    pub fn id(&self) -> &[u8] {
        &self.entry.declared.id
    }

    /// The label of the token that holds it.
    pub fn token_label(&self) -> &str {
        self.token.label()
    }

    /// Waits until the token has been asked about the key.
    ///
    /// # Errors
    /// Why the key is not to be used, or why the token is away.
    pub async fn ready(&self, deadline: Deadline) -> Result<Attributes, HsmError> {
        self.token.key_ready(&self.entry, deadline).await
    }
}

#[async_trait]
impl Signing for Key {
    async fn sign(&self, lane: Lane, job: Job, deadline: Deadline) -> Result<Vec<u8>, HsmError> {
        self.token.sign(&self.entry, lane, job, deadline).await
    }

    fn public_key(&self) -> &PublicKey {
        &self.entry.declared.public_key
    }

    fn health(&self) -> KeyHealth {
        self.entry.health.borrow().clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("token", &self.token_label())
            .field("id", &hex::encode(self.id()))
            .finish_non_exhaustive()
    }
}
