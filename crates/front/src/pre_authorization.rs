//! newAuthz (RFC 8555 §7.4.1): an authorization without an order, for orders to come.

use std::collections::BTreeMap;

use acme::authorization::{Authorization, Facts, NewAuthorization, State, Valid};
use acme::problem::Problem;
use acme::resource::Resource;
use http::StatusCode;
use pki::Timestamp;

use crate::authorization::show;
use crate::limits::Room;
use crate::order::{bound_pending, unprovable};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Signed;
use crate::reuse::Held;
use crate::service::Front;
use crate::stored;

/// newAuthz. Who has shown control already, within the time in which that counts, gets the authorization that says so (200).
#[tracing::instrument(name = "acme.new_authorization", skip_all, fields(account = tracing::field::Empty))]
pub(crate) async fn create(front: &Front, request: Signed<'_>) -> Result<Reply, Refusal> {
    let account = request.account()?;
    tracing::Span::current().record("account", tracing::field::display(account.id));
    let now = front.now();
    let wanted = NewAuthorization::from_verified(&request.verified).map_err(|error| error.problem())?;
    bound_pending(front, account, now).await?;
    let mut room = front.take_order_room_early(&account.id, false).await?;
    let placed = place(front, &request, wanted, &mut room, now).await;
    let used = placed.as_ref().is_ok_and(|(_, status)| *status == StatusCode::CREATED);
    match room {
        Some(room) if used => room.keep(),
        Some(room) => room.give_back(front).await?,
        None => {}
    }
    let (authorization, status) = placed?;
    let url = request.url(Resource::Authorization(authorization.facts.id));
    Ok(show(&request, &authorization, now).status_of(status).location(&url))
}

/// Finds or makes the authorization: 200 or 201. Takes room for a new one that was not taken before.
async fn place(
    front: &Front,
    request: &Signed<'_>,
    wanted: NewAuthorization,
    room: &mut Option<Room>,
    now: Timestamp,
) -> Result<(Authorization, StatusCode), Refusal> {
    let account = request.account()?;
    let directory = &request.place.directory;
    let (authorized, held) = tokio::join!(
        front.signer.authorize_identifier(request.jws()),
        Held::find(front, directory, account, [&wanted.name], now)
    );
    let (authorized, held) = (authorized?, held?);
    let named = authorized.name;
    if authorized.account != account.id || authorized.directory != directory.name || named.name != wanted.name
    {
        return Err(Refusal::Impossible("an authorization of another name"));
    }
    front.learn(account.id, authorized.limits);
    let scope = named.authorization.scope();
    let no_domains = BTreeMap::new();
    let there = held.reuse(directory, &named.name, &no_domains, now);
    let enough = there
        .filter(|reused| reused.ancestor.is_none())
        .map(|reused| reused.authorization)
        .filter(|there| !scope.subdomains || there.facts.id.scope().subdomains);
    if let (None, Some(there)) = (&named.grant, enough) {
        return Ok((there.clone(), StatusCode::OK));
    }
    let state = match named.grant {
        Some(grant) => State::Valid(Valid::granted(grant, named.expires)),
        None => {
            let pending = directory.pending(&named.name, &named.authorization, named.expires);
            if pending.challenges.is_empty() {
                let refused = Problem::from_subproblems(vec![unprovable(&named.name)]);
                return Err(refused.map_or(Refusal::Impossible("a refusal of nothing"), Refusal::from));
            }
            let name = std::iter::once(&named.name);
            front.check_failures(&authorized.limits, false, &account.id, name).await?;
            State::Pending(pending)
        }
    };
    if room.is_none() {
        *room = front.take_order_room(&authorized.limits, &account.id).await?;
    }
    let facts = Facts {
        id: named.authorization,
        directory: directory.name.clone(),
        account: account.id,
        name: named.name,
        created_by: request.jws().digest(),
    };
    let authorization = Authorization { facts, state };
    let row = stored::authorization_row(&authorization, now, named.expires)?;
    match front.store.create_authorizations(vec![row.clone()]).await {
        Err(error) if error.may_be_durable() => front.store.create_authorizations(vec![row]).await?,
        outcome => outcome?,
    }
    tracing::info!(authorization = %authorization.facts.id, "pre-authorization");
    Ok((authorization, StatusCode::CREATED))
}
