//! Accounts (RFC 8555 §7.3): requests go to the signer as they came, and its answer is what the client sees.

use std::sync::Arc;

use acme::account::{NewAccount, Object, Status};
use acme::eab::Binding;
use acme::problem::{ErrorType, Problem};
use acme::resource::Resource;
use acme::{AccountId, Jwk};
use acme_store::{Cursor, Page};
use http::StatusCode;
use rpc::Account;
use serde::Serialize;

use crate::limits::{Counted, Room};
use crate::order;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::{CURSOR, Caller, Signed};
use crate::service::Front;
use crate::signer::SignerError;
use crate::stored;

/// RFC 8555 §7.3.6: whoever has given its account up is unauthorized from then on.
pub(crate) fn require_valid(account: &Account) -> Result<(), Refusal> {
    match account.status {
        Status::Valid => Ok(()),
        Status::Deactivated | Status::Revoked => {
            let detail = format!("the account is {}", account.status.as_str());
            Err(Problem::new(ErrorType::Unauthorized, detail).with_status(401).into())
        }
    }
}

/// newAccount (RFC 8555 §7.3, §7.3.1, §7.3.4).
#[tracing::instrument(name = "acme.new_account", skip_all, fields(directory = %request.place.directory.name))]
pub(crate) async fn register(front: &Front, request: Signed<'_>) -> Result<Reply, Refusal> {
    let Caller::Key(key) = request.caller else { return Err(acme::JwsError::KeyReference.into()) };
    let directory = &request.place.directory;
    let room = match (directory.limits.accounts_per_address, request.client) {
        (Some(rate), Some(client)) if makes_account(front, &request, key).await? => {
            front.take_room(Counted::account_of(rate, &directory.name, client)).await?
        }
        _ => Room::UNLIMITED,
    };
    let moment = front.accounts.moment();
    let registered = front.signer.register(request.jws()).await;
    // A look at an account that exists, and what was refused, count for nothing.
    match &registered {
        Ok((_, true)) => room.keep(),
        _ => room.give_back(front).await?,
    }
    let (account, created) = registered?;
    tracing::info!(account = %account.id, created, "account");
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let reply = show(&request, &account, status)?;
    front.accounts.keep(Arc::new(account), moment).await;
    Ok(reply)
}

/// Whether newAccount can lead to a new account. A limit of those keeps nobody from the one that he has (RFC 8555 §7.3.1).
async fn makes_account(front: &Front, request: &Signed<'_>, key: &Jwk) -> Result<bool, Refusal> {
    // What cannot be read the signer refuses.
    let only_looks = NewAccount::from_verified(&request.verified).is_ok_and(|new| new.only_return_existing);
    if only_looks {
        return Ok(false);
    }
    Ok(!front.signer.knows_key(&request.place.directory.name, &key.thumbprint()).await?)
}

/// An account: read, updated, given up (RFC 8555 §7.3.2, §7.3.6).
#[tracing::instrument(name = "acme.account", skip_all, fields(account = %id))]
pub(crate) async fn account(front: &Front, request: Signed<'_>, id: &AccountId) -> Result<Reply, Refusal> {
    let account = own(&request, id)?;
    if request.is_post_as_get() {
        return show(&request, account, StatusCode::OK);
    }
    let changed = front.signer.update(request.jws()).await;
    front.accounts.forget(id).await;
    show(&request, &changed?, StatusCode::OK)
}

/// keyChange (RFC 8555 §7.3.5).
#[tracing::instrument(name = "acme.key_change", skip_all)]
pub(crate) async fn change_key(front: &Front, request: Signed<'_>) -> Result<Reply, Refusal> {
    let account = request.account()?;
    let changed = front.signer.change_key(request.jws()).await;
    // Whatever was answered: from now on the signer is asked which key is the current one.
    front.accounts.forget(&account.id).await;
    match changed {
        Ok(account) => show(&request, &account, StatusCode::OK),
        Err(SignerError::Refused(refused)) => {
            let other = refused.account.map(|id| request.url(Resource::Account(id)));
            let reply = Refusal::Signer(SignerError::Refused(refused)).into_reply();
            Ok(match other {
                Some(url) => reply.location(&url),
                None => reply,
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// The list of an account's orders (RFC 8555 §7.1.2.1): a page of those that can still be of use.
#[tracing::instrument(name = "acme.orders", skip_all, fields(account = %id))]
pub(crate) async fn orders(front: &Front, request: Signed<'_>, id: &AccountId) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    struct Orders {
        orders: Vec<String>,
    }
    let account = own(&request, id)?;
    request.require_post_as_get()?;
    let limit = front.limits.orders_per_page;
    let page = match &request.place.cursor {
        Some(cursor) => Page::after(read_cursor(cursor)?, limit),
        None => Page::first(limit),
    };
    let now = front.now();
    let found = front.store.orders_of_account(&account.id.to_string(), now, &page).await?;
    let read: Vec<_> = found.items.iter().map(stored::order).collect::<Result<_, _>>()?;
    let states = order::review(front, read.into_iter().map(|one| one.object).collect(), now).await?;
    let useful = states.iter().filter(|order| !matches!(order.state, acme::order::State::Invalid(_)));
    let orders = useful.map(|order| request.url(Resource::Order(order.facts.id))).collect();
    let reply = Reply::json(StatusCode::OK, &Orders { orders });
    Ok(match found.next {
        Some(Cursor(next)) => {
            let url = request.url(Resource::Orders(*id));
            reply.link(&format!("{url}{CURSOR}{}", acme::base64url::encode(next)), "next")
        }
        None => reply,
    })
}

fn read_cursor(text: &str) -> Result<Cursor, Refusal> {
    let bytes = acme::base64url::decode(text).map_err(|_| Refusal::NoResource)?;
    Ok(Cursor(String::from_utf8(bytes).map_err(|_| Refusal::NoResource)?))
}

/// The account of the request, if it is the one in the URL. Nobody learns which others exist (RFC 8555 §10.5).
fn own<'a>(request: &Signed<'a>, id: &AccountId) -> Result<&'a Arc<Account>, Refusal> {
    let account = request.account()?;
    if account.id == *id {
        return Ok(account);
    }
    Err(Problem::new(ErrorType::Unauthorized, "the URL is not that of the account that signed").into())
}

fn show(request: &Signed<'_>, account: &Account, status: StatusCode) -> Result<Reply, Refusal> {
    let contact = account.contacts.iter().map(|contact| contact.parse()).collect::<Result<_, _>>();
    let binding = account.external_account_binding.as_deref().map(Binding::from_json).transpose();
    let object = Object {
        status: account.status,
        contact: contact.map_err(|_| Refusal::Impossible("an account's contact"))?,
        terms_of_service_agreed: account.terms_of_service_agreed,
        external_account_binding: binding.map_err(|_| Refusal::Impossible("an account's binding"))?,
        orders: request.url(Resource::Orders(account.id)),
    };
    Ok(Reply::json(status, &object).location(&request.url(Resource::Account(account.id))))
}
