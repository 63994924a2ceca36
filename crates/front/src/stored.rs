//! Orders and authorizations to rows and back.
//!
//! What a column of the row says is not said again in its JSON, and the newOrder JWS goes when the order is valid: what
//! is kept for each certificate is what the database costs.

use std::collections::BTreeMap;

use acme::authorization::{self, Authorization};
use acme::order::{self, Order};
use acme::{AuthorizationId, ProfileName};
use acme_store::{
    AuthorizationChange, AuthorizationRow, AuthorizationStatus, Identifier, OrderChange, OrderRow,
    OrderStatus,
};
use pki::{DnsName, Name, NameSet, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// What there is to know of an order beside its row's columns.
#[derive(Serialize, Deserialize)]
struct OrderState {
    names: NameSet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_after: Option<Timestamp>,
    profile: ProfileName,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ancestors: BTreeMap<Name, DnsName>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    new_order: String,
    state: order::State,
}

/// What there is to know of an authorization beside its row's columns.
#[derive(Serialize, Deserialize)]
struct AuthorizationState {
    created_by: String,
    state: authorization::State,
}

/// An order with the version that a change of it replaces.
#[derive(Debug, Clone)]
pub(crate) struct Versioned<T> {
    pub(crate) object: T,
    pub(crate) version: u64,
}

pub(crate) fn order_row(order: &Order) -> Result<OrderRow, Refusal> {
    let facts = &order.facts;
    Ok(OrderRow {
        id: facts.id.to_string(),
        directory: facts.directory.to_string(),
        account: facts.account.to_string(),
        status: order_status(&order.state),
        authorizations: facts.authorizations.iter().map(AuthorizationId::to_string).collect(),
        replaces: facts.replaces.as_ref().map(ToString::to_string),
        state: order_state(order)?,
        created_at: facts.created,
        expires_at: facts.expires,
        lease_until_ms: None,
        version: 1,
    })
}

pub(crate) fn order_change(
    order: &Versioned<Order>,
    lease: Option<std::time::Duration>,
) -> Result<OrderChange, Refusal> {
    Ok(OrderChange {
        id: order.object.facts.id.to_string(),
        expected: order.version,
        status: order_status(&order.object.state),
        state: order_state(&order.object)?,
        expires_at: order.object.facts.expires,
        lease,
    })
}

fn order_state(order: &Order) -> Result<String, Refusal> {
    let order::Facts { names, not_before, not_after, profile, ancestors, new_order, .. } = &order.facts;
    let ended = matches!(order.state, order::State::Valid(_) | order::State::Invalid(_));
    encode(&OrderState {
        names: names.clone(),
        not_before: *not_before,
        not_after: *not_after,
        profile: profile.clone(),
        ancestors: if ended { BTreeMap::new() } else { ancestors.clone() },
        new_order: if ended { String::new() } else { new_order.clone() },
        state: order.state.clone(),
    })
}

pub(crate) fn order(row: &OrderRow) -> Result<Versioned<Order>, Refusal> {
    let stored: OrderState = decode(&row.state)?;
    let facts = order::Facts {
        id: parse(&row.id, "an order's id")?,
        directory: parse(&row.directory, "an order's directory")?,
        account: parse(&row.account, "an order's account")?,
        names: stored.names,
        not_before: stored.not_before,
        not_after: stored.not_after,
        profile: stored.profile,
        replaces: row
            .replaces
            .as_ref()
            .map(|id| parse(id, "the certificate that an order replaces"))
            .transpose()?,
        authorizations: row
            .authorizations
            .iter()
            .map(|id| parse(id, "an authorization's id"))
            .collect::<Result<_, _>>()?,
        ancestors: stored.ancestors,
        created: row.created_at,
        expires: row.expires_at,
        new_order: stored.new_order,
    };
    Ok(Versioned { object: Order { facts, state: stored.state }, version: row.version })
}

const fn order_status(state: &order::State) -> OrderStatus {
    match state {
        order::State::Pending(_) => OrderStatus::Pending,
        order::State::Ready(_) => OrderStatus::Ready,
        order::State::Processing(_) => OrderStatus::Processing,
        order::State::Valid(_) => OrderStatus::Valid,
        order::State::Invalid(_) => OrderStatus::Invalid,
    }
}

/// `created` and `expires` are the row's: an authorization that has ended is kept as long as it would have lasted.
pub(crate) fn authorization_row(
    authorization: &Authorization,
    created: Timestamp,
    expires: Timestamp,
) -> Result<AuthorizationRow, Refusal> {
    let facts = &authorization.facts;
    Ok(AuthorizationRow {
        id: facts.id.to_string(),
        directory: facts.directory.to_string(),
        account: facts.account.to_string(),
        identifier: identifier(&facts.name),
        status: authorization_status(&authorization.state),
        state: authorization_state(authorization)?,
        created_at: created,
        expires_at: expires,
        version: 1,
    })
}

pub(crate) fn authorization_change(
    authorization: &Versioned<Authorization>,
    expires: Timestamp,
) -> Result<AuthorizationChange, Refusal> {
    let object = &authorization.object;
    Ok(AuthorizationChange {
        id: object.facts.id.to_string(),
        expected: authorization.version,
        status: authorization_status(&object.state),
        state: authorization_state(object)?,
        expires_at: object.state.expires().unwrap_or(expires),
    })
}

fn authorization_state(authorization: &Authorization) -> Result<String, Refusal> {
    let created_by = acme::base64url::encode(authorization.facts.created_by);
    encode(&AuthorizationState { created_by, state: authorization.state.clone() })
}

pub(crate) fn authorization(row: &AuthorizationRow) -> Result<Versioned<Authorization>, Refusal> {
    let stored: AuthorizationState = decode(&row.state)?;
    let created_by = acme::base64url::decode_array(&stored.created_by)
        .map_err(|_| Refusal::Impossible("an authorization's digest"))?;
    let name = if row.identifier.wildcard {
        parse(&format!("*.{}", row.identifier.value), "a name")?
    } else {
        parse(&row.identifier.value, "a name")?
    };
    let facts = authorization::Facts {
        id: parse(&row.id, "an authorization's id")?,
        directory: parse(&row.directory, "an authorization's directory")?,
        account: parse(&row.account, "an authorization's account")?,
        name,
        created_by,
    };
    Ok(Versioned { object: Authorization { facts, state: stored.state }, version: row.version })
}

/// A name as the store searches it.
pub(crate) fn identifier(name: &Name) -> Identifier {
    let value = name.base().map_or_else(|| name.to_string(), ToString::to_string);
    Identifier { value, wildcard: name.is_wildcard() }
}

const fn authorization_status(state: &authorization::State) -> AuthorizationStatus {
    match state {
        authorization::State::Pending(_) => AuthorizationStatus::Pending,
        authorization::State::Valid(_) => AuthorizationStatus::Valid,
        authorization::State::Invalid(_) => AuthorizationStatus::Invalid,
        authorization::State::Deactivated(_) => AuthorizationStatus::Deactivated,
        authorization::State::Expired(_) => AuthorizationStatus::Expired,
        authorization::State::Revoked(_) => AuthorizationStatus::Revoked,
    }
}

fn encode<T: Serialize>(value: &T) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(Refusal::Stored)
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(Refusal::Stored)
}

fn parse<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::Impossible(what))
}
