//! `POST /v1/messages/count_tokens`: answered here, as no Ollama has it.
//!
//! Nobody but the model's own tokenizer knows the number, so that the answer is the edge's estimate and says so. The model
//! need not exist: clients ask before they choose.

use bytes::Bytes;
use herd_core::request::Surface;
use pingora_proxy::Session;
use serde_json::json;

use super::Edge;
use super::reply::{Content, Reply};

impl Edge {
    /// The tokens of the prompt that `session` sends.
    pub(super) async fn count_tokens(&self, session: &mut Session) -> Reply {
        let key = match self.use_key(&session.req_header().headers) {
            Ok(key) => key,
            Err(reply) => return reply,
        };
        // It costs the fleet nothing: nothing is charged but its place among the key's requests.
        let counted = self.read(session, Surface::AnthropicMessages, None).await;
        drop(key);
        match counted {
            Ok((profile, ..)) => {
                let bytes = Bytes::from(json!({ "input_tokens": profile.prompt_tokens }).to_string());
                let told = Reply::empty(200).content(Content { media_type: "application/json", bytes });
                told.header("X-Fleet-Estimated", "input_tokens")
            }
            Err((_, reply)) => reply,
        }
    }
}
