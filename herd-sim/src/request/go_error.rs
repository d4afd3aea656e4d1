//! The words in which Go's decoder refuses a body: read a second time, slowly, to find them.

use serde_json::Value;

use crate::surface::Surface;

/// Fields whose type Go would complain about, with the type it would name.
const GO_TYPES: [(&str, Kind, &str); 12] = [
    ("model", Kind::String, "string"),
    ("name", Kind::String, "string"),
    ("prompt", Kind::String, "string"),
    ("suffix", Kind::String, "string"),
    ("messages", Kind::Array, "[]api.Message"),
    ("images", Kind::Array, "[]api.ImageData"),
    ("tools", Kind::Array, "api.Tools"),
    ("stream", Kind::Bool, "bool"),
    ("raw", Kind::Bool, "bool"),
    ("truncate", Kind::Bool, "bool"),
    ("options", Kind::Object, "map[string]interface {}"),
    ("max_tokens", Kind::Number, "int"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    String,
    Array,
    Bool,
    Object,
    Number,
}

impl Kind {
    fn of(value: &Value) -> Option<(Self, &'static str)> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some((Self::Bool, "bool")),
            Value::Number(_) => Some((Self::Number, "number")),
            Value::String(_) => Some((Self::String, "string")),
            Value::Array(_) => Some((Self::Array, "array")),
            Value::Object(_) => Some((Self::Object, "object")),
        }
    }
}

/// The text of Go's decoder for a body that `error` refused.
pub(super) fn text(body: &[u8], surface: Surface, error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let target = surface.go_struct();
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(fields)) => GO_TYPES
            .iter()
            .find_map(|(field, expected, go_type)| {
                let (kind, found) = Kind::of(fields.get(*field)?)?;
                let text =
                    format!("json: cannot unmarshal {found} into Go struct field {target}.{field} of type {go_type}");
                (kind != *expected).then_some(text)
            })
            .unwrap_or_else(|| format!("json: cannot unmarshal into Go value of type {target}: {error}")),
        Ok(other) => {
            let found = Kind::of(&other).map_or("null", |(_, found)| found);
            format!("json: cannot unmarshal {found} into Go value of type api.{target}")
        }
        Err(_) => syntax_error(body, error),
    }
}

fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    let line_start = body.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len);
    let at = line_start.sum::<usize>() + error.column().saturating_sub(1);
    let found = body.get(at).map_or(' ', |byte| char::from(*byte));
    format!("invalid character '{found}' looking for beginning of value")
}
