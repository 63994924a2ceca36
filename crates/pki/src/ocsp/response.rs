//! The writer of answers (RFC 6960 §4.2).

use const_oid::db::rfc6960 as oid;

use super::{CertStatus, ErrorStatus, Single, cert_id::key_hash, request::encode_nonce};
use crate::{
    PublicKey, Reason, SignatureAlgorithm, Timestamp,
    encode::{Encoder, encode, tag},
    extension::extension,
};

/// ResponseData, DER: what a responder signs. It names the responder by the hash of its key, and
/// repeats certIDs and nonce of the request.
#[must_use]
pub fn response_data(
    responder: &PublicKey,
    produced_at: Timestamp,
    singles: &[Single<'_>],
    nonce: Option<&[u8]>,
) -> Vec<u8> {
    let responder = encode(|e| {
        e.nested(tag::context_constructed(2), |e| {
            e.primitive(tag::OCTET_STRING, key_hash(responder).as_ref());
        });
    });
    encode_data(&responder, produced_at, singles, nonce)
}

/// The same with a ResponderID that is DER already.
pub(super) fn encode_data(
    responder: &[u8],
    produced_at: Timestamp,
    singles: &[Single<'_>],
    nonce: Option<&[u8]>,
) -> Vec<u8> {
    let mut e = Encoder::with_capacity(256 + 192 * singles.len());
    e.sequence(|e| {
        // version is DEFAULT v1: absent.
        e.raw(responder);
        produced_at.encode_generalized(e);
        e.sequence(|e| singles.iter().for_each(|single| encode_single(e, single)));
        if let Some(nonce) = nonce {
            e.nested(tag::context_constructed(1), |e| {
                e.sequence(|e| encode_nonce(e, nonce));
            });
        }
    });
    e.into_bytes()
}

fn encode_single(e: &mut Encoder, single: &Single<'_>) {
    e.sequence(|e| {
        e.raw(single.id.as_der());
        encode_status(e, single.status);
        single.this_update.encode_generalized(e);
        e.nested(tag::context_constructed(0), |e| single.next_update.encode_generalized(e));
        if let Some(cutoff) = single.archive_cutoff {
            e.nested(tag::context_constructed(1), |e| {
                e.sequence(|e| {
                    extension(e, &oid::ID_PKIX_OCSP_ARCHIVE_CUTOFF, false, |e| cutoff.encode_generalized(e));
                });
            });
        }
    });
}

/// CertStatus: the choices are IMPLICIT, the reason inside is EXPLICIT.
fn encode_status(e: &mut Encoder, status: CertStatus) {
    match status {
        CertStatus::Good => {
            e.primitive(tag::context(0), &[]);
        }
        CertStatus::Revoked { at, reason } => {
            e.nested(tag::context_constructed(1), |e| {
                at.encode_generalized(e);
                if reason != Reason::Unspecified {
                    e.nested(tag::context_constructed(0), |e| {
                        e.primitive(tag::ENUMERATED, &[reason.code()]);
                    });
                }
            });
        }
        CertStatus::Unknown => {
            e.primitive(tag::context(2), &[]);
        }
    }
}

/// An OCSPResponse: signed ResponseData with the responder's certificates, each DER.
#[must_use]
pub fn assemble(
    response_data: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
    certificates: &[&[u8]],
) -> Vec<u8> {
    let octets = certificates.iter().map(|certificate| certificate.len()).sum::<usize>();
    let mut e = Encoder::with_capacity(response_data.len() + signature.len() + octets + 96);
    e.sequence(|e| {
        e.primitive(tag::ENUMERATED, &[0]);
        e.nested(tag::context_constructed(0), |e| {
            e.sequence(|e| {
                e.oid(&oid::ID_PKIX_OCSP_BASIC);
                e.nested(tag::OCTET_STRING, |e| {
                    e.sequence(|e| {
                        e.raw(response_data).raw(algorithm.identifier_der()).bit_string(signature);
                        if !certificates.is_empty() {
                            encode_certificates(e, certificates);
                        }
                    });
                });
            });
        });
    });
    e.into_bytes()
}

fn encode_certificates(e: &mut Encoder, certificates: &[&[u8]]) {
    e.nested(tag::context_constructed(0), |e| {
        e.sequence(|e| {
            for certificate in certificates {
                e.raw(certificate);
            }
        });
    });
}

/// An OCSPResponse that is an error, whole: these are not signed.
#[must_use]
pub const fn error(status: ErrorStatus) -> &'static [u8] {
    match status {
        ErrorStatus::MalformedRequest => &[0x30, 0x03, tag::ENUMERATED, 1, 1],
        ErrorStatus::InternalError => &[0x30, 0x03, tag::ENUMERATED, 1, 2],
        ErrorStatus::TryLater => &[0x30, 0x03, tag::ENUMERATED, 1, 3],
        ErrorStatus::Unauthorized => &[0x30, 0x03, tag::ENUMERATED, 1, 6],
    }
}
