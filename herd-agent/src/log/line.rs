//! An event as one line of JSON: `ts`, `level`, `target`, `msg` and the event's own fields beside them.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Layer};

use super::sink::Sink;

/// Longest text of one field; the rest is cut off.
const TEXT_BYTES: usize = 4_096;
/// Where the date stands in a line.
pub(super) const DAY: std::ops::Range<usize> = 7..17;
/// Length of a date and time with milliseconds, before its `Z`.
const TS_BYTES: usize = 23;

/// Puts each event into a sink.
#[derive(Debug)]
pub(super) struct JsonLines(pub(super) Sink);

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let target = fields.target.as_deref().unwrap_or(metadata.target());
        self.0.push(&line(*metadata.level(), target, &fields.msg, &fields.rest));
    }
}

/// One line; `rest` is `,"name":value` for each field.
pub(super) fn line(level: Level, target: &str, msg: &str, rest: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(128 + target.len() + msg.len() + rest.len());
    line.extend_from_slice(b"{\"ts\":\"");
    line.extend_from_slice(now().as_bytes());
    line.extend_from_slice(b"\",\"level\":");
    json(&mut line, word(level));
    line.extend_from_slice(b",\"target\":");
    json(&mut line, target);
    line.extend_from_slice(b",\"msg\":");
    json(&mut line, msg);
    line.extend_from_slice(rest);
    line.extend_from_slice(b"}\n");
    line
}

/// The wall clock in RFC 3339 with milliseconds, in UTC.
pub(super) fn now() -> String {
    let mut text = String::with_capacity(32);
    // Writing to a string does not fail.
    SystemTime.format_time(&mut Writer::new(&mut text)).ok();
    text.truncate(TS_BYTES);
    text.push('Z');
    text
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json(line: &mut Vec<u8>, value: impl serde::Serialize) {
    // Neither writing to memory nor these types can fail.
    drop(serde_json::to_writer(line, &value));
}

/// The fields of one event.
#[derive(Debug, Default)]
struct Fields {
    msg: String,
    /// Where the event comes from, when it came through the `log` crate.
    target: Option<String>,
    rest: Vec<u8>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: impl serde::Serialize) {
        let name = field.name();
        self.rest.extend_from_slice(b",\"");
        self.rest.extend_from_slice(name.as_bytes());
        if matches!(name, "ts" | "level" | "target" | "msg") {
            self.rest.push(b'_');
        }
        self.rest.extend_from_slice(b"\":");
        json(&mut self.rest, value);
    }

    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => self.msg = cut(text).into_owned(),
            "log.target" => self.target = Some(text.to_owned()),
            // Where in its source a library logged is nobody's business.
            name if name.starts_with("log.") => {}
            // What is not known has no field.
            _ if text.is_empty() => {}
            _ => self.add(field, cut(text)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            self.add(field, value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string fails only when the value's own formatting does.
        write!(text, "{value:?}").ok();
        self.text(field, &text);
    }
}

pub(super) fn cut(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= TEXT_BYTES {
        return text.into();
    }
    format!("{}\u{2026}", &text[..text.floor_char_boundary(TEXT_BYTES)]).into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::log::sink::tests::kept;

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let text =
            kept(|sink| tracing::subscriber::with_default(tracing_subscriber::registry().with(JsonLines(sink)), log));
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_has_the_fields_of_its_event() {
        let error = std::io::Error::other("no \"space\"\nleft");
        let mut lines = logged(|| {
            tracing::warn!(target: "herd::x", request_id = "r", %error, ms = 7_u64, none = None::<u64>, empty = "",
                score = 1.5, nan = f64::NAN, ok = true, level = "mine", debug = ?[1], "it {}", "failed");
        });
        let mut line = lines.remove(0);
        let ts = line.as_object_mut().unwrap().remove("ts").unwrap();
        let ts = ts.as_str().unwrap();
        assert!(ts.len() == 24 && ts.ends_with('Z') && ts.as_bytes()[19] == b'.', "{ts}");
        let expected = json!({"level": "warn", "target": "herd::x", "msg": "it failed", "request_id": "r",
            "error": "no \"space\"\nleft", "ms": 7, "score": 1.5, "nan": null, "ok": true, "level_": "mine",
            "debug": "[1]"});
        assert_eq!(line, expected);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let lines = logged(|| tracing::info!(long = "\u{e9}".repeat(5_000), "x"));
        let long = lines[0]["long"].as_str().unwrap();
        assert_eq!((long.chars().count(), long.chars().last()), (2_049, Some('\u{2026}')));
    }

    #[test]
    fn the_day_stands_where_files_look_for_it() {
        let line = line(Level::INFO, "t", "m", b"");
        let day = std::str::from_utf8(&line[DAY]).unwrap();
        assert!(day.len() == 10 && day.as_bytes()[4] == b'-' && day.starts_with("20"), "{day}");
    }
}
