//! Standard error, for people.

use std::io::Write as _;

use super::sink::Target;

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
