//! Requests from wrk: a generator that takes a few microseconds of CPU each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// What wrk has counted.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Counted {
    /// Answers.
    pub requests: f64,
    /// Microseconds.
    pub duration_us: f64,
    /// Octets of all answers, headers included.
    pub octets: f64,
    /// Answers that were not 200, connections that broke, answers that did not come.
    pub errors: f64,
    /// The median of the answer time, microseconds.
    pub p50_us: f64,
    /// Its 99th percentile.
    pub p99_us: f64,
}

impl Counted {
    /// Answers a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.requests * 1e6 / self.duration_us.max(1.0)
    }
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// In the path.
    Get,
    /// In the body.
    Post,
}

/// The requests of a file go round; what is counted at the end is one line of JSON.
const SCRIPT: &str = r#"
local made = {}
local at = 0
function init(args)
  for line in io.lines(args[2]) do
    if args[1] == "get" then
      made[#made + 1] = wrk.format("GET", line)
    else
      local body = line:gsub("..", function(digits) return string.char(tonumber(digits, 16)) end)
      made[#made + 1] = wrk.format("POST", args[3], { ["Content-Type"] = "application/ocsp-request" }, body)
    end
  end
  at = math.random(#made)
end
function request()
  at = at % #made + 1
  return made[at]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"octets":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

/// Asks for `seconds` over `connections` connections: the requests of `lines` (paths, or bodies in hexadecimal), at `path` of
/// `authority`.
///
/// # Errors
///
/// When wrk is not installed or says something else than counts.
pub fn run(
    folder: &Path,
    authority: &str,
    method: Method,
    path: &str,
    lines: &[String],
    (connections, seconds): (usize, u64),
) -> anyhow::Result<Counted> {
    let script = written(folder, "requests.lua", SCRIPT)?;
    let requests = written(folder, "requests.txt", &(lines.join("\n") + "\n"))?;
    let output = Command::new("wrk")
        .args(["-t1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "--timeout", "5s", "-s"])
        .arg(script)
        .arg(format!("http://{authority}"))
        .arg("--")
        .arg(if method == Method::Get { "get" } else { "post" })
        .arg(requests)
        .arg(path)
        .output()
        .context("wrk is missing: .ci/setup bench")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().rev().find(|line| line.starts_with('{')).context("wrk counted nothing")?;
    let counted: Counted = serde_json::from_str(line)?;
    ensure!(counted.requests > 0.0, "wrk got no answer: {said}");
    Ok(counted)
}

fn written(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}
