//! A real unbound on a free loopback port, with a root zone of its own: signed, its key the trust anchor.
//!
//! Below the root there are signed names, names whose signatures do not match (`bogus`), and a zone that is delegated without
//! a signature (`insecure`).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The server. It ends when it is dropped.
pub struct Unbound {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
}

/// What it knows.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    /// Records of signed names, one a line, in the presentation format of RFC 1035 §5.
    pub secure: String,
    /// Records of signed names which are changed after they were signed, each of them with the word `TAMPER` in its data.
    pub bogus: String,
    /// The name of a zone that is delegated without a signature, without a dot at the end, and its records.
    pub insecure: (String, String),
}

const APEX: &str = "3600 IN SOA ns.invalid. admin.invalid. 1 3600 600 86400 60\n";

impl Unbound {
    /// Starts one; `validates`: whether it has the trust anchor.
    ///
    /// # Errors
    /// When a program is not installed or does not do what it is for.
    pub fn start(zones: &Zones, validates: bool) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let anchor = write_zones(folder.path(), zones)?;
        let address = free_address()?;
        let at = folder.path().display();
        let anchor = if validates { format!("trust-anchor-file: \"{at}/{anchor}\"") } else { String::new() };
        let modules = if validates { "validator iterator" } else { "iterator" };
        let insecure = &zones.insecure.0;
        let configuration = format!(
            "server:\n  interface: {ip}@{port}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{at}\"\n  \
             pidfile: \"\"\n  use-syslog: no\n  logfile: \"{at}/log\"\n  num-threads: 1\n  module-config: \"{modules}\"\n  \
             do-not-query-localhost: no\n  local-zone: \"test.\" nodefault\n  {anchor}\n\
             remote-control:\n  control-enable: no\n{root}{below}",
            ip = address.ip(),
            port = address.port(),
            root = auth_zone(".", "root.signed"),
            below = if insecure.is_empty() { String::new() } else { auth_zone(insecure, "insecure.zone") },
        );
        let file = folder.path().join("unbound.conf");
        std::fs::write(&file, configuration)?;
        let child = Command::new("/usr/sbin/unbound")
            .args(["-d", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| missing("unbound", &error))?;
        let mut server = Self { address, child, folder };
        server.until_it_answers()?;
        Ok(server)
    }

    /// Where it listens, UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn until_it_answers(&mut self) -> io::Result<()> {
        let started = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            if self.child.try_wait()?.is_some() || started.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("unbound does not come up: {log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn auth_zone(name: &str, file: &str) -> String {
    let dot = if name == "." { "" } else { "." };
    format!(
        "auth-zone:\n  name: \"{name}{dot}\"\n  zonefile: \"{file}\"\n  for-downstream: no\n  for-upstream: yes\n  \
         fallback-enabled: no\n"
    )
}

/// Writes and signs the zones; the name of the file with the trust anchor.
fn write_zones(folder: &Path, zones: &Zones) -> io::Result<String> {
    let insecure = &zones.insecure.0;
    let delegation = match insecure.as_str() {
        "" => String::new(),
        name => format!("{name}. 3600 IN NS ns.{name}.\nns.{name}. 3600 IN A 127.0.0.1\n"),
    };
    let root = format!(". {APEX}. 3600 IN NS ns.invalid.\nns.invalid. 3600 IN A 127.0.0.1\n");
    std::fs::write(folder.join("root.zone"), root + &zones.secure + &zones.bogus + &delegation)?;
    let apex = format!("{insecure}. {APEX}{delegation}");
    std::fs::write(folder.join("insecure.zone"), apex + &zones.insecure.1)?;
    let key = run(folder, "ldns-keygen", &["-a", "ECDSAP256SHA256", "-k", "."])?;
    run(folder, "ldns-signzone", &["-f", "root.signed", "root.zone", &key])?;
    let signed = std::fs::read_to_string(folder.join("root.signed"))?;
    std::fs::write(folder.join("root.signed"), signed.replace("TAMPER", "tamper"))?;
    Ok(format!("{key}.ds"))
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .map_err(|error| missing(program, &error))?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn missing(program: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{program}: {error}; apt-get install unbound ldnsutils, or .ci/setup test"))
}

/// A port that is free for both transports. Somebody else may take it before unbound does: then it does not come up.
fn free_address() -> io::Result<SocketAddr> {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = udp.local_addr()?;
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
}
