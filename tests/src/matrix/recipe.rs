//! The code blocks of docs/clients.md, which are what the tests run: the document is the source.
//!
//! A block is named by a comment on the line before it: `<!-- run: certbot/http-01 -->` for commands of a shell,
//! `<!-- file: caddy/Caddyfile -->` for a configuration.

use std::collections::BTreeMap;

use super::Feature;
use crate::program::root;

/// What the tests and their readers share.
const DOCUMENT: &str = "docs/clients.md";

/// A block, as the document has it.
///
/// # Panics
///
/// When the document has none of that name.
#[must_use]
pub fn block(name: &str) -> String {
    blocks().remove(name).unwrap_or_else(|| panic!("{DOCUMENT} has no block {name}"))
}

/// Every named block: name and text.
///
/// # Panics
///
/// When a name stands before no block, or twice.
#[must_use]
pub fn blocks() -> BTreeMap<String, String> {
    let text = document();
    let mut lines = text.lines();
    let mut found = BTreeMap::new();
    while let Some(line) = lines.next() {
        let name = ["<!-- run: ", "<!-- file: "].iter().find_map(|start| line.strip_prefix(start));
        let Some(name) = name.and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```"), "{DOCUMENT}: {name} stands before no block");
        let mut body = String::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            body.push_str(line);
            body.push('\n');
        }
        assert!(found.insert(name.to_owned(), body).is_none(), "{DOCUMENT}: two blocks are named {name}");
    }
    found
}

/// What the table says that a client was tested with.
///
/// # Panics
///
/// When the table has no such row, or has a word that is none of its own.
#[must_use]
pub fn row(client: &str) -> Vec<Feature> {
    let text = document();
    let mut rows = text.lines().filter(|line| line.starts_with("| ")).map(cells);
    let head =
        rows.find(|cells| cells.first().is_some_and(|cell| *cell == "client")).expect("the table's head");
    let row = rows.find(|cells| cells.first() == Some(&client)).unwrap_or_else(|| panic!("no row {client}"));
    assert_eq!(head.len(), row.len(), "{DOCUMENT}: the row of {client}");
    let columns = head.iter().zip(&row).skip(2);
    columns
        .filter_map(|(column, cell)| match *cell {
            "✓" => Some(Feature::from_column(column)),
            "–" | "✗" => None,
            other => panic!("{DOCUMENT}: {client}, {column}: {other:?} is none of ✓, – and ✗"),
        })
        .collect()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

fn document() -> String {
    std::fs::read_to_string(root().join(DOCUMENT)).expect(DOCUMENT)
}
