//! Counters that others keep, read when asked.

use std::sync::{Arc, OnceLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, core::Metric as _};

/// A counter that is kept elsewhere.
struct Fed<F> {
    /// Where the name and the help are kept; it counts nothing itself.
    shape: IntCounter,
    read: F,
}

impl<F: Fn() -> u64 + Send + Sync> Collector for Fed<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.shape.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.shape.collect();
        let counter = IntCounter::new("unnamed", "unnamed").expect("a name that Prometheus takes");
        counter.inc_by((self.read)());
        if let Some(family) = families.first_mut() {
            family.set_metric(vec![counter.metric()]);
        }
        families
    }
}

/// A counter named `name` that says what `read` says: a number that only grows. `read` is called by every scrape and
/// must not wait.
///
/// # Errors
/// When Prometheus does not take the name.
pub fn fed_counter(
    name: &str,
    help: &str,
    read: impl Fn() -> u64 + Send + Sync + 'static,
) -> prometheus::Result<impl Collector + 'static> {
    Ok(Fed { shape: IntCounter::new(name, help)?, read })
}

/// A number that somebody who comes later will tell; zero until then.
#[derive(Clone, Default)]
pub(crate) struct Later(Arc<OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>>);

impl Later {
    /// Reads it from `read` from now on; the first who says so is believed.
    pub(crate) fn feed(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        drop(self.0.set(Box::new(read)));
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.get().map_or(0, |read| read())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn a_fed_counter_says_what_it_is_told() {
        let (registry, later) = (Registry::new(), Later::default());
        let told = later.clone();
        registry.register(Box::new(fed_counter("herd_x_total", "X.", move || told.read()).unwrap())).unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert_eq!(text(), "# HELP herd_x_total X.\n# TYPE herd_x_total counter\nherd_x_total 0\n");
        later.feed(|| 7);
        later.feed(|| 8);
        assert!(text().ends_with("\nherd_x_total 7\n"));
    }
}
