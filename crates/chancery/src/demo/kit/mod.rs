//! `chancery demo --serve --pebble`: the demo in place of the test server that authors of ACME clients use, Let's Encrypt's
//! Pebble. Its ports, its directory's path, its management calls and those of its name server; and what it does not have: the
//! clock, the roles and the HSM of a whole CA, to be moved, stopped and unplugged. `docs/ci.md` is its manual.

mod clock;
mod faults;
mod management;
mod names;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use pki::DnsName;
use tokio::task::JoinSet;

pub(crate) use clock::{Clock, enter_movable_time};
pub(crate) use faults::plug_if_unplugged;

use super::dns::Zone;
use super::stack::Ready;
use super::supervisor::{Running, listen};
use crate::operator::Access;
use clock::Mover;
use faults::{Faults, FrontFaults};

/// What Pebble refuses when nobody says otherwise: percent of good nonces.
const PEBBLES_REFUSALS: u8 = 5;

/// What `chancery demo` can be told for tests of clients.
#[derive(Debug, Args)]
pub(crate) struct KitArgs {
    /// Stand in for Pebble, Let's Encrypt's test server, with its ports, directory path and management calls (docs/ci.md).
    #[arg(long, requires = "serve", help_heading = "Testing clients")]
    pub(crate) pebble: bool,
    /// Address of the management calls, HTTPS. Default with --pebble: 127.0.0.1:15000.
    #[arg(long, value_name = "ADDRESS", requires = "pebble", help_heading = "Testing clients")]
    management: Option<SocketAddr>,
    /// Address of the name server that validation asks, UDP. Default with --pebble: 127.0.0.1:8053.
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "pebble",
        conflicts_with = "resolver",
        help_heading = "Testing clients"
    )]
    dns: Option<SocketAddr>,
    /// Address of the calls that change its records, HTTP. Default with --pebble: 127.0.0.1:8055.
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "pebble",
        conflicts_with = "resolver",
        help_heading = "Testing clients"
    )]
    dns_management: Option<SocketAddr>,
    /// The address of names without one of their own, where the validator looks. Default: 127.0.0.1.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CHANCERY_DEMO_DEFAULT_IPV4",
        conflicts_with = "resolver",
        help_heading = "Testing clients"
    )]
    default_ipv4: Option<Ipv4Addr>,
    /// A further host, or host:port, by which clients reach the ACME service; repeat for several, or separate by commas.
    #[arg(
        long = "server-name",
        value_name = "NAME",
        env = "CHANCERY_DEMO_SERVER_NAMES",
        value_delimiter = ',',
        requires = "pebble",
        help_heading = "Testing clients"
    )]
    server_names: Vec<ServerName>,
    /// How many requests with a good nonce are refused with badNonce, by chance. Default: 0; with --pebble 5, as Pebble's.
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PEBBLE_WFE_NONCEREJECT",
        value_parser = clap::value_parser!(u8).range(0..=100),
        help_heading = "Testing clients"
    )]
    refuse_nonces: Option<u8>,
    /// Let the management calls move the clock forward, for all roles (needs libfaketime).
    #[arg(
        long,
        env = "CHANCERY_DEMO_MOVABLE_CLOCK",
        value_parser = clap::builder::FalseyValueParser::new(),
        requires = "pebble",
        conflicts_with = "signer_database",
        help_heading = "Testing clients"
    )]
    pub(crate) movable_clock: bool,
    /// The file that says how far: given by this program to itself when it starts again in movable time.
    #[arg(long, hide = true, value_name = "FILE", requires = "movable_clock")]
    clock_file: Option<PathBuf>,
}

/// A host by which clients reach the service, perhaps with a port of its own.
#[derive(Debug, Clone)]
struct ServerName {
    host: String,
    port: Option<u16>,
}

impl std::str::FromStr for ServerName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| format!("{port:?} is no port"))?)),
            None => (text, None),
        };
        let good =
            host.parse::<Ipv4Addr>().is_ok() || DnsName::parse(host).is_ok_and(|name| name.as_str() == host);
        if !good {
            return Err(format!("{host:?} is neither a DNS name in lower case nor an IPv4 address"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl KitArgs {
    /// Where the ACME service listens when nobody says.
    pub(crate) fn default_listen(&self) -> SocketAddr {
        loopback(if self.pebble { 14_000 } else { 0 })
    }

    /// Where the name server listens.
    pub(crate) fn names_listen(&self) -> SocketAddr {
        self.dns.unwrap_or(loopback(if self.pebble { 8_053 } else { 0 }))
    }

    /// The address of names without one of their own.
    pub(crate) fn default_ipv4(&self) -> Ipv4Addr {
        self.default_ipv4.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    /// `host:port` of every URL that clients use, the first one's own included.
    pub(crate) fn authorities(&self, own: SocketAddr) -> Vec<String> {
        let mut all = vec![own.to_string()];
        if self.pebble {
            all.push(format!("localhost:{}", own.port()));
        }
        all.extend(self.server_names.iter().map(|name| match name.port.unwrap_or(own.port()) {
            // A URL has one spelling.
            443 => name.host.clone(),
            port => format!("{}:{port}", name.host),
        }));
        all
    }

    /// The hosts of those, as far as they were given.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = String> {
        self.server_names.iter().map(|name| name.host.clone())
    }

    /// What the front fails at on purpose from the beginning; none: it has no file of faults.
    pub(crate) fn first_faults(&self) -> Option<FrontFaults> {
        let refused = self.refuse_nonces.unwrap_or(if self.pebble { PEBBLES_REFUSALS } else { 0 });
        (self.pebble || refused > 0).then(|| FrontFaults::refusing(refused))
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The kit's ports, taken before anything is made.
pub(crate) struct Ports {
    management: std::net::TcpListener,
    names: Option<std::net::TcpListener>,
}

impl Ports {
    /// None: the demo is no stand-in.
    ///
    /// # Errors
    ///
    /// When one is taken.
    pub(crate) fn take(args: &KitArgs, own_names: bool) -> anyhow::Result<Option<Self>> {
        if !args.pebble {
            return Ok(None);
        }
        let take = |wanted: Option<SocketAddr>, default: u16| {
            let wanted = wanted.unwrap_or(loopback(default));
            listen(wanted.ip(), wanted.port()).map(|(socket, _)| socket)
        };
        let management = take(args.management, 15_000)?;
        let names = if own_names { Some(take(args.dns_management, 8_055)?) } else { None };
        Ok(Some(Self { management, names }))
    }
}

/// The calls, being answered; dropped, they end.
pub(crate) struct Kit {
    /// URL of the management calls.
    pub(crate) management: String,
    /// URL of the name server's.
    pub(crate) names: Option<String>,
    _servers: JoinSet<()>,
}

impl Kit {
    /// Serves on the ports.
    ///
    /// # Errors
    ///
    /// When the HTTPS certificate of the front cannot be used.
    pub(crate) fn start(
        ports: Ports,
        ready: &Ready,
        roles: &[Running],
        zone: Option<&Arc<Zone>>,
        clock: Option<(Clock, Access)>,
        first: FrontFaults,
    ) -> anyhow::Result<Self> {
        let mut servers = JoinSet::new();
        let faults = Arc::new(Faults::new(ready.clone(), roles.to_vec(), first));
        let desk = management::Desk {
            ready: ready.clone(),
            faults,
            clock: clock
                .map(|(clock, access)| Arc::new(Mover::new(clock, access, ready.clone(), roles.to_vec()))),
        };
        let management = url("https", &ports.management)?;
        let certificate = server::FrontCertificate::new(ready.layout.path("front/https.pem"));
        let listener = tokio::net::TcpListener::from_std(ports.management)?;
        servers.spawn(server::https(listener, server::tls(certificate)?, management::router(Arc::new(desk))));
        let mut names = None;
        if let (Some(socket), Some(zone)) = (ports.names, zone) {
            names = Some(url("http", &socket)?);
            let listener = tokio::net::TcpListener::from_std(socket)?;
            servers.spawn(server::http(listener, names::router(Arc::clone(zone))));
        }
        Ok(Self { management, names, _servers: servers })
    }
}

/// The URL of a listening socket as a client on this host types it.
fn url(scheme: &str, socket: &std::net::TcpListener) -> anyhow::Result<String> {
    let address = socket.local_addr()?;
    let host = if address.ip().is_unspecified() { loopback(0).ip() } else { address.ip() };
    Ok(format!("{scheme}://{}", SocketAddr::new(host, address.port())))
}

/// A folder that was made for other hosts cannot be served under these: its front may have certificates for those alone.
///
/// # Errors
///
/// When the folder was made for others.
pub(crate) fn same_hosts(layout: &super::layout::Layout, args: &KitArgs) -> anyhow::Result<()> {
    let path = layout.path("server-names");
    let wanted: Vec<String> = args.hosts().collect();
    if layout.path("front/node.pem").exists() {
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let missing: Vec<_> = wanted.iter().filter(|host| !kept.lines().any(|line| line == *host)).collect();
        ensure!(
            missing.is_empty(),
            "this folder's front joined without {missing:?}: start with a new --state"
        );
        return Ok(());
    }
    std::fs::write(&path, wanted.join("\n")).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_is_a_host_and_perhaps_a_port() {
        for (text, port) in [("pebble", None), ("ca.test:443", Some(443)), ("172.17.0.2", None)] {
            let name: ServerName = text.parse().unwrap();
            assert_eq!((name.host.as_str(), name.port), (text.split(':').next().unwrap(), port));
        }
        for text in ["", "CA.test", "a b", "ca.test:", "ca.test:99999", "*.test", "ca.test:1:2"] {
            assert!(text.parse::<ServerName>().is_err(), "{text}");
        }
    }
}
