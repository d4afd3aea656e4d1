//! Metrics by model. A fleet may have thousands of models, so that only the most used ones have series of their own;
//! all others share that of `other`.
//!
//! When a model overtakes one that has a series, it takes its place: the other's series ends, as that of a process that
//! stops. Totals over all models are in `herd_requests_total` and `herd_tokens_total`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use herd_admin::{MODEL_LABELS, OTHER_MODELS};
use herd_core::record::RequestRecord;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::{Book, SECONDS};

/// Models whose use is counted, so that one that comes up is noticed.
const TRACKED: usize = 4 * MODEL_LABELS;
/// Who is to take another's place must be ahead by this much, so that two equals do not take turns.
const LEAD: u64 = 16;

/// Metrics by model.
#[derive(Debug)]
pub struct Models {
    families: Families,
    other: Series,
    /// Read by every request; replaced when a model comes or gets a series.
    table: ArcSwap<HashMap<String, Arc<Entry>>>,
    changes: Mutex<()>,
    /// Uses that a model without a series must have for one: fewer are not worth a look at the table.
    bar: AtomicU64,
}

#[derive(Debug)]
struct Families {
    requests: IntCounterVec,
    tokens: IntCounterVec,
    ttft_seconds: HistogramVec,
}

/// The series of one model.
#[derive(Debug, Clone)]
struct Series {
    requests: IntCounter,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
    ttft_seconds: Histogram,
}

#[derive(Debug)]
struct Entry {
    uses: Arc<AtomicU64>,
    series: Option<Series>,
}

impl Models {
    pub(super) fn new(book: &Book<'_>) -> prometheus::Result<Self> {
        let families = Families {
            requests: book.counters(
                "herd_model_requests_total",
                "Requests that nodes were asked for, by model.",
                &["model"],
            )?,
            tokens: book.counters(
                "herd_model_tokens_total",
                "Tokens of prompts and answers, as nodes report them, by model.",
                &["model", "kind"],
            )?,
            ttft_seconds: book.histograms(
                "herd_model_ttft_seconds",
                "From a request's header to its answer's first byte, by model.",
                "model",
                &SECONDS,
            )?,
        };
        let other = families.series(OTHER_MODELS);
        let (table, changes) = (ArcSwap::default(), Mutex::default());
        Ok(Self { families, other, table, changes, bar: AtomicU64::new(0) })
    }

    /// A request that a node was asked for has ended.
    pub(super) fn ended(&self, record: &RequestRecord) {
        self.used(&record.model, |series| {
            series.requests.inc();
            series.prompt_tokens.inc_by(record.counts.prompt_tokens.unwrap_or(0));
            series.completion_tokens.inc_by(record.counts.completion_tokens.unwrap_or(0));
            if let Some(first_ms) = record.first_byte_ms() {
                series.ttft_seconds.observe(first_ms / 1e3);
            }
        });
    }

    /// How often `model` has been used, against other models.
    pub(super) fn uses(&self, model: &str) -> u64 {
        self.table.load().get(model).map_or(0, |entry| entry.uses.load(Relaxed))
    }

    fn used(&self, model: &str, count: impl FnOnce(&Series)) {
        let mut table = self.table.load();
        let uses = table.get(model).map_or(0, |entry| entry.uses.fetch_add(1, Relaxed) + 1);
        let has_series = table.get(model).is_some_and(|entry| entry.series.is_some());
        if !has_series && (uses == 0 || uses > self.bar.load(Relaxed)) {
            self.admit(model);
            table = self.table.load();
        }
        count(table.get(model).and_then(|entry| entry.series.as_ref()).unwrap_or(&self.other));
    }

    /// Notes a model that is new, and gives it a series if it is used more than another that has one.
    fn admit(&self, model: &str) {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = HashMap::clone(&self.table.load());
        if !table.contains_key(model) {
            let uses = if table.len() < TRACKED { 1 } else { forget_one(&mut table) + 1 };
            table.insert(model.to_owned(), Arc::new(Entry { uses: Arc::new(uses.into()), series: None }));
        }
        let labelled = table.values().filter(|entry| entry.series.is_some()).count();
        if labelled < MODEL_LABELS {
            self.label(&mut table, model);
        } else {
            let last = least(&table, true);
            let least_uses = last.as_ref().map_or(0, |(_, uses)| *uses);
            let bar = least_uses.saturating_add(LEAD);
            if let Some((last, _)) = last.filter(|_| table[model].uses.load(Relaxed) > bar) {
                self.unlabel(&mut table, &last);
                self.label(&mut table, model);
            }
            self.bar.store(bar, Relaxed);
        }
        self.table.store(Arc::new(table));
    }

    fn label(&self, table: &mut HashMap<String, Arc<Entry>>, model: &str) {
        let uses = Arc::clone(&table[model].uses);
        let series = Some(self.families.series(model));
        table.insert(model.to_owned(), Arc::new(Entry { uses, series }));
    }

    fn unlabel(&self, table: &mut HashMap<String, Arc<Entry>>, model: &str) {
        let uses = Arc::clone(&table[model].uses);
        table.insert(model.to_owned(), Arc::new(Entry { uses, series: None }));
        self.families.remove(model);
    }
}

/// Takes the least used model without a series out of the table; returns how often it was used. Who comes in its place
/// starts there, as it may have been used as often and forgotten before (Metwally, Agrawal and El Abbadi, 2005).
fn forget_one(table: &mut HashMap<String, Arc<Entry>>) -> u64 {
    let Some((model, uses)) = least(table, false) else { return 0 };
    table.remove(&model);
    uses
}

fn least(table: &HashMap<String, Arc<Entry>>, labelled: bool) -> Option<(String, u64)> {
    let those = table.iter().filter(|(_, entry)| entry.series.is_some() == labelled);
    those
        .map(|(model, entry)| (model.clone(), entry.uses.load(Relaxed)))
        .min_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.cmp(&b.0)))
}

impl Families {
    fn series(&self, model: &str) -> Series {
        Series {
            requests: self.requests.with_label_values(&[model]),
            prompt_tokens: self.tokens.with_label_values(&[model, "prompt"]),
            completion_tokens: self.tokens.with_label_values(&[model, "completion"]),
            ttft_seconds: self.ttft_seconds.with_label_values(&[model]),
        }
    }

    fn remove(&self, model: &str) {
        // They are there; and if not, that is what is wanted.
        drop(self.requests.remove_label_values(&[model]));
        drop(self.tokens.remove_label_values(&[model, "prompt"]));
        drop(self.tokens.remove_label_values(&[model, "completion"]));
        drop(self.ttft_seconds.remove_label_values(&[model]));
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn models() -> (Registry, Models) {
        let registry = Registry::new();
        let models = Models::new(&Book(&registry)).unwrap();
        (registry, models)
    }

    fn uses(models: &Models, name: &str, times: u64) {
        (0..times).for_each(|_| models.used(name, |series| series.requests.inc()));
    }

    /// Requests by label.
    fn counted(registry: &Registry) -> HashMap<String, u64> {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "herd_model_requests_total").unwrap();
        let sample = |metric: &prometheus::proto::Metric| {
            let label = metric.get_label()[0].value().to_owned();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and whole")]
            let value = metric.get_counter().get_value() as u64;
            (label, value)
        };
        family.get_metric().iter().map(sample).collect()
    }

    #[test]
    fn the_most_used_models_have_series_of_their_own() {
        let (registry, models) = models();
        (0..MODEL_LABELS).for_each(|number| uses(&models, &format!("m{number}"), 100));
        uses(&models, "late", 50);
        let counts = counted(&registry);
        assert_eq!((counts.len(), counts.get("other"), counts.get("late")), (MODEL_LABELS + 1, Some(&50), None));
        uses(&models, "late", 100);
        let counts = counted(&registry);
        assert_eq!(counts.len(), MODEL_LABELS + 1, "one for another");
        assert_eq!((counts.get("other"), counts.get("late")), (Some(&116), Some(&34)), "it is ahead of one by LEAD");
        assert_eq!((models.uses("late"), models.uses("m1"), models.uses("unknown")), (150, 100, 0));
    }

    #[test]
    fn whatever_names_come_the_series_stay_few() {
        let (registry, models) = models();
        (0..10_000).for_each(|number| uses(&models, &format!("m{number}"), 1));
        assert!(models.table.load().len() <= TRACKED);
        let counts = counted(&registry);
        assert!(counts.len() <= MODEL_LABELS + 1, "{}", counts.len());
    }

    #[test]
    fn a_rush_of_new_names_does_not_take_the_place_of_models_in_use() {
        let (registry, models) = models();
        (0..MODEL_LABELS).for_each(|number| uses(&models, &format!("m{number}"), 1_000));
        (0..1_000).for_each(|number| uses(&models, &format!("n{number}"), 1));
        let counts = counted(&registry);
        assert!((0..MODEL_LABELS).all(|number| counts.contains_key(&format!("m{number}"))));
    }
}
