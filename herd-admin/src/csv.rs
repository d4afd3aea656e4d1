//! Lists as CSV (RFC 4180), for spreadsheets.

use serde_json::{Map, Value};

/// What a spreadsheet takes for the begin of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// `rows`, which are objects, with a head of all their fields. What is nested has a column for each of its fields, named
/// `outer_inner`; a list is one cell.
pub(crate) fn csv(rows: &[Value]) -> String {
    let rows: Vec<_> = rows.iter().map(flat).collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut text = String::new();
    line(&mut text, names.iter().map(|name| quoted(name)));
    for row in &rows {
        let cell =
            |name: &&str| row.iter().find(|(own, _)| own == name).map_or_else(String::new, |(_, cell)| cell.clone());
        line(&mut text, names.iter().map(cell));
    }
    text
}

fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    text.push_str(&cells.collect::<Vec<_>>().join(","));
    text.push_str("\r\n");
}

/// Names and cells, ready to be written.
fn flat(row: &Value) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    match row {
        Value::Object(fields) => flatten("", fields, &mut cells),
        other => cells.push(("value".to_owned(), cell(other))),
    }
    cells
}

fn flatten(prefix: &str, fields: &Map<String, Value>, cells: &mut Vec<(String, String)>) {
    for (name, value) in fields {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}_{name}") };
        match value {
            Value::Object(inner) => flatten(&name, inner, cells),
            value => cells.push((name, cell(value))),
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            quoted(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(";"))
        }
        other => quoted(&other.to_string()),
    }
}

/// `text` as one cell. Names come from clients: none may become a formula.
fn quoted(text: &str) -> String {
    let text = if text.starts_with(FORMULA) { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_become_lines_with_all_columns() {
        let rows = [
            json!({ "a": "x,\"y\"", "b": { "p50": 1.5, "p95": null } }),
            json!({ "a": "=1+1", "c": ["t", "u"], "d": -3, "e": [{}] }),
        ];
        let text = "a,b_p50,b_p95,c,d,e\r\n\"x,\"\"y\"\"\",1.5,,,,\r\n'=1+1,,,t;u,-3,[{}]\r\n";
        assert_eq!(csv(&rows), text);
        assert_eq!(csv(&[]), "\r\n");
    }

    #[test]
    fn no_text_becomes_a_formula() {
        for text in ["=a", "+a", "-a", "@a", "\ta"] {
            assert_eq!(quoted(text), format!("'{text}"));
        }
        assert_eq!(quoted("\rx"), "\"'\rx\"");
    }
}
