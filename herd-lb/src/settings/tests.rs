use std::sync::mpsc;
use std::time::Duration;

use herd_core::fleet::HeartbeatLimits;
use herd_core::protect::Protection;
use serde_json::json;

use super::*;

struct Edge {
    settings: Settings,
    live: LiveConfig,
    fleet: Arc<Fleet>,
    folder: PathBuf,
}

impl Edge {
    fn start(name: &str, env: &[(&str, &str)], file: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("herd-settings-{name}-{}", std::process::id()));
        let mut layers = Layers { file: file.to_owned(), ..Layers::default() };
        layers.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        layers.flags = vec![("data_dir", folder.display().to_string())];
        assert_eq!(load(&mut layers, &folder), Vec::<String>::new());
        let live = LiveConfig::new(layers.build().unwrap());
        let fleet = Arc::new(Fleet::new(live.now().policy.clone(), HeartbeatLimits::default()));
        let settings = Settings::new(layers, live.clone(), Arc::clone(&fleet));
        Self { settings, live, fleet, folder }
    }

    fn change(&self, changes: &Value) -> Result<SettingsChange, SettingsError> {
        self.settings.change(changes.as_object().unwrap())
    }

    fn setting(&self, key: &str) -> Setting {
        self.settings.list().into_iter().find(|setting| setting.key == key).unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[test]
fn a_change_is_in_force_at_once_and_after_a_restart() {
    let edge = Edge::start("force", &[], "retry: {max_attempts: 2}");
    let change = edge.change(&json!({"context": {"protection": "warn"}, "auto_pull": false, "threads": 2})).unwrap();
    assert_eq!(change.changed, ["auto_pull.enabled", "context.protection", "threads"]);
    assert_eq!((change.needs_restart, change.persisted), (vec!["threads".to_owned()], true));
    assert_eq!(edge.fleet.policy().protection, Protection::Warn);
    assert!(!edge.live.now().pull.enabled);
    let setting = edge.setting("context.protection");
    assert_eq!((setting.value, setting.default, setting.source), (json!("warn"), json!("strip"), "runtime"));
    assert_eq!(edge.setting("retry.max_attempts").source, "file");
    let mut layers = Layers::default();
    assert!(load(&mut layers, &edge.folder).is_empty());
    assert_eq!(layers.build().unwrap().policy.protection, Protection::Warn);
    edge.change(&json!({"context.protection": null})).unwrap();
    assert_eq!(edge.fleet.policy().protection, Protection::Strip);
}

#[test]
fn all_of_a_change_is_made_or_none() {
    let edge = Edge::start("none", &[("FLEET_RETRY_MAX_ATTEMPTS", "4")], "");
    let wrong = |changes: Value| edge.change(&changes).unwrap_err().wrong;
    let told = wrong(json!({"context.protection": "warn", "routing.weights.thermal": -1}));
    assert_eq!(told[0].0, "routing.weights.thermal");
    assert_eq!(wrong(json!({"queue.max_waiting": "many"}))[0].0, "queue.max_waiting");
    assert_eq!(wrong(json!({"nonsense": 1})), [("nonsense".to_owned(), "there is no such key".to_owned())]);
    assert!(wrong(json!({"retry.max_attempts": 1}))[0].1.contains("FLEET_RETRY_MAX_ATTEMPTS"));
    assert!(wrong(json!({"data_dir": "/"}))[0].1.contains("flag"));
    assert!(wrong(json!({"fleet.join_token": "x"}))[0].1.contains("not changed at run time"));
    assert_eq!(edge.fleet.policy().protection, Protection::Strip);
}

/// The first of two changes is held up while it comes into force, and the second is asked for meanwhile.
#[test]
fn of_two_changes_at_once_the_one_that_is_told_last_is_in_force() {
    let edge = Edge::start("race", &[], "");
    let (applies, applying) = mpsc::channel();
    let (ends, ended) = mpsc::channel::<()>();
    let (applies, ended) = (Mutex::new(Some(applies)), Mutex::new(ended));
    edge.settings.follow(move |_| {
        let first = applies.lock().unwrap().take();
        if let Some(applies) = first {
            applies.send(()).unwrap();
            // The second change can end now only if it overtakes this one.
            ended.lock().unwrap().recv_timeout(Duration::from_millis(300)).ok();
        }
    });
    std::thread::scope(|scope| {
        scope.spawn(|| edge.change(&json!({"retry.max_attempts": 1})).unwrap());
        applying.recv().unwrap();
        edge.change(&json!({"retry.max_attempts": 2})).unwrap();
        ends.send(()).ok();
    });
    assert_eq!(edge.setting("retry.max_attempts").value, json!(2));
    assert_eq!(edge.live.now().exchange.max_attempts, 2, "what is told is in force");
}

#[test]
fn mappings_are_set_as_a_whole_and_secrets_are_not_told() {
    let edge = Edge::start("maps", &[("FLEET_JOIN_TOKEN", "hush")], "");
    edge.change(&json!({"models": {"aliases": {"gpt-4o": "llama3.3:70b"}}})).unwrap();
    assert_eq!(edge.setting("models.aliases").value, json!({"gpt-4o": "llama3.3:70b"}));
    assert_eq!(edge.setting("fleet.join_token").value, json!(true));
    assert!(!serde_json::to_string(&edge.settings.list()).unwrap().contains("hush"));
}

#[test]
fn saved_settings_that_no_longer_hold_do_not_keep_an_edge_from_starting() {
    let folder = std::env::temp_dir().join(format!("herd-settings-old-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let text = r#"{"gone.key": 1, "context.protection": "warn", "retry.max_attempts": 99}"#;
    std::fs::write(settings_file(&folder), text).unwrap();
    let mut layers = Layers::default();
    assert_eq!(load(&mut layers, &folder).len(), 2);
    let config = layers.build().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(config.exchange.max_attempts, 3);
}

#[test]
fn a_setting_that_cannot_be_kept_is_in_force_all_the_same() {
    let edge = Edge::start("disk", &[], "");
    std::fs::write(&edge.folder, "not a folder").unwrap();
    let change = edge.change(&json!({"context.protection": "warn"})).unwrap();
    assert!(!change.persisted && change.error.is_some());
    assert_eq!(edge.fleet.policy().protection, Protection::Warn);
    std::fs::remove_file(&edge.folder).unwrap();
}

#[test]
fn a_setting_that_would_keep_the_next_start_from_succeeding_is_refused() {
    let edge = Edge::start("start", &[], "listen: 127.0.0.1:21435");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let wrong = |change: Value| edge.change(&change).unwrap_err().wrong.remove(0);
    let (key, why) = wrong(json!({"listen": taken.local_addr().unwrap().to_string()}));
    assert!(key == "listen" && why.contains("cannot listen on"), "{key}: {why}");
    // An address of documentation, which no machine has.
    assert_eq!(wrong(json!({"admin.listen": "192.0.2.1:21436"})).0, "admin.listen");
    let file = edge.folder.with_extension("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(wrong(json!({"data_dir": format!("{}/below", file.display())})).0, "data_dir");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(edge.setting("listen").value, json!("127.0.0.1:21435"));
}

#[test]
fn bounds_are_those_in_force() {
    let edge = Edge::start("bounds", &[("FLEET_QUEUE_MAX_WAITING", "7")], "limits: {connections: 100}");
    let bound = |key: &str| edge.settings.bounds().into_iter().find(|(name, _)| name == key).map(|(_, bound)| bound);
    assert_eq!([bound("queue.max_waiting"), bound("limits.connections")], [Some(7.0), Some(100.0)]);
    assert_eq!([bound("threads"), bound("routing.weights.thermal"), bound("listen")], [None; 3]);
    let change = edge.change(&json!({"limits.connections": 200, "hold.max_ms": 5})).unwrap();
    assert_eq!(change.needs_restart, ["limits.connections"]);
    assert_eq!([bound("limits.connections"), bound("hold.max_ms")], [Some(100.0), Some(5.0)]);
    assert_eq!(edge.settings.bounds().len(), ConfigFile::bounds().count());
}

#[test]
fn keys_that_do_not_exist_are_named_and_the_others_are_changed() {
    let edge = Edge::start("unknown", &[], "");
    let change = edge.change(&json!({
        "auto_pull": false, "vram_fallback": false, "image_generation": true, "dynamic_num_ctx": {"m": 1},
    }));
    let change = change.unwrap();
    assert_eq!(change.changed, ["auto_pull.enabled", "fallback.vram"]);
    assert_eq!(change.unknown, ["dynamic_num_ctx.m", "image_generation"]);
    assert!(!edge.live.now().pull.enabled && !edge.fleet.policy().fallback.vram);
    assert!(edge.change(&json!({"image_generation": true})).is_err(), "nothing is left to change");
    let wrong = edge.change(&json!({"queue.max_waiting": -1, "image_generation": true})).unwrap_err();
    assert_eq!(wrong.wrong[0].0, "queue.max_waiting");
}
