//! The role: start, serve, drain.
//!
//! Start order: configuration and policy, tokens (which may be away), database and clock, ports, background tasks. What
//! cannot be reloaded says so: the policy and the tier secret need a restart; the node's certificate does not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ca_store::{CaStore, Incarnation, StoreError};
use rpc::proto::admin::v1::admin_server::AdminServer;
use rpc::proto::signer::v1::authority_server::AuthorityServer;
use rpc::proto::signer::v1::enrollment_server::EnrollmentServer;
use rpc::proto::signer::v1::membership_server::MembershipServer;
use rpc::proto::status::v1::publication_server::PublicationServer;
use rpc::proto::status::v1::responder_server::ResponderServer;
use rpc::{AccessTable, NodeCredentials, Role};
use runtime::{Dependency, ExitCode, Lifecycle};
use tonic::service::Routes;

use crate::admin::AdminService;
use crate::ca::{Ca, Parts, StartError};
use crate::clock::{self, SigningClock};
use crate::config::Config;
use crate::crl::{CrlMaker, ImportedCrls};
use crate::doors::{DoorError, Doors, KeySource, Tokens, WorkerCommand};
use crate::membership_service::{EnrollmentService, MembershipService};
use crate::node_ca::NodeCa;
use crate::ocsp::{Responder, ResponderService};
use crate::publication::{Objects, PublicationService};
use crate::random::{Randomness, RandomnessError, SystemRandomness};
use crate::registry::{Registry, RegistryError};
use crate::revoke::{COMPROMISED_ROUND, INCIDENT_ROUND};
use crate::secrets::{Secrets, SecretsError};
use crate::service::AuthorityService;
use crate::weak_keys::{WeakKeys, WeakKeysError};

/// Why the signer does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policy, or a file that it names.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The tier secret.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A key that is not there, or not the certificate's.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// This node's certificate.
    #[error(transparent)]
    Credentials(#[from] rpc::CredentialsError),
    /// The node's certificate is another role's.
    #[error("the node's certificate is for role {0}, not for a signer")]
    Role(Role),
    /// The state folder.
    #[error("the state folder {} cannot be made", path.display())]
    State {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Database, clock or registry.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port.
    #[error(transparent)]
    Listen(#[from] runtime::ListenError),
    /// A port that failed while it was served.
    #[error(transparent)]
    Serve(#[from] rpc::ServeError),
    /// Chance.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
    /// A list of known keys.
    #[error("weak_keys: {0}")]
    WeakKeys(#[from] WeakKeysError),
}

impl RunError {
    /// How the process ends: whether starting it again can help.
    #[must_use]
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Registry(_) | Self::Secrets(_) | Self::Role(_) | Self::WeakKeys(_) => ExitCode::Usage,
            Self::Door(_)
            | Self::Store(StoreError::InUse { .. } | StoreError::Schema(_) | StoreError::NotDurable { .. })
            | Self::Start(StartError::Synchronize(_)) => ExitCode::Refused,
            Self::Credentials(_)
            | Self::State { .. }
            | Self::Start(_)
            | Self::Store(_)
            | Self::Listen(_)
            | Self::Serve(_)
            | Self::Randomness(_) => ExitCode::Failure,
        }
    }

    /// For a program's `main`.
    #[must_use]
    pub fn into_failure(self) -> runtime::Failure {
        runtime::Failure::new(self.exit_code(), self)
    }
}

/// Who opens the database: this node, in this life of the process.
///
/// # Errors
/// When the node's certificate cannot be read, or is another role's.
pub fn incarnation(config: &Config) -> Result<Incarnation, RunError> {
    let credentials = load_credentials(config)?;
    let random: &dyn Randomness = &SystemRandomness::new();
    Ok(Incarnation { id: random.bytes()?, node: credentials.identity().name.as_str().to_owned() })
}

/// Runs the signer until the lifecycle drains. The store was opened by the program, with [`incarnation`]; `worker` is the
/// program that becomes a token's worker.
///
/// # Errors
/// When it cannot start, or a port fails.
pub async fn run(
    config: Config,
    lifecycle: Lifecycle,
    store: Arc<dyn CaStore>,
    worker: WorkerCommand,
) -> Result<(), RunError> {
    // First of all, so that nobody is told "ready" before there is a port to come to.
    let port = lifecycle.readiness().dependency("port");
    let credentials = load_credentials(&config)?;
    make_state_folder(&config.state)?;
    let secrets = Secrets::load(&config.tier_secret)?;
    let token_names: BTreeSet<&str> = config.token.iter().map(|token| token.name.as_str()).collect();
    let registry = Registry::load(&config.policy, &token_names)?;
    for directory in registry.directories().filter(|directory| directory.policy.always_valid) {
        tracing::warn!(directory = %directory.name(), "always_valid: challenges succeed without a look; its issuers are test CAs");
    }
    let node_ca = config.node_ca.as_ref().map(NodeCa::load).transpose()?;
    let tokens = Tokens::start(&config.token, &config.state, &worker);
    let role = RunningRole {
        config: &config,
        lifecycle: &lifecycle,
        store: &store,
        credentials,
        tokens: &tokens,
        port,
    };
    let outcome = role.serve(secrets, registry, node_ca).await;
    if outcome.is_err() {
        lifecycle.drain();
    }
    tokens.shutdown().await;
    store.close().await;
    outcome
}

/// What `run` owns, and shuts down after everything else.
struct RunningRole<'a> {
    config: &'a Config,
    lifecycle: &'a Lifecycle,
    store: &'a Arc<dyn CaStore>,
    credentials: Arc<NodeCredentials>,
    tokens: &'a Tokens,
    port: Dependency,
}

impl RunningRole<'_> {
    async fn serve(
        self,
        secrets: Secrets,
        registry: Registry,
        node_ca: Option<NodeCa>,
    ) -> Result<(), RunError> {
        let Self { config, lifecycle, store, credentials, tokens, port } = self;
        let credentials = &credentials;
        let node_plan = node_ca.as_ref().map(NodeCa::door_plan);
        let doors = Doors::open(tokens, registry.door_plans(), node_plan, config.limits.signature())?;
        let source: Arc<dyn KeySource> = Arc::new(tokens.clone());
        let deadline = config.limits.ocsp_signature();
        let doors = doors.with_responders(&source, registry.responder_plans(), deadline)?;
        let ca = Ca::start(Parts {
            store: Arc::clone(store),
            registry,
            doors,
            node_ca,
            secrets,
            clock: SigningClock::new(lifecycle.clock(), config.limits.clock_skew()),
            random: Arc::new(SystemRandomness::new()),
            weak_keys: WeakKeys::load(&config.weak_keys)?,
            limits: config.limits.clone(),
            node: credentials.identity().name.as_str().to_owned(),
        })
        .await?;
        // So that `node list` shows it: the ceremony makes the first signer without the database.
        if let Err(failure) = ca.know_node(&credentials.identity()).await {
            ca.alarm(&failure);
        }
        let probed = tokens.clone();
        lifecycle.on_reload("tokens", move || {
            probed.probe();
            Ok::<_, RunError>(())
        });
        start_tasks(&ca, lifecycle, tokens);

        let listener = lifecycle.listen(&config.listen).await?;
        renew_itself(lifecycle, credentials, listener.local_addr().ok(), ca.node_ca.is_some());
        let authority = AuthorityService::new(Arc::clone(&ca), lifecycle.drain_token());
        let objects = Objects::of(&ca.registry);
        let spool = config.state.join("crl");
        let crls = CrlMaker::new(Arc::clone(&ca), objects.clone(), spool.clone())
            .map_err(|source| RunError::State { path: spool, source })?;
        crate::publish::start(&config.publish, &objects, &ca.registry, lifecycle);
        lifecycle.spawn("crl", crls.keep_current(lifecycle.drain_token()));
        let imported = ImportedCrls::new(Arc::clone(&ca), objects.clone(), lifecycle.readiness());
        lifecycle.spawn("imported crls", imported.keep_current(lifecycle.drain_token()));
        let responder = Arc::new(Responder::new(Arc::clone(&ca)));
        lifecycle.spawn("responders", Arc::clone(&responder).keep_current(lifecycle.drain_token()));
        let routes = Routes::new(AuthorityServer::new(authority).max_decoding_message_size(REQUEST_BYTES))
            .add_service(MembershipServer::new(MembershipService::new(Arc::clone(&ca))))
            .add_service(PublicationServer::new(PublicationService::new(
                objects.clone(),
                lifecycle.drain_token(),
            )))
            .add_service(ResponderServer::new(ResponderService::new(responder, lifecycle.drain_token())))
            .add_service(AdminServer::new(
                AdminService::new(Arc::clone(&ca), Some(tokens.clone())).showing(objects),
            ));
        if let Some(listen) = &config.enrollment_listen {
            let listener = lifecycle.listen(listen).await?;
            let enrollment = EnrollmentServer::new(EnrollmentService::new(Arc::clone(&ca)));
            let served = rpc::serve_anonymous(
                listener,
                Arc::clone(credentials),
                Routes::new(enrollment),
                rpc::Limits::strangers(),
                lifecycle.draining(),
            );
            lifecycle.spawn("enrollment", served);
        }
        let limits = rpc::Limits { request_bytes: REQUEST_BYTES, ..rpc::Limits::default() };
        // What the port turns away is a refusal like any other: it is in the audit trail.
        let counting = Arc::clone(&ca);
        let access = AccessTable::signer().watched(move |refused| counting.count_turned_away(refused));
        port.up();
        tracing::info!(listen = %config.listen, "signer.serving");
        let served = rpc::serve(
            listener,
            Arc::clone(credentials),
            routes,
            access,
            ca.revocations().clone(),
            limits,
            lifecycle.draining(),
        )
        .await;
        // Whatever was begun is brought to its end: its client may have gone, its intent is journaled.
        ca.in_flight.drained().await;
        if let Err(error) = ca.flush_refusals().await {
            tracing::warn!(%error, "refusals.lost");
        }
        Ok(served?)
    }
}

/// The signer's own certificate is renewed as every node's is: by a call over mutual TLS, here to itself.
fn renew_itself(
    lifecycle: &Lifecycle,
    credentials: &Arc<NodeCredentials>,
    listening: Option<SocketAddr>,
    has_node_ca: bool,
) {
    let own = listening.map(|address| match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    });
    let channel = own.filter(|_| has_node_ca).and_then(|own| {
        rpc::Channel::connect_lazy(vec![own.to_string()], Role::Signer, Arc::clone(credentials)).ok()
    });
    match channel {
        Some(channel) => lifecycle.renew_credentials(credentials, channel),
        // Whoever brings the files renews them.
        None => lifecycle.watch_credentials(credentials),
    }
}

/// A finalization of a hundred names with the receipts of many perspectives.
const REQUEST_BYTES: usize = 4 << 20;

fn load_credentials(config: &Config) -> Result<Arc<NodeCredentials>, RunError> {
    let credentials = config.node.load()?;
    match credentials.identity().role {
        Role::Signer => Ok(credentials),
        other => Err(RunError::Role(other)),
    }
}

fn make_state_folder(path: &Path) -> Result<(), RunError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| RunError::State { path: path.to_owned(), source })
}

/// What goes on beside the requests. Each ends when the signer drains.
fn start_tasks(ca: &Arc<Ca>, lifecycle: &Lifecycle, tokens: &Tokens) {
    let database = lifecycle.readiness().dependency("database");
    let time = lifecycle.readiness().dependency("clock");
    every(ca, lifecycle, "clock", clock::CHECK_INTERVAL, move |ca| {
        let (database, time) = (database.clone(), time.clone());
        async move {
            match ca.check_clock().await {
                Ok(()) => database.up(),
                Err(error) => database.down(error.to_string()),
            }
            match ca.clock.now() {
                Ok(_) => time.up(),
                Err(error) => time.down(error.to_string()),
            }
        }
    });
    every(ca, lifecycle, "leases", ca.journal.lease() / 3, |ca| async move {
        let serials = ca.in_flight.serials();
        if !serials.is_empty()
            && let Err(error) = ca.journal.extend(&serials).await
        {
            tracing::warn!(%error, "leases.not_extended");
        }
    });
    // Often enough that a dead signer's intent waits little longer than its lease.
    every(ca, lifecycle, "takeover", ca.journal.lease() / 3, |ca| async move {
        if let Err(error) = ca.take_over().await {
            tracing::warn!(%error, "takeover.failed");
        }
    });
    let all_seen = Arc::new(AtomicBool::new(false));
    every(ca, lifecycle, "compromised keys", COMPROMISED_ROUND, move |ca| {
        let all_seen = Arc::clone(&all_seen);
        async move {
            match ca.finish_compromised(!all_seen.load(Ordering::Relaxed)).await {
                Ok(_) => all_seen.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "revocation.compromised_keys_left"),
            }
        }
    });
    every(ca, lifecycle, "incidents", INCIDENT_ROUND, |ca| async move {
        match ca.run_incidents().await {
            Ok(_) => {}
            Err(failure) if failure.class() == pki::ErrorClass::Fatal => ca.alarm(&failure),
            Err(error) => tracing::warn!(%error, "incidents.left"),
        }
    });
    every(ca, lifecycle, "refusals", Duration::from_secs(10), |ca| async move {
        if let Err(error) = ca.flush_refusals().await {
            tracing::warn!(%error, "refusals.not_written");
        }
    });
    every(ca, lifecycle, "nodes", Duration::from_secs(5), |ca| async move {
        if let Err(error) = ca.reload_nodes().await {
            tracing::warn!(%error, "nodes.not_read");
        }
    });
    let (followed, draining) = (Arc::clone(ca), lifecycle.drain_token());
    lifecycle.spawn("other signers", async move { followed.follow_others(draining).await });
    watch_tokens(ca, lifecycle, tokens);
}

fn watch_tokens(ca: &Arc<Ca>, lifecycle: &Lifecycle, tokens: &Tokens) {
    let dependencies: Vec<_> = tokens
        .names()
        .map(|name| (name.to_owned(), lifecycle.readiness().dependency(format!("token {name}"))))
        .collect();
    let tokens = tokens.clone();
    every(ca, lifecycle, "tokens", Duration::from_secs(1), move |_| {
        for (name, dependency) in &dependencies {
            match tokens.trouble(name) {
                None => dependency.up(),
                Some(trouble) => dependency.down(trouble),
            }
        }
        std::future::ready(())
    });
}

/// Does something at once and then every so often, until the signer drains.
fn every<F, Fut>(ca: &Arc<Ca>, lifecycle: &Lifecycle, name: &'static str, interval: Duration, work: F)
where
    F: Fn(Arc<Ca>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let ca = Arc::clone(ca);
    let draining = lifecycle.drain_token();
    lifecycle.spawn(name, async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while draining.run_until_cancelled(ticks.tick()).await.is_some() {
            work(Arc::clone(&ca)).await;
        }
        Ok::<(), RunError>(())
    });
}
