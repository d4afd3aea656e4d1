//! `options` and `keep_alive` of a request, read as strictly as Ollama reads them.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    launch::{LoadOptions, StrictOptions},
    scheduler::KeepAlive,
    surface::ApiError,
};

/// What the simulator uses of a request's `options`; the rest is only checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) load: LoadOptions,
    pub(crate) num_predict: Option<i64>,
    pub(crate) seed: Option<i64>,
}

const INTEGERS: [&str; 11] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
];
const FLOATS: [&str; 8] =
    ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "tfs_z"];

impl Options {
    /// Reads `options`; an option nobody knows is ignored.
    pub(crate) fn parse(options: &Map<String, Value>) -> Result<Self, ApiError> {
        for (name, value) in options.iter().filter(|(_, value)| !value.is_null()) {
            check_type(name, value)?;
        }
        let int = |name: &str| options.get(name).and_then(integer);
        let strict = StrictOptions {
            num_batch: int("num_batch"),
            num_thread: int("num_thread"),
            main_gpu: int("main_gpu"),
            draft_num_predict: int("draft_num_predict"),
            use_mmap: options.get("use_mmap").and_then(Value::as_bool),
            no_shift: false,
        };
        let load = LoadOptions { num_ctx: int("num_ctx"), num_gpu: int("num_gpu"), strict };
        Ok(Self { load, num_predict: int("num_predict"), seed: int("seed") })
    }
}

fn check_type(name: &str, value: &Value) -> Result<(), ApiError> {
    let (fits, expected) = match name {
        _ if INTEGERS.contains(&name) => (value.is_number(), "integer"),
        _ if FLOATS.contains(&name) => (value.is_number(), "float32"),
        "use_mmap" => (value.is_boolean(), "boolean"),
        "stop" => (value.is_array(), "array"),
        _ => return Ok(()),
    };
    // Ollama answers 500 here, not 400.
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    if fits { Ok(()) } else { Err(ApiError::new(status, format!("option \"{name}\" must be of type {expected}"))) }
}

/// A number as Go converts it: 4096.0 is 4096.
fn integer(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "Go truncates too")]
    value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))
}

/// Reads `keep_alive`: a number of seconds or a Go duration; negative is for ever.
pub(crate) fn keep_alive(value: &Value) -> Result<KeepAlive, ApiError> {
    let seconds = match value {
        Value::Number(number) => number.as_f64().unwrap_or_default(),
        Value::String(text) => go_duration(text)
            .ok_or_else(|| ApiError::unreadable(format!("time: invalid duration {}", super::json::to_string(text))))?,
        other => return Err(ApiError::unreadable(format!("invalid duration type {other}"))),
    };
    if seconds < 0.0 {
        return Ok(KeepAlive::Forever);
    }
    Ok(Duration::try_from_secs_f64(seconds).map_or(KeepAlive::Forever, KeepAlive::For))
}

/// Seconds of a Go duration such as `1h30m` or `-1.5s`.
fn go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text.strip_prefix('+').unwrap_or(text)), |r| (-1.0, r));
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        seconds += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = after;
    }
    Some(sign * seconds)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "h" => 3600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn parse(options: &Value) -> Result<Options, ApiError> {
        Options::parse(options.as_object().expect("an object"))
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let options = parse(&json!({"num_ctx": 4096.0, "num_predict": -1, "bogus": "x", "num_gpu": null}));
        let options = options.expect("is fine");
        assert_eq!((options.load.num_ctx, options.num_predict, options.load.num_gpu), (Some(4096), Some(-1), None));
    }

    #[test]
    fn a_wrong_type_is_a_500() {
        let error = parse(&json!({"num_ctx": "big"})).expect_err("is refused");
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(error.message, r#"option "num_ctx" must be of type integer"#);
        assert!(parse(&json!({"use_mmap": 1})).is_err());
    }

    #[test]
    fn keep_alive_is_seconds_or_a_go_duration() {
        #[track_caller]
        fn check(value: &Value, expected: Option<KeepAlive>) {
            assert_eq!(keep_alive(value).ok(), expected, "{value}");
        }
        let seconds = |n| Some(KeepAlive::For(Duration::from_secs(n)));
        check(&json!(0), seconds(0));
        check(&json!(30), seconds(30));
        check(&json!("10s"), seconds(10));
        check(&json!("1h30m"), seconds(5400));
        check(&json!("1500ms"), Some(KeepAlive::For(Duration::from_millis(1500))));
        check(&json!(-1), Some(KeepAlive::Forever));
        check(&json!("-1m"), Some(KeepAlive::Forever));
        check(&json!("soon"), None);
        check(&json!("-1"), None);
        check(&json!(true), None);
    }
}
