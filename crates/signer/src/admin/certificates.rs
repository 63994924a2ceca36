//! Certificates, one by one: listed, shown, revoked.

use ca_store::{CertificateFilter, CertificateQuery, JournalEntry, JournalKey, JournalKind, JournalRow};
use pki::Serial;
use rpc::proto::admin::v1 as proto;
use rpc::seconds;

use super::{refused, selection};
use crate::ca::Ca;
use crate::issue::issued;
use crate::operator::{page, parse_name};
use crate::refusal::Outcome;
use crate::revoke::names_of;

pub(super) async fn list(
    ca: &Ca,
    request: proto::ListCertificatesRequest,
) -> Outcome<proto::ListCertificatesResponse> {
    let given = [&request.account_id, &request.name, &request.issuer_id];
    if given.iter().filter(|text| !text.is_empty()).count() > 1 {
        return Err(refused("give an account, a name or an issuer, not several of them").into());
    }
    let filter = match (request.account_id.as_str(), request.name.as_str(), request.issuer_id.as_str()) {
        ("", "", "") => CertificateFilter::All,
        (account, "", "") => CertificateFilter::Account(account.to_owned()),
        // In the journal's spelling.
        (_, name, "") => {
            let name = parse_name(name).ok_or_else(|| refused("this is no DNS name or IP address"))?;
            CertificateFilter::Name(name.to_string())
        }
        (.., issuer) => CertificateFilter::Issuer(issuer.to_owned()),
    };
    let page = page(request.page_token, request.page_size);
    let mut query = CertificateQuery::first(filter, page.limit);
    query.page = page;
    let found = ca.store.certificates(&query).await?;
    let certificates: Outcome<Vec<_>> =
        found.items.into_iter().filter(is_subscribers).map(|entry| state(ca, entry)).collect();
    Ok(proto::ListCertificatesResponse {
        certificates: certificates?,
        next_page_token: found.next.map(|cursor| cursor.0).unwrap_or_default(),
    })
}

fn state(ca: &Ca, entry: JournalEntry) -> Outcome<proto::CertificateState> {
    let revoked = entry.revocation.is_some();
    Ok(state_of(ca.journal.open(entry)?, revoked))
}

pub(super) async fn show(
    ca: &Ca,
    request: &proto::ShowCertificateRequest,
) -> Outcome<proto::ShowCertificateResponse> {
    let serial = Serial::from_hex(&request.serial).map_err(|error| refused(&error.to_string()))?;
    let entries = ca.store.journal(&JournalKey::Serial(serial)).await?;
    let entry = entries.into_iter().find(is_subscribers);
    let entry = entry.ok_or_else(|| refused("there is no such certificate").status(404))?;
    let revocation = entry.revocation.clone();
    let row = ca.journal.open(entry)?;
    let certificate = if row.signature.is_some() { issued(&row)?.certificate } else { Vec::new() };
    Ok(proto::ShowCertificateResponse {
        state: Some(state_of(row, revocation.is_some())),
        certificate: certificate.into(),
        revoked_at: revocation.as_ref().map_or(0, |revocation| seconds(revocation.revoked_at)),
        reason: revocation.map_or(0, |revocation| u32::from(revocation.current_reason().code())),
    })
}

pub(super) async fn revoke(
    ca: &Ca,
    operator: &str,
    request: &proto::RevokeCertificateRequest,
) -> Outcome<proto::RevokeCertificateResponse> {
    let serial = Serial::from_hex(&request.serial).map_err(|error| refused(&error.to_string()))?;
    let reason = selection::reason(request.reason)?;
    let at = ca.revoke_by_operator(operator, serial, reason).await?;
    Ok(proto::RevokeCertificateResponse { revoked_at: seconds(at) })
}

/// A certificate as operators see it.
pub(super) fn state_of(row: JournalRow, revoked: bool) -> proto::CertificateState {
    let state = match (revoked, &row.signature, row.abandoned_at) {
        (true, ..) => "revoked",
        (_, Some(_), _) => "issued",
        (_, None, Some(_)) => "abandoned",
        (_, None, None) => "intent",
    };
    let names = names_of(&row).map(|names| names.iter().map(ToString::to_string).collect());
    proto::CertificateState {
        serial: row.serial.to_string(),
        issuer_id: row.issuer,
        account_id: row.account.unwrap_or_default(),
        names: names.unwrap_or_default(),
        not_before: seconds(row.not_before),
        not_after: seconds(row.not_after),
        state: state.to_owned(),
    }
}

/// Nodes' certificates are listed with the nodes.
fn is_subscribers(entry: &JournalEntry) -> bool {
    entry.row.unverified().kind != JournalKind::Node
}
