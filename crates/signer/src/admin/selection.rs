//! Selections of certificates and their revocation, as gRPC.

use ca_store::{JournalRow, TimeRange};
use pki::{Certificate, DnsName, Reason as RevocationReason, Serial, Timestamp};
use rpc::proto::admin::v1 as proto;
use rpc::seconds;

use super::certificates::state_of;
use super::refused;
use crate::ca::Ca;
use crate::operator::parse_name;
use crate::refusal::{Outcome, Refusal};
use crate::revoke::{PageRequest, RunRequest, Selected, SelectionPage, Selector};

/// [`Ca::select`].
pub(super) async fn select(
    ca: &Ca,
    request: proto::SelectCertificatesRequest,
) -> Outcome<proto::SelectionPage> {
    let selector = selector(request.selector.unwrap_or_default())?;
    let reason = reason(request.reason)?;
    let (token, size) = (request.page_token.as_str(), request.page_size);
    Ok(message(ca.select(PageRequest { selector: &selector, reason, token, size }).await?))
}

/// [`Ca::revoke_selected`].
pub(super) async fn revoke(
    ca: &Ca,
    operator: &str,
    request: proto::RevokeSelectedRequest,
) -> Outcome<proto::SelectionPage> {
    let selector = selector(request.selector.unwrap_or_default())?;
    let reason = reason(request.reason)?;
    let (token, size) = (request.page_token.as_str(), request.page_size);
    let who = RunRequest { operator, run: &request.run, expected: request.expected };
    Ok(message(ca.revoke_selected(who, PageRequest { selector: &selector, reason, token, size }).await?))
}

pub(super) fn reason(code: u32) -> Result<RevocationReason, Refusal> {
    let reason = RevocationReason::try_from(i64::from(code));
    reason.map_err(|_| refused("this is no CRLReason (RFC 5280 §5.3.1)"))
}

pub(super) fn selector(message: proto::CertificateSelector) -> Result<Selector, Refusal> {
    let serial =
        |text: &String| Serial::from_hex(text).map_err(|error| refused(&format!("serial {text:?}: {error}")));
    let certificate = |der: &bytes::Bytes| {
        Certificate::from_der(der).map_err(|error| refused(&format!("a certificate: {error}")))
    };
    let given = |text: String| (!text.is_empty()).then_some(text);
    let key = match message.key_sha256.len() {
        0 => None,
        _ => Some(
            message.key_sha256.as_ref().try_into().map_err(|_| refused("a key's SHA-256 has 32 octets"))?,
        ),
    };
    let name = given(message.name).map(|text| {
        parse_name(&text).ok_or_else(|| refused(&format!("{text:?} is no DNS name or IP address")))
    });
    let under = given(message.under).map(|text| {
        DnsName::parse(&text).map_err(|error| refused(&format!("{text:?} is no domain: {error}")))
    });
    Ok(Selector {
        serials: message.serials.iter().map(serial).collect::<Result<_, _>>()?,
        certificates: message.certificates.iter().map(certificate).collect::<Result<_, _>>()?,
        key,
        account: given(message.account_id),
        name: name.transpose()?,
        under: under.transpose()?,
        profile: given(message.profile),
        issuer: given(message.issuer_id),
        issued: times(message.issued_after, message.issued_before)?,
    })
}

fn times(after: i64, before: i64) -> Result<Option<TimeRange>, Refusal> {
    let time = |seconds: i64| {
        u64::try_from(seconds).map(Timestamp::from_unix).map_err(|_| refused("times are after 1970"))
    };
    if after == 0 && before == 0 {
        return Ok(None);
    }
    let before = if before == 0 { Timestamp::MAX } else { time(before)? };
    let range = TimeRange { from: time(after)?, before };
    if range.from >= range.before {
        return Err(refused("nothing is issued after a time and before an earlier one"));
    }
    Ok(Some(range))
}

fn message(page: SelectionPage) -> proto::SelectionPage {
    let text = |serials: Vec<Serial>| serials.iter().map(ToString::to_string).collect();
    proto::SelectionPage {
        certificates: page.certificates.into_iter().map(certificate).collect(),
        already_revoked: text(page.already),
        expired: text(page.expired),
        unknown: text(page.unknown),
        tampered: text(page.tampered),
        next_page_token: page.next.unwrap_or_default(),
        run: page.run,
        keys_blocked: page.blocked,
    }
}

fn certificate(selected: Selected) -> proto::SelectedCertificate {
    let Selected { row, revoked_at, upgraded, shares_key } = selected;
    let revoked = revoked_at.is_some() || upgraded;
    let row: JournalRow = row;
    proto::SelectedCertificate {
        certificate: Some(state_of(row, revoked)),
        revoked_at: revoked_at.map_or(0, seconds),
        upgraded,
        shares_key,
    }
}
