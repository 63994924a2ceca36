//! Authorizations (RFC 8555 §7.5): read, met by challenges, given up.

use std::sync::Arc;

use acme::AuthorizationId;
use acme::authorization::{Authorization, Facts, State, Update};
use acme::problem::{ErrorType, Problem};
use acme_store::Unit;
use http::StatusCode;
use pki::Timestamp;

use crate::finalize;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Signed;
use crate::service::{Front, SAVE_TRIES};
use crate::stored::{self, Versioned};
use crate::validation;

/// An authorization, read or given up (RFC 8555 §7.5, §7.5.2).
#[tracing::instrument(name = "acme.authorization", skip_all, fields(authorization = %id))]
pub(crate) async fn authorization(
    front: &Arc<Front>,
    request: Signed<'_>,
    id: &AuthorizationId,
) -> Result<Reply, Refusal> {
    if request.is_post_as_get() {
        let account = &request.account()?.id;
        if let Some(outcome) = front.under_way.outcome(id, account, front.patience()).await
            && outcome.facts.directory == request.place.directory.name
        {
            return Ok(show(&request, &outcome, front.now()));
        }
    }
    let found = find(front, &request, id).await?;
    if request.is_post_as_get() {
        validation::resume_if_abandoned(front, &found.object, &request);
        return Ok(show(&request, &found.object, front.now()));
    }
    let Update::Deactivate = Update::from_verified(&request.verified)? else {
        let detail = "an authorization can only be deactivated, by the status \"deactivated\"";
        return Err(Problem::new(ErrorType::Malformed, detail).into());
    };
    match found.object.state.clone().at(front.now()) {
        // The signers have it already.
        State::Deactivated(_) => return Ok(show(&request, &found.object, front.now())),
        ended @ (State::Invalid(_) | State::Expired(_) | State::Revoked(_)) => return Err(has_ended(&ended)),
        State::Pending(_) | State::Valid(_) => {}
    }
    // First where it counts: what a front keeps of it is believed by nobody.
    front.signer.deactivate(request.jws(), finalize::claim(&found.object.facts)).await?;
    let (authorization, outcome) = change(front, id, Some(found), |_, state, _| match state {
        State::Pending(pending) => Step::Save(State::Deactivated(pending.deactivate()), Ok(())),
        State::Valid(valid) => Step::Save(State::Deactivated(valid.deactivate()), Ok(())),
        // A second time changes nothing.
        State::Deactivated(_) => Step::Leave(Ok(())),
        ended @ (State::Invalid(_) | State::Expired(_) | State::Revoked(_)) => {
            Step::Leave(Err(has_ended(&ended)))
        }
    })
    .await?;
    outcome?;
    tracing::info!("deactivated");
    Ok(show(&request, &authorization.object, front.now()))
}

/// The authorization of this id, if it is the caller's; a foreign one is not to be told from a missing one.
pub(crate) async fn find(front: &Front, request: &Signed<'_>, id: &AuthorizationId) -> Result<Kept, Refusal> {
    let account = request.account()?;
    let found = load(front, id).await?;
    let facts = &found.object.facts;
    if facts.account != account.id || facts.directory != request.place.directory.name {
        return Err(Refusal::NoObject);
    }
    Ok(found)
}

/// An authorization as it is, or was a moment ago, in the store.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) object: Authorization,
    version: u64,
    /// The row's: an authorization that has ended is kept as long as it would have lasted.
    expires: Timestamp,
}

impl Kept {
    /// With a state that is not saved yet.
    pub(crate) fn with_state(self, state: State) -> Self {
        let object = Authorization { state, ..self.object };
        Self { object, ..self }
    }
}

async fn load(front: &Front, id: &AuthorizationId) -> Result<Kept, Refusal> {
    let rows = front.store.authorizations(&[id.to_string()]).await?;
    let row = rows.into_iter().next().ok_or(Refusal::NoObject)?;
    let Versioned { object, version } = stored::authorization(&row)?;
    Ok(Kept { object, version, expires: row.expires_at })
}

/// What a change of an authorization decides, looking at its state.
pub(crate) enum Step<T> {
    /// This state from now on.
    Save(State, T),
    /// No change.
    Leave(T),
}

/// Changes an authorization by compare-and-swap; `step` may see several states before one of its answers is saved, first
/// what is `known` of it. Answers the authorization as it is now.
pub(crate) async fn change<T>(
    front: &Front,
    id: &AuthorizationId,
    mut known: Option<Kept>,
    mut step: impl FnMut(&Facts, State, Timestamp) -> Step<T>,
) -> Result<(Kept, T), Refusal> {
    for _ in 0..SAVE_TRIES {
        let Kept { object: Authorization { facts, state }, version, expires } = match known.take() {
            Some(known) => known,
            None => load(front, id).await?,
        };
        let now = front.now();
        let before = state.at(now);
        match step(&facts, before.clone(), now) {
            Step::Leave(answer) => {
                return Ok((
                    Kept { object: Authorization { facts, state: before }, version, expires },
                    answer,
                ));
            }
            Step::Save(state, answer) => {
                let next = Versioned { object: Authorization { facts, state }, version };
                let changed = stored::authorization_change(&next, expires)?;
                let expires = changed.expires_at;
                if front.save(Unit { orders: Vec::new(), authorizations: vec![changed] }).await? {
                    return Ok((Kept { object: next.object, version: version + 1, expires }, answer));
                }
            }
        }
    }
    Err(Refusal::Contended)
}

pub(crate) fn show(request: &Signed<'_>, authorization: &Authorization, now: Timestamp) -> Reply {
    let reply = Reply::json(
        StatusCode::OK,
        &authorization.object(request.base, now, &request.place.directory.caa_identities),
    );
    match retry_after(authorization, now) {
        Some(seconds) => reply.retry_after(seconds),
        None => reply,
    }
}

/// When to look again, in seconds; none if the client has asked for nothing, or there is an outcome.
pub(crate) fn retry_after(authorization: &Authorization, now: Timestamp) -> Option<u32> {
    let State::Pending(pending) = authorization.state.clone().at(now) else { return None };
    pending.challenges.iter().filter_map(|challenge| challenge.retry_after(now)).min()
}

/// An authorization in one of its last states takes no more changes.
pub(crate) fn has_ended(state: &State) -> Refusal {
    let detail = format!("the authorization is {}", state.status().as_str());
    Problem::new(ErrorType::Malformed, detail).into()
}
