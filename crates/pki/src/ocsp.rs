//! The Online Certificate Status Protocol (RFC 6960, profiled by RFC 9919; nonces by RFC 9654):
//! requests, answers, and a reader that verifies them.
//!
//! Requests come from strangers: their reader is strict and bounded, and knows no more than it has
//! to. What it passes over (a name, a signature, extensions that are not critical) it says. An
//! answer is signed in two steps, like everything else here: [`response_data`], then [`assemble`].

mod cert_id;
mod reader;
mod request;
mod response;

use crate::{Reason, Timestamp};

pub use cert_id::{CertId, CertIdHash, IssuerHashes};
pub use reader::{Answer, Response, ResponseError, SingleRead, read};
pub use request::{
    MAX_REQUEST_OCTETS, MAX_REQUESTS, NONCE_MAX, NONCE_MIN, Request, RequestError, encode_request,
};
pub use response::{assemble, error, response_data};

/// The state of a certificate (RFC 6960 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertStatus {
    /// Assigned, and not revoked.
    Good,
    /// Revoked for ever.
    Revoked {
        /// Since when: the revocationDate of its CRL entry.
        at: Timestamp,
        /// Why; [`Reason::Unspecified`] is not written (BR §7.3).
        reason: Reason,
    },
    /// This issuer never assigned the serial number.
    Unknown,
}

/// The state of one certificate, to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Single<'a> {
    /// The certificate, as the request named it.
    pub id: &'a CertId,
    /// Its state.
    pub status: CertStatus,
    /// When that was known to be right.
    pub this_update: Timestamp,
    /// When something newer will be there at the latest.
    pub next_update: Timestamp,
    /// How far back the responder remembers certificates that expired (RFC 6960 §4.4.4).
    pub archive_cutoff: Option<Timestamp>,
}

/// Why there is no answer (RFC 6960 §2.3). `sigRequired` is not among them: whoever signs a request
/// is answered like everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorStatus {
    /// The octets are no request.
    MalformedRequest,
    /// The responder is in a state that it should not be in.
    InternalError,
    /// The responder cannot answer now.
    TryLater,
    /// The responder does not speak for this issuer.
    Unauthorized,
}

#[cfg(test)]
mod tests;
