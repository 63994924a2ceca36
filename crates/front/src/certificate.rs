//! Certificates (RFC 8555 §7.4.2): the signer keeps them, the front shows them to their account.

use std::sync::Arc;
use std::time::Duration;

use acme::order::Facts;
use acme::resource::Resource;
use acme::{AccountId, DirectoryName};
use bytes::Bytes;
use http::StatusCode;
use moka::sync::Cache;
use pki::Serial;
use pki::chain::pem_block;
use rpc::proto::signer::v1 as proto;

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
    chains: Chains,
}

/// A certificate's chains, each DER and leaf first. The first is the one that clients get unless they ask for another.
#[derive(Debug)]
pub(crate) struct Chains(Vec<Vec<Bytes>>);

impl Chains {
    /// The chain, and those that have something else above the same leaf.
    pub(crate) fn new(chain: Vec<Bytes>, alternates: Vec<proto::AlternateChain>) -> Self {
        let Some(leaf) = chain.first().cloned() else { return Self(Vec::new()) };
        let with_leaf =
            |above: proto::AlternateChain| std::iter::once(leaf.clone()).chain(above.issuers).collect();
        let alternates: Vec<_> = alternates.into_iter().map(with_leaf).collect();
        Self(std::iter::once(chain).chain(alternates).collect())
    }

    /// The chain of this number, with links to all others (RFC 8555 §7.4.2).
    fn show(&self, request: &Signed<'_>, serial: &Serial, wanted: u8) -> Option<Reply> {
        let chain = self.0.get(usize::from(wanted))?;
        let pem = chain.iter().map(|der| pem_block("CERTIFICATE", der)).collect();
        let others = (0_u8..).zip(&self.0).map(|(number, _)| number).filter(|number| *number != wanted);
        Some(others.fold(Reply::chain(pem), |reply, number| {
            let other = match number {
                0 => Resource::Certificate(*serial),
                _ => Resource::AlternateCertificate(*serial, number),
            };
            reply.link(&request.url(other), "alternate")
        }))
    }
}

/// How long they are kept.
const FRESH: Duration = Duration::from_secs(120);

impl FreshCertificates {
    pub(crate) fn new(capacity: u64) -> Self {
        Self(Cache::builder().max_capacity(capacity).time_to_live(FRESH).build())
    }

    /// Keeps what the signer has answered for this order.
    pub(crate) fn keep(&self, order: &Facts, serial: Serial, chains: Chains) {
        if !chains.0.is_empty() {
            let (directory, account) = (order.directory.clone(), order.account);
            self.0.insert(serial, Arc::new(Fresh { directory, account, chains }));
        }
    }
}

/// A certificate with one of its chains; a revoked one as well. One of another account is not to be told from a missing one.
#[tracing::instrument(name = "acme.certificate", skip_all, fields(serial = %serial))]
pub(crate) async fn download(
    front: &Front,
    request: Signed<'_>,
    serial: &Serial,
    wanted: u8,
) -> Result<Reply, Refusal> {
    request.require_post_as_get()?;
    let account = request.account()?;
    if let Some(fresh) = front.fresh.0.get(serial)
        && fresh.account == account.id
        && fresh.directory == request.place.directory.name
    {
        return fresh.chains.show(&request, serial, wanted).ok_or(Refusal::NoObject);
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
    let chains = Chains::new(found.chain, found.alternates);
    chains.show(&request, serial, wanted).ok_or(Refusal::NoObject)
}
