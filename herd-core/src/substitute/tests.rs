use super::*;
use crate::inspect::{InspectLimits, inspect};
use crate::request::Surface;
use crate::testing::{GIB, NodeSpec, fleet};

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

fn ask(members: &str) -> RequestProfile {
    on(Surface::OllamaChat, members)
}

fn on(surface: Surface, members: &str) -> RequestProfile {
    let body = format!("{{\"model\":\"m\"{members}}}");
    inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap()
}

fn capabilities(names: &str) -> Vec<String> {
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A node with one model of this size in GiB, in memory at this context, 0 = on disk.
fn with(model: &str, gib: u64, context: u64, can: &str) -> NodeSpec {
    let spec = NodeSpec { model_bytes: gib * GIB, capabilities: capabilities(can), ..NodeSpec::default() };
    if context == 0 { spec.cold(model) } else { spec.hot(model, context) }
}

fn fleet_of(specs: &[NodeSpec]) -> FleetSnapshot {
    let ids: Vec<String> = (0..specs.len()).map(|index| format!("n{index:02}")).collect();
    let nodes: Vec<_> = ids.iter().map(String::as_str).zip(specs.iter().cloned()).collect();
    fleet(&nodes, 0)
}

#[track_caller]
fn check_category(text: &str, can: &str, expected: Category) {
    assert_eq!(category(&name(text), Capabilities::from_names(&capabilities(can))), expected, "{text} {can}");
}

#[test]
fn a_category_is_what_the_node_says_else_what_the_name_says() {
    use Category::{Coding, Creative, Embedding, General, Reasoning, Vision};
    check_category("anything", "embedding", Embedding);
    check_category("gemma3:27b", "completion,vision", Vision);
    check_category("nomic-embed-text", "", Embedding);
    check_category("nomic-embed-text", "completion", General);
    check_category("llava", "completion", General);
    check_category("all-minilm", "", Embedding);
    check_category("hf.co/x/bge-m3:latest", "", Embedding);
    check_category("cross-encoder", "", Embedding);
    check_category("llava:7b", "", Vision);
    check_category("qwen2.5vl:7b", "", Vision);
    check_category("qwen3-vl", "", Vision);
    check_category("llama3.2-vision", "", Vision);
    check_category("qwen2.5-coder:7b", "completion,tools", Coding);
    check_category("deepseek-r1:8b", "completion,thinking", Reasoning);
    check_category("mythomax", "", Creative);
    check_category("llama3.2", "", General);
    check_category("coder/llama3.2", "", General);
}

#[track_caller]
fn check_stand_in(members: &str, can: &str, expected: bool) {
    let snapshot = fleet_of(&[with("m", 4, 0, "completion"), with("other", 8, 4096, can)]);
    let requested = snapshot.nodes[0].models.first();
    let candidate = &snapshot.nodes[1].models[0];
    for requested in [requested, None] {
        assert_eq!(can_stand_in(&ask(members), requested, candidate), expected, "{members} by {can:?}");
    }
}

#[test]
fn what_a_request_needs_must_be_told_by_the_candidate() {
    const IMAGE: &str = r#","messages":[{"images":["aGk="]}]"#;
    const TOOLS: &str = r#","tools":[{}]"#;
    const THINK: &str = r#","think":true"#;
    check_stand_in("", "", true);
    check_stand_in("", "completion", true);
    check_stand_in("", "embedding", false);
    check_stand_in("", "completion,vision,tools,thinking", true);
    for (members, what) in [(IMAGE, "vision"), (TOOLS, "tools"), (THINK, "thinking")] {
        check_stand_in(members, "", false);
        check_stand_in(members, "completion", false);
        check_stand_in(members, &format!("completion,{what}"), true);
    }
}

#[test]
fn embeddings_and_cloud_models_and_aliases_never_stand_in() {
    let alias = crate::alias::alias_name(&name("x"), 8192, crate::alias::EdgeMark(1)).unwrap();
    let candidates = ["nomic-embed-text", "gpt-oss:cloud", "gpt-oss:120b-cloud", alias.as_str()];
    for candidate in candidates {
        let snapshot = fleet_of(&[with(candidate, 8, 8192, "")]);
        assert!(!can_stand_in(&ask(""), None, &snapshot.nodes[0].models[0]), "{candidate}");
    }
    let snapshot = fleet_of(&[with("e", 1, 0, "embedding"), with("other", 8, 4096, "completion,embedding")]);
    let (embeds, other) = (&snapshot.nodes[0].models[0], &snapshot.nodes[1].models[0]);
    for surface in [Surface::OllamaEmbed, Surface::OllamaEmbeddings, Surface::OpenAiEmbeddings] {
        assert!(!can_stand_in(&on(surface, ""), None, other), "{surface:?}");
        assert!(substitutes(&snapshot, &on(surface, ""), &name("e")).is_empty(), "{surface:?}");
    }
    assert!(!can_stand_in(&ask(""), Some(embeds), other), "a chat with a model that embeds is a mistake to tell");
}

#[track_caller]
fn check_upgrades(members: &str, specs: &[NodeSpec], expected: &[&str]) {
    let upgrades = upgrades(&fleet_of(specs), &ask(members), &name("m"));
    assert_eq!(upgrades, expected.iter().map(|text| name(text)).collect::<Vec<_>>(), "{members}");
}

#[test]
fn an_upgrade_is_larger_in_memory_and_holds_the_context() {
    const ASK: &str = r#","options":{"num_ctx":16384}"#;
    let m = || with("m", 4, 4096, "completion");
    let big = |text, gib, context| with(text, gib, context, "completion");
    check_upgrades(ASK, &[m(), big("b40", 40, 32_768), big("b8", 8, 16_384)], &["b8", "b40"]);
    check_upgrades("", &[m(), big("b", 8, 32_768)], &[]);
    check_upgrades(ASK, &[m(), big("b", 8, 16_383)], &[]);
    check_upgrades(ASK, &[m(), big("b", 8, 0)], &[]);
    check_upgrades(ASK, &[m(), big("b", 4, 32_768)], &[]);
    check_upgrades(ASK, &[m(), big("b", 0, 32_768)], &[]);
    check_upgrades(ASK, &[big("b", 8, 32_768)], &[]);
    check_upgrades(ASK, &[m(), big("b-coder", 8, 32_768), with("e", 9, 32_768, "embedding")], &[]);
    check_upgrades(ASK, &[m(), with("v", 8, 32_768, "completion,vision")], &["v"]);
    check_upgrades(ASK, &[m(), big("m", 8, 32_768)], &[]);
    // No model gives more than it was trained with, so that asking for more is asking for that.
    let short = NodeSpec { train_context: 8192, ..m() };
    check_upgrades(ASK, &[short, big("b", 8, 8192)], &["b"]);
    let on_two = [m(), big("b", 8, 4096), big("b", 8, 32_768)];
    check_upgrades(ASK, &on_two, &["b"]);
    let tools = format!("{ASK},\"tools\":[{{}}]");
    check_upgrades(&tools, &[m(), big("b", 8, 32_768), with("t", 9, 32_768, "completion,tools")], &["t"]);
}

#[track_caller]
fn check_substitutes(requested: &str, members: &str, specs: &[NodeSpec], expected: &[&str]) {
    let substitutes = substitutes(&fleet_of(specs), &ask(members), &name(requested));
    assert_eq!(substitutes, expected.iter().map(|text| name(text)).collect::<Vec<_>>(), "{requested} {members}");
}

#[test]
fn the_likest_model_in_memory_comes_first() {
    let hot = |text, gib| with(text, gib, 8192, "");
    let llama = || with("llama3:8b", 5, 0, "");
    let others = [llama(), hot("phi4", 9), hot("llama3.3:70b", 40), hot("mistral", 4), hot("zephyr", 6)];
    check_substitutes("llama3:8b", "", &others, &["llama3.3:70b", "mistral", "zephyr", "phi4"]);
    // Nobody has it: its name alone tells family and category.
    check_substitutes("llama9", "", &others[1..], &["llama3.3:70b", "mistral", "phi4", "zephyr"]);
    check_substitutes("qwen-coder", "", &others, &[]);
    check_substitutes("qwen-coder", "", &[hot("devstral", 14), hot("phi4", 9)], &["devstral"]);
    check_substitutes("nomic-embed-text", "", &others, &[]);
    check_substitutes("llama3:8b", "", &[llama(), with("phi4", 9, 0, ""), hot("llama3:8b", 5)], &[]);
}

#[test]
fn a_substitute_sees_holds_the_prompt_and_takes_work() {
    let image = r#","messages":[{"images":["aGk="]}]"#;
    let eyes = |text| with(text, 4, 8192, "completion,vision");
    check_substitutes("gemma3", image, &[eyes("llava"), with("phi4", 9, 8192, "completion")], &["llava"]);
    check_substitutes("gemma3", "", &[eyes("llava"), eyes("mistral-small3.1")], &["mistral-small3.1"]);
    let long = format!(",\"messages\":[{{\"content\":\"{}\"}}]", "x".repeat(20_000));
    check_substitutes("a", &long, &[with("b", 4, 4096, ""), with("c", 4, 8192, "")], &["c"]);
    let cordoned = fleet_of(&[with("b", 4, 4096, "")]).with_cordon("n00", true).unwrap();
    assert!(substitutes(&cordoned, &ask(""), &name("a")).is_empty());
}

#[test]
fn there_is_a_limit() {
    let specs: Vec<_> = (0..20).map(|index| with(&format!("x{index:02}"), 4, 4096, "")).collect();
    let found = substitutes(&fleet_of(&specs), &ask(""), &name("a"));
    assert_eq!((found.len(), &found[0]), (SUBSTITUTES_MAX, &name("x00")));
}
