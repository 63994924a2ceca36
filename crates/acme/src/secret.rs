//! The tier secret, which the signers alone share, and what is derived from it (DESIGN §1).

use std::fmt;
use std::fmt::Write as _;

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::base64url;
use crate::eab::EabKeyId;

/// One version of the tier secret: 32 random bytes. Never printed, wiped when dropped.
#[derive(Clone)]
pub struct TierSecret {
    version: u32,
    bytes: Zeroizing<[u8; 32]>,
}

impl TierSecret {
    /// From its parts; the randomness is the caller's.
    ///
    /// # Errors
    /// [`SecretError::Version`] for version 0, [`SecretError::Weak`] for bytes that are all alike.
    pub fn new(version: u32, bytes: [u8; 32]) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        if version == 0 {
            return Err(SecretError::Version);
        }
        // A file of zeros is what a broken provisioning leaves, and would make every id forgeable.
        if bytes.iter().all(|byte| Some(byte) == bytes.first()) {
            return Err(SecretError::Weak);
        }
        Ok(Self { version, bytes })
    }

    /// The version, which every MAC and EAB key id carries.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// A key for one purpose: HKDF-SHA256 with the label as info. Labels are constants of the code.
    #[must_use]
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"chancery tier secret v1").extract(&*self.bytes);
        let filled =
            secret.expand(&[label.as_bytes()], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *key));
        #[expect(
            clippy::expect_used,
            reason = "HKDF-SHA256 gives 32 bytes for every input; a zero key must not leave"
        )]
        filled.expect("one block of HKDF-SHA256");
        key
    }

    /// The MAC key that belongs to an EAB key id; `None` if the id was made under another version.
    ///
    /// Derived, never stored: whoever reads the `ca` database cannot register with it. The database's epoch is in the
    /// id, so that keys from before a restore can be told apart and refused.
    #[must_use]
    pub fn eab_key(&self, id: &EabKeyId) -> Option<Zeroizing<[u8; 32]>> {
        if id.version() != self.version {
            return None;
        }
        let root = hmac::Key::new(hmac::HMAC_SHA256, &*self.derive("chancery eab v1"));
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(hmac::sign(&root, &id.to_bytes()).as_ref());
        Some(key)
    }

    /// The line for the secret's file.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(64));
        let text = Zeroizing::new(base64url::encode(*self.bytes));
        // Writing to a string does not fail.
        let _ = writeln!(line, "{}:{}", self.version, &*text);
        line
    }
}

impl fmt::Debug for TierSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TierSecret").field("version", &self.version).finish_non_exhaustive()
    }
}

/// All versions that are in use; the newest mints, the others only verify.
#[derive(Debug, Clone)]
pub struct TierSecrets {
    /// By falling version; never empty.
    secrets: Vec<TierSecret>,
}

impl TierSecrets {
    /// From a list.
    ///
    /// # Errors
    /// [`SecretError::Empty`], [`SecretError::Duplicate`].
    pub fn new(mut secrets: Vec<TierSecret>) -> Result<Self, SecretError> {
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.version));
        if secrets.is_empty() {
            return Err(SecretError::Empty);
        }
        if secrets.windows(2).any(|pair| matches!(pair, [a, b] if a.version == b.version)) {
            return Err(SecretError::Duplicate);
        }
        Ok(Self { secrets })
    }

    /// Reads the secret's file: a line `version:base64url` for each version; empty lines and lines with `#` are
    /// skipped.
    ///
    /// # Errors
    /// [`SecretError`], which never quotes the file.
    pub fn from_file(contents: &[u8]) -> Result<Self, SecretError> {
        let text = std::str::from_utf8(contents).map_err(|_| SecretError::Syntax)?;
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self::new(lines.map(Self::read_line).collect::<Result<_, _>>()?)
    }

    fn read_line(line: &str) -> Result<TierSecret, SecretError> {
        let (version, secret) = line.split_once(':').ok_or(SecretError::Syntax)?;
        if !version.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(SecretError::Syntax);
        }
        let version = version.parse().map_err(|_| SecretError::Version)?;
        let bytes = Zeroizing::new(base64url::decode(secret).map_err(|_| SecretError::Syntax)?);
        let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| SecretError::Length)?;
        TierSecret::new(version, bytes)
    }

    /// The version that mints.
    #[must_use]
    pub fn newest(&self) -> &TierSecret {
        #[expect(clippy::expect_used, reason = "`new` refuses an empty list, and nothing removes")]
        self.secrets.first().expect("never empty")
    }

    /// The secret of this version.
    #[must_use]
    pub fn version(&self, version: u32) -> Option<&TierSecret> {
        self.secrets.iter().find(|secret| secret.version == version)
    }

    /// All, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &TierSecret> {
        self.secrets.iter()
    }

    /// The MAC key that belongs to an EAB key id; `None` if its version is not in use any more.
    #[must_use]
    pub fn eab_key(&self, id: &EabKeyId) -> Option<Zeroizing<[u8; 32]>> {
        self.version(id.version())?.eab_key(id)
    }
}

/// Why a tier secret is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// A line is not `version:base64url`.
    #[error("the tier secret's file has a line that is not `version:base64url`")]
    Syntax,
    /// A version is not a number from 1 to 2^32-1.
    #[error("the tier secret's version must be from 1 to 4294967295")]
    Version,
    /// A secret is not of 32 bytes.
    #[error("the tier secret must be 32 bytes")]
    Length,
    /// A secret's bytes are all alike.
    #[error("the tier secret is not random")]
    Weak,
    /// There is none.
    #[error("the tier secret's file holds no secret")]
    Empty,
    /// A version occurs twice.
    #[error("the tier secret's file has a version twice")]
    Duplicate,
}

impl SecretError {
    /// An operator must act.
    #[must_use]
    pub const fn class(self) -> pki::ErrorClass {
        pki::ErrorClass::Fatal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(version: u32, first: u8) -> TierSecret {
        let mut bytes = [7; 32];
        bytes[0] = first;
        TierSecret::new(version, bytes).unwrap()
    }

    #[test]
    fn derivation_is_hkdf_sha256_and_separates_labels_and_secrets() {
        let one = secret(1, 1);
        // RFC 5869 §2, written out: extract, then the first block of expand.
        let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"chancery tier secret v1"), &*one.bytes);
        let block = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref()), b"chancery id v1\x01");
        assert_eq!(&one.derive("chancery id v1")[..], block.as_ref());
        assert_ne!(one.derive("chancery id v1"), one.derive("chancery row mac v1"));
        assert_ne!(one.derive("chancery id v1"), secret(1, 2).derive("chancery id v1"));
    }

    #[test]
    fn the_file_is_read_strictly_and_the_newest_mints() {
        let text = format!("# rotated\n{}\n{}", &*secret(1, 1).to_line(), &*secret(3, 3).to_line());
        let secrets = TierSecrets::from_file(text.as_bytes()).unwrap();
        assert_eq!(secrets.newest().version(), 3);
        assert_eq!(secrets.iter().map(TierSecret::version).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(secrets.version(1).unwrap().derive("x"), secret(1, 1).derive("x"));
        assert!(secrets.version(2).is_none());

        let random = base64url::encode([1, 2].repeat(16));
        let cases = [
            (String::new(), SecretError::Empty),
            (format!("1:{random}\n1:{random}"), SecretError::Duplicate),
            (random.clone(), SecretError::Syntax),
            (format!("1:{random}="), SecretError::Syntax),
            (format!("+1:{random}"), SecretError::Syntax),
            (format!("0:{random}"), SecretError::Version),
            (format!("4294967296:{random}"), SecretError::Version),
            (format!(":{random}"), SecretError::Version),
            (format!("1:{}", base64url::encode([1, 2].repeat(15))), SecretError::Length),
            (format!("1:{}", base64url::encode([0; 32])), SecretError::Weak),
        ];
        for (text, error) in cases {
            assert_eq!(TierSecrets::from_file(text.as_bytes()).unwrap_err(), error, "{text}");
        }
        assert_eq!(TierSecrets::from_file(b"1:\xff").unwrap_err(), SecretError::Syntax);
    }

    #[test]
    fn it_never_prints_itself() {
        let secrets = TierSecrets::new(vec![secret(1, 1)]).unwrap();
        assert_eq!(format!("{secrets:?}"), "TierSecrets { secrets: [TierSecret { version: 1, .. }] }");
    }

    #[test]
    fn an_eab_key_depends_on_everything_in_its_id() {
        let secrets = TierSecrets::new(vec![secret(1, 1), secret(2, 2)]).unwrap();
        let key = |version, epoch, random| secrets.eab_key(&EabKeyId::new(version, epoch, [random; 16]));
        let reference = key(1, 1, 1).unwrap();
        assert_eq!(key(1, 1, 1).unwrap(), reference);
        for other in [key(2, 1, 1), key(1, 2, 1), key(1, 1, 2)] {
            assert_ne!(other.unwrap(), reference);
        }
        assert_eq!(key(3, 1, 1), None);
        assert_eq!(secret(2, 2).eab_key(&EabKeyId::new(1, 1, [1; 16])), None);
    }
}
