//! JSON as Go writes it: `<`, `>` and `&` escaped, everything else as `serde_json` has it.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// `value` as one line of JSON, without a newline.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, GoFormatter));
    // Writing to memory cannot fail, and the types written here have string keys only.
    debug_assert!(written.is_ok(), "the simulator serialises plain data");
    out
}

/// `value` as a string of JSON.
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8(to_vec(value)).unwrap_or_default()
}

/// Escapes what Go's encoder escapes for the sake of HTML.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&']) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let (special, after) = special.split_at(1);
            writer.write_all(match special {
                "<" => b"\\u003c",
                ">" => b"\\u003e",
                _ => b"\\u0026",
            })?;
            rest = after;
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped_as_go_does() {
        assert_eq!(to_string("<think>\n&"), r#""\u003cthink\u003e\n\u0026""#);
        assert_eq!(to_string("plain \"ä\""), r#""plain \"ä\"""#);
    }
}
