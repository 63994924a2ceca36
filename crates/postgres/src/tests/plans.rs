//! No statement reads the whole of a table that grows.

use std::path::PathBuf;

use serde_json::Value;
use sqlx::{ConnectOptions, PgConnection};

use super::Server;
use crate::Options;

/// Every statement of this crate, as `.sqlx` has it, with the number of its arguments.
fn statements() -> Vec<(String, usize)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let statements: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let description: Value = serde_json::from_str(&text).unwrap();
            let arguments = description["describe"]["parameters"]["Left"].as_array().unwrap().len();
            (description["query"].as_str().unwrap().to_owned(), arguments)
        })
        .collect();
    assert!(statements.len() > 100);
    statements
}

/// What may be read whole: tables that an operator or a start fills.
const SMALL: &[&str] = &[
    "ca_meta",
    "crl_shards",
    "directories",
    "imported_crls",
    "incidents",
    "incarnations",
    "issuers",
    "leases",
    "nodes",
    "pg_namespace",
    "pg_replication_slots",
    "pg_stat_replication",
    "profiles",
    "tenants",
];

async fn plan(connection: &mut PgConnection, n: usize, statement: &str, arguments: usize) -> Value {
    let run = async |connection: &mut PgConnection, sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.unwrap();
    };
    run(connection, format!("PREPARE s{n} AS {statement}")).await;
    let nulls = vec!["NULL"; arguments].join(", ");
    let call = if arguments == 0 { format!("s{n}") } else { format!("s{n} ({nulls})") };
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE {call}")))
        .fetch_one(connection)
        .await
        .unwrap()
}

fn look(node: &Value, found: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let table = node["Relation Name"].as_str().unwrap_or_default();
    let whole = match kind {
        "Seq Scan" => true,
        // An index that is read from its beginning to its end.
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" => node["Index Cond"].is_null(),
        _ => false,
    };
    if whole && !SMALL.contains(&table) && !table.starts_with("pg_") {
        found.push(format!("{kind} of {table} {}", node["Index Name"]));
    }
    for inner in node["Plans"].as_array().into_iter().flatten() {
        look(inner, found);
    }
}

#[tokio::test]
async fn no_statement_scans_what_grows() {
    let server = Server::start().await;
    let owner = Options::from_url(&server.cluster.owner_url()).unwrap();
    let mut connection = owner.writing("ca,acme").connect().await.unwrap();
    let mut scans = Vec::new();
    for (n, (statement, arguments)) in statements().into_iter().enumerate() {
        let plan = plan(&mut connection, n, &statement, arguments).await;
        let mut found = Vec::new();
        look(&plan[0]["Plan"], &mut found);
        if !found.is_empty() {
            scans.push((statement, found));
        }
    }
    assert!(scans.is_empty(), "{scans:#?}");
}
