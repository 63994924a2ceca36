//! Certificates (RFC 8555 §7.4.2): the signer keeps them, the front shows them to their account.

use http::StatusCode;
use pki::Serial;
use pki::chain::pem_block;

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Signed;
use crate::service::Front;
use crate::signer::SignerError;

/// A certificate with its chain; a revoked one as well. One of another account is not to be told from a missing one.
#[tracing::instrument(name = "acme.certificate", skip_all, fields(serial = %serial))]
pub(crate) async fn download(front: &Front, request: Signed<'_>, serial: &Serial) -> Result<Reply, Refusal> {
    request.require_post_as_get()?;
    let account = request.account()?;
    let found = match front.signer.download(&request.place.directory.name, serial).await {
        Err(SignerError::Refused(refused)) if refused.problem.status() == StatusCode::NOT_FOUND.as_u16() => {
            return Err(Refusal::NoObject);
        }
        outcome => outcome?,
    };
    if found.account_id != account.id.to_string() {
        return Err(Refusal::NoObject);
    }
    if found.chain.is_empty() {
        return Err(Refusal::Impossible("a certificate without a chain"));
    }
    Ok(Reply::chain(found.chain.iter().map(|der| pem_block("CERTIFICATE", der)).collect()))
}
