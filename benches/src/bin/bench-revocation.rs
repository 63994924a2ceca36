//! What revocation costs: CRLs of any size, OCSP answers a second, and the time until relying parties see it, each beside its
//! baseline in one run. Each part is a module of its own that answers its figures; docs/performance.md explains them.

use benches::{crl, revocation};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value};

/// What revocation costs.
#[derive(Parser)]
struct Arguments {
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "crl,ocsp,delay")]
    parts: Vec<Part>,
    #[command(flatten)]
    crl: crl::Arguments,
    #[command(flatten)]
    revocation: revocation::Arguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// CRLs, from the snapshot to the signed file.
    Crl,
    /// OCSP answers a second, from the cache and signed for the request.
    Ocsp,
    /// From the operator's word to CRL and OCSP at the status node, while certificates are issued.
    Delay,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut figures: Map<String, Value> = Map::new();
    for part in &arguments.parts {
        figures.extend(match part {
            Part::Crl => crl::run(&arguments.crl).await?,
            Part::Ocsp => revocation::ocsp::run(&arguments.revocation).await?,
            Part::Delay => revocation::delay::run(&arguments.revocation).await?,
        });
    }
    println!("{}", Value::Object(figures));
    Ok(())
}
