//! The real ACME clients that the demo runs: certbot (http-01 with its own responder) and lego (external account binding
//! and a grant, no challenge). They talk to loopback only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

/// What a client needs to know of the CA.
pub(crate) struct Target<'a> {
    /// The directory's URL.
    pub(crate) directory: &'a str,
    /// PEM of the root that the directory's HTTPS certificate chains to.
    pub(crate) endpoint_ca: &'a Path,
    /// The client's own folder.
    pub(crate) folder: &'a Path,
}

/// An external account key, as `chancery eab create` shows it.
pub(crate) struct Eab<'a> {
    pub(crate) kid: &'a str,
    pub(crate) hmac_key: &'a str,
}

/// What a client got.
pub(crate) struct Obtained {
    /// PEM, leaf first.
    pub(crate) chain: PathBuf,
    /// The command as a person would type it.
    pub(crate) command: String,
    pub(crate) took: Duration,
}

/// certbot with its standalone responder on `port` (RFC 8555 §8.3).
///
/// # Errors
///
/// When it is not installed or does not get its certificate; its output is in the error.
pub(crate) async fn certbot(target: &Target<'_>, names: &[&str], port: u16) -> anyhow::Result<Obtained> {
    std::fs::create_dir_all(target.folder)?;
    let mut command = Command::new("certbot");
    command.args(["certonly", "--standalone", "--non-interactive", "--agree-tos"]);
    command.args(["--register-unsafely-without-email", "--preferred-challenges", "http"]);
    command.args(["--http-01-address", "127.0.0.1", "--http-01-port", &port.to_string()]);
    command.args(["--server", target.directory, "--cert-name", "demo"]);
    for (option, folder) in [("--config-dir", "config"), ("--work-dir", "work"), ("--logs-dir", "logs")] {
        command.arg(option).arg(target.folder.join(folder));
    }
    for name in names {
        command.args(["-d", name]);
    }
    command.env("REQUESTS_CA_BUNDLE", target.endpoint_ca);
    let took = run(&mut command, "certbot").await?;
    Ok(Obtained {
        chain: target.folder.join("config/live/demo/fullchain.pem"),
        command: format!(
            "certbot certonly --standalone --server {} -d {}",
            target.directory,
            names.join(" -d ")
        ),
        took,
    })
}

/// lego with an external account key; the names are granted, so that no challenge is made.
///
/// # Errors
///
/// As [`certbot`].
pub(crate) async fn lego(
    target: &Target<'_>,
    eab: &Eab<'_>,
    name: &str,
    port: u16,
) -> anyhow::Result<Obtained> {
    std::fs::create_dir_all(target.folder)?;
    let mut command = Command::new("lego");
    command.args(["--server", target.directory, "--accept-tos", "--email", "operator@demo.test"]);
    command.args(["--eab", "--kid", eab.kid, "--hmac", eab.hmac_key]);
    command.args(["--domains", name, "--http", "--http.port", &format!("127.0.0.1:{port}")]);
    command.arg("--path").arg(target.folder).arg("run");
    command.env("LEGO_CA_CERTIFICATES", target.endpoint_ca);
    let took = run(&mut command, "lego").await?;
    Ok(Obtained {
        chain: target.folder.join(format!("certificates/{name}.crt")),
        command: typed(&command).replace(eab.hmac_key, "…"),
        took,
    })
}

/// A command with what was set of its environment, as it would be typed.
fn typed(command: &Command) -> String {
    let command = command.as_std();
    let environment = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy())));
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    environment.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

async fn run(command: &mut Command, program: &str) -> anyhow::Result<Duration> {
    let started = tokio::time::Instant::now();
    let output = command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {program}; install it with `apt-get install {program}`"))?;
    if !output.status.success() {
        bail!(
            "{program} did not get its certificate ({}):\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(started.elapsed())
}

/// `openssl verify -crl_check` of a chain file against root and CRL: what a relying party would do.
///
/// # Errors
///
/// When openssl refuses the certificate; its words are in the error.
pub(crate) async fn verify(chain: &Path, root: &Path, crl: &[u8], folder: &Path) -> anyhow::Result<String> {
    let crl_file = folder.join("leaf.crl.pem");
    let mut convert = Command::new("openssl");
    let crl_der = folder.join("leaf.crl");
    tokio::fs::write(&crl_der, crl).await?;
    convert.args(["crl", "-inform", "DER", "-in"]).arg(&crl_der).arg("-out").arg(&crl_file);
    openssl(&mut convert).await?;
    let mut command = Command::new("openssl");
    command.args(["verify", "-crl_check", "-x509_strict", "-CAfile"]).arg(root);
    command.arg("-untrusted").arg(chain).arg("-CRLfile").arg(&crl_file).arg(chain);
    let said = openssl(&mut command).await?;
    ensure!(said.trim_end().ends_with(": OK"), "openssl verify said: {said}");
    Ok(said)
}

/// A certificate as `openssl x509` shows it.
///
/// # Errors
///
/// When openssl cannot read it.
pub(crate) async fn show(chain: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-serial", "-subject", "-issuer", "-dates", "-ext"]);
    command.arg("subjectAltName,keyUsage,extendedKeyUsage,crlDistributionPoints,authorityInfoAccess");
    command.arg("-in").arg(chain);
    openssl(&mut command).await
}

async fn openssl(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.output().await.context("cannot run openssl; install it with `apt-get install openssl`")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "openssl refused: {}{}",
        said.trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(said)
}
