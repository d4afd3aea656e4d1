//! Findings over time: flickers, acknowledgements, mutes, the score, and what is kept.

use super::*;

fn observed(check: &'static str, node: &str, severity: Severity) -> Observed {
    Observed {
        check,
        severity,
        node_id: Some(node.into()),
        model: None,
        detail: "It is.".into(),
        evidence: [("share".to_owned(), Value::from(0.5)), ("count".to_owned(), Value::from(3_u64))].into(),
        fix: "fix".into(),
    }
}

fn key(check: &str, node: &str) -> Key {
    Key { check: check.into(), node_id: Some(node.into()), model: None }
}

/// The state after so many evaluations that see `seen`.
fn folded(findings: &Findings, seen: &[Observed], times: u64, from_ms: u64) -> Findings {
    (0..times).fold(findings.clone(), |findings, turn| findings.fold(seen.to_vec(), from_ms + turn).findings)
}

#[test]
fn a_flicker_is_no_finding_and_a_short_absence_no_end() {
    let down = [observed("node_down", "a", Severity::Critical)];
    let once = folded(&Findings::default(), &down, 1, 10);
    let gone = folded(&once, &[], 1, 11);
    let again = folded(&gone, &down, 1, 12);
    assert!(again.report(12).findings.is_empty(), "never twice in a row");
    let open = folded(&again, &down, 1, 13);
    let absent = folded(&open, &[], 1, 14);
    let finding = &absent.report(14).findings[0];
    assert_eq!((finding.first_seen_ms, finding.last_seen_ms), (12, 13));
    let back = folded(&absent, &down, 1, 15);
    assert!(back.fold(Vec::new(), 16).changes.is_empty(), "its absence is counted anew");
}

#[test]
fn acknowledged_is_known_until_it_ends_or_grows_worse() {
    let warn = [observed("memory_pressure", "a", Severity::Warning)];
    let open = folded(&Findings::default(), &warn, 2, 1);
    assert!(open.acknowledge(&key("memory_pressure", "b"), 5).is_none());
    let known = open.acknowledge(&key("memory_pressure", "a"), 5).unwrap();
    let report = folded(&known, &warn, 1, 6).report(6);
    assert_eq!((report.findings[0].acknowledged_at_ms, report.score), (Some(5), 92), "known is not mended");
    let worse = known.fold(vec![observed("memory_pressure", "a", Severity::Critical)], 7);
    assert_eq!(worse.changes.iter().map(|change| change.what).collect::<Vec<_>>(), [What::Worsened]);
    assert_eq!(worse.findings.report(7).findings[0].acknowledged_at_ms, None);
}

#[test]
fn what_is_muted_costs_nothing_until_its_time_is_over() {
    let seen = [observed("node_down", "a", Severity::Critical), observed("node_down", "b", Severity::Critical)];
    let open = folded(&Findings::default(), &seen, 2, 1);
    let mute = |node_id: Option<&str>, until_ms| Mute {
        check: "node_down".into(),
        node_id: node_id.map(str::to_owned),
        model: None,
        until_ms,
    };
    let one = open.mute(mute(Some("a"), 100)).unwrap();
    let report = one.report(50);
    assert_eq!((report.score, report.critical, report.muted), (75, 1, 1));
    assert_eq!(report.findings[1].muted_until_ms, Some(100), "the muted come last");
    assert_eq!(one.report(100).score, 62, "over");
    let all = one.mute(mute(None, 200)).unwrap();
    assert_eq!((all.report(150).score, all.report(150).status), (100, Overall::Healthy));
    assert_eq!(all.mutes().len(), 2);
    assert_eq!(all.mute(mute(None, 300)).unwrap().mutes().len(), 2, "in its place");
    assert_eq!(folded(&all, &seen, 1, 150).mutes().len(), 1, "what is over is forgotten");
    assert_eq!(all.unmute(&mute(None, 0)).report(150).score, 62);
    assert!(open.mute(Mute { check: "no_such_check".into(), ..mute(None, 9) }).is_none());
}

#[test]
fn mutes_are_bounded() {
    let mut findings = Findings::default();
    for number in 0..MUTES_MAX {
        let node_id = Some(number.to_string());
        let mute = Mute { check: "node_down".into(), node_id, model: None, until_ms: 9 };
        findings = findings.mute(mute).unwrap();
    }
    let mute = Mute { check: "node_down".into(), node_id: None, model: None, until_ms: 9 };
    assert!(findings.mute(mute).is_none());
}

#[track_caller]
fn scores(seen: &[Observed], expected: u8) {
    assert_eq!(folded(&Findings::default(), seen, 4, 1).report(9).score, expected);
}

#[test]
fn the_score_follows_its_formula() {
    scores(&[], 100);
    scores(&[observed("agent_old", "a", Severity::Info)], 100);
    scores(&[observed("memory_pressure", "a", Severity::Warning)], 92);
    scores(&[observed("node_down", "a", Severity::Critical)], 75);
    let many: Vec<_> =
        (0..40).map(|number| observed("memory_pressure", &format!("n{number}"), Severity::Warning)).collect();
    scores(&many[..2], 88);
    scores(&many, 84);
    let all: Vec<_> = CHECKS.iter().map(|check| observed(check.id, "a", Severity::Critical)).collect();
    scores(&all, 0);
}

#[test]
fn before_the_first_evaluation_nothing_is_claimed() {
    assert_eq!(Findings::default().report(0).status, Overall::Unknown);
}

#[test]
fn one_place_counts_once_and_the_worst_there_counts() {
    let both = [observed("disk_low", "a", Severity::Warning), observed("disk_low", "a", Severity::Critical)];
    let report = folded(&Findings::default(), &both, 2, 1).report(9);
    assert_eq!((report.critical, report.warning), (1, 0));
    assert_eq!(report.summary, "1 critical finding, 0 warnings.");
}

#[test]
fn the_state_outlasts_a_restart() {
    let seen = [observed("node_down", "a", Severity::Critical)];
    let open = folded(&Findings::default(), &seen, 2, 1).acknowledge(&key("node_down", "a"), 3).unwrap();
    let mute = Mute { check: "disk_low".into(), node_id: None, model: None, until_ms: 900 };
    let state = open.mute(mute).unwrap();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), state);
    assert_eq!(serde_json::from_str::<Findings>("{}").unwrap(), Findings::default());
}

#[test]
fn the_report_has_stable_names() {
    let open = folded(&Findings::default(), &[observed("node_down", "a", Severity::Critical)], 2, 1);
    let json = serde_json::to_value(open.report(9)).unwrap();
    assert_eq!((&json["score"], &json["status"]), (&75.into(), &"critical".into()));
    let finding = &json["findings"][0];
    for name in ["check", "node_id", "model", "title", "severity", "detail", "evidence", "fix", "first_seen_ms"] {
        assert!(finding.get(name).is_some(), "{name}");
    }
    assert_eq!((&finding["check"], &finding["evidence"]["count"]), (&"node_down".into(), &3.into()));
}
