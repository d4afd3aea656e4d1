//! Prompts and arrivals, made of a seed: the same seed makes the same run.

use std::time::Duration;

/// Common English words: with the blank before it each is one token for the usual vocabularies.
const WORDS: [&str; 32] = [
    "time", "year", "people", "way", "day", "man", "thing", "world", "life", "hand", "part", "child", "eye", "place",
    "work", "week", "case", "point", "company", "number", "group", "problem", "fact", "water", "month", "book",
    "level", "office", "door", "health", "art", "war",
];
/// What the question and the chat template add, tokens.
const OVERHEAD_TOKENS: u64 = 16;

/// Numbers that look random: splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A prompt of about `tokens` tokens. It begins with its `number`, so that no node has its beginning in a cache.
pub(super) fn prompt(seed: u64, number: u64, tokens: u64) -> String {
    let mut numbers = Numbers(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let mut text = format!("{:05}", numbers.next() % 100_000);
    for _ in 0..tokens.saturating_sub(OVERHEAD_TOKENS) {
        text.push(' ');
        let word = usize::try_from(numbers.next() % WORDS.len() as u64).unwrap_or(0);
        text.push_str(WORDS[word]);
    }
    text.push_str("\nTell a long story with these words.");
    text
}

/// When requests arrive, from the start on: `rate_per_s` of them on average, independent of each other (Poisson).
pub(super) fn arrivals(seed: u64, rate_per_s: f64) -> impl Iterator<Item = Duration> {
    let mut numbers = Numbers(seed);
    let mut at_s = 0.0;
    std::iter::repeat_with(move || {
        let arrival = Duration::from_secs_f64(at_s);
        at_s += -(1.0 - numbers.unit()).ln() / rate_per_s;
        arrival
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_of_their_length_and_differ_from_the_first_token_on() {
        for tokens in [1, 16, 100, 4_000] {
            let words = prompt(1, 7, tokens).split_whitespace().count() as u64;
            assert!(words.abs_diff(tokens) <= OVERHEAD_TOKENS, "{tokens}: {words}");
        }
        assert_eq!(prompt(1, 7, 100), prompt(1, 7, 100));
        assert_ne!(prompt(1, 7, 100)[..5], prompt(1, 8, 100)[..5]);
        assert_ne!(prompt(1, 7, 100), prompt(2, 7, 100));
    }

    #[test]
    fn arrivals_keep_their_rate_and_their_seed() {
        let at: Vec<_> = arrivals(3, 50.0).take(10_001).collect();
        let seconds = at.last().unwrap().as_secs_f64();
        assert!((190.0..210.0).contains(&seconds), "{seconds}");
        assert!(at.is_sorted() && at[0] == Duration::ZERO);
        assert!(arrivals(3, 50.0).take(9).eq(at[..9].iter().copied()));
    }
}
