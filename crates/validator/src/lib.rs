//! http-01 and the receipts of validation; the validator role.
mod address;
mod failure;
mod http_01;
mod resolver;
mod slots;

pub use address::{AddressConfig, AddressPolicy, RefusedAddress};
pub use failure::{Ending, Failure, FailureKind, LocalFault};
pub use http_01::{Http01, Http01Attempt, Http01Settings};
pub use resolver::{Addresses, Resolver, ResolverError, Resolvers};
