//! Looks at the outside world for the CA: http-01, dns-01, and the signed receipts of what was seen; the validator role.
//!
//! A primary asks its remote perspectives and itself, and bundles what each of them signed, dissent included; who counts is
//! the signer alone. Each method is a module of its own behind the same [`Observer`].
//!
//! What this crate must never do: connect to an address that its [`AddressPolicy`] has not judged, believe a token that it
//! did not compute, carry a result from one attempt to the next, or turn a fault of its own into a client's failure.
//!
//! Specifications: RFC 8555 §8.3, §8.4 and §10.4, RFC 8738, BR 3.2.2.4.7, 3.2.2.4.19 and 3.2.2.9.

mod address;
mod config;
mod dns_01;
mod failure;
mod http_01;
mod observer;
pub mod receipt_key;
mod resolver;
mod role;
mod service;
mod slots;

pub use address::{AddressConfig, AddressPolicy, RefusedAddress};
pub use config::{Config, DnsSection, Http01Section, LimitsSection, RemoteSection};
pub use dns_01::{Dns01, DnsSettings};
pub use failure::{Ending, Failure, FailureKind, LocalFault};
pub use http_01::{Http01, Http01Attempt, Http01Settings};
pub use observer::{Admission, Methods, ObserveError, Observer};
pub use resolver::{Addresses, Resolver, ResolverError, Resolvers, TextRecords};
pub use role::{RunError, run};
pub use service::{Remote, Service};
