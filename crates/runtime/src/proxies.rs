//! Who a request comes from: the peer, or whom a trusted proxy names.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Where proxies name their client.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks of proxies whose word for their client's address is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// These networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    /// Whether the address is a trusted proxy's.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whose limits a request counts against, as [`client_network`] has it; nobody's when it comes from a trusted proxy that
    /// names no client.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.trusts(peer) {
            return Some(client_network(peer));
        }
        // The last that no trusted proxy has: what stands before it, its client wrote.
        let mut claims = headers.get_all(FORWARDED_FOR).iter().rev().flat_map(|value| {
            let text = value.to_str().unwrap_or_default();
            text.rsplit(',').map(|one| one.trim().parse::<IpAddr>())
        });
        let client = claims.find(|claim| claim.as_ref().map_or(true, |address| !self.trusts(*address)))?;
        // Not an address: the proxy's own, whose limit is none.
        client.ok().map(client_network)
    }
}

/// What stands for a client: its address, or the /64 that an IPv6 client owns.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let ip = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(ip("2001:db8:1:2:3:4:5:6"), ip("2001:db8:1:2::1"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
        assert_ne!(ip("192.0.2.1"), ip("192.0.2.2"));
    }

    #[test]
    fn a_forwarded_address_is_believed_from_trusted_proxies_alone() {
        let proxies =
            TrustedProxies::new(vec!["192.0.2.0/24".parse().unwrap(), "2001:db8:9::/48".parse().unwrap()]);
        let client = |from: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            proxies.client(ip(from), &headers)
        };
        assert_eq!(client("198.51.100.1", &["203.0.113.9"]), Some(ip("198.51.100.1")));
        assert_eq!(client("192.0.2.1", &[]), None);
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), Some(ip("203.0.113.9")));
        // What the client wrote itself stands before what the proxies wrote.
        assert_eq!(client("192.0.2.1", &["203.0.113.1, 203.0.113.9, 192.0.2.7"]), Some(ip("203.0.113.9")));
        assert_eq!(client("192.0.2.1", &["203.0.113.1", "203.0.113.9"]), Some(ip("203.0.113.9")));
        assert_eq!(client("192.0.2.1", &["203.0.113.1, nonsense"]), None);
        assert_eq!(client("2001:db8:9::1", &["2001:db8:1:2:3::4"]), Some(ip("2001:db8:1:2::")));
    }
}
