//! One definition of an error, [`Status::is_error`], for everything that counts them.

use herd_core::record::RequestRecord;
use herd_core::vocabulary::{Recorded, Status};
use serde_json::Value;

use super::history::{Kept, record};
use crate::checks::look;
use crate::testing::{App, heartbeat, loaded};

const ALERTS: &str = include_str!("../../../conf/prometheus/herd-alerts.yml");
const GRAFANA: &str = include_str!("../../../conf/grafana/herd.json");
const TRACES: &str = include_str!("../../assets/tabs/traces.js");

/// Statuses that are errors.
fn errors() -> Vec<&'static str> {
    Status::ALL.into_iter().filter(|status| status.is_error()).map(Status::name).collect()
}

/// The numbers of `field` in every object of `answer`, summed; within an object that has it no further is looked.
fn summed(answer: &Value, field: &str) -> u64 {
    match answer {
        Value::Array(items) => items.iter().map(|item| summed(item, field)).sum(),
        Value::Object(fields) => match fields.get(field).and_then(Value::as_u64) {
            Some(number) => number,
            None => fields.values().map(|value| summed(value, field)).sum(),
        },
        _ => 0,
    }
}

async fn get(app: &App, path: &str) -> Value {
    app.get(path).await.json()
}

#[tokio::test]
async fn every_reader_counts_the_same_requests_as_errors() {
    let kept = Kept::open().await;
    let one = |(id, status): (u64, &str)| RequestRecord { status: Recorded::parse(status), ..record(id) };
    // What only another program knows is none: nothing says that its client got no answer.
    let statuses = Status::ALL.into_iter().map(Status::name).chain(["no_output"]);
    kept.fill((0..).zip(statuses).map(one)).await;
    let app = kept.app();
    let (requests, expected) = (Status::ALL.len() as u64 + 1, errors().len() as u64);

    for (path, part) in [
        ("/dashboard/api/overview?range=1h", "/totals"),
        ("/dashboard/api/trends?range=1h", "/points"),
        ("/dashboard/api/models?range=24h", "/models"),
        ("/dashboard/api/apps?range=24h", "/apps"),
        ("/dashboard/api/apps/daily?range=7d", "/days"),
        ("/dashboard/api/usage?range=24h&group_by=node", "/rows"),
    ] {
        let answer = get(&app, path).await;
        let told = answer.pointer(part).unwrap_or_else(|| panic!("{path} has no {part}: {answer}"));
        assert_eq!((summed(told, "requests"), summed(told, "errors")), (requests, expected), "{path}");
    }
    let totals = get(&app, "/dashboard/api/overview?range=1h").await["totals"].take();
    for status in Status::ALL {
        assert_eq!(totals[status.name()], 1, "{status}");
    }
    assert_eq!(totals["other"], 1);
}

/// Health checks look at each kind of error by itself; together they look at all errors, and at nothing else.
#[tokio::test]
async fn health_checks_find_what_is_an_error() {
    for status in Status::ALL {
        let kept = Kept::open().await;
        let records = (0..60).map(|id| RequestRecord {
            status: Some(if id % 2 == 0 { status } else { Status::Completed }.into()),
            ..record(id)
        });
        kept.fill(records).await;
        let app = kept.app();
        app.join(loaded(heartbeat("a", &["tiny:latest"]), "tiny:latest", 4_096));
        for _ in 0..4 {
            look(&app.state, false).await;
        }
        let health = get(&app, "/dashboard/api/health").await;
        let checks: Vec<_> =
            health["findings"].as_array().unwrap().iter().filter_map(|one| one["check"].as_str()).collect();
        let of_errors = ["failure_rate", "incomplete_streams", "zombies"];
        let found = checks.iter().any(|check| of_errors.contains(check));
        assert_eq!(found, status.is_error(), "{status}: {checks:?}");
    }
}

#[test]
fn alerts_and_charts_select_the_same_statuses() {
    let selector = errors().join("|");
    assert!(ALERTS.contains(&format!("herd_requests_total{{status=~\"{selector}\"}}")), "{selector}");
    assert!(GRAFANA.contains(&format!("status=~\\\"{selector}\\\"")), "{selector}");
}

#[test]
fn the_dashboard_offers_every_status() {
    let list = Status::ALL.map(|status| format!("\"{status}\"")).join(", ");
    assert!(TRACES.contains(&format!("const STATUSES = [{list}];")), "{list}");
}
