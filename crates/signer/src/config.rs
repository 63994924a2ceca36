//! The signer's configuration: `signer.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use hsm::{Origin, TokenConfig};
use runtime::config::{FilePath, HealthSection, Invalid, LogSection, NodeSection, RoleConfig, Version};
use runtime::{Database, Listen};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;

use crate::publish::PublishSection;
use crate::weak_keys::WeakKeys;

/// `signer.toml`. What a signer issues is not here but in the policy file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always 1.
    pub version: Version,
    /// Where fronts, status nodes and operators connect (mutual TLS).
    pub listen: Listen,
    /// Where nodes join (TLS that authenticates the server alone); absent: no node can join here.
    #[serde(default)]
    pub enrollment_listen: Option<Listen>,
    /// The policy file. Whoever may write it decides what this CA signs. Default `policy.toml`.
    #[serde(default = "default_policy")]
    pub policy: FilePath,
    /// Lists of keys that are refused because their private keys are known: `openssl-blacklist` text files, lines of SHA-256
    /// over SubjectPublicKeyInfo, or the `blocklist.dat` of badkeys, which has all of Debian's weak keys (CVE-2008-0166).
    /// Read at start, wholly into memory (`blocklist.dat`: some 60 MB). Whoever may write one can have keys refused, or weak
    /// ones not refused. Default none.
    #[serde(default)]
    pub weak_keys: Vec<FilePath>,
    /// Folder for PIN latches and the spool of CRLs being made. Losing it loses nothing but the latches: a refused PIN
    /// would be tried once more. Default `state`.
    #[serde(default = "default_state")]
    pub state: FilePath,
    /// This signer's identity among the nodes. Its key can ask other signers for nothing, and is a signer to fronts:
    /// whoever holds it can answer them falsely, but not sign.
    pub node: NodeSection,
    /// The `ca` database.
    pub database: DatabaseSection,
    /// Versions of the tier secret, shared by all signers and by nobody else. Whoever holds one can make order ids, EAB
    /// keys and database rows that signers believe. The highest version mints; the others are only accepted.
    pub tier_secret: Vec<TierSecretSection>,
    /// PKCS#11 tokens, each served by a worker process of its own.
    #[serde(default)]
    pub token: Vec<TokenSection>,
    /// The CA of the nodes' certificates; absent: this signer admits and renews no nodes.
    #[serde(default)]
    pub node_ca: Option<NodeCaSection>,
    /// Folders and buckets that get CRLs and issuer certificates too. Default none: status nodes ask for them.
    #[serde(default)]
    pub publish: Vec<PublishSection>,
    /// Bounds, none of which a healthy signer reaches.
    #[serde(default)]
    pub limits: Limits,
    /// What is written to stderr.
    #[serde(default)]
    pub log: LogSection,
    /// The health and metrics port; absent: none.
    #[serde(default)]
    pub health: Option<HealthSection>,
}

/// Where `ca` is. Whoever may write to it can lose or replay rows; rows that grant authority carry a MAC.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// A SQLite file, for one host with one signer. This or `postgres`.
    #[serde(default)]
    pub sqlite: Option<FilePath>,
    /// A PostgreSQL server, for any number of signers: `"postgres://USER@HOST/DATABASE?sslrootcert=FILE"`, without a
    /// password. USER is a member of the role `chancery_signer`.
    #[serde(default)]
    pub postgres: Option<String>,
    /// A file with USER's password, one line, readable by the signer alone. Default: none is sent, or libpq's places
    /// (`PGPASSFILE`) say.
    #[serde(default)]
    pub postgres_password_file: Option<FilePath>,
    /// Connections that read; one more writes. Default 4.
    #[serde(default = "default_readers")]
    pub readers: u32,
    /// Start on a PostgreSQL server whose settings may lose a commit that was acknowledged (`fsync`, `full_page_writes`,
    /// `synchronous_commit`, standbys that are not synchronous). A certificate may then be signed that no journal knows:
    /// it can neither be revoked nor answered for. Default false.
    #[serde(default)]
    pub accept_lost_commits: bool,
}

impl DatabaseSection {
    /// Where it is.
    ///
    /// # Errors
    /// When not exactly one place is given.
    pub fn place(&self) -> Result<Database<'_>, Invalid> {
        let password_file = self.postgres_password_file.as_ref();
        Database::choose(self.sqlite.as_ref(), self.postgres.as_deref(), password_file)
    }
}

/// A version of the tier secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSecretSection {
    /// Its number, from 1.
    pub version: u32,
    /// A file with the line `version:base64url of 32 random bytes`, readable by the signer alone.
    pub file: FilePath,
}

/// A PKCS#11 token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSection {
    /// The name by which issuers refer to it; unique.
    pub name: String,
    /// The token's label.
    pub label: String,
    /// The token's serial number, where several have one label.
    #[serde(default)]
    pub serial: Option<String>,
    /// The PKCS#11 module. Whoever may write it runs code where the PIN is.
    pub module: FilePath,
    /// A file with the user PIN, one line. Whoever reads it can sign with the token where he reaches it.
    pub pin_file: FilePath,
    /// Sessions of the worker. Default: one for each core.
    #[serde(default)]
    pub sessions: Option<u16>,
    /// Without an answer for so long the worker counts as hung: it is killed, and its jobs are given to the next one.
    /// Milliseconds, default 10 000.
    #[serde(default)]
    pub hang_timeout_milliseconds: Option<u64>,
    /// Longest pause before a worker is started again that keeps dying, or whose token is away. Milliseconds, default
    /// 30 000.
    #[serde(default)]
    pub respawn_max_milliseconds: Option<u64>,
    /// The worker's whole environment, for instance `SOFTHSM2_CONF`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Numeric user id of the worker, where it shall not be the signer's own.
    #[serde(default)]
    pub user: Option<u32>,
    /// Numeric group id of the worker.
    #[serde(default)]
    pub group: Option<u32>,
}

impl TokenSection {
    /// The token as [`hsm`] takes it, with its latch in the state folder.
    #[must_use]
    pub fn to_token_config(&self, state: &Path) -> TokenConfig {
        let latch = state.join(format!("{}.pin-latch", self.name));
        let mut token = TokenConfig::new(&*self.module, self.label.as_str(), &*self.pin_file, latch);
        token.serial.clone_from(&self.serial);
        token.environment.clone_from(&self.environment);
        token.user = self.user;
        token.group = self.group;
        token.sessions = self.sessions;
        if let Some(milliseconds) = self.hang_timeout_milliseconds {
            token.hang_timeout = Duration::from_millis(milliseconds);
        }
        if let Some(milliseconds) = self.respawn_max_milliseconds {
            token.respawn_max = Duration::from_millis(milliseconds);
        }
        token
    }
}

/// The CA of the nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeCaSection {
    /// Its certificate, PEM.
    pub certificate: FilePath,
    /// Name of the `[[token]]` that has its key.
    pub token: String,
    /// `CKA_ID` of the key, hexadecimal.
    pub key_id: String,
    /// How the key came into the token: `generated` there (default), or `cloned` on the operator's word.
    #[serde(default = "generated")]
    pub origin: Origin,
}

/// Bounds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Finalizations in progress; more are told to come back. Default 4096.
    pub issuances_in_flight: usize,
    /// Orders whose newOrder signature is remembered as good until they are finalized, some 200 bytes each. Default 65 536.
    pub remembered_orders: u64,
    /// Accounts kept in memory. Default 100 000.
    pub cached_accounts: u64,
    /// How long an account is kept in memory, and so how long another signer's change of it may be unknown here for
    /// what is not written. Seconds, default 10.
    pub cached_account_seconds: u64,
    /// How long a call of Issue waits for the certificate before it answers "processing". Milliseconds, default 1500.
    pub issue_wait_milliseconds: u64,
    /// How long an intent is one signer's own before another may sign it. Seconds by the database's clock, default 30.
    pub lease_seconds: u64,
    /// How long a token may take for one signature, waiting included. Seconds, default 20.
    pub signature_seconds: u64,
    /// OCSP answers being made; status nodes' further questions get "try later" at once. Default 1024.
    pub ocsp_in_flight: usize,
    /// How many of them may be made ahead, for nobody who waits. Default 128.
    pub ocsp_ahead_in_flight: usize,
    /// How many of them may be about serials that were never assigned: whoever guesses serials gets no more of the token, and
    /// such answers are not kept. Default 128.
    pub ocsp_unassigned_in_flight: usize,
    /// How long a token may take for the signature of an OCSP answer, waiting included. Seconds, default 5.
    pub ocsp_signature_seconds: u64,
    /// How far clocks of this cluster may differ, databases' and validators' included. Seconds, default 60.
    pub clock_skew_seconds: u64,
    /// The health port's notice of a root's CRL goes down, with an alarm, when it has less than so many hundredths of its
    /// time left. Default 20, at most 99.
    pub crl_alarm_percent: u8,
    /// How long a stopping signer waits for what is in flight. Seconds, default 30.
    pub drain_seconds: u64,
    /// Certificates that an operator's revocation looks at, and revokes at most twice as many of (others with the same keys), in
    /// one call and one commit. Other writes wait for it. 1 to 1000, default 250.
    pub revocation_page: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            issuances_in_flight: 4096,
            remembered_orders: 65_536,
            cached_accounts: 100_000,
            cached_account_seconds: 10,
            issue_wait_milliseconds: 1500,
            lease_seconds: 30,
            signature_seconds: 20,
            ocsp_in_flight: 1024,
            ocsp_ahead_in_flight: 128,
            ocsp_unassigned_in_flight: 128,
            ocsp_signature_seconds: 5,
            clock_skew_seconds: 60,
            crl_alarm_percent: 20,
            drain_seconds: 30,
            revocation_page: 250,
        }
    }
}

impl Limits {
    /// [`Limits::issue_wait_milliseconds`].
    #[must_use]
    pub const fn issue_wait(&self) -> Duration {
        Duration::from_millis(self.issue_wait_milliseconds)
    }

    /// [`Limits::lease_seconds`].
    #[must_use]
    pub const fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// [`Limits::signature_seconds`].
    #[must_use]
    pub const fn signature(&self) -> Duration {
        Duration::from_secs(self.signature_seconds)
    }

    /// [`Limits::ocsp_signature_seconds`].
    #[must_use]
    pub const fn ocsp_signature(&self) -> Duration {
        Duration::from_secs(self.ocsp_signature_seconds)
    }

    /// [`Limits::clock_skew_seconds`].
    #[must_use]
    pub const fn clock_skew(&self) -> Duration {
        Duration::from_secs(self.clock_skew_seconds)
    }

    fn check(&self) -> Result<(), Invalid> {
        let positive = [
            ("limits.issuances_in_flight", self.issuances_in_flight as u64),
            ("limits.issue_wait_milliseconds", self.issue_wait_milliseconds),
            ("limits.lease_seconds", self.lease_seconds),
            ("limits.signature_seconds", self.signature_seconds),
            ("limits.clock_skew_seconds", self.clock_skew_seconds),
            ("limits.ocsp_in_flight", self.ocsp_in_flight as u64),
            ("limits.ocsp_ahead_in_flight", self.ocsp_ahead_in_flight as u64),
            ("limits.ocsp_unassigned_in_flight", self.ocsp_unassigned_in_flight as u64),
            ("limits.ocsp_signature_seconds", self.ocsp_signature_seconds),
        ];
        if self.crl_alarm_percent > 99 {
            return Err(Invalid::new("limits.crl_alarm_percent", "must be at most 99"));
        }
        let shares = [
            ("limits.ocsp_ahead_in_flight", self.ocsp_ahead_in_flight),
            ("limits.ocsp_unassigned_in_flight", self.ocsp_unassigned_in_flight),
        ];
        if let Some((key, _)) = shares.into_iter().find(|(_, share)| *share >= self.ocsp_in_flight) {
            return Err(Invalid::new(key, "must be less than limits.ocsp_in_flight"));
        }
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Invalid::new(key, "must be more than zero")),
            None if !(1..=1000).contains(&self.revocation_page) => {
                Err(Invalid::new("limits.revocation_page", "must be 1 to 1000"))
            }
            None => Ok(()),
        }
    }
}

impl RoleConfig for Config {
    fn log(&self) -> &LogSection {
        &self.log
    }

    fn health(&self) -> Option<&HealthSection> {
        self.health.as_ref()
    }

    fn drain(&self) -> Duration {
        Duration::from_secs(self.limits.drain_seconds)
    }

    fn check(&self) -> Result<(), Invalid> {
        let tokens = self.check_itself()?;
        WeakKeys::load(&self.weak_keys).map_err(|error| Invalid::new("weak_keys", error.to_string()))?;
        crate::registry::check_policy(&self.policy, &tokens)
    }
}

impl Config {
    /// What this file says, without those that it names. Answers with the tokens' names.
    fn check_itself(&self) -> Result<BTreeSet<&str>, Invalid> {
        self.limits.check()?;
        self.database.place()?;
        crate::publish::check(&self.publish)?;
        let mut tokens = BTreeSet::new();
        for token in &self.token {
            let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
            if token.name.is_empty() || !token.name.bytes().all(plain) {
                return Err(Invalid::new("token.name", "must be letters, digits, \"-\" and \"_\""));
            }
            if !tokens.insert(token.name.as_str()) {
                return Err(Invalid::new("token.name", format!("{:?} is declared twice", token.name)));
            }
        }
        let mut versions = BTreeSet::new();
        for secret in &self.tier_secret {
            if secret.version == 0 || !versions.insert(secret.version) {
                return Err(Invalid::new("tier_secret.version", "must be from 1 on, each once"));
            }
        }
        if versions.is_empty() {
            return Err(Invalid::new("tier_secret", "there must be at least one"));
        }
        if let Some(node_ca) = &self.node_ca {
            if !tokens.contains(node_ca.token.as_str()) {
                return Err(Invalid::new("node_ca.token", format!("{:?} is not declared", node_ca.token)));
            }
            if hex::decode(&node_ca.key_id).map_or(true, |id| id.is_empty()) {
                return Err(Invalid::new("node_ca.key_id", "must be hexadecimal"));
            }
        }
        Ok(tokens)
    }
}

fn default_policy() -> FilePath {
    beside_the_file("policy.toml")
}

fn default_state() -> FilePath {
    beside_the_file("state")
}

/// A default that is as relative to the configuration's folder as what is written there: read the same way.
fn beside_the_file(path: &'static str) -> FilePath {
    let text: StrDeserializer<'static, serde::de::value::Error> = path.into_deserializer();
    FilePath::deserialize(text).unwrap_or_else(|_| Path::new(path).into())
}

fn default_readers() -> u32 {
    4
}

fn generated() -> Origin {
    Origin::Generated
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        version = 1
        listen = "127.0.0.1:14000"
        [node]
        certificate = "node.pem"
        key = "node.key"
        authority = "node-ca.pem"
        [database]
        sqlite = "ca.db"
        [[tier_secret]]
        version = 1
        file = "tier-secret"
        [[token]]
        name = "main"
        label = "Main"
        module = "/usr/lib/softhsm/libsofthsm2.so"
        pin_file = "pin"
        [node_ca]
        certificate = "node-ca.pem"
        token = "main"
        key_id = "21"
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        runtime::config::parse::<Config>(text, Path::new("/etc/chancery/signer.toml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_beside_the_file() {
        let config = parse(CONFIG).unwrap();
        assert_eq!(config.policy, Path::new("/etc/chancery/policy.toml").into());
        assert_eq!(config.state, Path::new("/etc/chancery/state").into());
        assert_eq!(config.check_itself().unwrap(), BTreeSet::from(["main"]));
        let token = config.token[0].to_token_config(&config.state);
        assert_eq!(token.latch_file, Path::new("/etc/chancery/state/main.pin-latch"));
        assert_eq!(token.pin_file, Path::new("/etc/chancery/pin"));
    }

    #[test]
    fn lists_of_weak_keys_are_read_by_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let check = |content: Option<&[u8]>| {
            let path = folder.path().join("list");
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let text = CONFIG.replace(
                "version = 1\n        listen",
                &format!("version = 1\n        weak_keys = [{path:?}]\n        listen"),
            );
            parse(&text).unwrap().check().unwrap_err().to_string()
        };
        assert!(check(None).contains("cannot be read"));
        assert!(check(Some(b"no digest\n")).contains("line 1 is neither"));
        // Nothing is said of a good one: the next thing that is wrong is the policy, which is not there.
        assert!(check(Some(b"00005890bc78bcbee3ca\n")).contains("policy"));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let second = "[[token]]\nname = \"main\"\nlabel = \"x\"\nmodule = \"m\"\npin_file = \"p\"\n";
        let cases = [
            (CONFIG.replace("version = 1\n        file", "version = 0\n        file"), "tier_secret.version"),
            (CONFIG.replace("token = \"main\"", "token = \"other\""), "node_ca.token"),
            (CONFIG.replace("key_id = \"21\"", "key_id = \"xyz\""), "node_ca.key_id"),
            (CONFIG.replace("name = \"main\"", "name = \"../main\""), "token.name"),
            (format!("{CONFIG}\n{second}"), "declared twice"),
            (format!("{CONFIG}\n[limits]\nlease_seconds = 0\n"), "limits.lease_seconds"),
            (format!("{CONFIG}\n[limits]\nocsp_in_flight = 128\n"), "limits.ocsp_ahead_in_flight"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).unwrap().check_itself().unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        assert!(parse(&format!("{CONFIG}\n[limits]\nleases = 1\n")).unwrap_err().contains("leases"));
        assert!(parse(&CONFIG.replace("label = \"Main\"", "label = \"Main\"\npin = \"1\"")).is_err());
    }
}
