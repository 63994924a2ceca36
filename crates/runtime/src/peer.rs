//! Who asks, and what one of them may take up at once (connections, bodies that are read) or in a second (work).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::proxies::{TrustedProxies, client_network};

/// What each client holds of something at once.
#[derive(Debug, Clone)]
pub struct Shares {
    each: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A client's place, free again when this is dropped.
#[derive(Debug)]
pub struct Share {
    client: IpAddr,
    shares: Shares,
}

impl Shares {
    /// So many for each.
    #[must_use]
    pub fn new(each: usize) -> Self {
        Self { each, held: Arc::default() }
    }

    /// Takes a place; `None` when this client has as many as it may.
    #[must_use]
    pub fn take(&self, client: IpAddr) -> Option<Share> {
        let mut held = self.held.lock();
        let count = held.entry(client).or_insert(0);
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Share { client, shares: self.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

/// Open connections by peer.
#[derive(Debug, Clone)]
pub struct Peers {
    trusted: TrustedProxies,
    open: Shares,
}

/// A connection's peer, counted while it lives.
#[derive(Debug)]
pub struct Peer {
    address: IpAddr,
    /// None for a trusted proxy.
    _share: Option<Share>,
    trusted: TrustedProxies,
    end: CancellationToken,
}

impl Peers {
    /// So many connections for each; as many as they like for trusted proxies.
    #[must_use]
    pub fn new(each: usize, trusted: Vec<IpNet>) -> Self {
        Self { trusted: TrustedProxies::new(trusted), open: Shares::new(each) }
    }

    /// Counts a connection; `None` when its peer has as many as it may.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Option<Peer> {
        let share =
            if self.trusted.trusts(address) { None } else { Some(self.open.take(client_network(address))?) };
        Some(Peer { address, _share: share, trusted: self.trusted.clone(), end: CancellationToken::new() })
    }
}

impl Peer {
    /// Ends the connection, whatever is under way on it.
    #[must_use]
    pub fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Whose limits a request counts against; nobody's when it comes from a trusted proxy that names no client.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        self.trusted.client(self.address, headers)
    }
}

/// A token bucket for each client: an IPv4 address or an IPv6 /64 ([`client_network`]).
#[derive(Debug)]
pub struct Rates {
    per_second: f64,
    burst: f64,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    by_client: HashMap<IpAddr, Bucket>,
    /// When those that are full again were forgotten at last.
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Clients whose rate is watched at once: some 4 MB. When all of them are in use, the others share one bucket.
const BUCKETS: usize = 65_536;

impl Rates {
    /// So many a second, and so many at once after a silence; both at least 1.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: per_second.max(1).into(), burst: burst.max(1).into(), buckets: Mutex::default() }
    }

    /// Takes one from a client's bucket; false when it is empty.
    pub fn allow(&self, client: IpAddr, now: Instant) -> bool {
        self.take(client, 1, now).is_ok()
    }

    /// Takes what a piece of work costs from a client's bucket.
    ///
    /// # Errors
    ///
    /// When there is not enough in it: how long until there is. Nothing was taken.
    pub fn take(&self, client: IpAddr, cost: u32, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        if buckets.by_client.len() >= BUCKETS && !buckets.by_client.contains_key(&client) {
            self.sweep(&mut buckets, now);
        }
        let crowded = buckets.by_client.len() >= BUCKETS && !buckets.by_client.contains_key(&client);
        let client = if crowded { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { client };
        let bucket = buckets.by_client.entry(client).or_insert(Bucket { left: self.burst, at: now });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since * self.per_second).min(self.burst);
        bucket.at = now;
        // What costs more than a full bucket takes a full one.
        let cost = f64::from(cost).min(self.burst);
        if bucket.left < cost {
            return Err(Duration::from_secs_f64((cost - bucket.left) / self.per_second));
        }
        bucket.left -= cost;
        Ok(())
    }

    /// Forgets full buckets: once a second, because it looks at all of them.
    fn sweep(&self, buckets: &mut Buckets, now: Instant) {
        if buckets.swept.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1)) {
            return;
        }
        buckets.swept = Some(now);
        let full = Duration::from_secs_f64(self.burst / self.per_second);
        buckets.by_client.retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_has_so_many_connections_and_a_trusted_one_as_many_as_it_likes() {
        let peers = Peers::new(2, vec!["192.0.2.0/24".parse().unwrap()]);
        let held: Vec<_> = (0..2).map(|_| peers.enter(ip("198.51.100.1")).unwrap()).collect();
        assert!(peers.enter(ip("198.51.100.1")).is_none());
        assert!(peers.enter(ip("::ffff:198.51.100.1")).is_none());
        assert!(peers.enter(ip("198.51.100.2")).is_some());
        drop(held);
        assert!(peers.enter(ip("198.51.100.1")).is_some());
        let trusted: Vec<_> = (0..9).map(|_| peers.enter(ip("192.0.2.77")).unwrap()).collect();
        drop(trusted);
        assert!(peers.open.held.lock().is_empty(), "a peer without connections is remembered");
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let rates = Rates::new(2, 3);
        let start = Instant::now();
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert!((0..3).all(|_| rates.allow(one, start)));
        assert!(!rates.allow(one, start));
        assert!(rates.allow(other, start));
        assert!(!rates.allow(one, start + Duration::from_millis(400)));
        assert!(rates.allow(one, start + Duration::from_millis(600)));
        assert!(!rates.allow(one, start + Duration::from_millis(700)));
        assert!((0..3).all(|_| rates.allow(one, start + Duration::from_secs(60))));
        assert!(!rates.allow(one, start + Duration::from_secs(60)));
    }

    #[test]
    fn work_has_its_price_and_what_is_refused_costs_nothing() {
        let rates = Rates::new(10, 20);
        let (client, start) = (ip("192.0.2.1"), Instant::now());
        assert_eq!(rates.take(client, 15, start), Ok(()));
        assert_eq!(rates.take(client, 10, start), Err(Duration::from_millis(500)));
        assert_eq!(rates.take(client, 5, start), Ok(()));
        assert_eq!(rates.take(client, 10, start + Duration::from_secs(1)), Ok(()));
        assert_eq!(rates.take(client, 1000, start + Duration::from_secs(3)), Ok(()), "a full bucket");
        assert_eq!(rates.take(client, 1000, start + Duration::from_secs(3)), Err(Duration::from_secs(2)));
    }

    #[test]
    fn many_clients_take_bounded_memory() {
        let rates = Rates::new(1, 2);
        let start = Instant::now();
        let address = |number: u32| IpAddr::V4(number.into());
        for number in 0..70_000 {
            rates.allow(address(number), start);
        }
        assert_eq!(rates.buckets.lock().by_client.len(), BUCKETS + 1);
        assert!(!rates.allow(address(80_000), start), "those that share a bucket share its limit");
        assert!(rates.allow(address(80_000), start + Duration::from_secs(2)));
        assert_eq!(rates.buckets.lock().by_client.len(), 1, "full buckets are forgotten");
    }
}
