//! The demo's folder: tokens, secrets, the ceremony and every role's configuration. A folder that is there already is
//! taken as it is, so that `--state` keeps a CA across starts; what changes from start to start (addresses, the demo's own
//! name server) is written again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::rand::SecureRandom as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Where SoftHSM's module is: on Debian, then on others.
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Name and label of the two tokens.
const TOKENS: [&str; 2] = ["root", "signer"];

/// The folder and what is where in it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    folder: PathBuf,
    module: PathBuf,
}

/// Addresses of this start.
pub(crate) struct Addresses {
    pub(crate) signer: SocketAddr,
    pub(crate) enrollment: SocketAddr,
    pub(crate) validator: SocketAddr,
    pub(crate) status: SocketAddr,
    /// `host:port` of each URL that clients use; the first is canonical.
    pub(crate) authorities: Vec<String>,
    /// The hosts of those.
    pub(crate) hosts: Vec<String>,
    pub(crate) resolver: SocketAddr,
    /// URLs of PostgreSQL; none: SQLite in the folder.
    pub(crate) signer_database: Option<String>,
    pub(crate) front_database: Option<String>,
    pub(crate) http_01_port: u16,
    pub(crate) tls_alpn_01_port: u16,
    /// The front's `[limits]`, where they are not the defaults.
    pub(crate) front_limits: &'static str,
    /// Whether challenges succeed without a look.
    pub(crate) always_valid: bool,
    /// Whom the status node sets no limits, as its configuration has it.
    pub(crate) trusted_proxies: &'static str,
    /// Whether the demo stands in for Pebble.
    pub(crate) pebble: bool,
    /// Whether the front has a file of faults.
    pub(crate) faults: bool,
}

impl Addresses {
    /// `host:port` of the canonical URL.
    pub(crate) fn authority(&self) -> &str {
        self.authorities.first().map_or("", String::as_str)
    }

    /// Every base URL, as TOML.
    fn base_urls(&self) -> String {
        let urls: Vec<String> = self
            .authorities
            .iter()
            .map(|authority| quoted(Path::new(&format!("https://{authority}"))))
            .collect();
        format!("[{}]", urls.join(", "))
    }
}

impl Layout {
    /// # Errors
    ///
    /// When SoftHSM is not installed or the folder cannot be made.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
        let Some(module) = module else {
            bail!("SoftHSM is not installed: apt-get install softhsm2 (looked for {})", MODULES.join(", "));
        };
        for part in
            ["tokens", "log", "front", "validator", "status", "signer", "operator", "clients", "names"]
        {
            std::fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot make {}", folder.join(part).display()))?;
        }
        Ok(Self { folder: folder.canonicalize()?, module })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn softhsm_conf(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    /// PINs, tier secret and nonce key: random, made once, readable by this user alone.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub(crate) fn secrets(&self) -> anyhow::Result<()> {
        let tier = URL_SAFE_NO_PAD.encode(random::<32>()?);
        self.once("tier-secret", format!("1:{tier}\n").as_bytes())?;
        self.once("nonce-key", format!("{}\n", URL_SAFE_NO_PAD.encode(random::<32>()?)).as_bytes())?;
        self.once("pin", format!("{}\n", hex::encode(random::<8>()?)).as_bytes())?;
        self.once("so-pin", format!("{}\n", hex::encode(random::<8>()?)).as_bytes())
    }

    fn once(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.path(name);
        if !path.exists() {
            runtime::files::write_atomically(&path, content, 0o600)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The two SoftHSM tokens, made once.
    ///
    /// # Errors
    ///
    /// When `softhsm2-util` is missing or fails.
    pub(crate) async fn tokens(&self) -> anyhow::Result<()> {
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            self.path("tokens").display()
        );
        runtime::files::write_atomically(&self.softhsm_conf(), conf.as_bytes(), 0o600)?;
        for label in TOKENS {
            let made = self.path(&format!("tokens/{label}.made"));
            if made.exists() {
                continue;
            }
            let output = tokio::process::Command::new("softhsm2-util")
                .env("SOFTHSM2_CONF", self.softhsm_conf())
                .args(["--init-token", "--free", "--label", label])
                .arg("--pin")
                .arg(self.line("pin")?)
                .arg("--so-pin")
                .arg(self.line("so-pin")?)
                .output()
                .await
                .context("cannot run softhsm2-util: apt-get install softhsm2")?;
            ensure!(
                output.status.success(),
                "softhsm2-util could not make the token: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            runtime::files::write_atomically(&made, b"", 0o600)?;
        }
        Ok(())
    }

    fn line(&self, name: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.path(name))?.trim().to_owned())
    }

    /// The ceremony's file, written once: it is the record of the keys in this folder. The port of the status node
    /// stands in certificates, so that it stays what it was at the first start.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn ceremony(&self, status: SocketAddr, responder_algorithm: &str) -> anyhow::Result<PathBuf> {
        let path = self.path("ceremony.toml");
        if !path.exists() {
            let mut text =
                String::from("version = 1\ntitle = \"Chancery demo\"\noutput = \"ca\"\ntest_ca = true\n");
            for label in TOKENS {
                text += &format!(
                    "\n[[token]]\nname = \"{label}\"\nlabel = \"{label}\"\nmodule = {}\npin_file = \"pin\"\n\
                     environment = {{ SOFTHSM2_CONF = {} }}\n",
                    quoted(&self.module),
                    quoted(&self.softhsm_conf())
                );
            }
            text += &CEREMONY
                .replace("{status}", &status.to_string())
                .replace("{responder_algorithm}", responder_algorithm);
            runtime::files::write_atomically(&path, text.as_bytes(), 0o644)?;
        }
        Ok(path)
    }

    /// The port of the status node that stands in this folder's certificates.
    pub(crate) fn status_port(&self) -> Option<u16> {
        let text = std::fs::read_to_string(self.path("ceremony.toml")).ok()?;
        let url = text.lines().find_map(|line| line.strip_prefix("crl_url_base = \"http://127.0.0.1:"))?;
        url.split('/').next()?.parse().ok()
    }

    /// The port of the ACME service at the last start, so that clients' account URLs stay good.
    pub(crate) fn front_port(&self) -> Option<u16> {
        self.line("front-port").ok()?.parse().ok()
    }

    pub(crate) fn keep_front_port(&self, port: u16) -> anyhow::Result<()> {
        Ok(runtime::files::write_atomically(&self.path("front-port"), format!("{port}\n").as_bytes(), 0o644)?)
    }

    /// Every role's configuration for this start.
    ///
    /// # Errors
    ///
    /// When one cannot be written.
    pub(crate) fn configurations(&self, addresses: &Addresses) -> anyhow::Result<()> {
        let fill = |template: &str| {
            template
                .replace("{module}", &quoted(&self.module))
                .replace("{softhsm_conf}", &quoted(&self.softhsm_conf()))
                .replace("{signer_database}", &database(addresses.signer_database.as_deref(), "signer/ca.db"))
                .replace("{front_database}", &database(addresses.front_database.as_deref(), "front/acme.db"))
                .replace("{signer}", &addresses.signer.to_string())
                .replace("{validator}", &addresses.validator.to_string())
                .replace("{status}", &addresses.status.to_string())
                .replace("{base_urls}", &addresses.base_urls())
                .replace("{faults}", if addresses.faults { "faults = \"faults.toml\"" } else { "" })
                .replace("{as_pebble}", if addresses.pebble { AS_PEBBLE } else { "" })
                .replace("{caa}", if addresses.pebble { CAA } else { "" })
                .replace("{allowed}", if addresses.pebble { CONTAINERS } else { "" })
                .replace("{resolver}", &addresses.resolver.to_string())
                .replace("{http_01_port}", &addresses.http_01_port.to_string())
                .replace("{tls_alpn_01_port}", &addresses.tls_alpn_01_port.to_string())
                .replace("{front_limits}", addresses.front_limits)
                .replace("{trusted_proxies}", addresses.trusted_proxies)
                .replace("{always_valid}", &addresses.always_valid.to_string())
        };
        for (name, template) in [
            ("signer.toml", SIGNER),
            ("policy.toml", POLICY),
            ("validator.toml", VALIDATOR),
            ("front.toml", FRONT),
            ("status.toml", STATUS),
            ("operator.toml", OPERATOR),
        ] {
            runtime::files::write_atomically(&self.path(name), fill(template).as_bytes(), 0o644)?;
        }
        Ok(())
    }
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// The line that names a database.
fn database(url: Option<&str>, file: &str) -> String {
    match url {
        Some(url) => format!("postgres = {}", toml::Value::String(url.to_owned())),
        None => format!("sqlite = {}", toml::Value::String(file.to_owned())),
    }
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the operating system gave no randomness"))?;
    Ok(bytes)
}

/// Where clients of Pebble look for its directory; and as there, a validation that fails is not tried again: tests of failures
/// do not wait.
const AS_PEBBLE: &str =
    "[validation]\nretry_milliseconds = []\n\n[[directory_alias]]\npath = \"/dir\"\ndirectory = \"open\"\n";
/// So that clients can test what records of CAA do.
const CAA: &str = "caa_identities = [\"ca.demo.test\"]";
/// Beside this host's own addresses: those of containers and virtual machines, where clients run in tests.
const CONTAINERS: &str = ", \"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"169.254.0.0/16\", \"fc00::/7\", \"fe80::/10\"";

const CEREMONY: &str = include_str!("templates/ceremony.toml");
const SIGNER: &str = include_str!("templates/signer.toml");
const POLICY: &str = include_str!("templates/policy.toml");
const VALIDATOR: &str = include_str!("templates/validator.toml");
const FRONT: &str = include_str!("templates/front.toml");
const STATUS: &str = include_str!("templates/status.toml");
const OPERATOR: &str = include_str!("templates/operator.toml");
