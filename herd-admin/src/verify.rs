//! Whether there is an Ollama at an address. Nothing else is sent there before.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::HOST;
use serde_json::Value;

use crate::node_client::node_client;

/// How much of an answer is read: Ollama's is some 20 bytes.
const ANSWER_BYTES: usize = 4 << 10;

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// An Ollama, by what it says of its version.
    Ollama,
    /// Something else answers.
    SomethingElse,
    /// Nothing answers in time.
    Nothing,
}

/// Looks for Ollamas.
#[derive(Debug, Clone)]
pub struct Verifier(reqwest::Client);

impl Verifier {
    /// Waits at most `timeout` for an answer.
    ///
    /// # Errors
    /// When the system refuses an HTTP client.
    pub fn new(timeout: Duration) -> reqwest::Result<Self> {
        node_client(timeout).timeout(timeout).pool_max_idle_per_host(0).build().map(Self)
    }

    /// What is at `address`.
    pub async fn look(&self, address: SocketAddr) -> Found {
        // Ollama answers host names that it takes for its own.
        let request = self.0.get(format!("http://{address}/api/version")).header(HOST, "localhost");
        let Ok(mut response) = request.send().await else { return Found::Nothing };
        if !response.status().is_success() {
            return Found::SomethingElse;
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Found::SomethingElse,
                Ok(None) => break,
                Err(_) => return Found::Nothing,
            }
        }
        if is_ollama(&body) { Found::Ollama } else { Found::SomethingElse }
    }
}

/// Whether `body` is what an Ollama says of its version; a herd adds what it is itself.
fn is_ollama(body: &[u8]) -> bool {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else { return false };
    answer.get("version").is_some_and(|version| version.as_str().is_some_and(|text| !text.is_empty()))
        && !answer.contains_key("herd_version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ollama_tells_its_version_and_nothing_of_herd() {
        assert!(is_ollama(br#"{"version":"0.33.0"}"#));
        assert!(is_ollama(br#"{"version":"0.5.1-rc0", "more": 1}"#));
        for other in [
            &br#"{"version":"0.33.0","herd_version":"0.1.0"}"#[..],
            br#"{"version":""}"#,
            br#"{"version":1}"#,
            br#"["version"]"#,
            b"<html>version</html>",
            b"",
        ] {
            assert!(!is_ollama(other), "{}", String::from_utf8_lossy(other));
        }
    }
}
