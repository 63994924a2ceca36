//! What clients feel while others misbehave, as ratios to a quiet round of the same run.

use clap::Parser;
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let figures = benches::isolation::run(&benches::isolation::Arguments::parse()).await?;
    if figures.is_empty() {
        return Ok(());
    }
    println!("{}", Value::Object(figures.clone()));
    benches::isolation::judge(&figures)
}
