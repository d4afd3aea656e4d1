//! Shows an edge that this agent knows the join token, once the edge has shown that it does; see [`herd_core::join`].

use std::time::Duration;

use bytes::Bytes;
use herd_core::join::{JoinSecret, Nonce, authorization, hex, unhex};
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{SendError, read, refused};

/// What an edge and this agent have shown each other.
#[derive(Debug)]
pub(super) struct Session {
    secret: JoinSecret,
    agent: Nonce,
    edge: Nonce,
    until: Instant,
}

/// What came of asking an edge for a proof.
pub(super) enum Asked {
    /// It knows the token.
    Proved(Session),
    /// It knows nothing of proofs: an older edge, or the Python project's router.
    Unknown,
}

impl Session {
    /// Asks the edge at `url` whether it knows the token of `secret`.
    pub(super) async fn ask(
        client: &Client,
        url: &Url,
        secret: JoinSecret,
        timeout: Duration,
    ) -> Result<Asked, SendError> {
        let mut agent = Nonce::default();
        getrandom::fill(&mut agent).map_err(|error| SendError::Token(format!("no random numbers: {error}")))?;
        let challenge = url.join("heartbeat/challenge").expect("a base URL takes a relative path");
        let asked = json!({ "nonce": hex(&agent), "hint": hex(&secret.hint(&agent)) });
        let response = client.post(challenge).json(&asked).timeout(timeout).send().await?;
        let status = response.status();
        let answer = read(response).await?;
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(Asked::Unknown);
        }
        if !status.is_success() {
            return Err(refused(status, &answer));
        }
        let edge = number(&answer, "nonce");
        let proof = number(&answer, "proof");
        match edge.zip(proof) {
            Some((edge, proof)) if secret.is_edge(&proof, &agent, &edge) => {
                let valid = Duration::from_millis(answer["valid_ms"].as_u64().unwrap_or_default());
                // Asked for anew in good time.
                Ok(Asked::Proved(Self { secret, agent, edge, until: Instant::now() + valid / 2 }))
            }
            _ => Err(SendError::Token("what answers does not know the join token, and gets nothing from here".into())),
        }
    }

    /// Whether it is still good for a heartbeat.
    pub(super) fn is_good(&self) -> bool {
        Instant::now() < self.until
    }

    /// The `Authorization` of a heartbeat with these bytes.
    pub(super) fn authorization(&self, heartbeat: &Bytes) -> String {
        let proof = self.secret.agent_proof(&self.agent, &self.edge, heartbeat);
        authorization(&self.agent, &self.edge, &proof)
    }
}

fn number(answer: &Value, field: &str) -> Option<[u8; 32]> {
    answer[field].as_str().and_then(unhex)
}
