//! MACs over rows: what makes a row of the database more than somebody's claim (DESIGN §5).

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::hmac;
use pki::ErrorClass;

use crate::Canonical;

/// A row whose contents a MAC protects.
pub trait Sealable {
    /// The table's name; part of what is sealed, so that a row cannot move to another table.
    const TABLE: &'static str;

    /// The row's key, as people read it: columns joined by slashes.
    fn key(&self) -> String;

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
        "row {key:?} of table {table} was sealed with version {version} of the tier secret, which is not known"
    )]
    UnknownKey {
        /// The table.
        table: &'static str,
        /// The row's key, as the row has it.
        key: String,
        /// The version.
        version: u32,
    },
    /// The row is not what was sealed.
    #[error("row {key:?} of table {table} was changed by something else than a signer")]
    Changed {
        /// The table.
        table: &'static str,
        /// The row's key, as the row has it.
        key: String,
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

    /// Table and key of the row that does not count.
    #[must_use]
    pub fn row(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::UnknownKey { table, key, .. } | Self::Changed { table, key } => Some((table, key)),
            Self::NoKey => None,
        }
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
            .ok_or_else(|| MacError::UnknownKey { table: T::TABLE, key: sealed.row.key(), version })?;
        hmac::verify(key, message(version, &sealed.row).as_bytes(), &sealed.mac.mac)
            .map_err(|_| MacError::Changed { table: T::TABLE, key: sealed.row.key() })?;
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

#[cfg(test)]
pub(crate) mod tests {
    use pki::{Serial, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::*;

    /// A row with each of its columns altered, one at a time. Implemented by `sealed_row!`, from the
    /// same list of columns as the row.
    pub(crate) trait Altered: Sized {
        fn altered_rows(&self) -> Vec<(&'static str, Self)>;
    }

    /// A value of a column, altered.
    pub(crate) trait AlteredColumn {
        fn altered(&self) -> Self;
    }

    impl AlteredColumn for String {
        fn altered(&self) -> Self {
            format!("{self}x")
        }
    }

    impl AlteredColumn for Vec<String> {
        /// The same text, divided in another way.
        fn altered(&self) -> Self {
            if self.len() > 1 { vec![self.concat()] } else { vec![String::new(), self.concat()] }
        }
    }

    impl AlteredColumn for Vec<u8> {
        fn altered(&self) -> Self {
            let mut octets = self.clone();
            octets.push(0);
            octets
        }
    }

    impl<const N: usize> AlteredColumn for [u8; N] {
        fn altered(&self) -> Self {
            let mut octets = *self;
            octets[N - 1] ^= 1;
            octets
        }
    }

    impl AlteredColumn for bool {
        fn altered(&self) -> Self {
            !self
        }
    }

    impl AlteredColumn for u32 {
        fn altered(&self) -> Self {
            self ^ 1
        }
    }

    impl AlteredColumn for u64 {
        fn altered(&self) -> Self {
            self ^ 1
        }
    }

    impl AlteredColumn for Timestamp {
        fn altered(&self) -> Self {
            Self::from_unix(self.unix() ^ 1)
        }
    }

    impl AlteredColumn for Serial {
        fn altered(&self) -> Self {
            let mut octets = self.as_bytes().to_vec();
            *octets.last_mut().unwrap() ^= 1;
            Self::from_bytes(&octets).unwrap()
        }
    }

    impl<T: AlteredColumn + Empty> AlteredColumn for Option<T> {
        /// Present becomes absent, absent becomes present and empty.
        fn altered(&self) -> Self {
            if self.is_some() { None } else { Some(T::empty()) }
        }
    }

    /// The value that is most like none.
    pub(crate) trait Empty {
        fn empty() -> Self;
    }

    impl Empty for String {
        fn empty() -> Self {
            Self::new()
        }
    }

    impl Empty for Vec<u8> {
        fn empty() -> Self {
            Self::new()
        }
    }

    impl Empty for [u8; 32] {
        fn empty() -> Self {
            [0; 32]
        }
    }

    impl Empty for u32 {
        fn empty() -> Self {
            0
        }
    }

    impl Empty for Serial {
        fn empty() -> Self {
            Self::from_bytes(&[1]).unwrap()
        }
    }

    impl Empty for Timestamp {
        fn empty() -> Self {
            Self::from_unix(0)
        }
    }

    fn keys() -> RowMacKeys {
        RowMacKeys::new([(1, &[1; 32]), (2, &[2; 32])]).unwrap()
    }

    /// Whether a row's MAC holds for the row, and breaks when any column, any octet of the MAC, its
    /// key or its table is another.
    fn is_sealed<T: Sealable + Altered + Clone + fmt::Debug + PartialEq>(row: &T) {
        let keys = keys();
        let sealed = keys.seal(row.clone());
        assert_eq!(keys.verify(&sealed), Ok(row));
        let changed = Err(MacError::Changed { table: T::TABLE, key: row.key() });
        for (column, other) in row.altered_rows() {
            // The key that is reported is the one that the row says.
            let error = MacError::Changed { table: T::TABLE, key: other.key() };
            let forged = Sealed::from_stored(other, sealed.mac.clone());
            assert_eq!(keys.verify(&forged), Err(error.clone()), "{}.{column}", T::TABLE);
            assert_eq!(keys.open(forged), Err(error));
        }
        for octet in 0..32 {
            let mut mac = sealed.mac.clone();
            mac.mac[octet] ^= 0x80;
            assert_eq!(keys.verify(&Sealed::from_stored(row.clone(), mac)), changed);
        }
        let other_key = RowMac { key_version: 1, ..sealed.mac.clone() };
        assert_eq!(keys.verify(&Sealed::from_stored(row.clone(), other_key)), changed);
        let no_key = RowMac { key_version: 3, ..sealed.mac };
        let unknown = Err(MacError::UnknownKey { table: T::TABLE, key: row.key(), version: 3 });
        assert_eq!(keys.verify(&Sealed::from_stored(row.clone(), no_key)), unknown);
    }

    fn text() -> impl Strategy<Value = String> {
        "[a-z \"\u{0}ü]{0,6}"
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        (0u64..1 << 37).prop_map(Timestamp::from_unix)
    }

    prop_compose! {
        fn journal_row()(
            serial in any::<[u8; 16]>(),
            kind in 0..JournalKind::ALL.len(),
            order in proptest::option::of(text()),
            new_order in proptest::option::of(any::<[u8; 32]>()),
            directory in proptest::option::of(text()),
            account in proptest::option::of(text()),
            issuer in text(),
            profile in text(),
            shard in any::<u32>(),
            spki_sha256 in any::<[u8; 32]>(),
            csr_sha256 in proptest::option::of(any::<[u8; 32]>()),
            not_before in time(),
            not_after in time(),
            tbs in proptest::collection::vec(any::<u8>(), 0..40),
            created_at in time(),
            signature in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            signed_at in proptest::option::of(time()),
            abandoned_at in proptest::option::of(time()),
            replaces in proptest::option::of(any::<[u8; 16]>()),
            counted in any::<bool>(),
        ) -> JournalRow {
            let (serial, kind) = (Serial::from_random(serial), JournalKind::ALL[kind]);
            let replaces = replaces.map(Serial::from_random);
            JournalRow {
                serial, kind, order, new_order, directory, account, issuer, profile, shard, spki_sha256,
                csr_sha256, not_before, not_after, tbs, created_at, signature, signed_at, abandoned_at,
                replaces, counted,
            }
        }
    }

    prop_compose! {
        fn account_row()(
            id in text(),
            directory in text(),
            status in 0..AccountStatus::ALL.len(),
            contacts in proptest::collection::vec(text(), 0..3),
            terms_agreed_at in proptest::option::of(time()),
            terms_agreed in proptest::option::of(text()),
            registration in proptest::option::of(text()),
            eab_kid in proptest::option::of(text()),
            key in any::<[u8; 32]>(),
            created_at in time(),
            version in 0u64..1 << 60,
        ) -> AccountRow {
            let status = AccountStatus::ALL[status];
            AccountRow {
                id, directory, status, contacts, terms_agreed_at, terms_agreed, registration, eab_kid, key,
                created_at, version,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_journal_row_is_sealed_in_every_column(row in journal_row()) {
            is_sealed(&row);
        }

        #[test]
        fn an_account_is_sealed_in_every_column(row in account_row()) {
            is_sealed(&row);
        }

        /// Texts and octets do not run into each other.
        #[test]
        fn columns_have_borders(a in text(), b in text(), c in text(), d in text()) {
            prop_assume!((&a, &b) != (&c, &d));
            let encoding = |first: &String, second: &String| {
                let mut canonical = Canonical::new();
                canonical.column(first);
                canonical.column(second);
                canonical.as_bytes().to_vec()
            };
            prop_assert_ne!(encoding(&a, &b), encoding(&c, &d));
        }
    }

    fn word() -> String {
        "word".to_owned()
    }

    #[test]
    fn rows_of_the_registry_are_sealed_in_every_column() {
        let (at, version, state) = (Timestamp::from_unix(9), 3, State::Active);
        is_sealed(&TenantRow { id: word(), title: word(), state, created_at: at, version });
        is_sealed(&DirectoryRow {
            name: word(),
            tenant: word(),
            policy: word(),
            state,
            created_at: at,
            version,
        });
        is_sealed(&ProfileRow { name: word(), body: word(), state, created_at: at, version });
        is_sealed(&IssuerRow {
            id: word(),
            certificate: vec![1],
            settings: word(),
            shards: 1,
            state: IssuerState::Active,
            created_at: at,
            version,
        });
    }

    #[test]
    fn rows_of_authority_are_sealed_in_every_column() {
        let (at, version, state) = (Timestamp::from_unix(9), 3, State::Active);
        is_sealed(&RegistrationRow {
            id: word(),
            directory: word(),
            title: word(),
            settings: word(),
            state,
            created_at: at,
            version,
        });
        let eab = EabKeyRow {
            kid: word(),
            registration: word(),
            secret_version: 1,
            epoch: 1,
            max_uses: Some(1),
            uses: 0,
            state: EabState::Active,
            expires_at: None,
            created_at: at,
            version,
        };
        is_sealed(&eab);
        is_sealed(&EabKeyRow { max_uses: None, expires_at: Some(at), ..eab });
        let (id, registration, name, scope) = (word(), word(), word(), NameScope::Exact);
        is_sealed(&PermitRow {
            id: id.clone(),
            registration: registration.clone(),
            scope,
            name: name.clone(),
            state,
            created_at: at,
            version,
        });
        is_sealed(&GrantRow {
            id,
            registration,
            scope,
            name,
            state,
            expires_at: None,
            created_at: at,
            version,
        });
        is_sealed(&DeactivationRow { authorization: word(), account: word(), request: vec![1], at });
        is_sealed(&AccountKeyRow {
            directory: word(),
            thumbprint: [1; 32],
            account: word(),
            jwk: word(),
            valid_from: at,
            valid_until: None,
        });
    }

    #[test]
    fn an_incident_is_sealed_in_every_column() {
        let at = Timestamp::from_unix(9);
        let row = IncidentRow {
            id: word(),
            title: word(),
            url: word(),
            settings: word(),
            reason: 4,
            waves: 3,
            begins_at: at,
            wave_seconds: 60,
            deadline: at,
            state: IncidentState::Open,
            created_at: at,
            ended_at: None,
            version: 3,
        };
        is_sealed(&row);
        is_sealed(&IncidentRow { ended_at: Some(at), ..row });
    }

    #[test]
    fn rows_of_nodes_are_sealed_in_every_column() {
        let (at, version) = (Timestamp::from_unix(9), 3);
        is_sealed(&NodeRow {
            role: word(),
            name: word(),
            settings: word(),
            receipt_key: None,
            server_names: vec![word(), word()],
            state: NodeState::Active,
            created_at: at,
            version,
        });
        is_sealed(&JoinTokenRow {
            digest: [1; 32],
            role: word(),
            name: word(),
            server_names: vec![],
            settings: word(),
            expires_at: at,
            used_at: None,
            created_at: at,
            version,
        });
    }

    #[test]
    fn a_row_does_not_move_to_another_table() {
        let (word, state, created_at, version) = ("w".to_owned(), State::Active, Timestamp::from_unix(1), 1);
        let tenant = TenantRow { id: word.clone(), title: word.clone(), state, created_at, version };
        let profile = ProfileRow { name: word.clone(), body: word, state, created_at, version };
        let (mut one, mut other) = (Canonical::new(), Canonical::new());
        tenant.encode(&mut one);
        profile.encode(&mut other);
        assert_eq!(one.as_bytes(), other.as_bytes(), "alike in every column");
        let sealed = keys().seal(tenant);
        let moved = Sealed::from_stored(profile, sealed.mac);
        assert_eq!(keys().verify(&moved), Err(MacError::Changed { table: "profiles", key: "w".to_owned() }));
    }

    /// The encoding is stored in every database there is: if this fails, no row of any is valid.
    #[test]
    fn the_encoding_stays_what_it_is() {
        let row = DeactivationRow {
            authorization: "ab".to_owned(),
            account: String::new(),
            request: vec![0xff, 0],
            at: Timestamp::from_unix(0x0102_0304),
        };
        let label = "02000000136368616e6365727920726f77206d6163207631";
        let expected = format!(
            "{label}{key_version}{table}{authorization}{account}{request}{at}",
            key_version = "030000000000000002",
            table = "020000000d646561637469766174696f6e73",
            authorization = "02000000026162",
            account = "0200000000",
            request = "0100000002ff00",
            at = "030000000001020304",
        );
        let hex: String = message(2, &row).as_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hex, expected);
        let mut rest = Canonical::new();
        rest.column(&None::<u32>);
        rest.column(&vec!["a".to_owned(), String::new()]);
        rest.column(&true);
        rest.appended(&None::<u32>);
        rest.appended(&Some(1_u32));
        let hex: String = rest.as_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hex, "0004000000020200000001610200000000030000000000000001030000000000000001");
        let mac: String = keys().seal(row).mac.mac.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(mac, "52123ee371c3f2c19cc80da31df73f0c7319519718af7aea38f3e73bc78cbe1e");
    }

    #[test]
    fn the_newest_key_seals_and_older_ones_verify() {
        let row = TenantRow {
            id: "t".to_owned(),
            title: String::new(),
            state: State::Active,
            created_at: Timestamp::from_unix(1),
            version: 1,
        };
        let old = RowMacKeys::new([(1, &[1; 32])]).unwrap().seal(row.clone());
        assert_eq!(keys().verify(&old), Ok(&row));
        assert_eq!(keys().seal(row.clone()).mac().key_version, 2);
        let other = RowMacKeys::new([(1, &[9; 32])]).unwrap();
        assert_eq!(other.verify(&old), Err(MacError::Changed { table: "tenants", key: "t".to_owned() }));
        assert_eq!(RowMacKeys::new([]).unwrap_err(), MacError::NoKey);
        assert_eq!(format!("{:?}", keys()), "RowMacKeys { newest: 2, .. }");
    }
}
