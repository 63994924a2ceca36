//! The client matrix: one client against one demo, by the recipes of docs/clients.md. What a run did is compared with the
//! client's row in the document's table, so that neither says more than the other.

mod incident;
pub mod recipe;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::Demo;
use crate::oracle;
use crate::program::{root, run, succeed};

/// How long a server may take to get its certificates.
const PATIENCE: Duration = Duration::from_secs(100);

/// Goes into another system with the folder of temporary files, and runs its bash with what follows.
const ENTER: &str = r#"
system="$1" temporary="$2"
shift 2
mkdir -p "$system$temporary"
mount --bind "$temporary" "$system$temporary"
mount -t proc proc "$system/proc"
mount --rbind /dev "$system/dev"
exec chroot "$system" env -C "$PWD" bash "$@"
"#;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Issuance by http-01 (RFC 8555 §8.3).
    Http01,
    /// Issuance by dns-01 (RFC 8555 §8.4).
    Dns01,
    /// Issuance by tls-alpn-01 (RFC 8737).
    TlsAlpn01,
    /// Another certificate for the same names, by the client's own way to renew.
    Renewal,
    /// Revocation by the client.
    Revocation,
    /// Key change (RFC 8555 §7.3.5), and that the old key is refused.
    KeyChange,
    /// Registration by an external account key.
    Eab,
    /// A certificate for an address (RFC 8738).
    Ip,
    /// A profile chosen by name.
    Profile,
    /// A renewal that the CA's renewal information asks for (RFC 9773).
    Ari,
}

impl Feature {
    const COLUMNS: [(&'static str, Self); 10] = [
        ("http-01", Self::Http01),
        ("dns-01", Self::Dns01),
        ("tls-alpn-01", Self::TlsAlpn01),
        ("renewal", Self::Renewal),
        ("revocation", Self::Revocation),
        ("key change", Self::KeyChange),
        ("EAB", Self::Eab),
        ("IP", Self::Ip),
        ("profile", Self::Profile),
        ("ARI", Self::Ari),
    ];

    fn from_column(name: &str) -> Self {
        let column = Self::COLUMNS.iter().find(|(column, _)| *column == name);
        column.unwrap_or_else(|| panic!("the table has a column {name}, which no test fills")).1
    }
}

/// One client at work.
pub struct Run {
    /// The CA.
    pub demo: Demo,
    /// Its section in the document.
    client: &'static str,
    /// Its row in the document's table.
    row: &'static str,
    /// The root of the system that its programs are of; none: this one.
    system: Option<PathBuf>,
    folder: PathBuf,
    did: RefCell<BTreeSet<Feature>>,
}

impl Run {
    /// A demo and a folder for a client.
    ///
    /// # Panics
    ///
    /// When the demo does not come up.
    #[must_use]
    pub fn start(client: &'static str) -> Self {
        Self::start_at(client, client, None)
    }

    /// As [`Self::start`], with a client of the newer Debian that `make clients-chroot` makes.
    ///
    /// # Panics
    ///
    /// When the demo does not come up, or there is no such Debian.
    #[must_use]
    pub fn start_newer(client: &'static str, row: &'static str) -> Self {
        let system = root().join(".tools/chroot");
        assert!(
            system.join("bin/bash").exists(),
            "{} is missing: .ci/setup chroot makes it",
            system.display()
        );
        Self::start_at(client, row, Some(system))
    }

    fn start_at(client: &'static str, row: &'static str, system: Option<PathBuf>) -> Self {
        let demo = Demo::start();
        let folder = demo.client_folder("client");
        let this = Self { demo, client, row, system, folder, did: RefCell::default() };
        for part in ["bin", "home", "etc", "var/www/html", "tmp"] {
            std::fs::create_dir_all(this.path(part)).expect("the client's folders");
        }
        // What the document leaves to a DNS provider, at the demo's name server.
        let names = this.demo.facts.names.display();
        this.wrap("dns-add", &format!("echo \"TXT $2\" >>\"{names}/$1\""));
        this.wrap("dns-remove", &format!("rm -f \"{names}/$1\""));
        this
    }

    /// Whether each of its commands has a view of the file system of its own.
    #[must_use]
    pub fn has_own_mounts(&self) -> bool {
        self.system.is_some()
    }

    /// A file of the client's: `etc/…` and `var/…` are where the document says `/etc` and `/var`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Puts a program before the client's own, which adds what only this machine needs: ports and folders.
    pub fn wrap(&self, program: &str, script: &str) {
        write_program(&self.path("bin").join(program), &format!("#!/bin/sh\n{script}\n"));
    }

    /// A block of the document with its folders in the client's.
    #[must_use]
    pub fn text(&self, recipe: &str) -> String {
        let here = self.folder.display();
        let block = recipe::block(&format!("{}/{recipe}", self.client));
        block.replace("/etc/", &format!("{here}/etc/")).replace("/var/", &format!("{here}/var/"))
    }

    /// Writes a block as a file.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn file(&self, recipe: &str, name: &str, also: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("its folder")).expect("its folder");
        let text = self.text(recipe) + also;
        if text.starts_with("#!") {
            write_program(&path, &text);
        } else {
            std::fs::write(path, text).expect("the client's file");
        }
    }

    /// The command that runs a block, at the directory that is open to all.
    #[must_use]
    pub fn command(&self, recipe: &str) -> Command {
        self.shell(&self.text(recipe))
    }

    /// As [`Self::command`], with other words than the document's.
    #[must_use]
    pub fn shell(&self, script: &str) -> Command {
        let facts = &self.demo.facts;
        let mut command = match &self.system {
            None => Command::new("bash"),
            Some(system) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-euc", ENTER, "sh"]).arg(system).arg(std::env::temp_dir());
                command
            }
        };
        let (bin, tools) = (self.path("bin"), root().join(".tools/bin"));
        let script = format!("PATH=\"{}:{}:$PATH\"\n{script}", bin.display(), tools.display());
        command.args(["-eu", "-c", &script]).current_dir(&self.folder).stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp"));
        command.env("XDG_CONFIG_HOME", self.path("home/config")).env("XDG_DATA_HOME", self.path("home/data"));
        command.env("ACME_DIRECTORY", &facts.directory).env("CA_ROOT", &facts.endpoint_ca);
        command.env("ADDRESS", "127.0.0.1");
        command.env("HTTP_PORT", self.demo.http_01_port.to_string());
        command.env("TLS_PORT", self.demo.tls_alpn_01_port.to_string());
        // Nothing of this machine's own settings counts.
        for variable in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a block, which must succeed.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn sh(&self, recipe: &str) -> Output {
        succeed(&mut self.command(recipe))
    }

    /// Runs a block at the directory that wants external account binding.
    ///
    /// # Panics
    ///
    /// When it does not succeed.
    pub fn sh_managed(&self, recipe: &str) -> Output {
        succeed(self.managed(&mut self.command(recipe)))
    }

    /// Lets a command see the directory that wants external account binding, and a key for it.
    pub fn managed<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let facts = &self.demo.facts;
        command.env("ACME_DIRECTORY", &facts.eab_directory);
        command.env("EAB_KID", &facts.eab_kid).env("EAB_HMAC_KEY", &facts.eab_hmac_key)
    }

    /// Runs a script that must fail, and gives back what it said.
    ///
    /// # Panics
    ///
    /// When it succeeds.
    #[must_use]
    pub fn refused(&self, script: &str) -> String {
        let output = run(&mut self.shell(script));
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{script} succeeded:\n{said}");
        said.into_owned()
    }

    /// Starts a server of the client's; dropped, it ends.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn serve(&self, mut command: Command, log: &str) -> Server {
        let log = std::fs::File::options().create(true).append(true).open(self.path(log)).expect("its log");
        command.stdout(log.try_clone().expect("its log")).stderr(log);
        Server(command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}")))
    }

    /// Waits until a server has done something; shows its log when it never does.
    ///
    /// # Panics
    ///
    /// When it never does.
    pub fn wait<T>(&self, what: &str, log: &str, look: impl Fn() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            let said = || std::fs::read_to_string(self.path(log)).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "{}: never {what}:\n{}", self.client, said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The client has a certificate for exactly these names, which openssl accepts; its serial number.
    ///
    /// # Panics
    ///
    /// When it has none or another.
    #[must_use]
    pub fn has(&self, feature: Feature, chain: impl AsRef<Path>, names: &[&str]) -> pki::Serial {
        let chain = self.folder.join(chain);
        let text =
            std::fs::read_to_string(&chain).unwrap_or_else(|error| panic!("{}: {error}", chain.display()));
        let certificates = pki::chain::from_pem(&text).expect("a chain");
        assert_eq!(certificates.len(), 2, "leaf and intermediate, without the root");
        let leaf = &certificates[0];
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names_of(&chain), wanted, "{} has other names", chain.display());
        let crl = oracle::crl_to_pem(&self.demo.crl(), &self.folder, "crl");
        oracle::openssl_verifies(&chain, &self.demo.facts.root, &crl);
        self.did(feature);
        leaf.serial()
    }

    /// The certificate is of the profile `short`, which is valid for a week.
    ///
    /// # Panics
    ///
    /// When it is valid for another time.
    pub fn is_short(&self, chain: impl AsRef<Path>) {
        let text = std::fs::read_to_string(self.folder.join(chain)).expect("a chain");
        let leaf = pki::chain::from_pem(&text).expect("PEM").remove(0);
        let seconds = leaf.not_after().unix() - leaf.not_before().unix() + 1;
        assert_eq!(seconds, 7 * 86_400, "it is not of the profile short");
    }

    /// The CA says that the certificate is revoked.
    ///
    /// # Panics
    ///
    /// When it never does.
    pub fn is_revoked(&self, serial: &pki::Serial) {
        self.demo.wait_for_crl("showed the revoked certificate", |crl| {
            pki::crl::Crl::from_der(crl).expect("a CRL").find(serial).is_some()
        });
        self.did(Feature::Revocation);
    }

    /// The client did this.
    pub fn did(&self, feature: Feature) {
        self.did.borrow_mut().insert(feature);
    }

    /// The end: what was done is what the table says.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn finish(self) {
        let said: BTreeSet<Feature> = recipe::row(self.row).into_iter().collect();
        assert_eq!(
            *self.did.borrow(),
            said,
            "left: what {} did; right: its row in docs/clients.md",
            self.row
        );
    }
}

/// A server of a client's; dropped, it ends, with what it started.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let mut family = crate::demo::descendants(self.0.id());
        family.push((self.0.id(), String::new()));
        // Asked first: a server that is killed leaves its children behind.
        let kill = |name: &str, id: u32| {
            let _ = Command::new("kill").arg(name).arg(id.to_string()).stderr(Stdio::null()).status();
        };
        kill("-TERM", self.0.id());
        let started = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        for (id, _) in family {
            if crate::demo::is_alive(id) {
                kill("-KILL", id);
            }
        }
        let _ = self.0.wait();
    }
}

/// Waits until somebody listens.
///
/// # Panics
///
/// When nobody does.
pub fn wait_for_port(port: u16) {
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < PATIENCE, "nobody listens at port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The names and addresses of a certificate, as openssl reads them.
fn names_of(certificate: &Path) -> BTreeSet<String> {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(certificate);
    let said = String::from_utf8(succeed(&mut command).stdout).expect("text");
    let names = said.split([',', '\n']).filter_map(|part| {
        let part = part.trim();
        part.strip_prefix("DNS:").or_else(|| part.strip_prefix("IP Address:"))
    });
    names.map(str::to_owned).collect()
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a script");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a script may run");
}
