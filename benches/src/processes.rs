//! The programs under test, and what they cost.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// `chancery demo --serve`, the real programs; dropped, it ends.
pub struct Demo {
    child: Child,
    /// Its state folder.
    pub state: PathBuf,
    /// What clients need to know.
    pub facts: Facts,
}

/// What the load generator needs of `demo.json`.
#[derive(Debug, Deserialize)]
pub struct Facts {
    /// The directory's URL.
    pub directory: String,
    /// PEM of the root.
    pub root: PathBuf,
    /// PEM of the issuer.
    pub issuer: PathBuf,
    /// URL of the issuer's CRL.
    pub crl: String,
    /// URL of the OCSP responder.
    pub ocsp: String,
}

impl Demo {
    /// Starts it from the program beside this one.
    ///
    /// # Errors
    ///
    /// When it is not built or does not come up.
    pub fn start(state: &Path, http_01_port: u16, more: &[String]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("chancery");
        ensure!(program.exists(), "{} is missing: cargo build --release -p chancery", program.display());
        let mut child = Command::new(program)
            .args(["demo", "--serve", "--http-01-port", &http_01_port.to_string(), "--state"])
            .arg(state)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let up = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Chancery is running"));
        ensure!(up, "the demo did not come up");
        // Read on, so that it never blocks on a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let facts = serde_json::from_slice(&std::fs::read(state.join("demo.json"))?)?;
        Ok(Self { child, state: state.to_owned(), facts })
    }

    /// CPU seconds so far by role, worker included; and peak memory in MiB.
    #[must_use]
    pub fn costs(&self) -> Costs {
        self.costs_later()()
    }

    /// [`Demo::costs`] for one who does not hold it.
    pub fn costs_later(&self) -> impl Fn() -> Costs + Send + Sync + 'static {
        let id = self.child.id();
        move || {
            let mut costs = BTreeMap::new();
            collect(id, &mut costs);
            costs
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id())
            && let Some(id) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
        }
        let _ = self.child.wait();
    }
}

/// What processes have used, by role.
pub type Costs = BTreeMap<String, Cost>;

/// What the PostgreSQL server that this process has started has used, its ended children included.
#[must_use]
pub fn postgres_cost() -> Cost {
    let mut total = Cost::default();
    for id in servers(std::process::id()) {
        let (server, ended) = (cost_of(id), ended_children(id));
        let backends: Vec<Cost> = children(id).into_iter().map(cost_of).collect();
        let cpu = server.cpu_seconds + ended + backends.iter().map(|cost| cost.cpu_seconds).sum::<f64>();
        // What the backends share is counted with each: an upper bound.
        let peak = backends.iter().map(|cost| cost.peak_mib).fold(server.peak_mib, f64::max);
        let now = backends.iter().map(|cost| cost.now_mib).fold(server.now_mib, f64::max);
        total = Cost {
            cpu_seconds: total.cpu_seconds + cpu,
            peak_mib: total.peak_mib.max(peak),
            now_mib: total.now_mib.max(now),
        };
    }
    total
}

/// The servers below a process: not their backends.
fn servers(parent: u32) -> Vec<u32> {
    let (found, others): (Vec<u32>, Vec<u32>) =
        children(parent).into_iter().partition(|id| name_of(*id) == "postgres");
    found.into_iter().chain(others.into_iter().flat_map(servers)).collect()
}

fn name_of(id: u32) -> String {
    std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim().to_owned()
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// CPU seconds of children that a process has outlived.
fn ended_children(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [13, 14].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Peak resident memory, MiB.
    pub peak_mib: f64,
    /// Resident memory, MiB.
    pub now_mib: f64,
}

fn collect(parent: u32, costs: &mut Costs) {
    for id in children(parent) {
        let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        if let Some(role) = command.split('\0').nth(1) {
            costs.insert(role.to_owned(), cost_of(id));
        }
        collect(id, costs);
    }
}

/// The cost of a process so far.
#[must_use]
pub fn cost_of(id: u32) -> Cost {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    // USER_HZ is 100 on every Linux that this runs on.
    Cost { cpu_seconds: ticks / 100.0, peak_mib: mib("VmHWM:"), now_mib: mib("VmRSS:") }
}
