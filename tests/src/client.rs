//! Real ACME clients, as people run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::demo::Demo;
use crate::program::{run, succeed};

/// certbot by http-01, with its own responder; the chain file.
///
/// # Panics
///
/// When it does not get its certificate.
#[must_use]
pub fn certbot(demo: &Demo, folder: &Path, names: &[&str]) -> PathBuf {
    succeed(&mut certbot_certonly(demo, folder, names));
    folder.join("config/live/test/fullchain.pem")
}

/// The command of [`certbot`].
#[must_use]
pub fn certbot_certonly(demo: &Demo, folder: &Path, names: &[&str]) -> Command {
    let mut command = certbot_command(demo, folder);
    command.args(["certonly", "--standalone", "--preferred-challenges", "http", "--cert-name", "test"]);
    command.args(["--http-01-address", "127.0.0.1", "--http-01-port", &demo.http_01_port.to_string()]);
    for name in names {
        command.args(["-d", name]);
    }
    command
}

/// certbot with what all its commands need.
#[must_use]
pub fn certbot_command(demo: &Demo, folder: &Path) -> Command {
    let mut command = Command::new("certbot");
    command.args(["--non-interactive", "--agree-tos", "--register-unsafely-without-email"]);
    command.args(["--server", &demo.facts.directory]);
    for (option, part) in [("--config-dir", "config"), ("--work-dir", "work"), ("--logs-dir", "logs")] {
        command.arg(option).arg(folder.join(part));
    }
    command.env("REQUESTS_CA_BUNDLE", &demo.facts.endpoint_ca);
    command
}

/// lego by http-01 in the open directory, or with EAB in the managed one; the chain file.
///
/// # Panics
///
/// When it does not get its certificate.
#[must_use]
pub fn lego(demo: &Demo, folder: &Path, name: &str, eab: bool, http_port: u16) -> PathBuf {
    succeed(&mut lego_command(demo, folder, name, eab, http_port));
    folder.join(format!("certificates/{name}.crt"))
}

/// The command of [`lego`].
#[must_use]
pub fn lego_command(demo: &Demo, folder: &Path, name: &str, eab: bool, http_port: u16) -> Command {
    let mut command = Command::new("lego");
    command.args(["--accept-tos", "--email", "someone@example.test", "--domains", name, "--http"]);
    command.args(["--http.port", &format!("127.0.0.1:{http_port}"), "--path"]).arg(folder);
    let server = if eab { &demo.facts.eab_directory } else { &demo.facts.directory };
    command.args(["--server", server]);
    if eab {
        command.args(["--eab", "--kid", &demo.facts.eab_kid, "--hmac", &demo.facts.eab_hmac_key]);
    }
    command.arg("run").env("LEGO_CA_CERTIFICATES", &demo.facts.endpoint_ca);
    command
}

/// lego revokes what it got in the open directory, and keeps its files.
///
/// # Panics
///
/// When it is not installed.
#[must_use]
pub fn lego_revoke(demo: &Demo, folder: &Path, name: &str, reason: u8) -> std::process::Output {
    let mut command = Command::new("lego");
    command
        .args(["--accept-tos", "--email", "someone@example.test", "--domains", name, "--path"])
        .arg(folder);
    command.args(["--server", &demo.facts.directory, "revoke", "--keep", "--reason", &reason.to_string()]);
    run(command.env("LEGO_CA_CERTIFICATES", &demo.facts.endpoint_ca))
}

/// dehydrated by http-01: it writes its answers into a folder, which a web server of Python's serves; the chain file.
///
/// # Panics
///
/// When it does not get its certificate.
#[must_use]
pub fn dehydrated(demo: &Demo, folder: &Path, name: &str) -> PathBuf {
    let well_known = folder.join("www/.well-known/acme-challenge");
    std::fs::create_dir_all(&well_known).expect("its folder");
    let config = format!(
        "CA={}\nBASEDIR={base}\nWELLKNOWN={}\nCURL_OPTS=\"--cacert {}\"\nKEY_ALGO=prime256v1\nAUTO_CLEANUP=no\n",
        demo.facts.directory,
        well_known.display(),
        demo.facts.endpoint_ca.display(),
        base = folder.display(),
    );
    std::fs::write(folder.join("config"), config).expect("its configuration");
    let _server = FileServer::start(&folder.join("www"), demo.http_01_port);
    let dehydrated = |arguments: &[&str]| {
        succeed(Command::new("dehydrated").arg("--config").arg(folder.join("config")).args(arguments));
    };
    dehydrated(&["--register", "--accept-terms"]);
    dehydrated(&["--cron", "--domain", name]);
    folder.join(format!("certs/{name}/fullchain.pem"))
}

/// `python3 -m http.server` on a folder; dropped, it ends.
pub struct FileServer(std::process::Child);

impl FileServer {
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn start(folder: &Path, port: u16) -> Self {
        let child = Command::new("/usr/bin/python3")
            .args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string(), "--directory"])
            .arg(folder)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("python3 -m http.server");
        let server = Self(child);
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the file server did not come up on port {port}");
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
