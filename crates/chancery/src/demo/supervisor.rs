//! Keeps the demo's roles running: each a process of its own, started again when it dies. Their sockets belong to the
//! supervisor and are inherited, so that a role that is started again is at its old address and no connection is refused
//! in between: it waits in the socket's backlog.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// First inherited descriptor (the protocol of systemd's socket activation).
const FIRST_DESCRIPTOR: i32 = 3;
/// Pause before a role is started again; doubled with each death in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a role may take to drain before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A role to be run.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) config: PathBuf,
    pub(crate) sockets: Vec<TcpListener>,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// A role that runs, and the process that it is now.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) name: &'static str,
    process: Arc<AtomicU32>,
    /// Whether it is not to be started again for the moment.
    held: watch::Sender<bool>,
}

impl Running {
    /// The process id; 0 between death and new start.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.load(Ordering::Relaxed)
    }

    /// Sends a signal; one that does not run gets none.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = process(self.process_id()) {
            // It may have died a moment ago.
            let _ = kill_process(process, signal);
        }
    }

    /// Whether it is to stay down once it has died, until this is taken back.
    pub(crate) fn hold(&self, down: bool) {
        self.held.send_replace(down);
    }
}

fn process(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// The demo's processes.
pub(crate) struct Supervisor {
    program: PathBuf,
    logs: PathBuf,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    running: Vec<Running>,
}

impl Supervisor {
    /// `logs`: the folder for the roles' standard error, a file each.
    pub(crate) fn new(program: PathBuf, logs: PathBuf) -> Self {
        Self { program, logs, stop: CancellationToken::new(), tasks: JoinSet::new(), running: Vec::new() }
    }

    /// Starts a role and keeps it running until [`Supervisor::stop`].
    ///
    /// # Errors
    ///
    /// When it cannot be started the first time.
    pub(crate) fn start(&mut self, role: Role) -> anyhow::Result<Running> {
        let child = self.spawn(&role)?;
        let running = Running {
            name: role.name,
            process: Arc::new(AtomicU32::new(child.id().unwrap_or(0))),
            held: watch::Sender::new(false),
        };
        self.running.push(running.clone());
        let keeper = Keeper {
            program: self.program.clone(),
            log: self.log_of(role.name),
            role,
            process: Arc::clone(&running.process),
            held: running.held.subscribe(),
            stop: self.stop.clone(),
        };
        self.tasks.spawn(keeper.keep(child));
        Ok(running)
    }

    fn spawn(&self, role: &Role) -> anyhow::Result<Child> {
        spawn(&self.program, &self.log_of(role.name), role)
    }

    pub(crate) fn running(&self) -> &[Running] {
        &self.running
    }

    /// Where a role's log is.
    pub(crate) fn log_of(&self, role: &str) -> PathBuf {
        self.logs.join(format!("{role}.log"))
    }

    /// Ends every role: SIGTERM, and SIGKILL for those that do not drain in time.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Keeper {
    program: PathBuf,
    log: PathBuf,
    role: Role,
    process: Arc<AtomicU32>,
    held: watch::Receiver<bool>,
    stop: CancellationToken,
}

impl Keeper {
    async fn keep(mut self, first: Child) {
        let mut child = first;
        let mut pause = FIRST_PAUSE;
        loop {
            let started = tokio::time::Instant::now();
            tokio::select! {
                () = self.stop.cancelled() => return end(child).await,
                _ = child.wait() => {}
            }
            self.process.store(0, Ordering::Relaxed);
            if started.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(role = self.role.name, "role died; it is started again");
            child = loop {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    // Without those who could hold it, it is not held.
                    _ = self.held.wait_for(|held| !held) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                match spawn(&self.program, &self.log, &self.role) {
                    Ok(child) => break child,
                    Err(error) => tracing::error!(role = self.role.name, "cannot start: {error:#}"),
                }
            };
            self.process.store(child.id().unwrap_or(0), Ordering::Relaxed);
        }
    }
}

fn spawn(program: &Path, log: &Path, role: &Role) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .arg(role.name)
        .arg("--config")
        .arg(&role.config)
        .arg("--exit-with-parent")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .env("LISTEN_FDS", role.sockets.len().to_string())
        .env_remove("LISTEN_PID")
        .envs(role.environment.iter().cloned())
        .kill_on_drop(true);
    let mut mappings = Vec::new();
    for (socket, child_fd) in role.sockets.iter().zip(FIRST_DESCRIPTOR..) {
        mappings.push(FdMapping { parent_fd: OwnedFd::from(socket.try_clone()?), child_fd });
    }
    command.fd_mappings(mappings).context("two sockets for one descriptor")?;
    command.spawn().with_context(|| format!("cannot start {} {}", program.display(), role.name))
}

/// SIGTERM; then, after a while, SIGKILL.
async fn end(mut child: Child) {
    if let Some(id) = child.id().and_then(process) {
        // It may be gone already: then the wait below ends at once. One that is stopped does not hear anything else.
        let _ = kill_process(id, Signal::TERM);
        let _ = kill_process(id, Signal::CONT);
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_ok() {
            return;
        }
    }
    let _ = child.kill().await;
}

/// A listening socket for a role, on the wanted port or a free one.
///
/// # Errors
///
/// When the port is taken.
pub(crate) fn listen(address: IpAddr, port: u16) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let wanted = SocketAddr::new(address, port);
    let socket = TcpListener::bind(wanted).with_context(|| format!("cannot listen on {wanted}"))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}
