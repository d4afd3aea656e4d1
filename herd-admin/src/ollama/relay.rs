//! Questions that a client asks of one node through herd: which node is asked, and its answer on its way.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use herd_core::fleet::Node;
use herd_core::places::Place;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::answer::{JSON, OLLAMA_JSON};
use crate::state::AdminState;

/// The header that names the node which answered, and in requests the one that is to be asked.
pub(crate) const FLEET_NODE: HeaderName = HeaderName::from_static("x-fleet-node");
/// Requests that one node is asked at a time.
pub(crate) const ASKS_OF_ONE: usize = 16;
/// Nodes that are asked before the client is told that none answers.
pub(super) const ATTEMPTS: usize = 4;

/// A node that can be asked.
pub(crate) struct Holder {
    pub(crate) id: String,
    base: String,
}

impl Holder {
    pub(crate) fn of(node: &Node) -> Self {
        Self { id: node.id.to_string(), base: format!("http://{}", node.address) }
    }

    /// The URL of `path` there.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// `None` = none of them answered at all.
pub(super) async fn ask(
    state: &AdminState,
    nodes: &[Holder],
    method: Method,
    path: &str,
    body: &Bytes,
) -> Option<Response> {
    let mut last = None;
    for node in nodes {
        // One that drips its answers keeps those waiting who ask it, and not all that ask at all.
        let Ok(place) = state.asks().take_for(node.id.clone(), ASKS_OF_ONE) else { continue };
        // A request of our own with the client's body: none of its headers. Ollama refuses foreign Hosts and Origins.
        let request = state.nodes().request(method.clone(), node.url(path)).header(CONTENT_TYPE, JSON);
        match request.body(body.clone()).send().await {
            Ok(answer) => {
                let is_final = !answer.status().is_server_error() && answer.status() != StatusCode::NOT_FOUND;
                last = Some(passed_on(answer, &node.id, place));
                if is_final {
                    break;
                }
            }
            Err(error) => tracing::warn!(node_id = node.id, path, %error, "a node did not answer"),
        }
    }
    last
}

/// The node's answer, its body streamed. What it is comes from us: a node could say that it is a page.
fn passed_on(answer: reqwest::Response, node_id: &str, place: Place<String>) -> Response {
    let length = answer.headers().get(CONTENT_LENGTH).cloned();
    let status = answer.status();
    let pieces = answer.bytes_stream().inspect(move |_| _ = &place);
    let mut response = response(status, node_id, Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, OLLAMA_JSON);
    response.headers_mut().extend(length.map(|length| (CONTENT_LENGTH, length)));
    response
}

/// An answer that comes from the node named `node_id`.
pub(crate) fn response(status: StatusCode, node_id: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(id) = HeaderValue::try_from(node_id) {
        response.headers_mut().insert(FLEET_NODE, id);
    }
    response
}
