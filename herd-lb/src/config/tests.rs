use super::*;

fn none(_: &str) -> Option<String> {
    None
}

#[track_caller]
fn refused(text: &str, message: &str) {
    assert_eq!(Config::build(text, none, &[]).unwrap_err().to_string(), message);
}

#[test]
fn the_shipped_file_shows_every_key_at_its_default() {
    let text = include_str!("../../../conf/herd.yaml");
    let shipped: Value = serde_yaml::from_str(text).unwrap();
    assert_eq!(shipped, serde_yaml::to_value(ConfigFile::default()).unwrap());
    assert_eq!(Config::build(text, none, &[]), Config::build("", none, &[]));
}

#[test]
fn errors_name_key_value_and_range() {
    refused(
        "listne: x",
        "listne: unknown field `listne`, expected one of `listen`, `data_dir`, `threads`, `admin`, `access`, `log`, `agent`, `mdns`, `fleet`, `probe`, `routing`, `context`, `prompt`, `models`, `fallback`, `queue`, `hold`, `reaper`, `auto_pull`, `store`, `health`, `limits`, `upstream`, `retry`, `shutdown`",
    );
    refused("limits: {json_depth: deep}", "limits.json_depth: invalid type: string \"deep\", expected u32");
    refused("limits: {json_depth: 20000}", "limits.json_depth: \"20000\" is not allowed: must be from 8 to 10000");
    refused(
        "context: {protection: off}",
        "context.protection: \"off\" is not allowed: must be one of strip, warn, passthrough",
    );
    refused(
        "listen: nowhere",
        "listen: \"nowhere\" is not allowed: must be an address and a port, like 127.0.0.1:11435, localhost:11435 or :11435 for all",
    );
    refused(
        "routing: {weights: {thermal: .nan}}",
        "routing.weights.thermal: \"NaN\" is not allowed: must be from 0 to 1000",
    );
    refused(
        "fleet: {stale_after_ms: 300}",
        "fleet.stale_after_ms: \"300\" is not allowed: must be from 12000 to 86400000",
    );
    refused(
        "admin: {listen: '0.0.0.0:11435'}",
        "admin.listen: \"0.0.0.0:11435\" is not allowed: must be another address than listen",
    );
    refused("access: {require: yes}", "access.require: \"yes\" is not allowed: must be one of auto, always, never");
    refused(
        "admin: {hosts: ['http://a/']}",
        "admin.hosts: \"http://a/\" is not allowed: must be names like herd.example or herd.example:8443",
    );
    assert!(matches!(Config::build("a: [", none, &[]), Err(ConfigError::Yaml(_))));
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let env = |name: &str| match name {
        "FLEET_CONTEXT_PROTECTION" => Some("warn".to_owned()),
        "FLEET_RETRY_MAX_ATTEMPTS" => Some("5".to_owned()),
        "FLEET_JOIN_TOKEN" => Some("12345".to_owned()),
        _ => None,
    };
    let config = Config::build("retry: {max_attempts: 2}", env, &[]).unwrap();
    assert_eq!((config.exchange.max_attempts, config.policy.protection), (5, herd_core::protect::Protection::Warn));
    assert_eq!(config.join_token.as_deref(), Some("12345"));
    let config =
        Config::build("", env, &[("retry.max_attempts", "7".into()), ("mdns.enabled", "false".into())]).unwrap();
    assert_eq!((config.exchange.max_attempts, config.mdns), (7, None));
}

#[test]
fn every_key_has_a_variable_of_its_own() {
    let variables: std::collections::BTreeSet<String> =
        ConfigFile::keys().iter().map(|(key, _)| variable(key)).collect();
    assert_eq!(variables.len(), ConfigFile::keys().len());
    assert!(variables.contains("FLEET_CONTEXT_PROTECTION") && variables.contains("FLEET_DATA_DIR"));
}

#[test]
fn a_listener_may_be_named_or_be_all() {
    let listen =
        |text: &str| Config::build(&format!("listen: '{text}'"), none, &[]).map(|config| config.listen.to_string());
    assert_eq!(listen(":9435"), Ok("0.0.0.0:9435".into()));
    assert_eq!(listen("localhost:9435"), Ok("127.0.0.1:9435".into()));
    assert_eq!(listen("[::]:9435"), Ok("[::]:9435".into()));
    for wrong in ["", ":", "localhost", "localhost:", ":70000", "no-such-host.invalid:1", "http://localhost:1"] {
        assert!(listen(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_duration_with_a_unit_is_told_what_is_expected() {
    let error = Config::build("queue:\n  max_wait_ms: 5m\n", none, &[]).unwrap_err().to_string();
    assert!(
        error.starts_with("queue.max_wait_ms: ") && error.contains("5m") && error.contains("milliseconds"),
        "{error}"
    );
    let error = Config::build("hold: {max_ms: 30s}", none, &[]).unwrap_err().to_string();
    assert!(error.contains("30000"), "the same in milliseconds: {error}");
}
