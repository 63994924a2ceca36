//! The role: key, resolver, methods and port put together.

use std::sync::Arc;
use std::time::Duration;

use rpc::proto::validator::v1::perspective_client::PerspectiveClient;
use rpc::{AccessTable, AddressError, Channel, Limits, NodeCredentials, Revocations, Role};
use runtime::{Failure, Lifecycle};

use crate::address::AddressPolicy;
use crate::caa::Caa;
use crate::config::Config;
use crate::dns_01::{Dns01, TextLookUp};
use crate::dns_persist_01::DnsPersist01;
use crate::http_01::Http01;
use crate::observer::{Eyes, Methods, Observer};
use crate::receipt_key::{self, ReceiptKeyError};
use crate::resolver::{Resolver, ResolverError};
use crate::service::{Remote, Service};
use crate::tls_alpn_01::TlsAlpn01;

/// Why a validator does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The node's identity.
    #[error(transparent)]
    Credentials(#[from] rpc::CredentialsError),
    /// Not a validator's certificate.
    #[error("this node is {0}, not a validator")]
    Role(rpc::PeerIdentity),
    /// The receipt key.
    #[error("receipt_key: {0}")]
    ReceiptKey(#[from] ReceiptKeyError),
    /// The resolvers.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// TLS towards targets.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An address of a signer or a remote.
    #[error("{key}: {source}")]
    Address {
        /// The configuration's key.
        key: String,
        /// What is wrong.
        source: AddressError,
    },
    /// A remote with this node's own name: its receipt would be counted twice.
    #[error("remotes: {0} is this node itself")]
    Itself(String),
    /// The port.
    #[error(transparent)]
    Listen(#[from] runtime::ListenError),
    /// Serving failed.
    #[error(transparent)]
    Serve(#[from] rpc::ServeError),
}

/// Runs a validator until the drain.
///
/// # Errors
/// When it cannot start, or its port fails for good.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), RunError> {
    let credentials = config.node.load()?;
    let identity = credentials.identity();
    if identity.role != Role::Validator {
        return Err(RunError::Role(identity));
    }
    let key = receipt_key::load(&config.receipt_key, &identity.name)?;
    let eyes = eyes(&config, &lifecycle).await?;
    let resolver = match &eyes {
        Eyes::Open(methods) => Some(methods.resolver.clone()),
        Eyes::Shut => None,
    };
    let limits = &config.limits;
    let observer =
        Observer::new(key, eyes, lifecycle.clock(), limits.at_once.get(), limits.per_identifier.get());
    let remotes = remotes(&config, &credentials)?;
    // A remote's attempt and the ways there and back.
    let service = Service::new(observer, remotes, config.attempt() + Duration::from_secs(2));
    let signer = Channel::connect_lazy(config.signers.clone(), Role::Signer, Arc::clone(&credentials))
        .map_err(|source| RunError::Address { key: "signers".to_owned(), source })?;
    let listener = lifecycle.listen(&config.listen).await?;
    lifecycle.renew_credentials(&credentials, signer);
    if let Some(resolver) = resolver {
        watch_resolver(resolver, &lifecycle);
    }
    let limits = Limits { request_bytes: REQUEST_BYTES, ..Limits::default() };
    let access = AccessTable::validator();
    let routes = service.routes();
    // Revoked nodes are a signer's to know; a front's certificate that was revoked ends within days here.
    rpc::serve(listener, credentials, routes, access, Revocations::new(), limits, lifecycle.draining())
        .await?;
    Ok(())
}

/// What it looks with; nothing, where it is not to look.
async fn eyes(config: &Config, lifecycle: &Lifecycle) -> Result<Eyes, RunError> {
    if config.always_valid {
        tracing::warn!(
            "always_valid: this validator looks at nothing; its receipts are good for test CAs alone"
        );
        return Ok(Eyes::Shut);
    }
    let mut resolver = Resolver::new(&config.resolver.servers, config.query())?;
    if config.resolver.dnssec {
        resolver = resolver.validating();
        // Before anybody asks; the watch goes on with it.
        if let Err(fault) = resolver.is_well().await {
            tracing::warn!(%fault, "resolver");
        }
    }
    let policy = AddressPolicy::new(config.addresses.clone());
    let texts = TextLookUp::new(config.dns_settings(), resolver.clone());
    Ok(Eyes::Open(Box::new(Methods {
        http_01: Http01::new(config.http_01_settings(), resolver.clone(), policy.clone())?,
        tls_alpn_01: TlsAlpn01::new(config.tls_alpn_01_settings(), resolver.clone(), policy)?,
        dns_01: Dns01::new(texts.clone()),
        dns_persist_01: DnsPersist01::new(texts),
        resolver: resolver.clone(),
        caa: Caa::new(resolver, lifecycle.clock(), config.attempt()),
    })))
}

/// A target has a few ids and one name.
const REQUEST_BYTES: usize = 16 << 10;

fn remotes(config: &Config, credentials: &Arc<NodeCredentials>) -> Result<Vec<Remote>, RunError> {
    let own = credentials.identity().name;
    let remote = |section: &crate::config::RemoteSection| {
        if section.name == own {
            return Err(RunError::Itself(own.to_string()));
        }
        let channel =
            Channel::connect_lazy(section.addresses.clone(), Role::Validator, Arc::clone(credentials))
                .map_err(|source| RunError::Address { key: format!("remotes.{}", section.name), source })?;
        Ok(Remote { name: section.name.to_string(), client: PerspectiveClient::new(channel) })
    };
    config.remotes.iter().map(remote).collect()
}

/// Ready while a resolver answers, and validates if it is to: without one, every attempt would end in nothing.
fn watch_resolver(resolver: Resolver, lifecycle: &Lifecycle) {
    let dependency = lifecycle.readiness().dependency("resolver");
    let draining = lifecycle.drain_token();
    lifecycle.spawn("resolver watch", async move {
        loop {
            match resolver.is_well().await {
                Ok(()) => dependency.up(),
                Err(fault) => dependency.down(fault.to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = draining.cancelled() => return Ok::<(), Failure>(()),
            }
        }
    });
}

const LOOK_EVERY: Duration = Duration::from_secs(5);
