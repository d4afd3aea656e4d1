//! How a runner was launched, and when a request cannot be served by it.
//!
//! The rule is Ollama's `needsReload` as observed on a real 0.33: most differences restart the runner, some do not,
//! and two are one-sided. Ollama never resizes a runner in place.

use super::{catalog::Stored, config::Capability};

/// Options of a request that decide how its runner must have been launched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LoadOptions {
    /// `num_ctx` as the client wrote it; zero and below are values, not "absent".
    pub(crate) num_ctx: Option<i64>,
    /// Layers on the GPU; absent and negative mean "you choose".
    pub(crate) num_gpu: Option<i64>,
    /// Everything that restarts the runner on any difference, set to absent included.
    pub(crate) strict: StrictOptions,
}

/// Options compared as they are, absent being a value of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StrictOptions {
    pub(crate) num_batch: Option<i64>,
    pub(crate) num_thread: Option<i64>,
    pub(crate) main_gpu: Option<i64>,
    pub(crate) draft_num_predict: Option<i64>,
    pub(crate) use_mmap: Option<bool>,
    /// `"shift": false`: a launch flag of the engine since 0.30.
    pub(crate) no_shift: bool,
}

/// What a runner is launched with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Context of one slot, in force.
    pub(crate) num_ctx: u32,
    pub(crate) num_gpu: Option<i64>,
    pub(crate) strict: StrictOptions,
}

/// Vision models are never launched with less.
const VISION_MIN_CTX: u32 = 2048;
/// The least context Ollama launches: zero and -1 end here too.
const MIN_CTX: u32 = 4;

/// The largest batch of a model that only embeds.
const EMBED_BATCH_MAX: u32 = 2048;

impl Launch {
    /// What `options` ask for on `model`: request, then Modelfile, then `default_ctx`, capped to the training context.
    pub(crate) fn resolve(options: &LoadOptions, model: &Stored, default_ctx: u32) -> Self {
        let asked = options.num_ctx.or(model.model.num_ctx.map(i64::from)).unwrap_or(i64::from(default_ctx));
        let floor = if model.model.can(Capability::Vision) { VISION_MIN_CTX } else { MIN_CTX };
        let asked = u32::try_from(asked.clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
        // A model that only embeds gets a batch as large as the context that is asked for, before that is capped.
        let derived = model.is_embedding_only().then(|| i64::from(asked.min(EMBED_BATCH_MAX)));
        Self {
            num_ctx: asked.max(floor).min(model.model.context_length.max(MIN_CTX)),
            num_gpu: options.num_gpu.filter(|layers| *layers >= 0),
            strict: StrictOptions { num_batch: options.strict.num_batch.or(derived), ..options.strict.clone() },
        }
    }

    /// Whether a runner launched as `self` must be restarted to serve a request that needs `wanted`.
    pub(crate) fn needs_reload(&self, wanted: &Self) -> bool {
        let other_gpu_layers = wanted.num_gpu.is_some() && wanted.num_gpu != self.num_gpu;
        self.num_ctx != wanted.num_ctx || self.strict != wanted.strict || other_gpu_layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::Stored, config::SimModel};

    fn ctx(num_ctx: i64) -> LoadOptions {
        LoadOptions { num_ctx: Some(num_ctx), ..LoadOptions::default() }
    }

    fn gpu(layers: i64) -> LoadOptions {
        LoadOptions { num_gpu: Some(layers), ..LoadOptions::default() }
    }

    fn strict(change: impl FnOnce(&mut StrictOptions)) -> LoadOptions {
        let mut options = LoadOptions::default();
        change(&mut options.strict);
        options
    }

    fn absent() -> LoadOptions {
        LoadOptions::default()
    }

    /// The rows of `facts/ollama-api.md` §4, on a model trained with 8192 and a server default of 4096.
    #[test]
    fn a_reload_happens_when_ollama_reloads() {
        let model = Stored::for_test(SimModel::named("tiny"));
        let check = |loaded: LoadOptions, wanted: LoadOptions, reload: bool| {
            let loaded = Launch::resolve(&loaded, &model, 4096);
            let wanted = Launch::resolve(&wanted, &model, 4096);
            assert_eq!(loaded.needs_reload(&wanted), reload, "{loaded:?} -> {wanted:?}");
        };
        check(absent(), absent(), false);
        check(absent(), ctx(4096), false);
        check(ctx(4096), absent(), false);
        check(absent(), ctx(2048), true);
        check(ctx(2048), absent(), true);
        check(absent(), ctx(8192), true);
        check(ctx(8192), ctx(16_384), false);
        check(ctx(8192), absent(), true);
        check(ctx(4), ctx(0), false);
        check(ctx(4), ctx(-1), false);
        check(absent(), ctx(0), true);
        check(absent(), gpu(0), true);
        check(gpu(0), absent(), false);
        check(gpu(0), gpu(-1), false);
        check(gpu(0), gpu(99), true);
        check(gpu(99), gpu(99), false);
        check(absent(), gpu(-1), false);
        check(absent(), strict(|o| o.num_batch = Some(128)), true);
        check(strict(|o| o.num_batch = Some(128)), absent(), true);
        check(absent(), strict(|o| o.num_thread = Some(1)), true);
        check(absent(), strict(|o| o.main_gpu = Some(1)), true);
        check(strict(|o| o.use_mmap = Some(true)), absent(), true);
        check(absent(), strict(|o| o.draft_num_predict = Some(4)), true);
        check(absent(), strict(|o| o.no_shift = true), true);
        check(strict(|o| o.no_shift = true), absent(), true);
    }

    /// The facts that were added to that section later, on a model trained with 512.
    #[test]
    fn an_embedding_model_is_reloaded_by_another_number_for_the_same_context() {
        let model = Stored::for_test(SimModel { context_length: 512, ..SimModel::embedding("embed", 64) });
        let check = |loaded: LoadOptions, wanted: LoadOptions, reload: bool| {
            let loaded = Launch::resolve(&loaded, &model, 4096);
            assert_eq!(loaded.needs_reload(&Launch::resolve(&wanted, &model, 4096)), reload, "{wanted:?}");
        };
        check(absent(), ctx(512), true);
        check(ctx(512), absent(), true);
        check(absent(), ctx(4096), false);
        check(absent(), absent(), false);
    }

    #[test]
    fn the_context_in_force_follows_ollama() {
        #[track_caller]
        fn check(model: SimModel, options: &LoadOptions, expected: u32) {
            let launch = Launch::resolve(options, &Stored::for_test(model), 4096);
            assert_eq!(launch.num_ctx, expected);
        }
        let tiny = || SimModel::named("tiny");
        check(tiny(), &absent(), 4096);
        check(tiny(), &ctx(-1), 4);
        check(tiny(), &ctx(i64::MAX), 8192);
        check(SimModel { num_ctx: Some(2048), ..tiny() }, &absent(), 2048);
        check(SimModel { num_ctx: Some(2048), ..tiny() }, &ctx(1024), 1024);
        check(SimModel { context_length: 512, ..tiny() }, &absent(), 512);
        check(tiny().with(Capability::Vision), &ctx(512), 2048);
    }
}
