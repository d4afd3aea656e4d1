//! What a node is asked about aliases.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use herd_core::name::ModelName;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Shared;

/// The most that is read of an answer.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// The most characters that are kept of an error.
const ERROR_MAX_CHARS: usize = 200;

#[derive(Serialize)]
struct Name<'a> {
    model: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    status: String,
    error: String,
}

/// Has `node` make `alias` as `body` says; the error is for people.
pub(super) async fn create(shared: &Shared, node: SocketAddr, alias: &ModelName, body: Bytes) -> Result<(), String> {
    let url = format!("http://{node}/api/create");
    let request = shared.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
    let made = timeout(shared.settings.create_timeout, answer(request)).await;
    let made = made.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
    match &made {
        Ok(()) => tracing::info!(target: "herd::audit", %node, %alias, "alias made"),
        Err(error) => tracing::warn!(%node, %alias, error, "an alias could not be made"),
    }
    made
}

/// Ollama answers 200 before it begins, so that the last line tells. Streamed or not, that line has the same form.
async fn answer(request: reqwest::RequestBuilder) -> Result<(), String> {
    let broken = |error: reqwest::Error| if error.is_connect() { "it cannot be reached" } else { "it broke off" };
    let mut answer = request.send().await.map_err(broken)?;
    let mut text = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if text.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err("its answer is too long".to_owned());
        }
        text.extend_from_slice(&chunk);
    }
    let last = text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let told: Told = serde_json::from_slice(last).unwrap_or_default();
    if answer.status() == StatusCode::OK && told.status == "success" {
        return Ok(());
    }
    let error: String = told.error.chars().filter(|c| !c.is_control()).take(ERROR_MAX_CHARS).collect();
    Err(if error.is_empty() { format!("it answered {}", answer.status()) } else { error })
}

/// Takes `alias` away from `node`. Returns whether it is not there any more.
pub(super) async fn delete(shared: &Shared, node: SocketAddr, alias: &ModelName) -> bool {
    let url = format!("http://{node}/api/delete");
    let answer = shared.client.delete(url).json(&Name { model: alias.as_str() }).send().await;
    let is_gone = answer.is_ok_and(|answer| matches!(answer.status(), StatusCode::OK | StatusCode::NOT_FOUND));
    if is_gone {
        tracing::info!(target: "herd::audit", %node, %alias, "alias taken away");
    }
    is_gone
}
