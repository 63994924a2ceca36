//! Lists of keys whose private keys are known, in the formats in which they are published.

use std::fmt;

use aws_lc_rs::digest;

use crate::{ErrorClass, KeyAlgorithm, PublicKey};

/// A list of known keys. It is one of two kinds of file:
///
/// - Text, each line one key: 20 hexadecimal digits, the last ones of the SHA-1 of `Modulus=`, the modulus in upper-case
///   hexadecimal, and a line feed (RSA keys, the format of Debian's `openssl-blacklist`); or 64 digits, the SHA-256 of the
///   SubjectPublicKeyInfo (any key). Empty lines and those that begin with `#` are skipped.
/// - The `blocklist.dat` of badkeys: records of 16 octets in ascending order, 15 of a SHA-256 and one that says where the
///   key is from. What is hashed is the modulus of an RSA key, the x coordinate of an ECDSA key, or an Ed25519 key, each
///   without leading zeros.
pub struct WeakKeyList(Form);

enum Form {
    Text { moduli: Vec<[u8; MODULUS_DIGEST]>, keys: Vec<[u8; 32]> },
    Records(Vec<u8>),
}

/// Octets of a SHA-1 that `openssl-blacklist` keeps.
const MODULUS_DIGEST: usize = 10;
/// Octets of a record of `blocklist.dat`, and how many of them are of the digest.
const RECORD: usize = 16;
const RECORD_DIGEST: usize = 15;

/// Why a file is not a list of known keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakKeyListError {
    /// A list of nothing protects from nothing.
    #[error("it lists no key")]
    Empty,
    /// A line of text that is not a digest.
    #[error("line {0} is neither 20 nor 64 hexadecimal digits")]
    Line(usize),
    /// Neither text nor records.
    #[error("it is neither text nor records of 16 octets")]
    Length,
    /// Records are found by bisection.
    #[error("record {0} is not above the one before it")]
    Order(usize),
}

impl WeakKeyListError {
    /// Always the operator's file.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Fatal
    }
}

impl WeakKeyList {
    /// Reads a list of either kind.
    ///
    /// # Errors
    /// When it is none, or has no key.
    pub fn read(octets: Vec<u8>) -> Result<Self, WeakKeyListError> {
        let is_text = |octet: &u8| octet.is_ascii_graphic() || octet.is_ascii_whitespace();
        // Thousands of digests without one octet that is not text do not occur.
        let form = match std::str::from_utf8(&octets) {
            Ok(text) if octets.iter().take(RECORD * 64).all(is_text) => read_text(text)?,
            _ => read_records(octets)?,
        };
        let list = Self(form);
        if list.is_empty() { Err(WeakKeyListError::Empty) } else { Ok(list) }
    }

    /// How many keys it lists.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Text { moduli, keys } => moduli.len() + keys.len(),
            Form::Records(octets) => octets.len() / RECORD,
        }
    }

    /// Whether it lists no key; one that was read lists some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it lists this key.
    #[must_use]
    pub fn contains(&self, key: &PublicKey) -> bool {
        match &self.0 {
            Form::Text { moduli, keys } => {
                let modulus = key.rsa_modulus().map(modulus_digest);
                keys.binary_search(&key.sha256()).is_ok()
                    || modulus.is_some_and(|modulus| moduli.binary_search(&modulus).is_ok())
            }
            Form::Records(octets) => {
                let hash = digest::digest(&digest::SHA256, number_of(key));
                let Some(wanted) = hash.as_ref().get(..RECORD_DIGEST) else { return false };
                let (records, _) = octets.as_chunks::<RECORD>();
                records.binary_search_by(|record| digest_of(record).cmp(wanted)).is_ok()
            }
        }
    }
}

impl fmt::Debug for WeakKeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeakKeyList({} keys)", self.len())
    }
}

fn read_text(text: &str) -> Result<Form, WeakKeyListError> {
    let (mut moduli, mut keys) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (mut modulus, mut key) = ([0; MODULUS_DIGEST], [0; 32]);
        if hex::decode_to_slice(line, &mut modulus).is_ok() {
            moduli.push(modulus);
        } else if hex::decode_to_slice(line, &mut key).is_ok() {
            keys.push(key);
        } else {
            return Err(WeakKeyListError::Line(at + 1));
        }
    }
    moduli.sort_unstable();
    keys.sort_unstable();
    Ok(Form::Text { moduli, keys })
}

fn read_records(octets: Vec<u8>) -> Result<Form, WeakKeyListError> {
    let (records, rest) = octets.as_chunks::<RECORD>();
    if !rest.is_empty() {
        return Err(WeakKeyListError::Length);
    }
    // Two lists may have the same key: then it is there twice.
    let falls = |pair: &[[u8; RECORD]]| matches!(pair, [one, next] if digest_of(one) > digest_of(next));
    match records.windows(2).position(falls) {
        Some(at) => Err(WeakKeyListError::Order(at + 2)),
        None => Ok(Form::Records(octets)),
    }
}

fn digest_of(record: &[u8; RECORD]) -> &[u8] {
    record.get(..RECORD_DIGEST).unwrap_or_default()
}

/// The digest of `openssl-blacklist`.
fn modulus_digest(modulus: &[u8]) -> [u8; MODULUS_DIGEST] {
    let line = format!("Modulus={}\n", hex::encode_upper(modulus));
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, line.as_bytes());
    hash.as_ref().last_chunk().copied().unwrap_or_default()
}

/// The number that badkeys hashes, without leading zeros.
fn number_of(key: &PublicKey) -> &[u8] {
    let raw = key.raw();
    let number = match key.algorithm() {
        KeyAlgorithm::Rsa { .. } => key.rsa_modulus().unwrap_or_default(),
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::EcdsaP521 => {
            raw.get(1..=raw.len() / 2).unwrap_or_default()
        }
        KeyAlgorithm::Ed25519 => raw,
    };
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    number.get(zeros..).unwrap_or_default()
}
