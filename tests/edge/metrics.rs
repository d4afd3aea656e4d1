//! What `/metrics` tells, and that the alert rules and the dashboard ask for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use herd_harness::{Edge, Sim, eventually, get};
use serde_json::Value;

const CHAT: &[u8] = br#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;

/// Every label that a metric may have; whatever is not here may be without bounds.
const LABELS: [&str; 18] = [
    "action",
    "cause",
    "condition",
    "gpu",
    "kind",
    "le",
    "limit",
    "model",
    "node",
    "outcome",
    "reason",
    "revision",
    "rustc",
    "signal",
    "state",
    "status",
    "surface",
    "version",
];

/// How a name may end that says a unit.
const UNITS: [&str; 8] = ["seconds", "bytes", "ratio", "celsius", "watts", "tokens", "points", "info"];

/// Metrics that only machines with such devices have.
const OF_SOME_MACHINES: [&str; 4] = [
    "herd_gpu_utilization_ratio",
    "herd_gpu_temperature_celsius",
    "herd_gpu_power_watts",
    "herd_node_temperature_celsius",
];

/// One family: its help, its type, its samples by name and labels.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            assert!(
                families.insert(current.clone(), Family { help: help.into(), ..Family::default() }).is_none(),
                "{name} twice"
            );
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert_eq!(name, current, "a type without help");
            kind.clone_into(&mut families.get_mut(name).unwrap().kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            families.get_mut(&current).unwrap().samples.push((
                name.into(),
                parse_labels(labels),
                value.parse().unwrap(),
            ));
        }
    }
    families
}

/// Labels as Prometheus' client library writes them; no value of these tests has a comma or a quote.
fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let text = text.strip_suffix('}').unwrap();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// An edge with a node, and traffic of all kinds behind it.
fn busy() -> (Edge, Sim) {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    // The node has one slot, which is given back after the client has its last byte: the next request would wait.
    let ask = |path: &str, body: &[u8]| {
        let status = edge.post(path, body).status;
        eventually("its slot is free", || edge.in_flight() == 0);
        status
    };
    for _ in 0..3 {
        assert_eq!(ask("/api/chat", CHAT), 200);
    }
    let openai = br#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(ask("/v1/chat/completions", openai), 200);
    assert_eq!(ask("/api/chat", b"{"), 400);
    sim.fault_with(r#"{"fault":"error_500","count":1}"#);
    assert_eq!(ask("/api/chat", CHAT), 500);
    (edge, sim)
}

fn scrape(edge: &Edge) -> String {
    let answer = get(edge.admin, "/metrics");
    assert_eq!(answer.status, 200);
    answer.text()
}

#[test]
fn every_name_and_label_keeps_the_rules() {
    let (edge, _sim) = busy();
    let families = families(&scrape(&edge));
    assert!(families.len() > 50, "{}", families.len());
    for (name, family) in &families {
        assert!(name.starts_with("herd_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name} is a {}", family.kind);
        assert!(family.help.ends_with('.') || family.help.contains("; "), "{name}: {}", family.help);
        let stem = name.strip_suffix("_total").unwrap_or(name);
        for unit in UNITS {
            let last = stem.ends_with(&format!("_{unit}")) || !stem.contains(&format!("_{unit}_"));
            assert!(last, "{name}: a unit comes last");
        }
        for part in stem.split('_') {
            let short = ["ms", "us", "sec", "secs", "mb", "gb", "kb", "pct", "percent", "bytes_total", "minutes"];
            assert!(!short.contains(&part), "{name}: {part} is no base unit");
        }
        assert_eq!(family.kind == "histogram", family.samples.iter().any(|(sample, ..)| sample.ends_with("_bucket")));
        for (_, labels, _) in &family.samples {
            for label in labels.keys() {
                assert!(LABELS.contains(&label.as_str()), "{name}: the label {label} is not known to have bounds");
            }
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_client() {
    let (edge, _sim) = busy();
    let value = |name: &str, wanted: &[(&str, &str)]| -> f64 {
        let families = families(&scrape(&edge));
        let samples = families.values().flat_map(|family| &family.samples);
        let fits = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(label, value)| labels.get(*label).is_some_and(|found| found == value))
        };
        samples.filter(|(sample, labels, _)| sample == name && fits(labels)).map(|(.., value)| value).sum()
    };
    // The record is written after the client has its last byte.
    eventually("all have ended", || value("herd_requests_total", &[]) > 5.5);
    for (name, labels, expected) in [
        ("herd_requests_total", &[("surface", "ollama_chat"), ("status", "completed")][..], 3.0),
        ("herd_requests_total", &[("surface", "ollama_chat"), ("status", "rejected")], 1.0),
        ("herd_requests_total", &[("surface", "ollama_chat"), ("status", "failed")], 1.0),
        ("herd_requests_total", &[("surface", "openai_chat"), ("status", "completed")], 1.0),
        ("herd_requests_total", &[], 6.0),
        ("herd_request_latency_seconds_count", &[("surface", "ollama_chat")], 4.0),
        ("herd_request_ttft_seconds_count", &[], 5.0),
        ("herd_request_queue_seconds_count", &[], 5.0),
        ("herd_choice_score_points_count", &[], 5.0),
        ("herd_choice_signal_points_count", &[("signal", "thermal")], 5.0),
        ("herd_choice_signal_points_count", &[], 35.0),
        ("herd_choice_total", &[("outcome", "at_once")], 5.0),
        ("herd_model_requests_total", &[("model", "tiny:latest")], 5.0),
        ("herd_node_up", &[("node", "a"), ("state", "online")], 1.0),
        ("herd_model_resident_bytes", &[("model", "other")], 0.0),
        ("herd_requests_in_flight", &[], 0.0),
        ("herd_limit", &[("limit", "queue.max_waiting")], 4096.0),
        ("herd_store_drops_total", &[], 0.0),
    ] {
        let found = value(name, labels);
        assert!((found - expected).abs() < 0.5, "{name} {labels:?}: {found}, not {expected}");
    }
    for kind in ["prompt", "completion"] {
        let all = value("herd_tokens_total", &[("kind", kind)]);
        let of_model = value("herd_model_tokens_total", &[("kind", kind), ("model", "tiny:latest")]);
        assert!(all > 0.0 && (all - of_model).abs() < 0.5, "{kind}: {all} and {of_model}");
    }
    assert!(value("herd_model_resident_bytes", &[("node", "a"), ("model", "tiny:latest")]) > 0.0);
    assert!(value("herd_build_info", &[("rustc", "unknown")]) < 0.5, "the compiler is known");
}

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf")
}

/// The names of metrics in `text`: every word that begins as all of ours do, outside of quotes.
fn names(text: &str) -> BTreeSet<String> {
    let outside: String = text.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let words = outside.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("herd_")).map(str::to_owned).collect()
}

/// Asserts that the metrics in `expression` are among the `exported`, those of histograms by their samples' names.
#[track_caller]
fn check_names(expression: &str, exported: &BTreeMap<String, Family>) {
    for name in names(expression) {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let of_histogram = stem.and_then(|stem| exported.get(stem)).is_some_and(|family| family.kind == "histogram");
        let whole = exported.get(&name).is_some_and(|family| family.kind != "histogram");
        let some = OF_SOME_MACHINES.contains(&name.as_str());
        assert!(of_histogram || whole || some, "{name} is not exported; it is asked for by {expression}");
    }
}

#[test]
fn the_alert_rules_ask_for_what_there_is() {
    let (edge, _sim) = busy();
    let exported = families(&scrape(&edge));
    let rules = std::fs::read_to_string(conf().join("prometheus/herd-alerts.yml")).unwrap();
    let mut expressions = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for line in rules.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some((_, text)) = block.as_mut().filter(|(outer, _)| indent > *outer) {
            text.push_str(line);
            text.push('\n');
            continue;
        }
        expressions.extend(block.take().map(|(_, text)| text));
        if let Some(expression) = line.trim_start().strip_prefix("expr: ") {
            match expression {
                "|" => block = Some((indent, String::new())),
                one => expressions.push(one.to_owned()),
            }
        }
    }
    let alerts = rules.lines().filter(|line| line.trim_start().starts_with("- alert: ")).count();
    assert_eq!((expressions.len(), alerts > 15), (alerts, true));
    for part in ["severity:", "summary:", "description:", "runbook:"] {
        let told = rules.lines().filter(|line| line.trim_start().starts_with(part)).count();
        assert_eq!(told, alerts, "each alert has its {part}");
    }
    for expression in expressions {
        check_names(&expression, &exported);
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let (edge, _sim) = busy();
    let exported = families(&scrape(&edge));
    let text = std::fs::read_to_string(conf().join("grafana/herd.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36) && dashboard["id"].is_null());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&"datasource".into(), &"prometheus".into()));
    variables.iter().filter_map(|variable| variable["definition"].as_str()).for_each(|query| {
        check_names(query, &exported);
    });
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let (mut asked, mut drawn) = (0, Vec::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice: {panel}");
        let place = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(place[0] + place[2] <= 24, "{panel}");
        let overlaps = |[x, y, w, h]: &[u64; 4]| {
            place[0] < x + w && *x < place[0] + place[2] && place[1] < y + h && *y < place[1] + place[3]
        };
        assert!(!drawn.iter().any(overlaps), "panels overlap: {panel}");
        drawn.push(place);
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let expression = target["expr"].as_str().unwrap();
            assert!(!names(expression).is_empty(), "{expression}");
            check_names(expression, &exported);
            asked += 1;
        }
    }
    assert!(asked > 30 && panels.len() > 15);
}

/// Where `promtool` is: named by the environment, put into the target folder by `cargo xtask test`, or on the path.
fn promtool() -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        let asked = Command::new(path).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
    let here = std::env::current_exe().unwrap();
    let fetched = here.ancestors().nth(3).map(|target| target.join("tools/prometheus/usr/bin/promtool"));
    [named, fetched, Some("promtool".into())].into_iter().flatten().find(runs)
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = promtool() else {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
        assert!(!ci, "promtool is not here; it is in Debian's package prometheus");
        return skip(
            "promtool is not here: Debian's package prometheus has it, and `cargo xtask test` fetches it as root",
        );
    };
    let folder = conf().join("prometheus");
    let run = |args: &[&str], input: &str| {
        let mut command = Command::new(&promtool);
        command.args(args).current_dir(&folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "promtool {args:?}: {said}");
        said
    };
    run(&["check", "config", "herd.yml"], "");
    run(&["check", "rules", "herd-alerts.yml"], "");
    run(&["test", "rules", "herd-alerts-test.yml"], "");
    let (edge, _sim) = busy();
    assert_eq!(run(&["check", "metrics"], &scrape(&edge)), "", "it has advice");
}

#[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}
