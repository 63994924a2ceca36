//! Which addresses a validator may talk to: the guard against being used to reach inside (RFC 8555 §10.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

/// `[addresses]`: what a validation may connect to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressConfig {
    /// Whether globally reachable unicast addresses are permitted. Default true; false for a private network whose
    /// names must never lead outside.
    pub public: bool,
    /// Networks that are permitted although they are private, loopback, link-local or reserved, e.g. `["10.0.0.0/8"]`.
    /// Empty by default. Whoever can order certificates here can make this node send a GET to these networks.
    pub allow: Vec<IpNet>,
    /// Networks that are never contacted, whatever else permits them. Empty by default.
    pub refuse: Vec<IpNet>,
}

impl Default for AddressConfig {
    fn default() -> Self {
        Self { public: true, allow: Vec::new(), refuse: Vec::new() }
    }
}

/// Decides over every address before a socket is made for it.
#[derive(Debug, Clone)]
pub struct AddressPolicy {
    config: AddressConfig,
}

/// An address that must not be contacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not permitted: {reason}")]
pub struct RefusedAddress {
    /// As it was found in DNS, in a redirect or in the order.
    pub address: IpAddr,
    /// Which rule refuses it.
    pub reason: &'static str,
}

impl AddressPolicy {
    /// The policy that a configuration describes.
    #[must_use]
    pub fn new(config: AddressConfig) -> Self {
        Self { config }
    }

    /// Answers with the address to connect to: an IPv4 address in IPv6 clothes is judged, and used, as IPv4.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn check(&self, address: IpAddr) -> Result<IpAddr, RefusedAddress> {
        let plain = address.to_canonical();
        let refused = |reason| RefusedAddress { address, reason };
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&plain));
        if within(&self.config.refuse) {
            return Err(refused("the configuration refuses its network"));
        }
        if within(&self.config.allow) {
            return Ok(plain);
        }
        let special = match plain {
            IpAddr::V4(v4) => special_v4(v4),
            IpAddr::V6(v6) => special_v6(v6),
        };
        match special {
            Some(reason) => Err(refused(reason)),
            None if self.config.public => Ok(plain),
            None => Err(refused("the configuration refuses public addresses")),
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    SPECIAL_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, reason)| *reason)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if !GLOBAL_UNICAST.contains(&address) {
        // Among them loopback, unspecified, fc00::/7, fe80::/10, ff00::/8, and the forms that hide an IPv4 address
        // (::a.b.c.d, 64:ff9b::/96).
        return Some("outside of global unicast (2000::/3)");
    }
    SPECIAL_V6.iter().find(|(network, _)| network.contains(&address)).map(|(_, reason)| *reason)
}

/// The IANA IPv4 Special-Purpose Address Registry, its forwardable AS112 and AMT blocks excepted, and one address that
/// a cloud uses for metadata although it is public.
const SPECIAL_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by carriers"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "a cloud's metadata service"),
    (v4(169, 254, 0, 0, 16), "link-local, metadata services"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved for protocols"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relays"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved, broadcast"),
];

const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What the IANA IPv6 Special-Purpose Address Registry reserves inside of global unicast. 2002::/16 and 2001::/32 hide
/// IPv4 addresses.
const SPECIAL_V6: &[(Ipv6Net, &str)] = &[
    (v6(0x2001, 0, 0, 23), "reserved for protocols, Teredo"),
    (v6(0x2001, 0xdb8, 0, 32), "for documentation"),
    (v6(0x2002, 0, 0, 16), "6to4"),
    (v6(0x3fff, 0, 0, 20), "for documentation"),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(a: u16, b: u16, c: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_public_policy_refuses_what_is_not_the_public_internet() {
        let policy = AddressPolicy::new(AddressConfig::default());
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.9",
            "168.63.129.16",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(policy.check(ip(inside)).is_err(), "{inside} was let through");
        }
        for outside in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2001:4860::8888",
        ] {
            assert_eq!(policy.check(ip(outside)), Ok(ip(outside)));
        }
    }

    #[test]
    fn the_allow_list_opens_and_the_refuse_list_wins() {
        let config = AddressConfig {
            public: false,
            allow: nets(&["10.0.0.0/8", "fd00::/8"]),
            refuse: nets(&["10.9.0.0/16"]),
        };
        let policy = AddressPolicy::new(config);
        assert!(policy.check(ip("10.1.1.1")).is_ok());
        assert!(policy.check(ip("fd00::7")).is_ok());
        assert!(policy.check(ip("10.9.1.1")).is_err());
        assert!(policy.check(ip("192.168.0.1")).is_err());
        assert!(policy.check(ip("1.1.1.1")).is_err());
    }

    #[test]
    fn a_mapped_address_is_contacted_as_what_it_is() {
        let config = AddressConfig { allow: nets(&["127.0.0.0/8"]), ..AddressConfig::default() };
        assert_eq!(AddressPolicy::new(config).check(ip("::ffff:127.0.0.1")), Ok(ip("127.0.0.1")));
    }
}
