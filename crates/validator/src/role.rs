//! The role: key, resolver, methods and port put together.

use std::sync::Arc;
use std::time::Duration;

use rpc::proto::validator::v1::perspective_client::PerspectiveClient;
use rpc::{AccessTable, AddressError, Channel, Limits, NodeCredentials, Revocations, Role};
use runtime::{Failure, Lifecycle};

use crate::address::AddressPolicy;
use crate::config::Config;
use crate::dns_01::Dns01;
use crate::http_01::Http01;
use crate::observer::{Methods, Observer};
use crate::receipt_key::{self, ReceiptKeyError};
use crate::resolver::{Resolver, ResolverError};
use crate::service::{Remote, Service};

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
    let resolver = Resolver::new(&config.resolver, config.query())?;
    let policy = AddressPolicy::new(config.addresses.clone());
    let methods = Methods {
        http_01: Http01::new(config.http_01_settings(), resolver.clone(), policy)?,
        dns_01: Dns01::new(config.dns_settings(), resolver.clone()),
    };
    let limits = &config.limits;
    let observer =
        Observer::new(key, methods, lifecycle.clock(), limits.at_once.get(), limits.per_identifier.get());
    let remotes = remotes(&config, &credentials)?;
    // A remote's attempt and the ways there and back.
    let service = Service::new(observer, remotes, config.attempt() + Duration::from_secs(2));
    let signer = Channel::connect_lazy(config.signers.clone(), Role::Signer, Arc::clone(&credentials))
        .map_err(|source| RunError::Address { key: "signers".to_owned(), source })?;
    let listener = lifecycle.listen(&config.listen).await?;
    lifecycle.renew_credentials(&credentials, signer);
    watch_resolver(resolver, &lifecycle);
    let limits = Limits { request_bytes: REQUEST_BYTES, ..Limits::default() };
    let access = AccessTable::validator();
    let routes = service.routes();
    // Revoked nodes are a signer's to know; a front's certificate that was revoked ends within days here.
    rpc::serve(listener, credentials, routes, access, Revocations::new(), limits, lifecycle.draining())
        .await?;
    Ok(())
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

/// Ready while a resolver answers: without one, every attempt would end in nothing.
fn watch_resolver(resolver: Resolver, lifecycle: &Lifecycle) {
    let dependency = lifecycle.readiness().dependency("resolver");
    let draining = lifecycle.drain_token();
    lifecycle.spawn("resolver watch", async move {
        loop {
            if resolver.answers().await {
                dependency.up();
            } else {
                dependency.down(crate::failure::LocalFault::Resolver.to_string());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = draining.cancelled() => return Ok::<(), Failure>(()),
            }
        }
    });
}

const LOOK_EVERY: Duration = Duration::from_secs(5);
