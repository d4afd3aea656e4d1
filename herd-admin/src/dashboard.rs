//! A page for people until the real dashboard is here: which nodes there are, how they are, and where to read more.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use herd_core::fleet::Node;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};

use crate::node_facts::{shown_name, why};
use crate::state::{AdminState, View};

/// The page has neither scripts nor styles, so that nothing at all need be allowed.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Models named per node.
const MODELS_NAMED: usize = 32;

/// The page.
pub(crate) async fn page(State(state): State<AdminState>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, html(&state.view(), &state.config().version)).into_response()
}

fn html(view: &View, version: &str) -> String {
    let rows: String = view.snapshot.nodes.iter().map(|node| row(node, view)).collect();
    let rows = if rows.is_empty() { "<tr><td colspan=\"6\">No node has joined yet.</td></tr>".into() } else { rows };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>herd</title></head>\n<body>\n\
         <h1>herd {}</h1>\n\
         <p>A plain list; the dashboard is not built yet. More, as JSON: <a href=\"/fleet/status\">/fleet/status</a></p>\n\
         <table border=\"1\">\n<tr><th>node</th><th>state</th><th>why</th><th>in flight</th><th>heartbeat</th>\
         <th>models (* in memory)</th></tr>\n{rows}</table>\n</body></html>\n",
        escaped(version),
    )
}

fn row(node: &Node, view: &View) -> String {
    let why = why(node, &view.policy, view.now_ms).map_or_else(String::new, |why| why.message);
    let age_s = view.now_ms.saturating_sub(node.heartbeat_at_ms) / 1000;
    let mark = |model: &herd_core::fleet::Model| if model.resident.is_some() { "*" } else { "" };
    let named = node.models.iter().take(MODELS_NAMED);
    let mut models: Vec<String> = named.map(|model| format!("{}{}", shown_name(model), mark(model))).collect();
    models.sort_unstable();
    let more = node.models.len().saturating_sub(MODELS_NAMED);
    if more > 0 {
        models.push(format!("and {more} more"));
    }
    let mut row = String::from("<tr>");
    let state = node.state(view.now_ms, &view.policy.life).name();
    let in_flight = node.load.in_flight().to_string();
    for cell in [node.id.as_str(), state, &why, &in_flight, &format!("{age_s} s ago"), &models.join(", ")] {
        // Writing to a string cannot fail.
        write!(row, "<td>{}</td>", escaped(cell)).unwrap_or_default();
    }
    row + "</tr>\n"
}

/// Names come from heartbeats: whatever stands in them is text here.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escaped("<img src=x onerror='a'&\">"), "&lt;img src=x onerror=&#39;a&#39;&amp;&quot;&gt;");
    }
}
