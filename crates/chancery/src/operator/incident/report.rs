//! What has become of an incident's certificates, as a table or as JSON.

use std::collections::BTreeMap;

use rpc::proto::admin::v1 as admin;
use serde_json::{Map, Value, json};

use super::{members, progress};
use crate::operator::revoke::run::patiently;
use crate::operator::{Connection, show};

/// The states, in the order of a report.
const STATES: [&str; 6] = ["replaced", "renewed", "revoked", "revoked-otherwise", "expired", "left"];

/// Has every certificate looked at, then shows the numbers.
pub(super) async fn report(
    signer: &mut Connection,
    json: bool,
    id: String,
    accounts: bool,
) -> anyhow::Result<()> {
    let incident = ask(signer, &id).await?;
    let left = incident.counts.iter().filter(|count| count.state == "left").map(|count| count.count).sum();
    let bar = progress(json, left, "looked at");
    let mut page_token = String::new();
    loop {
        let request = admin::ReviewIncidentRequest { incident: id.clone(), page_token };
        let page = patiently(|| {
            let (mut signer, request) = (signer.clone(), request.clone());
            async move { signer.review_incident(request).await }
        })
        .await?;
        bar.inc(page.reviewed);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    bar.finish_and_clear();
    let incident = ask(signer, &id).await?;
    let accounts = if accounts { Some(of_accounts(signer, &id).await?) } else { None };
    show(json, &incident, accounts.as_deref())
}

async fn ask(signer: &Connection, id: &str) -> anyhow::Result<admin::Incident> {
    patiently(|| {
        let (mut signer, request) = (signer.clone(), admin::IncidentRequest { incident: id.to_owned() });
        async move { signer.show_incident(request).await }
    })
    .await
}

async fn of_accounts(signer: &Connection, id: &str) -> anyhow::Result<Vec<admin::IncidentAccount>> {
    let (mut accounts, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            admin::ListIncidentAccountsRequest { incident: id.to_owned(), page_token, page_size: 1000 };
        let page = patiently(|| {
            let (mut signer, request) = (signer.clone(), request.clone());
            async move { signer.list_incident_accounts(request).await }
        })
        .await?;
        accounts.extend(page.accounts);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(accounts);
        }
    }
}

/// An incident with its numbers.
pub(super) fn show(
    json: bool,
    incident: &admin::Incident,
    accounts: Option<&[admin::IncidentAccount]>,
) -> anyhow::Result<()> {
    let mut waves: BTreeMap<u32, Vec<&admin::MemberCount>> =
        (0..incident.waves).map(|wave| (wave, vec![])).collect();
    for count in &incident.counts {
        waves.entry(count.wave).or_default().push(count);
    }
    let all: Vec<&admin::MemberCount> = incident.counts.iter().collect();
    if json {
        let mut object: Map<String, Value> =
            members(incident).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        object.insert("total".to_owned(), numbers(&all).into());
        let waves = waves.iter().map(|(wave, counts)| {
            let mut numbers = numbers(counts);
            let (begins, ends) = window(incident, *wave);
            numbers.insert("wave".to_owned(), json!(wave + 1));
            numbers.insert("window_begins".to_owned(), show::time(begins));
            numbers.insert("window_ends".to_owned(), show::time(ends));
            Value::Object(numbers)
        });
        object.insert("by_wave".to_owned(), waves.collect());
        if let Some(accounts) = accounts {
            let accounts = accounts.iter().map(|account| {
                let mut numbers = numbers(&account.counts.iter().collect::<Vec<_>>());
                numbers.insert("account".to_owned(), account.account_id.clone().into());
                Value::Object(numbers)
            });
            object.insert("by_account".to_owned(), accounts.collect());
        }
        println!("{}", Value::Object(object));
        return Ok(());
    }
    show::object(false, &members(incident))?;
    println!();
    let mut rows: Vec<Vec<Value>> = waves
        .iter()
        .map(|(wave, counts)| {
            let (begins, _) = window(incident, *wave);
            [json!(wave + 1), show::time(begins)].into_iter().chain(cells(counts)).collect()
        })
        .collect();
    rows.push([json!("all"), Value::Null].into_iter().chain(cells(&all)).collect());
    let columns: Vec<&str> = ["wave", "begins", "selected"].into_iter().chain(STATES).collect();
    show::list(false, &columns, &rows, "")?;
    let Some(accounts) = accounts else { return Ok(()) };
    println!();
    let rows: Vec<Vec<Value>> = accounts
        .iter()
        .map(|account| {
            let id = if account.account_id.is_empty() { "(our own servers)" } else { &account.account_id };
            let counts: Vec<_> = account.counts.iter().collect();
            std::iter::once(json!(id)).chain(cells(&counts)).collect()
        })
        .collect();
    let columns: Vec<&str> = ["account", "selected"].into_iter().chain(STATES).collect();
    show::list(false, &columns, &rows, "")
}

fn window(incident: &admin::Incident, wave: u32) -> (i64, i64) {
    let seconds = i64::try_from(incident.wave_seconds).unwrap_or(i64::MAX);
    let begins = incident.begins_at.saturating_add(seconds.saturating_mul(wave.into()));
    (begins, begins.saturating_add(seconds))
}

fn of(counts: &[&admin::MemberCount], state: &str) -> u64 {
    counts.iter().filter(|count| count.state == state).map(|count| count.count).sum()
}

fn cells(counts: &[&admin::MemberCount]) -> Vec<Value> {
    let selected: u64 = counts.iter().map(|count| count.count).sum();
    std::iter::once(json!(selected)).chain(STATES.iter().map(|state| json!(of(counts, state)))).collect()
}

fn numbers(counts: &[&admin::MemberCount]) -> Map<String, Value> {
    let names =
        std::iter::once("selected".to_owned()).chain(STATES.iter().map(|state| state.replace('-', "_")));
    names.zip(cells(counts)).collect()
}
