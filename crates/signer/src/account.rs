//! Accounts and their keys in time, verified when they are read and kept in memory for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acme::{AccountId, DirectoryName, Jwk, Thumbprint};
use ca_store::{AccountRecord, AccountRow, AccountSelector, AccountStatus, Citation, CitedTable, RowMacKeys};
use moka::future::Cache;
use pki::Timestamp;
use url::Url;

use crate::ca::Ca;
use crate::config::Limits;
use crate::events::Change;
use crate::policy::{DirectoryPolicy, TermsChange};
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::request::ClientRequest;

mod binding;
mod key;
mod register;
mod update;

pub(crate) use key::{key_taken, thumbprint_of};
pub(crate) use register::EabTurns;

/// An account whose rows are good.
#[derive(Debug)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its row.
    pub row: AccountRow,
    mac: [u8; 32],
    key: Jwk,
    /// All its keys, the one in force among them.
    keys: Vec<DatedKey>,
}

/// So many former keys are tried before a refusal: an account may have any number of them.
const FORMER_KEYS: usize = 3;

/// A key and when it was the account's.
#[derive(Debug)]
struct DatedKey {
    jwk: Jwk,
    valid_from: Timestamp,
    valid_until: Option<Timestamp>,
}

impl Account {
    /// Verifies an account's rows.
    ///
    /// # Errors
    /// [`Failure::Tampered`] or [`Failure::Unreadable`]: never a refusal.
    fn open(record: AccountRecord, macs: &RowMacKeys) -> Outcome<Self> {
        let mac = record.account.mac().mac;
        let row = macs.open(record.account)?;
        let unreadable =
            |detail: &str| Failure::Unreadable { table: "accounts", detail: format!("{}: {detail}", row.id) };
        let id = row.id.parse().map_err(|_| unreadable("not an account id"))?;
        let mut keys = Vec::with_capacity(record.keys.len());
        for key in record.keys {
            let key = macs.open(key)?;
            let jwk = Jwk::from_json(&key.jwk).map_err(|_| unreadable("not a key"))?;
            // The rows are genuine; here: that they are this account's, and that each says what it is filed under.
            if key.account != row.id
                || key.directory != row.directory
                || jwk.thumbprint().as_bytes() != &key.thumbprint
            {
                return Err(unreadable("a key of something else"));
            }
            keys.push(DatedKey { jwk, valid_from: key.valid_from, valid_until: key.valid_until });
        }
        // The account's row says which key is in force, so that an older key row brought back is not.
        let current = keys.iter().find(|key| key.jwk.thumbprint().as_bytes() == &row.key);
        let key = current.map(|key| key.jwk.clone()).ok_or_else(|| unreadable("its key is missing"))?;
        Ok(Self { id, mac, key, keys, row })
    }

    /// The key in force.
    #[must_use]
    pub const fn key(&self) -> &Jwk {
        &self.key
    }

    /// The keys that were the account's at this second. Two when it changed in that very second.
    pub fn keys_at(&self, at: Timestamp) -> impl Iterator<Item = &Jwk> {
        self.keys.iter().filter(move |key| key.was_valid(at, at)).map(|key| &key.jwk)
    }

    /// Every key that is or was the account's.
    pub fn all_keys(&self) -> impl Iterator<Item = &Jwk> {
        self.keys.iter().map(|key| &key.jwk)
    }

    /// Whether a JWS that the key in force did not sign was signed by one of the last few before it: a key that was taken
    /// out of use and is used all the same is worth a reason of its own.
    #[must_use]
    pub(crate) fn is_former_key_of(&self, jws: &acme::Jws) -> bool {
        let mut former: Vec<_> = self.keys.iter().filter(|key| key.valid_until.is_some()).collect();
        former.sort_by_key(|key| std::cmp::Reverse(key.valid_until));
        former.into_iter().take(FORMER_KEYS).any(|key| jws.verify(&key.jwk).is_ok())
    }

    /// Whether the key with this thumbprint was the account's at this time, which another clock has shown.
    #[must_use]
    pub fn had_key(&self, thumbprint: &Thumbprint, at: Timestamp, skew: Duration) -> bool {
        let skew = pki::Period::from_seconds(skew.as_secs());
        self.keys
            .iter()
            .any(|key| key.jwk.thumbprint() == *thumbprint && key.was_valid(at.minus(skew), at.plus(skew)))
    }

    /// The row as a decision rests on it.
    #[must_use]
    pub fn citation(&self) -> Citation {
        Citation { table: CitedTable::Account, key: self.row.id.clone(), mac: self.mac }
    }

    /// Whether the account need not be asked to agree to the directory's terms of today (RFC 8555 §7.3.3).
    #[must_use]
    pub fn agrees_to(&self, policy: &DirectoryPolicy) -> bool {
        policy.terms_change == TermsChange::Ignore
            || policy.terms_of_service.as_ref().map(Url::as_str) == self.row.terms_agreed.as_deref()
    }

    /// Refuses an account that was given up or taken away (RFC 8555 §7.3.6: 401).
    ///
    /// # Errors
    /// A refusal.
    pub fn must_be_valid(&self, request: &ClientRequest) -> Result<(), Refusal> {
        match self.row.status {
            AccountStatus::Valid => Ok(()),
            AccountStatus::Deactivated | AccountStatus::Revoked => {
                let detail = format!("the account is {}", self.row.status);
                Err(request.refuse(Reason::AccountInactive, detail).status(401))
            }
        }
    }
}

impl DatedKey {
    /// Whether it was valid at some time from `earliest` to `latest`.
    fn was_valid(&self, earliest: Timestamp, latest: Timestamp) -> bool {
        self.valid_from <= latest && self.valid_until.is_none_or(|until| earliest <= until)
    }
}

/// Accounts in memory. What is decided from them is re-checked by the store in the transaction that it leads to, or is nothing that
/// stays; revocations and deactivations read the store first ([`Ca::authenticate_now`]).
#[derive(Debug)]
pub(crate) struct Accounts {
    cache: Cache<AccountId, Arc<Account>>,
    /// Rises with each invalidation: what was read before one is not kept after it.
    generation: AtomicU64,
}

impl Accounts {
    pub(crate) fn new(limits: &Limits) -> Self {
        let cache = Cache::builder()
            .max_capacity(limits.cached_accounts)
            .time_to_live(Duration::from_secs(limits.cached_account_seconds.max(1)))
            .build();
        Self { cache, generation: AtomicU64::new(0) }
    }

    /// Forgets all of them.
    pub(crate) fn forget_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.invalidate_all();
    }
}

impl Ca {
    /// The account with this id, perhaps from memory.
    ///
    /// # Errors
    /// What keeps it from being read.
    pub(crate) async fn account(&self, id: &AccountId) -> Outcome<Option<Arc<Account>>> {
        match self.accounts.cache.get(id).await {
            Some(account) => Ok(Some(account)),
            None => self.reload_account(id).await,
        }
    }

    /// The account as it is in the store.
    pub(crate) async fn reload_account(&self, id: &AccountId) -> Outcome<Option<Arc<Account>>> {
        let generation = self.accounts.generation.load(Ordering::Acquire);
        let selector = AccountSelector::Id(id.to_string());
        let Some(record) = self.store.account(&selector).await? else { return Ok(None) };
        let account = Arc::new(Account::open(record, &self.secrets.rows)?);
        if account.id != *id {
            let detail = "another account than the one asked for".to_owned();
            return Err(Failure::Unreadable { table: "accounts", detail });
        }
        self.keep(generation, &account).await;
        Ok(Some(account))
    }

    /// The account that a key is or was the account's of.
    pub(crate) async fn account_by_key(
        &self,
        directory: &DirectoryName,
        thumbprint: &Thumbprint,
    ) -> Outcome<Option<Arc<Account>>> {
        let selector =
            AccountSelector::Key { directory: directory.to_string(), thumbprint: *thumbprint.as_bytes() };
        match self.store.account(&selector).await? {
            Some(record) => Ok(Some(Arc::new(Account::open(record, &self.secrets.rows)?))),
            None => Ok(None),
        }
    }

    async fn keep(&self, generation: u64, account: &Arc<Account>) {
        if self.accounts.generation.load(Ordering::Acquire) == generation {
            self.accounts.cache.insert(account.id, Arc::clone(account)).await;
        }
    }

    /// Forgets an account here: what was decided from it turned out to be old.
    pub(crate) async fn forget_account(&self, id: &AccountId) {
        self.accounts.generation.fetch_add(1, Ordering::AcqRel);
        self.accounts.cache.invalidate(id).await;
    }

    /// Forgets an account here and tells everybody else to.
    pub(crate) async fn account_changed(&self, id: &AccountId) {
        self.forget_account(id).await;
        self.events.announce(Change::Account { id: id.to_string().into() });
    }

    fn open_account(&self, record: AccountRecord) -> Outcome<Arc<Account>> {
        Ok(Arc::new(Account::open(record, &self.secrets.rows)?))
    }
}
