//! What is to fail: the front's own faults, by its file, and outages of roles and of the HSM, for a while.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acme::renewal::CertificateId;
use anyhow::{Context, bail};
use aws_lc_rs::digest;
use axum::http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::management::Refused;
use crate::demo::fetch;
use crate::demo::layout::Layout;
use crate::demo::report;
use crate::demo::stack::Ready;
use crate::demo::supervisor::Running;

/// How long an outage lasts when nobody says, and at most.
const OUTAGE_SECONDS: u64 = 10;
const LONGEST_OUTAGE_SECONDS: u64 = 3_600;
/// How long the front may take to follow its file.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is out when the HSM is.
const HSM: &str = "hsm";

/// `faults.toml` of the front, as `crates/front/src/faults.rs` documents it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct FrontFaults {
    refuse_nonces_percent: u8,
    internal_errors_percent: u8,
    rate_limited_percent: u8,
    retry_after_seconds: u32,
    delay_milliseconds: u64,
    processing_milliseconds: u64,
    renewal_info: Vec<RenewalInfo>,
}

#[derive(Debug, Clone, Serialize)]
struct RenewalInfo {
    certificate: CertificateId,
    body: String,
}

/// What is to change; the rest stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrontChange {
    refuse_nonces_percent: Option<u8>,
    internal_errors_percent: Option<u8>,
    rate_limited_percent: Option<u8>,
    retry_after_seconds: Option<u32>,
    delay_milliseconds: Option<u64>,
    processing_milliseconds: Option<u64>,
}

impl FrontFaults {
    /// So many good nonces in a hundred are refused.
    pub(crate) fn refusing(percent: u8) -> Self {
        Self { refuse_nonces_percent: percent, ..Self::default() }
    }

    fn changed(&self, change: &FrontChange) -> Self {
        let now = self.clone();
        Self {
            refuse_nonces_percent: change.refuse_nonces_percent.unwrap_or(now.refuse_nonces_percent),
            internal_errors_percent: change.internal_errors_percent.unwrap_or(now.internal_errors_percent),
            rate_limited_percent: change.rate_limited_percent.unwrap_or(now.rate_limited_percent),
            retry_after_seconds: change.retry_after_seconds.unwrap_or(now.retry_after_seconds),
            delay_milliseconds: change.delay_milliseconds.unwrap_or(now.delay_milliseconds),
            processing_milliseconds: change.processing_milliseconds.unwrap_or(now.processing_milliseconds),
            renewal_info: now.renewal_info,
        }
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(format!("version = 1\n{}", toml::to_string(self)?))
    }

    /// Writes the file that the front reads at its start.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn write(&self, layout: &Layout) -> anyhow::Result<()> {
        Ok(runtime::files::write_atomically(&layout.path("faults.toml"), self.text()?.as_bytes(), 0o644)?)
    }
}

/// How something is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    /// It does nothing, and its peers wait.
    Stop,
    /// It died.
    Kill,
    /// Nobody finds the token.
    Unplug,
}

/// What is to happen to a role, or to the HSM.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outage {
    /// Default: `stop` for a role, `unplug` for the HSM.
    how: Option<How>,
    seconds: Option<u64>,
}

struct Out {
    how: How,
    until: Instant,
    /// Of what ends it in time.
    end: AbortHandle,
}

/// Everything that fails at the moment.
pub(crate) struct Faults {
    ready: Ready,
    roles: Vec<Running>,
    front: Mutex<FrontFaults>,
    out: Mutex<BTreeMap<String, Out>>,
}

impl Faults {
    pub(crate) fn new(ready: Ready, roles: Vec<Running>, first: FrontFaults) -> Self {
        Self { ready, roles, front: Mutex::new(first), out: Mutex::default() }
    }

    /// All that is on.
    pub(crate) async fn list(&self) -> Value {
        let front = self.front.lock().await.clone();
        let out = self.out.lock().await;
        let outages: BTreeMap<_, _> = out
            .iter()
            .map(|(of, out)| {
                let left = out.until.saturating_duration_since(Instant::now()).as_secs();
                (of, json!({"how": out.how, "seconds_left": left}))
            })
            .collect();
        json!({"front": front, "outages": outages})
    }

    /// Whether something is out.
    pub(crate) async fn outages(&self) -> bool {
        !self.out.lock().await.is_empty()
    }

    /// Changes the front's faults; when this returns, the front follows.
    pub(crate) async fn change(&self, change: FrontChange) -> Result<(), Refused> {
        self.apply(|front| front.changed(&change)).await
    }

    /// What the front says of a certificate's renewal from now on; empty: what the signers say.
    pub(crate) async fn set_renewal_info(&self, id: &CertificateId, body: String) -> Result<(), Refused> {
        self.apply(|front| {
            let mut front = front.clone();
            front.renewal_info.retain(|info| info.certificate != *id);
            if !body.is_empty() {
                front.renewal_info.push(RenewalInfo { certificate: id.clone(), body });
            }
            front
        })
        .await
    }

    /// Ends every fault and outage.
    pub(crate) async fn lift_all(&self) -> Result<(), Refused> {
        let of: Vec<String> = self.out.lock().await.keys().cloned().collect();
        for of in of {
            self.end(&of).await?;
        }
        self.apply(|_| FrontFaults::default()).await
    }

    async fn apply(&self, step: impl FnOnce(&FrontFaults) -> FrontFaults) -> Result<(), Refused> {
        let mut front = self.front.lock().await;
        let next = step(&front);
        let layout = &self.ready.layout;
        let trial = layout.path("faults.new.toml");
        let text = next.text()?;
        runtime::files::write_atomically(&trial, text.as_bytes(), 0o644).map_err(anyhow::Error::from)?;
        front::check_faults(&trial, &front::LimitsSection::default())
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.reason))?;
        std::fs::rename(&trial, layout.path("faults.toml")).map_err(anyhow::Error::from)?;
        *front = next;
        self.role("front")?.signal(Signal::HUP);
        self.followed(&mark(&text)).await.map_err(|error| {
            let detail = format!("the front does not follow its file of faults yet: {error:#}");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })
    }

    /// Until the front says that this file is in force.
    async fn followed(&self, mark: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        let facts = &self.ready.facts;
        loop {
            // A delay of the front's own is not counted.
            let answered = fetch::fetch(&facts.directory, &facts.root).await;
            match answered.map(|answer| answer.header("chancery-faults") == Some(mark)) {
                Ok(true) => return Ok(()),
                Ok(false) if started.elapsed() > PATIENCE => bail!("another one is in force"),
                Err(error) if started.elapsed() > PATIENCE => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn role(&self, name: &str) -> Result<&Running, Refused> {
        self.roles.iter().find(|role| role.name == name).ok_or_else(|| {
            let names: Vec<_> = self.roles.iter().map(|role| role.name).collect();
            let detail = format!("{name:?} is none of {} and {HSM}", names.join(", "));
            Refused::new(StatusCode::NOT_FOUND, detail)
        })
    }

    /// Begins an outage, which ends by itself.
    pub(crate) async fn begin(self: Arc<Self>, of: &str, outage: Outage) -> Result<(), Refused> {
        let bad = |detail: String| Refused::new(StatusCode::BAD_REQUEST, detail);
        let seconds = outage.seconds.unwrap_or(OUTAGE_SECONDS);
        if !(1..=LONGEST_OUTAGE_SECONDS).contains(&seconds) {
            return Err(bad(format!("\"seconds\" is from 1 to {LONGEST_OUTAGE_SECONDS}")));
        }
        let how = outage.how.unwrap_or(if of == HSM { How::Unplug } else { How::Stop });
        if (of == HSM) != (how == How::Unplug) {
            return Err(bad(
                "a role is stopped (\"stop\") or killed (\"kill\"), the HSM unplugged (\"unplug\")"
                    .to_owned(),
            ));
        }
        let mut out = self.out.lock().await;
        if out.contains_key(of) {
            return Err(Refused::new(StatusCode::CONFLICT, format!("{of} is out already")));
        }
        match how {
            How::Unplug => {
                unplug(&self.ready.layout)?;
                self.end_sessions()?;
            }
            How::Stop => self.role(of)?.signal(Signal::STOP),
            How::Kill => {
                let role = self.role(of)?;
                role.hold(true);
                role.signal(Signal::KILL);
            }
        }
        let (this, name) = (Arc::clone(&self), of.to_owned());
        let ending = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let mut out = this.out.lock().await;
            if let Some(ended) = out.remove(&name)
                && let Err(refused) = this.undo(&name, ended.how)
            {
                tracing::error!(of = name, ?refused, "an outage does not end");
            }
        });
        let until = Instant::now() + Duration::from_secs(seconds);
        out.insert(of.to_owned(), Out { how, until, end: ending.abort_handle() });
        Ok(())
    }

    /// Ends an outage; when this returns, what was out answers again.
    pub(crate) async fn end(&self, of: &str) -> Result<(), Refused> {
        let mut out = self.out.lock().await;
        if of != HSM {
            self.role(of)?;
        }
        // One that has ended by itself has ended.
        if let Some(ended) = out.remove(of) {
            ended.end.abort();
            self.undo(of, ended.how)?;
        }
        drop(out);
        Ok(self.ready.wait(if of == HSM { "signer" } else { of }).await?)
    }

    /// Sessions that are open end with their token: SoftHSM's would go on with what they have read.
    fn end_sessions(&self) -> Result<(), Refused> {
        for (id, command) in report::children(self.role("signer")?.process_id()) {
            if command.split(' ').any(|word| word == crate::WORKER)
                && let Some(process) = i32::try_from(id).ok().and_then(Pid::from_raw)
            {
                // It may have ended a moment ago.
                let _ = kill_process(process, Signal::KILL);
            }
        }
        Ok(())
    }

    fn undo(&self, of: &str, how: How) -> Result<(), Refused> {
        match how {
            How::Unplug => plug(&self.ready.layout)?,
            How::Stop => self.role(of)?.signal(Signal::CONT),
            How::Kill => self.role(of)?.hold(false),
        }
        Ok(())
    }
}

/// Hides the tokens, like a network HSM whose cable is out.
fn unplug(layout: &Layout) -> anyhow::Result<()> {
    let (tokens, hidden) = (layout.path("tokens"), layout.path("unplugged"));
    rename(&tokens, &hidden)?;
    std::fs::create_dir(&tokens).with_context(|| format!("cannot make {}", tokens.display()))
}

/// Undoes [`unplug`].
fn plug(layout: &Layout) -> anyhow::Result<()> {
    let (tokens, hidden) = (layout.path("tokens"), layout.path("unplugged"));
    std::fs::remove_dir_all(&tokens).with_context(|| format!("cannot remove {}", tokens.display()))?;
    rename(&hidden, &tokens)
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// A demo that ended while its HSM was unplugged has it plugged in when it starts again.
///
/// # Errors
///
/// When the tokens cannot be put where they belong.
pub(crate) fn plug_if_unplugged(layout: &Layout) -> anyhow::Result<()> {
    if layout.path("unplugged").exists() { plug(layout) } else { Ok(()) }
}

/// How the front names a file of faults.
fn mark(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hex::encode(hash.as_ref().iter().take(8).copied().collect::<Vec<u8>>())
}
