//! What a runner is launched with besides its context, and whether a request makes Ollama launch it anew.
//!
//! Ollama tells nobody what a runner was launched with; whoever sends it a request knows what that request said.

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

impl LaunchOptions {
    /// A request that says nothing.
    const NOTHING: Self = Self {
        num_batch: None,
        num_thread: None,
        main_gpu: None,
        draft_num_predict: None,
        use_mmap: None,
        no_shift: false,
        num_gpu: None,
    };
}

/// What becomes of options that change only how fast a model runs, where they would have a resident runner reloaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SpeedOptions {
    /// The runner stays as it is.
    #[default]
    Keep,
    /// They are forwarded, and Ollama reloads the model.
    Honour,
}

impl SpeedOptions {
    /// Both with their names in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("keep", Self::Keep), ("honour", Self::Honour)];
}

/// The launch options of a runner, or those that a request wants, in the form in which they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(LaunchOptions);

/// Words of [`Signature::to_bits`].
pub const SIGNATURE_WORDS: usize = 6;

/// Bits of the first word: that there is a signature, which numbers are set, and the switches.
const KNOWN: u64 = 1;
const MMAP_SET: u64 = 1 << 1;
const MMAP: u64 = 1 << 2;
const NO_SHIFT: u64 = 1 << 3;
const FIRST_NUMBER: u32 = 4;

impl Signature {
    /// The signature of a request that says nothing about the launch.
    pub const DEFAULT: Self = Self(LaunchOptions::NOTHING);

    /// The signature of `options`.
    #[must_use]
    pub fn new(options: &LaunchOptions) -> Self {
        Self(LaunchOptions { num_gpu: options.num_gpu.filter(|layers| *layers >= 0), ..*options })
    }

    /// Whether a request of signature `wanted` makes Ollama reload a runner of signature `loaded`, as measured.
    ///
    /// An option that is set differs from one that is not, even when the value is the default: defaults change between
    /// versions of Ollama. `num_gpu` counts only where the request names it; a runner whose request did not name it
    /// was given a number by Ollama that is not known here, so that any named one differs.
    #[must_use]
    pub fn reloads(loaded: Self, wanted: Self) -> bool {
        let strict = |signature: Self| LaunchOptions { num_gpu: None, ..signature.0 };
        strict(loaded) != strict(wanted) || (wanted.0.num_gpu.is_some() && wanted.0.num_gpu != loaded.0.num_gpu)
    }

    /// What a runner has after a request of signature `wanted`, having had `loaded` before.
    ///
    /// A request without `num_gpu` leaves a runner as it is, and must not make an edge forget what that runner has.
    #[must_use]
    pub fn after(loaded: Self, wanted: Self) -> Self {
        if Self::reloads(loaded, wanted) { wanted } else { loaded }
    }

    /// This with the options of `runner` that change only how fast it runs.
    #[must_use]
    pub fn at_speed_of(self, runner: Self) -> Self {
        let LaunchOptions { num_batch, num_thread, main_gpu, use_mmap, .. } = runner.0;
        Self(LaunchOptions { num_batch, num_thread, main_gpu, use_mmap, ..self.0 })
    }

    /// Those options that differ from `other`'s, with `other`'s values as JSON: null is an option that is not set.
    #[must_use]
    pub fn speed_unlike(self, other: Self) -> Vec<(&'static str, String)> {
        let number = |value: Option<i64>| value.map_or("null".to_owned(), |value| value.to_string());
        let switch = |value: Option<bool>| value.map_or("null".to_owned(), |value| value.to_string());
        let (own, new) = (self.0, other.0);
        [
            ("num_batch", own.num_batch != new.num_batch, number(new.num_batch)),
            ("num_thread", own.num_thread != new.num_thread, number(new.num_thread)),
            ("main_gpu", own.main_gpu != new.main_gpu, number(new.main_gpu)),
            ("use_mmap", own.use_mmap != new.use_mmap, switch(new.use_mmap)),
        ]
        .into_iter()
        .filter(|(_, differs, _)| *differs)
        .map(|(name, _, text)| (name, text))
        .collect()
    }

    /// `num_batch`, where it is set.
    #[must_use]
    pub fn num_batch(self) -> Option<i64> {
        self.0.num_batch
    }

    /// The same with another `num_batch`.
    #[must_use]
    pub fn with_batch(self, num_batch: Option<i64>) -> Self {
        Self(LaunchOptions { num_batch, ..self.0 })
    }

    /// Words for as many atomics; the first is never zero, so that zeros can stand for an unknown signature.
    ///
    /// Words that are read while another thread writes may be torn. They then predict one reload wrongly, and the next
    /// request sets it right.
    #[must_use]
    pub fn to_bits(self) -> [u64; SIGNATURE_WORDS] {
        let LaunchOptions { num_batch, num_thread, main_gpu, draft_num_predict, use_mmap, no_shift, num_gpu } = self.0;
        let mut words = [0; SIGNATURE_WORDS];
        words[0] = KNOWN;
        words[0] |= if use_mmap.is_some() { MMAP_SET } else { 0 };
        words[0] |= if use_mmap == Some(true) { MMAP } else { 0 };
        words[0] |= if no_shift { NO_SHIFT } else { 0 };
        let numbers = [num_batch, num_thread, main_gpu, draft_num_predict, num_gpu];
        for (place, number) in numbers.into_iter().enumerate() {
            if let Some(number) = number {
                words[0] |= 1 << (FIRST_NUMBER as usize + place);
                words[1 + place] = number.cast_unsigned();
            }
        }
        words
    }

    /// The signature of which [`Self::to_bits`] made these words; `None` = unknown, the first word is zero.
    #[must_use]
    pub fn from_bits(words: [u64; SIGNATURE_WORDS]) -> Option<Self> {
        let flags = words[0];
        let has = |flag: u64| flags & flag != 0;
        let number = |place: usize| has(1 << (FIRST_NUMBER as usize + place)).then(|| words[1 + place].cast_signed());
        has(KNOWN).then(|| {
            Self(LaunchOptions {
                num_batch: number(0),
                num_thread: number(1),
                main_gpu: number(2),
                draft_num_predict: number(3),
                use_mmap: has(MMAP_SET).then(|| has(MMAP)),
                no_shift: has(NO_SHIFT),
                num_gpu: number(4),
            })
        })
    }
}

impl Default for Signature {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: LaunchOptions = LaunchOptions::NOTHING;

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
        assert_eq!(Signature::default(), Signature::DEFAULT);
        assert_eq!(Signature::from_bits([0; SIGNATURE_WORDS]), None);
    }

    #[test]
    fn a_runner_keeps_its_speed_and_nothing_else() {
        let runner = Signature::new(&LaunchOptions { num_thread: Some(8), use_mmap: Some(false), ..NOTHING });
        let wanted = Signature::new(&LaunchOptions {
            num_batch: Some(256),
            num_thread: Some(4),
            num_gpu: Some(20),
            no_shift: true,
            ..NOTHING
        });
        let kept = wanted.at_speed_of(runner);
        let expected =
            LaunchOptions { num_thread: Some(8), use_mmap: Some(false), num_gpu: Some(20), no_shift: true, ..NOTHING };
        assert_eq!(kept, Signature::new(&expected));
        let told: Vec<_> = wanted.speed_unlike(kept).into_iter().map(|(name, text)| format!("{name}={text}")).collect();
        assert_eq!(told, ["num_batch=null", "num_thread=8", "use_mmap=false"]);
        assert!(Signature::reloads(runner, kept), "what changes answers is honoured");
        assert!(wanted.speed_unlike(wanted).is_empty());
    }

    proptest! {
        #[test]
        fn bits_give_the_signature_back(
            numbers in prop::array::uniform5(prop::option::of(any::<i64>())),
            use_mmap: Option<bool>,
            no_shift: bool,
        ) {
            let [num_batch, num_thread, main_gpu, draft_num_predict, num_gpu] = numbers;
            let options =
                LaunchOptions { num_batch, num_thread, main_gpu, draft_num_predict, use_mmap, no_shift, num_gpu };
            let signature = Signature::new(&options);
            prop_assert_eq!(Signature::from_bits(signature.to_bits()), Some(signature));
        }
    }
}
