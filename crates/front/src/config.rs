//! `front.toml`: every key, its default and its unit.

use std::time::Duration;

use acme::directory::DirectoryName;
use acme::resource::{BaseUrl, Resource};
use ipnet::IpNet;
use pki::Name;
use rpc::NodeName;
use runtime::{
    Database, FilePath, HealthSection, Invalid, Listen, LogSection, NodeSection, RoleConfig, Version,
};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;

use crate::faults::Faults;

/// The front's configuration file.
///
/// What a holder of each file or database can do is said beside it. Nothing here lets anyone issue a certificate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file's format: 1.
    pub version: Version,
    /// Where clients connect (HTTPS): `"0.0.0.0:443"`, or `"inherited:0"`.
    pub listen: Listen,
    /// The URLs under which clients know this service, without a path and without a trailing slash:
    /// `"https://acme.example.org"`. The first is canonical. A signed request must name one of them (RFC 8555 §6.4),
    /// whatever a proxy in between calls this host.
    pub base_urls: Vec<BaseUrl>,
    /// A folder for what the front keeps itself: the HTTPS key and certificate of mode `self`. Default `"state"`.
    /// Its holder can impersonate this service to clients, as with any HTTPS key.
    #[serde(default = "default_state")]
    pub state: FilePath,
    /// The key under which the fronts of one service seal their nonces: a file of 32 random bytes in base64url
    /// (43 characters), the same at every front, readable by the front alone.
    /// Its holder can make nonces that look fresh, so that a captured request could be replayed to this front; terminal
    /// operations are idempotent and the signer remembers accepted updates, so nothing is issued or changed twice.
    pub nonce_key: FilePath,
    /// The identity towards signers, validators and other fronts (mTLS).
    /// Its holder can do what a front can: pass on what clients signed, and withhold.
    pub node: NodeSection,
    /// The signers. They decide what is issued.
    pub signer: PeersSection,
    /// The primary validators. A validator can lie about what it alone vouches for.
    pub validator: PeersSection,
    /// Orders and authorizations. A holder of this database can delete or show stale orders; it cannot issue: the signer
    /// believes none of it that is not signed.
    pub database: DatabaseSection,
    /// The HTTPS certificate.
    #[serde(default)]
    pub https: HttpsSection,
    /// The other fronts of this service, asked about nonces that they made.
    #[serde(default, rename = "peer")]
    pub peers: Vec<PeerSection>,
    /// Where other fronts ask about nonces (gRPC, mTLS, role `front` only). Default: nobody asks.
    #[serde(default)]
    pub peer_listen: Option<Listen>,
    /// Networks of proxies, e.g. `["192.0.2.0/24"]`. The limits for each address do not hold for them, but for the client that
    /// they name in X-Forwarded-For, which is believed from them alone; a trusted proxy that names nobody is not limited.
    /// Empty by default.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// Further paths at which the objects of directories can be read, for clients that are configured with another server's.
    /// Empty by default.
    #[serde(default, rename = "directory_alias")]
    pub directory_aliases: Vec<AliasSection>,
    /// A file that says how this front is to fail, for those who test ACME clients with it: every key is documented in
    /// `crates/front/src/faults.rs`. Read again when it changes and on SIGHUP. Its holder can withhold, as whoever holds the
    /// front can, and no more. Default: none, and nothing fails on purpose.
    #[serde(default)]
    pub faults: Option<FilePath>,
    /// How validation is tried.
    #[serde(default)]
    pub validation: ValidationSection,
    /// Bounds.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Logs.
    #[serde(default)]
    pub log: LogSection,
    /// Health and metrics.
    /// Default: no such port.
    #[serde(default)]
    pub health: Option<HealthSection>,
    /// Seconds for what is under way when the front is told to stop. Default 30.
    #[serde(default = "default_drain")]
    pub drain_seconds: u64,
}

/// The addresses of one kind of peer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeersSection {
    /// `"host:port"` each; the first that answers is used.
    pub addresses: Vec<String>,
}

/// Where orders are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// An SQLite file. For one host. This or `postgres`.
    #[serde(default)]
    pub sqlite: Option<FilePath>,
    /// A PostgreSQL server, for any number of fronts: `"postgres://USER@HOST/DATABASE?sslrootcert=FILE"`, without a
    /// password. USER is a member of the role `chancery_front`.
    #[serde(default)]
    pub postgres: Option<String>,
    /// A file with USER's password, one line, readable by the front alone. Default: none is sent, or libpq's places
    /// (`PGPASSFILE`) say.
    #[serde(default)]
    pub postgres_password_file: Option<FilePath>,
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

/// Where the HTTPS certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, tag = "mode", rename_all = "lowercase")]
pub enum HttpsSection {
    /// Issued by the signer from its internal profile, renewed by itself. Clients trust it by the root of the pool that
    /// the signer's policy names for it.
    #[serde(rename = "self")]
    OwnIssue {
        /// DNS names and addresses that the certificate is for. The signer allows those that the node's join token held.
        /// Default: the hosts of `base_urls`.
        #[serde(default)]
        names: Vec<Name>,
    },
    /// A pair of files, read again when they change.
    Files {
        /// The certificate with its chain, PEM, leaf first.
        certificate: FilePath,
        /// Its private key, PEM (PKCS#8, SEC 1 or PKCS#1).
        key: FilePath,
    },
}

/// A further path of a directory's object. It is for GET alone: the URLs in the object are the directory's own, and what a
/// client signs names those.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasSection {
    /// The whole path as clients ask for it, `"/dir"`.
    pub path: String,
    /// The directory's name.
    pub directory: DirectoryName,
}

/// Another front.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSection {
    /// Its node name.
    pub id: NodeName,
    /// Its `peer_listen`, `"host:port"` each.
    pub addresses: Vec<String>,
}

/// How validation is tried. One POST of a client to a challenge leads to several tries, because a client often posts a
/// moment before its own web server or all servers of its zone have caught up. Whatever can change by itself is tried again:
/// a target that cannot be reached, a name that does not exist yet, a TXT record that is not there or an older one. A wrong
/// answer of a web server is not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationSection {
    /// Milliseconds between the first try and the second, the second and the third, and so on: one try more than there are
    /// numbers here; empty: one try. Between two tries the challenge is `processing` with the `error` of the last one, and
    /// `Retry-After` says when the next one comes. Default `[2000, 5000, 10000, 20000, 30000]`, together little more than a
    /// minute: most zones' servers agree by then, and common clients wait for 90 seconds. `[5000, 10000, 20000, 30000, 60000,
    /// 60000, 60000]` is for slow DNS and patient clients.
    pub retry_milliseconds: Vec<u64>,
    /// Milliseconds that the answer to a client which asks for a validation waits for the outcome: most are there at once, and
    /// spare a write and the client's next look. 0: never. Default 50.
    pub answer_wait_milliseconds: u64,
    /// Seconds that one try may take, all perspectives together. Longer than a validator takes, which is 12 by
    /// default; a try that a dead front began is begun again a little later. A new look at CAA alone, before a certificate,
    /// has as long. Default 15.
    pub attempt_seconds: u64,
    /// Looks of one account's that the validators are asked for at once, CAA included; more wait for their turn, and cost the
    /// client no try. A validator refuses whatever goes beyond its own `limits.at_once`, whose it may be. Default 32.
    pub looks_per_account: usize,
    /// Seconds after finalize in which perspectives that are silent about CAA are asked again. Then the finalize is refused with
    /// `caa`, and the client may send it again: no order waits for ever. Default 300.
    pub caa_seconds: u64,
}

impl Default for ValidationSection {
    fn default() -> Self {
        Self {
            retry_milliseconds: vec![2_000, 5_000, 10_000, 20_000, 30_000],
            answer_wait_milliseconds: 50,
            attempt_seconds: 15,
            looks_per_account: 32,
            caa_seconds: 300,
        }
    }
}

/// Bounds on what clients may take up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Connections at once; further ones wait in the kernel's backlog. Default 10000.
    pub connections: usize,
    /// Connections at once from one IPv4 address or one IPv6 /64; further ones are closed. Not for `trusted_proxies`. Default 256.
    pub connections_per_peer: usize,
    /// New connections a second from one IPv4 address or one IPv6 /64; further ones are closed before a handshake is worked
    /// on. Not for `trusted_proxies`. Default 50.
    pub handshakes_per_second: u32,
    /// As many at once after a silence. Default 250.
    pub handshake_burst: u32,
    /// Work a second for one client: an IPv4 address or one IPv6 /64, which a trusted proxy may name. A request costs 1; one
    /// that has things written or signed (newAccount, newOrder, newAuthz, challenge, finalize, revokeCert, keyChange) 10, so
    /// that a certificate costs some 35. Beyond it: `rateLimited`, with `Retry-After`. Default 200, some six certificates.
    pub work_per_second: u32,
    /// As much at once after a silence. Default 2000, some sixty certificates.
    pub work_burst: u32,
    /// Requests that are worked on at once; further ones are answered 503 with Retry-After. Default 1000.
    pub requests: usize,
    /// Bodies that are read at once, before their requests count as worked on; `bodies` times `body_bytes` is the memory that
    /// they can take. Default 10000.
    pub bodies: usize,
    /// Streams of one HTTP/2 connection at once. Default 100.
    pub streams_per_connection: u32,
    /// Seconds for a TLS handshake. Default 10.
    pub handshake_seconds: u64,
    /// Seconds until a request's header is there, and so the longest that a connection idles. Default 30.
    pub header_seconds: u64,
    /// Seconds until a request's body is there. Default 15.
    pub body_seconds: u64,
    /// Seconds after which a connection is closed when its requests are answered. Default 3600.
    pub connection_age_seconds: u64,
    /// Bytes of a request's body. A newOrder of 100 long names takes some 40 000. Default 65536.
    pub body_bytes: usize,
    /// Seconds that a request may take before it is answered 503. Default 20.
    pub request_seconds: u64,
    /// Milliseconds that finalize waits for the certificate before it answers `processing`. Default 1500.
    pub finalize_wait_milliseconds: u64,
    /// Milliseconds that a look at an authorization or order waits for a validation which this front is making, so that the
    /// client need not look again; not while more than half of `requests` are worked on. 0: never. Default 500.
    pub poll_wait_milliseconds: u64,
    /// Seconds for which an order in `processing` is one front's own: how long a dead front delays an order. Two thirds of it
    /// are one call of a signer's. Default 15.
    pub processing_lease_seconds: u64,
    /// Pending authorizations of one account. Default 1000.
    pub pending_authorizations_per_account: u64,
    /// Nonces that stay redeemable; older ones are `badNonce`. Takes a quarter of a byte each. Default 1048576.
    pub nonce_window: u32,
    /// Accounts whose keys, and for a minute the limits, are kept in memory. Default 100000.
    pub cached_accounts: u64,
    /// Orders, authorizations and certificates, of each kind, that are kept in memory for a minute after they were written;
    /// some 3 kB each (longer ones count for several). Orders and authorizations only where no `[[peer]]` is configured: where several
    /// fronts share a database, each names the others, or sets 0, or it shows for a minute what another has changed.
    /// 0: none. Default 4096.
    pub cached_rows: u64,
    /// Answers about renewal (RFC 9773) that are kept in memory, some 300 octets each, and for five seconds as many ids of no
    /// certificate. 0: none. Default 20 000.
    pub cached_renewal_infos: u64,
    /// How long such an answer is kept, and so how late one that changes is shown; clients ask every few hours. Seconds, default 60.
    pub renewal_info_seconds: u64,
    /// Orders listed on one page. Default 100.
    pub orders_per_page: u32,
    /// Days that finished orders and authorizations are kept beyond their expiry. Default 7.
    pub retention_days: u32,
}

impl LimitsSection {
    /// [`LimitsSection::processing_lease_seconds`].
    pub(crate) const fn processing_lease(&self) -> Duration {
        Duration::from_secs(self.processing_lease_seconds)
    }

    /// One call of a signer's Issue; the order's lease is longer.
    pub(crate) const fn issue_deadline(&self) -> Duration {
        Duration::from_millis(self.processing_lease_seconds.saturating_mul(2_000) / 3)
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_peer: 256,
            handshakes_per_second: 50,
            handshake_burst: 250,
            work_per_second: 200,
            work_burst: 2_000,
            requests: 1_000,
            bodies: 10_000,
            streams_per_connection: 100,
            handshake_seconds: 10,
            header_seconds: 30,
            body_seconds: 15,
            connection_age_seconds: 3_600,
            body_bytes: 64 * 1024,
            request_seconds: 20,
            finalize_wait_milliseconds: 1_500,
            poll_wait_milliseconds: 500,
            processing_lease_seconds: 15,
            pending_authorizations_per_account: 1_000,
            nonce_window: 1 << 20,
            cached_accounts: 100_000,
            cached_rows: 4_096,
            cached_renewal_infos: 20_000,
            renewal_info_seconds: 60,
            orders_per_page: 100,
            retention_days: 7,
        }
    }
}

impl Default for HttpsSection {
    fn default() -> Self {
        Self::OwnIssue { names: Vec::new() }
    }
}

fn default_state() -> FilePath {
    // Read like any other path, so that it too is relative to the file's folder.
    let text: StrDeserializer<'_, serde::de::value::Error> = "state".into_deserializer();
    FilePath::deserialize(text).unwrap_or_else(|_| std::path::Path::new("state").into())
}

/// A mistyped schedule must not keep a challenge open for days.
const MAXIMUM_RETRIES: usize = 100;
const MAXIMUM_PAUSE_MILLISECONDS: u64 = 3_600_000;

const fn default_drain() -> u64 {
    30
}

impl RoleConfig for Config {
    fn log(&self) -> &LogSection {
        &self.log
    }

    fn health(&self) -> Option<&HealthSection> {
        self.health.as_ref()
    }

    fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    fn check(&self) -> Result<(), Invalid> {
        self.database.place()?;
        if self.base_urls.is_empty() {
            return Err(Invalid::new("base_urls", "at least one is needed"));
        }
        for (key, peers) in [("signer.addresses", &self.signer), ("validator.addresses", &self.validator)] {
            if peers.addresses.is_empty() {
                return Err(Invalid::new(key, "at least one is needed"));
            }
        }
        self.check_aliases()?;
        if let Some(file) = &self.faults {
            Faults::read(file, &self.limits)?;
        }
        let limits = &self.limits;
        for (key, value) in [
            ("limits.connections", limits.connections),
            ("limits.connections_per_peer", limits.connections_per_peer),
            ("limits.handshakes_per_second", limits.handshakes_per_second as usize),
            ("limits.handshake_burst", limits.handshake_burst as usize),
            ("limits.work_per_second", limits.work_per_second as usize),
            ("limits.work_burst", limits.work_burst as usize),
            ("limits.requests", limits.requests),
            ("limits.bodies", limits.bodies),
            ("limits.body_bytes", limits.body_bytes),
            ("limits.nonce_window", limits.nonce_window as usize),
            ("limits.orders_per_page", limits.orders_per_page as usize),
            ("limits.processing_lease_seconds", limits.processing_lease_seconds as usize),
            ("validation.attempt_seconds", self.validation.attempt_seconds as usize),
            ("validation.looks_per_account", self.validation.looks_per_account),
        ] {
            if value == 0 {
                return Err(Invalid::new(key, "must not be 0"));
            }
        }
        let pauses = &self.validation.retry_milliseconds;
        if pauses.len() > MAXIMUM_RETRIES || pauses.iter().any(|pause| *pause > MAXIMUM_PAUSE_MILLISECONDS) {
            let detail = "at most 100 pauses, none of more than an hour";
            return Err(Invalid::new("validation.retry_milliseconds", detail));
        }
        if limits.body_bytes > acme::jws::MAX_JWS_BYTES {
            return Err(Invalid::new("limits.body_bytes", format!("at most {}", acme::jws::MAX_JWS_BYTES)));
        }
        for (key, milliseconds) in [
            ("limits.finalize_wait_milliseconds", limits.finalize_wait_milliseconds),
            ("limits.poll_wait_milliseconds", limits.poll_wait_milliseconds),
            ("validation.answer_wait_milliseconds", self.validation.answer_wait_milliseconds),
        ] {
            if milliseconds >= limits.request_seconds.saturating_mul(1_000) {
                return Err(Invalid::new(key, "must be less than limits.request_seconds"));
            }
        }
        Ok(())
    }
}

impl Config {
    /// An alias must not hide a resource, nor another alias.
    fn check_aliases(&self) -> Result<(), Invalid> {
        let wrong = |detail: String| Err(Invalid::new("directory_alias.path", detail));
        for (at, alias) in self.directory_aliases.iter().enumerate() {
            let path = alias.path.as_str();
            let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~/".contains(&octet);
            if !path.starts_with('/') || path.len() < 2 || !path.bytes().all(plain) {
                return wrong(format!(
                    "{path:?} is no path: a slash, then letters, digits, slashes and -._~"
                ));
            }
            let own = Resource::parse_path(path).is_ok() || path.starts_with(ACME_PREFIX);
            if own {
                return wrong(format!("{path:?} lies where directories have their own URLs"));
            }
            if self.directory_aliases.iter().take(at).any(|other| other.path == alias.path) {
                return wrong(format!("{path:?} is there twice"));
            }
        }
        Ok(())
    }
}

/// Below it are the URLs that [`acme::resource`] knows.
const ACME_PREFIX: &str = "/acme/";
