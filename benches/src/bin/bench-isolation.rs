//! What clients feel while others misbehave, as ratios to quiet rounds of the same run.

use clap::Parser;
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let figures = benches::isolation::run(&benches::isolation::Arguments::parse()).await?;
    println!("{}", Value::Object(figures));
    Ok(())
}
