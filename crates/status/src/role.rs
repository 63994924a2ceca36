//! The role: spool, sync and port put together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rpc::proto::status::v1::publication_client::PublicationClient;
use rpc::{Channel, Role};
use runtime::{Failure, FilePath, Lifecycle, SharedClock};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::http::Site;
use crate::ocsp::{Parts, Responder};
use crate::server;
use crate::shelf::{Shelf, Stock};
use crate::spool::{Spool, SpoolError};
use crate::sync::{Store, Sync};
use crate::verify::Verifier;

/// Why a status node does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The node's identity.
    #[error(transparent)]
    Credentials(#[from] rpc::CredentialsError),
    /// Not a status node's certificate.
    #[error("this node is {0}, not a status node")]
    Role(rpc::PeerIdentity),
    /// The signers' addresses.
    #[error("signers: {0}")]
    Signers(#[from] rpc::AddressError),
    /// A pinned certificate.
    #[error("anchors: {path}: {reason}")]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The port.
    #[error(transparent)]
    Listen(#[from] runtime::ListenError),
}

/// Runs a status node until the drain: serves what the spool has at once, and follows the signers when they are there.
///
/// # Errors
/// When it cannot start. Signers that are away are no reason.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), RunError> {
    let credentials = config.node.load()?;
    let identity = credentials.identity();
    if identity.role != Role::Status {
        return Err(RunError::Role(identity));
    }
    let channel = Channel::connect_lazy(config.signers.clone(), Role::Signer, Arc::clone(&credentials))?;
    let anchors = anchors(&config.anchors)?;
    let verifier = Verifier::new(anchors.clone());
    let listener = lifecycle.listen(&config.listen).await?;
    let shelf = Arc::new(Shelf::default());
    // Blocks, while nothing else is there to be blocked.
    let store = Arc::new(open(&config.spool, verifier, Arc::clone(&shelf), config.sync.total_bytes())?);
    let done = CancellationToken::new();
    let parts = Parts {
        settings: config.ocsp,
        limits: config.limits.clone(),
        cache: config.cache,
        channel: channel.clone(),
        shelf: Arc::clone(&shelf),
        anchors,
        done: done.clone(),
    };
    let responder = Responder::start(parts, &config.spool, &lifecycle)
        .map_err(|source| SpoolError::Io { path: config.spool.to_path_buf(), source })?;
    lifecycle.renew_credentials(&credentials, channel.clone());
    let sync = Sync {
        client: PublicationClient::new(channel),
        settings: config.sync.clone(),
        store: Arc::clone(&store),
        clock: lifecycle.clock(),
        signers: lifecycle.readiness().notice("signers"),
        disk: lifecycle.readiness().notice("spool writes"),
    };
    let draining = lifecycle.draining();
    lifecycle.spawn("sync", async move {
        tokio::select! {
            () = sync.run() => {}
            () = draining => {}
        }
        store.idle().await;
        Ok::<(), Failure>(())
    });
    let report = report(Arc::clone(&shelf), config.expiry_alarm_percent, lifecycle.clone());
    lifecycle.spawn("readiness", async move {
        report.await;
        Ok::<(), Failure>(())
    });
    let site = Site::new(shelf, responder, lifecycle.clock(), config.cache, config.path_prefix);
    let stop = lifecycle.drain_token();
    server::serve(listener, site, config.limits, config.trusted_proxies, stop).await;
    // Requests under way at the drain were answered; now what they waited for may end.
    done.cancel();
    Ok(())
}

fn open(
    folder: &std::path::Path,
    verifier: Verifier,
    shelf: Arc<Shelf>,
    total: u64,
) -> Result<Store, SpoolError> {
    let spool = Spool::open(folder)?;
    for refused in spool.load(&verifier, &shelf)? {
        warn!(path = refused.path, refusal = %refused.refusal, "status.spool_refused");
        metrics::counter!("chancery_status_refused_total", "reason" => "spool").increment(1);
    }
    info!(objects = shelf.stock(0).objects, "status.spool");
    Ok(Store::new(spool, shelf, verifier, total))
}

/// Ready while there is something to serve and none of it is past its `nextUpdate`; warns before that.
async fn report(shelf: Arc<Shelf>, alarm_percent: u8, lifecycle: Lifecycle) {
    let dependency = lifecycle.readiness().dependency("spool");
    let alarm = lifecycle.readiness().notice("crl expiry");
    let clock: SharedClock = lifecycle.clock();
    loop {
        let now = clock.now().unix_timestamp();
        let stock = shelf.stock(now);
        match stock {
            _ if stock.objects == 0 => dependency.down("nothing to serve yet"),
            _ if stock.expired > 0 => {
                dependency.down(format!("{} CRLs are past their nextUpdate", stock.expired))
            }
            _ => dependency.up(),
        }
        let ending = shelf.ending(alarm_percent, now);
        match ending
            .first()
            .and_then(|first| Some((first, OffsetDateTime::from_unix_timestamp(first.next_update).ok()?)))
        {
            Some((first, end)) => {
                alarm.down(format!("{} ends at {end}; {} in all", first.path, ending.len()))
            }
            None => alarm.up(),
        }
        measure(&stock, ending.len(), shelf.replaced_bytes());
        tokio::select! {
            () = tokio::time::sleep(REPORT_EVERY) => {}
            () = lifecycle.draining() => return,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "octets in memory are far below 2^53")]
fn measure(stock: &Stock, ending: usize, replaced_bytes: u64) {
    let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
    metrics::gauge!("chancery_status_objects").set(number(stock.objects));
    metrics::gauge!("chancery_status_crls_expired").set(number(stock.expired));
    metrics::gauge!("chancery_status_crls_ending").set(number(ending));
    metrics::gauge!("chancery_status_replaced_bytes").set(replaced_bytes as f64);
    if let Some(left) = stock.next_expiry {
        metrics::gauge!("chancery_status_next_expiry_seconds").set(i32::try_from(left).unwrap_or(i32::MAX));
    }
}

// A probe should not see a state that is long past, and counting is cheap.
const REPORT_EVERY: Duration = Duration::from_millis(500);

fn anchors(files: &[FilePath]) -> Result<Vec<pki::Certificate>, RunError> {
    let mut anchors = Vec::new();
    for file in files {
        let wrong = |reason: String| RunError::Anchor { path: file.to_path_buf(), reason };
        let pem = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        anchors.extend(pki::chain::from_pem(&pem).map_err(|error| wrong(error.to_string()))?);
    }
    Ok(anchors)
}
