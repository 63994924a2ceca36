//! The configuration of the role: this type is its manual.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use rpc::NodeName;
use runtime::{FilePath, HealthSection, Invalid, Listen, LogSection, NodeSection, RoleConfig, Version};
use serde::Deserialize;

use crate::address::AddressConfig;
use crate::dns_01::DnsSettings;
use crate::http_01::Http01Settings;
use crate::resolver::ResolverSection;
use crate::tls_alpn_01::TlsAlpn01Settings;

/// A validator's configuration file.
///
/// A validator looks at the outside world for the CA. Who takes it over can lie about validations that it alone vouches for;
/// a quorum over several perspectives takes even that away.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always 1.
    pub version: Version,
    /// Where fronts (and, of a remote perspective, its primary) ask, mutual TLS, e.g. `"10.0.0.5:14200"`.
    pub listen: Listen,
    /// This node's identity, role `validator`. Its name is the name of the perspective.
    pub node: NodeSection,
    /// The receipt key: 64 hexadecimal digits, mode 0600, made by `chancery node join`. Who holds it can sign receipts in this
    /// perspective's name.
    pub receipt_key: FilePath,
    /// The signers' addresses, `host:port`, for the renewal of the node's certificate.
    pub signers: Vec<String>,
    /// Where names are looked up: `"system"` (the default: those of /etc/resolv.conf, without its search list),
    /// `"127.0.0.1:53"`, or a list of such addresses; or a table with these as `servers`, and `dnssec`. Should be a validating
    /// resolver on this host: what it finds bogus fails the validation. Who holds it decides where validations go.
    #[serde(default)]
    pub resolver: ResolverSection,
    /// Whether this node looks at nothing and signs that it assumes every challenge to be answered: for tests of ACME clients.
    /// Signers count such receipts in directories alone whose policy says `always_valid`, and issue by them under test CAs
    /// alone; a node that serves other directories must not have it. Default false.
    #[serde(default)]
    pub always_valid: bool,
    /// `[http_01]`
    #[serde(default)]
    pub http_01: Http01Section,
    /// `[tls_alpn_01]`
    #[serde(default)]
    pub tls_alpn_01: TlsAlpn01Section,
    /// `[dns]`
    #[serde(default)]
    pub dns: DnsSection,
    /// `[addresses]`: what may be contacted. The public Internet by default.
    #[serde(default)]
    pub addresses: AddressConfig,
    /// `[limits]`
    #[serde(default)]
    pub limits: LimitsSection,
    /// `[[remotes]]`: the other perspectives, when this node is a primary. None by default: it is alone.
    #[serde(default)]
    pub remotes: Vec<RemoteSection>,
    /// `[log]`
    #[serde(default)]
    pub log: LogSection,
    /// `[health]`; no health port when it is missing.
    pub health: Option<HealthSection>,
    /// How long a drain on SIGTERM may take, seconds. Default 15: longer than an attempt.
    #[serde(default = "default_drain")]
    pub drain_seconds: u64,
}

fn default_drain() -> u64 {
    15
}

/// `[http_01]` (RFC 8555 §8.3)
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http01Section {
    /// The port of the first request. Default 80; another one only in tests and closed networks.
    pub port: NonZeroU16,
    /// The ports that redirects may lead to, beside `port`. Default 80 and 443.
    pub redirect_ports: Vec<NonZeroU16>,
    /// Redirects followed. Default 10.
    pub redirects: usize,
    /// Bytes of an answer's body. Default 1,024: a key authorization has 87.
    pub body_bytes: NonZeroUsize,
    /// Bytes of an answer's header, about. Default 65,536, at least 8,192.
    pub header_bytes: NonZeroUsize,
}

impl Default for Http01Section {
    fn default() -> Self {
        Self {
            port: nonzero_port(80),
            redirect_ports: vec![nonzero_port(80), nonzero_port(443)],
            redirects: 10,
            body_bytes: NonZeroUsize::MIN.saturating_add(1023),
            header_bytes: NonZeroUsize::MIN.saturating_add(65_535),
        }
    }
}

/// `[tls_alpn_01]` (RFC 8737)
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsAlpn01Section {
    /// The port. Default 443; another one only in tests and closed networks.
    pub port: NonZeroU16,
}

impl Default for TlsAlpn01Section {
    fn default() -> Self {
        Self { port: nonzero_port(443) }
    }
}

/// `[dns]`: the methods that look for TXT records (RFC 8555 §8.4).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsSection {
    /// TXT records of one name that are looked at; more of them fail the validation. Default 100.
    pub records: NonZeroUsize,
}

impl Default for DnsSection {
    fn default() -> Self {
        Self { records: NonZeroUsize::MIN.saturating_add(99) }
    }
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Attempts at once. More are refused at once; the front asks again. The last quarter is kept for accounts that have less
    /// than two under way. Default 512.
    pub at_once: NonZeroUsize,
    /// Attempts at once for one name. Default 4.
    pub per_identifier: NonZeroUsize,
    /// Connections at once to one address, of each method; more wait for their turn. Default 32.
    pub per_address: NonZeroUsize,
    /// Seconds for one TCP connection. Default 4.
    pub connect_seconds: NonZeroU32,
    /// Seconds for a whole attempt, redirects and look-ups included. Default 10.
    pub attempt_seconds: NonZeroU32,
    /// Seconds for one try of one query; a query is tried twice. Default 2.
    pub query_seconds: NonZeroU32,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            at_once: NonZeroUsize::MIN.saturating_add(511),
            per_identifier: NonZeroUsize::MIN.saturating_add(3),
            per_address: NonZeroUsize::MIN.saturating_add(31),
            connect_seconds: seconds(4),
            attempt_seconds: seconds(10),
            query_seconds: seconds(2),
        }
    }
}

/// One of `[[remotes]]`. A remote sees what is validated; its receipt counts in the quorum.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteSection {
    /// Its node name.
    pub name: NodeName,
    /// Its addresses, `host:port`, tried in turn.
    pub addresses: Vec<String>,
}

const fn nonzero_port(port: u16) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(port - 1)
}

const fn seconds(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number - 1)
}

impl Config {
    pub(crate) fn http_01_settings(&self) -> Http01Settings {
        Http01Settings {
            port: self.http_01.port.get(),
            redirect_ports: self.http_01.redirect_ports.iter().map(|port| port.get()).collect(),
            redirects: self.http_01.redirects,
            connect_timeout: Duration::from_secs(self.limits.connect_seconds.get().into()),
            total_timeout: self.attempt(),
            body_bytes: self.http_01.body_bytes.get(),
            header_bytes: self.http_01.header_bytes.get(),
            per_address: self.limits.per_address.get(),
        }
    }

    pub(crate) fn tls_alpn_01_settings(&self) -> TlsAlpn01Settings {
        TlsAlpn01Settings {
            port: self.tls_alpn_01.port.get(),
            connect_timeout: Duration::from_secs(self.limits.connect_seconds.get().into()),
            total_timeout: self.attempt(),
            per_address: self.limits.per_address.get(),
        }
    }

    pub(crate) fn dns_settings(&self) -> DnsSettings {
        DnsSettings { records: self.dns.records.get(), total_timeout: self.attempt() }
    }

    pub(crate) fn attempt(&self) -> Duration {
        Duration::from_secs(self.limits.attempt_seconds.get().into())
    }

    pub(crate) fn query(&self) -> Duration {
        Duration::from_secs(self.limits.query_seconds.get().into())
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
        Duration::from_secs(self.drain_seconds)
    }

    fn check(&self) -> Result<(), Invalid> {
        if self.signers.is_empty() {
            return Err(Invalid::new("signers", "at least one address is needed"));
        }
        // What hyper demands of a buffer.
        if self.http_01.header_bytes.get() < 8192 {
            return Err(Invalid::new("http_01.header_bytes", "must be at least 8192"));
        }
        for (index, remote) in self.remotes.iter().enumerate() {
            if self.remotes.iter().take(index).any(|other| other.name == remote.name) {
                return Err(Invalid::new("remotes", format!("{} stands there twice", remote.name)));
            }
            if remote.addresses.is_empty() {
                return Err(Invalid::new("remotes", format!("{} has no address", remote.name)));
            }
        }
        Ok(())
    }
}
