//! What a certificate authority says, as bytes: names, keys, certificate requests, profiles,
//! to-be-signed certificates, CRLs, OCSP, and the lints that read them back.
//!
//! Bytes in, bytes out. This crate never reads a clock, draws a random number, opens a file or
//! holds a private key: time, serial numbers and signatures are arguments. Its types cannot hold a
//! bad value, so whoever has a [`DnsName`], a [`PublicKey`] or a [`Csr`] need not check it again.
//!
//! Two halves that share no code, on purpose: [`tbs`], [`crl`] and [`ocsp`] *write* DER with an
//! encoder of their own; [`lint`] *reads* the very bytes back through `x509-cert` and says what is
//! wrong.
//!
//! Specifications: RFC 5280 (certificates, CRLs), RFC 2986 (PKCS #10), RFC 5480 and RFC 8410 (keys),
//! RFC 6960, RFC 9654 and RFC 9919 (OCSP), RFC 7633 (TLS feature), RFC 8555 §7.1.4 and RFC 8738
//! (identifiers), RFC 8737 §3 (certificates that answer a challenge), CA/Browser Forum Baseline Requirements 2.2.6 ("BR").

mod certificate;
pub mod chain;
mod challenge_certificate;
pub mod crl;
mod csr;
mod decode;
mod distinguished_name;
mod encode;
mod error;
mod extension;
mod issuer;
mod key;
pub mod lint;
mod name;
mod node;
pub mod ocsp;
mod period;
mod profile;
mod reason;
mod reserved;
mod serial;
mod signature;
pub mod tbs;
#[cfg(test)]
mod testing;
mod timestamp;
mod weak;

pub use certificate::{Certificate, CertificateError, subject_public_key};
pub use challenge_certificate::{ChallengeCertificate, ChallengeCertificateError};
pub use csr::{Csr, CsrError};
pub use distinguished_name::{DistinguishedName, DistinguishedNameError};
pub use error::ErrorClass;
pub use issuer::{Issuer, IssuerError, crl_url, delta_crl_url};
pub use key::{KeyAlgorithm, KeyError, PublicKey};
pub use name::{DnsName, Name, NameError, NameSet};
pub use node::{NodeIdentity, NodeIdentityError};
pub use period::{Period, PeriodError};
pub use profile::{
    CommonName, ExtendedKeyUsage, MustStaple, NameRefusal, PolicyOid, Profile, ProfileError, ProfileKind,
    ProfileSettings, Validity, ValidityError,
};
pub use reason::{Reason, ReasonError};
pub use serial::{Serial, SerialError};
pub use signature::{SignatureAlgorithm, SignatureError, ecdsa_raw_to_der};
pub use tbs::{Tbs, TbsError, assemble};
pub use timestamp::Timestamp;
pub use weak::{WeakKeyList, WeakKeyListError, Weakness};
