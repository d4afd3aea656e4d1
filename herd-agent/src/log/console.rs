//! Standard error, for people.

use std::io::Write as _;

use super::sink::{Sink, Target};

/// Writes to standard error.
#[derive(Debug)]
pub(super) struct Console;

impl Target for Console {
    fn write(&mut self, lines: &[u8], lost: u64) -> u64 {
        let mut out = std::io::stderr().lock();
        // Standard error may be closed, and then nobody wants to know.
        drop(out.write_all(lines));
        if lost > 0 {
            drop(writeln!(out, "{lost} log lines were lost: standard error took no more"));
        }
        0
    }
}

/// One event's text, which comes in one piece.
#[derive(Debug)]
pub(super) struct Piece<'a>(&'a Sink);

impl std::io::Write for Piece<'_> {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Sink {
    type Writer = Piece<'a>;

    fn make_writer(&'a self) -> Piece<'a> {
        Piece(self)
    }
}
