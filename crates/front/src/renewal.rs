//! Renewal information (RFC 9773 §4): anybody may read it, so it is kept for a moment, and by caches for as long as it says.

use std::sync::Arc;
use std::time::Duration;

use acme::renewal::{CertificateId, Object, Window};
use acme::{DirectoryName, Problem};
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
pub(crate) struct RenewalInfos {
    known: Cache<(DirectoryName, CertificateId), RenewalInfo>,
    /// Ids of no certificate, and what the signer said of them: apart, so that they drive no answer out.
    unknown: Cache<(DirectoryName, CertificateId), Arc<Problem>>,
}

/// Anybody can ask for any id, and a signer for each would look into its database. Not for long: it may be a new
/// certificate's next.
const UNKNOWN_KEPT: Duration = Duration::from_secs(5);

impl RenewalInfos {
    pub(crate) fn new(capacity: u64, kept: Duration) -> Self {
        let unknown = Cache::builder().max_capacity(capacity).time_to_live(kept.min(UNKNOWN_KEPT));
        Self {
            known: Cache::builder().max_capacity(capacity).time_to_live(kept).build(),
            unknown: unknown.build(),
        }
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
    let infos = &front.renewal_infos;
    if let Some(problem) = infos.unknown.get(&key).await {
        return Err(Problem::clone(&problem).into());
    }
    // Of many who ask for the same at once, one asks the signer.
    let asked = infos.known.try_get_with_by_ref(&key, front.signer.renewal_info(&directory.name, id)).await;
    let info = match asked {
        Ok(info) => info,
        Err(error) => {
            if let SignerError::Refused(refused) = &*error
                && refused.problem.status() == StatusCode::NOT_FOUND.as_u16()
            {
                infos.unknown.insert(key, Arc::new(refused.problem.clone())).await;
            }
            return Err(refusal(&error));
        }
    };
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
