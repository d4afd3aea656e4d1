//! Each check: what makes it see something, what is still too little, and that its finding opens and closes late.

mod cases;
mod folding;
mod hostile;

use std::collections::BTreeSet;

use super::*;

/// What makes one check see something, and what is just not enough.
struct Case {
    check: &'static str,
    node_id: Option<&'static str>,
    model: Option<&'static str>,
    severity: Severity,
    fires: fn(&mut Scene),
    quiet: fn(&mut Scene),
}

fn seen_by<'a>(check: &str, observed: &'a [Observed]) -> Vec<&'a Observed> {
    observed.iter().filter(|one| one.check == check).collect()
}

#[test]
fn a_healthy_fleet_has_no_findings_and_says_so() {
    let scene = Scene::healthy();
    assert_eq!(scene.observe(), Vec::new());
    let findings = Findings::default().fold(scene.observe(), 1).findings;
    let report = findings.report(1);
    assert_eq!((report.score, report.status, report.findings.len()), (100, Overall::Healthy, 0));
    assert_eq!(report.summary, format!("The fleet is healthy: {CHECK_COUNT} checks find nothing wrong."));
}

#[test]
fn every_check_has_a_case_and_a_name_of_its_own() {
    let names: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(names.len(), CHECK_COUNT);
    let tested: BTreeSet<_> = cases::all().iter().map(|case| case.check).collect();
    assert_eq!(names, tested);
    for check in &CHECKS {
        assert!(!check.title.is_empty() && check.opens_after > 0 && check.closes_after > 0, "{}", check.id);
    }
}

#[test]
fn a_limit_that_is_to_be_raised_is_told_larger_than_it_is() {
    let mut scene = Scene::healthy();
    let store = &mut scene.stats.edge.store;
    (store.used_bytes, store.max_bytes) = (9 << 30, 10 << 30);
    let full = JoinRefusal { code: "fleet_full".into(), ..JoinRefusal::default() };
    scene.stats.join_refusals = vec![full];
    let observed = scene.observe();
    let fix = |check| seen_by(check, &observed)[0].fix.as_str();
    assert!(fix("store_filling").starts_with("FLEET_STORE_MAX_BYTES=21474836480 "), "{}", fix("store_filling"));
    let larger = 2 * scene.snapshot.nodes.len();
    assert!(fix("join_refused").starts_with(&format!("fleet: {{nodes_max: {larger}}}")), "{}", fix("join_refused"));
}

#[test]
fn each_check_sees_what_it_is_for_and_where() {
    for case in cases::all() {
        let mut scene = Scene::healthy();
        (case.fires)(&mut scene);
        let observed = scene.observe();
        let seen = seen_by(case.check, &observed);
        let at = |one: &&&Observed| (one.node_id.as_deref(), one.model.as_deref()) == (case.node_id, case.model);
        let Some(one) = seen.iter().find(at) else { panic!("{} sees {observed:#?}", case.check) };
        assert_eq!(one.severity, case.severity, "{}", case.check);
        assert!(!one.detail.is_empty() && one.detail.ends_with('.'), "{}: {}", case.check, one.detail);
        assert!(!one.fix.is_empty() && !one.evidence.is_empty(), "{}", case.check);
    }
}

#[test]
fn each_check_is_silent_below_what_it_needs() {
    for case in cases::all() {
        let mut scene = Scene::healthy();
        (case.quiet)(&mut scene);
        let observed = scene.observe();
        assert!(seen_by(case.check, &observed).is_empty(), "{}: {observed:#?}", case.check);
    }
}

#[test]
fn each_finding_opens_and_closes_late_and_only_once() {
    for case in cases::all() {
        let kind = check(case.check).unwrap();
        let mut scene = Scene::healthy();
        (case.fires)(&mut scene);
        let mut findings = Findings::default();
        let mut at_ms = 0;
        let mut step = |observed: Vec<Observed>| {
            at_ms += 15_000;
            let folded = findings.fold(observed, at_ms);
            findings = folded.findings;
            let is_open = findings.report(at_ms).findings.iter().any(|finding| finding.key.check == case.check);
            let changes = folded.changes.iter().filter(|change| change.finding.key.check == case.check);
            (is_open, changes.map(|change| change.what).collect::<Vec<_>>())
        };
        for turn in 1..=kind.opens_after + 2 {
            let (is_open, changes) = step(scene.observe());
            assert_eq!(is_open, turn >= kind.opens_after, "{} at {turn}", case.check);
            assert_eq!(!changes.is_empty(), turn == kind.opens_after, "{} at {turn}", case.check);
        }
        for turn in 1..=kind.closes_after {
            let (is_open, changes) = step(Vec::new());
            assert_eq!(is_open, turn < kind.closes_after, "{} gone for {turn}", case.check);
            assert_eq!(changes.contains(&What::Closed), turn == kind.closes_after, "{}", case.check);
        }
    }
}
