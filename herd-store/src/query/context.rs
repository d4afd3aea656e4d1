//! How much context requests really use, for windows of the right size.

use rusqlite::Connection;
use serde::Serialize;

use super::cells::{Fineness, Values, Wanted, by};
use super::{ROWS, Range, Spread};
use crate::rollup::{Count, Measure};
use crate::vocabulary::Dimension;
use crate::{DAY_MS, StoreError, StoreHandle};

/// How much context the requests of one model used, tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContextUsage {
    /// The node; none = on all of them.
    pub node_id: Option<String>,
    /// The model.
    pub model: String,
    /// Its requests.
    pub request_count: u64,
    /// Of their prompts; null = no backend told.
    pub prompt_tokens: Option<Spread>,
    /// Of prompts with their answers.
    pub total_tokens: Option<Spread>,
    /// The greatest of these in the last 24 hours of the range.
    pub max_24h: Option<f64>,
    /// The most that a client asked for; null = none did.
    pub num_ctx_max: Option<u64>,
    /// The largest window that served; null = not known.
    pub context_length_max: Option<u64>,
    /// Prompts that were estimated to be longer than the window that served them.
    pub overflows: u64,
    /// Requests for which the loaded model was loaded anew.
    pub reloads: u64,
}

impl StoreHandle {
    /// How much context the requests of `range` used, by model, the most used first.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn context_usage(&self, range: Range) -> Result<Vec<ContextUsage>, StoreError> {
        self.read(move |connection| {
            context_usage(connection, range, Dimension::Model, |model, _| (None, model.to_owned()))
        })
        .await
    }

    /// The same by model and node.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn context_usage_on_nodes(&self, range: Range) -> Result<Vec<ContextUsage>, StoreError> {
        self.read(move |connection| {
            let pair = |node: &str, model: &str| (Some(node.to_owned()), model.to_owned());
            context_usage(connection, range, Dimension::NodeModel, pair)
        })
        .await
    }
}

/// A node, where that matters, and a model.
type Place = (Option<String>, String);

fn context_usage(
    connection: &Connection,
    range: Range,
    dimension: Dimension,
    place: impl Fn(&str, &str) -> Place,
) -> Result<Vec<ContextUsage>, StoreError> {
    let values = Values::all(dimension);
    let sums = by(connection, Wanted::sums(range), values, |_, value, second| place(value, second))?;
    let last = Range { from_ms: range.from_ms.max(range.to_ms.saturating_sub(DAY_MS)), to_ms: range.to_ms };
    let last = Wanted { range: last, fineness: Fineness::Hours };
    let last = by(connection, last, values, |_, value, second| place(value, second))?;
    let mut usage: Vec<_> = sums
        .into_iter()
        .map(|(place, cell)| ContextUsage {
            request_count: cell.count(Count::Requests),
            prompt_tokens: Spread::of(cell.measure(Measure::PromptSize)),
            total_tokens: Spread::of(cell.measure(Measure::TotalSize)),
            max_24h: last.get(&place).and_then(|cell| cell.measure(Measure::TotalSize).max()),
            num_ctx_max: Some(cell.num_ctx).filter(|tokens| *tokens > 0),
            context_length_max: Some(cell.context_length).filter(|tokens| *tokens > 0),
            overflows: cell.count(Count::Overflows),
            reloads: cell.count(Count::Reloads),
            node_id: place.0,
            model: place.1,
        })
        .collect();
    usage.sort_by_key(|one| std::cmp::Reverse(one.request_count));
    usage.truncate(ROWS);
    Ok(usage)
}
