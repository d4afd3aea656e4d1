//! `/_sim/*`: what a test asks of a node, and no client of Ollama.
//!
//! | request | answer |
//! |---|---|
//! | `GET /_sim/stats` | [`super::SimStats`] |
//! | `POST /_sim/reset` | forgets the stats |
//! | `GET /_sim/slots` | a list of [`super::RunnerView`] |
//! | `GET /_sim/config` | [`super::SimConfig`] |
//! | `GET`, `POST /_sim/fault` | the [`Fault`] in force; puts one in force, and answers when the listener has followed |
//! | `GET`, `POST /_sim/agent` | `{"paused":true}`: the node's agent sends no heartbeats; its Ollama goes on |
//!
//! The control listener answers these alone, whatever the fault; the main one answers them too while it listens.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    body::{self, Body},
    fault::Fault,
    node::Node,
    surface::{ApiError, Dialect},
};

/// Most bytes of a request's body.
const BODY_LIMIT: usize = 64 << 10;

#[derive(Serialize)]
struct Done {
    ok: bool,
}

/// Whether the node's agent is silent.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentSwitch {
    paused: bool,
}

/// Whether `path` is answered here.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with("/_sim/")
}

/// Answers a request for `/_sim/*`.
pub(crate) async fn serve(node: &Arc<Node>, head: &http::request::Parts, incoming: Incoming) -> Response<Body> {
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/_sim/stats") => body::json(&node.stats()),
        (&Method::GET, "/_sim/slots") => body::json(&node.engine.slots()),
        (&Method::GET, "/_sim/config") => body::json(&*node.config),
        (&Method::GET, "/_sim/fault") => body::json(&node.faults.get()),
        (&Method::POST, "/_sim/reset") => {
            node.reset_stats();
            body::json(&Done { ok: true })
        }
        (&Method::GET, "/_sim/agent") => body::json(&AgentSwitch { paused: *node.agent_paused.borrow() }),
        (&Method::POST, "/_sim/agent") => match read::<AgentSwitch>(incoming).await {
            Ok(AgentSwitch { paused }) => {
                node.agent_paused.send_replace(paused);
                body::json(&Done { ok: true })
            }
            Err(error) => error.respond(Dialect::Native),
        },
        (&Method::POST, "/_sim/fault") => match read::<Fault>(incoming).await {
            Ok(fault) => {
                node.set_fault(fault).await;
                body::json(&Done { ok: true })
            }
            Err(error) => error.respond(Dialect::Native),
        },
        _ => body::plain(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

async fn read<T: DeserializeOwned>(incoming: Incoming) -> Result<T, ApiError> {
    let bytes =
        Limited::new(incoming, BODY_LIMIT).collect().await.map_err(|error| ApiError::bad_request(error.to_string()))?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|error| ApiError::bad_request(error.to_string()))
}
