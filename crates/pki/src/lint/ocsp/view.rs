//! A ResponseData as the lints see it: read with `der`'s own types alone.

use der::{
    Choice, Sequence, Tag, Tagged,
    asn1::{AnyRef, GeneralizedTime, Null, OctetStringRef},
};
use x509_cert::{
    ext::{Extension, pkix::CrlReason},
    spki::AlgorithmIdentifierRef,
};

/// ResponseData (RFC 6960 §4.2.1).
#[derive(Sequence)]
pub(super) struct OcspView<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "Default::default")]
    pub(super) version: u8,
    pub(super) responder_id: AnyRef<'a>,
    pub(super) produced_at: GeneralizedTime,
    pub(super) responses: Vec<SingleView<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<Extension>>,
}

/// SingleResponse.
#[derive(Sequence)]
pub(super) struct SingleView<'a> {
    /// CertID, as it is: it is compared octet by octet.
    pub(super) cert_id: AnyRef<'a>,
    pub(super) status: StatusView,
    pub(super) this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<Extension>>,
}

/// CertStatus.
#[derive(Choice)]
#[asn1(tag_mode = "IMPLICIT")]
pub(super) enum StatusView {
    #[asn1(context_specific = "0")]
    Good(Null),
    #[asn1(context_specific = "1", constructed = "true")]
    Revoked(RevokedView),
    #[asn1(context_specific = "2")]
    Unknown(Null),
}

/// RevokedInfo.
#[derive(Sequence)]
pub(super) struct RevokedView {
    pub(super) at: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) reason: Option<CrlReason>,
}

/// CertID.
#[derive(Sequence)]
pub(super) struct IdView<'a> {
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    pub(super) name_hash: &'a OctetStringRef,
    pub(super) key_hash: &'a OctetStringRef,
    pub(super) serial: AnyRef<'a>,
}

impl OcspView<'_> {
    /// `byKey [2]`, EXPLICIT.
    pub(super) fn responder_key_hash(&self) -> Option<&[u8]> {
        match (self.responder_id.tag(), self.responder_id.value()) {
            (Tag::ContextSpecific { number, constructed: true }, [0x04, 20, hash @ ..])
                if number.value() == 2 =>
            {
                Some(hash)
            }
            _ => None,
        }
    }
}

impl<'a> SingleView<'a> {
    pub(super) fn read_id(&self) -> der::Result<IdView<'a>> {
        self.cert_id.decode_as()
    }
}

pub(super) fn seconds(time: &GeneralizedTime) -> u64 {
    time.to_unix_duration().as_secs()
}
