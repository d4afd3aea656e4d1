//! HTTP clients: for nodes, and for an edge.

use std::time::Duration;

use http::HeaderMap;
use http::header::VIA;

use crate::via;

/// Why the admin service cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The registry has metrics of the same names.
    #[error("cannot register the fleet's metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The client for nodes cannot be made.
    #[error("cannot make the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The system has no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(String),
}

/// A client for nodes, but for its limits on a whole answer. What it asks for bears this process's mark.
pub(crate) fn node_client(connect_timeout: Duration) -> reqwest::ClientBuilder {
    let mark = via::MARK.parse().map(|mark| HeaderMap::from_iter([(VIA, mark)])).unwrap_or_default();
    edge_client(connect_timeout).default_headers(mark)
}

/// A client for an edge, as command lines and benchmarks are: what it asks for is no request that went through herd.
pub(crate) fn edge_client(connect_timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        // A proxy from the environment, or a redirect, would take requests to where nobody meant them to go.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(connect_timeout)
}
