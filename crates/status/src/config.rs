//! The configuration of the role: this type is its manual.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;
use runtime::{FilePath, HealthSection, Invalid, Listen, LogSection, NodeSection, RoleConfig, Version};
use serde::Deserialize;

/// A status node's configuration file.
///
/// A status node holds public objects and a node key that may read them. Who takes it over can serve stale objects until
/// they expire, or none; it cannot make any.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always 1.
    pub version: Version,
    /// Where relying parties and CDNs ask, plain HTTP/1.1 or HTTP/2 (by prior knowledge), e.g. `"0.0.0.0:80"`: CRLs, OCSP
    /// answers and CA certificates carry their own signatures, and fetching them over TLS would need them.
    pub listen: Listen,
    /// The path of the base URL that is written into certificates, e.g. `"/ca"` for `http://pki.example.org/ca/crl/…` and
    /// `http://pki.example.org/ca/ocsp`. Empty by default.
    #[serde(default)]
    pub path_prefix: String,
    /// Networks of proxies and CDNs, e.g. `["192.0.2.0/24"]`. The limits for each peer do not hold for them, but for the
    /// client that they name in X-Forwarded-For, which is believed from them alone. Empty by default.
    /// Who asks from there can use up what `[limits]` leaves to one peer many times over.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// The folder where objects are kept over restarts and while no signer can be reached. Made when it is missing; used by
    /// one process at a time. Who writes it can take objects away; with `anchors` he cannot add any.
    pub spool: FilePath,
    /// Certificates (PEM files) to which every object has to chain, normally the roots. Empty by default: then CA
    /// certificates are believed because a signer says so.
    #[serde(default)]
    pub anchors: Vec<FilePath>,
    /// The signers' addresses, `host:port`. One that answers is enough.
    pub signers: Vec<String>,
    /// This node's identity, role `status`.
    pub node: NodeSection,
    /// How objects come.
    #[serde(default)]
    pub sync: SyncSection,
    /// OCSP.
    #[serde(default)]
    pub ocsp: OcspSection,
    /// How long others may keep what they got.
    #[serde(default)]
    pub cache: CacheSection,
    /// What the HTTP port bears.
    #[serde(default)]
    pub limits: LimitsSection,
    /// `[log]`
    #[serde(default)]
    pub log: LogSection,
    /// `[health]`; no health port when it is missing.
    pub health: Option<HealthSection>,
    /// The health port's notice "crl expiry" goes down when a CRL has less than so many hundredths of its time left and no
    /// newer one has come: for those that signers make, because none does; for an offline root's, because a person has to
    /// make it. Default 20, at most 99.
    #[serde(default = "default_alarm")]
    pub expiry_alarm_percent: u8,
    /// How long a drain on SIGTERM may take, seconds. Default 10.
    #[serde(default = "default_drain")]
    pub drain_seconds: u64,
}

fn default_alarm() -> u8 {
    20
}

fn default_drain() -> u64 {
    10
}

/// `[sync]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncSection {
    /// Seconds between two full comparisons with a signer: what was published is announced at once, this finds what the
    /// announcement did not reach. Default 60.
    pub poll_seconds: NonZeroU32,
    /// Seconds within which a piece of an object, or the answer to a list, has to come. Default 10.
    pub answer_seconds: NonZeroU32,
    /// The largest object, in MiB. Default 128: a CRL of three million entries.
    pub object_mib: NonZeroU32,
    /// All objects together, in MiB; they are held in memory. A revision that was replaced is held, and counts, as long as
    /// somebody reads it: where there is no room for it, the connections of its readers are ended, the oldest revision's
    /// first. Default 1024.
    pub total_mib: NonZeroU32,
    /// How many objects there may be. Default 10,000.
    pub objects: NonZeroUsize,
}

impl Default for SyncSection {
    fn default() -> Self {
        Self {
            poll_seconds: nonzero(60),
            answer_seconds: nonzero(10),
            object_mib: nonzero(128),
            total_mib: nonzero(1024),
            objects: NonZeroUsize::MIN.saturating_add(9_999),
        }
    }
}

impl SyncSection {
    pub(crate) fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_seconds.get().into())
    }

    pub(crate) fn answer(&self) -> Duration {
        Duration::from_secs(self.answer_seconds.get().into())
    }

    pub(crate) fn object_bytes(&self) -> u64 {
        u64::from(self.object_mib.get()) << 20
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        u64::from(self.total_mib.get()) << 20
    }
}

/// `[cache]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSection {
    /// Seconds for a CRL, and never beyond its `nextUpdate`. A revocation reaches those who ask a cache this much later.
    /// Default 300.
    pub crl_seconds: u32,
    /// Seconds for a CA certificate. Default 86,400.
    pub certificate_seconds: u32,
    /// Seconds for an OCSP answer, and never beyond its `nextUpdate`. A revocation reaches those who ask a cache this much
    /// later. Default 300.
    pub ocsp_seconds: u32,
}

impl Default for CacheSection {
    fn default() -> Self {
        Self { crl_seconds: 300, certificate_seconds: 86_400, ocsp_seconds: 300 }
    }
}

/// `[ocsp]`: what this node keeps of the signers' answers, and how it asks for others.
///
/// An answer is kept until its `nextUpdate`, unless a signer says that its certificate was revoked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OcspSection {
    /// Answers kept at once, in memory and in the spool; those that nobody asked for the longest go first. Default 200,000.
    pub answers: NonZeroUsize,
    /// What they may take together in memory, in MiB, with the requests that are recognised octet by octet: some 2.5 kB each.
    /// The spool's file takes up to three times as much. Default 512.
    pub answers_mib: NonZeroU32,
    /// An answer that somebody asked for within so many seconds is renewed before it is due; others are renewed when they
    /// are asked for. 0: none is renewed ahead. Default 86,400.
    pub hot_seconds: u32,
    /// Milliseconds that a request waits for a signer before it is answered `tryLater`. Default 2,000.
    pub wait_milliseconds: NonZeroU32,
    /// Calls to signers that are under way at once; what arrives meanwhile travels together in the next. Default 4.
    pub calls: NonZeroUsize,
    /// Questions in one call. Default and at most 256.
    pub questions_per_call: NonZeroUsize,
    /// Requests that wait for a signer at once; further ones are answered `tryLater`. Default 4,096.
    pub waiting: NonZeroUsize,
    /// As `waiting`, for those whose answer cannot be kept: with a nonce, or about several certificates. Default 256.
    pub waiting_unkept: NonZeroUsize,
    /// Seconds between two comparisons of what this node heard of revocations with what a signer knows. Default 30.
    pub poll_seconds: NonZeroU32,
    /// Revocations of a shard that are remembered, to recognise answers that were made before them. Default 4,096.
    pub recent_revocations: NonZeroUsize,
}

impl Default for OcspSection {
    fn default() -> Self {
        let number = |number: usize| NonZeroUsize::MIN.saturating_add(number - 1);
        Self {
            answers: number(200_000),
            answers_mib: nonzero(512),
            hot_seconds: 86_400,
            wait_milliseconds: nonzero(2_000),
            calls: number(4),
            questions_per_call: number(256),
            waiting: number(4_096),
            waiting_unkept: number(256),
            poll_seconds: nonzero(30),
            recent_revocations: number(4_096),
        }
    }
}

impl OcspSection {
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_milliseconds.get().into())
    }

    pub(crate) fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_seconds.get().into())
    }

    pub(crate) fn answers_bytes(&self) -> usize {
        usize::try_from(u64::from(self.answers_mib.get()) << 20).unwrap_or(usize::MAX)
    }
}

/// The proto's bound on one call.
const MAX_QUESTIONS: usize = 256;

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Connections at once. Default 4,096.
    pub connections: NonZeroUsize,
    /// Connections at once from one IPv4 address or one IPv6 /64. Default 64; raise it where a CDN asks from few addresses.
    pub connections_per_peer: NonZeroUsize,
    /// Seconds within which a request's header has to be there, and a kept connection has to ask again. Default 10.
    pub header_seconds: NonZeroU32,
    /// Seconds that a peer may take without reading anything of an answer. Default 20.
    pub stall_seconds: NonZeroU32,
    /// Seconds that a connection lives at most. Default 600.
    pub connection_seconds: NonZeroU32,
    /// Seconds within which the body of a POST has to be there. Default 5.
    pub body_seconds: NonZeroU32,
    /// Bodies that are being read at once; further POSTs are answered 503. Default 4,096.
    pub bodies: NonZeroUsize,
    /// As `bodies`, from one IPv4 address or one IPv6 /64, over all of its connections and streams: one that sends slowly
    /// leaves places to the others. At most `bodies`. Default a sixteenth of `bodies`, at least 1.
    pub bodies_per_peer: Option<NonZeroUsize>,
    /// Requests at once on one HTTP/2 connection. Default 64.
    pub streams_per_connection: NonZeroU32,
    /// OCSP requests a second, from one IPv4 address or one IPv6 /64, that a signer has to answer; further ones are answered
    /// `tryLater`. What is kept here is answered without a limit. Default 50.
    pub live_per_second: NonZeroU32,
    /// As many at once after a silence. Default 200.
    pub live_burst: NonZeroU32,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            connections: NonZeroUsize::MIN.saturating_add(4095),
            connections_per_peer: NonZeroUsize::MIN.saturating_add(63),
            header_seconds: nonzero(10),
            stall_seconds: nonzero(20),
            connection_seconds: nonzero(600),
            body_seconds: nonzero(5),
            bodies: NonZeroUsize::MIN.saturating_add(4095),
            bodies_per_peer: None,
            streams_per_connection: nonzero(64),
            live_per_second: nonzero(50),
            live_burst: nonzero(200),
        }
    }
}

impl LimitsSection {
    pub(crate) fn bodies_per_peer(&self) -> usize {
        self.bodies_per_peer.map_or((self.bodies.get() / 16).max(1), NonZeroUsize::get)
    }
}

const fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number - 1)
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
        let prefix = &self.path_prefix;
        if !prefix.is_empty()
            && (!prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['%', '?', '#']))
        {
            return Err(Invalid::new(
                "path_prefix",
                "must begin with a slash, not end with one, and be plain",
            ));
        }
        if self.expiry_alarm_percent > 99 {
            return Err(Invalid::new("expiry_alarm_percent", "must be at most 99"));
        }
        if self.sync.object_mib > self.sync.total_mib {
            return Err(Invalid::new("sync.object_mib", "must not exceed sync.total_mib"));
        }
        if self.limits.bodies_per_peer.is_some_and(|each| each > self.limits.bodies) {
            return Err(Invalid::new("limits.bodies_per_peer", "must not exceed limits.bodies"));
        }
        if self.ocsp.questions_per_call.get() > MAX_QUESTIONS {
            return Err(Invalid::new("ocsp.questions_per_call", format!("must be at most {MAX_QUESTIONS}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn limits(text: &str) -> Result<LimitsSection, String> {
        let node = "certificate = \"c\"\nkey = \"k\"\nauthority = \"a\"";
        let text = format!(
            "version = 1\nlisten = \"127.0.0.1:80\"\nspool = \"s\"\nsigners = [\"s:1\"]\nlimits = {{ {text} }}\n[node]\n{node}\n"
        );
        let config = runtime::config::parse::<Config>(&text, Path::new("/status.toml"));
        let config = config.map_err(|error| error.to_string())?;
        config.check().map_err(|invalid| invalid.to_string())?;
        Ok(config.limits)
    }

    #[test]
    fn a_peer_has_a_sixteenth_of_the_bodies_or_what_is_said() {
        let each = |text| limits(text).unwrap().bodies_per_peer();
        assert_eq!((each(""), each("bodies = 320"), each("bodies = 5")), (256, 20, 1));
        assert_eq!(each("bodies = 5, bodies_per_peer = 5"), 5);
        let refused = limits("bodies = 5, bodies_per_peer = 6").unwrap_err();
        assert!(refused.contains("limits.bodies_per_peer"), "{refused}");
        assert!(limits("bodies_per_peer = 0").is_err());
    }
}
