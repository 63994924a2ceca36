//! The management calls. Those of Pebble have its paths and the shape of its answers; the others are this demo's own.

use std::sync::Arc;

use acme::renewal::CertificateId;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pki::{Certificate, Serial};
use rpc::proto::admin::v1 as admin;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::clock::Mover;
use super::faults::{Faults, FrontChange, Outage};
use crate::demo::stack::Ready;

/// What the calls work on.
pub(crate) struct Desk {
    pub(crate) ready: Ready,
    pub(crate) faults: Arc<Faults>,
    /// None: the clock cannot be moved.
    pub(crate) clock: Option<Arc<Mover>>,
}

/// Why a call is not carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    detail: String,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

/// What a call tried and did not achieve.
impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = json!({"status": self.status.as_u16(), "detail": self.detail});
        problem_of(self.status, &problem)
    }
}

fn problem_of(status: StatusCode, problem: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}

/// A JSON body, whatever its Content-Type says: `curl -d` says that it is a form.
///
/// # Errors
///
/// When it is not the call's.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        Refused::new(StatusCode::BAD_REQUEST, format!("the body is not this call's: {error}"))
    })
}

type Answer = Result<Response, Refused>;

pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/roots/{number}", get(root))
        .route("/intermediates/{number}", get(intermediate))
        .route("/root-keys/{number}", get(root_key))
        .route("/intermediate-keys/{number}", get(intermediate_key))
        .route("/cert-status-by-serial/{serial}", get(certificate_status))
        .route("/set-renewal-info/", post(set_renewal_info))
        .route("/set-renewal-info", post(set_renewal_info))
        .route("/faults", get(list_faults).post(set_faults).delete(lift_faults))
        .route("/outages/{of}", post(begin_outage).delete(end_outage))
        .route("/clock", get(show_clock).post(move_clock))
        .fallback(|| async { Refused::new(StatusCode::NOT_FOUND, "there is no such call (docs/ci.md)") })
        .with_state(desk)
}

/// The demo has one chain; Pebble links to its others.
fn only(number: &str) -> Result<(), Refused> {
    match number {
        "0" => Ok(()),
        _ => Err(Refused::new(StatusCode::NOT_FOUND, "this CA has one root and one intermediate: number 0")),
    }
}

fn read(path: std::path::PathBuf) -> Result<String, Refused> {
    Ok(std::fs::read_to_string(&path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?)
}

async fn root(State(desk): State<Arc<Desk>>, Path(number): Path<String>) -> Answer {
    only(&number)?;
    Ok(chain(read(desk.ready.layout.path("ca/root.pem"))?))
}

async fn intermediate(State(desk): State<Arc<Desk>>, Path(number): Path<String>) -> Answer {
    only(&number)?;
    Ok(chain(read(desk.ready.facts.issuer.clone())?))
}

fn chain(pem: String) -> Response {
    ([(header::CONTENT_TYPE, "application/pem-certificate-chain")], pem).into_response()
}

async fn root_key(State(desk): State<Arc<Desk>>, Path(number): Path<String>) -> Answer {
    only(&number)?;
    Ok(no_key("/roots/0", &read(desk.ready.layout.path("ca/root.pem"))?))
}

async fn intermediate_key(State(desk): State<Arc<Desk>>, Path(number): Path<String>) -> Answer {
    only(&number)?;
    Ok(no_key("/intermediates/0", &read(desk.ready.facts.issuer.clone())?))
}

/// A private key never leaves its token: what there is of it for others is its certificate.
fn no_key(at: &str, certificate: &str) -> Response {
    let detail = format!(
        "the key was made in a PKCS#11 token and cannot leave it; its certificate, with the public key, is here and at {at}"
    );
    let status = StatusCode::FORBIDDEN;
    problem_of(status, &json!({"status": status.as_u16(), "detail": detail, "certificate": certificate}))
}

/// A serial as people and openssl write it: without leading zeros, in either case.
fn serial(text: &str) -> Result<Serial, Refused> {
    let bad =
        || Refused::new(StatusCode::BAD_REQUEST, format!("{text:?} is no serial number in hexadecimal"));
    let text = text.to_ascii_lowercase();
    let digits = text.trim_start_matches('0');
    let even = if digits.len().is_multiple_of(2) { digits.to_owned() } else { format!("0{digits}") };
    let mut octets = hex::decode(even).map_err(|_| bad())?;
    // An INTEGER whose first bit is set has an octet before it.
    if octets.first().is_none_or(|first| *first >= 0x80) {
        octets.insert(0, 0);
    }
    Serial::from_bytes(&octets).map_err(|_| bad())
}

/// The signer's own word on a certificate.
async fn look_up(desk: &Desk, serial: Serial) -> Result<admin::ShowCertificateResponse, Refused> {
    let request = admin::ShowCertificateRequest { serial: serial.to_string() };
    match desk.ready.operator.clone().show_certificate(request).await {
        Ok(shown) => Ok(shown.into_inner()),
        Err(status) => {
            let unknown = rpc::refusal(&status).is_some_and(|refusal| refusal.problem.status() == 404);
            let code = if unknown { StatusCode::NOT_FOUND } else { StatusCode::BAD_GATEWAY };
            Err(Refused::new(code, format!("the signer says: {}", status.message())))
        }
    }
}

async fn certificate_status(State(desk): State<Arc<Desk>>, Path(text): Path<String>) -> Answer {
    let serial = serial(&text)?;
    let shown = look_up(&desk, serial).await?;
    if shown.certificate.is_empty() {
        return Err(Refused::new(StatusCode::NOT_FOUND, "it was never signed"));
    }
    let mut status = json!({
        "Certificate": pki::chain::pem_block("CERTIFICATE", &shown.certificate),
        "Serial": hex::encode(serial.as_bytes()).trim_start_matches('0'),
        "Status": if shown.revoked_at == 0 { "Valid" } else { "Revoked" },
    });
    if let (true, Some(members)) = (shown.revoked_at != 0, status.as_object_mut()) {
        let at = OffsetDateTime::from_unix_timestamp(shown.revoked_at).map_err(anyhow::Error::from)?;
        members.insert("RevokedAt".to_owned(), at.format(&Rfc3339).map_err(anyhow::Error::from)?.into());
        // As Pebble: a revocation for no reason names none.
        if shown.reason != 0 {
            members.insert("Reason".to_owned(), shown.reason.into());
        }
    }
    Ok(axum::Json(status).into_response())
}

/// Pebble's call, with its members' names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RenewalInfo {
    /// PEM.
    certificate: String,
    /// What clients are told of its renewal from now on, JSON or not; empty: what the signers say.
    #[serde(rename = "ARIResponse")]
    ari_response: String,
}

async fn set_renewal_info(State(desk): State<Arc<Desk>>, body: Bytes) -> Answer {
    let request: RenewalInfo = parse(&body)?;
    let bad = |detail: &str| Refused::new(StatusCode::BAD_REQUEST, detail);
    let chain = pki::chain::from_pem(&request.certificate).map_err(|_| bad("\"Certificate\" is no PEM"))?;
    let leaf: &Certificate = chain.first().ok_or_else(|| bad("\"Certificate\" holds none"))?;
    look_up(&desk, leaf.serial()).await?;
    let key_id = leaf.authority_key_id().ok_or_else(|| bad("it does not say whose it is"))?;
    let id = CertificateId { authority_key_id: key_id.to_vec(), serial: leaf.serial() };
    desk.faults.set_renewal_info(&id, request.ari_response).await?;
    Ok(StatusCode::OK.into_response())
}

async fn list_faults(State(desk): State<Arc<Desk>>) -> Answer {
    Ok(axum::Json(desk.faults.list().await).into_response())
}

async fn set_faults(State(desk): State<Arc<Desk>>, body: Bytes) -> Answer {
    let change: FrontChange = parse(&body)?;
    desk.faults.change(change).await?;
    list_faults(State(desk)).await
}

async fn lift_faults(State(desk): State<Arc<Desk>>) -> Answer {
    desk.faults.lift_all().await?;
    list_faults(State(desk)).await
}

async fn begin_outage(State(desk): State<Arc<Desk>>, Path(of): Path<String>, body: Bytes) -> Answer {
    let outage: Outage = if body.is_empty() { Outage::default() } else { parse(&body)? };
    Arc::clone(&desk.faults).begin(&of, outage).await?;
    list_faults(State(desk)).await
}

async fn end_outage(State(desk): State<Arc<Desk>>, Path(of): Path<String>) -> Answer {
    desk.faults.end(&of).await?;
    list_faults(State(desk)).await
}

/// The body of a move.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: u64,
}

async fn show_clock(State(desk): State<Arc<Desk>>) -> Answer {
    let now = runtime::Clock::now(&runtime::SystemClock);
    let now = now.format(&Rfc3339).map_err(anyhow::Error::from)?;
    let shown = match &desk.clock {
        Some(mover) => json!({
            "now": now, "movable": true, "advanced_seconds": mover.advanced().await, "environment": mover.environment(),
        }),
        None => json!({"now": now, "movable": false, "advanced_seconds": 0}),
    };
    Ok(axum::Json(shown).into_response())
}

async fn move_clock(State(desk): State<Arc<Desk>>, body: Bytes) -> Answer {
    let Advance { advance_seconds } = parse(&body)?;
    let Some(mover) = &desk.clock else {
        let detail = "the clock of this demo cannot be moved: start it with --movable-clock";
        return Err(Refused::new(StatusCode::CONFLICT, detail));
    };
    if desk.faults.outages().await {
        let detail = "the clock is moved by a restart of every role, and some are out: DELETE /faults first";
        return Err(Refused::new(StatusCode::CONFLICT, detail));
    }
    // To its end, also when the client does not wait for it: a move that stops half-way leaves roles in two times.
    let moving = tokio::spawn({
        let mover = Arc::clone(mover);
        async move { mover.advance(advance_seconds).await }
    });
    moving.await.map_err(anyhow::Error::from)??;
    show_clock(State(desk)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_read_as_people_write_them() {
        for (text, octets) in [
            ("66317D2E02F5D3D6", "66317d2e02f5d3d6"),
            ("0066", "66"),
            ("123", "0123"),
            ("ff01", "00ff01"),
            ("00FF01", "00ff01"),
        ] {
            assert_eq!(hex::encode(serial(text).unwrap().as_bytes()), octets, "{text}");
        }
        for text in ["", "0x12", "12 34", "zz", &"1".repeat(60)] {
            assert_eq!(serial(text).unwrap_err().status(), StatusCode::BAD_REQUEST, "{text}");
        }
    }
}
