//! Text becomes typed values; what is not allowed is noted with its key, its value and what is allowed.

use std::time::Duration;

use herd_core::name::NodeId;
use reqwest::Url;

use super::{Interfaces, JoinToken, Problem, ollama_host};
use crate::log::LogFiles;

/// Word for "find out by yourself", where a key has no fixed default.
pub(super) const AUTO: &str = "auto";

/// `text` without what may be a password in it.
fn hidden(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => text.to_owned(),
    }
}

/// Turns text into typed values and notes what is wrong.
pub(super) struct Check<'a> {
    problems: &'a mut Vec<Problem>,
}

impl<'a> Check<'a> {
    pub(super) fn new(problems: &'a mut Vec<Problem>) -> Self {
        Self { problems }
    }

    fn refuse(&mut self, key: &str, value: &str, allowed: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), value: value.to_owned(), allowed: allowed.into() });
    }

    pub(super) fn holds(&mut self, key: &str, value: &str, holds: bool, allowed: &str) {
        if !holds {
            self.refuse(key, value, allowed);
        }
    }

    pub(super) fn millis(&mut self, key: &str, value: u64, min: u64, max: u64) -> Duration {
        self.holds(key, &value.to_string(), (min..=max).contains(&value), &format!("{min} to {max}"));
        Duration::from_millis(value)
    }

    pub(super) fn log_files(&mut self, max_bytes: u64, keep_files: usize) -> LogFiles {
        let (bytes, files) = (LogFiles::MAX_BYTES, LogFiles::KEEP_FILES);
        let allowed = format!("{} to {}", bytes.start(), bytes.end());
        self.holds("log.max_bytes", &max_bytes.to_string(), bytes.contains(&max_bytes), &allowed);
        let allowed = format!("{} to {}", files.start(), files.end());
        self.holds("log.keep_files", &keep_files.to_string(), files.contains(&keep_files), &allowed);
        LogFiles { max_bytes, keep_files }
    }

    pub(super) fn node_id(&mut self, text: &str) -> Option<NodeId> {
        if text == AUTO {
            return None;
        }
        NodeId::new(text).map_err(|error| self.refuse("node_id", text, format!("it {error}"))).ok()
    }

    pub(super) fn join_token(&mut self, text: &str) -> Option<JoinToken> {
        JoinToken::new(text).unwrap_or_else(|error| {
            self.refuse("join_token", "***", format!("it {error}"));
            None
        })
    }

    pub(super) fn router_url(&mut self, text: &str) -> Option<Url> {
        let url = ollama_host::http_url(text);
        url.map_err(|why| self.refuse("router_urls", &hidden(text), format!("it {why}"))).ok()
    }

    pub(super) fn ollama_url(&mut self, text: &str, ollama_host: Option<&String>) -> Option<Url> {
        let (key, text) = if text == AUTO {
            ("OLLAMA_HOST", ollama_host.map(String::as_str).unwrap_or_default())
        } else {
            ("ollama.url", text)
        };
        let url = ollama_host::ollama_url(text);
        url.map_err(|why| self.refuse(key, &hidden(text), format!("it {why}"))).ok()
    }

    pub(super) fn service_type(&mut self, text: String) -> String {
        // RFC 6763 §7: the service name has at most 15 characters, after the underscore.
        let name = text.strip_prefix('_').and_then(|rest| rest.strip_suffix("._tcp.local."));
        let good = name.is_some_and(|name| !name.is_empty() && name.len() <= 15 && !name.contains('.'));
        self.holds("mdns.service_type", &text, good, "_NAME._tcp.local. with a NAME of at most 15 characters");
        text
    }

    pub(super) fn interfaces(&mut self, text: &str) -> Interfaces {
        match text {
            "all" => Interfaces::All,
            "loopback" => Interfaces::Loopback,
            _ => {
                self.refuse("mdns.interfaces", text, "all or loopback");
                Interfaces::All
            }
        }
    }

    pub(super) fn log_level(&mut self, text: String) -> String {
        let good = !text.is_empty() && text.parse::<tracing_subscriber::filter::Targets>().is_ok();
        self.holds("log_level", &text, good, "error, warn, info, debug, trace, or target=level pairs");
        text
    }
}
