use std::sync::Arc;

use proptest::prelude::*;

use super::meter::{Exceeded, KeyLimits, Meter, Rate, Usage};
use super::*;

fn scopes(names: &str) -> Scopes {
    Scopes::parse(names.split(',')).unwrap_or_default()
}

#[test]
fn scopes_are_read_and_shown_by_name() {
    assert_eq!(scopes("read, infer").to_string(), "infer,read");
    for unknown in ["", "infer,", "root", "Infer"] {
        assert_eq!(Scopes::parse(unknown.split(',')), None, "{unknown}");
    }
}

/// Which of the needs take a key: `L`ocal, from the `N`etwork, `P`roxied.
#[track_caller]
fn asks(require: Require, keys: &str, expected: [&str; 6]) {
    let posture = Posture { require, scopes: scopes(keys) };
    let needs = [Need::Nothing, Need::Infer, Need::Catalogue, Need::Read, Need::Change, Need::Node];
    let sources = [('L', Source::Local), ('N', Source::Network), ('P', Source::Proxied)];
    let found = needs.map(|need| {
        let asked = sources.iter().filter(|(_, source)| posture.asks_for_key(need, *source));
        asked.map(|(letter, _)| *letter).collect::<String>()
    });
    assert_eq!(found, expected, "{require:?} {keys}");
}

#[test]
fn keys_are_asked_for_where_there_are_some() {
    asks(Require::Auto, "", ["", "", "", "P", "NP", "P"]);
    asks(Require::Auto, "infer", ["", "LNP", "NP", "NP", "NP", "P"]);
    asks(Require::Auto, "read", ["", "", "", "NP", "NP", "P"]);
    asks(Require::Auto, "admin", ["", "", "", "NP", "NP", "P"]);
    asks(Require::Auto, "node", ["", "", "", "P", "NP", "LNP"]);
    asks(Require::Always, "", ["", "LNP", "LNP", "LNP", "LNP", "LNP"]);
    asks(Require::Never, "infer,read,admin,node", ["", "", "", "", "NP", "P"]);
}

#[track_caller]
fn check(keys: &str, need: Need, shown: Shown, expected: Result<(), Denied>) {
    let posture = Posture { require: Require::Auto, scopes: scopes(keys) };
    assert_eq!(posture.check(need, Source::Network, shown), expected, "{keys} {need:?} {shown:?}");
}

#[test]
fn a_denial_says_what_would_help() {
    let key = |names| Shown::Key(scopes(names));
    check("infer", Need::Infer, key("infer"), Ok(()));
    check("infer", Need::Infer, key("admin"), Err(Denied::Scope(Scope::Infer)));
    check("infer", Need::Infer, Shown::Nothing, Err(Denied::Missing(Scope::Infer)));
    check("infer", Need::Infer, Shown::Unknown, Err(Denied::Unknown));
    check("infer", Need::Infer, Shown::Disabled, Err(Denied::Disabled));
    check("", Need::Infer, Shown::Unknown, Ok(()));
    check("infer", Need::Read, key("infer"), Err(Denied::Scope(Scope::Read)));
    check("infer", Need::Catalogue, key("infer"), Ok(()));
    check("admin", Need::Read, key("admin"), Ok(()));
    check("admin", Need::Change, key("admin"), Ok(()));
    check("admin", Need::Change, Shown::Nothing, Err(Denied::Missing(Scope::Admin)));
    check("read", Need::Change, Shown::Nothing, Err(Denied::NotLocal));
    check("read", Need::Change, key("read"), Err(Denied::Scope(Scope::Admin)));
    check("node", Need::Node, key("infer"), Err(Denied::Scope(Scope::Node)));
    assert_eq!(
        (Denied::Unknown.status(), Denied::Scope(Scope::Read).status(), Denied::NotLocal.status()),
        (401, 403, 403)
    );
}

#[test]
fn behind_a_proxy_nobody_is_local() {
    let check = |keys, need, shown| {
        Posture { require: Require::Auto, scopes: scopes(keys) }.check(need, Source::Proxied, shown)
    };
    for (need, scope) in [(Need::Read, Scope::Read), (Need::Change, Scope::Admin), (Need::Node, Scope::Node)] {
        assert_eq!(check("", need, Shown::Nothing), Err(Denied::Proxied(scope)));
        assert_eq!(check(scope.name(), need, Shown::Nothing), Err(Denied::Missing(scope)));
        assert_eq!(check(scope.name(), need, Shown::Key(scopes(scope.name()))), Ok(()));
    }
    assert_eq!(check("", Need::Infer, Shown::Nothing), Ok(()), "a proxy before the models is what people set up");
    assert_eq!(Denied::Proxied(Scope::Read).status(), 403);
}

#[test]
fn what_is_not_known_to_be_harmless_is_a_change() {
    let rows = [
        ("GET", "/", Need::Nothing),
        ("HEAD", "/healthz", Need::Nothing),
        ("GET", "/api/tags", Need::Catalogue),
        ("GET", "/v1/models/a", Need::Catalogue),
        ("POST", "/api/show", Need::Catalogue),
        ("POST", "/api/pull", Need::Change),
        ("GET", "/fleet/status", Need::Read),
        ("POST", "/fleet/explain", Need::Read),
        ("GET", "/dashboard/api/traces", Need::Read),
        ("GET", "/metrics", Need::Read),
        ("POST", "/fleet/nodes/a/drain", Need::Change),
        ("DELETE", "/fleet/pulls/1", Need::Change),
        ("PUT", "/", Need::Change),
        ("PATCH", "/something/new", Need::Change),
        ("BREW", "/fleet/status", Need::Change),
        ("POST", "/heartbeat", Need::Node),
        ("POST", "/heartbeat/challenge", Need::Node),
        ("POST", "/heartbeat/other", Need::Change),
    ];
    for (method, path, need) in rows {
        assert_eq!(need_of(method, path), need, "{method} {path}");
    }
}

fn meter(limits: KeyLimits) -> Meter {
    Meter::new(limits, Arc::default())
}

#[test]
fn requests_come_at_their_rate_with_a_second_saved_up() {
    let meter = meter(KeyLimits { requests_per_s: Some(2.0), ..KeyLimits::default() });
    let at = |ms| meter.admit(ms).map(drop);
    assert_eq!([at(1_000), at(1_000)], [Ok(()), Ok(())]);
    assert_eq!(at(1_000), Err(Exceeded::Requests { wait_ms: 500 }));
    assert_eq!(at(1_499), Err(Exceeded::Requests { wait_ms: 1 }));
    assert_eq!([at(1_500), at(1_501).map_err(|_| Exceeded::InFlight)], [Ok(()), Err(Exceeded::InFlight)]);
    assert_eq!(meter.usage().in_flight(), 0, "who was turned away does not count");
}

#[test]
fn a_rate_below_one_per_second_still_lets_one_through() {
    let meter = meter(KeyLimits { requests_per_s: Some(0.1), ..KeyLimits::default() });
    assert!(meter.admit(0).is_ok());
    assert_eq!(meter.admit(1_000).map(drop), Err(Exceeded::Requests { wait_ms: 9_000 }));
    assert!(meter.admit(10_000).is_ok());
}

#[test]
fn requests_under_way_are_counted_until_their_guards_go() {
    let meter = meter(KeyLimits { in_flight: Some(2), requests_per_s: Some(3.0), ..KeyLimits::default() });
    let (first, second) = (meter.admit(0).unwrap(), meter.admit(0).unwrap());
    assert_eq!(meter.admit(0).map(drop), Err(Exceeded::InFlight));
    drop(first);
    assert!(meter.admit(0).is_ok(), "being turned away has cost nothing");
    drop(second);
    assert_eq!(meter.usage().in_flight(), 0);
}

#[test]
fn answers_are_paid_for_by_later_requests() {
    let meter = meter(KeyLimits { tokens_per_min: Some(600), ..KeyLimits::default() });
    assert_eq!(meter.take_prompt(500, 0), Ok(()));
    meter.charge_answer(400, 0);
    // 300 owed and 100 wanted, at 10 per second.
    assert_eq!(meter.take_prompt(100, 0), Err(Exceeded::Tokens { wait_ms: 40_000 }));
    assert_eq!(meter.take_prompt(100, 40_000), Ok(()));
}

#[test]
fn a_prompt_larger_than_the_bucket_waits_for_a_full_one() {
    let meter = meter(KeyLimits { tokens_per_min: Some(600), ..KeyLimits::default() });
    assert_eq!(meter.take_prompt(5_000, 0), Ok(()));
    assert!(meter.take_prompt(1, 400_000).is_err());
    assert_eq!(meter.take_prompt(1, 441_000), Ok(()));
}

#[test]
fn no_number_locks_a_key_out_for_good() {
    let meter = meter(KeyLimits { tokens_per_min: Some(60), ..KeyLimits::default() });
    meter.charge_answer(u64::MAX, 0);
    assert!(meter.take_prompt(1, 600_000).is_ok());
}

#[test]
fn usage_outlives_a_change_of_limits() {
    let usage = Arc::new(Usage::default());
    let before = Meter::new(KeyLimits { in_flight: Some(1), ..KeyLimits::default() }, Arc::clone(&usage));
    let _held = before.admit(0).unwrap();
    let after = Meter::new(KeyLimits { in_flight: Some(2), ..KeyLimits::default() }, usage);
    let _second = after.admit(0).unwrap();
    assert_eq!(after.admit(0).map(drop), Err(Exceeded::InFlight));
}

proptest! {
    #[test]
    fn no_more_is_taken_than_the_bucket_and_the_time_give(
        per_s in 0.5..50.0_f64,
        steps in proptest::collection::vec((0_u64..500, 1_u64..4), 1..200),
    ) {
        let rate = Rate::new(per_s, 1.0).unwrap();
        let (mut now_ms, mut until_ns, mut taken) = (0, 0, 0);
        for (pause_ms, units) in steps {
            now_ms += pause_ms;
            if let Ok(after) = rate.take(until_ns, now_ms * 1_000_000, units) {
                until_ns = after;
                taken += units;
            }
        }
        // Of a full bucket more than it holds may be taken once, and is owed.
        let most = per_s.max(1.0) + per_s * now_ms as f64 / 1e3 + 4.0;
        prop_assert!(taken as f64 <= most, "{taken} of {most}");
    }
}
