//! Challenges (RFC 8555 §7.5.1): the client says that it is ready, and the validator looks.

use std::sync::Arc;

use acme::AuthorizationId;
use acme::authorization::{Authorization, State};
use acme::challenge::{Method, Response, Start};
use acme::resource::Resource;
use http::StatusCode;

use crate::authorization::{self, Kept};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Signed;
use crate::service::Front;
use crate::validation::{self, Validation};

/// A challenge: read by POST-as-GET, asked for by an object. Asking again has no effect while a try runs or is planned, and
/// none after the end (D6).
#[tracing::instrument(name = "acme.challenge", skip_all, fields(authorization = %id, method = %method))]
pub(crate) async fn challenge(
    front: &Arc<Front>,
    request: Signed<'_>,
    id: &AuthorizationId,
    method: Method,
) -> Result<Reply, Refusal> {
    let found = authorization::find(front, &request, id).await?;
    if request.is_post_as_get() {
        return show(front, &request, &found.object, method);
    }
    let Response {} = request.payload()?;
    let (started, attempt) = start(front, found, method);
    // It runs, or has ended: nothing changes.
    let Some(attempt) = attempt else { return show(front, &request, &started.object, method) };
    let Some(begun) = Validation::new(&started.object.facts, method, &request)?.begin(front) else {
        return show(front, &request, &started.object, method);
    };
    tracing::info!(attempt, "validation begins");
    let before = started.object.clone();
    let now = validation::begin_now(front, begun, started, attempt).await?.object;
    // What went wrong is found where one looks for the outcome.
    let failed = matches!(now.state, State::Pending(_) | State::Invalid(_));
    show(front, &request, if failed { &before } else { &now }, method)
}

/// The authorization with another try of the challenge, not saved yet; as it is, if there is none to be made.
fn start(front: &Front, found: Kept, method: Method) -> (Kept, Option<u32>) {
    let now = front.now();
    let State::Pending(pending) = found.object.state.clone().at(now) else { return (found, None) };
    let lease = validation::lease(front);
    if pending.challenges.iter().any(|known| known.method == method && known.is_under_way(now, lease)) {
        return (found, None);
    }
    match pending.start(method, now, lease) {
        Ok((next, Start::Begin(attempt))) => (found.with_state(State::Pending(next)), Some(attempt)),
        Ok((_, Start::Running(_))) | Err(_) => (found, None),
    }
}

fn show(
    front: &Front,
    request: &Signed<'_>,
    authorization: &Authorization,
    method: Method,
) -> Result<Reply, Refusal> {
    let now = front.now();
    let id = authorization.facts.id;
    let state = authorization.state.clone().at(now);
    let Some(challenge) = state.challenges().iter().find(|challenge| challenge.method == method) else {
        // Of an authorization that was given up or has expired, no challenge is left to show.
        return Err(match state {
            State::Deactivated(_) | State::Expired(_) | State::Revoked(_) => authorization::has_ended(&state),
            _ => Refusal::NoObject,
        });
    };
    let mut object = challenge.object(
        request.url(Resource::Challenge(id, method)),
        acme::id::token(&id),
        &request.place.directory.caa_identities,
    );
    if !request.is_post_as_get() && object.status == "processing" {
        // Some clients take an error in the answer to their request for its refusal, though another try is to come.
        object.error = None;
    }
    let reply = Reply::json(StatusCode::OK, &object).link(&request.url(Resource::Authorization(id)), "up");
    Ok(match challenge.retry_after(now) {
        Some(seconds) => reply.retry_after(seconds),
        None => reply,
    })
}
