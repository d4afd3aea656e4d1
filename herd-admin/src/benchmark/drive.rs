//! When the requests of one pair are made. Knows nothing of HTTP.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::measure::Sample;
use super::prompt::arrivals;
use super::record::BenchmarkConfig;

/// One request to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shot {
    /// Its number within the pair, from 0.
    pub(super) number: u64,
    /// When it should have been made: what it waits from then on is part of what it took, as it would be for a client.
    pub(super) intended: Instant,
    /// It is made later, because too many were under way.
    pub(super) late: bool,
}

/// Makes all requests of a pair with `ask`, `room` at a time at the most, and hands what came of each to `take`, which
/// says whether to go on. Dropping this ends those under way.
pub(super) async fn drive<F>(
    config: &BenchmarkConfig,
    room: usize,
    ask: impl Fn(Shot) -> F,
    mut take: impl FnMut(Sample) -> bool,
) where
    F: Future<Output = Sample>,
{
    let start = Instant::now();
    let mut dues = config.rate_per_s.map(|rate| arrivals(config.seed, rate).map(move |at| start + at));
    // When the next one is due; a closed loop has no such time.
    let mut due = dues.as_mut().and_then(Iterator::next);
    let mut left = config.requests;
    let mut running = FuturesUnordered::new();
    let mut was_full = false;
    while left > 0 || !running.is_empty() {
        let now = Instant::now();
        let has_room = left > 0 && running.len() < room;
        if has_room && due.is_none_or(|due| due <= now) {
            let intended = due.unwrap_or(now);
            let late = was_full && intended < now;
            running.push(ask(Shot { number: config.requests - left, intended, late }));
            left -= 1;
            due = dues.as_mut().and_then(Iterator::next);
            continue;
        }
        was_full = left > 0 && !has_room;
        tokio::select! {
            Some(sample) = running.next() => {
                if !take(sample) {
                    return;
                }
            }
            () = sleep_until(due.unwrap_or(now)), if has_room => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    const SERVICE: Duration = Duration::from_millis(100);

    fn config(requests: u64, concurrency: Option<u64>, rate_per_s: Option<f64>) -> BenchmarkConfig {
        let (prompt_tokens, max_tokens, seed, max_duration_s) = (1, 1, 5, 60);
        BenchmarkConfig { requests, concurrency, rate_per_s, prompt_tokens, max_tokens, seed, max_duration_s }
    }

    /// A node that takes [`SERVICE`] for each; returns the samples, the most at a time, and how long it all took.
    async fn driven(config: &BenchmarkConfig, room: usize) -> (Vec<Sample>, usize, Duration) {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let began = Instant::now();
        let mut samples = Vec::new();
        let ask = async |shot: Shot| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            tokio::time::sleep(SERVICE).await;
            running.set(running.get() - 1);
            Sample { latency: shot.intended.elapsed(), late: shot.late, ..Sample::default() }
        };
        let take = |sample| {
            samples.push(sample);
            true
        };
        drive(config, room, ask, take).await;
        (samples, most.get(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_keeps_so_many_under_way() {
        let (samples, most, took) = driven(&config(10, Some(4), None), 4).await;
        assert_eq!((samples.len(), most), (10, 4));
        assert_eq!(took.as_millis() / 10 * 10, 300, "three rounds");
        assert!(samples.iter().all(|sample| !sample.late && sample.latency < SERVICE * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_does_not_wait_for_answers() {
        let (samples, most, took) = driven(&config(400, None, Some(100.0)), 256).await;
        assert_eq!(samples.len(), 400);
        assert!((3.0..5.5).contains(&took.as_secs_f64()), "{took:?}");
        assert!((10..40).contains(&most), "{most}");
        assert!(samples.iter().all(|sample| !sample.late));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_sent_in_time_counts_from_when_it_should_have_been() {
        let (samples, most, _) = driven(&config(100, None, Some(100.0)), 2).await;
        assert_eq!((samples.len(), most), (100, 2));
        assert!(samples.iter().filter(|sample| sample.late).count() > 80);
        let slowest = samples.iter().map(|sample| sample.latency).max().unwrap();
        assert!(slowest > Duration::from_secs(3), "{slowest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_more_is_made_once_enough_is_known() {
        let made = Cell::new(0);
        let ask = async |_| {
            made.set(made.get() + 1);
            Sample::default()
        };
        drive(&config(50, Some(2), None), 2, ask, |_| false).await;
        assert!(made.get() <= 2);
    }
}
