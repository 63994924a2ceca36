//! Accounts and their keys.

use ca_store::{
    AccountFilter, AccountKeyRow, AccountRecord, AccountRow, AccountSelector, AccountStatus, AccountUpdate,
    Citation, CitedTable, Cursor, Digest, NewAccount, Page, Paged, RegisterOutcome, Sealed, UpdateOutcome,
};
use sqlx::SqliteConnection;

use super::{
    Context,
    put::{self, Standing},
    put_rows,
};
use crate::{
    failure::Failure,
    page,
    rows::list,
    stored::{Table, number, optional_seconds, seconds},
    writer::Change,
};

const ACCOUNTS: Table = Table("accounts");
const ACCOUNT_KEYS: Table = Table("account_keys");

impl Change<Context> for NewAccount {
    type Outcome = RegisterOutcome;

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        context: &mut Context,
    ) -> Result<RegisterOutcome, Failure> {
        let key = self.key.unverified();
        let by_key = AccountSelector::Key { directory: key.directory.clone(), thumbprint: key.thumbprint };
        if let Some(record) = record(connection, &by_key).await? {
            let in_force = record.account.unverified().key == key.thumbprint;
            return Ok(if in_force {
                RegisterOutcome::Exists(Box::new(record))
            } else {
                RegisterOutcome::KeyRetired
            });
        }
        for (place, citation) in self.cites.iter().enumerate() {
            if !still_there(connection, citation).await? {
                return Ok(RegisterOutcome::AuthorityChanged(place));
            }
        }
        if let Some(eab) = &self.eab {
            // The very row being there is another registration that used it up, with the same bytes.
            match put::standing(connection, eab).await? {
                Standing::Replaceable => put_rows::write(connection, &eab.row).await?,
                Standing::There | Standing::Other => return Ok(RegisterOutcome::EabUnavailable),
            }
        }
        insert_account(connection, &self.account).await?;
        insert_key(connection, &self.key).await?;
        context.audit.extend_from_slice(&self.audit);
        Ok(RegisterOutcome::Created)
    }
}

async fn insert_account(
    connection: &mut SqliteConnection,
    account: &Sealed<AccountRow>,
) -> Result<(), Failure> {
    let (row, mac) = (account.unverified(), account.mac());
    sqlx::query!(
        "INSERT INTO accounts (
            id, directory, status, contacts, terms_agreed_at, terms_agreed, registration, eab_kid, key,
            created_at, version, mac_version, mac)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row.id,
        row.directory,
        row.status.as_str(),
        list(&row.contacts),
        optional_seconds(row.terms_agreed_at),
        row.terms_agreed,
        row.registration,
        row.eab_kid,
        row.key.as_slice(),
        seconds(row.created_at),
        number(row.version),
        i64::from(mac.key_version),
        mac.mac.as_slice()
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_key(connection: &mut SqliteConnection, key: &Sealed<AccountKeyRow>) -> Result<(), Failure> {
    let (row, mac) = (key.unverified(), key.mac());
    sqlx::query!(
        "INSERT INTO account_keys (
            directory, thumbprint, account, jwk, valid_from, valid_until, mac_version, mac)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        row.directory,
        row.thumbprint.as_slice(),
        row.account,
        row.jwk,
        seconds(row.valid_from),
        optional_seconds(row.valid_until),
        i64::from(mac.key_version),
        mac.mac.as_slice()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a cited row is as it was read.
async fn still_there(connection: &mut SqliteConnection, citation: &Citation) -> Result<bool, Failure> {
    let (key, mac) = (&citation.key, citation.mac.as_slice());
    macro_rules! count {
        ($query:literal) => {
            sqlx::query_scalar!($query, key, mac).fetch_one(connection).await?
        };
    }
    let count = match citation.table {
        CitedTable::Account => count!("SELECT count(*) FROM accounts WHERE id = ? AND mac = ?"),
        CitedTable::Registration => count!("SELECT count(*) FROM registrations WHERE id = ? AND mac = ?"),
        CitedTable::EabKey => count!("SELECT count(*) FROM eab_keys WHERE kid = ? AND mac = ?"),
        CitedTable::Permit => count!("SELECT count(*) FROM permits WHERE id = ? AND mac = ?"),
        CitedTable::Grant => count!("SELECT count(*) FROM grants WHERE id = ? AND mac = ?"),
        CitedTable::Directory => count!("SELECT count(*) FROM directories WHERE name = ? AND mac = ?"),
        CitedTable::Profile => count!("SELECT count(*) FROM profiles WHERE name = ? AND mac = ?"),
        CitedTable::Issuer => count!("SELECT count(*) FROM issuers WHERE id = ? AND mac = ?"),
    };
    Ok(count > 0)
}

impl Change<Context> for AccountUpdate {
    type Outcome = UpdateOutcome;

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        context: &mut Context,
    ) -> Result<UpdateOutcome, Failure> {
        let account = self.account.unverified();
        let by_id = AccountSelector::Id(account.id.clone());
        let Some(now) = record(connection, &by_id).await? else { return Ok(UpdateOutcome::Unknown) };
        if let Some(request) = &self.request
            && was_accepted(connection, &account.id, request).await?
        {
            return Ok(UpdateOutcome::Replayed(Box::new(now)));
        }
        if now.account.unverified().version != self.expected {
            return Ok(UpdateOutcome::Conflict(Box::new(now)));
        }
        if let Some(change) = &self.key {
            let key = change.key.unverified();
            let by_key =
                AccountSelector::Key { directory: key.directory.clone(), thumbprint: key.thumbprint };
            if let Some(other) = record(connection, &by_key).await? {
                return Ok(UpdateOutcome::KeyInUse(other.account.unverified().id.clone()));
            }
            retire_key(connection, &change.retired).await?;
            insert_key(connection, &change.key).await?;
        }
        update_account(connection, &self.account).await?;
        if let Some(request) = &self.request {
            sqlx::query!(
                "INSERT INTO account_requests (account, digest) VALUES (?, ?)",
                account.id,
                request.as_slice()
            )
            .execute(connection)
            .await?;
        }
        context.audit.extend_from_slice(&self.audit);
        Ok(UpdateOutcome::Updated)
    }
}

async fn was_accepted(
    connection: &mut SqliteConnection,
    account: &str,
    request: &Digest,
) -> Result<bool, Failure> {
    let count = sqlx::query_scalar!(
        "SELECT count(*) FROM account_requests WHERE account = ? AND digest = ?",
        account,
        request.as_slice()
    )
    .fetch_one(connection)
    .await?;
    Ok(count > 0)
}

/// What never changes of an account, its id, directory and time of creation, is not written.
async fn update_account(
    connection: &mut SqliteConnection,
    account: &Sealed<AccountRow>,
) -> Result<(), Failure> {
    let (row, mac) = (account.unverified(), account.mac());
    sqlx::query!(
        "UPDATE accounts SET status = ?, contacts = ?, terms_agreed_at = ?, terms_agreed = ?, registration = ?,
                eab_kid = ?, key = ?, version = ?, mac_version = ?, mac = ?
         WHERE id = ?",
        row.status.as_str(),
        list(&row.contacts),
        optional_seconds(row.terms_agreed_at),
        row.terms_agreed,
        row.registration,
        row.eab_kid,
        row.key.as_slice(),
        number(row.version),
        i64::from(mac.key_version),
        mac.mac.as_slice(),
        row.id
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn retire_key(connection: &mut SqliteConnection, key: &Sealed<AccountKeyRow>) -> Result<(), Failure> {
    let (row, mac) = (key.unverified(), key.mac());
    sqlx::query!(
        "UPDATE account_keys SET valid_until = ?, mac_version = ?, mac = ? WHERE directory = ? AND thumbprint = ?",
        optional_seconds(row.valid_until),
        i64::from(mac.key_version),
        mac.mac.as_slice(),
        row.directory,
        row.thumbprint.as_slice()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An account as it is stored.
struct Stored {
    row: i64,
    id: String,
    directory: String,
    status: String,
    contacts: String,
    terms_agreed_at: Option<i64>,
    terms_agreed: Option<String>,
    registration: Option<String>,
    eab_kid: Option<String>,
    key: Vec<u8>,
    created_at: i64,
    version: i64,
    mac_version: i64,
    mac: Vec<u8>,
}

impl Stored {
    fn account(self) -> Result<Sealed<AccountRow>, Failure> {
        let row = AccountRow {
            id: self.id,
            directory: self.directory,
            status: ACCOUNTS.word("status", &self.status, AccountStatus::from_word)?,
            contacts: ACCOUNTS.list("contacts", &self.contacts)?,
            terms_agreed_at: ACCOUNTS.optional_time("terms_agreed_at", self.terms_agreed_at)?,
            terms_agreed: self.terms_agreed,
            registration: self.registration,
            eab_kid: self.eab_kid,
            key: ACCOUNTS.digest("key", self.key)?,
            created_at: ACCOUNTS.time("created_at", self.created_at)?,
            version: ACCOUNTS.unsigned("version", self.version)?,
        };
        Ok(Sealed::from_stored(row, ACCOUNTS.mac(self.mac_version, self.mac)?))
    }
}

/// One statement, so one snapshot: the account is repeated with each of its keys.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    selector: &AccountSelector,
) -> Result<Option<AccountRecord>, Failure> {
    macro_rules! select {
        ($condition:literal, $($argument:expr),+) => {
            sqlx::query_as!(
                StoredWithKey,
                r#"SELECT a.row, a.id, a.directory, a.status, a.contacts, a.terms_agreed_at, a.terms_agreed,
                          a.registration, a.eab_kid, a.key, a.created_at, a.version, a.mac_version, a.mac,
                          k.directory AS key_directory, k.thumbprint, k.jwk, k.valid_from, k.valid_until,
                          k.mac_version AS key_mac_version, k.mac AS key_mac
                   FROM accounts AS a CROSS JOIN account_keys AS k ON k.account = a.id
                   WHERE "# + $condition + " ORDER BY k.rowid",
                $($argument),+
            )
            .fetch_all(connection)
            .await?
        };
    }
    let rows = match selector {
        AccountSelector::Id(id) => select!("a.id = ?", id),
        AccountSelector::Key { directory, thumbprint } => select!(
            "a.id = (SELECT account FROM account_keys WHERE directory = ? AND thumbprint = ?)",
            directory,
            thumbprint.as_slice()
        ),
    };
    let mut account = None;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let (stored, key) = row.split()?;
        keys.push(key);
        account = Some(stored);
    }
    account.map(|stored| Ok(AccountRecord { account: stored.account()?, keys })).transpose()
}

/// An account and one of its keys as they are stored.
struct StoredWithKey {
    row: i64,
    id: String,
    directory: String,
    status: String,
    contacts: String,
    terms_agreed_at: Option<i64>,
    terms_agreed: Option<String>,
    registration: Option<String>,
    eab_kid: Option<String>,
    key: Vec<u8>,
    created_at: i64,
    version: i64,
    mac_version: i64,
    mac: Vec<u8>,
    key_directory: String,
    thumbprint: Vec<u8>,
    jwk: String,
    valid_from: i64,
    valid_until: Option<i64>,
    key_mac_version: i64,
    key_mac: Vec<u8>,
}

impl StoredWithKey {
    fn split(self) -> Result<(Stored, Sealed<AccountKeyRow>), Failure> {
        let key = AccountKeyRow {
            directory: self.key_directory,
            thumbprint: ACCOUNT_KEYS.digest("thumbprint", self.thumbprint)?,
            account: self.id.clone(),
            jwk: self.jwk,
            valid_from: ACCOUNT_KEYS.time("valid_from", self.valid_from)?,
            valid_until: ACCOUNT_KEYS.optional_time("valid_until", self.valid_until)?,
        };
        let key = Sealed::from_stored(key, ACCOUNT_KEYS.mac(self.key_mac_version, self.key_mac)?);
        let stored = Stored {
            row: self.row,
            id: self.id,
            directory: self.directory,
            status: self.status,
            contacts: self.contacts,
            terms_agreed_at: self.terms_agreed_at,
            terms_agreed: self.terms_agreed,
            registration: self.registration,
            eab_kid: self.eab_kid,
            key: self.key,
            created_at: self.created_at,
            version: self.version,
            mac_version: self.mac_version,
            mac: self.mac,
        };
        Ok((stored, key))
    }
}

pub(super) async fn page(
    connection: &mut SqliteConnection,
    filter: &AccountFilter,
    page: &Page,
) -> Result<Paged<Sealed<AccountRow>>, Failure> {
    let [after] = page::numbers(page.after.as_ref().map(|cursor| cursor.0.as_str()), [0]);
    let limit = page.limit.max(1);
    macro_rules! select {
        ($condition:literal, $argument:expr) => {
            sqlx::query_as!(
                Stored,
                "SELECT row, id, directory, status, contacts, terms_agreed_at, terms_agreed, registration,
                        eab_kid, key, created_at, version, mac_version, mac
                 FROM accounts WHERE "
                    + $condition
                    + " AND row > ? ORDER BY row LIMIT ?",
                $argument,
                after,
                limit
            )
            .fetch_all(connection)
            .await?
        };
    }
    let rows = match filter {
        AccountFilter::Directory(directory) => select!("directory = ?", directory),
        AccountFilter::Registration(registration) => select!("registration = ?", registration),
    };
    let next = page::next(rows.len(), limit, || rows.last().map(|row| Cursor(row.row.to_string())));
    Ok(Paged { items: rows.into_iter().map(Stored::account).collect::<Result<_, _>>()?, next })
}
