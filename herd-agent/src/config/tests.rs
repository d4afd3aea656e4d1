//! The shipped file, the order of layers, and how errors read.

use super::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn load(yaml: &str, pairs: &[(&str, &str)], flags: &Flags) -> Result<Config, String> {
    Config::from_layers(Some(yaml), &env(pairs), flags).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_is_the_default() {
    let shipped = include_str!("../../../conf/herd-agent.yaml");
    assert_eq!(load(shipped, &[], &Flags::default()), Ok(Config::default()));
    assert_eq!(Config::from_layers(None, &env(&[]), &Flags::default()).unwrap(), Config::default());
}

#[test]
fn the_shipped_file_shows_every_key() {
    let shipped: serde_yaml::Value = serde_yaml::from_str(include_str!("../../../conf/herd-agent.yaml")).unwrap();
    let all = serde_yaml::to_value(layer::Layer::default()).unwrap();
    assert_eq!(shipped, all);
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let yaml = "heartbeat: {interval_ms: 1000}\nnode_id: file\nlog_level: debug\n";
    let pairs = [("FLEET_NODE_HEARTBEAT_INTERVAL", "2.5"), ("FLEET_NODE_NODE_ID", "env")];
    let flags = Flags { node_id: Some("flag".to_owned()), ..Flags::default() };
    let config = load(yaml, &pairs, &flags).unwrap();
    assert_eq!(config.log_level, "debug");
    assert_eq!(config.heartbeat.interval, Duration::from_millis(2500));
    assert_eq!(config.node_id.unwrap().as_str(), "flag");
    assert_eq!(config.heartbeat.timeout, Config::default().heartbeat.timeout);
}

#[test]
fn every_variable_is_read() {
    let pairs = [
        ("FLEET_NODE_NODE_ID", "studio"),
        ("FLEET_NODE_DATA_DIR", "/data"),
        ("FLEET_NODE_ROUTER_URL", "http://a:11435, http://b:11435/"),
        ("FLEET_JOIN_TOKEN", "s3cret"),
        ("FLEET_NODE_HEARTBEAT_INTERVAL", "2"),
        ("FLEET_NODE_HEARTBEAT_TIMEOUT_MS", "700"),
        ("FLEET_NODE_OLLAMA_HOST", "0.0.0.0:9"),
        ("FLEET_NODE_OLLAMA_TIMEOUT_MS", "400"),
        ("FLEET_NODE_OLLAMA_WATCH_INTERVAL_MS", "300"),
        ("FLEET_NODE_MDNS_ENABLED", "false"),
        ("FLEET_NODE_MDNS_SERVICE_TYPE", "_test._tcp.local."),
        ("FLEET_NODE_MDNS_INTERFACES", "loopback"),
        ("FLEET_NODE_LOG_LEVEL", "warn"),
        ("FLEET_NODE_LOG_FILE", "true"),
        ("FLEET_NODE_LOG_MAX_BYTES", "70000"),
        ("FLEET_NODE_LOG_KEEP_FILES", "2"),
    ];
    let given: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    for name in layer::VARIABLES {
        assert!(given.contains(name) || *name == "FLEET_NODE_CONFIG", "{name} is not tested");
    }
    let config = load("{}", &pairs, &Flags::default()).unwrap();
    let expected = Config {
        node_id: Some(NodeId::new("studio").unwrap()),
        data_dir: PathBuf::from("/data"),
        router_urls: vec!["http://a:11435/".parse().unwrap(), "http://b:11435/".parse().unwrap()],
        join_token: JoinToken::new("s3cret").unwrap(),
        heartbeat: HeartbeatConfig { interval: Duration::from_secs(2), timeout: Duration::from_millis(700) },
        ollama: OllamaConfig {
            url: "http://127.0.0.1:9/".parse().unwrap(),
            timeout: Duration::from_millis(400),
            watch_interval: Duration::from_millis(300),
            env: wire::OllamaEnv::default(),
        },
        mdns: MdnsConfig {
            enabled: false,
            service_type: "_test._tcp.local.".to_owned(),
            interfaces: Interfaces::Loopback,
        },
        log_level: "warn".to_owned(),
        log_files: Some(LogFiles { max_bytes: 70_000, keep_files: 2 }),
    };
    assert_eq!(config, expected);
}

#[test]
fn ollamas_own_variables_are_the_weakest_layer() {
    let pairs = [("OLLAMA_HOST", ":7777"), ("OLLAMA_NUM_PARALLEL", "4"), ("OLLAMA_MAX_LOADED_MODELS", "0")];
    let config = load("{}", &pairs, &Flags::default()).unwrap();
    assert_eq!(config.ollama.url.as_str(), "http://127.0.0.1:7777/");
    assert_eq!(config.ollama.env.num_parallel, Some(4));
    assert_eq!(config.ollama.env.max_loaded_models, None, "0 is Ollama's word for its own default");
    let config = load("ollama: {url: 'http://gpu:1'}", &pairs, &Flags::default()).unwrap();
    assert_eq!(config.ollama.url.as_str(), "http://gpu:1/");
}

#[test]
fn errors_name_key_value_and_range_all_at_once() {
    let yaml = "heartbeat: {interval_ms: 10}\nnode_id: 'a b'\nmdns: {interfaces: wifi}\nlog: {max_bytes: 9}\n";
    let pairs = [("FLEET_NODE_OLLAMA_TIMEOUT_MS", "soon"), ("FLEET_NODE_ROUTER_URL", "https://edge")];
    let error = load(yaml, &pairs, &Flags::default()).unwrap_err();
    for part in [
        "heartbeat.interval_ms: \"10\" is not allowed: 250 to 60000",
        "node_id: \"a b\" is not allowed",
        "mdns.interfaces: \"wifi\" is not allowed: all or loopback",
        "FLEET_NODE_OLLAMA_TIMEOUT_MS: \"soon\" is not allowed: a whole number",
        "router_urls: \"https://edge\" is not allowed",
        "log.max_bytes: \"9\" is not allowed: 65536 to 1099511627776",
    ] {
        assert!(error.contains(part), "{part:?} is missing in:\n{error}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_lists_the_known_ones() {
    let error = load("heartbeat: {intervall_ms: 10}", &[], &Flags::default()).unwrap_err();
    assert!(error.contains("intervall_ms") && error.contains("interval_ms") && error.contains("line 1"), "{error}");
}

#[test]
fn reporting_to_nobody_is_an_error() {
    let error = load("mdns: {enabled: false}", &[], &Flags::default()).unwrap_err();
    assert!(error.contains("router_urls"), "{error}");
}

#[test]
fn misspelt_variables_are_named() {
    let env = env(&[("FLEET_NODE_ROUTER_ULR", "x"), ("FLEET_NODE_NODE_ID", "x"), ("HOME", "/")]);
    assert_eq!(unread_variables(&env), ["FLEET_NODE_ROUTER_ULR"]);
}

#[test]
fn the_token_is_never_printed() {
    let token = JoinToken::new("s3cret").unwrap();
    assert!(!format!("{token:?}").contains("s3cret"));
    assert_eq!(JoinToken::new("two words"), Err(TokenError));
}
