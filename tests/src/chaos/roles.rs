//! A role as a process that is started again when it dies, each time with the failpoints that the director chooses.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use command_fds::{CommandFdExt as _, FdMapping};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::director::{Director, Victim};
use crate::program::ours;

/// What a role is started from.
pub struct Spec {
    /// `signer`, `front`, `validator`, `status`.
    pub role: &'static str,
    /// Which of several.
    pub name: String,
    /// Its configuration.
    pub config: PathBuf,
    /// Where all that it says goes.
    pub log: PathBuf,
    /// Its listening sockets: they outlive it, so that nobody is refused while it is started again.
    pub sockets: Vec<TcpListener>,
    /// Whom the director kills, if it does.
    pub victim: Option<Victim>,
}

/// A role that is kept running; dropped, it ends.
pub struct Running {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    said: Said,
}

/// The last lines that a role said.
pub type Said = Arc<Mutex<VecDeque<String>>>;

/// How many of them.
const LINES: usize = 400;
/// After this time without its failpoint an armed process is killed where it is.
const PATIENCE: Duration = Duration::from_millis(2500);
/// For the line that says which failpoint it was.
const LAST_WORDS: Duration = Duration::from_millis(300);

impl Running {
    /// Starts the role and keeps it running.
    #[must_use]
    pub fn start(spec: Spec, director: Arc<Director>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let said = Said::default();
        let keeper = Keeper { spec, director, said: Arc::clone(&said), stopped };
        Self { task: tokio::spawn(keeper.keep()), stop, said }
    }

    /// Ends it, by SIGKILL: every end is one that it must survive.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let _ = (&mut self.task).await;
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.said.lock().map(|said| said.iter().cloned().collect::<Vec<_>>().join("\n")).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Comes when the process is to be replaced: its failpoint does not come, or it has none and is to have one.
async fn overstayed(director: &Director, victim: bool, armed: bool) {
    if armed {
        tokio::time::sleep(PATIENCE).await;
    } else if victim {
        director.raging().await;
    } else {
        std::future::pending().await
    }
}

struct Keeper {
    spec: Spec,
    director: Arc<Director>,
    said: Said,
    stopped: watch::Receiver<bool>,
}

impl Keeper {
    async fn keep(mut self) {
        while !*self.stopped.borrow() {
            let arms = self.spec.victim.as_ref().map(|victim| self.director.arm(victim)).unwrap_or_default();
            let mut child = match self.spawn(&arms) {
                Ok(child) => child,
                Err(error) => {
                    self.director.fault(format!("{} cannot be started: {error:#}", self.spec.name));
                    return;
                }
            };
            let words = child.stderr.take().map(|words| self.listen(words));
            let overstayed = overstayed(&self.director, self.spec.victim.is_some(), !arms.is_empty());
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                _ = self.stopped.changed() => None,
                () = overstayed => None,
            };
            let Some(status) = ended else {
                let _ = child.kill().await;
                if !*self.stopped.borrow() && !arms.is_empty() {
                    self.director.killed_anywhere(self.spec.role);
                }
                continue;
            };
            if let Some(words) = words {
                // A worker holds the same pipe, and may outlive its signer by a moment.
                let _ = tokio::time::timeout(LAST_WORDS, words).await;
            }
            self.judge(status);
        }
    }

    /// Only SIGKILL is a death that was meant.
    fn judge(&self, status: std::io::Result<ExitStatus>) {
        use std::os::unix::process::ExitStatusExt as _;
        match status {
            Ok(status) if status.signal() == Some(9) => {}
            other => self.director.fault(format!(
                "{} ended by itself: {other:?}\n{}",
                self.spec.name,
                self.said
                    .lock()
                    .map(|said| said.iter().rev().take(20).rev().cloned().collect::<Vec<_>>().join("\n"))
                    .unwrap_or_default()
            )),
        }
    }

    fn listen(&self, words: ChildStderr) -> JoinHandle<()> {
        let (said, director) = (Arc::clone(&self.said), Arc::clone(&self.director));
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(&self.spec.log).ok();
        tokio::spawn(async move {
            let mut lines = BufReader::new(words).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(name) =
                    line.strip_prefix("failpoint ").and_then(|rest| rest.strip_suffix(": killed"))
                {
                    director.killed(name);
                } else if line.starts_with("failpoint ") || line.contains("panicked") {
                    director.fault(line.clone());
                }
                if let Some(log) = &mut log {
                    let _ = writeln!(log, "{line}");
                }
                if let Ok(mut said) = said.lock() {
                    said.push_back(line);
                    while said.len() > LINES {
                        said.pop_front();
                    }
                }
            }
        })
    }

    fn spawn(&self, arms: &str) -> anyhow::Result<Child> {
        let spec = &self.spec;
        let mut command = Command::new(ours("chancery"));
        command
            .arg(spec.role)
            .arg("--config")
            .arg(&spec.config)
            .arg("--exit-with-parent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env("LISTEN_FDS", spec.sockets.len().to_string())
            .env_remove("LISTEN_PID")
            .env_remove("CHANCERY_FAILPOINTS")
            .kill_on_drop(true);
        if !arms.is_empty() {
            command.env("CHANCERY_FAILPOINTS", arms);
        }
        let mut mappings = Vec::new();
        for (socket, child_fd) in spec.sockets.iter().zip(3..) {
            mappings.push(FdMapping { parent_fd: OwnedFd::from(socket.try_clone()?), child_fd });
        }
        command.fd_mappings(mappings).context("two sockets for one descriptor")?;
        command.spawn().context("spawn")
    }
}
