//! From a host to a connection: addresses, judged, and a socket to one of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use url::Host;

use crate::address::AddressPolicy;
use crate::failure::{Ending, Failure, FailureKind};
use crate::resolver::Resolver;

/// The addresses to try, judged: at most one of each family, IPv6 first.
pub(crate) async fn candidates(
    resolver: &Resolver,
    policy: &AddressPolicy,
    host: &Host<&str>,
) -> Result<Vec<IpAddr>, Ending> {
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = match *host {
        Host::Ipv4(address) => (Vec::new(), vec![address.into()]),
        Host::Ipv6(address) => (vec![address.into()], Vec::new()),
        Host::Domain(name) => {
            let found = resolver.addresses(name).await?;
            (found.v6.into_iter().map(Into::into).collect(), found.v4.into_iter().map(Into::into).collect())
        }
    };
    let mut refused = Vec::new();
    let mut permitted = Vec::new();
    for family in [v6, v4] {
        let mut first = None;
        for verdict in family.into_iter().map(|address| policy.check(address)) {
            match verdict {
                Ok(address) => first = first.or(Some(address)),
                Err(refusal) => refused.push(refusal.to_string()),
            }
        }
        permitted.extend(first);
    }
    if permitted.is_empty() {
        let detail = format!("{host} has no address that may be contacted: {}", refused.join("; "));
        return Err(Failure::new(FailureKind::Dns, detail).into());
    }
    Ok(permitted)
}

/// A TCP connection, or why there is none.
pub(crate) async fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(patience, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(describe_io(&error)),
        Err(_) => Err("no connection in time (is a firewall in the way?)".to_owned()),
    }
}

/// The kind, never the text, which may hold what the peer sent.
pub(crate) fn describe_io(error: &io::Error) -> String {
    error.kind().to_string()
}
