//! What revocation costs: CRLs of any size, beside OpenSSL's, in one run. Each part is a module of its own that answers its
//! figures; docs/performance.md explains them.

use benches::crl;
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value};

/// What revocation costs.
#[derive(Parser)]
struct Arguments {
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "crl")]
    parts: Vec<Part>,
    #[command(flatten)]
    crl: crl::Arguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// CRLs, from the snapshot to the signed file.
    Crl,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut figures: Map<String, Value> = Map::new();
    for part in &arguments.parts {
        figures.extend(match part {
            Part::Crl => crl::run(&arguments.crl).await?,
        });
    }
    println!("{}", Value::Object(figures));
    Ok(())
}
