//! Renewal information (RFC 9773 §4): anybody may read it, so it is kept for a moment, and by caches for as long as it says.

use std::sync::Arc;
use std::time::Duration;

use acme::DirectoryName;
use acme::renewal::{CertificateId, Object, Window};
use http::StatusCode;
use moka::future::Cache;

use crate::directory::Directory;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::service::Front;
use crate::signer::SignerError;

/// What a signer has said of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RenewalInfo {
    pub(crate) window: Window,
    pub(crate) explanation_url: Option<String>,
    /// When to ask again, seconds.
    pub(crate) retry_after: u32,
}

/// Answers of a moment ago. What is kept here is old without harm: no issuance and no revocation rests on it.
#[derive(Debug)]
pub(crate) struct RenewalInfos(Cache<(DirectoryName, CertificateId), RenewalInfo>);

impl RenewalInfos {
    pub(crate) fn new(capacity: u64, kept: Duration) -> Self {
        Self(Cache::builder().max_capacity(capacity).time_to_live(kept).build())
    }
}

/// GET of `renewalInfo` for a certificate.
#[tracing::instrument(name = "acme.renewal_info", skip_all, fields(certificate = %id))]
pub(crate) async fn show(front: &Front, directory: &Directory, id: &CertificateId) -> Result<Reply, Refusal> {
    if !directory.renewal_info {
        return Err(Refusal::NoResource);
    }
    if let Some(body) = front.faults.renewal_info(id) {
        return Ok(Reply::as_json(body));
    }
    let key = (directory.name.clone(), id.clone());
    // Of many who ask for the same at once, one asks the signer. Refusals are not kept: each may be about a new certificate.
    let asked = front.renewal_infos.0.try_get_with(key, front.signer.renewal_info(&directory.name, id)).await;
    let info = asked.map_err(|error| refusal(&error))?;
    let object = Object::new(info.window, info.explanation_url);
    let retry_after = info.retry_after;
    Ok(Reply::json(StatusCode::OK, &object).retry_after(retry_after).cacheable(retry_after))
}

/// Those who wait for one answer share its error.
fn refusal(error: &Arc<SignerError>) -> Refusal {
    match &**error {
        SignerError::Refused(refused) => Refusal::from(refused.problem.clone()),
        SignerError::Status(status) => SignerError::Status(status.clone()).into(),
        SignerError::Answer(what) => SignerError::Answer(what).into(),
        SignerError::Field(error) => SignerError::Field(*error).into(),
    }
}
