//! newAccount (RFC 8555 §7.3, §7.3.1, §7.3.4).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use acme::account::NewAccount;
use acme::eab::{Binding, EabError, EabKeyId};
use acme::jws::KeyReference;
use acme::problem::Problem;
use acme::resource::Resource;
use acme::{AccountId, Jwk};
use ca_store::{
    AccountKeyRow, AccountRow, AccountStatus, AuthorityChange, AuthorityRow, AuthoritySelector, Citation,
    CitedTable, EabKeyRow, EabState, RegisterOutcome, State,
};
use parking_lot::Mutex;
use pki::Timestamp;
use tokio::sync::OwnedMutexGuard;

use super::Account;
use crate::account::KeyUse;
use crate::audit::Event;
use crate::ca::Ca;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::request::ClientRequest;

/// An account, and whether this request made it.
#[derive(Debug)]
pub struct Registered {
    /// The account.
    pub account: Arc<Account>,
    /// Whether it did not exist before.
    pub created: bool,
}

/// Registrations with one EAB key of several uses count in one row: who has lost once waits for those before.
#[derive(Debug, Default)]
pub(crate) struct EabTurns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl EabTurns {
    async fn take(&self, kid: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock();
            all.retain(|_, turn| turn.strong_count() > 0);
            match all.get(kid).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::new(tokio::sync::Mutex::new(()));
                    all.insert(kid.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

/// Concurrent registrations at several signers, and those that have not lost yet, meet here.
const TRIES: u32 = 5;

impl Ca {
    /// Registers the key that signed the request, or answers with the account that it has already.
    ///
    /// # Errors
    /// A refusal, or what keeps it from being done.
    pub async fn register_account(&self, new_account_jws: &[u8]) -> Outcome<Registered> {
        let request = ClientRequest::read(&self.registry, new_account_jws)?;
        if *request.resource() != Resource::NewAccount {
            return Err(request.wrong_operation().into());
        }
        let KeyReference::Jwk(key) = &request.jws().header().key else {
            return Err(acme::JwsError::KeyReference.into());
        };
        let payload = NewAccount::from_verified(&request.verify(key)?)?;
        if let Some(account) = self.account_by_key(request.directory().name(), &key.thumbprint()).await? {
            return existing(&request, key, account);
        }
        if payload.only_return_existing {
            return Err(request.refuse(Reason::AccountUnknown, "no account has this key").into());
        }
        self.check_new_account(&request, key, &payload).await?;
        let mut turn = None;
        for _ in 0..TRIES {
            if let Some(registered) = self.try_register(&request, key, &payload).await? {
                return Ok(registered);
            }
            // Somebody else counted the same use. Only who has shown to have the key comes here and has others wait.
            if let (None, Some(binding)) = (&turn, &payload.external_account_binding) {
                turn = Some(self.eab_turns.take(binding.kid()).await);
            }
        }
        Err(Failure::Contended)
    }

    async fn check_new_account(
        &self,
        request: &ClientRequest,
        key: &Jwk,
        payload: &NewAccount,
    ) -> Outcome<()> {
        let policy = &request.directory().policy;
        if let Some(terms) = policy.terms_of_service.as_ref().filter(|_| !payload.terms_of_service_agreed) {
            let problem =
                Problem::new(Reason::TermsNotAgreed.error_type(), "the terms of service must be agreed to");
            let refusal =
                Refusal::with_problem(Reason::TermsNotAgreed, problem.with_instance(terms.as_str()));
            return Err(refusal.directory(policy.name.as_str()).into());
        }
        if policy.external_account_required && payload.external_account_binding.is_none() {
            return Err(request
                .refuse(Reason::EabRequired, "an external account binding is required")
                .into());
        }
        let detail = match self.account_key_use(key).await? {
            None => return Ok(()),
            Some(KeyUse::Blocked) => "the key is known to be compromised or weak",
            Some(KeyUse::Certificate) => "the key is a certificate's",
        };
        Err(request.refuse(Reason::KeyUnacceptable, detail).into())
    }

    /// One try; `None` when something changed in between.
    async fn try_register(
        &self,
        request: &ClientRequest,
        key: &Jwk,
        payload: &NewAccount,
    ) -> Outcome<Option<Registered>> {
        let now = self.now()?;
        let bound = match &payload.external_account_binding {
            Some(binding) => Some(self.check_binding(request, key, binding, now).await?),
            None => None,
        };
        let directory = request.directory().name();
        let terms = &request.directory().policy.terms_of_service;
        let terms = terms.as_ref().filter(|_| payload.terms_of_service_agreed);
        let id = AccountId::derive(directory, &key.thumbprint());
        let contacts = payload.contacts().map_err(|error| contact_refusal(request, error))?;
        let row = AccountRow {
            id: id.to_string(),
            directory: directory.to_string(),
            status: AccountStatus::Valid,
            contacts: contacts.iter().map(ToString::to_string).collect(),
            terms_agreed_at: payload.terms_of_service_agreed.then_some(now),
            terms_agreed: terms.map(ToString::to_string),
            registration: bound.as_ref().map(|bound| bound.key.registration.clone()),
            eab_kid: bound.as_ref().map(|bound| bound.key.kid.clone()),
            key: *key.thumbprint().as_bytes(),
            created_at: now,
            version: 1,
        };
        let key_row = AccountKeyRow {
            directory: row.directory.clone(),
            thumbprint: row.key,
            account: row.id.clone(),
            jwk: key.to_json(),
            valid_from: now,
            valid_until: None,
        };
        let event = Event::AccountRegistered {
            account: &row.id,
            directory: &row.directory,
            eab_kid: row.eab_kid.as_deref(),
        };
        let (eab, cites) = bound.map(|bound| bound.used(self)).unzip();
        let new = ca_store::NewAccount {
            audit: vec![event.at(now)],
            account: self.secrets.rows.seal(row),
            key: self.secrets.rows.seal(key_row),
            eab,
            cites: cites.unwrap_or_default(),
        };
        let record = ca_store::AccountRecord { account: new.account.clone(), keys: vec![new.key.clone()] };
        fail::fail_point!("signer.register.before");
        let outcome = self.store.register_account(new).await?;
        fail::fail_point!("signer.register.after");
        match outcome {
            RegisterOutcome::Created => {
                self.account_changed(&id).await;
                Ok(Some(Registered { account: self.open_account(record)?, created: true }))
            }
            RegisterOutcome::Exists(record) => existing(request, key, self.open_account(*record)?).map(Some),
            RegisterOutcome::KeyRetired => Err(key_retired(request).into()),
            RegisterOutcome::EabUnavailable | RegisterOutcome::AuthorityChanged(_) => Ok(None),
        }
    }

    /// RFC 8555 §7.3.4: the MAC, and everything that the key's row says.
    async fn check_binding(
        &self,
        request: &ClientRequest,
        key: &Jwk,
        binding: &Binding,
        now: Timestamp,
    ) -> Outcome<Bound> {
        let unusable = |reason, detail: &str| request.refuse(reason, detail);
        let kid: EabKeyId = binding.kid().parse().map_err(|error: EabError| eab_refusal(request, &error))?;
        // Before anything is looked up: who has not the key learns nothing about it.
        let mac_key = self
            .secrets
            .eab_key(&kid)
            .ok_or_else(|| unusable(Reason::EabUnknown, "the key is not in use any more"))?;
        binding
            .verify(key, &request.jws().header().url, &*mac_key)
            .map_err(|error| eab_refusal(request, &error))?;
        if kid.epoch() != self.info.epoch.number {
            return Err(unusable(Reason::EabEpoch, "the key is void since the database was restored").into());
        }
        let selector = AuthoritySelector::EabKey(binding.kid().to_owned());
        let Some(authority) = self.store.authority(&selector).await? else {
            return Err(unusable(Reason::EabUnknown, "the key is unknown").into());
        };
        let registration_mac = authority.registration.mac().mac;
        let registration = self.secrets.rows.open(authority.registration)?;
        let mut key_row = None;
        for row in authority.eab_keys {
            if row.unverified().kid == binding.kid() {
                key_row = Some(self.secrets.rows.open(row)?);
            }
        }
        let key_row = key_row.ok_or_else(|| unusable(Reason::EabUnknown, "the key is unknown"))?;
        let (reason, detail) = if registration.state != State::Active {
            (Reason::EabRevoked, "the registration is disabled")
        } else if registration.directory != request.directory().name().as_str() {
            (Reason::EabDirectory, "the key is for another directory")
        } else if key_row.registration != registration.id
            || key_row.secret_version != kid.version()
            || key_row.epoch != kid.epoch()
        {
            (Reason::EabUnknown, "the key is unknown")
        } else if key_row.state != EabState::Active {
            (Reason::EabRevoked, "the key was revoked")
        } else if key_row.expires_at.is_some_and(|until| until <= now) {
            (Reason::EabExpired, "the key has expired")
        } else if key_row.max_uses.is_some_and(|most| key_row.uses >= most) {
            (Reason::EabUsedUp, "the key is used up")
        } else {
            let cite =
                Citation { table: CitedTable::Registration, key: registration.id, mac: registration_mac };
            return Ok(Bound { key: key_row, cite });
        };
        Err(unusable(reason, detail).into())
    }
}

/// A binding that is good, and the row that says so.
struct Bound {
    key: EabKeyRow,
    cite: Citation,
}

impl Bound {
    /// The row with one use more, to be written together with the account.
    fn used(self, ca: &Ca) -> (AuthorityChange, Vec<Citation>) {
        let expected = Some(self.key.version);
        let (uses, version) = (self.key.uses.saturating_add(1), self.key.version + 1);
        let row = ca.secrets.rows.seal(EabKeyRow { uses, version, ..self.key });
        (AuthorityChange { row: AuthorityRow::EabKey(row), expected }, vec![self.cite])
    }
}

/// The answer for a key that an account has or had.
fn existing(request: &ClientRequest, key: &Jwk, account: Arc<Account>) -> Outcome<Registered> {
    if account.key() != key {
        return Err(key_retired(request).into());
    }
    account.must_be_valid(request)?;
    Ok(Registered { account, created: false })
}

fn key_retired(request: &ClientRequest) -> Refusal {
    request.refuse(Reason::KeyRetired, "the key was an account's before, and cannot be one's again")
}

fn eab_refusal(request: &ClientRequest, error: &EabError) -> Refusal {
    let reason = match error {
        EabError::Mac => Reason::EabMac,
        EabError::Url => Reason::EabUrl,
        EabError::OtherKey => Reason::EabOtherKey,
        EabError::UnknownKey => Reason::EabUnknown,
        EabError::Json(_) | EabError::Jws(_) | EabError::Algorithm(_) | EabError::Nonce => {
            Reason::PayloadMalformed
        }
    };
    Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
}

pub(super) fn contact_refusal(request: &ClientRequest, error: acme::account::ContactError) -> Refusal {
    let reason = match error {
        acme::account::ContactError::UnsupportedScheme => Reason::ContactUnsupported,
        acme::account::ContactError::Invalid | acme::account::ContactError::TooMany => Reason::ContactInvalid,
    };
    Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
}
