//! `/health/live`, `/health/ready` and `/metrics`, on a port of their own.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::{lifecycle::Lifecycle, telemetry};

/// Serves until it is aborted: a draining program still answers, with "not ready".
pub(crate) async fn serve(listener: TcpListener, lifecycle: Lifecycle) {
    if let Err(error) = axum::serve(listener, router(lifecycle)).await {
        tracing::error!(%error, "health.ended");
    }
}

pub(crate) fn router(lifecycle: Lifecycle) -> Router {
    Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(lifecycle)
}

async fn ready(State(lifecycle): State<Lifecycle>) -> impl IntoResponse {
    let report = lifecycle.readiness().report(lifecycle.is_draining());
    let status = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render_metrics())
}
