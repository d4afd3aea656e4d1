//! An event as one line of JSON: `ts`, `level`, `target`, `msg` and the event's own fields beside them.

use std::fmt::Display;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::{Fields, Form};
use super::sink::Sink;

/// Where the date stands in a line.
pub(super) const DAY: std::ops::Range<usize> = 7..17;
/// Length of a date and time with milliseconds, before its `Z`.
const TS_BYTES: usize = 23;

/// Puts each event into a sink.
#[derive(Debug)]
pub(super) struct JsonLines(pub(super) Sink);

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::<Members>::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let target = fields.target.as_deref().unwrap_or(metadata.target());
        self.0.push(&line(*metadata.level(), target, &fields.msg, &fields.form.0));
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

/// Fields as `,"name":value`.
#[derive(Debug, Default)]
struct Members(Vec<u8>);

impl Members {
    fn add(&mut self, name: &str, value: impl serde::Serialize) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        if matches!(name, "ts" | "level" | "target" | "msg") {
            self.0.push(b'_');
        }
        self.0.extend_from_slice(b"\":");
        json(&mut self.0, value);
    }
}

impl Form for Members {
    fn value(&mut self, name: &str, value: impl serde::Serialize + Display) {
        self.add(name, value);
    }

    fn fraction(&mut self, name: &str, value: f64) {
        self.add(name, value);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.add(name, text);
    }
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
