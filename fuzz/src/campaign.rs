//! The programs of `make fuzz`: built on stable Rust, because the coverage that libFuzzer needs is a
//! pass of LLVM and not of the compiler; run one after another.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs the fuzz targets under libFuzzer. What one finds is kept in target/fuzz/findings.
#[derive(Parser)]
pub struct Arguments {
    /// Minutes for each target.
    #[arg(long, default_value_t = 20.0)]
    minutes: f64,
    /// Which targets: jws, jwk, csr, identifier, http_01, dns, ocsp_request, ocsp_response, crl.
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Runs every target over a file, and nothing else: to see a finding again.
    #[arg(long)]
    again: Option<PathBuf>,
}

/// Coverage of every edge, by counters, with a table of their places, and of what is compared.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Clink-dead-code",
    "-Ccodegen-units=1",
];

/// Octets of the longest input: requests and answers of several certificates, a newOrder of some hundred names.
const MAX_LEN: usize = 8 * 1024 + 1;

/// How many targets found something.
///
/// # Errors
/// When a target cannot be built or run.
pub fn run(arguments: &Arguments) -> anyhow::Result<usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has no folder above it")?;
    let known = || crate::TARGETS.iter().map(|(name, _)| *name);
    for name in &arguments.targets {
        ensure!(known().any(|target| target == name), "there is no target {name}");
    }
    if let Some(file) = &arguments.again {
        let octets = std::fs::read(file).with_context(|| file.display().to_string())?;
        crate::TARGETS.iter().for_each(|(_, target)| target(&octets));
        println!("no target finds anything in {}", file.display());
        return Ok(0);
    }
    let programs = build(root)?;
    let mut findings = 0;
    for name in
        known().filter(|name| arguments.targets.is_empty() || arguments.targets.iter().any(|t| t == name))
    {
        let program = programs.join(program(name));
        let time = Duration::from_secs_f64(arguments.minutes * 60.0);
        findings += usize::from(!fuzz(root, name, &program, time)?);
    }
    Ok(findings)
}

fn program(target: &str) -> String {
    format!("fuzz-{}", target.replace('_', "-"))
}

/// The folder with the programs.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let target_dir = root.join("target/fuzz/build");
    let rustc = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let version = String::from_utf8(rustc.stdout)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    // With a target named, build scripts and macros are built without coverage.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--profile", "fuzz", "-p", "fuzz", "--features", "libfuzzer"])
        // Not the program that this is: it has no fuzzer to call for coverage.
        .args(crate::TARGETS.iter().map(|(name, _)| format!("--bin={}", program(name))))
        .args(["--target", host, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
        .status()
        .context("cargo build")?;
    ensure!(status.success(), "the targets do not build");
    Ok(target_dir.join(host).join("fuzz"))
}

/// Whether nothing was found.
fn fuzz(root: &Path, name: &str, program: &Path, time: Duration) -> anyhow::Result<bool> {
    let folder = root.join("target/fuzz");
    let (corpus, findings) = (folder.join("corpus").join(name), folder.join("findings").join(name));
    for folder in [&corpus, &findings] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut child = Command::new(program)
        .arg(&corpus)
        .arg(root.join("fuzz/corpus").join(name))
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-max_len={MAX_LEN}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let bar = ProgressBar::new(time.as_secs());
    let style = format!("{{elapsed_precise}} {{wide_bar}} {name}: {{msg}}");
    bar.set_style(ProgressStyle::with_template(&style)?);
    let begun = Instant::now();
    let mut last = String::new();
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().context("no stderr")?).lines() {
        let line = line?;
        // `#1234 NEW cov: …`; a recommended dictionary has lines of `#` as well.
        let progress = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if let Some(progress) = progress {
            progress.clone_into(&mut last);
            bar.set_message(last.split_whitespace().collect::<Vec<_>>().join(" "));
        } else {
            said.push(line);
        }
        bar.set_position(begun.elapsed().as_secs());
    }
    bar.finish_and_clear();
    let good = child.wait()?.success();
    println!("{name}: {}, {last}", if good { "nothing found" } else { "FOUND SOMETHING" });
    if !good {
        said.iter().for_each(|line| eprintln!("{line}"));
        eprintln!("fuzz: see {}; again: make fuzz FUZZ=\"--again FILE\"", findings.display());
    }
    Ok(good)
}
