//! Addresses and zones that belong to nobody on the Internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::DnsName;

/// IPv4 blocks of IANA's special-purpose registry (RFC 6890) that are not globally reachable, and
/// multicast (RFC 5771). Whole blocks, also where the registry exempts single anycast addresses:
/// those have no single owner either.
const IPV4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),       // this network, RFC 791
    ([10, 0, 0, 0], 8),      // private use, RFC 1918
    ([100, 64, 0, 0], 10),   // shared address space, RFC 6598
    ([127, 0, 0, 0], 8),     // loopback, RFC 1122
    ([169, 254, 0, 0], 16),  // link local, RFC 3927
    ([172, 16, 0, 0], 12),   // private use, RFC 1918
    ([192, 0, 0, 0], 24),    // IETF protocol assignments, RFC 6890
    ([192, 0, 2, 0], 24),    // documentation, RFC 5737
    ([192, 31, 196, 0], 24), // AS112, RFC 7535
    ([192, 52, 193, 0], 24), // AMT, RFC 7450
    ([192, 88, 99, 0], 24),  // deprecated 6to4 anycast, RFC 7526
    ([192, 168, 0, 0], 16),  // private use, RFC 1918
    ([198, 18, 0, 0], 15),   // benchmarking, RFC 2544
    ([198, 51, 100, 0], 24), // documentation, RFC 5737
    ([203, 0, 113, 0], 24),  // documentation, RFC 5737
    ([224, 0, 0, 0], 4),     // multicast, RFC 5771
    ([240, 0, 0, 0], 4),     // reserved and broadcast, RFC 1112
];

/// IPv6 blocks inside 2000::/3 that are not for ordinary use; everything outside 2000::/3 is
/// unallocated, local or a mapping.
const IPV6: [([u16; 8], u32); 6] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // IETF protocol assignments, Teredo, ORCHID, RFC 2928
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation, RFC 3849
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4, RFC 3056
    ([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), // AS112, RFC 7534
    ([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16), // the former 6bone, RFC 3701
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation, RFC 9637
];

/// BR §7.1.2.7.12: "MUST NOT contain a Reserved IP Address".
pub(crate) fn is_reserved(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => IPV4.iter().any(|(block, prefix)| {
            let mask = u32::MAX << (32 - prefix);
            address.to_bits() & mask == Ipv4Addr::from(*block).to_bits() & mask
        }),
        IpAddr::V6(address) => {
            address.to_bits() >> 125 != 1
                || IPV6.iter().any(|(block, prefix)| {
                    let mask = u128::MAX << (128 - prefix);
                    address.to_bits() & mask == Ipv6Addr::from(*block).to_bits() & mask
                })
        }
    }
}

/// Zones that the public suffix list knows and nobody can register in: `in-addr.arpa` and `ip6.arpa`,
/// which name addresses (BR §4.2.2, since 2026-03-15), `home.arpa` (RFC 8375), and `onion` (RFC 7686),
/// whose names need validation methods of their own.
pub(crate) fn is_reserved_zone(name: &DnsName) -> bool {
    let mut labels = name.labels().rev();
    match labels.next() {
        Some("arpa") => matches!(labels.next(), Some("in-addr" | "ip6" | "home")),
        Some("onion") => true,
        _ => false,
    }
}
