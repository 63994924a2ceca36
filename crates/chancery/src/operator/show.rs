//! Answers for people (aligned lines) and for machines (one JSON object).

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Prints one object: a line a member, or JSON.
pub(crate) fn object(json: bool, members: &[(&str, Value)]) -> anyhow::Result<()> {
    if json {
        let map: serde_json::Map<_, _> =
            members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        println!("{}", serde_json::to_string(&map)?);
        return Ok(());
    }
    let width = members.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in members {
        println!("{name:width$}  {}", text(value));
    }
    Ok(())
}

/// Prints a list: a table, or a JSON object with the one member `items`.
pub(crate) fn list(json: bool, columns: &[&str], rows: &[Vec<Value>], next: &str) -> anyhow::Result<()> {
    if json {
        let items: Vec<Value> = rows
            .iter()
            .map(|row| {
                columns.iter().zip(row).map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
            })
            .collect();
        println!("{}", serde_json::json!({ "items": items, "next_page": next }));
        return Ok(());
    }
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let widest = cells.iter().filter_map(|row| row.get(index)).map(String::len).max().unwrap_or(0);
            widest.max(name.len())
        })
        .collect();
    let line = |row: &[String]| {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(&columns.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>());
    cells.iter().for_each(|row| line(row));
    if rows.is_empty() {
        println!("(none)");
    }
    if !next.is_empty() {
        println!("More: --page {next}");
    }
    Ok(())
}

/// Seconds since the Unix epoch as RFC 3339; empty for none.
pub(crate) fn time(seconds: i64) -> Value {
    match (seconds, OffsetDateTime::from_unix_timestamp(seconds)) {
        (1.., Ok(at)) => Value::String(at.format(&Rfc3339).unwrap_or_default()),
        _ => Value::Null,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
