//! Certificates (RFC 8555 §7.4.2): the signer keeps them, the front shows them to their account.

use std::sync::Arc;
use std::time::Duration;

use acme::order::Facts;
use acme::{AccountId, DirectoryName};
use bytes::Bytes;
use http::StatusCode;
use moka::sync::Cache;
use pki::Serial;
use pki::chain::pem_block;

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request::Signed;
use crate::service::Front;
use crate::signer::SignerError;

/// Certificates that were issued here a moment ago: their clients ask for them next.
#[derive(Debug)]
pub(crate) struct FreshCertificates(Cache<Serial, Arc<Fresh>>);

#[derive(Debug)]
struct Fresh {
    directory: DirectoryName,
    account: AccountId,
    /// DER, leaf first.
    chain: Vec<Bytes>,
}

/// How long they are kept.
const FRESH: Duration = Duration::from_secs(120);

impl FreshCertificates {
    pub(crate) fn new(capacity: u64) -> Self {
        Self(Cache::builder().max_capacity(capacity).time_to_live(FRESH).build())
    }

    /// Keeps what the signer has answered for this order.
    pub(crate) fn keep(&self, order: &Facts, serial: Serial, chain: Vec<Bytes>) {
        if !chain.is_empty() {
            let (directory, account) = (order.directory.clone(), order.account);
            self.0.insert(serial, Arc::new(Fresh { directory, account, chain }));
        }
    }
}

/// A certificate with its chain; a revoked one as well. One of another account is not to be told from a missing one.
#[tracing::instrument(name = "acme.certificate", skip_all, fields(serial = %serial))]
pub(crate) async fn download(front: &Front, request: Signed<'_>, serial: &Serial) -> Result<Reply, Refusal> {
    request.require_post_as_get()?;
    let account = request.account()?;
    if let Some(fresh) = front.fresh.0.get(serial)
        && fresh.account == account.id
        && fresh.directory == request.place.directory.name
    {
        return Ok(show(&fresh.chain));
    }
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
    Ok(show(&found.chain))
}

fn show(chain: &[Bytes]) -> Reply {
    Reply::chain(chain.iter().map(|der| pem_block("CERTIFICATE", der)).collect())
}
