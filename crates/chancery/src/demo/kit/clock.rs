//! A clock that can be moved: libfaketime stands between this program, with every role that it starts, and the host's clock.
//! No program of ours can be told another time: what is moved is the machine that they believe to run on.
//!
//! Time goes forward alone (a signer signs nothing behind a time that it has seen). A move is made of steps that node
//! certificates survive: after each, every role is started again, and renews what is due.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::http::StatusCode;
use pki::Timestamp;
use runtime::Clock as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::KitArgs;
use super::management::Refused;
use crate::demo::stack::Ready;
use crate::demo::supervisor::Running;
use crate::operator::Access;

/// Where libfaketime is, for programs with threads: on Debian, then on others.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The file in a state folder that says how far its time is moved.
const FILE: &str = "clock";

/// For roles to end, to start, and to renew what is due.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one role to drain, before it is killed.
const DRAIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// What is left of the CA's own certificates at the end of any move.
const RESERVE_SECONDS: u64 = 30 * 86_400;
const MINUTE: u64 = 60;

/// The certificates that renew themselves, as `openssl x509` finds them in the demo's folder.
const NODES: [&str; 5] = [
    "ca/signer-signer-1.pem",
    "front/node.pem",
    "validator/node.pem",
    "status/node.pem",
    "ca/operator-demo.pem",
];
/// Those that do not.
const ISSUERS: [&str; 3] = ["ca/node-ca.pem", "ca/tls-1.pem", "ca/root.pem"];

/// The file that moves this process and those that it starts.
pub(crate) struct Clock {
    file: PathBuf,
    /// A folder for the file alone, which goes with it.
    temporary: bool,
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let (true, Some(folder)) = (self.temporary, self.file.parent()) {
            // What is left behind is a line of text.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Starts this program again below libfaketime, when its clock is to be movable; returns in the one that was started.
/// Nothing else may have been done before.
///
/// # Errors
///
/// When libfaketime is not installed, or the folder's time was moved and is not to be movable now.
pub(crate) fn enter_movable_time(args: &KitArgs, state: Option<&Path>) -> anyhow::Result<Option<Clock>> {
    let kept = state.map(|folder| folder.join(FILE));
    if !args.movable_clock {
        let moved = kept.filter(|file| file.exists()).map(|file| seconds_in(&file)).transpose()?.unwrap_or(0);
        ensure!(
            moved == 0,
            "this folder's time was moved by {moved} seconds, and a CA's time does not go back: start it with \
             --movable-clock"
        );
        return Ok(None);
    }
    if let Some(file) = &args.clock_file {
        return Ok(Some(Clock { file: file.clone(), temporary: state.is_none() }));
    }
    let library = LIBRARIES.iter().map(Path::new).find(|path| path.exists());
    let library = library.with_context(|| {
        format!(
            "--movable-clock needs libfaketime: apt-get install libfaketime (looked for {})",
            LIBRARIES.join(", ")
        )
    })?;
    let file = match kept {
        Some(file) => file,
        None => tempfile::Builder::new().prefix("chancery-clock-").tempdir()?.keep().join(FILE),
    };
    if !file.exists() {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        write(&file, 0)?;
    }
    let file = file.canonicalize()?;
    let error = std::process::Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--clock-file")
        .arg(&file)
        .envs(environment(library, &file))
        .exec();
    Err(error).context("cannot start again in movable time")
}

/// What moves a program: this one, its roles, and clients that are to live in the same time.
fn environment(library: &Path, file: &Path) -> [(&'static str, OsString); 5] {
    [
        ("LD_PRELOAD", library.into()),
        ("FAKETIME_TIMESTAMP_FILE", file.into()),
        // The file is read again after a second.
        ("FAKETIME_CACHE_DURATION", "1".into()),
        // Timers and deadlines go on as ever.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
    ]
}

fn seconds_in(file: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let number = text.trim().strip_prefix('+').and_then(|number| number.parse().ok());
    number.with_context(|| format!("{} does not say by how many seconds: {text:?}", file.display()))
}

fn write(file: &Path, seconds: u64) -> anyhow::Result<()> {
    Ok(runtime::files::write_atomically(file, format!("+{seconds}\n").as_bytes(), 0o644)?)
}

/// Moves the clock.
pub(crate) struct Mover {
    clock: Mutex<Clock>,
    file: PathBuf,
    access: Access,
    ready: Ready,
    roles: Vec<Running>,
}

impl Mover {
    /// `access`: the operator's, whose certificate nobody else renews.
    pub(crate) fn new(clock: Clock, access: Access, ready: Ready, roles: Vec<Running>) -> Self {
        Self { file: clock.file.clone(), clock: Mutex::new(clock), access, ready, roles }
    }

    /// Seconds by which the clock was moved.
    pub(crate) async fn advanced(&self) -> u64 {
        let clock = self.clock.lock().await;
        seconds_in(&clock.file).unwrap_or(0)
    }

    /// What a client is started with that is to live in this time.
    pub(crate) fn environment(&self) -> Value {
        let library = LIBRARIES.iter().map(Path::new).find(|path| path.exists()).unwrap_or(Path::new(""));
        let pairs = environment(library, &self.file);
        pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value.to_string_lossy()))).collect()
    }

    /// Moves the clock forward, in as many steps as node certificates need.
    ///
    /// # Errors
    ///
    /// When the CA's own certificates would end, or a role does not follow.
    pub(crate) async fn advance(&self, seconds: u64) -> Result<(), Refused> {
        let clock = self.clock.lock().await;
        let most = self.seconds_left(&ISSUERS)?.saturating_sub(RESERVE_SECONDS);
        if seconds == 0 || seconds > most {
            let detail = format!(
                "\"advance_seconds\" is from 1 to {most}: then a certificate of this demo's CA ends within 30 days. Time does \
                 not go back: start a new demo"
            );
            return Err(Refused::new(StatusCode::BAD_REQUEST, detail));
        }
        let mut left = seconds;
        while left > 0 {
            let step = left.min(self.seconds_left(&NODES)? / 2);
            if step < left.min(MINUTE) {
                return Err(anyhow::anyhow!(
                    "node certificates have ended; {left} of {seconds} seconds are left"
                )
                .into());
            }
            self.step(&clock, step).await?;
            left -= step;
        }
        Ok(())
    }

    /// What is left of the certificate that ends first.
    fn seconds_left(&self, files: &[&str]) -> anyhow::Result<u64> {
        let now: Timestamp = runtime::SystemClock.now().into();
        let mut least = u64::MAX;
        for file in files {
            let end = self.certificate(file)?.not_after();
            least = least.min(if end > now { end.since(now).seconds() } else { 0 });
        }
        Ok(least)
    }

    fn certificate(&self, file: &str) -> anyhow::Result<pki::Certificate> {
        let path = self.ready.layout.path(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        pki::chain::from_pem(&text)?
            .into_iter()
            .next()
            .with_context(|| format!("{} is empty", path.display()))
    }

    async fn step(&self, clock: &Clock, seconds: u64) -> anyhow::Result<()> {
        let before = runtime::SystemClock.now();
        let target = seconds_in(&clock.file)? + seconds;
        write(&clock.file, target)?;
        let wanted = time::Duration::try_from(Duration::from_secs(seconds))?;
        patiently("this program's own clock does not follow: was it started below libfaketime?", || {
            Ok(runtime::SystemClock.now() - before >= wanted)
        })
        .await?;
        // The signer first: the others renew at it.
        let (signers, others): (Vec<_>, Vec<_>) = self.roles.iter().partition(|role| role.name == "signer");
        for group in [signers, others] {
            for role in &group {
                restart(role).await?;
            }
            for role in group {
                self.ready.wait(role.name).await?;
            }
        }
        let credentials = &self.access.credentials;
        if credentials.identity().renews_at() <= runtime::SystemClock.now() {
            rpc::enroll::renew(credentials, self.access.channel.clone())
                .await
                .context("the operator's certificate")?;
        }
        for file in NODES {
            patiently(&format!("{file} is not renewed"), || {
                let certificate = self.certificate(file)?;
                let life = certificate.not_after().since(certificate.not_before()).seconds();
                Ok(self.seconds_left(&[file])? > life - life / 3)
            })
            .await?;
        }
        tracing::info!(seconds, advanced = target, "the clock was moved");
        Ok(())
    }
}

/// Ends a role, which its supervisor starts again.
async fn restart(role: &Running) -> anyhow::Result<()> {
    let old = role.process_id();
    let started = Instant::now();
    role.signal(Signal::TERM);
    patiently(&format!("{} does not start again", role.name), || {
        let now = role.process_id();
        if now == old && started.elapsed() > DRAIN {
            role.signal(Signal::KILL);
        }
        Ok(now != old && now != 0)
    })
    .await
}

async fn patiently(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let started = Instant::now();
    while !holds()? {
        if started.elapsed() > PATIENCE {
            bail!("{what}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_time_was_moved_is_not_used_in_the_hosts() {
        use clap::Parser as _;

        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            kit: KitArgs,
            #[arg(long)]
            serve: bool,
            #[arg(long)]
            resolver: Option<String>,
            #[arg(long)]
            signer_database: Option<String>,
        }
        let args = Program::parse_from(["demo", "--serve"]).kit;
        let folder = tempfile::tempdir().unwrap();
        let enter = || enter_movable_time(&args, Some(folder.path())).map(|clock| clock.is_none());
        assert!(enter().unwrap());
        write(&folder.path().join(FILE), 0).unwrap();
        assert!(enter().unwrap());
        write(&folder.path().join(FILE), 86_400).unwrap();
        let error = enter().unwrap_err().to_string();
        assert!(error.contains("86400 seconds") && error.contains("--movable-clock"), "{error}");
        std::fs::write(folder.path().join(FILE), "-5").unwrap();
        assert!(enter().unwrap_err().to_string().contains("does not say"));
    }
}
