//! A strict reader of JSON objects: a member twice is an error at every level, and depth, width and size are bounded.
//!
//! `serde_json` and josekit let the last of two equal members win, so two readers of one JWS could see two headers.
//! Here a name is compared after its escapes are resolved: `"alg"` and `"\u0061lg"` are the same member.

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// No object of RFC 8555 needs more than four levels; a key change within its JWS is read level by level.
pub(crate) const MAX_DEPTH: usize = 16;
/// No object of RFC 8555 has more than a dozen members. Bounded because duplicates are found by comparing all pairs.
pub(crate) const MAX_MEMBERS: usize = 64;

/// Why a text is not the JSON object that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, not UTF-8, or something after its end.
    #[error("not valid JSON: {}", without_content(.0))]
    Syntax(#[from] serde_json::Error),
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A member occurs twice in one object.
    #[error("the member {0:?} occurs twice")]
    Duplicate(String),
    /// Nested deeper than anything that ACME has.
    #[error("nested too deeply")]
    TooDeep,
    /// More members in one object than anything that ACME has.
    #[error("too many members in one object")]
    TooManyMembers,
    /// The member has another JSON type than its definition says.
    #[error("the member {name:?} is not {expected}")]
    WrongType {
        /// The member's name.
        name: &'static str,
        /// What its definition says.
        expected: &'static str,
    },
}

/// What serde says, up to the first word of the client's: no payload goes into a log or is sent back at length.
fn without_content(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason: String = text.split('"').next().unwrap_or_default().chars().take(160).collect();
    if reason.len() == text.len() {
        return reason;
    }
    format!("{} at line {} column {}", reason.trim_end(), error.line(), error.column())
}

/// A JSON value, reduced to what the readers of this crate look at.
#[derive(Debug)]
enum Value {
    Text(String),
    Object(Object),
    Other,
}

/// The members of an object, each name once.
#[derive(Debug, Default)]
pub(crate) struct Object(Vec<(String, Value)>);

impl Object {
    pub(crate) fn from_slice(bytes: &[u8]) -> Result<Self, JsonError> {
        let fault = RefCell::new(None);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Seed { depth: MAX_DEPTH, fault: &fault }.deserialize(&mut reader);
        if let Some(fault) = fault.take() {
            return Err(fault);
        }
        let value = value?;
        reader.end()?;
        match value {
            Value::Object(object) => Ok(object),
            Value::Text(_) | Value::Other => Err(JsonError::NotAnObject),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn take_text(&mut self, name: &'static str) -> Result<Option<String>, JsonError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(JsonError::WrongType { name, expected: "a string" }),
        }
    }

    pub(crate) fn take_object(&mut self, name: &'static str) -> Result<Option<Object>, JsonError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(JsonError::WrongType { name, expected: "an object" }),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fault = RefCell::new(None);
        let value = Seed { depth: MAX_DEPTH, fault: &fault }.deserialize(deserializer)?;
        match value {
            Value::Object(object) => Ok(object),
            Value::Text(_) | Value::Other => Err(de::Error::custom(JsonError::NotAnObject)),
        }
    }
}

/// Reads a whole JSON object into `T`, after the strict reader has passed it.
///
/// Two passes, because serde's own reader keeps the last of two unknown members and takes an array for a struct.
pub(crate) fn from_slice<T: de::DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    Object::from_slice(bytes)?;
    Ok(serde_json::from_slice(bytes)?)
}

/// For `#[serde(deserialize_with)]`: `T` from an object only; serde's derive would take an array as well.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct ObjectOnly<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectOnly<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_map(ObjectOnly(std::marker::PhantomData))
}

/// Reads one value; `fault` carries the exact reason past serde's textual errors.
struct Seed<'f> {
    depth: usize,
    fault: &'f RefCell<Option<JsonError>>,
}

impl Seed<'_> {
    fn fail<E: de::Error>(&self, fault: JsonError) -> E {
        let error = E::custom(&fault);
        self.fault.borrow_mut().get_or_insert(fault);
        error
    }

    fn inner<E: de::Error>(&self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Seed { depth, fault: self.fault }),
            None => Err(self.fail(JsonError::TooDeep)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        while elements.next_element_seed(self.inner()?)?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.iter().any(|(known, _)| *known == name) {
                return Err(self.fail(JsonError::Duplicate(name.chars().take(64).collect())));
            }
            if members.len() == MAX_MEMBERS {
                return Err(self.fail(JsonError::TooManyMembers));
            }
            let value = map.next_value_seed(self.inner()?)?;
            members.push((name, value));
        }
        Ok(Value::Object(Object(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8]) -> JsonError {
        Object::from_slice(text).unwrap_err()
    }

    #[test]
    fn a_member_twice_is_refused_at_every_level_and_under_every_spelling() {
        for text in [
            r#"{"alg":"ES256","alg":"ES256"}"#,
            r#"{"alg":"ES256","\u0061lg":"none"}"#,
            r#"{"x":{"alg":1,"alg":2}}"#,
            r#"{"x":[[{"alg":1,"alg":2}]]}"#,
            r#"{"alg":null,"alg":"ES256"}"#,
        ] {
            assert!(matches!(fault(text.as_bytes()), JsonError::Duplicate(name) if name == "alg"), "{text}");
        }
        // Different names stay different: JSON names are compared code point by code point.
        assert!(Object::from_slice(br#"{"alg":1,"Alg":2,"alg ":3}"#).is_ok());
    }

    #[test]
    fn depth_width_and_shape_are_bounded() {
        let nested = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
        assert!(Object::from_slice(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(fault(nested(MAX_DEPTH + 1).as_bytes()), JsonError::TooDeep));
        let arrays = format!(r#"{{"a":{}"#, "[".repeat(50_000));
        assert!(matches!(fault(arrays.as_bytes()), JsonError::TooDeep));
        let wide = |n: usize| {
            let members: Vec<String> = (0..n).map(|i| format!(r#""m{i}":0"#)).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(Object::from_slice(wide(MAX_MEMBERS).as_bytes()).is_ok());
        assert!(matches!(fault(wide(MAX_MEMBERS + 1).as_bytes()), JsonError::TooManyMembers));
        for text in [&b"[]"[..], b"1", b"\"a\"", b"null", b"true", b"1.5", b"-1"] {
            assert!(matches!(fault(text), JsonError::NotAnObject));
        }
    }

    #[test]
    fn syntax_is_strict() {
        for text in [
            &b""[..],
            b"{",
            b"{} x",
            b"{}{}",
            b"{'a':1}",
            b"{a:1}",
            b"{\"a\":1,}",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\n\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":1e999}",
            b"{\"a\":01}",
            b"{} // no",
        ] {
            assert!(matches!(fault(text), JsonError::Syntax(_)), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_payload() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only its failure is looked at")]
        struct Flag {
            on: bool,
        }
        let text = format!(r#"{{"on":"secret{}"}}"#, "x".repeat(10_000));
        let error = from_slice::<Flag>(text.as_bytes()).unwrap_err().to_string();
        assert!(!error.contains("secret") && error.len() < 200, "{error}");
        assert!(error.starts_with("not valid JSON: invalid type: string at line 1 column"), "{error}");
        let missing = from_slice::<Flag>(b"{}").unwrap_err().to_string();
        assert!(missing.contains("missing field `on`"), "{missing}");
        #[derive(Debug, Deserialize)]
        enum One {
            Known,
        }
        let variant = format!(r#"{{"{}":1}}"#, "v".repeat(10_000));
        assert!(from_slice::<One>(variant.as_bytes()).unwrap_err().to_string().len() < 200);
        assert!(matches!(serde_json::from_str("\"Known\""), Ok(One::Known)));
        let long = format!(r#"{{"{0}":1,"{0}":2}}"#, "k".repeat(10_000));
        assert!(fault(long.as_bytes()).to_string().len() < 200);
    }

    #[test]
    fn types_are_asked_for_by_name() {
        let mut object = Object::from_slice(br#"{"t":"x","o":{"t":"y"},"n":1}"#).unwrap();
        assert!(object.contains("n") && !object.contains("m"));
        assert!(matches!(object.take_text("n"), Err(JsonError::WrongType { name: "n", .. })));
        assert_eq!(object.take_text("t").unwrap().as_deref(), Some("x"));
        assert_eq!(object.take_text("t").unwrap(), None);
        assert_eq!(object.take_object("o").unwrap().unwrap().take_text("t").unwrap().as_deref(), Some("y"));
        let mut object = Object::from_slice(br#"{"t":null,"o":"x"}"#).unwrap();
        assert!(object.take_text("t").is_err() && object.take_object("o").is_err());
    }

    #[test]
    fn a_struct_does_not_come_from_an_array() {
        #[derive(Debug, Deserialize)]
        struct Pair {
            a: u8,
        }
        assert_eq!(from_slice::<Pair>(br#"{"a":1,"unknown":2}"#).unwrap().a, 1);
        assert!(matches!(from_slice::<Pair>(b"[1]"), Err(JsonError::NotAnObject)));
        assert!(matches!(from_slice::<Pair>(br#"{"a":1,"x":1,"x":2}"#), Err(JsonError::Duplicate(_))));
        let mut reader = serde_json::Deserializer::from_slice(b"[1]");
        assert!(object::<_, Pair>(&mut reader).is_err());
    }
}
