//! Incidents, as gRPC. What they are is in [`crate::revoke`].

use ca_store::{AccountMembers, IncidentRow, MemberCount, MemberState};
use pki::{Period, Serial, Timestamp};
use rpc::proto::admin::v1 as proto;
use rpc::seconds;

use super::{refused, selection};
use crate::ca::Ca;
use crate::operator::page;
use crate::refusal::{Outcome, Refusal};
use crate::revoke::{PageRequest, Plan};

pub(super) async fn open(
    ca: &Ca,
    operator: &str,
    request: proto::OpenIncidentRequest,
) -> Outcome<proto::Incident> {
    let plan = Plan {
        title: request.title,
        url: request.url,
        reason: selection::reason(request.reason)?,
        deadline: time(request.deadline)?,
        begins_at: if request.begins_at == 0 { None } else { Some(time(request.begins_at)?) },
        waves: request.waves,
        wave: (request.wave_seconds > 0).then(|| Period::from_seconds(request.wave_seconds)),
    };
    Ok(message(ca.open_incident(operator, plan).await?, Vec::new()))
}

pub(super) async fn collect(
    ca: &Ca,
    operator: &str,
    request: proto::CollectIncidentRequest,
) -> Outcome<proto::CollectIncidentResponse> {
    let selector = selection::selector(request.selector.unwrap_or_default())?;
    let (token, size) = (request.page_token.as_str(), request.page_size);
    // The reason is the incident's.
    let reason = pki::Reason::Unspecified;
    let page = PageRequest { selector: &selector, reason, token, size };
    let collected = ca.collect_members(operator, &request.incident, page).await?;
    let text = |serials: Vec<Serial>| serials.iter().map(ToString::to_string).collect();
    Ok(proto::CollectIncidentResponse {
        added: collected.added,
        left: collected.left,
        already_revoked: collected.revoked,
        expired: collected.expired,
        unknown: text(collected.unknown),
        tampered: text(collected.tampered),
        next_page_token: collected.next.unwrap_or_default(),
    })
}

pub(super) async fn show(ca: &Ca, id: &str) -> Outcome<proto::Incident> {
    let (row, counts) = ca.incident(id).await?;
    Ok(message(row, counts))
}

pub(super) async fn extend(
    ca: &Ca,
    operator: &str,
    request: proto::ExtendIncidentRequest,
) -> Outcome<proto::Incident> {
    let row = ca.extend_incident(operator, &request.incident, time(request.deadline)?).await?;
    Ok(message(row, Vec::new()))
}

pub(super) async fn list(
    ca: &Ca,
    request: proto::ListIncidentsRequest,
) -> Outcome<proto::ListIncidentsResponse> {
    let rows = ca.incidents(request.current, page(request.page_token, request.page_size)).await?;
    Ok(proto::ListIncidentsResponse {
        incidents: rows.items.into_iter().map(|row| message(row, Vec::new())).collect(),
        next_page_token: rows.next.map(|cursor| cursor.0).unwrap_or_default(),
    })
}

pub(super) async fn review(
    ca: &Ca,
    request: proto::ReviewIncidentRequest,
) -> Outcome<proto::ReviewIncidentResponse> {
    let after = page(request.page_token, 0).after;
    let (reviewed, next) = ca.review_incident(&request.incident, after).await?;
    let next_page_token = next.map(|cursor| cursor.0).unwrap_or_default();
    Ok(proto::ReviewIncidentResponse { reviewed, next_page_token })
}

pub(super) async fn accounts(
    ca: &Ca,
    request: proto::ListIncidentAccountsRequest,
) -> Outcome<proto::ListIncidentAccountsResponse> {
    let page = page(request.page_token, request.page_size);
    let rows = ca.incident_accounts(&request.incident, page).await?;
    Ok(proto::ListIncidentAccountsResponse {
        accounts: rows.items.into_iter().map(account).collect(),
        next_page_token: rows.next.map(|cursor| cursor.0).unwrap_or_default(),
    })
}

pub(super) fn message(row: IncidentRow, counts: Vec<MemberCount>) -> proto::Incident {
    proto::Incident {
        id: row.id,
        title: row.title,
        url: row.url,
        reason: row.reason,
        deadline: seconds(row.deadline),
        begins_at: seconds(row.begins_at),
        waves: row.waves,
        wave_seconds: row.wave_seconds,
        state: row.state.as_str().to_owned(),
        created_at: seconds(row.created_at),
        ended_at: row.ended_at.map_or(0, seconds),
        counts: counts.into_iter().map(|count| member_count(count.wave, count.state, count.count)).collect(),
    }
}

fn account(members: AccountMembers) -> proto::IncidentAccount {
    proto::IncidentAccount {
        account_id: members.account,
        counts: members.counts.into_iter().map(|(state, count)| member_count(0, state, count)).collect(),
    }
}

fn member_count(wave: u32, state: MemberState, count: u64) -> proto::MemberCount {
    proto::MemberCount { wave, state: state.as_str().to_owned(), count }
}

fn time(seconds: i64) -> Result<Timestamp, Refusal> {
    u64::try_from(seconds).map(Timestamp::from_unix).map_err(|_| refused("times are after 1970"))
}
