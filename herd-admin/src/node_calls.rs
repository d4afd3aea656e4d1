//! What the edge itself has nodes do beside the requests that it proxies.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use crate::answer::JSON;
use crate::node_client::node_client;

/// Longest time to connect to a node.
const CONNECT: Duration = Duration::from_secs(2);
/// Largest answer that says what went wrong.
const ANSWER_BYTES: usize = 64 << 10;
/// As much of a node's error is told.
const ERROR_BYTES: usize = 300;

/// A client of nodes that any runtime may use. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct NodeCalls(reqwest::Client);

impl NodeCalls {
    /// A client.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn new() -> reqwest::Result<Self> {
        // A connection that is kept would belong to the runtime of whoever asked first.
        Ok(Self(node_client(CONNECT).pool_max_idle_per_host(0).build()?))
    }

    /// Has the Ollama at `node` take `model` out of its memory, once the requests are over that it runs; `limit` bounds its
    /// answer, which does not wait for them.
    ///
    /// # Errors
    /// With the reason, for people. That the node does not have the model is none.
    pub async fn unload(&self, node: SocketAddr, model: &str, limit: Duration) -> Result<(), String> {
        // A request without a prompt that keeps the model for no time unloads it.
        let body = json!({ "model": model, "keep_alive": 0, "stream": false }).to_string();
        let request = self.0.post(format!("http://{node}/api/generate")).header(CONTENT_TYPE, JSON).body(body);
        let silent = |error: reqwest::Error| format!("the node did not answer: {}", error.without_url());
        let answer = request.timeout(limit).send().await.map_err(silent)?;
        let status = answer.status();
        if status.is_success() || status == http::StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(format!("the node answered {status}: {}", error_of(answer).await))
    }
}

/// What a node says went wrong, in Ollama's form or any other. No more of it is read than a message can have, whatever the
/// node sends.
pub(crate) async fn error_of(answer: reqwest::Response) -> String {
    let text = Limited::new(reqwest::Body::from(answer), ANSWER_BYTES).collect().await;
    let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let said = serde_json::from_str::<Value>(&text).ok().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
    let mut message = said.unwrap_or(text);
    message.truncate(message.floor_char_boundary(ERROR_BYTES));
    message
}
