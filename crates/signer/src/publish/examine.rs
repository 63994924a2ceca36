//! What is at a place, judged by its content alone: a name, a date or a header there proves nothing.

use pki::crl::{Crl, is_signed_by};
use pki::{Certificate, Timestamp};
use rpc::proto::status::v1::ObjectKind;

use super::PublishError;
use crate::publication::{Mark, sha256};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// Nothing of ours: it is to be replaced, whatever it says.
    Foreign,
    /// An object of this issuer for this path.
    Genuine {
        sha256: [u8; 32],
        /// As [`Mark::revision`].
        revision: u64,
        /// thisUpdate, or notBefore.
        made_at: Timestamp,
        /// nextUpdate.
        next_update: Option<Timestamp>,
    },
}

/// How what is there stands to what is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is there, something older, or something that is none of ours.
    Behind,
    /// The same.
    Same,
    /// Newer: another signer's.
    Ahead,
    /// Newer by one measure and older, or the same, by another: nobody can say which is the newer one.
    Contradicts,
}

impl Found {
    pub(super) fn of(mark: &Mark) -> Self {
        Self::Genuine {
            sha256: mark.sha256,
            revision: mark.revision,
            made_at: made_at(mark),
            next_update: mark.updates.map(|(_, next)| next),
        }
    }

    pub(super) fn stands_to(&self, ours: &Mark) -> Standing {
        let Self::Genuine { sha256, revision, made_at: there, .. } = self else { return Standing::Behind };
        if *sha256 == ours.sha256 {
            return Standing::Same;
        }
        match (revision.cmp(&ours.revision), there.cmp(&made_at(ours))) {
            (std::cmp::Ordering::Less, at) if at.is_le() => Standing::Behind,
            (std::cmp::Ordering::Greater, at) if at.is_ge() => Standing::Ahead,
            // Two certificates of one key and second: the policy says which one it is.
            _ if ours.kind == ObjectKind::Certificate => Standing::Behind,
            _ => Standing::Contradicts,
        }
    }
}

fn made_at(mark: &Mark) -> Timestamp {
    mark.updates.map_or_else(|| Timestamp::from_unix(mark.revision), |(this, _)| this)
}

/// Checks what is about to be published: it is what its mark says, and the issuer signed it (DESIGN §6).
///
/// # Errors
/// When it is not.
pub(super) fn check(mark: &Mark, ours: &[u8], issuer: &Certificate) -> Result<(), PublishError> {
    let genuine = match mark.kind {
        ObjectKind::Crl => Crl::from_der(ours).is_ok_and(|crl| {
            crl.verify_issued_by(issuer).is_ok()
                && crl.number() == mark.revision
                && Some((crl.this_update(), crl.next_update())) == mark.updates
        }),
        _ => Certificate::from_der(ours).is_ok_and(|certificate| is_of(&certificate, issuer)),
    };
    if genuine { Ok(()) } else { Err(PublishError::NotGenuine) }
}

/// What content there is, compared with what is at hand for the same path.
///
/// # Errors
/// When what is there may be newer, and cannot be compared; or what is at hand cannot be read.
pub(super) fn examine(
    mark: &Mark,
    ours: &[u8],
    there: &[u8],
    issuer: &Certificate,
) -> Result<Found, PublishError> {
    match mark.kind {
        ObjectKind::Crl => examine_crl(ours, there, issuer),
        _ => Ok(examine_certificate(ours, there, issuer).unwrap_or(Found::Foreign)),
    }
}

fn examine_crl(ours: &[u8], there: &[u8], issuer: &Certificate) -> Result<Found, PublishError> {
    let ours = Crl::from_der(ours).map_err(|_| PublishError::NotGenuine)?;
    let crl = match Crl::from_der(there) {
        Ok(crl) => crl,
        // A newer version's.
        Err(reason) if is_signed_by(there, issuer.public_key()) => {
            return Err(PublishError::Unreadable { reason });
        }
        Err(_) => return Ok(Found::Foreign),
    };
    // Another shard's, or a delta where a complete one belongs, is as genuine, and no answer here.
    if crl.verify_issued_by(issuer).is_err() || !is_same_scope(&ours, &crl) {
        return Ok(Found::Foreign);
    }
    Ok(Found::Genuine {
        sha256: sha256(there),
        revision: crl.number(),
        made_at: crl.this_update(),
        next_update: Some(crl.next_update()),
    })
}

/// Whether one can replace the other. Of a list of CAs' certificates there is one alone, wherever it says that it lies.
/// Others lie at the issuer's key and the shard, on whatever host: that may move, and there may be another one beside it.
fn is_same_scope(ours: &Crl<'_>, there: &Crl<'_>) -> bool {
    let are_for_cas = ours.lists_ca_certificates();
    if ours.delta_base().is_some() != there.delta_base().is_some()
        || are_for_cas != there.lists_ca_certificates()
    {
        return false;
    }
    let is_ours =
        |url: &String| ours.distribution_urls().iter().any(|it| last_segments(it) == last_segments(url));
    are_for_cas || there.distribution_urls().iter().any(is_ours)
}

fn last_segments(url: &str) -> &str {
    let before = url.rmatch_indices('/').nth(1).map(|(at, _)| at + 1);
    before.and_then(|at| url.get(at..)).unwrap_or(url)
}

fn examine_certificate(ours: &[u8], there: &[u8], issuer: &Certificate) -> Option<Found> {
    let (ours, certificate) = (Certificate::from_der(ours).ok()?, Certificate::from_der(there).ok()?);
    let same =
        certificate.subject_der() == ours.subject_der() && certificate.public_key() == ours.public_key();
    // Its reference may be our own where the one above is not known.
    let issued = is_of(&certificate, issuer);
    (same && issued).then(|| Found::Genuine {
        sha256: sha256(there),
        revision: certificate.not_before().unix().max(1),
        made_at: certificate.not_before(),
        next_update: None,
    })
}

/// Issued by that one; or it is that one, where nobody is known above it.
fn is_of(certificate: &Certificate, issuer: &Certificate) -> bool {
    certificate.der() == issuer.der() || pki::chain::is_issued_by(certificate, issuer).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(kind: ObjectKind, revision: u64, made_at: u64, content: u8) -> Mark {
        let at = Timestamp::from_unix(made_at);
        let updates = (kind == ObjectKind::Crl).then(|| (at, at.plus(pki::Period::from_days(7))));
        Mark { kind, revision, sha256: [content; 32], updates, issuer_sha256: [0; 32] }
    }

    #[test]
    fn the_newer_one_is_newer_by_number_and_by_date() {
        let crl = |revision, at, content| mark(ObjectKind::Crl, revision, at, content);
        let ours = crl(5, 500, 1);
        let cases = [
            (crl(5, 500, 1), Standing::Same),
            (crl(4, 400, 2), Standing::Behind),
            // Numbers count within a second, too.
            (crl(4, 500, 2), Standing::Behind),
            (crl(6, 600, 2), Standing::Ahead),
            (crl(6, 500, 2), Standing::Ahead),
            (crl(6, 400, 2), Standing::Contradicts),
            (crl(4, 600, 2), Standing::Contradicts),
            (crl(5, 500, 2), Standing::Contradicts),
            (crl(5, 400, 2), Standing::Contradicts),
        ];
        for (there, expected) in cases {
            let found = Found::of(&there);
            assert_eq!(found.stands_to(&ours), expected, "{found:?}");
        }
        assert_eq!(Found::Absent.stands_to(&ours), Standing::Behind);
        assert_eq!(Found::Foreign.stands_to(&ours), Standing::Behind);
    }

    #[test]
    fn of_certificates_the_younger_one_stays() {
        let certificate = |at, content| mark(ObjectKind::Certificate, at, at, content);
        let standing = |at, content| Found::of(&certificate(at, content)).stands_to(&certificate(500, 1));
        assert_eq!(standing(400, 2), Standing::Behind);
        assert_eq!(standing(500, 1), Standing::Same);
        assert_eq!(standing(500, 2), Standing::Behind);
        assert_eq!(standing(600, 2), Standing::Ahead);
    }

    #[test]
    fn a_scope_is_the_same_at_another_host() {
        let ends =
            ["http://a.example/crl/00ff/3.crl", "http://b.example/pki/crl/00ff/3.crl"].map(last_segments);
        assert_eq!(ends, ["00ff/3.crl"; 2]);
        assert_eq!(last_segments("nothing"), "nothing");
    }
}
