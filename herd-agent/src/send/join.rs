//! Shows an edge that this agent knows the join token, once the edge has shown that it does; see [`herd_core::join`].

use std::time::Duration;

use bytes::Bytes;
use herd_core::join::{JoinSecret, Nonce, authorization, hex, unhex};
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{SendError, read, refused};

/// Longest that an edge's challenge is used, whatever the edge says.
const VALID_MAX: Duration = Duration::from_hours(24);
/// How long an edge that asks for no token, or knows of no proofs, is taken for one.
const ASK_AGAIN: Duration = Duration::from_mins(10);

/// What is known of an edge's and this agent's token, for a while.
#[derive(Debug)]
pub(super) struct Session {
    standing: Standing,
    until: Instant,
}

#[derive(Debug)]
enum Standing {
    /// Both know it.
    Proved { secret: JoinSecret, agent: Nonce, edge: Nonce },
    /// It takes every agent.
    Open,
    /// It knows nothing of proofs: an older edge, or the Python project's router.
    Unknown,
}

/// What a heartbeat shows.
pub(super) enum Shows {
    /// This `Authorization`.
    Proof(String),
    /// Nothing.
    Nothing,
    /// The token itself, if it is shown to this edge at all.
    Token,
}

impl Session {
    /// Asks the edge at `url` whether it knows the token of `secret`.
    pub(super) async fn ask(
        client: &Client,
        url: &Url,
        secret: JoinSecret,
        timeout: Duration,
    ) -> Result<Self, SendError> {
        let mut agent = Nonce::default();
        getrandom::fill(&mut agent).map_err(|error| SendError::Token(format!("no random numbers: {error}")))?;
        let challenge = url.join("heartbeat/challenge").expect("a base URL takes a relative path");
        let asked = json!({ "nonce": hex(&agent), "hint": hex(&secret.hint(&agent)) });
        let response = client.post(challenge).json(&asked).timeout(timeout).send().await?;
        let status = response.status();
        let answer = read(response).await?;
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(Self { standing: Standing::Unknown, until: Instant::now() + ASK_AGAIN });
        }
        if !status.is_success() {
            return Err(refused(status, &answer));
        }
        if answer["open"] == true {
            return Ok(Self { standing: Standing::Open, until: Instant::now() + ASK_AGAIN });
        }
        match number(&answer, "nonce").zip(number(&answer, "proof")) {
            Some((edge, proof)) if secret.is_edge(&proof, &agent, &edge) => {
                let valid = Duration::from_millis(answer["valid_ms"].as_u64().unwrap_or_default());
                // Asked for anew in good time.
                let until = Instant::now() + valid.min(VALID_MAX) / 2;
                Ok(Self { standing: Standing::Proved { secret, agent, edge }, until })
            }
            _ => Err(SendError::Token("what answers does not know the join token, and gets nothing from here".into())),
        }
    }

    /// Whether it is still good for a heartbeat.
    pub(super) fn is_good(&self) -> bool {
        Instant::now() < self.until
    }

    /// What a heartbeat with these bytes shows.
    pub(super) fn shows(&self, heartbeat: &Bytes) -> Shows {
        match &self.standing {
            Standing::Proved { secret, agent, edge } => {
                let proof = secret.agent_proof(agent, edge, heartbeat);
                Shows::Proof(authorization(agent, edge, &proof))
            }
            Standing::Open => Shows::Nothing,
            Standing::Unknown => Shows::Token,
        }
    }
}

fn number(answer: &Value, field: &str) -> Option<[u8; 32]> {
    answer[field].as_str().and_then(unhex)
}
