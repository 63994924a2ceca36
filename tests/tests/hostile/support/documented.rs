//! The tables of `docs/trust.md`, read back.

use std::collections::{BTreeMap, BTreeSet};

/// What the document says of each attack: rows of the table below a heading that begins with the test's name in back
/// quotes, with the words in back quotes of their last column.
pub(crate) fn documented(heading: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(e2e::program::root().join("docs/trust.md")).expect("docs/trust.md");
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).expect("its section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let name = words(cells.first().expect("a name")).pop_first().expect("a name in back quotes");
        (name, words(cells.last().expect("a refusal")))
    })
    .collect()
}
