//! Looks at the outside world for the CA: http-01, dns-01, tls-alpn-01, CAA, and the signed receipts of what was seen; the validator role.
//!
//! A primary asks its remote perspectives and itself, and bundles what each of them signed, dissent included; who counts is
//! the signer alone. Each method is a module of its own behind the same [`Observer`].
//!
//! What this crate must never do: connect to an address that its [`AddressPolicy`] has not judged, believe a token that it
//! did not compute, carry a result from one attempt to the next, call what it was told to assume a look, or turn a fault of
//! its own into a client's failure.
//!
//! Specifications: RFC 8555 §8.3, §8.4 and §10.4, RFC 8737, RFC 8738, RFC 8659 and RFC 8657 (CAA),
//! draft-ietf-acme-dns-account-label-03, draft-ietf-acme-dns-persist-00, BR 3.2.2.4.7, 3.2.2.4.19, 3.2.2.4.20 and 3.2.2.9.

mod address;
mod caa;
mod config;
mod connect;
mod dns_01;
mod dns_persist_01;
mod failure;
mod http_01;
mod issue_value;
mod observer;
pub mod receipt_key;
mod resolver;
mod role;
mod service;
mod slots;
mod tls;
mod tls_alpn_01;

pub use address::{AddressConfig, AddressPolicy, RefusedAddress};
pub use caa::{Caa, CaaQuestion, CaaRecord, CaaSet};
pub use config::{Config, DnsSection, Http01Section, LimitsSection, RemoteSection, TlsAlpn01Section};
pub use dns_01::{Dns01, DnsSettings, TextLookUp};
pub use dns_persist_01::{DnsPersist01, PersistedQuestion};
pub use failure::{Ending, Failure, FailureKind, LocalFault};
pub use http_01::{Http01, Http01Attempt, Http01Settings};
pub use observer::{Admission, Eyes, Methods, ObserveError, Observer};
pub use resolver::{Addresses, Resolver, ResolverError, ResolverSection, Resolvers, TextRecords};
pub use role::{RunError, run};
pub use service::{Remote, Service};
pub use tls_alpn_01::{TlsAlpn01, TlsAlpn01Settings};
