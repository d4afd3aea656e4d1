//! An event as a line for people: when, how grave, where from, the message, and `name=value` for each field.
//!
//! What is not known is left out, text has quotes only where it could be mistaken, and of fractions nobody wants more
//! than three digits. A request's line has some twenty fields and is written for each of them, hence not the formats of
//! `tracing-subscriber`, which show every field as it is and take three times as long for it.

use std::fmt::{self, Write as _};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::{Fields, Form};
use super::line::now;
use super::sink::Sink;

const DIM: &str = "\x1b[2m";
const ITALIC: &str = "\x1b[3m";
const PLAIN: &str = "\x1b[0m";

/// Puts each event into a sink.
#[derive(Debug)]
pub(super) struct PeopleLines {
    /// Where they go.
    pub(super) sink: Sink,
    /// It is a terminal that shows colours.
    pub(super) colours: bool,
    /// The least grave of what is shown.
    pub(super) most: Level,
}

impl<S: Subscriber> Layer<S> for PeopleLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > self.most {
            return;
        }
        let form = Pairs { colours: self.colours, ..Pairs::default() };
        let mut fields = Fields { msg: String::new(), target: None, form };
        event.record(&mut fields);
        let metadata = event.metadata();
        let target = fields.target.as_deref().unwrap_or(metadata.target());
        let (word, colour) = level(*metadata.level());
        let [dim, colour, plain] = if self.colours { [DIM, colour, PLAIN] } else { [""; 3] };
        // In one line, whatever it says.
        let (msg, rest) = (fields.msg.replace(char::is_control, " "), &fields.form.text);
        let line = format!("{dim}{}{plain} {colour}{word}{plain} {dim}{target}:{plain} {msg}{rest}\n", now());
        self.sink.push(line.as_bytes());
    }
}

/// A level's word, all of one length, and its colour.
fn level(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::ERROR => ("ERROR", "\x1b[31m"),
        Level::WARN => (" WARN", "\x1b[33m"),
        Level::INFO => (" INFO", "\x1b[32m"),
        Level::DEBUG => ("DEBUG", "\x1b[34m"),
        Level::TRACE => ("TRACE", "\x1b[35m"),
    }
}

/// Fields as ` name=value`.
#[derive(Debug, Default)]
struct Pairs {
    text: String,
    colours: bool,
}

impl Pairs {
    fn name(&mut self, name: &str) {
        let [italic, dim, plain] = if self.colours { [ITALIC, DIM, PLAIN] } else { [""; 3] };
        for part in [" ", italic, name, plain, dim, "=", plain] {
            self.text.push_str(part);
        }
    }

    fn add(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.name(name);
        // Writing to a string does not fail.
        self.text.write_fmt(value).ok();
    }
}

impl Form for Pairs {
    fn value(&mut self, name: &str, value: impl serde::Serialize + fmt::Display) {
        self.add(name, format_args!("{value}"));
    }

    fn fraction(&mut self, name: &str, value: f64) {
        self.add(name, format_args!("{}", (value * 1e3).round() / 1e3));
    }

    fn text(&mut self, name: &str, text: &str) {
        if text.bytes().all(is_plain) && text.len() <= PLAIN_BYTES {
            self.name(name);
            self.text.push_str(text);
        } else {
            self.add(name, format_args!("{text:?}"));
        }
    }
}

/// Longest text that has no quotes.
const PLAIN_BYTES: usize = 256;

/// A byte that needs no quotes around it: what else is in a line cannot be mistaken for a part of the value.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::log::sink::tests::kept;

    fn logged(colours: bool, log: impl FnOnce()) -> String {
        logged_up_to(Level::TRACE, colours, log)
    }

    fn logged_up_to(most: Level, colours: bool, log: impl FnOnce()) -> String {
        let text = kept(|sink| {
            let lines = PeopleLines { sink, colours, most };
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        });
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_says_what_is_known_and_can_be_told_apart() {
        let text = logged(false, || {
            tracing::warn!(target: "herd::x", request_id = "r/1", ms = 7_u64, none = None::<u64>, empty = "",
                score = 105.780_97, nan = f64::NAN, ok = false, debug = ?[1], odd = "a b=c", error = "no \"space\"\nleft",
                "it {}\nfailed", "then");
        });
        let (ts, rest) = text.split_once(' ').unwrap();
        assert!(ts.len() == 24 && ts.ends_with('Z'), "{ts}");
        let expected = " WARN herd::x: it then failed request_id=r/1 ms=7 score=105.781 nan=NaN ok=false debug=[1] \
            odd=\"a b=c\" error=\"no \\\"space\\\"\\nleft\"\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn what_is_less_grave_than_is_wanted_is_not_shown() {
        let text = logged_up_to(Level::WARN, false, || {
            tracing::info!("a request ended");
            tracing::warn!("a disk is full");
            tracing::error!("and now");
        });
        let lines: Vec<_> = text.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
        assert_eq!(lines, ["a disk is full", "and now"]);
    }

    #[test]
    fn a_terminal_gets_colours_and_no_others_than_ours() {
        let text = logged(true, || tracing::error!(text = "\x1b[5m", "x"));
        assert!(text.contains("\x1b[31mERROR\x1b[0m") && text.contains("\\u{1b}[5m"), "{text:?}");
    }
}
