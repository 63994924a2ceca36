//! revokeCert (RFC 8555 §7.6): by the account, by the certificate's key, or by another account that holds all names.

use acme::revocation::Revocation;
use acme_store::Identifier;
use http::StatusCode;
use pki::Certificate;

use crate::finalize::evidence;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::{Caller, Signed};
use crate::service::Front;
use crate::stored;

/// The request goes to the signer as it came, with the valid authorizations that the account has for the names: the
/// signer decides which of the three ways it is, and whether it holds.
#[tracing::instrument(name = "acme.revoke_certificate", skip_all)]
pub(crate) async fn revoke(front: &Front, request: Signed<'_>) -> Result<Reply, Refusal> {
    let revocation = Revocation::from_verified(&request.verified).map_err(|error| error.problem())?;
    let evidence = match request.caller {
        Caller::Account(account) => held(front, account, &revocation).await?,
        Caller::Key(_) => Vec::new(),
    };
    front.signer.revoke(request.jws(), evidence).await?;
    tracing::info!(reason = %revocation.reason, "revoked");
    Ok(Reply::empty(StatusCode::OK))
}

async fn held(
    front: &Front,
    account: &rpc::Account,
    revocation: &Revocation,
) -> Result<Vec<rpc::proto::signer::v1::AuthorizationEvidence>, Refusal> {
    // What is no certificate, the signer says.
    let Ok(certificate) = Certificate::from_der(&revocation.certificate) else { return Ok(Vec::new()) };
    let Some(names) = certificate.names() else { return Ok(Vec::new()) };
    let identifiers: Vec<Identifier> = names.iter().map(stored::identifier).collect();
    let rows =
        front.store.reusable_authorizations(&account.id.to_string(), &identifiers, front.now()).await?;
    rows.iter().map(|row| Ok(evidence(stored::authorization(row)?.object).into())).collect()
}
