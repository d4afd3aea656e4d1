//! A run as Markdown.

use herd_admin::{BenchmarkRecord, BenchmarkResult, Quantiles};

const HEAD: &str = "\
| node | model | requests | errors | TTFT ms p50 / p95 / p99 | latency ms p50 / p95 / p99 | queue ms p50 / p95 / p99 | tokens/s p5 / p50 / p95 | prefill tokens/s |
|---|---|--:|--:|--:|--:|--:|--:|--:|
";

/// What was measured, one row for each node and model, and what was not.
#[must_use]
pub(super) fn markdown(record: &BenchmarkRecord) -> String {
    let (run, config) = (&record.run, &record.run.config);
    let load = match (config.rate_per_s, config.concurrency) {
        (Some(rate), _) => format!("{rate} requests/s"),
        (None, concurrency) => format!("{} at a time", concurrency.unwrap_or(1)),
    };
    let mut text = format!(
        "{}: {}; {} requests each, {load}, prompts of about {} tokens, answers of at most {}, seed {}\n\n{HEAD}",
        run.run_id,
        run.state.name(),
        config.requests,
        config.prompt_tokens,
        config.max_tokens,
        config.seed
    );
    text.extend(record.results.iter().map(row));
    let notes: Vec<String> = run.error.iter().cloned().chain(left_out(record)).chain(failures(record)).collect();
    if !notes.is_empty() {
        text.push('\n');
        text.extend(notes.iter().map(|note| format!("- {note}\n")));
    }
    text
}

fn row(result: &BenchmarkResult) -> String {
    let speeds = &result.tokens_per_s;
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        result.node_id,
        // What a model is called is the node's word.
        result.model.replace('|', "\\|"),
        result.requests,
        result.errors,
        quantiles(&result.ttft_ms),
        quantiles(&result.latency_ms),
        quantiles(&result.queue_ms),
        joined([speeds.p5, speeds.p50, speeds.p95], 1),
        joined([result.prefill_tokens_per_s], 0),
    )
}

fn left_out(record: &BenchmarkRecord) -> impl Iterator<Item = String> + '_ {
    let told = |one: &herd_admin::LeftOut| format!("{} on {} was left out: {}", one.model, one.node_id, one.reason);
    record.run.left_out.iter().map(told)
}

fn failures(record: &BenchmarkRecord) -> impl Iterator<Item = String> + '_ {
    record.results.iter().filter(|result| result.errors > 0).map(|result| {
        let by: Vec<_> = result.errors_by_status.iter().map(|(status, count)| format!("{count} x {status}")).collect();
        let why = result.given_up.as_ref().or(result.last_error.as_ref()).map_or("", String::as_str);
        format!("{} on {}: {}; {why}", result.model, result.node_id, by.join(", "))
    })
}

fn quantiles(of: &Quantiles) -> String {
    joined([of.p50, of.p95, of.p99], 0)
}

/// What was not measured is a dash.
fn joined<const N: usize>(values: [Option<f64>; N], decimals: usize) -> String {
    let shown = values.map(|value| value.map_or("-".to_owned(), |value| format!("{value:.decimals$}")));
    shown.join(" / ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_a_table_with_its_failures_below() {
        let none = json!({ "p50": null, "p95": null, "p99": null });
        let some = json!({ "p50": 12.3, "p95": 40.0, "p99": 41.9 });
        let rates = json!({ "p5": 9.0, "p50": 10.05, "p95": 11.0 });
        let result = json!({
            "node_id": "a", "model": "tiny:latest", "requests": 4, "errors": 1, "errors_by_status": { "503": 1 },
            "last_error": "the queue is full", "given_up": null, "ttft_ms": some, "latency_ms": some, "queue_ms": none,
            "tokens_per_s": rates, "prefill_tokens_per_s": 1234.5, "throughput_tokens_per_s": null, "prompt_tokens": 1,
            "completion_tokens": 1, "context_overflows": 0, "late": 0, "warm_up_ms": null, "duration_ms": 1.0,
        });
        let config = json!({
            "requests": 4, "concurrency": 2, "rate_per_s": null, "prompt_tokens": 8, "max_tokens": 8, "seed": 1,
            "max_duration_s": 60,
        });
        let summary = json!({
            "requests": 4, "errors": 1, "ttft_ms": some, "latency_ms": some, "tokens_per_s": rates,
        });
        let run = json!({
            "run_id": "bench-1-1", "state": "completed", "error": null, "started_unix_ms": 1, "ended_unix_ms": 2,
            "models": ["tiny:latest"], "nodes": ["a"], "config": config, "summary": summary,
            "left_out": [{ "node_id": "b", "model": "tiny:latest", "reason": "the node is draining" }],
        });
        let record: BenchmarkRecord = serde_json::from_value(json!({ "run": run, "results": [result] })).unwrap();
        let text = markdown(&record);
        let row = "| a | tiny:latest | 4 | 1 | 12 / 40 / 42 | 12 / 40 / 42 | - / - / - | 9.0 / 10.1 / 11.0 | 1234 |\n";
        let notes =
            "\n- tiny:latest on b was left out: the node is draining\n- tiny:latest on a: 1 x 503; the queue is full\n";
        assert!(text.contains(row) && text.ends_with(notes), "{text}");
        assert!(text.starts_with("bench-1-1: completed; 4 requests each, 2 at a time,"), "{text}");
    }
}
