//! A SoftHSM token of one test's own, and the worker program for it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that has no token cannot go on")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use hsm::{TokenConfig, WorkerCommand};
use tempfile::TempDir;

/// A token in a temporary folder; it goes with the value.
#[derive(Debug)]
pub struct TestToken {
    folder: TempDir,
    label: String,
}

impl TestToken {
    /// Makes a token with this label.
    ///
    /// # Panics
    /// When SoftHSM is missing (with the command that installs it), or does not make a token.
    #[must_use]
    pub fn create(label: &str) -> TestToken {
        let folder = tempfile::Builder::new().prefix("token-").tempdir().expect("temporary folder");
        let token = TestToken { folder, label: label.to_owned() };
        let tokens = token.path("tokens");
        fs::create_dir(&tokens).expect("folder of tokens");
        let conf = CONFIGURATION.replace("@TOKENS@", &tokens.to_string_lossy());
        fs::write(token.conf(), conf).expect("softhsm2.conf");
        token.set_pin(PIN);
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN])
            .env("SOFTHSM2_CONF", token.conf())
            .output()
            .unwrap_or_else(|error| panic!("softhsm2-util: {error}; run: apt-get install softhsm2"));
        assert!(made.status.success(), "softhsm2-util: {}", String::from_utf8_lossy(&made.stderr));
        token
    }

    /// The token's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its configuration file, the value of `SOFTHSM2_CONF`.
    #[must_use]
    pub fn conf(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    /// The PKCS#11 module.
    #[must_use]
    pub fn module(&self) -> &'static Path {
        Path::new(MODULE)
    }

    /// The file with the PIN.
    #[must_use]
    pub fn pin_file(&self) -> PathBuf {
        self.path("pin")
    }

    /// The file in which a refused PIN is latched.
    #[must_use]
    pub fn latch_file(&self) -> PathBuf {
        self.path("latch")
    }

    /// The folder of all that, for more files of the test's own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration with which [`hsm::Token`] finds this token.
    #[must_use]
    pub fn config(&self) -> TokenConfig {
        TokenConfig::new(MODULE, &self.label, self.pin_file(), self.latch_file())
            .with_environment("SOFTHSM2_CONF", self.conf().to_string_lossy())
    }

    /// Writes another PIN into the PIN file; the token's own does not change.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set_pin(&self, pin: &str) {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.pin_file())
            .expect("PIN file");
        writeln!(file, "{pin}").expect("PIN file");
    }

    /// Hides the token from everybody, like a network HSM that is unplugged.
    ///
    /// # Panics
    /// When the token's folder cannot be renamed.
    pub fn unplug(&self) {
        fs::rename(self.path("tokens"), self.path("unplugged")).expect("hide the token");
        fs::create_dir(self.path("tokens")).expect("empty folder of tokens");
    }

    /// Undoes [`TestToken::unplug`].
    ///
    /// # Panics
    /// When the token's folder cannot be renamed.
    pub fn plug(&self) {
        fs::remove_dir(self.path("tokens")).expect("empty folder of tokens");
        fs::rename(self.path("unplugged"), self.path("tokens")).expect("show the token");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The worker program, for tests of crates that have none of their own. Built when it is missing or older than its
/// sources: cargo builds a package's programs for that package's tests only.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn worker() -> WorkerCommand {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    WorkerCommand::new(PROGRAM.get_or_init(build_worker))
}

fn build_worker() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    // …/target/PROFILE/deps/test-1234, or examples/…
    let profile = test.ancestors().find(|path| path.ends_with("deps") || path.ends_with("examples"));
    let profile = profile.and_then(Path::parent);
    let profile = profile.or_else(|| test.parent()).expect("folder of the profile");
    let program = profile.join("hsm-worker");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("folder of the crates");
    let newest = ["hsm", "pki"].iter().map(|name| newest_below(&crates.join(name).join("src"))).max();
    let built = fs::metadata(&program).and_then(|metadata| metadata.modified()).ok();
    if built < newest {
        let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
        cargo.args(["build", "--quiet", "--package", "hsm", "--bin", "hsm-worker", "--target-dir"]);
        cargo.arg(profile.parent().expect("target folder")).current_dir(crates);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().expect("cargo");
        assert!(status.success(), "cargo build --package hsm --bin hsm-worker failed");
    }
    program
}

fn newest_below(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).expect("source folder");
    let times = entries.map(|entry| {
        let entry = entry.expect("source file");
        if entry.path().is_dir() {
            newest_below(&entry.path())
        } else {
            entry.metadata().and_then(|metadata| metadata.modified()).expect("time of a source file")
        }
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Where Debian has the module, on every architecture.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

const CONFIGURATION: &str = include_str!("../../../softhsm/softhsm2.conf.in");

/// The user PIN of every test token.
pub const PIN: &str = "424242";

const SO_PIN: &str = "31415926";
