//! Ids that prove where they come from.
//!
//! An order or authorization id is made by a signer and kept by fronts. Its MAC binds it to directory, account, name
//! and the client's own newOrder, so that a front can neither invent one nor move one to another order. An account id
//! is a hash of the account's first key, so that a client can tell that its account URL is its own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest, hmac};
use pki::{ErrorClass, Name, Timestamp};

use crate::base64url;
use crate::directory::DirectoryName;
use crate::jwk::Thumbprint;
pub use crate::secret::{SecretError, TierSecret, TierSecrets};

/// Serde as the text of `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// Kind 1, secret's version 4, seconds 6, random 16, MAC 18: 45 bytes are 60 letters without a bit to spare.
const SEALED_BYTES: usize = 45;
/// All before the MAC.
const CLEAR_BYTES: usize = 27;

/// A type whose value is a fixed number of bytes and whose text is their base64url.
macro_rules! sealed_id {
    ($(#[$doc:meta])* $name:ident, $kinds:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; SEALED_BYTES]);

        impl $name {
            /// What the first byte can be: an id of one kind does not even parse as another.
            const KINDS: std::ops::RangeInclusive<u8> = $kinds;

            /// From its bytes, as a database keeps them.
            ///
            /// # Errors
            /// [`IdError::Malformed`]. The MAC is not looked at.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes = <[u8; SEALED_BYTES]>::try_from(bytes).map_err(|_| IdError::Malformed)?;
                let fits = bytes.first().is_some_and(|kind| Self::KINDS.contains(kind));
                if fits { Ok(Self(bytes)) } else { Err(IdError::Malformed) }
            }

            /// The bytes; shorter than the text.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// When it says that it was made. Not to be believed before the MAC is verified.
            #[must_use]
            pub fn claimed_time(&self) -> Timestamp {
                let seconds = self.0.get(5..11).unwrap_or_default();
                Timestamp::from_unix(seconds.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
            }

            fn secret_version(&self) -> u32 {
                let version = self.0.get(1..5).unwrap_or_default();
                version.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base64url::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::from_bytes(&base64url::decode_array::<SEALED_BYTES>(text).map_err(|_| IdError::Malformed)?)
            }
        }

        serde_as_text!($name);
    };
}

sealed_id! {
    /// An order's id. Parsed is not verified: see [`IdKeys::verify_order`].
    OrderId, 1..=1
}

sealed_id! {
    /// An authorization's id. Parsed is not verified: see [`IdKeys::verify_authorization`].
    AuthorizationId, 2..=5
}

/// For which request an authorization's id was made, and for which names it counts. Its first byte says it, which is
/// under its MAC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// For newAuthz (RFC 8555 §7.4.1), not for an order.
    pub pre_authorization: bool,
    /// For the names below its own as well (RFC 9444 §4.1).
    pub subdomains: bool,
}

impl Scope {
    const fn kind(self) -> u8 {
        *AuthorizationId::KINDS.start() + self.pre_authorization as u8 + 2 * self.subdomains as u8
    }
}

impl AuthorizationId {
    /// What it says that it was made for. Not to be believed before the MAC is verified.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let kind = self.0.first().map_or(0, |kind| kind.saturating_sub(*Self::KINDS.start()));
        Scope { pre_authorization: kind & 1 != 0, subdomains: kind & 2 != 0 }
    }
}

/// The MAC keys of ids, one for each version of the tier secret.
#[derive(Clone)]
pub struct IdKeys {
    keys: BTreeMap<u32, hmac::Key>,
    newest: u32,
}

impl IdKeys {
    /// Derives them.
    #[must_use]
    pub fn new(secrets: &TierSecrets) -> Self {
        let key = |secret: &TierSecret| hmac::Key::new(hmac::HMAC_SHA256, &*secret.derive("chancery id v1"));
        Self {
            keys: secrets.iter().map(|secret| (secret.version(), key(secret))).collect(),
            newest: secrets.newest().version(),
        }
    }

    /// Makes an order's id. `new_order` is [`crate::jws::Jws::digest`] of the client's newOrder.
    #[must_use]
    pub fn mint_order(
        &self,
        directory: &DirectoryName,
        account: &AccountId,
        new_order: &[u8; 32],
        now: Timestamp,
        random: [u8; 16],
    ) -> OrderId {
        let fields: [&[u8]; 3] = [directory.as_str().as_bytes(), account.as_bytes(), new_order];
        OrderId(self.mint(*OrderId::KINDS.start(), &fields, now, random))
    }

    /// Verifies an order's id, and says when it was made.
    ///
    /// # Errors
    /// [`IdError::Forged`] if it was not made by a signer for just these, [`IdError::UnknownSecret`] if its secret is
    /// not in use any more.
    pub fn verify_order(
        &self,
        id: &OrderId,
        directory: &DirectoryName,
        account: &AccountId,
        new_order: &[u8; 32],
    ) -> Result<Timestamp, IdError> {
        let fields: [&[u8]; 3] = [directory.as_str().as_bytes(), account.as_bytes(), new_order];
        self.verify(&id.0, id.secret_version(), &fields)?;
        Ok(id.claimed_time())
    }

    /// Makes an authorization's id for an order. `created_by` is the digest of the client's newOrder.
    #[must_use]
    pub fn mint_authorization(
        &self,
        directory: &DirectoryName,
        account: &AccountId,
        name: &Name,
        created_by: &[u8; 32],
        now: Timestamp,
        random: [u8; 16],
    ) -> AuthorizationId {
        self.mint_scoped(Scope::default(), (directory, account, name, created_by), now, random)
    }

    /// Makes an authorization's id of this scope: for directory, account, name, and the digest of the client's newOrder or
    /// newAuthz.
    #[must_use]
    pub fn mint_scoped(
        &self,
        scope: Scope,
        (directory, account, name, created_by): (&DirectoryName, &AccountId, &Name, &[u8; 32]),
        now: Timestamp,
        random: [u8; 16],
    ) -> AuthorizationId {
        let name = canonical_name(name);
        let fields: [&[u8]; 4] =
            [directory.as_str().as_bytes(), account.as_bytes(), name.as_bytes(), created_by];
        AuthorizationId(self.mint(scope.kind(), &fields, now, random))
    }

    /// Verifies an authorization's id, and says when it was made.
    ///
    /// # Errors
    /// As [`IdKeys::verify_order`].
    pub fn verify_authorization(
        &self,
        id: &AuthorizationId,
        directory: &DirectoryName,
        account: &AccountId,
        name: &Name,
        created_by: &[u8; 32],
    ) -> Result<Timestamp, IdError> {
        let name = canonical_name(name);
        let fields: [&[u8]; 4] =
            [directory.as_str().as_bytes(), account.as_bytes(), name.as_bytes(), created_by];
        self.verify(&id.0, id.secret_version(), &fields)?;
        Ok(id.claimed_time())
    }

    fn mint(&self, kind: u8, fields: &[&[u8]], now: Timestamp, random: [u8; 16]) -> [u8; SEALED_BYTES] {
        // 48 bits of seconds outlast the highest `Timestamp`.
        let [_, _, seconds @ ..] = now.unix().to_be_bytes();
        let clear = [&[kind][..], &self.newest.to_be_bytes(), &seconds, &random].concat();
        #[expect(clippy::expect_used, reason = "`new` put the newest version's key in, and nothing removes")]
        let key = self.keys.get(&self.newest).expect("the newest key");
        let tag = authenticate(key, &clear, fields);
        let mut id = [0; SEALED_BYTES];
        for (to, from) in id.iter_mut().zip(clear.iter().chain(tag.as_ref())) {
            *to = *from;
        }
        id
    }

    fn verify(&self, id: &[u8; SEALED_BYTES], version: u32, fields: &[&[u8]]) -> Result<(), IdError> {
        let key = self.keys.get(&version).ok_or(IdError::UnknownSecret)?;
        let (clear, mac) = id.split_at_checked(CLEAR_BYTES).ok_or(IdError::Malformed)?;
        let tag = authenticate(key, clear, fields);
        let tag = tag.as_ref().get(..mac.len()).ok_or(IdError::Malformed)?;
        constant_time::verify_slices_are_equal(tag, mac).map_err(|_| IdError::Forged)
    }
}

impl fmt::Debug for IdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdKeys").field("versions", &self.keys.keys()).finish()
    }
}

/// HMAC-SHA256 over the id's clear part (kind, version, time, random) and each field, every one after its length: no
/// two lists of fields give the same input.
fn authenticate(key: &hmac::Key, clear: &[u8], fields: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for field in std::iter::once(&clear).chain(fields) {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    context.sign()
}

/// Type and text: "ip:192.0.2.1" and "dns:192.0.2.1" would be different, and "*." says that it is a wildcard.
fn canonical_name(name: &Name) -> String {
    match name {
        Name::Dns(_) | Name::Wildcard(_) => format!("dns:{name}"),
        Name::Ip(_) => format!("ip:{name}"),
    }
}

/// An account's id: a hash of its directory and first key. It stays when the key changes.
///
/// 192 bits: a second key for somebody's id is out of reach, and two keys of one's own with one id gain nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId([u8; 24]);

impl AccountId {
    /// The id of the account that this key makes in this directory.
    #[must_use]
    pub fn derive(directory: &DirectoryName, first_key: &Thumbprint) -> Self {
        let hash =
            labelled_hash("chancery account v1", &[directory.as_str().as_bytes(), first_key.as_bytes()]);
        let mut id = [0; 24];
        for (to, from) in id.iter_mut().zip(hash) {
            *to = from;
        }
        Self(id)
    }

    /// From its bytes, as a database keeps them.
    ///
    /// # Errors
    /// [`IdError::Malformed`] for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        bytes.try_into().map(Self).map_err(|_| IdError::Malformed)
    }

    /// The bytes; shorter than the text.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(self.0))
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountId({self})")
    }
}

impl FromStr for AccountId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        base64url::decode_array(text).map(Self).map_err(|_| IdError::Malformed)
    }
}

serde_as_text!(AccountId);

/// The token of every challenge of an authorization (RFC 8555 §8.1): a hash of its id, so that nobody chooses it and
/// every perspective computes it. The id has 128 random bits; the token shows 256 bits of its hash.
#[must_use]
pub fn token(id: &AuthorizationId) -> String {
    base64url::encode(labelled_hash("chancery token v1", &[id.as_bytes()]))
}

/// SHA-256 over the label and each field, every one after its length.
fn labelled_hash(label: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for field in std::iter::once(&label.as_bytes()).chain(fields) {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Why an id is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the text or bytes of an id of this kind.
    #[error("the id is malformed")]
    Malformed,
    /// Made under a version of the tier secret that is not in use any more.
    #[error("the id was made under a secret that is not in use any more")]
    UnknownSecret,
    /// Not made by a signer for this directory, account, name and request.
    #[error("the id was not made for this")]
    Forged,
}

impl IdError {
    /// Whoever sent the id is at fault.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        ErrorClass::Client
    }
}

#[cfg(test)]
mod tests;
