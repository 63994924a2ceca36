//! Name constraints of CAs (RFC 5280 §4.2.1.10), for the names that this CA issues for.

use std::net::IpAddr;

use der::Decode;
use x509_cert::ext::pkix::{NameConstraints, constraints::name::GeneralSubtree, name::GeneralName};

/// What a CA may issue for. A kind of name without any permitted subtree is permitted throughout.
#[derive(Default)]
pub(super) struct Constraints {
    permitted_dns: Vec<String>,
    excluded_dns: Vec<String>,
    permitted_ip: Vec<Block>,
    excluded_ip: Vec<Block>,
}

/// Address and mask, in 4 or 16 octets.
struct Block {
    address: Vec<u8>,
    mask: Vec<u8>,
}

impl Constraints {
    pub(super) fn read(der: &[u8]) -> der::Result<Self> {
        let constraints = NameConstraints::from_der(der)?;
        let (permitted_dns, permitted_ip) = read_trees(constraints.permitted_subtrees);
        let (excluded_dns, excluded_ip) = read_trees(constraints.excluded_subtrees);
        Ok(Self { permitted_dns, excluded_dns, permitted_ip, excluded_ip })
    }

    /// `name` may be a wildcard.
    pub(super) fn permit_dns(&self, name: &str) -> bool {
        let permitted =
            self.permitted_dns.is_empty() || self.permitted_dns.iter().any(|tree| lies_within(name, tree));
        let base = name.strip_prefix("*.");
        let excluded = self.excluded_dns.iter().any(|tree| {
            // A wildcard also stands for an excluded name below its base.
            let covers = base.is_some_and(|base| lies_within(tree.trim_start_matches('.'), base));
            covers || lies_within(name, tree)
        });
        permitted && !excluded
    }

    pub(super) fn permit_ip(&self, address: IpAddr) -> bool {
        let permitted =
            self.permitted_ip.is_empty() || self.permitted_ip.iter().any(|block| block.contains(address));
        permitted && !self.excluded_ip.iter().any(|block| block.contains(address))
    }
}

/// "Any DNS name that can be constructed by simply adding zero or more labels to the left-hand side
/// of the name satisfies the name constraint." With a leading dot, as some CAs write it, one or more.
fn lies_within(name: &str, tree: &str) -> bool {
    let Some(at) = name.len().checked_sub(tree.len()) else {
        return false;
    };
    let ends_so = name.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(tree));
    let at_a_label = at == 0
        || tree.is_empty()
        || tree.starts_with('.')
        || name.get(..at).is_some_and(|rest| rest.ends_with('.'));
    ends_so && at_a_label && !(at == 0 && tree.starts_with('.'))
}

fn read_trees(trees: Option<Vec<GeneralSubtree>>) -> (Vec<String>, Vec<Block>) {
    let (mut dns, mut ip) = (Vec::new(), Vec::new());
    for tree in trees.into_iter().flatten() {
        match tree.base {
            GeneralName::DnsName(name) => dns.push(name.to_string()),
            GeneralName::IpAddress(octets) => {
                let octets = octets.as_bytes();
                let (address, mask) = octets.split_at(octets.len() / 2);
                ip.push(Block { address: address.to_vec(), mask: mask.to_vec() });
            }
            _ => {}
        }
    }
    (dns, ip)
}

impl Block {
    fn contains(&self, address: IpAddr) -> bool {
        let (four, sixteen);
        let octets: &[u8] = match address {
            IpAddr::V4(address) => {
                four = address.octets();
                &four
            }
            IpAddr::V6(address) => {
                sixteen = address.octets();
                &sixteen
            }
        };
        octets.len() == self.address.len()
            && octets
                .iter()
                .zip(&self.address)
                .zip(&self.mask)
                .all(|((octet, own), mask)| octet & mask == own & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(permitted: &[&str], excluded: &[&str]) -> Constraints {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Constraints { permitted_dns: list(permitted), excluded_dns: list(excluded), ..Constraints::default() }
    }

    #[test]
    fn dns_subtrees() {
        let constraints = dns(&["example.org", ".example.net"], &["secret.example.org"]);
        for good in [
            "example.org",
            "EXAMPLE.org",
            "a.example.org",
            "*.a.example.org",
            "a.example.net",
            "*.example.net",
        ] {
            assert!(constraints.permit_dns(good), "{good}");
        }
        for bad in [
            "example.net",
            "badexample.org",
            "org",
            "example.com",
            "secret.example.org",
            "a.secret.example.org",
            "*.secret.example.org",
            "*.example.org",
        ] {
            assert!(!constraints.permit_dns(bad), "{bad}");
        }
        assert!(dns(&[], &[]).permit_dns("anything.example"));
        assert!(!dns(&[], &[""]).permit_dns("anything.example"));
        assert!(dns(&[""], &[]).permit_dns("anything.example"));
    }

    #[test]
    fn address_blocks() {
        let block = |address: &[u8], mask: &[u8]| Block { address: address.to_vec(), mask: mask.to_vec() };
        let constraints = Constraints {
            permitted_ip: vec![block(&[10, 0, 0, 0], &[255, 0, 0, 0])],
            excluded_ip: vec![block(&[10, 1, 0, 0], &[255, 255, 0, 0])],
            ..Constraints::default()
        };
        let permits = |text: &str| constraints.permit_ip(text.parse().unwrap());
        assert!(permits("10.2.3.4"));
        assert!(!permits("10.1.3.4"));
        assert!(!permits("11.2.3.4"));
        assert!(!permits("2001:db8::1"));
        assert!(Constraints::default().permit_ip("2001:db8::1".parse().unwrap()));
    }
}
