//! Account update, deactivation (RFC 8555 §7.3.2, §7.3.6) and key change (RFC 8555 §7.3.5).

use std::sync::Arc;

use acme::account::{Update, UpdateError};
use acme::jws::Verified;
use acme::key_change::{KeyChange, KeyChangeError};
use acme::resource::Resource;
use acme::{AccountId, Jwk};
use ca_store::{AccountKeyRow, AccountRow, AccountStatus, AccountUpdate, UpdateOutcome};
use pki::Timestamp;

use super::register::contact_refusal;
use super::{Account, KeyUse};
use crate::audit::Event;
use crate::ca::Ca;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::request::{AccountSlot, ClientRequest};

/// Concurrent changes of one account meet here.
const TRIES: u32 = 5;

impl Ca {
    /// Changes contacts, notes an agreement, or deactivates the account. Repeating a request changes nothing.
    ///
    /// # Errors
    /// A refusal, or what keeps it from being done.
    pub async fn update_account(&self, account_jws: &[u8]) -> Outcome<Arc<Account>> {
        let request = ClientRequest::read(&self.registry, account_jws)?;
        let Resource::Account(id) = *request.resource() else {
            return Err(request.wrong_operation().into());
        };
        if request.account_id(&self.registry)? != id {
            return Err(request
                .refuse(Reason::AccountForeign, "the JWS is for another account than its signer")
                .into());
        }
        for _ in 0..TRIES {
            let found = AccountSlot::default();
            let (account, verified) = self.authenticate(&request, &found).await?;
            let update = Update::from_verified(&verified).map_err(|error| update_refusal(&request, error))?;
            let now = self.now()?;
            let row = account.row.clone();
            let version = row.version + 1;
            let (row, event) = match update {
                Update::Nothing => return Ok(Arc::clone(account)),
                Update::Deactivate => {
                    let event = Event::AccountDeactivated { account: &account.row.id };
                    (AccountRow { status: AccountStatus::Deactivated, version, ..row }, event)
                }
                Update::Change { contacts, agrees } => {
                    let contacts = contacts.map(|all| all.iter().map(ToString::to_string).collect());
                    let contacts = contacts.unwrap_or_else(|| row.contacts.clone());
                    let row = agreement(&request, row, agrees, now);
                    // Also when nothing changes: the request is remembered, and cannot be played again after another one,
                    // nor be taken for an agreement to later terms.
                    let event = Event::AccountUpdated { account: &account.row.id };
                    (AccountRow { contacts, version, ..row }, event)
                }
            };
            let change = AccountUpdate {
                account: self.secrets.rows.seal(row),
                expected: account.row.version,
                request: Some(request.jws().digest()),
                key: None,
                audit: vec![event.at(now)],
            };
            if let Some(account) = self.apply(&request, &id, change).await? {
                return Ok(account);
            }
        }
        Err(Failure::Contended)
    }

    /// Gives the account another key. The old one never counts again, for anything that is signed from now on.
    ///
    /// # Errors
    /// A refusal, with the account that has the new key if one has, or what keeps it from being done.
    pub async fn change_key(&self, key_change_jws: &[u8]) -> Outcome<Arc<Account>> {
        let request = ClientRequest::read(&self.registry, key_change_jws)?;
        if *request.resource() != Resource::KeyChange {
            return Err(request.wrong_operation().into());
        }
        let id = request.account_id(&self.registry)?;
        for _ in 0..TRIES {
            let found = AccountSlot::default();
            let (account, verified) = match self.authenticate(&request, &found).await {
                Ok(authentic) => authentic,
                Err(failure) => return self.changed_before(&request, &id).await?.ok_or(failure),
            };
            let change = read_change(&request, &verified)?;
            self.check_new_key(&request, &change.new_key).await?;
            let update = self.key_update(&request, account, &change.new_key, self.now()?)?;
            if let Some(account) = self.apply(&request, &id, update).await? {
                return Ok(account);
            }
        }
        Err(Failure::Contended)
    }

    /// The account, if this very change was made before: its answer was lost, and the key that signed it is a former one.
    async fn changed_before(&self, request: &ClientRequest, id: &AccountId) -> Outcome<Option<Arc<Account>>> {
        let account = self.account_of(request, id).await?;
        account.must_be_valid(request)?;
        let made = account.all_keys().filter_map(|former| request.verify(former).ok()).any(|verified| {
            read_change(request, &verified).is_ok_and(|change| change.new_key == *account.key())
        });
        Ok(made.then_some(account))
    }

    async fn check_new_key(&self, request: &ClientRequest, key: &Jwk) -> Outcome<()> {
        // The transaction decides; this only spares the other look-ups, and finds a conflict before a bad key.
        if let Some(other) = self.account_by_key(request.directory().name(), &key.thumbprint()).await? {
            return Err(key_in_use(request, &other.row.id).into());
        }
        let detail = match self.account_key_use(key).await? {
            None => return Ok(()),
            Some(KeyUse::Blocked) => "the key is known to be compromised or weak",
            Some(KeyUse::Certificate) => "the key is a certificate's",
        };
        Err(request.refuse(Reason::KeyUnacceptable, detail).into())
    }

    fn key_update(
        &self,
        request: &ClientRequest,
        account: &Account,
        new_key: &Jwk,
        now: Timestamp,
    ) -> Outcome<AccountUpdate> {
        let current = account.keys.iter().find(|key| key.jwk == *account.key());
        let valid_from = current.map(|key| key.valid_from).ok_or_else(|| Failure::Unreadable {
            table: "account_keys",
            detail: "the key in force is missing".to_owned(),
        })?;
        let key_row = |key: &Jwk, valid_from, valid_until| AccountKeyRow {
            directory: account.row.directory.clone(),
            thumbprint: *key.thumbprint().as_bytes(),
            account: account.row.id.clone(),
            jwk: key.to_json(),
            valid_from,
            valid_until,
        };
        let row = AccountRow {
            key: *new_key.thumbprint().as_bytes(),
            version: account.row.version + 1,
            ..account.row.clone()
        };
        let event = Event::AccountKeyChanged {
            account: &account.row.id,
            thumbprint: new_key.thumbprint().to_string(),
        };
        let macs = &self.secrets.rows;
        Ok(AccountUpdate {
            account: macs.seal(row),
            expected: account.row.version,
            request: Some(request.jws().digest()),
            key: Some(ca_store::KeyChange {
                retired: macs.seal(key_row(account.key(), valid_from, Some(now))),
                key: macs.seal(key_row(new_key, now, None)),
            }),
            audit: vec![event.at(now)],
        })
    }

    /// Writes a change; `None` when the account changed in between.
    async fn apply(
        &self,
        request: &ClientRequest,
        id: &AccountId,
        change: AccountUpdate,
    ) -> Outcome<Option<Arc<Account>>> {
        let outcome = self.store.update_account(change).await;
        // Whatever came of it, an answer that was lost included: what is in memory may be old now.
        self.account_changed(id).await;
        match outcome? {
            UpdateOutcome::Updated => match self.reload_account(id).await? {
                Some(account) => Ok(Some(account)),
                None => Err(account_unknown(request).into()),
            },
            UpdateOutcome::Replayed(record) => self.open_account(*record).map(Some),
            UpdateOutcome::Conflict(_) => Ok(None),
            UpdateOutcome::KeyInUse(other) => Err(key_in_use(request, &other).into()),
            UpdateOutcome::Unknown => Err(account_unknown(request).into()),
        }
    }
}

/// The row of an account that agrees to the terms of today, unless it does already (RFC 8555 §7.3.3).
fn agreement(request: &ClientRequest, row: AccountRow, agrees: bool, now: Timestamp) -> AccountRow {
    match &request.directory().policy.terms_of_service {
        Some(terms) if agrees && row.terms_agreed.as_deref() != Some(terms.as_str()) => {
            AccountRow { terms_agreed_at: Some(now), terms_agreed: Some(terms.to_string()), ..row }
        }
        _ => row,
    }
}

fn read_change(request: &ClientRequest, outer: &Verified<'_>) -> Result<KeyChange, Refusal> {
    KeyChange::from_verified(outer).map_err(|error| {
        let reason = match &error {
            KeyChangeError::Outer(_) | KeyChangeError::Inner(_) | KeyChangeError::Nonce => {
                Reason::KeyChangeInner
            }
            KeyChangeError::Url => Reason::KeyChangeUrl,
            KeyChangeError::Account => Reason::KeyChangeAccount,
            KeyChangeError::OldKey => Reason::KeyChangeOldKey,
            KeyChangeError::SameKey => Reason::KeyChangeSameKey,
        };
        Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
    })
}

fn update_refusal(request: &ClientRequest, error: UpdateError) -> Refusal {
    match error {
        UpdateError::Jws(error) => Refusal::from(error).directory(request.directory().name().as_str()),
        UpdateError::Contact(error) => contact_refusal(request, error),
    }
}

/// RFC 8555 §7.3.5: 409, and the account that has the key.
fn key_in_use(request: &ClientRequest, account: &str) -> Refusal {
    request.refuse(Reason::KeyInUse, "the key is an account's already").status(409).account(account)
}

fn account_unknown(request: &ClientRequest) -> Refusal {
    request.refuse(Reason::AccountUnknown, "there is no such account")
}
