//! Challenges (RFC 8555 §7.5.1): the client says that it is ready, and the validator looks.

use std::sync::Arc;

use acme::AuthorizationId;
use acme::authorization::{Authorization, State};
use acme::challenge::{Method, Response, Start};
use acme::resource::Resource;
use http::StatusCode;

use crate::authorization::{self, POLL_SECONDS, Step};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Signed;
use crate::service::Front;
use crate::validation::{self, Validation};

/// A challenge: read by POST-as-GET, asked for by an object. Asking again has no effect while a try runs, and none after
/// the end (D6).
#[tracing::instrument(name = "acme.challenge", skip_all, fields(authorization = %id, method = %method))]
pub(crate) async fn challenge(
    front: &Arc<Front>,
    request: Signed<'_>,
    id: &AuthorizationId,
    method: Method,
) -> Result<Reply, Refusal> {
    let account = request.account()?;
    let found = authorization::find(front, &request, id).await?;
    if request.is_post_as_get() {
        return show(front, &request, &found.object, method);
    }
    let Response {} = request.payload()?;
    let lease = validation::lease(front);
    let (authorization, begun) = authorization::change(front, id, Some(found), |_, state, now| match state {
        State::Pending(pending) => match pending.clone().start(method, now, lease) {
            Ok((next, Start::Begin(attempt))) => Step::Save(State::Pending(next), Some(attempt)),
            Ok((_, Start::Running(_))) | Err(_) => Step::Leave(None),
        },
        _ => Step::Leave(None),
    })
    .await?;
    if let Some(attempt) = begun {
        tracing::info!(attempt, "validation begins");
        let validation = Validation::new(&authorization.object.facts, method, account.key.thumbprint());
        validation::begin(front, validation, authorization.clone(), attempt);
    }
    show(front, &request, &authorization.object, method)
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
    let object = challenge.object(request.url(Resource::Challenge(id, method)), acme::id::token(&id));
    let reply = Reply::json(StatusCode::OK, &object).link(&request.url(Resource::Authorization(id)), "up");
    Ok(if object.status == "processing" { reply.retry_after(POLL_SECONDS) } else { reply })
}
