//! One request through the edge, timed as its client sees it.

use std::net::SocketAddr;

use herd_core::answer::{Counts, Ending, Observer};
use herd_core::request::Surface;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::ask::Pair;
use super::drive::Shot;
use super::measure::Sample;
use super::prompt::prompt;
use super::record::BenchmarkConfig;
use super::{BENCHMARK_HEADER, ONLY_NODE_HEADER};
use crate::answer::JSON;
use crate::caller::EDGE_SECRET_HEADER;

/// The API that is asked: the one whose answers tell what took how long.
const SURFACE: Surface = Surface::OllamaChat;
/// The most that is read of an answer that is an error.
const ERROR_MAX_BYTES: usize = 4 << 10;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The edge as benchmarks ask it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) secret: HeaderValue,
    pub(super) client: reqwest::Client,
}

/// What the requests of one pair have in common.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) target: &'a Target,
    pub(super) run_id: &'a str,
    pub(super) pair: &'a Pair,
    /// Its place in the run.
    pub(super) place: usize,
    pub(super) config: &'a BenchmarkConfig,
}

/// An answer as far as it has come.
struct Heard {
    first_token: Option<Instant>,
    counts: Counts,
}

impl Line<'_> {
    /// Makes the request `shot` and waits for the end of its answer.
    pub(super) async fn measure(&self, shot: Shot) -> Sample {
        let mut sample = Sample { late: shot.late, ..Sample::default() };
        let outcome = self.hear(shot, &mut sample).await;
        let ended = Instant::now();
        sample.latency = ended - shot.intended;
        match outcome {
            Ok(heard) => {
                sample.ttft = heard.first_token.map(|at| at - shot.intended);
                note(&mut sample, &heard, ended);
            }
            Err(error) => sample.error = Some(error),
        }
        sample
    }

    async fn hear(&self, shot: Shot, sample: &mut Sample) -> Result<Heard, (String, String)> {
        let url = format!("http://{}{}", self.target.address, SURFACE.path());
        let request = self.target.client.post(url).headers(self.headers(shot)).body(self.body(shot));
        let mut answer = request.send().await.map_err(|error| broken(&error))?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err((status.as_u16().to_string(), said(&mut answer).await));
        }
        sample.queue_ms = header(answer.headers(), "x-fleet-queue-ms").and_then(|text| text.parse().ok());
        sample.overflow = answer.headers().contains_key("x-fleet-context-overflow");
        let node = header(answer.headers(), "x-fleet-node").unwrap_or_default();
        if node != self.pair.node_id {
            return Err(("wrong_node".to_owned(), format!("{node} answered")));
        }
        let mut observer = Observer::new(SURFACE, true);
        let mut first_token = None;
        while let Some(chunk) = answer.chunk().await.map_err(|error| broken(&error))? {
            observer.observe(&chunk);
            if first_token.is_none() && observer.seen().first_token {
                first_token = Some(Instant::now());
            }
        }
        match observer.finish() {
            Ending::Complete => Ok(Heard { first_token, counts: observer.seen().counts }),
            Ending::Truncated => Err(("truncated".into(), "the answer ended before its own end".into())),
            Ending::BackendError => Err(("backend_error".into(), "the answer ended with an error".into())),
        }
    }

    fn headers(&self, shot: Shot) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(EDGE_SECRET_HEADER, self.target.secret.clone());
        let request_id = format!("{}-{}-{}", self.run_id, self.place, shot.number);
        let texts = [(ONLY_NODE_HEADER, self.pair.node_id.as_str()), (BENCHMARK_HEADER, self.run_id)];
        for (name, text) in texts.into_iter().chain([(REQUEST_ID, request_id.as_str())]) {
            // Node ids and run ids are of letters, digits and a few marks.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        headers
    }

    fn body(&self, shot: Shot) -> Vec<u8> {
        let config = self.config;
        // No two requests of a run have the same prompt.
        let number = (self.place as u64) << 32 | shot.number;
        let content = prompt(config.seed, number, config.prompt_tokens);
        let body = json!({
            "model": self.pair.model,
            "stream": true,
            "messages": [{ "role": "user", "content": content }],
            "options": { "num_predict": config.max_tokens, "temperature": 0, "seed": config.seed },
        });
        body.to_string().into_bytes()
    }
}

/// Takes what the answer tells of the work at the node.
fn note(sample: &mut Sample, heard: &Heard, ended: Instant) {
    let counts = &heard.counts;
    sample.prompt_tokens = counts.prompt_tokens.unwrap_or(0);
    sample.completion_tokens = counts.completion_tokens.unwrap_or(0);
    sample.prefill_tokens_per_s = counts.prompt_tokens.and_then(|tokens| per_second(tokens, counts.prefill_ms?));
    let written = counts.completion_tokens.and_then(|tokens| per_second(tokens, counts.decode_ms?));
    // Between the first token and the last there is one gap less than there are tokens.
    let seen = || {
        let gaps = counts.completion_tokens?.checked_sub(1)?;
        per_second(gaps, (ended - heard.first_token?).as_secs_f64() * 1e3)
    };
    sample.tokens_per_s = written.or_else(seen);
}

/// `None` = nothing, or in no time: that tells no speed.
fn per_second(tokens: u64, ms: f64) -> Option<f64> {
    (tokens > 0 && ms > 0.0).then(|| tokens as f64 / ms * 1e3)
}

fn broken(error: &reqwest::Error) -> (String, String) {
    let status = if error.is_connect() { "connect" } else { "broken" };
    (status.to_owned(), "the connection to the edge failed or broke off".to_owned())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The message of an error of the edge or a node.
async fn said(answer: &mut reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_MAX_BYTES {
            break;
        }
    }
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = value["error"].as_str().unwrap_or("an error without a message");
    text.chars().take(300).collect()
}
