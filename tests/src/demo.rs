//! `chancery demo --serve` as a test's fixture: the whole system, every role a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use crate::program::{free_port, ours, succeed};

/// How long it may take to come up on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running demo; dropped, it ends, and must leave nothing behind.
pub struct Demo {
    child: Child,
    folder: TempDir,
    output: Mutex<Receiver<String>>,
    /// What `demo.json` says.
    pub facts: Facts,
    /// Where the validator looks for http-01 answers.
    pub http_01_port: u16,
    /// Where the validator looks for tls-alpn-01 answers.
    pub tls_alpn_01_port: u16,
}

/// `demo.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the members are named in the README")]
pub struct Facts {
    pub directory: String,
    pub endpoint_ca: PathBuf,
    pub root: PathBuf,
    pub issuer: PathBuf,
    pub crl: String,
    pub ocsp: Option<String>,
    pub eab_directory: String,
    pub eab_kid: String,
    pub eab_hmac_key: String,
    pub names: PathBuf,
    #[serde(default)]
    pub management: Option<String>,
    #[serde(default)]
    pub dns_management: Option<String>,
}

impl Demo {
    /// Starts one in a folder of its own.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Starts one on a folder that an earlier one may have left.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn start_in(folder: TempDir) -> Self {
        Self::start_with(folder, &[])
    }

    /// Starts one in place of Pebble, on free ports, with further arguments.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn start_as_pebble(arguments: &[&str]) -> Self {
        let free = "127.0.0.1:0";
        let ports =
            ["--pebble", "--listen", free, "--management", free, "--dns", free, "--dns-management", free];
        let arguments: Vec<&str> = ports.into_iter().chain(arguments.iter().copied()).collect();
        Self::start_with(tempfile::tempdir().expect("a temporary folder"), &arguments)
    }

    /// As [`Demo::start_in`], with further arguments.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn start_with(folder: TempDir, arguments: &[&str]) -> Self {
        let (http_01_port, tls_alpn_01_port) = (free_port(), free_port());
        let state = folder.path().join("state");
        let mut child = Command::new(ours("chancery"))
            .args(["demo", "--serve", "--http-01-port", &http_01_port.to_string()])
            .args(["--tls-alpn-01-port", &tls_alpn_01_port.to_string()])
            .args(arguments)
            .arg("--state")
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("chancery demo");
        let output = child.stdout.take().expect("its output");
        let (sender, receiver) = std::sync::mpsc::channel();
        // Read to the end, so that the demo never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let started = Instant::now();
        let mut said = Vec::new();
        loop {
            match receiver.recv_timeout(Duration::from_millis(200)) {
                Ok(line) if line.contains("Chancery is running") => break,
                Ok(line) => said.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    panic!("the demo ended: {:?}\n{}", child.wait(), said.join("\n"))
                }
                Err(_) => {
                    assert!(started.elapsed() < PATIENCE, "no demo after {PATIENCE:?}:\n{}", said.join("\n"))
                }
            }
        }
        let facts = std::fs::read(state.join("demo.json")).expect("demo.json");
        let facts = serde_json::from_slice(&facts).expect("demo.json as documented");
        Self { child, folder, output: Mutex::new(receiver), facts, http_01_port, tls_alpn_01_port }
    }

    /// What it says beside a word, once it runs.
    ///
    /// # Panics
    ///
    /// When it does not say it.
    #[must_use]
    pub fn said(&self, word: &str) -> String {
        let output = self.output.lock().expect("nobody panicked while it read");
        loop {
            let line = output.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it does not say {word:?}"));
            if let Some(rest) = line.trim().strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Its name server.
    ///
    /// # Panics
    ///
    /// When the validator's configuration names none.
    #[must_use]
    pub fn resolver(&self) -> String {
        let text = std::fs::read_to_string(self.state().join("validator.toml")).expect("validator.toml");
        let line = text.lines().find_map(|line| line.strip_prefix("resolver = \"")).expect("its resolver");
        line.trim_end_matches('"').to_owned()
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A folder for a client.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[must_use]
    pub fn client_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join("clients").join(name);
        std::fs::create_dir_all(&folder).expect("a client's folder");
        folder
    }

    /// The process id of the running demo.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The roles' processes: (id, command line), workers included.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, String)> {
        descendants(self.process_id())
    }

    /// The process of a role, or of the worker (`hsm-worker`).
    ///
    /// # Panics
    ///
    /// When it does not run within a while.
    #[must_use]
    pub fn process_of(&self, word: &str) -> u32 {
        let started = Instant::now();
        loop {
            let found = self
                .processes()
                .into_iter()
                .find(|(_, command)| command.split_whitespace().nth(1).is_some_and(|second| second == word));
            if let Some((id, _)) = found {
                return id;
            }
            assert!(started.elapsed() < PATIENCE, "no process {word}: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The CRL as the status node serves it now.
    ///
    /// # Panics
    ///
    /// When it cannot be fetched.
    #[must_use]
    pub fn crl(&self) -> Vec<u8> {
        succeed(Command::new("curl").args(["--silent", "--show-error", "--fail", &self.facts.crl])).stdout
    }

    /// Waits until the CRL satisfies something.
    ///
    /// # Panics
    ///
    /// When it never does.
    pub fn wait_for_crl(&self, what: &str, holds: impl Fn(&[u8]) -> bool) {
        let started = Instant::now();
        while !holds(&self.crl()) {
            assert!(started.elapsed() < PATIENCE, "the CRL never {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An operator's command of this demo.
    #[must_use]
    pub fn operator(&self) -> Command {
        let mut command = Command::new(ours("chancery"));
        command.env("CHANCERY_OPERATOR", self.state().join("operator.toml"));
        command
    }

    /// Ends it as Ctrl-C would and gives the folder back.
    ///
    /// # Panics
    ///
    /// When it does not end well.
    #[must_use]
    pub fn stop(mut self) -> TempDir {
        let processes = self.processes();
        self.interrupt();
        let status = self.child.wait().expect("the demo's end");
        assert!(status.success(), "the demo ended with {status}");
        for (id, command) in processes {
            assert!(!is_alive(id), "{command} ({id}) was left behind");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::mem::replace(&mut self.folder, folder)
    }

    fn interrupt(&self) {
        signal(self.process_id(), "INT");
    }

    /// The logs of all roles, for panics.
    #[must_use]
    pub fn logs(&self) -> String {
        let Ok(folder) = std::fs::read_dir(self.state().join("log")) else { return String::new() };
        folder
            .flatten()
            .map(|file| format!("--- {}\n{}", file.path().display(), tail(&file.path())))
            .collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
            let _ = self.child.wait();
        }
    }
}

fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n") + "\n"
}

/// Sends a signal to a process that the test started.
///
/// # Panics
///
/// When it cannot be sent.
pub fn signal(process: u32, name: &str) {
    succeed(Command::new("sh").args(["-c", &format!("kill -{name} {process}")]));
}

/// Whether a process runs (a zombie does not).
#[must_use]
pub fn is_alive(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

pub(crate) fn descendants(parent: u32) -> Vec<(u32, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let children = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>());
    children
        .flat_map(|id| {
            let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let mut found = vec![(id, command.replace('\0', " "))];
            found.extend(descendants(id));
            found
        })
        .collect()
}
