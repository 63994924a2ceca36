//! revokeCert (RFC 8555 §7.6): by the account, by the certificate's key, or by another account that holds all names.

use acme::revocation::Revocation;
use http::StatusCode;
use pki::{Certificate, Name};

use crate::finalize::evidence;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::{Caller, Signed};
use crate::reuse::Held;
use crate::service::Front;

/// The request goes to the signer as it came, with the valid authorizations that the account has for the names: the
/// signer decides which of the three ways it is, and whether it holds.
#[tracing::instrument(name = "acme.revoke_certificate", skip_all)]
pub(crate) async fn revoke(front: &Front, request: Signed<'_>) -> Result<Reply, Refusal> {
    let revocation = Revocation::from_verified(&request.verified).map_err(|error| error.problem())?;
    let evidence = match request.caller {
        Caller::Account(account) => held(front, &request, account, &revocation).await?,
        Caller::Key(_) => Vec::new(),
    };
    front.signer.revoke(request.jws(), evidence).await?;
    tracing::info!(reason = %revocation.reason, "revoked");
    Ok(Reply::empty(StatusCode::OK))
}

async fn held(
    front: &Front,
    request: &Signed<'_>,
    account: &rpc::Account,
    revocation: &Revocation,
) -> Result<Vec<rpc::proto::signer::v1::AuthorizationEvidence>, Refusal> {
    // What is no certificate, the signer says.
    let Ok(certificate) = Certificate::from_der(&revocation.certificate) else { return Ok(Vec::new()) };
    let Some(names) = certificate.names() else { return Ok(Vec::new()) };
    let held = Held::find(front, &request.place.directory, account, names, front.now()).await?;
    let of = |name: &Name| {
        let exact = held.exact(name).map(|authorization| (None, authorization));
        let found = exact.or_else(|| {
            held.ancestors(name, None).next().map(|(above, authorization)| (Some(above), authorization))
        });
        found.map(|(above, authorization)| evidence(authorization, name.clone(), above).into())
    };
    Ok(names.iter().filter_map(of).collect())
}
