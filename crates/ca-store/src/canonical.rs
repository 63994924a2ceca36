//! The one encoding of a row that its MAC, and the audit chain, are computed over.
//!
//! A row is the concatenation of its columns in the order of the struct. A column is a tag and its
//! contents, so that no two rows share an encoding:
//!
//! | tag | contents |
//! |---|---|
//! | `00` | an absent value |
//! | `01` | octets: length (`u32`, big-endian), octets |
//! | `02` | text: length in octets (`u32`, big-endian), UTF-8 |
//! | `03` | an integer: `i64`, big-endian (times: seconds since the epoch) |
//! | `04` | a list: count (`u32`, big-endian), each element as a column |
//!
//! A migration may only append columns, and a column that it appended is left out of the encoding
//! while it is absent ([`Canonical::appended`]): rows sealed before it keep their MAC.

use pki::{Serial, Timestamp};

/// A row being encoded.
#[derive(Debug, Default)]
pub struct Canonical {
    bytes: Vec<u8>,
}

impl Canonical {
    const ABSENT: u8 = 0;
    const OCTETS: u8 = 1;
    const TEXT: u8 = 2;
    const INTEGER: u8 = 3;
    const LIST: u8 = 4;

    /// An empty encoding.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(512) }
    }

    /// Appends a column.
    pub fn column(&mut self, value: &(impl Column + ?Sized)) {
        value.encode(self);
    }

    /// Appends a column that a migration added to its table: nothing while it is absent.
    pub fn appended<T: Column>(&mut self, value: &Option<T>) {
        if let Some(value) = value {
            value.encode(self);
        }
    }

    /// What was encoded.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn counted(&mut self, tag: u8, octets: &[u8]) {
        self.bytes.push(tag);
        self.count(octets.len());
        self.bytes.extend_from_slice(octets);
    }

    fn count(&mut self, count: usize) {
        // No column reaches 4 GiB: the databases refuse it long before.
        self.bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn integer(&mut self, value: i64) {
        self.bytes.push(Self::INTEGER);
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
}

/// A value that a column of a sealed row can have.
pub trait Column {
    /// Appends the value's encoding.
    fn encode(&self, canonical: &mut Canonical);
}

impl Column for str {
    fn encode(&self, canonical: &mut Canonical) {
        canonical.counted(Canonical::TEXT, self.as_bytes());
    }
}

impl Column for String {
    fn encode(&self, canonical: &mut Canonical) {
        self.as_str().encode(canonical);
    }
}

impl Column for [u8] {
    fn encode(&self, canonical: &mut Canonical) {
        canonical.counted(Canonical::OCTETS, self);
    }
}

impl Column for Vec<u8> {
    fn encode(&self, canonical: &mut Canonical) {
        self.as_slice().encode(canonical);
    }
}

impl<const N: usize> Column for [u8; N] {
    fn encode(&self, canonical: &mut Canonical) {
        self.as_slice().encode(canonical);
    }
}

impl Column for Serial {
    fn encode(&self, canonical: &mut Canonical) {
        self.as_bytes().encode(canonical);
    }
}

impl Column for i64 {
    fn encode(&self, canonical: &mut Canonical) {
        canonical.integer(*self);
    }
}

impl Column for u64 {
    /// Stores hold 63 bits; what does not fit is encoded as the greatest that does, and could not
    /// be stored anyway.
    fn encode(&self, canonical: &mut Canonical) {
        canonical.integer(i64::try_from(*self).unwrap_or(i64::MAX));
    }
}

impl Column for u32 {
    fn encode(&self, canonical: &mut Canonical) {
        canonical.integer(i64::from(*self));
    }
}

impl Column for bool {
    fn encode(&self, canonical: &mut Canonical) {
        canonical.integer(i64::from(*self));
    }
}

impl Column for Timestamp {
    fn encode(&self, canonical: &mut Canonical) {
        self.unix().encode(canonical);
    }
}

impl<T: Column> Column for Option<T> {
    fn encode(&self, canonical: &mut Canonical) {
        match self {
            None => canonical.bytes.push(Canonical::ABSENT),
            Some(value) => value.encode(canonical),
        }
    }
}

impl Column for Vec<String> {
    fn encode(&self, canonical: &mut Canonical) {
        canonical.bytes.push(Canonical::LIST);
        canonical.count(self.len());
        self.iter().for_each(|element| element.encode(canonical));
    }
}

/// Defines the row of a table whose rows carry a MAC. That every column is encoded, in the order
/// written, follows from there being no other place to write a column.
macro_rules! sealed_row {
    (
        $(#[$meta:meta])*
        pub struct $row:ident in $table:literal by ($($key:ident),+) {
            $( $(#[$field_meta:meta])* pub $field:ident: $type:ty, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $row {
            $( $(#[$field_meta])* pub $field: $type, )+
        }

        impl crate::Sealable for $row {
            const TABLE: &'static str = $table;

            fn key(&self) -> String {
                [$( crate::canonical::KeyPart::part(&self.$key) ),+].join("/")
            }

            fn encode(&self, canonical: &mut crate::Canonical) {
                $( canonical.column(&self.$field); )+
            }
        }

        #[cfg(test)]
        impl crate::row_mac::tests::Altered for $row {
            fn altered_rows(&self) -> Vec<(&'static str, Self)> {
                vec![ $( (stringify!($field), {
                    let mut row = self.clone();
                    row.$field = crate::row_mac::tests::AlteredColumn::altered(&row.$field);
                    row
                }), )+ ]
            }
        }
    };
}

/// A column of a key, as people read it.
pub(crate) trait KeyPart {
    /// The text.
    fn part(&self) -> String;
}

impl KeyPart for String {
    fn part(&self) -> String {
        self.clone()
    }
}

impl KeyPart for Serial {
    fn part(&self) -> String {
        self.to_string()
    }
}

impl KeyPart for crate::Digest {
    fn part(&self) -> String {
        self.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

impl KeyPart for crate::JournalKind {
    fn part(&self) -> String {
        self.as_str().to_owned()
    }
}

/// Defines an enum of words, stored and encoded as that text.
macro_rules! word_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[$variant_meta])* $variant, )+ }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The word that is stored.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }

            /// The variant of a stored word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $( $word => Some(Self::$variant), )+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl crate::Column for $name {
            fn encode(&self, canonical: &mut crate::Canonical) {
                canonical.column(self.as_str());
            }
        }

        #[cfg(test)]
        impl crate::row_mac::tests::AlteredColumn for $name {
            fn altered(&self) -> Self {
                *Self::ALL.iter().find(|other| *other != self).unwrap()
            }
        }
    };
}

pub(crate) use sealed_row;
pub(crate) use word_enum;
