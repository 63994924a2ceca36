//! MACs over rows: what makes a row of the database more than somebody's claim (DESIGN §5).

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::hmac;
use pki::ErrorClass;

use crate::Canonical;

/// A row whose contents a MAC protects.
pub trait Sealable {
    /// The table's name; part of what is sealed, so that a row cannot move to another table.
    const TABLE: &'static str;

    /// Appends every column, the key included.
    fn encode(&self, canonical: &mut Canonical);
}

/// The MAC of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMac {
    /// The version of the tier secret that the key came from.
    pub key_version: u32,
    /// HMAC-SHA-256 over the label, the table's name and the canonical row.
    pub mac: [u8; 32],
}

/// A row with its MAC. Made by [`RowMacKeys::seal`], or by a backend from what it stored; in the
/// second case nothing is known about it before [`RowMacKeys::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed<T> {
    row: T,
    mac: RowMac,
}

impl<T> Sealed<T> {
    /// For backends: a row as it was stored.
    #[must_use]
    pub const fn from_stored(row: T, mac: RowMac) -> Self {
        Self { row, mac }
    }

    /// The row, its MAC not checked: for backends that store it, and for lists that grant nothing.
    #[must_use]
    pub const fn unverified(&self) -> &T {
        &self.row
    }

    /// The MAC. It names this very row, every column included, so it serves as the row's
    /// fingerprint in a [`Citation`](crate::Citation).
    #[must_use]
    pub const fn mac(&self) -> &RowMac {
        &self.mac
    }
}

/// Why a row does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// No key is known for the version that sealed the row.
    #[error(
        "a row of table {table} was sealed with version {version} of the tier secret, which is not known"
    )]
    UnknownKey {
        /// The table.
        table: &'static str,
        /// The version.
        version: u32,
    },
    /// The row is not what was sealed.
    #[error("a row of table {table} was changed by something else than a signer")]
    Changed {
        /// The table.
        table: &'static str,
    },
    /// There is no key to seal with.
    #[error("there is no key for row MACs")]
    NoKey,
}

impl MacError {
    /// How this error is to be treated.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Fatal
    }
}

/// The keys of row MACs, one for each version of the tier secret. The newest seals.
pub struct RowMacKeys {
    newest: (u32, hmac::Key),
    older: BTreeMap<u32, hmac::Key>,
}

impl RowMacKeys {
    /// From the derived key of each version of the tier secret (label `chancery row mac v1`).
    ///
    /// # Errors
    /// When there is none.
    pub fn new<'a>(versions: impl IntoIterator<Item = (u32, &'a [u8; 32])>) -> Result<Self, MacError> {
        let mut older: BTreeMap<_, _> = versions
            .into_iter()
            .map(|(version, key)| (version, hmac::Key::new(hmac::HMAC_SHA256, key)))
            .collect();
        let newest = older.pop_last().ok_or(MacError::NoKey)?;
        Ok(Self { newest, older })
    }

    /// Seals a row with the newest key.
    #[must_use]
    pub fn seal<T: Sealable>(&self, row: T) -> Sealed<T> {
        let (key_version, key) = &self.newest;
        let tag = hmac::sign(key, message(*key_version, &row).as_bytes());
        let mut mac = [0; 32];
        mac.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Sealed { row, mac: RowMac { key_version: *key_version, mac } }
    }

    /// The row, if it is the one that was sealed. Constant-time in the MAC.
    ///
    /// # Errors
    /// When it is not, or its key is not known.
    pub fn verify<'a, T: Sealable>(&self, sealed: &'a Sealed<T>) -> Result<&'a T, MacError> {
        let version = sealed.mac.key_version;
        let key = if version == self.newest.0 { Some(&self.newest.1) } else { self.older.get(&version) }
            .ok_or(MacError::UnknownKey { table: T::TABLE, version })?;
        hmac::verify(key, message(version, &sealed.row).as_bytes(), &sealed.mac.mac)
            .map_err(|_| MacError::Changed { table: T::TABLE })?;
        Ok(&sealed.row)
    }

    /// [`RowMacKeys::verify`] for a row that is wanted by value.
    ///
    /// # Errors
    /// As there.
    pub fn open<T: Sealable>(&self, sealed: Sealed<T>) -> Result<T, MacError> {
        self.verify(&sealed)?;
        Ok(sealed.row)
    }
}

impl fmt::Debug for RowMacKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowMacKeys").field("newest", &self.newest.0).finish_non_exhaustive()
    }
}

/// What the MAC is computed over: label, key version, table, row.
fn message<T: Sealable>(key_version: u32, row: &T) -> Canonical {
    let mut canonical = Canonical::new();
    canonical.column(LABEL);
    canonical.column(&key_version);
    canonical.column(T::TABLE);
    row.encode(&mut canonical);
    canonical
}

const LABEL: &str = "chancery row mac v1";
