//! The calls that change the name server's records: the ones that Pebble's challenge test server has for DNS, with the same
//! paths and bodies.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;

use super::management::{Refused, parse};
use crate::demo::dns::Zone;

/// The calls that are about answering challenges; the demo leaves that to the client that is tested.
const ELSEWHERE: &[&str] = &[
    "add-http01",
    "del-http01",
    "add-redirect",
    "del-redirect",
    "add-tlsalpn01",
    "del-tlsalpn01",
    "http-request-history",
    "tlsalpn01-request-history",
];

/// The body of every call: each takes of it what it needs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    #[serde(alias = "Host")]
    host: String,
    #[serde(alias = "Value")]
    value: String,
    #[serde(alias = "Target")]
    target: String,
    #[serde(alias = "IP", alias = "Ip")]
    ip: String,
    #[serde(alias = "Addresses")]
    addresses: Vec<String>,
    #[serde(alias = "Policies")]
    policies: Vec<Policy>,
    #[serde(rename = "type", alias = "Type")]
    kind: String,
}

/// A CAA property.
#[derive(Debug, Deserialize)]
struct Policy {
    #[serde(alias = "Tag")]
    tag: String,
    #[serde(alias = "Value")]
    value: String,
}

pub(crate) fn router(zone: Arc<Zone>) -> Router {
    Router::new().route("/{call}", post(answer)).with_state(zone)
}

async fn answer(State(zone): State<Arc<Zone>>, Path(call): Path<String>, body: Bytes) -> Response {
    // Files are read and written: small ones, of one host's tests.
    match parse(&body).and_then(|body| carry_out(&zone, &call, body)) {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

fn carry_out(zone: &Zone, call: &str, body: Body) -> Result<Response, Refused> {
    let host = body.host.as_str();
    match call {
        "set-default-ipv4" => zone.defaults().ipv4 = optional::<Ipv4Addr>(&body.ip)?,
        "set-default-ipv6" => zone.defaults().ipv6 = optional::<Ipv6Addr>(&body.ip)?,
        "set-txt" => add(zone, host, [format!("TXT {}", given("value", &body.value)?)])?,
        "clear-txt" => clear(zone, host, "TXT")?,
        "add-a" => add(zone, host, addresses::<Ipv4Addr>("A", &body.addresses)?)?,
        "clear-a" => clear(zone, host, "A")?,
        "add-aaaa" => add(zone, host, addresses::<Ipv6Addr>("AAAA", &body.addresses)?)?,
        "clear-aaaa" => clear(zone, host, "AAAA")?,
        "add-caa" => add(zone, host, policies(&body.policies)?)?,
        "clear-caa" => clear(zone, host, "CAA")?,
        "set-cname" => {
            let target = format!("CNAME {}", given("target", &body.target)?);
            clear(zone, host, "CNAME")?;
            add(zone, host, [target])?;
        }
        "clear-cname" => clear(zone, host, "CNAME")?,
        "set-servfail" => add(zone, host, ["SERVFAIL".to_owned()])?,
        "clear-servfail" => clear(zone, host, "SERVFAIL")?,
        "dns-request-history" => return Ok(history(zone, given("host", host)?)),
        "clear-request-history" if body.kind == "dns" => {
            let host = dotted(given("host", host)?);
            zone.asked().retain(|asked| asked.name != host);
        }
        other if ELSEWHERE.contains(&other) || other == "clear-request-history" => {
            let detail = "this demo answers no challenges itself: serve the answer where the validator looks (docs/ci.md)";
            return Err(Refused::new(StatusCode::NOT_IMPLEMENTED, detail));
        }
        other => {
            return Err(Refused::new(
                StatusCode::NOT_FOUND,
                format!("there is no call {other:?} (docs/ci.md)"),
            ));
        }
    }
    Ok(StatusCode::OK.into_response())
}

fn bad(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, detail)
}

/// A member that must be there, and is one line.
fn given<'a>(member: &str, text: &'a str) -> Result<&'a str, Refused> {
    if text.is_empty() || text.contains(['\n', '\r']) {
        return Err(bad(format!("{member:?} must be there, on one line")));
    }
    Ok(text)
}

fn optional<A: std::str::FromStr>(text: &str) -> Result<Option<A>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| bad(format!("{text:?} is no such address")))
}

fn addresses<A: std::str::FromStr + ToString>(kind: &str, texts: &[String]) -> Result<Vec<String>, Refused> {
    if texts.is_empty() {
        return Err(bad("\"addresses\" must name one"));
    }
    let line = |text: &String| -> Result<String, Refused> {
        let address: A =
            text.parse().map_err(|_| bad(format!("{text:?} is no address for a record {kind}")))?;
        Ok(format!("{kind} {}", address.to_string()))
    };
    texts.iter().map(line).collect()
}

fn policies(policies: &[Policy]) -> Result<Vec<String>, Refused> {
    if policies.is_empty() {
        return Err(bad("\"policies\" must name one"));
    }
    let line = |policy: &Policy| {
        let tag = given("tag", &policy.tag)?;
        if !tag.bytes().all(|octet| octet.is_ascii_alphanumeric()) {
            return Err(bad(format!("{tag:?} is no tag of CAA")));
        }
        if policy.value.contains(['\n', '\r']) {
            return Err(bad("\"value\" must be on one line"));
        }
        Ok(format!("CAA 0 {tag} {}", policy.value))
    };
    policies.iter().map(line).collect()
}

/// Adds lines to a name; one that is there already is not added again.
fn add(zone: &Zone, host: &str, lines: impl IntoIterator<Item = String>) -> Result<(), Refused> {
    let host = given("host", host)?;
    let changed = zone.edit(host, |there| {
        for line in lines {
            if !there.contains(&line) {
                there.push(line);
            }
        }
    });
    changed.map_err(|error| bad(format!("{error:#}")))
}

/// Takes all records of a kind from a name.
fn clear(zone: &Zone, host: &str, kind: &str) -> Result<(), Refused> {
    let host = given("host", host)?;
    let changed =
        zone.edit(host, |lines| lines.retain(|line| line.split(' ').next().is_none_or(|word| word != kind)));
    changed.map_err(|error| bad(format!("{error:#}")))
}

fn dotted(host: &str) -> String {
    format!("{}.", host.to_ascii_lowercase().trim_end_matches('.'))
}

/// The questions about a name.
fn history(zone: &Zone, host: &str) -> Response {
    let host = dotted(host);
    let events: Vec<_> = zone
        .asked()
        .iter()
        .filter(|asked| asked.name == host)
        .map(|asked| json!({"Question": {"Name": asked.name, "Qtype": asked.kind, "Qclass": asked.class}}))
        .collect();
    axum::Json(events).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_changes_its_own_records_and_refuses_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let zone = Zone::new(folder.path().to_owned(), Ipv4Addr::LOCALHOST);
        let call = |name: &str, body: &str| {
            parse(body.as_bytes())
                .and_then(|body| carry_out(&zone, name, body))
                .map_err(|refused| refused.status())
        };
        let lines = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        call("set-txt", r#"{"host":"_acme-challenge.a.test.","value":"one"}"#).unwrap();
        call("set-txt", r#"{"host":"_acme-challenge.a.test.","value":"two"}"#).unwrap();
        assert_eq!(lines("_acme-challenge.a.test"), "TXT one\nTXT two\n");
        call("add-a", r#"{"host":"a.test","addresses":["192.0.2.1","192.0.2.2"]}"#).unwrap();
        call("add-aaaa", r#"{"Host":"a.test","Addresses":["2001:DB8::1"]}"#).unwrap();
        call("add-caa", r#"{"host":"a.test","policies":[{"tag":"issue","value":";"}]}"#).unwrap();
        call("set-servfail", r#"{"host":"a.test"}"#).unwrap();
        assert_eq!(lines("a.test"), "A 192.0.2.1\nA 192.0.2.2\nAAAA 2001:db8::1\nCAA 0 issue ;\nSERVFAIL\n");
        for kind in ["a", "caa", "servfail"] {
            call(&format!("clear-{kind}"), r#"{"host":"a.test"}"#).unwrap();
        }
        assert_eq!(lines("a.test"), "AAAA 2001:db8::1\n");
        for target in ["x.test", "y.test"] {
            call("set-cname", &format!(r#"{{"host":"c.test","target":"{target}"}}"#)).unwrap();
        }
        assert_eq!(lines("c.test"), "CNAME y.test\n");
        call("set-default-ipv4", r#"{"ip":""}"#).unwrap();
        assert_eq!(zone.defaults().ipv4, None);
        call("set-default-ipv4", r#"{"ip":"10.0.0.1"}"#).unwrap();
        assert_eq!(zone.defaults().ipv4, Some(Ipv4Addr::new(10, 0, 0, 1)));
        for (name, body, status) in [
            ("set-txt", "{", 400),
            ("set-txt", r#"{"host":"a.test"}"#, 400),
            ("set-txt", r#"{"host":"../a","value":"x"}"#, 400),
            ("set-txt", r#"{"host":"a.test","value":"x\nA 192.0.2.9"}"#, 400),
            ("add-a", r#"{"host":"a.test","addresses":["2001:db8::1"]}"#, 400),
            ("add-a", r#"{"host":"a.test"}"#, 400),
            ("add-caa", r#"{"host":"a.test","policies":[{"tag":"is sue","value":""}]}"#, 400),
            ("set-default-ipv4", r#"{"ip":"x"}"#, 400),
            ("add-http01", "{}", 501),
            ("set-spf", "{}", 404),
        ] {
            assert_eq!(call(name, body).unwrap_err().as_u16(), status, "{name} {body}");
        }
    }
}
