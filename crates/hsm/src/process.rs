//! How a worker comes to be: executed (never only forked), with one end of a socketpair and nothing else of ours.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::{TokenConfig, WorkerCommand};

/// A running worker and our end of the socketpair.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) socket: UnixStream,
    pub(crate) child: Option<Child>,
}

/// Whatever makes workers: the real thing, or in this crate's tests a double.
#[async_trait::async_trait]
pub(crate) trait Launcher: Send + Sync {
    async fn launch(&self) -> io::Result<Worker>;
}

/// Executes the configured program.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) config: TokenConfig,
    pub(crate) command: WorkerCommand,
}

#[async_trait::async_trait]
impl Launcher for Executor {
    async fn launch(&self) -> io::Result<Worker> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = spawn(self.prepare(theirs.as_raw_fd())).await?;
        // The child has its own copy now; ours must go, or its death would not end the stream.
        drop(theirs);
        Ok(Worker { socket: UnixStream::from_std(ours)?, child: Some(child) })
    }
}

impl Executor {
    fn prepare(&self, socket: RawFd) -> Command {
        let mut command = Command::new(absolute(&self.command.program));
        if self.command.program.as_os_str() == THIS_PROGRAM
            && let Some(name) = std::env::current_exe().ok().as_deref().and_then(Path::file_name)
        {
            command.arg0(name);
        }
        command
            .args(&self.command.args)
            .arg("--fd")
            .arg(socket.to_string())
            .arg("--token")
            .arg(&self.config.label)
            .env_clear()
            .envs(&self.config.environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        if let Some(group) = self.config.group {
            command.gid(group);
        }
        if let Some(user) = self.config.user {
            command.uid(user);
        }
        inherit_only(&mut command, socket);
        command
    }
}

/// The worker's working folder is `/`, so paths must not depend on ours. Bare names are left to the search of the loader.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let is_bare = path.components().count() == 1;
    if is_bare { path.to_owned() } else { std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) }
}

/// The program that runs now, also after its file was replaced by a new version: both ends of a socket must agree.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Lets the child keep `socket` and no other descriptor beyond the standard three.
#[expect(unsafe_code, reason = "only pre_exec can decide what a child inherits")]
fn inherit_only(command: &mut Command, socket: RawFd) {
    let keep = move || {
        // SAFETY: two plain system calls on integers: async-signal-safe, no allocation, no lock, as the child of a
        // process with threads needs until it executes. Descriptors are marked, not closed: the standard library still
        // needs its own to report a failed exec. Kernels before 5.11 have no CLOSE_RANGE_CLOEXEC; there the flag that
        // the standard library sets on all it opens must do.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if libc::fcntl(socket, libc::F_SETFD, 0) == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: `keep` does only what is allowed between fork and exec (see there).
    unsafe {
        command.pre_exec(keep);
    }
}

/// An order for the thread that starts workers.
struct Order {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts the child from a thread that lives as long as this process. The kernel sends the worker's parent-death signal
/// when the *thread* that started it ends; a thread of the runtime's pool may end at any time.
async fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        let thread = std::thread::Builder::new().name("hsm-spawner".to_owned());
        // If there is no thread, sending fails below, and the caller tries again later.
        let _ = thread.spawn(move || {
            for Order { mut command, runtime, reply } in orders {
                let _entered = runtime.enter();
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::other("no thread to start workers");
    orders.send(Order { command, runtime: Handle::current(), reply }).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}
