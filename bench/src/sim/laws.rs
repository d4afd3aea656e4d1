//! What must hold of every run, whatever the workload and the policy.

use super::bound::Bound;
use super::engine::{Outcome, Record, run};
use super::policy::POLICIES;
use super::rng::Rng;
use super::workload::{Scenario, WORKLOADS};

/// Requests of a run in a debug build; the largest fleet is left to the report.
const REQUESTS: usize = 150;

fn runs(check: impl Fn(&str, &Scenario, &Outcome)) {
    for workload in WORKLOADS.iter().filter(|workload| workload.name != "ten-thousand") {
        let requests = if workload.name == "thousand" { REQUESTS / 3 } else { REQUESTS };
        let scenario = (workload.build)(&mut Rng::new(7), requests);
        for policy in &POLICIES {
            let outcome = run(&scenario, (policy.make)(7).as_mut());
            check(&format!("{} under {}", workload.name, policy.name), &scenario, &outcome);
        }
    }
}

#[test]
fn every_request_ends_once_and_memory_is_never_exceeded() {
    runs(|name, scenario, outcome| {
        assert_eq!(outcome.doubles, 0, "{name}");
        for record in &outcome.records {
            let record = record.unwrap_or_else(|| panic!("{name}: a request has not arrived"));
            assert!(record.ended_ms >= record.arrived_ms && record.ended_ms > 0.0, "{name}: {record:?}");
            assert!(!record.served || record.attempts > 0, "{name}: {record:?}");
        }
        for (node, peak) in scenario.nodes.iter().zip(&outcome.peak_bytes) {
            assert!(*peak <= node.hardware.memory_bytes, "{name}");
        }
    });
}

#[test]
fn no_policy_beats_the_bound() {
    runs(|name, scenario, outcome| {
        let bound = Bound::of(scenario);
        let ours = |number: &usize| scenario.requests[*number].foreign.is_none();
        let mut total_ms = 0.0;
        let mut served = 0.0;
        for number in (0..scenario.requests.len()).filter(ours) {
            let Some(record) = outcome.records[number].filter(|record| record.served) else { continue };
            let least = |bound_ms: f64| bound_ms * (1.0 - 1e-6) - 1e-3;
            assert!(record.completion_ms() >= least(bound.alone_ms[number]), "{name}: {record:?}");
            let first_ms = record.first_byte_ms.map_or(0.0, |first_ms| first_ms - record.arrived_ms);
            assert!(first_ms >= least(bound.first_byte_ms[number]), "{name}: {record:?}");
            total_ms += record.completion_ms();
            served += 1.0;
        }
        // A policy that fails requests may have served the short ones.
        if outcome.records.iter().flatten().all(|record| record.served) {
            assert!(total_ms / served >= bound.mean_ms * (1.0 - 1e-6), "{name}");
        }
    });
}

/// The pool tells more than single requests where load is far above what the fleet can do.
#[test]
fn the_pooled_bound_holds_and_tells_under_overload() {
    let workload = WORKLOADS.iter().find(|workload| workload.name == "steady").expect("there is one");
    let mut scenario = (workload.build)(&mut Rng::new(3), 300);
    for request in &mut scenario.requests {
        request.at_ms /= 40.0;
    }
    let bound = Bound::of(&scenario);
    let alone_ms = bound.alone_ms.iter().sum::<f64>() / bound.alone_ms.len() as f64;
    assert!(bound.pooled_ms > alone_ms, "{} {alone_ms}", bound.pooled_ms);
    for policy in &POLICIES {
        let outcome = run(&scenario, (policy.make)(3).as_mut());
        let times: Vec<f64> = outcome.records.iter().flatten().map(Record::completion_ms).collect();
        assert!(times.iter().sum::<f64>() / times.len() as f64 >= bound.mean_ms, "{}", policy.name);
    }
}
