use super::*;
use crate::inspect::{InspectLimits, inspect};
use crate::launch::LaunchOptions;
use crate::request::Surface;
use crate::splice::splice;
use crate::testing::{NodeSpec, node};
use ContextAction::{Kept, Load, Pinned, Raised, Reload};
use Protection::{Passthrough, Strip, Warn};
use ReloadCause::{ContextDiffers, ContextLarger, NodeDefault};

fn profile(surface: Surface, options: &str) -> RequestProfile {
    let body = format!("{{\"model\":\"m\",\"prompt\":\"p\",\"options\":{{{options}}}}}");
    inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap()
}

fn ctx(tokens: u64) -> String {
    format!("\"num_ctx\":{tokens}")
}

/// Node default 4096, training context 32768.
fn told() -> NodeSpec {
    NodeSpec { default_context: Some(4096), train_context: 32_768, ..NodeSpec::default() }
}

/// The same without a default.
fn untold() -> NodeSpec {
    NodeSpec { default_context: None, ..told() }
}

/// What a request does: its surface and options on a node, with the launch options of the runner, if known.
struct Case<'a> {
    mode: Protection,
    surface: Surface,
    options: &'a str,
    node: NodeSpec,
    launched: Option<LaunchOptions>,
}

impl Case<'_> {
    fn plan(&self) -> ContextPlan {
        let node = node("n", &self.node);
        let launched = self.launched.as_ref().map(Signature::new);
        plan(&profile(self.surface, self.options), &node, &node.models[0], launched, self.mode)
    }
}

/// Action, `num_ctx` sent, window, cause.
type Expected = (ContextAction, Option<u64>, Option<u64>, Option<ReloadCause>);

#[track_caller]
fn check(mode: Protection, surface: Surface, options: &str, node: NodeSpec, expected: Expected) {
    let case = Case { mode, surface, options, node, launched: None };
    let ContextPlan { action, num_ctx, window, cause, .. } = case.plan();
    let models = &case.node.models;
    assert_eq!((action, num_ctx, window, cause), expected, "{mode:?} {surface:?} {options} on {models:?}");
}

#[test]
fn strip_keeps_the_runner_wherever_a_request_can_say_a_context() {
    for surface in [Surface::OllamaChat, Surface::OllamaGenerate, Surface::OllamaEmbed, Surface::OllamaEmbeddings] {
        for spec in [told(), untold()] {
            let at = |loaded: u64| spec.clone().hot("m", loaded);
            check(Strip, surface, "", at(8192), (Pinned, Some(8192), Some(8192), None));
            check(Strip, surface, &ctx(8192), at(8192), (Kept, None, Some(8192), None));
            check(Strip, surface, &ctx(2048), at(8192), (Raised, Some(8192), Some(8192), None));
            check(Strip, surface, &ctx(16_384), at(8192), (Reload, None, Some(16_384), Some(ContextLarger)));
            check(Strip, surface, &ctx(9000), spec.clone().cold("m"), (Load, None, Some(9000), None));
            check(Strip, surface, &ctx(9000), at(0), (Kept, None, Some(9000), None));
        }
        check(Strip, surface, "", told().hot("m", 4096), (Kept, None, Some(4096), None));
        check(Strip, surface, "", untold().hot("m", 4096), (Pinned, Some(4096), Some(4096), None));
        check(Strip, surface, "", told().cold("m"), (Load, None, Some(4096), None));
        check(Strip, surface, "", untold().cold("m"), (Load, None, None, None));
        check(Strip, surface, "", told().hot("m", 0), (Kept, None, Some(4096), None));
        check(Strip, surface, "", untold().hot("m", 0), (Kept, None, None, None));
    }
}

#[test]
fn the_other_modes_foresee_what_the_clients_words_do() {
    for mode in [Warn, Passthrough] {
        let chat = Surface::OllamaChat;
        for spec in [told(), untold()] {
            let at = |loaded: u64| spec.clone().hot("m", loaded);
            check(mode, chat, &ctx(8192), at(8192), (Kept, None, Some(8192), None));
            check(mode, chat, &ctx(2048), at(8192), (Reload, None, Some(2048), Some(ContextDiffers)));
            check(mode, chat, &ctx(16_384), at(8192), (Reload, None, Some(16_384), Some(ContextDiffers)));
            check(mode, chat, &ctx(2048), at(0), (Kept, None, Some(2048), None));
            check(mode, chat, &ctx(2048), spec.clone().cold("m"), (Load, None, Some(2048), None));
        }
        check(mode, chat, "", told().hot("m", 4096), (Kept, None, Some(4096), None));
        check(mode, chat, "", told().hot("m", 8192), (Reload, None, Some(4096), Some(NodeDefault)));
        check(mode, chat, "", untold().hot("m", 8192), (Kept, None, Some(8192), None));
    }
}

#[test]
fn surfaces_without_options_run_at_the_default_of_the_node() {
    let others = Surface::ALL.into_iter().filter(|surface| !surface.carries_num_ctx());
    for surface in others {
        for (mode, options) in [(Strip, ""), (Warn, ""), (Passthrough, ""), (Strip, "\"num_ctx\":8192")] {
            check(mode, surface, options, told().hot("m", 4096), (Kept, None, Some(4096), None));
            check(mode, surface, options, told().hot("m", 8192), (Reload, None, Some(4096), Some(NodeDefault)));
            check(mode, surface, options, told().hot("m", 2048), (Reload, None, Some(4096), Some(NodeDefault)));
            check(mode, surface, options, untold().hot("m", 8192), (Kept, None, Some(8192), None));
            check(mode, surface, options, told().hot("m", 0), (Kept, None, Some(4096), None));
            check(mode, surface, options, told().cold("m"), (Load, None, Some(4096), None));
            check(mode, surface, options, untold().cold("m"), (Load, None, None, None));
        }
    }
}

#[test]
fn of_two_runners_the_larger_is_the_one_to_keep() {
    for models in [[2048, 8192], [8192, 2048]] {
        let both = || models.into_iter().fold(told(), |spec, context| spec.hot("m", context));
        check(Strip, Surface::OllamaChat, "", both(), (Pinned, Some(8192), Some(8192), None));
        check(Strip, Surface::OllamaChat, &ctx(2048), both(), (Raised, Some(8192), Some(8192), None));
    }
}

#[test]
fn contexts_have_a_floor_and_a_ceiling() {
    let chat = Surface::OllamaChat;
    let eyes = || NodeSpec { capabilities: vec!["completion".into(), "vision".into()], ..told() };
    check(Strip, chat, &ctx(99_999), told().hot("m", 32_768), (Kept, None, Some(32_768), None));
    check(Warn, chat, &ctx(0), told().hot("m", 8192), (Reload, None, Some(4), Some(ContextDiffers)));
    check(Warn, chat, &ctx(0), told().hot("m", 4), (Kept, None, Some(4), None));
    check(Warn, chat, &ctx(1024), eyes().hot("m", 2048), (Kept, None, Some(2048), None));
    check(Strip, chat, &ctx(1024), eyes().cold("m"), (Load, None, Some(2048), None));
    let tiny = NodeSpec { train_context: 1024, ..eyes() };
    check(Strip, chat, &ctx(512), tiny.cold("m"), (Load, None, Some(1024), None));
    let trained_short = NodeSpec { train_context: 2048, ..told() };
    check(Strip, Surface::OpenAiChat, "", trained_short.hot("m", 2048), (Kept, None, Some(2048), None));
}

const BATCH: LaunchOptions = LaunchOptions {
    num_batch: Some(256),
    num_thread: None,
    main_gpu: None,
    draft_num_predict: None,
    use_mmap: None,
    no_shift: false,
    num_gpu: None,
};

#[track_caller]
fn check_launch(case: &Case<'_>, expected: (ContextAction, Option<u64>, Option<u64>)) {
    let plan = case.plan();
    assert_eq!((plan.action, plan.num_ctx, plan.window), expected, "{:?} {}", case.mode, case.options);
    let reloads = (plan.action == Reload).then_some(ReloadCause::LaunchOptions);
    assert_eq!(plan.cause, reloads);
}

#[test]
fn other_launch_options_reload_whatever_the_context() {
    let on = |mode, options, spec: NodeSpec| Case {
        mode,
        surface: Surface::OllamaChat,
        options,
        node: spec,
        launched: None,
    };
    let hot = || told().hot("m", 8192);
    // The context that others use is kept through the reload; a larger one that is asked for is given.
    check_launch(&on(Strip, "\"num_batch\":256", hot()), (Reload, Some(8192), Some(8192)));
    check_launch(&on(Strip, "\"num_batch\":256", told().hot("m", 2048)), (Reload, Some(2048), Some(2048)));
    check_launch(&on(Strip, "\"num_batch\":256", told().hot("m", 4096)), (Reload, None, Some(4096)));
    check_launch(&on(Strip, "\"num_batch\":256,\"num_ctx\":2048", hot()), (Reload, Some(8192), Some(8192)));
    check_launch(&on(Strip, "\"num_batch\":256,\"num_ctx\":8192", hot()), (Reload, None, Some(8192)));
    check_launch(&on(Strip, "\"num_batch\":256,\"num_ctx\":16384", hot()), (Reload, None, Some(16_384)));
    check_launch(&on(Strip, "\"num_batch\":256", told().hot("m", 0)), (Reload, None, Some(4096)));
    check_launch(&on(Strip, "\"num_batch\":256", told().cold("m")), (Load, None, Some(4096)));
    check_launch(&on(Warn, "\"num_batch\":256,\"num_ctx\":2048", hot()), (Reload, None, Some(2048)));
    check_launch(&on(Passthrough, "\"num_batch\":256", hot()), (Reload, None, Some(4096)));
    check_launch(&on(Strip, "\"num_gpu\":-1", hot()), (Pinned, Some(8192), Some(8192)));
}

#[test]
fn the_runner_s_own_launch_options_are_what_counts() {
    let on = |surface, options, launched| Case { mode: Strip, surface, options, node: told().hot("m", 4096), launched };
    let chat = Surface::OllamaChat;
    check_launch(&on(chat, "\"num_batch\":256", Some(BATCH)), (Kept, None, Some(4096)));
    check_launch(&on(chat, "", Some(BATCH)), (Reload, None, Some(4096)));
    check_launch(&on(chat, "", Some(LaunchOptions::default())), (Kept, None, Some(4096)));
    check_launch(
        &on(chat, "", Some(LaunchOptions { num_gpu: Some(9), ..LaunchOptions::default() })),
        (Kept, None, Some(4096)),
    );
    check_launch(&on(Surface::OpenAiChat, "", Some(BATCH)), (Reload, None, Some(4096)));
    check_launch(&on(Surface::OpenAiChat, "\"num_batch\":256", None), (Kept, None, Some(4096)));
}

#[test]
fn a_prompt_that_will_be_cut_is_told() {
    let told = |surface, text: &str, window| {
        let body = format!("{{\"model\":\"m\",\"input\":[\"{text}\",\"{text}\"],\"prompt\":\"{text}\"}}");
        let profile = inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap();
        overflow(&profile, window).map(|overflow| overflow.to_string())
    };
    let long = "x".repeat(4000);
    assert_eq!(
        told(Surface::OllamaGenerate, &long, Some(2048)).as_deref(),
        Some("estimated_tokens=3000; context_length=2048")
    );
    assert_eq!(told(Surface::OllamaGenerate, &long, Some(3000)), None);
    assert_eq!(told(Surface::OllamaGenerate, &long, None), None);
    assert_eq!(told(Surface::OllamaEmbed, &long, Some(1000)), None, "each input is embedded alone");
    assert_eq!(
        told(Surface::OllamaEmbed, &long, Some(512)).as_deref(),
        Some("estimated_tokens=1000; context_length=512")
    );
}

#[test]
fn names_are_stable() {
    assert_eq!(ContextAction::Upgraded.to_string(), "upgraded");
    let causes = [ContextLarger, ContextDiffers, NodeDefault, ReloadCause::LaunchOptions];
    let names = ["context_larger", "context_differs", "node_default", "launch_options"];
    assert_eq!(causes.map(|cause| cause.to_string()), names);
}

#[test]
fn the_edit_fits_every_form_of_options() {
    let set = |body: &str| {
        let profile = inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap();
        String::from_utf8(splice(body.as_bytes(), &set_options(&profile.places, &[("num_ctx", "8192".to_owned())])))
            .unwrap()
    };
    assert_eq!(set(r#"{"model":"m"}"#), r#"{"options":{"num_ctx":8192},"model":"m"}"#);
    assert_eq!(set(r#" { "model":"m"}"#), r#" {"options":{"num_ctx":8192}, "model":"m"}"#);
    assert_eq!(set(r#"{"model":"m","options":null}"#), r#"{"model":"m","options":{"num_ctx":8192}}"#);
    assert_eq!(set(r#"{"model":"m","options":{}}"#), r#"{"model":"m","options":{"num_ctx":8192}}"#);
    assert_eq!(set(r#"{"model":"m","options":{"seed":1}}"#), r#"{"model":"m","options":{"num_ctx":8192,"seed":1}}"#);
    assert_eq!(set(r#"{"options":{"num_ctx": 5 },"model":"m"}"#), r#"{"options":{"num_ctx": 8192 },"model":"m"}"#);
}

#[test]
fn an_alias_keeps_the_runner_for_what_cannot_say_a_context() {
    #[track_caller]
    fn check(surface: Surface, default: Option<u64>, loaded: Option<u64>, expected: (ContextAction, Option<u64>)) {
        let profile = inspect(surface, br#"{"model":"m"}"#, &InspectLimits::default()).unwrap();
        let spec = NodeSpec { default_context: default, ..NodeSpec::default() };
        let spec = if let Some(tokens) = loaded { spec.hot("m", tokens) } else { spec.cold("m") };
        let node = node("n", &spec);
        let model = &node.models[0];
        let plan =
            plan(&profile, &node, model, None, Protection::Strip).by_alias(&profile, &node, model, AliasUse::Always);
        assert_eq!((plan.action, plan.alias, plan.num_ctx), (expected.0, expected.1, plan.num_ctx), "{surface:?}");
        assert!(plan.alias.is_none() || (plan.num_ctx.is_none() && plan.cause.is_none()));
    }
    let v1 = Surface::OpenAiChat;
    check(v1, Some(4096), Some(8192), (ContextAction::Pinned, Some(8192)));
    check(v1, None, Some(8192), (ContextAction::Pinned, Some(8192)));
    check(v1, Some(8192), Some(8192), (ContextAction::Kept, None));
    check(v1, Some(4096), None, (ContextAction::Load, None));
    check(Surface::OllamaChat, Some(4096), Some(8192), (ContextAction::Pinned, None));
}

#[test]
fn an_alias_is_made_only_where_the_request_would_reload() {
    #[track_caller]
    fn check(spec: &NodeSpec, loaded: u64, expected: Option<u64>) {
        let profile = inspect(Surface::OpenAiChat, br#"{"model":"m"}"#, &InspectLimits::default()).unwrap();
        let node = node("n", &spec.clone().hot("m", loaded));
        let model = &node.models[0];
        let plan = plan(&profile, &node, model, None, Protection::Strip);
        let plan = plan.by_alias(&profile, &node, model, AliasUse::WhereNeeded);
        assert_eq!(plan.alias, expected, "{loaded} on {spec:?}");
    }
    check(&told(), 8192, Some(8192));
    check(&told(), 4096, None);
    // What is loaded cannot be what a node without a GPU starts unasked.
    check(&untold(), 8192, Some(8192));
    check(&untold(), 4096, None);
    check(&untold(), 32_768, Some(32_768));
    let gib = crate::testing::GIB;
    let gpu = |vram: u64| NodeSpec { vram_bytes: Some((vram * gib, vram * gib)), ..untold() };
    check(&gpu(24), 32_768, None);
    check(&gpu(24), 4096, Some(4096));
    check(&gpu(16), 4096, None);
    check(&gpu(80), 32_768, None);
}

/// An embedding model of this training context.
fn embeds(train_context: u64, loaded: Option<u64>) -> NodeSpec {
    let spec = NodeSpec { train_context, capabilities: vec!["embedding".into()], ..NodeSpec::default() };
    loaded.map_or_else(|| spec.clone().cold("m"), |tokens| spec.clone().hot("m", tokens))
}

#[test]
fn a_model_that_embeds_is_left_alone_where_all_of_its_context_is_loaded() {
    let check = |surface, options: &str, loaded, launched: Option<i64>, expected: (ContextAction, Option<u64>)| {
        let launched =
            launched.map(|num_batch| LaunchOptions { num_batch: Some(num_batch), ..LaunchOptions::default() });
        let case = Case { mode: Strip, surface, options, node: embeds(512, Some(loaded)), launched };
        let plan = case.plan();
        assert_eq!((plan.action, plan.num_ctx), expected, "{surface:?} {options} beside {loaded}");
    };
    let (native, openai) = (Surface::OllamaEmbed, Surface::OpenAiEmbeddings);
    check(native, "", 512, None, (Kept, None));
    check(openai, "", 512, None, (Kept, None));
    check(native, &ctx(4096), 512, None, (Kept, None));
    // The same context by a smaller number is another batch to Ollama.
    check(native, &ctx(512), 512, None, (Raised, Some(2048)));
    check(native, &ctx(100), 512, None, (Raised, Some(2048)));
    // A runner that was started with a context of its own has the batch of that.
    check(native, "", 512, Some(512), (Pinned, Some(512)));
    check(native, &ctx(512), 512, Some(512), (Kept, None));
    check(openai, "", 512, Some(512), (Reload, None));
    check(native, "", 256, None, (Pinned, Some(256)));
}

#[test]
fn what_a_runner_was_launched_with_has_the_batch_that_ollama_derives() {
    let node = node("n", &embeds(512, None));
    let model = &node.models[0];
    let batch = |options: &str, num_ctx| {
        let plan = ContextPlan { num_ctx, ..ContextPlan::default() };
        sent_launch(&profile(Surface::OllamaEmbed, options), &node, model, &plan).num_batch()
    };
    assert_eq!(batch("", None), None, "the largest is what a request gets that says nothing");
    assert_eq!(batch(&ctx(8192), None), None);
    assert_eq!(batch(&ctx(512), None), Some(512));
    assert_eq!(batch("", Some(512)), Some(512));
    assert_eq!(batch("\"num_batch\":64", None), Some(64));
}

#[test]
fn a_runner_keeps_its_speed_unless_the_operator_says_otherwise() {
    let mode = |speed| Mode { protection: Strip, speed };
    let hot = node("n", &told().hot("m", 4096));
    let check = |options: &str, speed, expected: (ContextAction, bool)| {
        let launched = Signature::new(&LaunchOptions { num_thread: Some(8), ..LaunchOptions::default() });
        let plan = plan(&profile(Surface::OllamaChat, options), &hot, &hot.models[0], Some(launched), mode(speed));
        assert_eq!((plan.action, plan.keeps_speed), expected, "{options}");
    };
    for options in ["", "\"num_thread\":4", "\"num_batch\":64,\"use_mmap\":false", "\"main_gpu\":1"] {
        check(options, SpeedOptions::Keep, (Kept, true));
        check(options, SpeedOptions::Honour, (Reload, false));
    }
    check("\"num_thread\":8", SpeedOptions::Keep, (Kept, false));
    check("\"num_gpu\":10", SpeedOptions::Keep, (Reload, true));
    let passed = plan(
        &profile(Surface::OllamaChat, "\"num_thread\":4"),
        &hot,
        &hot.models[0],
        None,
        Mode { protection: Passthrough, speed: SpeedOptions::Keep },
    );
    assert_eq!(passed.action, Reload, "the client's own words");
}

#[test]
fn options_are_set_where_they_stand_and_added_where_they_do_not() {
    let set = |body: &str, options: &[(&str, &str)]| {
        let profile = inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default()).unwrap();
        let options: Vec<_> = options.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        String::from_utf8(splice(body.as_bytes(), &set_options(&profile.places, &options))).unwrap()
    };
    let all = [("num_ctx", "8192"), ("num_thread", "null"), ("use_mmap", "true")];
    assert_eq!(set(r#"{"model":"m"}"#, &all), r#"{"options":{"num_ctx":8192,"use_mmap":true},"model":"m"}"#);
    assert_eq!(
        set(r#"{"model":"m","options":{"num_thread": 4,"num_thread":4,"seed":1}}"#, &all),
        r#"{"model":"m","options":{"num_ctx":8192,"use_mmap":true,"num_thread": null,"num_thread":null,"seed":1}}"#
    );
    assert_eq!(
        set(r#"{"model":"m","options":{"use_mmap":false}}"#, &all[1..]),
        r#"{"model":"m","options":{"use_mmap":true}}"#
    );
    assert_eq!(set(r#"{"model":"m"}"#, &all[1..2]), r#"{"model":"m"}"#);
}
