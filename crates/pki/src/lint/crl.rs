//! Lints of CRLs: RFC 5280 §5 and BR §7.2, in one pass over the entries and in flat memory.

mod entries;

use const_oid::{ObjectIdentifier, db::rfc5280 as oid};
use der::{
    Decode, Encode, Reader, SliceReader, Tag, TagNumber,
    asn1::{ContextSpecific, UintRef},
};
use x509_cert::ext::{
    Extension,
    pkix::{
        AuthorityKeyIdentifier, CrlDistributionPoints,
        crl::dp::IssuingDistributionPoint,
        name::{DistributionPointName, GeneralName},
    },
};

use super::{
    Finding, Severity,
    cabf_br::unlisted_signature,
    rfc5280::{YEAR_2050, algorithm},
    view::Moment,
};
use crate::{Certificate, Timestamp};

/// What the lints know beside the octets of a TBSCertList.
#[derive(Clone, Copy, Debug)]
pub struct CrlLintContext<'a> {
    /// The issuer's certificate.
    pub issuer: &'a Certificate,
    /// When it will be signed.
    pub signed_at: Timestamp,
    /// The URL of the shard, as in the certificates; `None` for a complete CRL.
    pub url: Option<&'a str>,
    /// The URL of the shard's delta CRL, if the issuer makes deltas.
    pub delta_url: Option<&'a str>,
    /// The number of the CRL before it, if there was one.
    pub previous_number: Option<u64>,
    /// Whether the Baseline Requirements' rules apply as well.
    pub publicly_trusted: bool,
}

/// A TBSCertList, read but not judged.
struct CrlView<'a> {
    version: Option<u8>,
    signature: &'a [u8],
    issuer: &'a [u8],
    this_update: Moment,
    next_update: Option<Moment>,
    /// The content of revokedCertificates, if the field is there.
    entries: Option<&'a [u8]>,
    extensions: Vec<Extension>,
    number: Option<Vec<u8>>,
    delta_base: Option<Vec<u8>>,
    authority_key_id: Option<AuthorityKeyIdentifier>,
    scope: Option<IssuingDistributionPoint>,
    freshest: Option<CrlDistributionPoints>,
    undecodable: Option<ObjectIdentifier>,
}

/// One rule: its name, its clause, whether only publicly trusted CRLs follow it, and the function
/// that looks for a breach.
struct CrlRule {
    name: &'static str,
    clause: &'static str,
    public: bool,
    find: fn(&CrlView<'_>, &CrlLintContext<'_>) -> Option<String>,
}

const fn must(
    name: &'static str,
    clause: &'static str,
    find: fn(&CrlView<'_>, &CrlLintContext<'_>) -> Option<String>,
) -> CrlRule {
    CrlRule { name, clause, public: false, find }
}

const fn public(
    name: &'static str,
    clause: &'static str,
    find: fn(&CrlView<'_>, &CrlLintContext<'_>) -> Option<String>,
) -> CrlRule {
    CrlRule { name, clause, public: true, find }
}

const RULES: &[CrlRule] = &[
    must("rfc5280.crl_version", "RFC 5280 §5.1.2.1", version),
    must("rfc5280.crl_signature_algorithm", "RFC 5280 §5.1.1.2, §5.1.2.2", signature_algorithm),
    must("rfc5280.crl_issuer", "RFC 5280 §5.1.2.3", issuer),
    must("rfc5280.crl_next_update", "RFC 5280 §5.1.2.5", next_update),
    must("rfc5280.crl_time_encoding", "RFC 5280 §5.1.2.4, §5.1.2.5", time_encoding),
    must("rfc5280.crl_empty_list", "RFC 5280 §5.1.2.6", empty_list),
    must("rfc5280.crl_extensions_known", "RFC 5280 §5.2", extensions_known),
    must("rfc5280.crl_extensions_unique", "RFC 5280 §5.2, §4.2", extensions_unique),
    must("rfc5280.crl_extensions_decode", "RFC 5280 §5.2", extensions_decode),
    must("rfc5280.crl_extensions_critical", "RFC 5280 §5.2", extensions_critical),
    must("rfc5280.crl_authority_key_id", "RFC 5280 §5.2.1", authority_key_id),
    must("rfc5280.crl_number", "RFC 5280 §5.2.3", number),
    must("rfc5280.crl_number_rises", "RFC 5280 §5.2.3", number_rises),
    must("rfc5280.crl_delta_base", "RFC 5280 §5.2.4", delta_base),
    must("rfc5280.crl_scope", "RFC 5280 §5.2.5", scope),
    must("rfc5280.crl_scope_is_the_certificates", "RFC 5280 §5.2.5, BR §7.2.2.1", scope_url),
    must("rfc5280.crl_freshest", "RFC 5280 §5.2.6, §4.2.1.15", freshest),
    must("operator.crl_this_update", "policy: a CRL is of now", this_update),
    public("cabf_br.crl_signature_algorithm", "BR §7.2, §7.1.3.2", public_signature_algorithm),
    public("cabf_br.crl_next_update", "BR §4.9.7, §7.2", next_update_limit),
    public("cabf_br.crl_scope", "BR §7.2.2.1", public_scope),
];

/// Runs the lints over a TBSCertList. No error among the findings means that it may be signed.
#[must_use]
pub fn check_crl(tbs: &[u8], context: &CrlLintContext<'_>) -> Vec<Finding> {
    let view = match CrlView::read(tbs) {
        Ok(view) => view,
        Err(error) => {
            return vec![finding(
                "rfc5280.crl_decodes",
                "RFC 5280 §5.1",
                format!("not a TBSCertList in DER: {error}"),
            )];
        }
    };
    let rules = RULES.iter().filter(|rule| context.publicly_trusted || !rule.public);
    let mut findings: Vec<_> = rules
        .filter_map(|rule| Some(finding(rule.name, rule.clause, (rule.find)(&view, context)?)))
        .collect();
    findings.extend(entries::check(&view, context));
    findings
}

fn finding(lint: &'static str, clause: &'static str, detail: String) -> Finding {
    Finding { lint, clause, severity: Severity::Error, detail }
}

impl<'a> CrlView<'a> {
    fn read(tbs: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(tbs)?;
        let mut view = reader.sequence(Self::fields)?;
        reader.finish()?;
        for index in 0..view.extensions.len() {
            view.decode(index);
        }
        Ok(view)
    }

    fn fields(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        let version = Option::<u8>::decode(reader)?;
        let signature = reader.tlv_bytes()?;
        let issuer = reader.tlv_bytes()?;
        let this_update = Moment::read(reader)?;
        let next_tag = |reader: &SliceReader<'_>| {
            if reader.is_finished() { Ok(None) } else { Tag::peek(reader).map(Some) }
        };
        let next_update = match next_tag(reader)? {
            Some(Tag::UtcTime | Tag::GeneralizedTime) => Some(Moment::read(reader)?),
            _ => None,
        };
        let entries = match next_tag(reader)? {
            Some(Tag::Sequence) => Some(reader.sequence(|reader| reader.read_slice(reader.remaining_len()))?),
            _ => None,
        };
        let extensions = ContextSpecific::<Vec<Extension>>::decode_explicit(reader, TagNumber(0))?;
        Ok(Self {
            version,
            signature,
            issuer,
            this_update,
            next_update,
            entries,
            extensions: extensions.map(|field| field.value).unwrap_or_default(),
            number: None,
            delta_base: None,
            authority_key_id: None,
            scope: None,
            freshest: None,
            undecodable: None,
        })
    }

    fn decode(&mut self, index: usize) {
        let Some(extension) = self.extensions.get(index) else { return };
        let octets = extension.extn_value.as_bytes();
        let decoded = match extension.extn_id {
            oid::ID_CE_CRL_NUMBER => unsigned(octets).map(|number| self.number = Some(number)),
            oid::ID_CE_DELTA_CRL_INDICATOR => unsigned(octets).map(|number| self.delta_base = Some(number)),
            oid::ID_CE_AUTHORITY_KEY_IDENTIFIER => {
                canonical(octets).map(|id| self.authority_key_id = Some(id))
            }
            oid::ID_CE_ISSUING_DISTRIBUTION_POINT => canonical(octets).map(|scope| self.scope = Some(scope)),
            oid::ID_CE_FRESHEST_CRL => canonical(octets).map(|points| self.freshest = Some(points)),
            _ => Some(()),
        };
        if decoded.is_none() {
            self.undecodable = Some(extension.extn_id);
        }
    }
}

/// Only what encodes to the same octets was DER.
fn canonical<T: for<'d> Decode<'d, Error = der::Error> + Encode>(octets: &[u8]) -> Option<T> {
    T::from_der(octets).ok().filter(|value| value.to_der().is_ok_and(|der| der == octets))
}

fn unsigned(octets: &[u8]) -> Option<Vec<u8>> {
    UintRef::from_der(octets).ok().map(|number| number.as_bytes().to_vec())
}

fn version(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    (view.version != Some(1)).then(|| "the version is not v2".to_owned())
}

fn signature_algorithm(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    let family = algorithm::signature(view.signature).map(|(family, _)| family);
    (family.is_none() || family != algorithm::key(context.issuer.public_key().spki_der()))
        .then(|| "the algorithm is unknown, or not one of the issuer's key".to_owned())
}

fn issuer(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    (view.issuer != context.issuer.subject_der())
        .then(|| "the issuer is not, octet by octet, the issuer's subject".to_owned())
}

fn next_update(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let good = view.next_update.is_some_and(|next| next.seconds > view.this_update.seconds);
    (!good).then(|| "nextUpdate is missing, or not after thisUpdate".to_owned())
}

fn time_encoding(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    std::iter::once(view.this_update).chain(view.next_update).find_map(time_fault)
}

fn time_fault(moment: Moment) -> Option<String> {
    let expected = if moment.seconds < YEAR_2050 { Tag::UtcTime } else { Tag::GeneralizedTime };
    (moment.tag != expected).then(|| format!("a time is a {}, not a {expected}", moment.tag))
}

fn empty_list(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    view.entries.is_some_and(<[u8]>::is_empty).then(|| "revokedCertificates is there, and empty".to_owned())
}

/// Every extension of our CRLs, and whether it is critical.
const KNOWN: &[(ObjectIdentifier, bool)] = &[
    (oid::ID_CE_AUTHORITY_KEY_IDENTIFIER, false),  // §5.2.1
    (oid::ID_CE_CRL_NUMBER, false),                // §5.2.3
    (oid::ID_CE_DELTA_CRL_INDICATOR, true),        // §5.2.4
    (oid::ID_CE_ISSUING_DISTRIBUTION_POINT, true), // §5.2.5
    (oid::ID_CE_FRESHEST_CRL, false),              // §5.2.6
];

fn extensions_known(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let unknown =
        view.extensions.iter().find(|extension| KNOWN.iter().all(|(id, _)| *id != extension.extn_id));
    unknown.map(|extension| format!("extension {} is not one of ours", extension.extn_id))
}

fn extensions_unique(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let twice = view.extensions.iter().enumerate().find(|(at, extension)| {
        view.extensions.iter().take(*at).any(|earlier| earlier.extn_id == extension.extn_id)
    });
    twice.map(|(_, extension)| format!("extension {} is there twice", extension.extn_id))
}

fn extensions_decode(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    view.undecodable.map(|id| format!("the value of extension {id} is not the DER of its type"))
}

fn extensions_critical(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    view.extensions.iter().find_map(|extension| {
        let (_, critical) = KNOWN.iter().find(|(id, _)| *id == extension.extn_id)?;
        (*critical != extension.critical)
            .then(|| format!("extension {} has the wrong criticality", extension.extn_id))
    })
}

fn authority_key_id(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    let id = view.authority_key_id.as_ref().and_then(|id| id.key_identifier.as_ref());
    let good = id.is_some_and(|id| Some(id.as_bytes()) == context.issuer.key_id());
    (!good).then(|| "the authority key identifier is missing, or not the issuer's own".to_owned())
}

fn number(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let octets = view.number.as_ref().map_or(usize::MAX, Vec::len);
    (octets > 20).then(|| "CRLNumber is missing, or longer than 20 octets".to_owned())
}

fn number_rises(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    let previous = context.previous_number?.to_be_bytes();
    let number = view.number.as_ref()?;
    let significant =
        |octets: &[u8]| octets.iter().copied().skip_while(|octet| *octet == 0).collect::<Vec<_>>();
    let (previous, number) = (significant(&previous), significant(number));
    ((number.len(), &number) <= (previous.len(), &previous)).then(|| "CRLNumber does not rise".to_owned())
}

fn delta_base(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let (base, number) = (view.delta_base.as_ref()?, view.number.as_ref()?);
    ((base.len(), base) >= (number.len(), number)).then(|| "BaseCRLNumber is not below CRLNumber".to_owned())
}

/// "at most one of onlyContainsUserCerts, onlyContainsCACerts, and onlyContainsAttributeCerts"; an
/// issuing distribution point that says nothing must not be there; this CA has no indirect CRLs and
/// none by reason.
fn scope(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let scope = view.scope.as_ref()?;
    let kinds =
        [scope.only_contains_user_certs, scope.only_contains_ca_certs, scope.only_contains_attribute_certs];
    let kinds = kinds.into_iter().filter(|only| *only).count();
    (kinds > 1
        || scope.indirect_crl
        || scope.only_some_reasons.is_some()
        || scope.only_contains_attribute_certs
        || (kinds == 0 && scope.distribution_point.is_none()))
    .then(|| {
        "the issuing distribution point contradicts itself, or is of a kind that this CA does not have"
            .to_owned()
    })
}

fn scope_url(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    let name = view.scope.as_ref().and_then(|scope| scope.distribution_point.as_ref());
    let found = match name {
        None => None,
        Some(DistributionPointName::FullName(names)) => match names.as_slice() {
            [GeneralName::UniformResourceIdentifier(uri)] => Some(uri.as_str()),
            _ => return Some("the issuing distribution point is not one URL".to_owned()),
        },
        Some(_) => return Some("the issuing distribution point is relative".to_owned()),
    };
    (found != context.url)
        .then(|| format!("the URL is {found:?}, that of the certificates {:?}", context.url))
}

/// A complete CRL says where its delta is, exactly as the certificates do; a delta never does.
fn freshest(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    let expected = context.delta_url.filter(|_| view.delta_base.is_none());
    let points = view.freshest.as_ref().map_or(&[][..], |points| points.0.as_slice());
    let found = match points {
        [] if view.freshest.is_none() => None,
        [point] if point.reasons.is_none() && point.crl_issuer.is_none() => match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => match names.as_slice() {
                [GeneralName::UniformResourceIdentifier(uri)] => Some(uri.as_str()),
                _ => return Some("the freshest CRL is not one URL".to_owned()),
            },
            _ => return Some("the freshest CRL has no full name".to_owned()),
        },
        _ => return Some("the freshest CRL is not one distribution point with one URL".to_owned()),
    };
    (found != expected).then(|| format!("the URL of the delta CRL is {found:?}, not {expected:?}"))
}

/// Backdating a little is good for slow clocks; the future is not.
fn this_update(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    let now = context.signed_at.unix();
    let over = view.next_update.is_some_and(|next| next.seconds <= now);
    (view.this_update.seconds > now || over)
        .then(|| "thisUpdate is in the future, or nextUpdate past".to_owned())
}

fn public_signature_algorithm(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Option<String> {
    unlisted_signature(view.signature, context.issuer.public_key().spki_der())
}

/// "at most ten days beyond thisUpdate" for subscribers' certificates, twelve months for CAs'.
fn next_update_limit(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let period = view.next_update?.seconds.saturating_sub(view.this_update.seconds);
    let of_subscribers = view.scope.as_ref().is_some_and(|scope| scope.only_contains_user_certs);
    let days = if of_subscribers { 10 } else { 366 };
    (period > days * 86_400).then(|| format!("nextUpdate is more than {days} days after thisUpdate"))
}

/// "MUST NOT assert both of onlyContainsUserCerts and onlyContainsCACerts"; without the first a
/// sharded CRL of an issuing CA would also speak of its CAs.
fn public_scope(view: &CrlView<'_>, _: &CrlLintContext<'_>) -> Option<String> {
    let scope = view.scope.as_ref()?;
    (scope.only_contains_user_certs == scope.only_contains_ca_certs)
        .then(|| "it is neither of users' nor of CAs' certificates alone".to_owned())
}

#[cfg(test)]
mod tests;
