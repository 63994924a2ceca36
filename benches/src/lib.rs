//! Measurements as ratios against baselines of the same run. Each `make bench-NAME` is a program of this crate: it prints a
//! table and, as its last line, one JSON object.

pub mod acme_client;
pub mod ceilings;
pub mod connection;
pub mod crl;
pub mod disk;
pub mod isolation;
pub mod load;
pub mod operator;
pub mod processes;
pub mod responder;
pub mod revocation;
pub mod stored;

/// A figure with three decimal places.
fn rounded(figure: f64) -> serde_json::Value {
    serde_json::json!((figure * 1000.0).round() / 1000.0)
}
