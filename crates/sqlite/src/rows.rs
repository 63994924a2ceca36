//! Sets of rows as arguments of one statement.
//!
//! Each statement of sqlx is a message to the connection's thread and one back, some 40 µs; a row
//! costs a tenth of that. So a batch's rows go into one statement: as a JSON array of arrays for
//! `json_each`, whose octet strings (and long texts) are pieces of one blob beside it. In SQL, with
//! `r` for the row:
//!
//! - a number, a word, a text: `r.value ->> 3`
//! - octets, two places: `substr(?, r.value ->> 4, r.value ->> 5)`; a long text likewise, with
//!   `CAST(… AS TEXT)`
//! - anything absent: `null`, in both places, which `substr` keeps.

use std::fmt::Write;

/// Rows being collected.
#[derive(Debug)]
pub(crate) struct Rows {
    json: String,
    octets: Vec<u8>,
    count: usize,
}

impl Rows {
    pub(crate) fn new() -> Self {
        Self { json: String::from("["), octets: Vec::new(), count: 0 }
    }

    /// Begins a row, which ends when it is dropped.
    pub(crate) fn row(&mut self) -> Row<'_> {
        self.json.push_str(if self.count == 0 { "[" } else { ",[" });
        self.count += 1;
        Row { rows: self, first: true }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The JSON text and the blob.
    pub(crate) fn finish(mut self) -> (String, Vec<u8>) {
        self.json.push(']');
        (self.json, self.octets)
    }
}

/// A row being written.
pub(crate) struct Row<'a> {
    rows: &'a mut Rows,
    first: bool,
}

impl Row<'_> {
    /// One place: a whole number.
    pub(crate) fn number(&mut self, number: impl Into<Option<i64>>) -> &mut Self {
        self.separate();
        match number.into() {
            Some(number) => _ = write!(self.rows.json, "{number}"),
            None => self.rows.json.push_str("null"),
        }
        self
    }

    /// One place: a short text.
    pub(crate) fn text<'t>(&mut self, text: impl Into<Option<&'t str>>) -> &mut Self {
        self.separate();
        match text.into() {
            Some(text) => quote(&mut self.rows.json, text),
            None => self.rows.json.push_str("null"),
        }
        self
    }

    /// Two places: octets, or a long text.
    pub(crate) fn octets<'o>(&mut self, octets: impl Into<Option<&'o [u8]>>) -> &mut Self {
        self.separate();
        match octets.into() {
            Some(octets) => {
                // `substr` counts from one.
                _ = write!(self.rows.json, "{},{}", self.rows.octets.len() + 1, octets.len());
                self.rows.octets.extend_from_slice(octets);
            }
            None => self.rows.json.push_str("null,null"),
        }
        self
    }

    fn separate(&mut self) {
        if !self.first {
            self.rows.json.push(',');
        }
        self.first = false;
    }
}

impl Drop for Row<'_> {
    fn drop(&mut self) {
        self.rows.json.push(']');
    }
}

/// A JSON string. Most texts here are ids and words that need no escape.
fn quote(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => _ = write!(json, "\\u{:04x}", u32::from(control)),
            other => json.push(other),
        }
    }
    json.push('"');
}

/// A JSON list of texts, for a column that holds one.
pub(crate) fn list(texts: &[String]) -> String {
    let mut json = String::from("[");
    for (place, text) in texts.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        quote(&mut json, text);
    }
    json.push(']');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_json_with_pieces_of_a_blob() {
        let mut rows = Rows::new();
        rows.row().number(7).text("a\"\\\u{1}ü").octets(b"xyz".as_slice());
        rows.row().number(None).text(None).octets(None).octets(b"".as_slice()).octets(b"!".as_slice());
        let (json, octets) = rows.finish();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            value,
            serde_json::json!([[7, "a\"\\\u{1}ü", 1, 3], [null, null, null, null, 4, 0, 4, 1]])
        );
        assert_eq!(octets, b"xyz!");
    }

    #[test]
    fn a_list_reads_back() {
        let texts = vec!["mailto:a@example.org".to_owned(), "\"\n".to_owned()];
        assert_eq!(serde_json::from_str::<Vec<String>>(&list(&texts)).unwrap(), texts);
        assert_eq!(list(&[]), "[]");
    }
}
