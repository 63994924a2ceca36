//! newAuthz (RFC 8555 §7.4.1): an authorization without an order, for orders to come.

use std::collections::BTreeMap;

use acme::authorization::{Authorization, Facts, NewAuthorization, State, Valid};
use acme::problem::Problem;
use acme::resource::Resource;
use http::StatusCode;

use crate::authorization::show;
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
    let directory = &request.place.directory;
    tracing::Span::current().record("account", tracing::field::display(account.id));
    let now = front.now();
    let wanted = NewAuthorization::from_verified(&request.verified).map_err(|error| error.problem())?;
    bound_pending(front, account, now).await?;
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
    let scope = named.authorization.scope();
    let located = |authorization: &Authorization, status| {
        let url = request.url(Resource::Authorization(authorization.facts.id));
        show(&request, authorization, now).status_of(status).location(&url)
    };
    let no_domains = BTreeMap::new();
    let there = held.reuse(directory, &named.name, &no_domains, now);
    let enough = there
        .filter(|reused| reused.ancestor.is_none())
        .map(|reused| reused.authorization)
        .filter(|there| !scope.subdomains || there.facts.id.scope().subdomains);
    if let (None, Some(there)) = (&named.grant, enough) {
        return Ok(located(there, StatusCode::OK));
    }
    let state = match named.grant {
        Some(grant) => State::Valid(Valid::granted(grant, named.expires)),
        None => {
            let pending = directory.pending(&named.name, &named.authorization, named.expires);
            if pending.challenges.is_empty() {
                let refused = Problem::from_subproblems(vec![unprovable(&named.name)]);
                return Err(refused.map_or(Refusal::Impossible("a refusal of nothing"), Refusal::from));
            }
            State::Pending(pending)
        }
    };
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
    Ok(located(&authorization, StatusCode::CREATED))
}
