//! DNS, asked of the configured resolvers only. A validating resolver beside the node does DNSSEC: what it finds bogus
//! arrives here as SERVFAIL, which is never permission.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig as StubConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use serde::{Deserialize, Deserializer, de};

use crate::failure::{Ending, Failure, FailureKind, LocalFault};

/// Which resolvers are asked: `"system"` (those of /etc/resolv.conf), `"ADDR:PORT"`, or a list of such addresses. They
/// decide where validations go: whoever holds them can have names validated that are not his.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolvers {
    /// Those of /etc/resolv.conf; its search list and the hosts file are not used.
    System,
    /// These, in turn.
    Servers(Vec<SocketAddr>),
}

impl<'de> Deserialize<'de> for Resolvers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"system\", \"ADDR:PORT\" or a list of \"ADDR:PORT\"")]
        enum Text {
            One(String),
            Many(Vec<SocketAddr>),
        }
        match Text::deserialize(deserializer)? {
            Text::One(word) if word == "system" => Ok(Self::System),
            Text::One(address) => match address.parse() {
                Ok(address) => Ok(Self::Servers(vec![address])),
                Err(_) => Err(de::Error::custom(format!("{address:?} is neither \"system\" nor ADDR:PORT"))),
            },
            Text::Many(servers) if servers.is_empty() => Err(de::Error::custom("no resolver in the list")),
            Text::Many(servers) => Ok(Self::Servers(servers)),
        }
    }
}

/// A stub without a cache: no result is carried from one attempt to the next (BR 3.2.2.9).
#[derive(Clone)]
pub struct Resolver {
    stub: TokioResolver,
    timeout: Duration,
}

/// What a name's A and AAAA records say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// From AAAA.
    pub v6: Vec<Ipv6Addr>,
    /// From A.
    pub v4: Vec<Ipv4Addr>,
}

/// What a name's TXT records say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextRecords {
    /// Each record's strings, joined. None where the name exists without such a record.
    pub values: Vec<Vec<u8>>,
}

/// The system's resolvers could not be read, or none is usable.
#[derive(Debug, thiserror::Error)]
#[error("resolver: {0}")]
pub struct ResolverError(#[source] NetError);

impl Resolver {
    /// A stub for these resolvers; `timeout` bounds one try of one query.
    ///
    /// # Errors
    /// When /etc/resolv.conf is asked for and cannot be read.
    pub fn new(resolvers: &Resolvers, timeout: Duration) -> Result<Self, ResolverError> {
        let servers = match resolvers {
            Resolvers::System => {
                system_conf::read_system_conf().map_err(ResolverError)?.0.name_servers().to_vec()
            }
            Resolvers::Servers(addresses) => addresses.iter().map(|address| name_server(*address)).collect(),
        };
        let config = StubConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = timeout;
        // Of repetitions.
        options.attempts = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.case_randomization = true;
        options.edns0 = true;
        // Fits every path without fragments (DNS flag day 2020).
        options.edns_payload_len = 1232;
        options.try_tcp_on_error = true;
        options.num_concurrent_reqs = 1;
        // Of one TCP connection; the default of 32 would turn load into failed look-ups.
        options.max_active_requests = 4096;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        Ok(Self { stub: builder.build().map_err(ResolverError)?, timeout })
    }

    /// A and AAAA of a name, asked at once. One of the two is enough.
    ///
    /// # Errors
    /// [`FailureKind::Dns`] when there is no address; [`LocalFault::Resolver`] when no resolver takes the query.
    pub async fn addresses(&self, host: &str) -> Result<Addresses, Ending> {
        let name = absolute(host)?;
        let (v4, v6) = futures::join!(
            self.stub.lookup(name.clone(), RecordType::A),
            self.stub.lookup(name, RecordType::AAAA)
        );
        let (v4_cause, v6_cause) = (cause(&v4), cause(&v6));
        let found = Addresses {
            v6: records(v6).into_iter().filter_map(as_v6).collect(),
            v4: records(v4).into_iter().filter_map(as_v4).collect(),
        };
        if !found.v4.is_empty() || !found.v6.is_empty() {
            return Ok(found);
        }
        if v4_cause.is_silence() && v6_cause.is_silence() && !self.answers().await {
            return Err(LocalFault::Resolver.into());
        }
        let detail = match (v4_cause, v6_cause) {
            (Cause::Nxdomain, _) | (_, Cause::Nxdomain) => format!("{host} does not exist (NXDOMAIN)"),
            (Cause::Empty, Cause::Empty) => format!("{host} has neither an A nor an AAAA record"),
            (a, aaaa) => format!("looking up {host}: A: {a}; AAAA: {aaaa}"),
        };
        Err(Failure::new(FailureKind::Dns, detail).into())
    }

    /// TXT of a name or of what it is an alias of. A name without such a record is no error; one that does not exist is.
    ///
    /// # Errors
    /// [`FailureKind::Dns`] when there is no answer; [`LocalFault::Resolver`] when no resolver takes the query.
    pub async fn texts(&self, host: &str) -> Result<TextRecords, Ending> {
        let answer = self.stub.lookup(absolute(host)?, RecordType::TXT).await;
        let cause = cause(&answer);
        match answer {
            Ok(lookup) => {
                let texts = lookup.answers().iter().filter_map(|record| match &record.data {
                    RData::TXT(text) => Some(text.txt_data.concat()),
                    _ => None,
                });
                Ok(TextRecords { values: texts.collect() })
            }
            Err(_) if cause == Cause::Empty => Ok(TextRecords::default()),
            Err(_) if cause.is_silence() && !self.answers().await => Err(LocalFault::Resolver.into()),
            Err(_) if cause == Cause::Nxdomain => {
                Err(Failure::new(FailureKind::Dns, format!("{host} does not exist (NXDOMAIN)")).into())
            }
            Err(_) => {
                Err(Failure::new(FailureKind::Dns, format!("looking up TXT of {host}: {cause}")).into())
            }
        }
    }

    /// Whether a resolver answers at all, by a question that it can answer by itself: a dead one must not fail everybody's
    /// authorizations, a dead zone only its own.
    pub async fn answers(&self) -> bool {
        let probe = self.stub.lookup(Name::root(), RecordType::SOA);
        match tokio::time::timeout(self.timeout, probe).await {
            Ok(answer) => !cause(&answer).is_silence(),
            Err(_) => false,
        }
    }
}

fn absolute(host: &str) -> Result<Name, Failure> {
    let mut name = Name::from_ascii(host)
        .map_err(|_| Failure::new(FailureKind::Dns, format!("{host} is not a name that DNS can hold")))?;
    name.set_fqdn(true);
    Ok(name)
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

type Answer = Result<hickory_resolver::lookup::Lookup, NetError>;

fn records(answer: Answer) -> Vec<IpAddr> {
    let Ok(lookup) = answer else { return Vec::new() };
    lookup
        .answers()
        .iter()
        .filter_map(|record| match record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .collect()
}

fn as_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    }
}

/// Why an answer holds no address, in words for the client's operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Empty,
    Nxdomain,
    Code(ResponseCode),
    Timeout,
    Unreachable,
    Garbage,
}

impl Cause {
    fn is_silence(self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable)
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => out.write_str("no record"),
            Self::Nxdomain => out.write_str("NXDOMAIN"),
            Self::Code(ResponseCode::ServFail) => {
                out.write_str("SERVFAIL (its name servers do not answer, or DNSSEC fails)")
            }
            Self::Code(code) => write!(out, "{code}"),
            Self::Timeout => out.write_str("timeout"),
            Self::Unreachable => out.write_str("resolver unreachable"),
            Self::Garbage => out.write_str("an answer that cannot be read"),
        }
    }
}

fn cause(answer: &Answer) -> Cause {
    match answer {
        Ok(_) => Cause::Empty,
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NoError => Cause::Empty,
            ResponseCode::NXDomain => Cause::Nxdomain,
            code => Cause::Code(code),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Cause::Code(*code),
        Err(NetError::Timeout) => Cause::Timeout,
        Err(NetError::Io(_) | NetError::NoConnections | NetError::Busy) => Cause::Unreachable,
        Err(_) => Cause::Garbage,
    }
}
