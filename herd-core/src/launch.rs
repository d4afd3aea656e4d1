//! What a runner is launched with besides its context, and whether a request makes Ollama launch it anew.
//!
//! Ollama tells nobody what a runner was launched with; whoever sends it a request knows what that request said.

use crate::name::fnv1a;

/// What one request says of the launch of its runner. `None` = it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaunchOptions {
    /// `options.num_batch`, tokens per batch.
    pub num_batch: Option<i64>,
    /// `options.num_thread`.
    pub num_thread: Option<i64>,
    /// `options.main_gpu`, an index.
    pub main_gpu: Option<i64>,
    /// `options.draft_num_predict`, tokens.
    pub draft_num_predict: Option<i64>,
    /// `options.use_mmap`.
    pub use_mmap: Option<bool>,
    /// The body says `shift: false`; an absent one is true.
    pub no_shift: bool,
    /// `options.num_gpu`, layers on the GPU; negative ones leave it to Ollama, as nothing does.
    pub num_gpu: Option<i64>,
}

/// The launch options of a runner, short enough to keep one per runner and to compare for each candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Hash of the options of which any difference reloads.
    strict: u64,
    /// `num_gpu`, never negative; only an explicit one that differs reloads.
    num_gpu: Option<i64>,
}

/// Bytes of the canonical form: four integers and a boolean with a byte before each that says whether it is set, and
/// `no_shift`.
const CANONICAL_BYTES: usize = 4 * 9 + 2 + 1;

impl Signature {
    /// The signature of a request that says nothing about the launch: FNV-1a of as many zero bytes as the canonical
    /// form has.
    pub const DEFAULT: Self = Self { strict: 0x4140_59b9_ff60_7e27, num_gpu: None };

    /// The signature of `options`, the same in every process and on every machine.
    #[must_use]
    pub fn new(options: &LaunchOptions) -> Self {
        // Nearly every request says nothing, and this is asked for each candidate.
        if *options == LaunchOptions::default() {
            return Self::DEFAULT;
        }
        Self { strict: fnv1a(&canonical(options)), num_gpu: options.num_gpu.filter(|layers| *layers >= 0) }
    }

    /// Whether a request of signature `wanted` makes Ollama reload a runner of signature `loaded`, as measured.
    ///
    /// An option that is set differs from one that is not, even when the value is the default: defaults change between
    /// versions of Ollama. `num_gpu` counts only where the request names it; a runner whose request did not name it
    /// was given a number by Ollama that is not known here, so that any named one differs.
    #[must_use]
    pub fn reloads(loaded: Self, wanted: Self) -> bool {
        loaded.strict != wanted.strict || (wanted.num_gpu.is_some() && wanted.num_gpu != loaded.num_gpu)
    }

    /// What a runner has after a request of signature `wanted`, having had `loaded` before.
    ///
    /// A request without `num_gpu` leaves a runner as it is, and must not make an edge forget what that runner has.
    #[must_use]
    pub fn after(loaded: Self, wanted: Self) -> Self {
        if Self::reloads(loaded, wanted) { wanted } else { loaded }
    }

    /// Two words for two atomics; never both zero, so that zeros can stand for an unknown signature.
    ///
    /// A pair that is read while another thread writes may be torn. It then predicts one reload wrongly, and the next
    /// request sets it right.
    #[must_use]
    pub fn to_bits(self) -> [u64; 2] {
        let num_gpu = self.num_gpu.map_or(1, |layers| layers.unsigned_abs().saturating_add(2));
        [self.strict, num_gpu]
    }

    /// The signature of which [`Self::to_bits`] made these words; `None` = unknown, the second word is zero.
    #[must_use]
    pub fn from_bits([strict, num_gpu]: [u64; 2]) -> Option<Self> {
        let layers = num_gpu.checked_sub(1)?.checked_sub(1);
        Some(Self { strict, num_gpu: layers.and_then(|layers| i64::try_from(layers).ok()) })
    }
}

impl Default for Signature {
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn canonical(options: &LaunchOptions) -> [u8; CANONICAL_BYTES] {
    let mut bytes = [0; CANONICAL_BYTES];
    let integers = [options.num_batch, options.num_thread, options.main_gpu, options.draft_num_predict];
    for (place, integer) in bytes.chunks_exact_mut(9).zip(integers) {
        if let Some(integer) = integer {
            place[0] = 1;
            place[1..].copy_from_slice(&integer.to_le_bytes());
        }
    }
    if let Some(use_mmap) = options.use_mmap {
        bytes[36..38].copy_from_slice(&[1, u8::from(use_mmap)]);
    }
    bytes[38] = u8::from(options.no_shift);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: LaunchOptions = LaunchOptions {
        num_batch: None,
        num_thread: None,
        main_gpu: None,
        draft_num_predict: None,
        use_mmap: None,
        no_shift: false,
        num_gpu: None,
    };

    #[track_caller]
    fn check(loaded: LaunchOptions, wanted: LaunchOptions, reloads: bool) {
        let (loaded_with, asked_for) = (Signature::new(&loaded), Signature::new(&wanted));
        assert_eq!(Signature::reloads(loaded_with, asked_for), reloads, "{loaded:?} then {wanted:?}");
        let after = Signature::after(loaded_with, asked_for);
        assert_eq!(after, if reloads { asked_for } else { loaded_with });
        assert!(!Signature::reloads(after, asked_for), "the same again never reloads");
    }

    /// Set to something, to another value, and back to nothing: each reloads; the same again does not.
    #[track_caller]
    fn check_strict(one: LaunchOptions, other: LaunchOptions) {
        check(one, one, false);
        check(NOTHING, one, true);
        check(one, NOTHING, true);
        check(one, other, true);
        check(other, one, true);
    }

    #[test]
    fn strict_options_reload_on_any_difference() {
        check(NOTHING, NOTHING, false);
        let batch = |tokens| LaunchOptions { num_batch: Some(tokens), ..NOTHING };
        check_strict(batch(256), batch(512));
        let thread = |threads| LaunchOptions { num_thread: Some(threads), ..NOTHING };
        check_strict(thread(0), thread(8));
        let main_gpu = |index| LaunchOptions { main_gpu: Some(index), ..NOTHING };
        check_strict(main_gpu(0), main_gpu(1));
        let draft = |tokens| LaunchOptions { draft_num_predict: Some(tokens), ..NOTHING };
        check_strict(draft(4), draft(-1));
        let mmap = |on| LaunchOptions { use_mmap: Some(on), ..NOTHING };
        check_strict(mmap(true), mmap(false));
        check(NOTHING, LaunchOptions { no_shift: true, ..NOTHING }, true);
        check(LaunchOptions { no_shift: true, ..NOTHING }, NOTHING, true);
        check_strict(batch(8), thread(8));
    }

    #[test]
    fn num_gpu_reloads_only_where_it_is_named() {
        let layers = |layers| LaunchOptions { num_gpu: Some(layers), ..NOTHING };
        check(NOTHING, layers(-1), false);
        check(layers(0), NOTHING, false);
        check(layers(99), layers(-1), false);
        check(layers(99), layers(99), false);
        check(layers(20), layers(0), true);
        check(layers(20), layers(99), true);
        check(NOTHING, layers(0), true);
        check(NOTHING, layers(99), true);
        check(LaunchOptions { num_batch: Some(1), ..layers(99) }, layers(99), true);
    }

    #[test]
    fn nothing_said_is_recognisable() {
        assert_eq!(Signature::new(&NOTHING), Signature::DEFAULT);
        assert_eq!(fnv1a(&[0; CANONICAL_BYTES]), Signature::DEFAULT.strict);
        assert_eq!(Signature::default(), Signature::DEFAULT);
        assert_eq!(Signature::from_bits([0, 0]), None);
    }

    proptest! {
        #[test]
        fn bits_give_the_signature_back(strict: u64, num_gpu in prop::option::of(0..=i64::MAX)) {
            let signature = Signature { strict, num_gpu };
            prop_assert_eq!(Signature::from_bits(signature.to_bits()), Some(signature));
        }
    }
}
