//! One way in for every request: admission, the right handler, and what every answer carries.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use acme::resource::{BaseUrl, Resource};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode, header};
use tokio::time::Instant;
use tracing::Instrument;

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::{self, Place, Signed};
use crate::server::RemoteAddress;
use crate::service::Front;
use crate::{
    account, authorization, certificate, challenge, finalize, order, pre_authorization, renewal, revocation,
};

/// The service. There is one route: which resource a path means is decided by [`acme::resource`], which the signer
/// uses too, so that front and signer cannot disagree about a URL.
pub(crate) fn router(front: Arc<Front>) -> Router {
    Router::new().fallback(dispatch).with_state(front)
}

async fn dispatch(State(front): State<Arc<Front>>, request: Request) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let place = Place::find(&front.directories, request.uri());
    let mut base = place.as_ref().ok().and_then(|place| place.directory.base_for_host(host).cloned());
    let operation = place.as_ref().map_or("unknown", |place| operation(&place.resource));
    let directory = place.as_ref().ok().map(|place| Arc::clone(&place.directory));
    let index = place.as_ref().is_ok_and(|place| !matches!(place.resource, Resource::Directory));

    let remote = request.extensions().get::<RemoteAddress>().map(|remote| tracing::field::display(remote.0));
    let span = tracing::info_span!("acme.request", operation, remote);
    let outcome = match place {
        Ok(place) => admit(&front, &place, request, &mut base).instrument(span.clone()).await,
        Err(refusal) => Err(refusal),
    };
    let reply = span.in_scope(|| outcome.unwrap_or_else(Refusal::into_reply));

    let status = reply.status().as_str().to_owned();
    metrics::counter!("chancery_front_requests_total", "operation" => operation, "status" => status)
        .increment(1);
    metrics::histogram!("chancery_front_request_seconds", "operation" => operation)
        .record(started.elapsed().as_secs_f64());
    let index = match (index, &directory, &base) {
        (true, Some(directory), Some(base)) => Some(Resource::Directory.url(base, &directory.name)),
        _ => None,
    };
    let nonce = (method != Method::OPTIONS).then(|| front.nonces.issue());
    let mut response = reply.into_response(&method, nonce.as_deref(), index.as_deref());
    front.faults.mark(response.headers_mut());
    response
}

/// Works on a request, and not for longer than is allowed.
async fn admit(
    front: &Arc<Front>,
    place: &Place,
    request: Request,
    base: &mut Option<BaseUrl>,
) -> Result<Reply, Refusal> {
    let patience = Duration::from_secs(front.limits.request_seconds);
    let method = request.method().clone();
    let work = Box::pin(async {
        front.faults.strike(&method).await?;
        serve(front, place, request, base).await
    });
    tokio::time::timeout(patience, work).await.unwrap_or(Err(Refusal::TooSlow))
}

async fn serve(
    front: &Arc<Front>,
    place: &Place,
    request: Request,
    base: &mut Option<BaseUrl>,
) -> Result<Reply, Refusal> {
    let method = request.method();
    let peer = request.extensions().get::<RemoteAddress>().map(|remote| remote.0.ip());
    let client = peer.and_then(|peer| front.proxies.client(peer, request.headers()));
    if let Some(client) = client {
        let taken = front.work.take(client, cost(method, &place.resource), Instant::now());
        taken.map_err(|wait| Refusal::TooFast { seconds: whole_seconds(wait) })?;
    }
    if method == Method::POST && !matches!(place.resource, Resource::RenewalInfo(_)) {
        return post(front, place, request, client, base).await;
    }
    let _room = front.room.try_acquire().map_err(|_| Refusal::Overloaded)?;
    match (&place.resource, method) {
        (_, &Method::OPTIONS) => Ok(Reply::preflight().allow(allowed(&place.resource))),
        (Resource::Directory, &Method::GET | &Method::HEAD) => {
            let base = base.as_ref().ok_or(Refusal::NoDirectory)?;
            Ok(place.directory.reply(base))
        }
        // RFC 8555 §7.2: 200 to HEAD, 204 to GET.
        (Resource::NewNonce, &Method::HEAD) => Ok(Reply::empty(StatusCode::OK)),
        (Resource::NewNonce, &Method::GET) => Ok(Reply::empty(StatusCode::NO_CONTENT)),
        (Resource::RenewalInfo(id), &Method::GET | &Method::HEAD) => {
            renewal::show(front, &place.directory, id).await
        }
        _ => Err(Refusal::Method { allow: allowed(&place.resource) }),
    }
}

async fn post(
    front: &Arc<Front>,
    place: &Place,
    request: Request,
    client: Option<IpAddr>,
    base: &mut Option<BaseUrl>,
) -> Result<Reply, Refusal> {
    let (head, body) = request.into_parts();
    let patience = Duration::from_secs(front.limits.body_seconds);
    // A body that trickles in takes none of the places in which work is done.
    let reading = front.bodies.try_acquire().map_err(|_| Refusal::Overloaded)?;
    let body = request::read_body(&head.headers, body, front.limits.body_bytes, patience).await?;
    drop(reading);
    let _room = front.room.try_acquire().map_err(|_| Refusal::Overloaded)?;
    let jws = acme::jws::Jws::from_slice(&body)?;
    let used = base.insert(request::check_url(place, &jws)?);
    request::redeem(front, &jws).await?;
    let caller = request::identify(front, place, &jws).await?;
    let verified = jws.verify(caller.key())?;
    route(front, Signed { place, base: used, caller: &caller, client, verified }).await
}

async fn route(front: &Arc<Front>, request: Signed<'_>) -> Result<Reply, Refusal> {
    match &request.place.resource {
        Resource::Directory => {
            request.require_post_as_get()?;
            Ok(request.place.directory.reply(request.base))
        }
        Resource::NewNonce => {
            request.require_post_as_get()?;
            Ok(Reply::empty(StatusCode::OK))
        }
        Resource::NewAccount => account::register(front, request).await,
        Resource::Account(id) => account::account(front, request, id).await,
        Resource::Orders(id) => account::orders(front, request, id).await,
        Resource::KeyChange => account::change_key(front, request).await,
        Resource::NewOrder => order::create(front, request).await,
        Resource::Order(id) => order::show_order(front, request, id).await,
        Resource::Finalize(id) => finalize::finalize(front, request, id).await,
        Resource::Authorization(id) => authorization::authorization(front, request, id).await,
        Resource::Challenge(id, method) => challenge::challenge(front, request, id, *method).await,
        Resource::Certificate(serial) => certificate::download(front, request, serial, 0).await,
        Resource::AlternateCertificate(serial, number) => {
            certificate::download(front, request, serial, *number).await
        }
        Resource::RevokeCertificate => revocation::revoke(front, request).await,
        Resource::NewAuthorization => pre_authorization::create(front, request).await,
        Resource::RenewalInfo(_) => Err(Refusal::Method { allow: allowed(&request.place.resource) }),
    }
}

/// What a request costs of `limits.work_per_second`. Looking at a challenge costs as much as answering it: which of both it is
/// stands in a body that nobody has read.
fn cost(method: &Method, resource: &Resource) -> u32 {
    match (method, resource) {
        (
            &Method::POST,
            Resource::NewAccount
            | Resource::NewOrder
            | Resource::NewAuthorization
            | Resource::Challenge(..)
            | Resource::Finalize(_)
            | Resource::RevokeCertificate
            | Resource::KeyChange,
        ) => 10,
        _ => 1,
    }
}

/// Up to the next whole second, as Retry-After has it.
fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u32::MAX)
}

const fn allowed(resource: &Resource) -> &'static str {
    match resource {
        Resource::Directory | Resource::NewNonce => "GET, HEAD, POST, OPTIONS",
        Resource::RenewalInfo(_) => "GET, HEAD, OPTIONS",
        _ => "POST, OPTIONS",
    }
}

/// The name of an operation in metrics.
const fn operation(resource: &Resource) -> &'static str {
    match resource {
        Resource::Directory => "directory",
        Resource::NewNonce => "new_nonce",
        Resource::NewAccount => "new_account",
        Resource::NewOrder => "new_order",
        Resource::NewAuthorization => "new_authorization",
        Resource::RevokeCertificate => "revoke_certificate",
        Resource::KeyChange => "key_change",
        Resource::Account(_) => "account",
        Resource::Orders(_) => "orders",
        Resource::Order(_) => "order",
        Resource::Finalize(_) => "finalize",
        Resource::Authorization(_) => "authorization",
        Resource::Challenge(..) => "challenge",
        Resource::Certificate(_) | Resource::AlternateCertificate(..) => "certificate",
        Resource::RenewalInfo(_) => "renewal_info",
    }
}
