//! Configuration files: TOML, `version = 1`, unknown keys refused, mistakes shown with file, line and caret.

use std::{
    cell::RefCell,
    fs, io,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use rpc::{NodeCredentials, NodeFiles};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::listen::Listen;

/// What every role's configuration has in common.
pub trait RoleConfig: DeserializeOwned + Send + 'static {
    /// `[log]`.
    fn log(&self) -> &LogSection;

    /// `[health]`.
    fn health(&self) -> Option<&HealthSection>;

    /// How long a drain may take.
    fn drain(&self) -> Duration {
        DEFAULT_DRAIN
    }

    /// What TOML types cannot say. Runs at `--check` and at each start.
    ///
    /// # Errors
    /// A sentence for the operator, naming the keys.
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// The time for a drain where the configuration does not say.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Reads a role's configuration. Relative paths in it ([`FilePath`]) are relative to the file's folder.
///
/// # Errors
/// When it cannot be read, is not TOML, has an unknown or missing key, a bad value or another version.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// As [`load`], of a text that would stand in that file.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    let wrong = |error: toml::de::Error| ConfigError::Parse { path: path.to_owned(), error: Box::new(error) };
    // The version first: of a newer file the unknown keys are not what is wrong.
    toml::from_str::<AnyVersion>(text).map_err(wrong)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let _folder = Folder::enter(std::path::absolute(&folder).unwrap_or(folder));
    toml::from_str(text).map_err(wrong)
}

/// The `version` key: only 1 is one. Every configuration struct has `pub version: Version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(into = "u32")]
pub struct Version;

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        CONFIG_VERSION
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let version = u32::deserialize(deserializer)?;
        if version == CONFIG_VERSION {
            Ok(Self)
        } else {
            Err(serde::de::Error::custom(format_args!(
                "version {version} is not known to this program, which reads version {CONFIG_VERSION}"
            )))
        }
    }
}

const CONFIG_VERSION: u32 = 1;

#[derive(Deserialize)]
struct AnyVersion {
    #[serde(rename = "version")]
    _version: Version,
}

/// A path in a configuration: absolute, or relative to the configuration file's folder (not to where the program was
/// started). Absolute once it is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct FilePath(PathBuf);

impl Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for FilePath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl From<&Path> for FilePath {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl From<FilePath> for PathBuf {
    fn from(path: FilePath) -> Self {
        path.0
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        if path.as_os_str().is_empty() {
            return Err(serde::de::Error::custom("an empty path"));
        }
        Ok(Self(FOLDER.with_borrow(|folder| match folder {
            Some(folder) => folder.join(&path),
            None => path,
        })))
    }
}

thread_local! {
    // serde has no way to hand context down to a field; parsing is synchronous, so the thread is the context.
    static FOLDER: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// The folder of the file being parsed, until it is dropped.
struct Folder;

impl Folder {
    fn enter(folder: PathBuf) -> Self {
        FOLDER.set(Some(folder));
        Self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        FOLDER.set(None);
    }
}

/// `[node]`: who this node is among the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Its certificate, PEM. Written by `chancery node join` and by each renewal; watched.
    pub certificate: FilePath,
    /// Its private key, PKCS#8 PEM, mode 0600. Who holds it is this node until it is revoked.
    pub key: FilePath,
    /// The node CA's certificate, PEM: what this node trusts in others.
    pub authority: FilePath,
}

impl NodeSection {
    /// The files, as `rpc` takes them.
    pub fn files(&self) -> NodeFiles {
        NodeFiles {
            certificate: self.certificate.to_path_buf(),
            key: self.key.to_path_buf(),
            authority: self.authority.to_path_buf(),
        }
    }

    /// Loads the identity.
    ///
    /// # Errors
    /// As [`NodeCredentials::load`].
    pub fn load(&self) -> Result<std::sync::Arc<NodeCredentials>, rpc::CredentialsError> {
        NodeCredentials::load(self.files())
    }
}

/// `[log]`: what is written to stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `"text"` (default) or `"json"`, one object a line.
    pub format: LogFormat,
    /// What is said: a level, or `tracing` directives (`"info,rpc=debug"`). Default `"info"`. Reloaded on SIGHUP.
    pub filter: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info".to_owned() }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// `[health]`: a plain HTTP port with `/health/live`, `/health/ready` and `/metrics`. It shows no secret and changes
/// nothing, but it is not for the public.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSection {
    /// Where.
    pub listen: Listen,
}

/// Where a role's database is: what `[database]` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database<'a> {
    /// A SQLite file of this host.
    Sqlite(&'a FilePath),
    /// A PostgreSQL server.
    Postgres {
        /// Its URL, without a password.
        url: &'a str,
        /// The file with the password.
        password_file: Option<&'a FilePath>,
    },
}

impl<'a> Database<'a> {
    /// Chooses: exactly one of `sqlite` and `postgres` is given.
    ///
    /// # Errors
    /// When none is, or both; when the URL is none, or holds a password; a password's file without a URL.
    pub fn choose(
        sqlite: Option<&'a FilePath>,
        postgres: Option<&'a str>,
        password_file: Option<&'a FilePath>,
    ) -> Result<Self, Invalid> {
        match (sqlite, postgres) {
            (Some(_), Some(_)) => {
                Err(Invalid::new("database", "give one of \"sqlite\" and \"postgres\", not both"))
            }
            (None, None) => {
                Err(Invalid::new("database", "give \"sqlite\" (a file) or \"postgres\" (a server's URL)"))
            }
            (Some(_), None) if password_file.is_some() => {
                Err(Invalid::new("database.postgres_password_file", "is for \"postgres\" alone"))
            }
            (Some(file), None) => Ok(Self::Sqlite(file)),
            (None, Some(url)) => {
                check_url(url)?;
                Ok(Self::Postgres { url, password_file })
            }
        }
    }
}

/// What can be said of the URL of a server without its client; the program that opens it says the rest.
fn check_url(url: &str) -> Result<(), Invalid> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        return Err(Invalid::new("database.postgres", "must begin with postgres://"));
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || rest.contains("password=") {
        let reason = "holds a password: put it into a file, and name that in postgres_password_file";
        return Err(Invalid::new("database.postgres", reason));
    }
    Ok(())
}

/// A configuration that is TOML, but makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Invalid {
    /// The key, dotted.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Invalid {
    /// What is wrong with which key.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something it may not.
    #[error("{}: {error}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column, and the line itself.
        error: Box<toml::de::Error>,
    },
    /// The parts do not fit together.
    #[error("{}: {invalid}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        invalid: Invalid,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(rename = "version")]
        _version: Version,
        #[serde(default)]
        log: LogSection,
        health: Option<HealthSection>,
        node: Option<NodeSection>,
        absolute: Option<FilePath>,
    }

    fn read(text: &str) -> Result<Config, ConfigError> {
        parse(text, Path::new("/etc/chancery/front.toml"))
    }

    fn complaint(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn one_database_is_chosen() {
        let file = FilePath::from(Path::new("/a"));
        let choose = |sqlite: bool, postgres, password: bool| {
            Database::choose(sqlite.then_some(&file), postgres, password.then_some(&file))
                .map_err(|invalid| invalid.to_string())
        };
        assert_eq!(choose(true, None, false), Ok(Database::Sqlite(&file)));
        let url = "postgres://signer@db.example/chancery";
        let server = Database::Postgres { url, password_file: Some(&file) };
        assert_eq!(choose(false, Some(url), true), Ok(server));
        for (sqlite, postgres, password, said) in [
            (false, None, false, "database: give \"sqlite\" (a file) or"),
            (true, Some(url), false, "not both"),
            (true, None, true, "database.postgres_password_file: is for"),
            (false, Some("mysql://a/b"), false, "database.postgres: must begin"),
            (false, Some("postgres://a:b@c/d"), false, "database.postgres: holds a password"),
            (false, Some("postgres://a@c/d?password=b"), false, "database.postgres: holds a password"),
        ] {
            let error = choose(sqlite, postgres, password).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_small_file_is_enough_and_paths_are_the_files_own() {
        let config = read(
            "version = 1\nabsolute = \"/srv/x\"\n[health]\nlisten = \"inherited:2\"\n[log]\nformat = \"json\"\n[node]\n\
             certificate = \"node.crt\"\nkey = \"../keys/node.key\"\nauthority = \"ca/node.crt\"",
        )
        .unwrap();
        assert_eq!(config.log, LogSection { format: LogFormat::Json, filter: "info".to_owned() });
        assert_eq!(config.health.unwrap().listen, Listen::Inherited(2));
        let node = config.node.unwrap();
        assert_eq!(&*node.certificate, Path::new("/etc/chancery/node.crt"));
        assert_eq!(&*node.key, Path::new("/etc/chancery/../keys/node.key"));
        assert_eq!(&*config.absolute.unwrap(), Path::new("/srv/x"));
        // Outside of a file, a path is what it says.
        assert_eq!(&*serde_json::from_str::<FilePath>("\"x\"").unwrap(), Path::new("x"));
    }

    #[test]
    fn a_mistake_is_shown_with_file_line_and_caret() {
        let text = complaint("version = 1\n[log]\nformat = \"xml\"\n");
        for part in ["/etc/chancery/front.toml", "line 3, column 10", "format = \"xml\"", "^^^^^", "json"] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn unknown_keys_and_other_versions_are_refused() {
        assert!(complaint("version = 1\nlissten = 3\n").contains("unknown field `lissten`"));
        assert!(complaint("version = 1\n[log]\nfilters = \"x\"\n").contains("unknown field `filters`"));
        // The version is what is wrong, not the key that came with it.
        let newer = complaint("version = 2\nnovelty = true\n");
        assert!(newer.contains("version 2 is not known") && newer.contains("line 1"), "{newer}");
        assert!(complaint("novelty = true\n").contains("missing field `version`"));
        assert!(complaint("version = 1\nabsolute = \"\"\n").contains("an empty path"));
        assert!(complaint("version = 1\n[health]\nlisten = \"nowhere\"\n").contains("neither an address"));
    }
}
