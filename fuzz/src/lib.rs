//! Fuzz targets (`docs/adr/0005-fuzzing.md`): functions that take any octets and panic when they have
//! found something. libFuzzer drives them in `make fuzz`; `make test` runs them over the seeds in
//! `fuzz/corpus` and over mutations of these.

mod acme;
mod answers;
mod authority;
pub mod campaign;
mod crl;
mod ocsp;

pub use acme::{csr, identifier, jwk, jws};
pub use answers::{dns, http_01};
pub use crl::crl;
pub use ocsp::{ocsp_request, ocsp_response};

/// A target: a name, which is also that of its folder of seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 9] = [
    ("jws", jws),
    ("jwk", jwk),
    ("csr", csr),
    ("identifier", identifier),
    ("http_01", http_01),
    ("dns", dns),
    ("ocsp_request", ocsp_request),
    ("ocsp_response", ocsp_response),
    ("crl", crl),
];
