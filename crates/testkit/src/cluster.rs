//! A PostgreSQL cluster of one test's own.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that has no database cannot go on")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A running server on a Unix socket, in a temporary folder. It stops and goes with the value, and also when the test's
/// process is killed.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    bin: PathBuf,
    settings: Vec<String>,
    port: u16,
    server: Option<Child>,
}

/// How a cluster is made.
#[derive(Debug, Clone, Default)]
pub struct ClusterSettings {
    /// Whether commits reach the disk. A test that kills no host does without.
    pub durable: bool,
    /// Whether the server listens on a port of loopback as well.
    pub tcp: bool,
    /// More settings of the server, `"name=value"`.
    pub settings: Vec<String>,
}

impl Cluster {
    /// Starts a cluster whose commits reach no disk: quick, and nothing that a durable store accepts unasked.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&ClusterSettings::default())
    }

    /// Starts a cluster.
    ///
    /// # Panics
    /// When PostgreSQL is missing (with the command that installs it), or does not start.
    #[must_use]
    pub fn start_with(settings: &ClusterSettings) -> Self {
        let bin = programs();
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().expect("temporary folder");
        // Roles of other users connect through the socket in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode of the folder");
        copy(&template(&bin), &folder.path().join("data")).expect("copy of the template");
        own(folder.path());
        let mut all = settings.settings.clone();
        if !settings.durable {
            all.push("fsync=off".to_owned());
        }
        let port = if settings.tcp { free_port() } else { PORT };
        let mut cluster = Self { folder, bin, settings: all, port, server: None };
        cluster.go();
        cluster
    }

    /// The URL of a database for a role, which needs no password.
    #[must_use]
    pub fn url(&self, database: &str, role: &str) -> String {
        format!("postgres:///{database}?host={}&port={}&user={role}", self.folder.path().display(), self.port)
    }

    /// The port, of loopback if the server listens there.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Writes a file that the server alone may read, such as its TLS key.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn give(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("a file of the server");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode of the file");
        if is_root() {
            let id = NOBODY.parse().ok();
            chown(&path, id, id).expect("owner of the file");
        }
        path
    }

    /// The URL of the database `postgres` for the role that owns everything.
    #[must_use]
    pub fn owner_url(&self) -> String {
        self.url("postgres", OWNER)
    }

    /// The folder of the socket, for more files of the test's own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs SQL in a database as the owner; answers what `psql` prints, unaligned and without headers.
    ///
    /// # Panics
    /// When `psql` or the server refuses.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, OWNER, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs SQL as a role.
    ///
    /// # Errors
    /// What `psql` says.
    ///
    /// # Panics
    /// When there is no `psql`.
    pub fn try_sql(&self, database: &str, role: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--host={}", self.folder.path().display()))
            .arg(format!("--port={}", self.port))
            .args(["--dbname", database, "--username", role, "--command", sql])
            .output()
            .expect("psql");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// A standby of this name that writes down what the server sends, and acknowledges it when it is on the disk.
    ///
    /// # Panics
    /// When there is no `pg_receivewal`.
    #[must_use]
    pub fn follow(&self, name: &str) -> Standby {
        let folder = tempfile::Builder::new().prefix("wal-").tempdir().expect("temporary folder");
        let receiver = Command::new(self.bin.join("pg_receivewal"))
            .args(["--synchronous", "--no-loop", "--directory"])
            .arg(folder.path())
            .arg(format!(
                "--dbname=host={} port={} user={OWNER} application_name={name}",
                self.folder.path().display(),
                self.port
            ))
            .stderr(Stdio::null())
            .spawn()
            .expect("pg_receivewal");
        Standby { receiver, _folder: folder }
    }

    /// Stops the server at once, as a crash does.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The keeper of the server sees the end of its input, and takes the server along.
            drop(server.stdin.take());
            _ = server.wait();
        }
    }

    /// Starts the server again, on the same data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        self.go();
    }

    /// Starts the server again, with other settings.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        self.restart();
    }

    fn go(&mut self) {
        let data = self.folder.path().join("data");
        _ = fs::remove_file(data.join("postmaster.pid"));
        let mut keeper = as_server_user("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(self.bin.join("postgres")).arg("-D").arg(&data);
        let addresses = if self.port == PORT { "listen_addresses=" } else { "listen_addresses=127.0.0.1" };
        keeper.arg("-k").arg(self.folder.path()).args(["-c", addresses, "-p", &self.port.to_string()]);
        for setting in SETTINGS.iter().copied().chain(self.settings.iter().map(String::as_str)) {
            keeper.args(["-c", setting]);
        }
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("log of the server");
        keeper.current_dir(self.folder.path()).stdin(Stdio::piped());
        keeper.stdout(log.try_clone().expect("log of the server")).stderr(log);
        self.server = Some(keeper.spawn().expect("sh"));
        for _ in 0..600 {
            let status = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if status.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("PostgreSQL did not start:\n{log}");
    }
}

/// Somebody that follows a [`Cluster`], until it is dropped.
#[derive(Debug)]
pub struct Standby {
    receiver: Child,
    _folder: TempDir,
}

impl Drop for Standby {
    fn drop(&mut self) {
        _ = self.receiver.kill();
        _ = self.receiver.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Part of the socket's name, where it is no port of the host.
const PORT: u16 = 5432;

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("its address").port()
}

/// The role that owns everything.
pub const OWNER: &str = "owner";

/// Keeps a server for as long as its own standard input is open: until the test lets go of it, or is gone.
const KEEPER: &str = r#""$@" </dev/null & server=$!; cat >/dev/null; kill -QUIT "$server"; wait "$server""#;

/// Small, for many at once.
const SETTINGS: &[&str] = &[
    "shared_buffers=16MB",
    "max_connections=60",
    "autovacuum_naptime=5s",
    "max_wal_size=256MB",
    "log_min_messages=warning",
];

/// Where the programs of PostgreSQL are.
fn programs() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let others = ["/usr/local/bin", "/usr/bin", "/usr/pgsql/bin"].map(PathBuf::from);
    versions
        .into_iter()
        .rev()
        .chain(others)
        .find(|bin| bin.join("initdb").exists() && bin.join("psql").exists())
        .unwrap_or_else(|| panic!("no initdb of PostgreSQL; run: .ci/setup test"))
}

/// A data folder as `initdb` makes it, made once for all tests of a checkout.
fn template(bin: &Path) -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let target = test.ancestors().find(|path| path.ends_with("deps") || path.ends_with("examples"));
    let target = target.and_then(Path::parent).or_else(|| test.parent()).expect("target folder");
    let initdb = bin.join("initdb").canonicalize().expect("initdb");
    let name = initdb.to_string_lossy().replace(['/', '.'], "-");
    let template = target.join(format!("postgresql{name}"));
    let mut lock = target.join(format!("postgresql{name}")).into_os_string();
    lock.push(".lock");
    let lock = File::create(lock).expect("lock of the template");
    lock.lock().expect("lock of the template");
    if !template.exists() {
        let scratch = tempfile::Builder::new().prefix("pg-").tempdir().expect("temporary folder");
        own(scratch.path());
        let made = as_server_user(bin.join("initdb"))
            .args(["--no-sync", "--encoding=UTF8", "--no-locale", "--auth=trust", "--username", OWNER])
            .args(["--wal-segsize=1", "--pgdata=data"])
            .current_dir(scratch.path())
            .output()
            .expect("initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let half = target.join(format!("postgresql{name}.new"));
        _ = fs::remove_dir_all(&half);
        copy(&scratch.path().join("data"), &half).expect("copy of the template");
        fs::rename(half, &template).expect("name of the template");
    }
    template
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A command as the user that runs servers: PostgreSQL refuses to run as root.
fn as_server_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
    command
}

/// Gives a folder, with what is in it, to the user that runs servers.
fn own(folder: &Path) {
    if !is_root() {
        return;
    }
    let id = NOBODY.parse().ok();
    chown(folder, id, id).expect("owner of the folder");
    for entry in fs::read_dir(folder).expect("folder") {
        let entry = entry.expect("entry of the folder");
        if entry.file_type().expect("kind of a file").is_dir() {
            own(&entry.path());
        } else {
            chown(entry.path(), id, id).expect("owner of a file");
        }
    }
}

/// `nobody`, on every Debian.
const NOBODY: &str = "65534";

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
