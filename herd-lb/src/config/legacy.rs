//! Coming from ollama-herd: its file of variables is read, and its variables mean what they meant there.
//!
//! A variable of ours goes before one of that project, and the environment before the file. What has no counterpart is
//! named once at the start, so that nobody waits for an effect that does not come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{ConfigFile, Layers, variable};

/// Names the file, in place of `env` in the data folder.
const FILE_VARIABLE: &str = "FLEET_ENV_FILE";
/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What became of variables that are not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy {
    /// The file that was read; `None` = there is none.
    pub file: Option<PathBuf>,
    /// Variables with the keys that they set.
    pub mapped: Vec<(String, String)>,
    /// Variables that have no effect, and lines that are none.
    pub ignored: Vec<String>,
}

/// How the value of another project's variable becomes one of ours; `None` = it cannot.
type Convert = fn(&str) -> Option<String>;

/// Variables of ollama-herd, our keys, and how values change.
const MAPPED: &[(&str, &str, Convert)] = &[
    ("FLEET_AUTO_PULL", "auto_pull.enabled", switch),
    ("FLEET_AUTO_PULL_TIMEOUT", "auto_pull.max_wait_ms", seconds),
    ("FLEET_VRAM_FALLBACK", "fallback.vram", switch),
    ("FLEET_CORS_ORIGINS", "access.origins", list),
    ("FLEET_HEARTBEAT_TIMEOUT", "fleet.degraded_after_ms", seconds),
    ("FLEET_HEARTBEAT_OFFLINE", "fleet.offline_after_ms", seconds),
    ("FLEET_SCORE_MODEL_HOT", "routing.weights.thermal", number),
    ("FLEET_SCORE_MEMORY_FIT_MAX", "routing.weights.memory_fit", number),
    ("FLEET_SCORE_QUEUE_DEPTH_MAX_PENALTY", "routing.weights.queue_depth", number),
    ("FLEET_SCORE_WAIT_TIME_MAX_PENALTY", "routing.weights.latency_history", number),
    ("FLEET_SCORE_ROLE_AFFINITY_MAX", "routing.weights.role_affinity", number),
    ("FLEET_SCORE_AVAILABILITY_TREND_MAX", "routing.weights.availability_trend", number),
    ("FLEET_SCORE_CONTEXT_FIT_MAX", "routing.weights.context_fit", number),
    ("FLEET_STALE_TIMEOUT", "reaper.no_progress_ms", seconds),
    ("FLEET_MAX_RETRIES", "retry.max_attempts", attempts),
    ("FLEET_ANTHROPIC_MODEL_MAP", "models.aliases", object),
];

/// Variables of the agents and of the harness that are read elsewhere.
const ELSEWHERE: [&str; 3] = ["FLEET_NODE_", FILE_VARIABLE, "FLEET_CONFIG"];

impl Layers {
    /// Reads what ollama-herd kept in `data_dir`, and gives its variables, from there and from the environment, the
    /// names of ours.
    pub fn take_over(&mut self, data_dir: &Path) -> Legacy {
        let named = self.env.get(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = named.unwrap_or_else(|| data_dir.join("env"));
        let mut legacy = Legacy::default();
        if others_may_write(&path) {
            legacy.ignored.push(format!("{}, which others may write", path.display()));
        } else if let Some(text) = read(&path) {
            let (pairs, wrong) = parse(&text);
            legacy.ignored.extend(wrong.into_iter().map(|line| format!("line {line} of {}", path.display())));
            legacy.file = Some(path);
            for (name, value) in pairs {
                self.env.entry(name).or_insert(value);
            }
        }
        self.translate(&mut legacy);
        legacy
    }

    fn translate(&mut self, legacy: &mut Legacy) {
        let ours: Vec<String> = ConfigFile::keys().into_iter().map(|(key, _)| variable(&key)).collect();
        let mut translated: BTreeMap<String, String> = BTreeMap::new();
        if let Some(listen) = self.listen() {
            translated.insert(variable("listen"), listen);
            let told = ["FLEET_HOST", "FLEET_PORT"].into_iter().filter(|name| self.env.contains_key(*name));
            legacy.mapped.extend(told.map(|name| (name.to_owned(), "listen".to_owned())));
        }
        for (name, key, convert) in MAPPED {
            let Some(value) = self.env.get(*name) else { continue };
            match convert(value.trim()) {
                Some(value) => {
                    translated.insert(variable(key), value);
                    legacy.mapped.push(((*name).to_owned(), (*key).to_owned()));
                }
                None => legacy.ignored.push((*name).to_owned()),
            }
        }
        let known = |name: &String| {
            ours.contains(name)
                || ELSEWHERE.iter().any(|prefix| name.starts_with(prefix))
                || ["FLEET_HOST", "FLEET_PORT"].contains(&name.as_str())
                || MAPPED.iter().any(|(mapped, ..)| mapped == name)
        };
        legacy.ignored.extend(self.env.keys().filter(|name| !known(name)).cloned());
        for (name, value) in translated {
            self.env.entry(name).or_insert(value);
        }
    }

    /// Where ollama-herd would listen, if its variables say so.
    fn listen(&self) -> Option<String> {
        let told = |name: &str| self.env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let (host, port) = (told("FLEET_HOST"), told("FLEET_PORT"));
        if host.is_none() && port.is_none() {
            return None;
        }
        let host = host.unwrap_or("0.0.0.0");
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        Some(format!("{host}:{}", port.unwrap_or("11435")))
    }
}

/// Whoever may write it says where herd listens and whose pages may use it.
fn others_may_write(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o022 != 0)
}

fn read(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    if size > FILE_MAX_BYTES {
        return None;
    }
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The variables of a file, and the numbers of lines that are none.
fn parse(text: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let (mut pairs, mut wrong) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches('\u{feff}');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        match line.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                let name = name.trim();
                // Others' variables may stand there too, and are none of ours.
                if name.starts_with("FLEET_") {
                    pairs.push((name.to_owned(), unquoted(value.trim()).to_owned()));
                }
            }
            _ => wrong.push(index + 1),
        }
    }
    (pairs, wrong)
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

fn switch(value: &str) -> Option<String> {
    let on = ["1", "true", "yes", "on"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let off = ["0", "false", "no", "off"].iter().any(|word| value.eq_ignore_ascii_case(word));
    (on || off).then(|| on.to_string())
}

fn number(value: &str) -> Option<String> {
    value.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| value.to_owned())
}

/// Milliseconds.
fn seconds(value: &str) -> Option<String> {
    let ms = value.parse::<f64>().ok()? * 1e3;
    (ms.is_finite() && ms >= 1.0).then(|| format!("{ms:.0}"))
}

/// That project counts what comes after the first attempt.
fn attempts(value: &str) -> Option<String> {
    value.parse::<u32>().ok()?.checked_add(1).map(|attempts| attempts.to_string())
}

/// A list of YAML.
fn list(value: &str) -> Option<String> {
    let entries: Vec<&str> = value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    (!entries.is_empty()).then(|| serde_json::to_string(&entries).unwrap_or_default())
}

/// JSON is YAML.
fn object(value: &str) -> Option<String> {
    let names: BTreeMap<String, String> = serde_json::from_str(value).ok()?;
    (!names.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(env: &[(&str, &str)]) -> Layers {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Layers { env, ..Layers::default() }
    }

    #[track_caller]
    fn in_force(env: &[(&str, &str)]) -> crate::config::Config {
        let mut layers = layers(env);
        let legacy = layers.take_over(Path::new("/nonexistent"));
        assert_eq!(legacy.ignored, Vec::<String>::new(), "{env:?}");
        layers.build().unwrap()
    }

    #[test]
    fn variables_of_ollama_herd_mean_what_they_meant_there() {
        assert_eq!(in_force(&[("FLEET_PORT", "12000")]).listen, "0.0.0.0:12000".parse().unwrap());
        assert_eq!(in_force(&[("FLEET_HOST", "127.0.0.1")]).listen, "127.0.0.1:11435".parse().unwrap());
        assert_eq!(in_force(&[("FLEET_HOST", "::1"), ("FLEET_PORT", "1")]).listen, "[::1]:1".parse().unwrap());
        assert!(!in_force(&[("FLEET_AUTO_PULL", "false")]).pull.enabled);
        assert!(in_force(&[("FLEET_AUTO_PULL", "1")]).pull.enabled);
        assert!(!in_force(&[("FLEET_VRAM_FALLBACK", "False")]).policy.fallback.vram);
        assert_eq!(in_force(&[("FLEET_MAX_RETRIES", "0")]).exchange.max_attempts, 1);
        assert_eq!(in_force(&[("FLEET_STALE_TIMEOUT", "90")]).exchange.patience.no_progress_ms, 90_000);
        let map = in_force(&[("FLEET_ANTHROPIC_MODEL_MAP", r#"{"claude-x":"qwen3:8b"}"#)]);
        let name = |text: &str| herd_core::name::ModelName::new(text).unwrap();
        assert_eq!(map.policy.models.alias(&name("claude-x")), Some(&name("qwen3:8b")));
        let origins = in_force(&[("FLEET_CORS_ORIGINS", "https://chat.example, http://localhost:3000")]).origins;
        assert!(origins.allows("https://chat.example"));
    }

    #[test]
    fn fuzz_no_file_of_variables_keeps_herd_from_reading_it() {
        let samples: [&[u8]; 2] = [
            b"export FLEET_PORT='1'\n# x\nFLEET_ANTHROPIC_MODEL_MAP={\"a\":\"b\"}\n",
            b"FLEET_MAX_RETRIES=2\r\nFLEET_STALE_TIMEOUT=1e9\n",
        ];
        herd_fuzz::run("files of variables", &samples, |bytes| {
            let (pairs, _) = parse(&String::from_utf8_lossy(bytes));
            let mut layers = Layers { env: pairs.into_iter().collect(), ..Layers::default() };
            let mut legacy = Legacy::default();
            layers.translate(&mut legacy);
            drop(layers.build());
        });
    }

    #[test]
    fn our_own_variables_go_before_theirs() {
        let env = [("FLEET_PORT", "12000"), ("FLEET_LISTEN", "127.0.0.1:9"), ("FLEET_CONTEXT_PROTECTION", "warn")];
        assert_eq!(in_force(&env).listen, "127.0.0.1:9".parse().unwrap());
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let mut layers = layers(&[
            ("FLEET_DEBUG_REQUEST_BODIES", "true"),
            ("FLEET_MAX_RETRIES", "many"),
            ("FLEET_NODE_NODE_ID", "a"),
            ("FLEET_LOG_LEVEL", "info"),
        ]);
        let legacy = layers.take_over(Path::new("/nonexistent"));
        assert_eq!(legacy.ignored, ["FLEET_MAX_RETRIES", "FLEET_DEBUG_REQUEST_BODIES"]);
        assert!(layers.build().is_ok(), "and keeps nothing from starting");
    }

    #[test]
    fn the_file_is_read_as_that_project_reads_it() {
        let text =
            "# comment\n\nexport FLEET_PORT=1\nFLEET_A = \"x y\" \nFLEET_B='z'\nnonsense\nPATH=/bin\n=3\nFLEET_C=a=b\n";
        let (pairs, wrong) = parse(text);
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(pairs, ["FLEET_PORT:1", "FLEET_A:x y", "FLEET_B:z", "FLEET_C:a=b"]);
        assert_eq!(wrong, [6, 8]);
        let folder = std::env::temp_dir().join(format!("herd-legacy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("env"), "FLEET_PORT=12345\nFLEET_AUTO_PULL=false\n").unwrap();
        let mut layers = layers(&[("FLEET_AUTO_PULL", "true")]);
        let legacy = layers.take_over(&folder);
        assert_eq!(legacy.file, Some(folder.join("env")));
        let config = layers.build().unwrap();
        assert_eq!((config.listen.port(), config.pull.enabled), (12345, true), "the environment goes before the file");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(folder.join("env"), open).unwrap();
        let refused = super::super::Layers::default().take_over(&folder);
        assert!(refused.file.is_none() && refused.ignored[0].contains("others may write"), "{refused:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
