//! Mutated inputs for tests of what reads from the network. No special toolchain: a target is a test that calls [`run`].
//!
//! Inputs begin as samples, recorded ones where there are some, and are changed as a fuzzer changes them: bits, pieces,
//! lengths, words of the format, and parts of other samples. What a target finds becomes one of its samples. How long a
//! target runs is said by [`SECONDS`]; a failure names the seed and the input, and [`SEED`] repeats it.

#![expect(clippy::print_stderr, reason = "a test tells what it found")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// How long each target runs, in seconds; fractions count.
pub const SECONDS: &str = "HERD_FUZZ_SECONDS";
/// The seed of the first input, to repeat a run.
pub const SEED: &str = "HERD_FUZZ_SEED";

/// Without [`SECONDS`]: enough that a target which cannot run is noticed.
const DEFAULT_SECONDS: f64 = 0.5;
/// Inputs grow to so many times the longest sample, and some bytes.
const GROWTH: usize = 2;
const GROWTH_BYTES: usize = 256;
/// Changes of one input at the most.
const CHANGES_MAX: usize = 8;
/// Longest piece that is taken from another sample or repeated.
const PIECE_MAX: usize = 64;
/// Bytes of an input that a failure shows.
const SHOWN: usize = 4_096;

/// Words that formats of the network are made of, and numbers at the edge of something.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "\"\"",
    "0",
    "-1",
    "-0",
    "1e400",
    "1e-400",
    "18446744073709551616",
    "9223372036854775807",
    "2147483648",
    "4096.0",
    "0.5",
    "\\u0000",
    "\\ud800",
    "\\uDC00",
    "\u{feff}",
    "\u{17f}",
    "\u{212a}",
    "\r\n",
    "\n",
    "\n\n",
    "\0",
    " ",
    "\t",
    "data: ",
    "data: [DONE]",
    "event: error",
    "--",
    "\"model\":",
    "\"options\":",
    "\"num_ctx\":",
    "\"keep_alive\":",
    "\"messages\":",
    "\"done\":true",
    "\"done\":false}",
    "\"error\":",
    "\"fallback_models\":",
    "\"metadata\":",
    "\"tags\":",
    "\"usage\":",
    "\"name\":",
    "\"size\":",
    "..",
    "/",
    "%2e",
    "%00",
];

/// Calls `target` with each of `samples` and then with changed ones until the time is over.
///
/// # Panics
/// When `target` does, after the input has been shown.
pub fn run(name: &str, samples: &[&[u8]], mut target: impl FnMut(&[u8])) {
    assert!(!samples.is_empty(), "{name} has samples");
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SECONDS);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let first: u64 = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    for sample in samples {
        attempt(name, 0, sample, &mut target);
    }
    let limit = samples.iter().map(|sample| sample.len()).max().unwrap_or(0) * GROWTH + GROWTH_BYTES;
    let mut inputs = 0_u64;
    while Instant::now() < until {
        let seed = first.wrapping_add(inputs);
        let input = changed(&mut Rng::with_seed(seed), samples, limit);
        attempt(name, seed, &input, &mut target);
        inputs += 1;
    }
    eprintln!("{name}: {inputs} inputs from seed {first}");
}

fn attempt(name: &str, seed: u64, input: &[u8], target: &mut impl FnMut(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let shown = &input[..input.len().min(SHOWN)];
        eprintln!("{name} fails ({SEED}={seed}) with {} bytes: {:?}", input.len(), String::from_utf8_lossy(shown));
        eprintln!("as bytes: {shown:?}");
        resume_unwind(panic);
    }
}

/// One of `samples` with some changes, of at most `limit` bytes.
fn changed(rng: &mut Rng, samples: &[&[u8]], limit: usize) -> Vec<u8> {
    let mut input = samples[rng.usize(..samples.len())].to_vec();
    for _ in 0..rng.usize(1..=CHANGES_MAX) {
        let other = samples[rng.usize(..samples.len())];
        change(rng, &mut input, other);
    }
    input.truncate(limit);
    input
}

fn change(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(..=input.len());
    let piece = at..(at + rng.usize(..=PIECE_MAX)).min(input.len());
    match rng.u8(..9) {
        0 => insert(input, at, WORDS[rng.usize(..WORDS.len())].as_bytes()),
        1 => drop(input.drain(piece)),
        2 => {
            let again = input[piece].to_vec();
            insert(input, at, &again);
        }
        3 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        4 if at < input.len() => input[at] = rng.u8(..),
        5 => input.truncate(at),
        6 if !other.is_empty() => {
            let from = rng.usize(..other.len());
            insert(input, at, &other[from..(from + rng.usize(..=PIECE_MAX)).min(other.len())]);
        }
        7 => {
            let word = WORDS[rng.usize(..WORDS.len())].as_bytes();
            drop(input.splice(piece, word.iter().copied()));
        }
        _ => {
            let to = rng.usize(..=input.len());
            let moved: Vec<u8> = input.drain(piece).collect();
            let to = to.min(input.len());
            insert(input, to, &moved);
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    drop(input.splice(at..at, bytes.iter().copied()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_tried_as_they_are_and_changed_in_every_way() {
        let mut seen = Vec::new();
        run("engine", &[b"{\"model\":\"tiny\"}", b""], |input| seen.push(input.to_vec()));
        assert_eq!(&seen[..2], [b"{\"model\":\"tiny\"}".to_vec(), Vec::new()]);
        let longest = seen.iter().map(Vec::len).max();
        assert!(longest > Some(16) && longest <= Some(2 * 16 + GROWTH_BYTES), "{longest:?}");
        assert!(seen.len() > 100);
    }

    #[test]
    fn a_seed_gives_the_same_input_again() {
        let samples: [&[u8]; 2] = [b"{\"a\":1}", b"[2]"];
        let one = |seed| changed(&mut Rng::with_seed(seed), &samples, 100);
        assert_eq!(one(7), one(7));
        assert!((0..50).any(|seed| one(seed) != one(7)));
    }

    #[test]
    fn a_target_that_fails_fails_the_test() {
        let failed = catch_unwind(|| run("failing", &[b"x"], |_| panic!("found")));
        assert!(failed.is_err());
    }
}
