//! Rows as CSV, for spreadsheets.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Serialize;
use serde_json::{Map, Value, to_value};

use crate::refusal::Refusal;

/// `rows` as CSV: a column for each field of the first row, those of objects in it as `field.inner`. Lists of words are
/// joined; other lists are left out.
pub(super) fn table(rows: &[impl Serialize]) -> Response {
    let Ok(body) = written(rows) else {
        let message = "the answer could not be written";
        return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response();
    };
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"herd.csv\""),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

fn written(rows: &[impl Serialize]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut columns: Vec<String> = Vec::new();
    for row in rows {
        let mut cells = Map::new();
        flatten("", to_value(row)?, &mut cells);
        if columns.is_empty() {
            columns = cells.keys().cloned().collect();
            writer.write_record(&columns)?;
        }
        writer.write_record(columns.iter().map(|column| cells.get(column).map(cell).unwrap_or_default()))?;
    }
    Ok(writer.into_inner()?)
}

fn flatten(name: &str, value: Value, cells: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let inner = if name.is_empty() { field } else { format!("{name}.{field}") };
                flatten(&inner, value, cells);
            }
        }
        Value::Array(items) if items.iter().any(|item| !item.is_string()) => {}
        value => drop(cells.insert(name.to_owned(), value)),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        Value::Array(words) => harmless(&words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// Spreadsheets take text that begins like this for a formula; names come from clients.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_become_cells_and_none_a_formula() {
        let rows = [
            json!({ "app": "=cmd()", "ttft_ms": { "p50": 1.5, "p95": null }, "tags": ["a", "b"], "nodes": [{ "x": 1 }] }),
            json!({ "app": "a,\"b\"", "ttft_ms": { "p50": 2, "p95": 3 }, "tags": [] }),
        ];
        let text = String::from_utf8(written(&rows).unwrap()).unwrap();
        assert_eq!(text, "app,tags,ttft_ms.p50,ttft_ms.p95\n'=cmd(),a b,1.5,\n\"a,\"\"b\"\"\",,2,3\n");
    }
}
