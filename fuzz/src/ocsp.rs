//! OCSP: what strangers send, and what responders answer.

use arbitrary::{Result, Unstructured};
use pki::{
    Certificate, Reason,
    lint::{OcspLintContext, check_ocsp},
    ocsp::{
        Answer, CertId, CertIdHash, CertStatus, IssuerHashes, MAX_REQUEST_OCTETS, MAX_REQUESTS, NONCE_MAX,
        NONCE_MIN, Request, Response, Single, assemble, encode_request, read, response_data,
    },
};

use crate::authority::{ALGORITHM, AUTHORITY, Authority, SIGNATURE, octets, serial, time};

/// What is read as a request is within its bounds, and is written to the same octets again; what was
/// passed over apart, always to the same request.
pub fn ocsp_request(octets: &[u8]) {
    let Ok(request) = Request::from_der(octets) else { return };
    assert!(octets.len() <= MAX_REQUEST_OCTETS);
    assert!((1..=MAX_REQUESTS).contains(&request.cert_ids().len()));
    assert!(request.nonce().is_none_or(|nonce| (NONCE_MIN..=NONCE_MAX).contains(&nonce.len())));
    let again = encode_request(request.cert_ids(), request.nonce());
    if request.is_plain() {
        assert_eq!(again, octets, "two encodings of one request");
    }
    let read = Request::from_der(&again).unwrap();
    assert!(read.is_plain());
    assert_eq!((read.cert_ids(), read.nonce()), (request.cert_ids(), request.nonce()));
    for id in request.cert_ids() {
        let of = [&AUTHORITY.issuer, &AUTHORITY.other].map(|issuer| {
            let hashes = IssuerHashes::of(issuer.certificate());
            if let (true, Some(hash), Some(serial)) = (id.is_of(&hashes), id.hash(), id.serial()) {
                let own = CertId::new(hash, &hashes, &serial);
                assert!(own.is_of(&hashes) && own.serial() == Some(serial));
            }
            id.is_of(&hashes)
        });
        assert_ne!(of, [true, true], "of two issuers");
    }
}

/// Octets as they are never make the reader panic, and a plain answer is written to the same octets
/// again; taken as a description of an answer, it is written, read back the same, and no lint says
/// that its form is wrong.
pub fn ocsp_response(octets: &[u8]) {
    if let Ok(Answer::Successful(response)) = read(octets) {
        let _ = response.verify(AUTHORITY.issuer.certificate(), response.produced_at());
        let again = written_again(&response);
        if response.is_plain() {
            assert!(again.is_none_or(|again| again == octets), "two encodings of one answer");
        }
        let asked: Vec<_> = response.singles().iter().map(|single| single.id.clone()).collect();
        let _ = check_ocsp(response.data(), &context(&asked, response.nonce()));
    }
    let _ = described(&AUTHORITY, &mut Unstructured::new(octets));
}

fn context<'a>(asked: &'a [CertId], nonce: Option<&'a [u8]>) -> OcspLintContext<'a> {
    OcspLintContext {
        issuer: AUTHORITY.issuer.certificate(),
        responder: &AUTHORITY.responder,
        signed_at: AUTHORITY.responder.not_after(),
        asked,
        nonce,
        publicly_trusted: true,
    }
}

fn written_again(response: &Response) -> Option<Vec<u8>> {
    let singles: Option<Vec<_>> = (response.singles().iter())
        .map(|single| {
            Some(Single {
                id: &single.id,
                status: single.status,
                this_update: single.this_update,
                next_update: single.next_update?,
                archive_cutoff: single.archive_cutoff,
            })
        })
        .collect();
    let responder = response.responder()?.public_key();
    let data = response_data(responder, response.produced_at(), &singles?, response.nonce());
    let certificates: Vec<_> = response.certificates().iter().map(Certificate::der).collect();
    Some(assemble(&data, response.signature_algorithm(), response.signature(), &certificates))
}

/// Lints of the form alone: times and reasons of a described answer are any.
const FORM: [&str; 9] = [
    "rfc6960.ocsp_decodes",
    "rfc6960.ocsp_der",
    "rfc6960.ocsp_version",
    "rfc6960.ocsp_responder_id",
    "rfc6960.ocsp_delegated",
    "rfc6960.ocsp_cert_ids",
    "rfc6960.ocsp_extensions",
    "rfc9654.ocsp_nonce",
    "rfc9919.ocsp_next_update",
];

fn described(authority: &Authority, u: &mut Unstructured<'_>) -> Result<()> {
    let count = u.int_in_range(1..=MAX_REQUESTS)?;
    let ids = (0..count).map(|_| cert_id(authority, u)).collect::<Result<Vec<_>>>()?;
    let singles = ids
        .iter()
        .map(|id| {
            Ok(Single {
                id,
                status: status(u)?,
                this_update: time(u)?,
                next_update: time(u)?,
                archive_cutoff: if u.arbitrary()? { Some(time(u)?) } else { None },
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let produced_at = time(u)?;
    let nonce = octets(u, 0, NONCE_MAX)?;
    let nonce = Some(nonce.as_slice()).filter(|nonce| !nonce.is_empty());
    let certificates = vec![authority.responder.der(); u.int_in_range(0..=2)?];

    let data = response_data(authority.responder.public_key(), produced_at, &singles, nonce);
    let der = assemble(&data, ALGORITHM, &SIGNATURE, &certificates);
    let Ok(Answer::Successful(response)) = read(&der) else { panic!("an answer of ours is not read") };
    assert!(response.is_plain());
    assert_eq!(response.data(), data);
    assert_eq!((response.signature(), response.signature_algorithm()), (&SIGNATURE[..], ALGORITHM));
    assert_eq!((response.produced_at(), response.nonce()), (produced_at, nonce));
    assert_eq!(response.certificates().len(), certificates.len());
    assert_eq!(response.responder().is_some(), !certificates.is_empty());
    assert_eq!(response.singles().len(), singles.len());
    for (read, written) in response.singles().iter().zip(&singles) {
        assert_eq!((&read.id, read.status), (written.id, written.status));
        assert_eq!((read.this_update, read.next_update), (written.this_update, Some(written.next_update)));
        assert_eq!(read.archive_cutoff, written.archive_cutoff);
    }
    assert!(written_again(&response).is_none_or(|again| again == der));
    let findings = check_ocsp(&data, &context(&ids, nonce));
    assert!(!findings.iter().any(|finding| FORM.contains(&finding.lint)), "{findings:?}");
    Ok(())
}

fn cert_id(authority: &Authority, u: &mut Unstructured<'_>) -> Result<CertId> {
    let issuer = if u.ratio(1, 8)? { &authority.other } else { &authority.issuer };
    let hash = *u.choose(&CertIdHash::ALL)?;
    Ok(CertId::new(hash, &IssuerHashes::of(issuer.certificate()), &serial(u)?))
}

fn status(u: &mut Unstructured<'_>) -> Result<CertStatus> {
    Ok(match u.int_in_range(0..=2)? {
        0 => CertStatus::Good,
        1 => CertStatus::Revoked { at: time(u)?, reason: *u.choose(&Reason::ALL)? },
        _ => CertStatus::Unknown,
    })
}
