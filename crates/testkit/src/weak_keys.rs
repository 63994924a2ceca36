//! Private keys of weak keys, PKCS #8 in DER, so that tests can sign with them.

/// RSA-2048, made for these tests: two primes that the first round of Fermat's method finds.
pub const CLOSE: &[u8] = include_bytes!("weak_keys/close.pkcs8");

/// RSA-2048, made for these tests: two primes k M + (65537^a mod M), with M the product of the first 126 primes (CVE-2017-15361).
pub const ROCA: &[u8] = include_bytes!("weak_keys/roca.pkcs8");

/// ECDSA P-256: a key of CVE-2008-0166, of process 1000 on amd64. Published by github.com/badkeys/debianopenssl as
/// `ecp256/ssl/le64/1000-rnd.key`.
pub const DEBIAN: &[u8] = include_bytes!("weak_keys/debian.pkcs8");
