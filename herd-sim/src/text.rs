//! What a simulated model says: the same for the same request, and nothing that could be taken for sense.

use std::fmt::Write as _;

use herd_core::name::fnv1a;

/// Words of every answer, each with the space before it as tokens have. None needs escaping in JSON, so that the bytes
/// on the wire are easy to reckon with.
const WORDS: [&str; 32] = [
    " amber", " birch", " cedar", " delta", " ember", " fjord", " grove", " harbor", " island", " jasper", " kelp",
    " lumen", " meadow", " north", " ocean", " pebble", " quartz", " river", " slate", " tundra", " umber", " valley",
    " willow", " xenon", " yarrow", " zephyr", " basalt", " copper", " dune", " garnet", " lichen", " mesa",
];

/// What a thinking model thinks, token by token.
pub(crate) const THOUGHTS: [&str; 3] = ["Let me think", " about it", ".\n"];

/// The words of one answer, one per token.
#[derive(Debug, Clone)]
pub(crate) struct Words(fastrand::Rng);

impl Words {
    /// The same `seed` gives the same words.
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }
}

impl Iterator for Words {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        WORDS.get(self.0.usize(..WORDS.len())).copied()
    }
}

/// Tokens of a text of `chars` characters: one for four, as everybody estimates; nothing is nothing.
pub(crate) fn estimate_tokens(chars: usize) -> u32 {
    u32::try_from(chars.div_ceil(4)).unwrap_or(u32::MAX)
}

/// A unit vector for `text`, the same every time.
pub(crate) fn unit_vector(model: &str, text: &str, dimensions: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(fnv1a(text.as_bytes()) ^ fnv1a(model.as_bytes()));
    let raw: Vec<f32> = (0..dimensions).map(|_| rng.f32() - 0.5).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    raw.into_iter().map(|x| x / length).collect()
}

/// 64 hexadecimal digits made from `text`: looks like a SHA-256, is none.
pub(crate) fn hex_digest(text: &str) -> String {
    let mut rng = fastrand::Rng::with_seed(fnv1a(text.as_bytes()));
    (0..4).fold(String::with_capacity(64), |mut digest, _| {
        // Writing to a string cannot fail.
        let _infallible = write!(digest, "{:016x}", rng.u64(..));
        digest
    })
}

/// `length` random letters and digits, as in a tool call's id.
pub(crate) fn random_id(length: usize) -> String {
    (0..length).map(|_| fastrand::alphanumeric()).collect()
}

/// 24 random hexadecimal digits, as in an Anthropic id.
pub(crate) fn random_hex24() -> String {
    format!("{:024x}", fastrand::u128(..) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same() {
        let say = |seed| Words::new(seed).take(8).collect::<Vec<_>>();
        assert_eq!(say(7), say(7));
        assert_ne!(say(7), say(8));
    }

    #[test]
    fn vectors_are_of_length_one_and_stable() {
        let vector = unit_vector("embed", "hello", 64);
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
        assert_eq!(vector, unit_vector("embed", "hello", 64));
        assert_ne!(vector, unit_vector("embed", "world", 64));
    }

    #[test]
    fn digests_and_ids_have_their_length() {
        assert_eq!(hex_digest("a").len(), 64);
        assert_ne!(hex_digest("a"), hex_digest("b"));
        assert_eq!(random_hex24().len(), 24);
        assert_eq!(random_id(32).len(), 32);
    }

    #[test]
    fn four_characters_are_a_token() {
        let tokens = [0, 1, 4, 5].map(estimate_tokens);
        assert_eq!(tokens, [0, 1, 1, 2]);
    }
}
