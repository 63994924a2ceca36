//! How a column is changed so that its row would still be read, and mean something else.

use crate::support::Database;

/// Columns outside of the MAC: order in the file, leases, what an index needs.
const OUTSIDE: &[(&str, &str)] = &[
    ("accounts", "row"),
    ("journal", "id"),
    ("journal", "owner"),
    ("journal", "lease_until_ms"),
    ("journal", "name_count"),
];

/// Every column of a table that its MAC covers, and the MAC's own.
pub(super) async fn columns(database: &Database, table: &str) -> Vec<String> {
    let mut columns = database.columns(table).await;
    columns.retain(|column| !OUTSIDE.contains(&(table, column.as_str())));
    columns
}

/// The statement that changes one column of one row.
pub(super) fn update(table: &str, column: &str, row: &str) -> String {
    format!("UPDATE {table} SET {column} = {} WHERE {row}", another(table, column))
}

/// Another value for a column, as SQL.
pub(super) fn another(table: &str, column: &str) -> String {
    let last = format!("CASE WHEN substr({column}, -1) = x'00' THEN x'01' ELSE x'00' END");
    let flipped = format!("CAST(substr({column}, 1, length({column}) - 1) || {last} AS BLOB)");
    match (table, column) {
        ("nodes" | "eab_keys", "state") => {
            "CASE state WHEN 'revoked' THEN 'active' ELSE 'revoked' END".into()
        }
        ("issuers", "state") => "'standby'".into(),
        (_, "state") => "CASE state WHEN 'disabled' THEN 'active' ELSE 'disabled' END".into(),
        (_, "status") => "CASE status WHEN 'valid' THEN 'deactivated' ELSE 'valid' END".into(),
        ("permits", "scope") => "'exact'".into(),
        (_, "scope") => "'subtree'".into(),
        (_, "kind") => "'server'".into(),
        ("nodes" | "join_tokens", "role") => "'operator'".into(),
        (_, "contacts") => "'[\"mailto:evil@evil.test\"]'".into(),
        (_, "server_names") => "'[\"bank.test\"]'".into(),
        ("permits" | "grants", "name") => "'bank.test'".into(),
        (_, "used_at") => "NULL".into(),
        ("eab_keys", "uses") => "0".into(),
        (_, "terms_agreed_at") => "coalesce(terms_agreed_at, 0) + 1".into(),
        (_, "max_uses") => "coalesce(max_uses, 0) + 1000000".into(),
        // In the year 2096.
        (_, "expires_at") => "4000000000".into(),
        // Where there is none, of another certificate.
        (_, "replaces") => "CASE WHEN replaces IS NULL THEN x'01' ELSE NULL END".into(),
        // A truth value: any number but 0 is read as the same.
        (_, "counted") => "1 - counted".into(),
        (_, "valid_until" | "abandoned_at") => format!("coalesce({column}, 0) + 1"),
        (_, "registration" | "eab_kid" | "terms_agreed") => format!("coalesce({column}, '') || 'x'"),
        _ => format!(
            "CASE typeof({column}) WHEN 'integer' THEN {column} + 1 WHEN 'blob' THEN {flipped} \
             WHEN 'text' THEN {column} || 'x' END"
        ),
    }
}
