//! `herd bench`: begins a benchmark on a running herd, shows how far it is, and prints what was measured.

mod table;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use herd_admin::{AdminClient, BenchmarkRecord, BenchmarkState, Secret};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often herd may fail to answer in a row before it is thought gone.
const FAILURES_MAX: u32 = 5;
const PATH: &str = "/dashboard/api/benchmarks";

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchFlags {
    /// Address of a running herd: its edge, or its admin service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:11435")]
    pub edge: String,
    /// API key of scope admin, where herd asks for one
    #[arg(long, value_name = "KEY", env = "HERD_KEY", hide_env_values = true, value_parser = secret)]
    pub key: Option<Secret>,
    /// Model to measure, more than once for more [default: those in memory]
    #[arg(long = "model", value_name = "MODEL")]
    pub models: Vec<String>,
    /// Node to measure, more than once for more [default: all that serve]
    #[arg(long = "node", value_name = "ID")]
    pub nodes: Vec<String>,
    /// Requests for each node and model
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub requests: u64,
    /// Closed loop: so many at a time [default: 1]
    #[arg(long, value_name = "C", conflicts_with = "rate")]
    pub concurrency: Option<u64>,
    /// Open loop: so many arrive per second, however long answers take
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Tokens of a prompt, roughly
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    pub prompt_tokens: u64,
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub max_tokens: u64,
    /// What prompts and arrivals are made of
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Print JSON, and progress as JSON lines to standard error
    #[arg(long)]
    pub json: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::from(text))
}

impl BenchFlags {
    fn ask(&self) -> Value {
        let mut ask = Map::new();
        let mut add = |key: &str, value: Value| drop(ask.insert(key.to_owned(), value));
        add("models", json!(self.models));
        add("node_ids", json!(self.nodes));
        add("requests", json!(self.requests));
        add("prompt_tokens", json!(self.prompt_tokens));
        add("max_tokens", json!(self.max_tokens));
        add("seed", json!(self.seed));
        self.concurrency.into_iter().for_each(|concurrency| add("concurrency", json!(concurrency)));
        self.rate.into_iter().for_each(|rate| add("rate_per_s", json!(rate)));
        Value::Object(ask)
    }
}

/// Runs a benchmark to its end. Ctrl-C cancels it on the herd too, and what was measured until then is shown.
///
/// # Errors
/// When herd cannot be reached, or refuses.
pub fn run(flags: &BenchFlags) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let record = runtime.block_on(measure(flags))?;
    let text = if flags.json {
        format!("{}\n", serde_json::to_string_pretty(&record).context("the answer cannot be written")?)
    } else {
        table::markdown(&record)
    };
    // Standard output may be closed, and then nobody wants to know.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Ok(if record.run.state == BenchmarkState::Completed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(flags: &BenchFlags) -> anyhow::Result<BenchmarkRecord> {
    let client = AdminClient::new(&flags.edge)?.with_key(flags.key.clone());
    // Before the run begins: from then on whoever interrupts must not leave it behind.
    let mut interrupted = signal(SignalKind::interrupt()).context("signals cannot be heard")?;
    let begun = client.post(&format!("{PATH}/start"), &flags.ask()).await?;
    let run_id = begun["run_id"].as_str().context("herd named no run")?.to_owned();
    let told = Told { json: flags.json, terminal: std::io::stderr().is_terminal() };
    tokio::select! {
        outcome = follow(&client, &run_id, &told) => outcome?,
        _ = interrupted.recv() => {
            told.line("cancelling");
            // It may have ended in this moment.
            drop(client.post(&format!("{PATH}/cancel"), &json!({})).await);
        }
    }
    told.end();
    let record = client.get(&format!("{PATH}/{run_id}")).await?;
    serde_json::from_value(record).context("the answer is not that of this version of herd")
}

/// Tells how far the run is, until it is over.
async fn follow(client: &AdminClient, run_id: &str, told: &Told) -> anyhow::Result<()> {
    let mut failures = 0;
    loop {
        match client.get(&format!("{PATH}/progress")).await {
            Ok(progress) if progress["run_id"] == run_id => {
                failures = 0;
                told.progress(&progress);
            }
            Ok(_) => return Ok(()),
            Err(error) => {
                failures += 1;
                if failures == FAILURES_MAX {
                    return Err(error.into());
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Who is told how far it is.
struct Told {
    json: bool,
    terminal: bool,
}

impl Told {
    fn progress(&self, progress: &Value) {
        if self.json {
            return write(&format!("{progress}\n"));
        }
        let number = |key: &str| progress[key].as_u64().unwrap_or(0);
        let (done, total, errors) = (number("done"), number("total"), number("errors"));
        self.line(&format!("{done} of {total} requests, {errors} errors, {} s", number("elapsed_ms") / 1000));
    }

    /// One line that takes the place of the last; only where that can be.
    fn line(&self, text: &str) {
        if self.terminal && !self.json {
            write(&format!("\r\x1b[K{text}"));
        }
    }

    fn end(&self) {
        self.line("");
    }
}

fn write(text: &str) {
    let mut err = std::io::stderr();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}
