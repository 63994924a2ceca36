//! newOrder and orders (RFC 8555 §7.4).
//!
//! `pending` and `ready` are not kept apart in the database: an order's authorizations say which it is, each time that
//! somebody looks. So an authorization that was met, given up or grew too old needs no write to its orders, and no order
//! can disagree with its authorizations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use acme::authorization::{self, Authorization};
use acme::order::{Facts, NewOrder, Order, Pending, State};
use acme::problem::{ErrorType, Problem, Subproblem};
use acme::resource::Resource;
use acme::{AuthorizationId, OrderId};
use acme_store::{CreateOutcome, OrderRow, PendingBound, Unit};
use http::StatusCode;
use pki::{Name, Timestamp};
use rpc::{Account, AuthorizedOrder};

use crate::finalize;
use crate::limits::Room;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Signed;
use crate::reuse::Held;
use crate::service::{Front, SAVE_TRIES};
use crate::stored::{self, Versioned};
use crate::validation;

/// When to look again at an order that the signer has.
pub(crate) const POLL_SECONDS: u32 = 1;
/// No directory allows more names; the signer knows its directory's own limit.
const MAXIMUM_NAMES: usize = 1_000;

/// newOrder.
#[tracing::instrument(name = "acme.new_order", skip_all, fields(account = tracing::field::Empty))]
pub(crate) async fn create(front: &Front, request: Signed<'_>) -> Result<Reply, Refusal> {
    let account = request.account()?;
    tracing::Span::current().record("account", tracing::field::display(account.id));
    let now = front.now();
    let wanted =
        NewOrder::from_verified(&request.verified, MAXIMUM_NAMES).map_err(|error| error.problem())?;
    bound_pending(front, account, now).await?;
    let mut room = front.take_order_room_early(&account.id, wanted.replaces.is_some()).await?;
    let placed = place(front, &request, wanted, &mut room, now).await;
    let (order, used) = match placed {
        Ok(Placed::New(order)) => (Ok(order), true),
        Ok(Placed::There(order)) => (Ok(order), false),
        Err(refusal) => (Err(refusal), false),
    };
    match room {
        Some(room) if used => room.keep(),
        Some(room) => room.give_back(front).await?,
        None => {}
    }
    let order = order?;
    tracing::info!(order = %order.facts.id, names = order.facts.names.len(), status = order.state.status().as_str(), "order");
    Ok(show(&request, &order, StatusCode::CREATED, now))
}

/// What became of a newOrder.
enum Placed {
    New(Order),
    /// An earlier answer to this very request was lost.
    There(Order),
}

/// Has the order authorized, and keeps it. Takes room for it that was not taken before.
async fn place(
    front: &Front,
    request: &Signed<'_>,
    wanted: NewOrder,
    room: &mut Option<Room>,
    now: Timestamp,
) -> Result<Placed, Refusal> {
    let account = request.account()?;
    let (authorized, held) = tokio::join!(front.signer.authorize_order(request.jws()), async {
        match request.place.directory.reuses() {
            true => Held::find(front, &request.place.directory, account, &wanted.names, now).await,
            false => Ok(Held::default()),
        }
    });
    let (authorized, held) = (authorized?, held?);
    let (limits, exempt) = (authorized.limits, authorized.limits_exempt);
    front.learn(account.id, limits);
    let made = assemble(request, wanted, authorized, &held, now)?;
    front.check_failures(&limits, exempt, &account.id, made.to_validate.iter()).await?;
    if room.is_none() && !exempt {
        *room = front.take_order_room(&limits, &account.id).await?;
    }
    let row = stored::order_row(&made.order)?;
    let bound = PendingBound { most: front.limits.pending_authorizations_per_account, now };
    let new = acme_store::NewOrder { order: row, authorizations: made.new_rows, bound: Some(bound) };
    Ok(match keep(front, new, now).await? {
        Some(existing) => Placed::There(stored::order(&existing)?.object),
        None => Placed::New(made.order),
    })
}

/// An order, read.
#[tracing::instrument(name = "acme.order", skip_all, fields(order = %id))]
pub(crate) async fn show_order(
    front: &Arc<Front>,
    request: Signed<'_>,
    id: &OrderId,
) -> Result<Reply, Refusal> {
    request.require_post_as_get()?;
    let (row, order) = find(front, &request, id).await?;
    let now = front.now();
    if matches!(order.object.state, State::Processing(_)) {
        finalize::resume_if_abandoned(front, &row);
    }
    if matches!(order.object.state, State::Pending(_)) {
        let account = &request.account()?.id;
        front.under_way.landed(&order.object.facts.authorizations, account, front.patience()).await;
    }
    let authorizations = authorizations_of(front, std::slice::from_ref(&order.object)).await?;
    // Many clients look at their order alone while it is validated.
    for authorization in &authorizations {
        validation::resume_if_abandoned(front, authorization, &request);
    }
    let order = review_one(order.object, &statuses(&authorizations, now), now);
    let reply = show(&request, &order, StatusCode::OK, now);
    // RFC 8555 §7.5.1, for the many that look here.
    let next = authorizations.iter().filter_map(|one| crate::authorization::retry_after(one, now)).min();
    Ok(match next.filter(|_| matches!(order.state, State::Pending(_))) {
        Some(seconds) => reply.retry_after(seconds),
        None => reply,
    })
}

/// The order of this id, if it is the caller's; a foreign one is not to be told from a missing one.
pub(crate) async fn find(
    front: &Front,
    request: &Signed<'_>,
    id: &OrderId,
) -> Result<(OrderRow, Versioned<Order>), Refusal> {
    let account = request.account()?;
    let row = front.store.order(&id.to_string()).await?.ok_or(Refusal::NoObject)?;
    let order = stored::order(&row)?;
    let facts = &order.object.facts;
    if facts.account != account.id || facts.directory != request.place.directory.name {
        return Err(Refusal::NoObject);
    }
    Ok((row, order))
}

/// The answer that shows an order. `Location` is on every one: clients of two families need it on finalize and on GET
/// (RFC 8555 §7.4's example has it).
pub(crate) fn show(request: &Signed<'_>, order: &Order, status: StatusCode, now: Timestamp) -> Reply {
    let url = request.url(Resource::Order(order.facts.id));
    let reply = Reply::json(status, &order.object(request.base, now)).location(&url);
    match order.state {
        State::Processing(_) => reply.retry_after(POLL_SECONDS),
        _ => reply,
    }
}

/// The orders as they are now: what their authorizations and the time have made of them.
pub(crate) async fn review(front: &Front, orders: Vec<Order>, now: Timestamp) -> Result<Vec<Order>, Refusal> {
    let statuses = statuses(&authorizations_of(front, &orders).await?, now);
    Ok(orders.into_iter().map(|order| review_one(order, &statuses, now)).collect())
}

/// The authorizations that decide about those of these orders that are open.
async fn authorizations_of(front: &Front, orders: &[Order]) -> Result<Vec<Authorization>, Refusal> {
    let open = |order: &&Order| matches!(order.state, State::Pending(_) | State::Ready(_));
    let ids: Vec<String> = orders
        .iter()
        .filter(open)
        .flat_map(|order| order.facts.authorizations.iter().map(AuthorizationId::to_string))
        .collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = front.store.authorizations(&ids).await?;
    rows.iter().map(|row| Ok(stored::authorization(row)?.object)).collect()
}

fn statuses(
    authorizations: &[Authorization],
    now: Timestamp,
) -> HashMap<AuthorizationId, authorization::Status> {
    authorizations.iter().map(|one| (one.facts.id, one.status(now))).collect()
}

/// One order in the light of its authorizations.
pub(crate) fn review_one(
    order: Order,
    statuses: &HashMap<AuthorizationId, authorization::Status>,
    now: Timestamp,
) -> Order {
    let Order { facts, state } = order;
    // An authorization that is gone was purged, after its end.
    let status = |id| statuses.get(id).copied().unwrap_or(authorization::Status::Expired);
    let of_order = || facts.authorizations.iter().map(status).collect::<Vec<_>>();
    let state = match state.at(now, facts.expires) {
        State::Pending(pending) => pending.review(&of_order()),
        State::Ready(ready) => ready.review(&of_order()),
        other => other,
    };
    Order { facts, state }
}

/// Sends away whoever has as much under way as he may, before anybody works for him. What is made is bounded again by the
/// database, where it is exact.
pub(crate) async fn bound_pending(front: &Front, account: &Account, now: Timestamp) -> Result<(), Refusal> {
    let most = front.limits.pending_authorizations_per_account;
    let pending = front.store.pending(&account.id.to_string(), now).await?;
    if pending.authorizations >= most {
        return Err(Refusal::TooMany { most, free_at: pending.first_expires_at, now });
    }
    Ok(())
}

struct Made {
    order: Order,
    new_rows: Vec<acme_store::AuthorizationRow>,
    /// Names that have yet to be validated.
    to_validate: Vec<Name>,
}

/// Order and authorizations from what the client wrote, the signer authorized and the store knows.
fn assemble(
    request: &Signed<'_>,
    wanted: NewOrder,
    authorized: AuthorizedOrder,
    held: &Held,
    now: Timestamp,
) -> Result<Made, Refusal> {
    let account = request.account()?;
    let directory = &request.place.directory;
    let (mut ids, mut rows, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut to_validate = Vec::new();
    let (mut ancestors, mut known) = (BTreeMap::new(), HashSet::new());
    let mut complete = true;
    let mut expires = authorized.expires;
    let same = authorized.account == account.id && authorized.directory == directory.name;
    if !same
        || !wanted.names.iter().eq(authorized.names.iter().map(|named| &named.name).collect::<BTreeSet<_>>())
    {
        return Err(Refusal::Impossible("an authorized order with other names"));
    }
    for named in authorized.names {
        let subject = named.authorized();
        let reused = match named.grant {
            None => held.reuse(directory, &named.name, &wanted.ancestors, now),
            Some(_) => None,
        };
        let above = match &reused {
            Some(older) => older.ancestor.clone(),
            None => named.ancestor,
        };
        ancestors.extend(above.map(|above| (named.name.clone(), above)));
        if let Some(older) = reused {
            expires = expires.min(older.end);
            ids.extend(Some(older.authorization.facts.id).filter(|id| known.insert(*id)));
            continue;
        }
        // Of several names below one domain, the first brings its authorization.
        if !known.insert(named.authorization) {
            continue;
        }
        let state = match named.grant {
            Some(grant) => authorization::State::Valid(authorization::Valid::granted(grant, named.expires)),
            None => {
                complete = false;
                to_validate.push(subject.clone());
                let pending = directory.pending(&subject, &named.authorization, named.expires);
                if pending.challenges.is_empty() {
                    refused.push(unprovable(&named.name));
                }
                authorization::State::Pending(pending)
            }
        };
        let facts = authorization::Facts {
            id: named.authorization,
            directory: directory.name.clone(),
            account: account.id,
            name: subject,
            created_by: request.jws().digest(),
        };
        ids.push(facts.id);
        rows.push(stored::authorization_row(&Authorization { facts, state }, now, named.expires)?);
    }
    if let Some(problem) = Problem::from_subproblems(refused) {
        return Err(problem.into());
    }
    let facts = Facts {
        id: authorized.order,
        directory: directory.name.clone(),
        account: account.id,
        names: wanted.names,
        not_before: wanted.not_before,
        not_after: wanted.not_after,
        profile: authorized.profile,
        // As the signer says: where renewal information (RFC 9773) is not offered, `replaces` is a member that means nothing.
        replaces: authorized.replaces,
        authorizations: ids,
        ancestors,
        created: now,
        expires,
        new_order: request.jws().to_json(),
    };
    let state =
        if complete { State::Ready(acme::order::Ready::default()) } else { State::Pending(Pending {}) };
    Ok(Made { order: Order { facts, state }, new_rows: rows, to_validate })
}

/// No challenge that this directory offers can show control of the name, and no grant covers it.
pub(crate) fn unprovable(name: &Name) -> Subproblem {
    let detail = "no challenge of this directory can show control of this name";
    Subproblem::new(ErrorType::RejectedIdentifier, detail, acme::identifier::Identifier::in_order(name))
}

/// Keeps the order; the one that was there already if an earlier answer was lost. Of the orders that are to replace a
/// certificate one is kept, unless it has come to nothing (RFC 9773 §5).
async fn keep(front: &Front, new: acme_store::NewOrder, now: Timestamp) -> Result<Option<OrderRow>, Refusal> {
    for _ in 0..SAVE_TRIES {
        fail::fail_point!("front.order.before-create");
        let outcomes = match front.store.create_orders(vec![new.clone()]).await {
            Err(error) if error.may_be_durable() => front.store.create_orders(vec![new.clone()]).await?,
            outcome => outcome?,
        };
        fail::fail_point!("front.order.after-create");
        match outcomes.into_iter().next() {
            Some(CreateOutcome::Created) => return Ok(None),
            Some(CreateOutcome::Exists(row)) => return Ok(Some(*row)),
            Some(CreateOutcome::Replaced(row)) => free(front, &row, now).await?,
            Some(CreateOutcome::Bounded(free_at)) => {
                let most = front.limits.pending_authorizations_per_account;
                return Err(Refusal::TooMany { most, free_at, now });
            }
            None => return Err(Refusal::Impossible("a write without an outcome")),
        }
    }
    Err(Refusal::Contended)
}

/// Frees the certificate that an order is to replace, if the order has come to nothing: most of them say so only when
/// somebody looks at their authorizations and at the time.
async fn free(front: &Front, row: &OrderRow, now: Timestamp) -> Result<(), Refusal> {
    let Versioned { object, version } = stored::order(row)?;
    let authorizations = authorizations_of(front, std::slice::from_ref(&object)).await?;
    let object = review_one(object, &statuses(&authorizations, now), now);
    if !matches!(object.state, State::Invalid(_)) {
        let detail = format!(
            "replaces: the certificate has an order already, which is {}",
            object.state.status().as_str()
        );
        return Err(Problem::new(ErrorType::AlreadyReplaced, detail).into());
    }
    // Whoever was faster has done the same.
    let change = stored::order_change(&Versioned { object, version }, None)?;
    front.save(Unit { orders: vec![change], authorizations: Vec::new() }).await?;
    Ok(())
}
