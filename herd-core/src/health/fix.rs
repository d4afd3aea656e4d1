//! What an operator can paste: commands and configuration lines.
//!
//! Names come from heartbeats and so from anybody on the network: in a command each of them is quoted.

use crate::fleet::Node;
use crate::splice::json_string;

/// Where the commands reach the edge: its default port, on its own machine.
const EDGE: &str = "http://127.0.0.1:11435";

const WINDOWS_RESTART: &str =
    r#"taskkill /F /IM "ollama app.exe" /IM ollama.exe & start "" "%LOCALAPPDATA%\Programs\Ollama\ollama app.exe""#;

/// `text` as one word of a POSIX shell, that no command takes for an option.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '-');
    let quoted = if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    };
    if text.starts_with('-') { format!("-- {quoted}") } else { quoted }
}

/// Sets a variable of the node's Ollama and restarts it, in the way of its operating system.
pub(super) fn ollama_env(node: &Node, name: &str, value: &str) -> String {
    let os = node.heartbeat.herd.as_ref().map_or("", |report| report.host.os.as_str());
    match os {
        "macos" => format!(
            "launchctl setenv {name} {value} && osascript -e 'quit app \"Ollama\"' && sleep 2 && open -a Ollama"
        ),
        "windows" => format!("setx {name} {value} & set \"{name}={value}\" & {WINDOWS_RESTART}"),
        _ => format!(
            "sudo mkdir -p /etc/systemd/system/ollama.service.d && \
             printf '[Service]\\nEnvironment=\"{name}={value}\"\\n' | \
             sudo tee /etc/systemd/system/ollama.service.d/{}.conf && \
             sudo systemctl daemon-reload && sudo systemctl restart ollama",
            name.to_ascii_lowercase()
        ),
    }
}

/// Restarts the node's Ollama, in the way of its operating system.
pub(super) fn restart_ollama(node: &Node) -> String {
    let os = node.heartbeat.herd.as_ref().map_or("", |report| report.host.os.as_str());
    match os {
        "macos" => "osascript -e 'quit app \"Ollama\"'; sleep 2; open -a Ollama".into(),
        "windows" => WINDOWS_RESTART.into(),
        _ => "sudo systemctl restart ollama && journalctl -u ollama -n 50 --no-pager".into(),
    }
}

/// Brings the node's Ollama up to date, in the way of its operating system.
pub(super) fn update_ollama(node: &Node) -> String {
    let os = node.heartbeat.herd.as_ref().map_or("", |report| report.host.os.as_str());
    match os {
        "macos" => "brew upgrade ollama  # or the update in Ollama's menu".into(),
        "windows" => "winget upgrade Ollama.Ollama".into(),
        _ => "curl -fsSL https://ollama.com/install.sh | sh".into(),
    }
}

/// Runs `ollama VERB MODEL`.
pub(super) fn ollama(verb: &str, model: &str) -> String {
    format!("ollama {verb} {}", word(model))
}

/// Gives a model another window on its node, and no other model: its manifest says so from then on.
pub(super) fn window(node: &Node, model: &str, tokens: u64) -> String {
    let name = json_string(model);
    let body = format!(r#"{{"model":{name},"from":{name},"parameters":{{"num_ctx":{tokens}}}}}"#);
    format!("curl http://{}/api/create -d {}", node.address, word(&body))
}

/// Posts `members` (names and texts) to the edge as a JSON object.
pub(super) fn post(path: &str, members: &[(&str, &str)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, text)| format!("\"{name}\":{}", json_string(text))).collect();
    let body = format!("{{{}}}", members.join(","));
    format!("curl -X POST {EDGE}{path} -H 'Content-Type: application/json' -d {}", word(&body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NodeSpec, node};

    #[test]
    fn names_from_the_network_cannot_run_commands() {
        assert_eq!(ollama("rm", "llama3.2:3b"), "ollama rm llama3.2:3b");
        assert_eq!(ollama("rm", "$(reboot)"), "ollama rm '$(reboot)'");
        assert_eq!(ollama("rm", "a';reboot;'"), r"ollama rm 'a'\'';reboot;'\'''");
        assert_eq!(ollama("rm", "-f"), "ollama rm -- -f");
        let posted = post("/api/pull", &[("model", "a'\"b")]);
        assert!(posted.ends_with(r#"-d '{"model":"a'\''\"b"}'"#), "{posted}");
    }

    #[test]
    fn the_fix_is_of_the_node_s_own_system() {
        let mut spec = node("a", &NodeSpec::default());
        assert!(ollama_env(&spec, "OLLAMA_NUM_PARALLEL", "2").contains("ollama_num_parallel.conf"));
        let mut heartbeat = spec.heartbeat.as_ref().clone();
        heartbeat.herd.as_mut().unwrap().host.os = "macos".into();
        spec.heartbeat = std::sync::Arc::new(heartbeat);
        assert!(ollama_env(&spec, "OLLAMA_NUM_PARALLEL", "2").starts_with("launchctl setenv OLLAMA_NUM_PARALLEL 2 "));
    }
}
