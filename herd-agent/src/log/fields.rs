//! The fields of one event, told apart for every kind of line.

use std::fmt::{self, Display, Write as _};

use serde::Serialize;
use tracing::field::{Field, Visit};

/// Longest text of one field; the rest is cut off.
const TEXT_BYTES: usize = 4_096;

/// How one kind of line has its fields.
pub(super) trait Form {
    /// A whole number or a truth value.
    fn value(&mut self, name: &str, value: impl Serialize + Display);
    /// A number that may have a fraction.
    fn fraction(&mut self, name: &str, value: f64);
    /// Text that is not empty.
    fn text(&mut self, name: &str, text: &str);
}

/// What an event says: its message, and its fields in a form.
#[derive(Debug, Default)]
pub(super) struct Fields<F> {
    pub(super) msg: String,
    /// Where the event comes from, when it came through the `log` crate.
    pub(super) target: Option<String>,
    pub(super) form: F,
}

impl<F: Form> Fields<F> {
    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => self.msg = cut(text).into_owned(),
            "log.target" => self.target = Some(text.to_owned()),
            // Where in its source a library logged is nobody's business.
            name if name.starts_with("log.") => {}
            // What is not known has no field.
            _ if text.is_empty() => {}
            name => self.form.text(name, &cut(text)),
        }
    }
}

impl<F: Form> Visit for Fields<F> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.form.fraction(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.form.value(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            self.form.value(field.name(), value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.form.value(field.name(), value);
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

fn cut(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= TEXT_BYTES {
        return text.into();
    }
    format!("{}\u{2026}", &text[..text.floor_char_boundary(TEXT_BYTES)]).into()
}
