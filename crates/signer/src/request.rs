//! A client's request as the signer reads it: once, strictly, from the very bytes that the client signed.
//!
//! Directory, operation and object come from the URL inside of the JWS and from the signer's own base URLs, never from
//! the front. The payload is not to be had before the signature was verified: [`acme::jws`] sees to that.

use std::sync::{Arc, OnceLock};

use acme::jws::{Jws, KeyReference, Remembered, Verified};
use acme::resource::{Located, Resource};
use acme::{AccountId, Jwk};

use crate::account::Account;
use crate::ca::Ca;
use crate::refusal::{Outcome, Reason, Refusal};
use crate::registry::{Directory, Registry};

/// A JWS whose URL is one of ours. Nothing else about it is known to be true.
#[derive(Debug)]
pub struct ClientRequest {
    jws: Jws,
    directory: Arc<Directory>,
    located: Located,
}

impl ClientRequest {
    /// Reads a JWS and takes its URL apart.
    ///
    /// # Errors
    /// A refusal.
    pub fn read(registry: &Registry, body: &[u8]) -> Result<Self, Refusal> {
        let jws = Jws::from_slice(body)?;
        let (directory, located) = registry
            .locate(&jws.header().url)
            .map_err(|_| Refusal::new(Reason::UrlForeign, "the JWS is for a URL that is not this CA's"))?;
        Ok(Self { jws, directory, located })
    }

    /// The JWS.
    #[must_use]
    pub const fn jws(&self) -> &Jws {
        &self.jws
    }

    /// The directory of its URL.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What its URL names.
    #[must_use]
    pub const fn resource(&self) -> &Resource {
        &self.located.resource
    }

    /// The URL taken apart.
    #[must_use]
    pub const fn located(&self) -> &Located {
        &self.located
    }

    /// A refusal of this request.
    pub fn refuse(&self, reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal::new(reason, detail).directory(self.directory.name().as_str())
    }

    /// The refusal for a URL of another operation than the RPC's.
    #[must_use]
    pub fn wrong_operation(&self) -> Refusal {
        self.refuse(Reason::UrlOperation, "the JWS is for another operation")
    }

    /// The account whose URL is the `kid`, as yet unproven. It must be one of the directory in the JWS' URL.
    ///
    /// # Errors
    /// A refusal.
    pub fn account_id(&self, registry: &Registry) -> Result<AccountId, Refusal> {
        let KeyReference::Kid(kid) = &self.jws.header().key else {
            return Err(Refusal::from(acme::JwsError::KeyReference).directory(self.directory.name().as_str()));
        };
        match registry.locate(kid) {
            Ok((directory, Located { resource: Resource::Account(id), .. }))
                if directory.name() == self.directory.name() =>
            {
                Ok(id)
            }
            _ => Err(self.refuse(Reason::KidForeign, "\"kid\" is not an account URL of this directory")),
        }
    }

    /// Verifies the JWS with this key; the only way to the payload.
    ///
    /// # Errors
    /// A refusal.
    pub fn verify<'a>(&'a self, key: &'a Jwk) -> Result<Verified<'a>, Refusal> {
        let directory = self.directory.name().as_str();
        self.jws.verify(key).map_err(|error| Refusal::from(error).directory(directory))
    }

    /// As [`verify`](Self::verify), sparing what was done before.
    ///
    /// # Errors
    /// A refusal.
    pub fn verify_again<'a>(&'a self, key: &'a Jwk, before: &Remembered) -> Result<Verified<'a>, Refusal> {
        let directory = self.directory.name().as_str();
        self.jws.verify_again(key, before).map_err(|error| Refusal::from(error).directory(directory))
    }
}

/// Where the account of a request stays while its verified words are looked at. Empty until [`Ca::authenticate`] fills it.
#[derive(Debug, Default)]
pub(crate) struct AccountSlot {
    kept: OnceLock<Arc<Account>>,
    fresh: OnceLock<Arc<Account>>,
}

impl Ca {
    /// Verifies the request with the key that is in force now, once; the account is valid.
    ///
    /// # Errors
    /// A refusal, or what keeps the account from being read.
    pub(crate) async fn authenticate<'a>(
        &self,
        request: &'a ClientRequest,
        found: &'a AccountSlot,
    ) -> Outcome<(&'a Arc<Account>, Verified<'a>)> {
        let id = request.account_id(&self.registry)?;
        let read = self.account_of(request, &id).await?;
        let kept = found.kept.get_or_init(|| read);
        let (account, verified) = match request.verify(kept.key()) {
            Ok(verified) => (kept, verified),
            // What is kept in memory may be older than another signer's key change: before saying no, look again.
            Err(refusal) => match self.reload_account(&id).await? {
                Some(current) if current.row.version != kept.row.version => {
                    let fresh = found.fresh.get_or_init(|| current);
                    (fresh, request.verify(fresh.key())?)
                }
                _ if kept.is_former_key_of(&request.jws) => {
                    let detail = "the JWS is signed with a key that was the account's before";
                    return Err(request.refuse(Reason::KeyFormer, detail).into());
                }
                _ => return Err(refusal.into()),
            },
        };
        account.must_be_valid(request)?;
        Ok((account, verified))
    }

    /// As [`Self::authenticate`], by the account as the store has it now: for what no later transaction checks again.
    pub(crate) async fn authenticate_now<'a>(
        &self,
        request: &'a ClientRequest,
        found: &'a AccountSlot,
    ) -> Outcome<(&'a Arc<Account>, Verified<'a>)> {
        self.reload_account(&request.account_id(&self.registry)?).await?;
        self.authenticate(request, found).await
    }

    /// The account of the request's `kid`, whatever its status.
    pub(crate) async fn account_of(&self, request: &ClientRequest, id: &AccountId) -> Outcome<Arc<Account>> {
        match self.account(id).await? {
            Some(account) if account.row.directory == request.directory().name().as_str() => Ok(account),
            _ => Err(request.refuse(Reason::AccountUnknown, "there is no such account").into()),
        }
    }
}
