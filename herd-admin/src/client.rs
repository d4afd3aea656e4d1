//! A client of the admin service of a running herd, for command lines.

use reqwest::{Client, Method, Url};
use serde_json::Value;

use crate::node_client::edge_client;
use crate::secret::Secret;

/// Longest time for a whole answer.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Longest time to connect.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Why herd did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{0:?} is not an address like http://127.0.0.1:11435")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot reach herd at {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        why: String,
    },
    /// It refuses.
    #[error("{message} (HTTP {status})")]
    Refused {
        /// Its status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// It is not herd.
    #[error("the answer from {0} is not herd's")]
    Foreign(String),
}

/// A client of one herd.
#[derive(Debug, Clone)]
pub struct AdminClient {
    base: Url,
    client: Client,
    key: Option<Secret>,
}

impl AdminClient {
    /// For the herd at `base`, `http://HOST:PORT`: its edge, or its admin service itself.
    ///
    /// # Errors
    /// When that is no address.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(base.to_owned());
        let url = Url::parse(base).ok().filter(|url| url.scheme() == "http" && url.has_host()).ok_or_else(wrong)?;
        let client = edge_client(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).build().map_err(|_| wrong())?;
        Ok(Self { base: url, client, key: None })
    }

    /// The same with an API key.
    #[must_use]
    pub fn with_key(self, key: Option<Secret>) -> Self {
        Self { key, ..self }
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// When there is no answer, or another than success.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    /// When there is no answer, or another than success.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let address = self.base.to_string();
        let url = self.base.join(path).map_err(|_| ClientError::Address(format!("{address}{path}")))?;
        let mut request = self.client.request(method, url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.text());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| unreachable(&address, &error))?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| unreachable(&address, &error))?;
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status.is_success() {
            return value.ok_or(ClientError::Foreign(address));
        }
        let error = value.unwrap_or_default();
        let message = error["error"]["message"].as_str().or(error["error"].as_str()).unwrap_or("no reason given");
        Err(ClientError::Refused { status: status.as_u16(), message: message.to_owned() })
    }
}

fn unreachable(address: &str, error: &reqwest::Error) -> ClientError {
    let mut why = error as &dyn std::error::Error;
    while let Some(cause) = why.source() {
        why = cause;
    }
    ClientError::Unreachable { address: address.to_owned(), why: why.to_string() }
}
