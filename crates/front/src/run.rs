//! The role, from its configuration to its drain.

use std::sync::Arc;
use std::time::Duration;

use acme::nonce::NonceKey;
use acme_store::AcmeStore;
use pki::{Name, NameSet};
use rpc::proto::front::v1::nonces_server::NoncesServer;
use rpc::{AccessTable, Channel, NodeCredentials, Revocations, Role};
use runtime::{Failure, FilePath, Invalid, Lifecycle};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::accounts::Accounts;
use crate::certificate::FreshCertificates;
use crate::config::{Config, HttpsSection};
use crate::directory::Directories;
use crate::faults::Faults;
use crate::https::{OwnIssue, Served};
use crate::limits::Learned;
use crate::nonce::{Nonces, PeerService};
use crate::recent::Recent;
use crate::renewal::RenewalInfos;
use crate::server::Door;
use crate::service::Front;
use crate::signer::Signer;
use crate::under_way::UnderWay;
use crate::validation::Validators;
use crate::{router, server, sweep};

/// How long clients wait in the backlog for a front that does not know its directories yet, before it answers 503.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

/// Runs a front until the drain. `store` is the `acme` database, which the program has opened: this crate knows no
/// backend.
///
/// # Errors
/// When the configuration, a secret or a listening socket cannot be used; never because a signer or validator is away.
pub async fn run(config: Config, lifecycle: Lifecycle, store: Arc<dyn AcmeStore>) -> Result<(), Failure> {
    let credentials = config.node.load().map_err(Failure::usage)?;
    let channel =
        Channel::connect_lazy(config.signer.addresses.clone(), Role::Signer, Arc::clone(&credentials))
            .map_err(Failure::usage)?;
    lifecycle.renew_credentials(&credentials, channel.clone());
    let listener = lifecycle.listen(&config.listen).await.map_err(Failure::usage)?;
    let signer = Signer::new(channel);
    let front = Arc::new(assemble(&config, &lifecycle, &credentials, signer.clone(), Arc::clone(&store))?);
    serve_peers(&config, &lifecycle, &credentials, &front).await?;
    let served = start_https(&config, &lifecycle, signer)?;
    start_background(&lifecycle, &front);

    let acceptor = TlsAcceptor::from(Arc::new(served.config()?));
    let presentable = async {
        // Until then clients wait in the kernel's backlog: a handshake could only fail.
        served.is_present().await;
        // A front that was started again knows its directories a moment later; one whose signers are away says so.
        drop(tokio::time::timeout(FIRST_PATIENCE, front.directories.are_known()).await);
    };
    tokio::select! {
        () = presentable => {
            tracing::info!(base_urls = ?config.base_urls, "serving");
            let app = router::router(Arc::clone(&front));
            let door = Door::new(&config.limits, config.trusted_proxies.clone());
            server::serve(listener, acceptor, app, door, lifecycle.drain_token()).await;
        }
        () = lifecycle.draining() => {}
    }
    front.tasks.close();
    front.tasks.wait().await;
    store.close().await;
    Ok(())
}

fn assemble(
    config: &Config,
    lifecycle: &Lifecycle,
    credentials: &Arc<NodeCredentials>,
    signer: Signer,
    store: Arc<dyn AcmeStore>,
) -> Result<Front, Failure> {
    let validators =
        Channel::connect_lazy(config.validator.addresses.clone(), Role::Validator, Arc::clone(credentials))
            .map_err(Failure::usage)?;
    Ok(Front {
        directories: Directories::new(config.base_urls.clone(), &config.directory_aliases),
        accounts: Accounts::new(config.limits.cached_accounts),
        nonces: Arc::new(nonces(config, credentials)?),
        signer,
        validators: Validators::new(validators, config.validation.looks_per_account),
        store: with_memory(config, store),
        clock: lifecycle.clock(),
        limits: config.limits.clone(),
        proxies: runtime::TrustedProxies::new(config.trusted_proxies.clone()),
        work: runtime::Rates::new(config.limits.work_per_second, config.limits.work_burst),
        validation: config.validation.clone(),
        faults: faults(config, lifecycle)?,
        room: Semaphore::new(config.limits.requests),
        bodies: Semaphore::new(config.limits.bodies),
        fresh: FreshCertificates::new(config.limits.cached_rows),
        learned: Learned::new(config.limits.cached_accounts),
        renewal_infos: RenewalInfos::new(
            config.limits.cached_renewal_infos,
            Duration::from_secs(config.limits.renewal_info_seconds),
        ),
        under_way: UnderWay::default(),
        tasks: TaskTracker::new(),
        draining: lifecycle.drain_token(),
    })
}

/// Those of the configuration's file, which may change while the front runs.
fn faults(config: &Config, lifecycle: &Lifecycle) -> Result<Arc<Faults>, Failure> {
    let Some(file) = &config.faults else { return Ok(Arc::new(Faults::none())) };
    let faults = Arc::new(Faults::read(file, &config.limits).map_err(Failure::usage)?);
    faults.warn();
    let (current, limits, path) = (Arc::clone(&faults), config.limits.clone(), file.clone());
    lifecycle.watch("faults", vec![file.to_path_buf()], move || {
        current.replace(Faults::read(&path, &limits)?);
        Ok::<_, Invalid>(())
    });
    Ok(faults)
}

/// Rows are kept in memory by a front that is alone: with peers, what one has changed the others must see at once.
fn with_memory(config: &Config, store: Arc<dyn AcmeStore>) -> Arc<dyn AcmeStore> {
    if config.peers.is_empty() && config.limits.cached_rows > 0 {
        Arc::new(Recent::new(store, config.limits.cached_rows))
    } else {
        store
    }
}

fn nonces(config: &Config, credentials: &Arc<NodeCredentials>) -> Result<Nonces, Failure> {
    let secret = runtime::files::read_secret(&config.nonce_key).map_err(Failure::usage)?;
    let key = NonceKey::from_file(&secret).map_err(Failure::usage)?;
    let peers = config.peers.iter().map(|peer| {
        let channel = Channel::connect_lazy(peer.addresses.clone(), Role::Front, Arc::clone(credentials));
        Ok((peer.id.to_string(), channel.map_err(Failure::usage)?))
    });
    let peers: Vec<_> = peers.collect::<Result<_, Failure>>()?;
    let mut epoch = [0; 8];
    aws_lc_rs::rand::fill(&mut epoch)?;
    let name = credentials.identity().name.to_string();
    Ok(Nonces::new(key, &name, u64::from_be_bytes(epoch), config.limits.nonce_window, peers))
}

async fn serve_peers(
    config: &Config,
    lifecycle: &Lifecycle,
    credentials: &Arc<NodeCredentials>,
    front: &Front,
) -> Result<(), Failure> {
    let Some(listen) = &config.peer_listen else { return Ok(()) };
    let listener = lifecycle.listen(listen).await.map_err(Failure::usage)?;
    let routes = tonic::service::Routes::new(NoncesServer::new(PeerService(Arc::clone(&front.nonces))));
    let serving = rpc::serve(
        listener,
        Arc::clone(credentials),
        routes,
        AccessTable::front(),
        Revocations::new(),
        rpc::Limits::default(),
        lifecycle.draining(),
    );
    lifecycle.spawn("nonces for other fronts", serving);
    Ok(())
}

fn start_https(config: &Config, lifecycle: &Lifecycle, signer: Signer) -> Result<Arc<Served>, Failure> {
    let served = Served::new();
    match &config.https {
        HttpsSection::Files { certificate, key } => {
            served.load_files(certificate, key).map_err(Failure::usage)?;
            let (watched, certificate, key) = (Arc::clone(&served), certificate.clone(), key.clone());
            let files = [&certificate, &key].map(|path: &FilePath| path.to_path_buf()).to_vec();
            lifecycle.watch("HTTPS certificate", files, move || watched.load_files(&certificate, &key));
        }
        HttpsSection::OwnIssue { names } => {
            std::fs::create_dir_all(&config.state)?;
            let own = OwnIssue {
                served: Arc::clone(&served),
                state: config.state.to_path_buf(),
                names: own_names(config, names)?,
                signer,
                clock: lifecycle.clock(),
                dependency: lifecycle.readiness().dependency("https certificate"),
            };
            let draining = lifecycle.drain_token();
            lifecycle.spawn("HTTPS certificate", async move {
                own.keep(draining).await;
                Ok::<_, Failure>(())
            });
        }
    }
    Ok(served)
}

/// Those of the configuration, or the hosts of the base URLs.
fn own_names(config: &Config, names: &[Name]) -> Result<NameSet, Failure> {
    let hosts = config.base_urls.iter().map(|base| {
        let host = url::Url::parse(base.as_str()).ok().and_then(|url| url.host_str().map(str::to_owned));
        let host = host.unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host.parse().map_err(|_| Failure::usage(Invalid::new("base_urls", format!("{host:?} is no name"))))
    });
    let names = if names.is_empty() { hosts.collect::<Result<Vec<_>, _>>()? } else { names.to_vec() };
    NameSet::new(names).map_err(Failure::usage)
}

fn start_background(lifecycle: &Lifecycle, front: &Arc<Front>) {
    let dependency = lifecycle.readiness().dependency("signer");
    spawn(lifecycle, "directories", front, |front| async move {
        front.directories.follow(&front.signer, dependency, front.draining.clone()).await;
    });
    let notice = lifecycle.readiness().notice("account changes");
    spawn(lifecycle, "account changes", front, |front| async move {
        front.accounts.follow(&front.signer, notice, front.draining.clone()).await;
    });
    let database = lifecycle.readiness().dependency("database");
    spawn(lifecycle, "abandoned orders", front, |front| sweep::abandoned_orders(front, database));
    spawn(lifecycle, "old objects", front, sweep::old_objects);
}

fn spawn<F>(lifecycle: &Lifecycle, name: &'static str, front: &Arc<Front>, task: impl FnOnce(Arc<Front>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let task = task(Arc::clone(front));
    lifecycle.spawn(name, async move {
        task.await;
        Ok::<_, Failure>(())
    });
}
