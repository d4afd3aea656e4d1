//! `herd key`: changes the file of API keys, which a running edge follows.

use std::io::Write;

use anyhow::Context as _;
use herd_admin::access::{KeyFile, KeyRecord, Keys, NewKey};
use herd_core::access::meter::KeyLimits;
use herd_core::access::{Need, Require, Scope, Source};

use crate::cli::{KeyCommand, NewKeyArgs};
use crate::config::Config;

/// Carries out `command`. What scripts read goes to `out`, what people read besides to `notes`.
///
/// # Errors
/// When the file cannot be read or changed.
pub fn run(command: &KeyCommand, config: &Config, out: &mut impl Write, notes: &mut impl Write) -> anyhow::Result<()> {
    let file = KeyFile::in_folder(&config.data_dir);
    match command {
        KeyCommand::Add(asked) => add(&file, asked, config, out, notes),
        KeyCommand::List => list(&file.read()?, out).context("cannot print"),
        KeyCommand::Remove(key) => {
            let removed = file.remove(&key.name)?;
            audit("key_remove", &removed);
            writeln!(notes, "removed {} ({})", removed.name, removed.id)?;
            warn_of_openings(&removed, &file.read()?, config, notes).context("cannot print")
        }
        KeyCommand::Disable(key) => {
            let key = file.set_disabled(&key.name, true)?;
            audit("key_disable", &key);
            writeln!(notes, "disabled {} ({})", key.name, key.id).context("cannot print")
        }
        KeyCommand::Enable(key) => {
            let key = file.set_disabled(&key.name, false)?;
            audit("key_enable", &key);
            writeln!(notes, "enabled {} ({})", key.name, key.id).context("cannot print")
        }
    }
}

fn add(
    file: &KeyFile,
    asked: &NewKeyArgs,
    config: &Config,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> anyhow::Result<()> {
    let limits = KeyLimits {
        requests_per_s: asked.requests_per_s,
        in_flight: asked.in_flight,
        tokens_per_min: asked.tokens_per_min,
    };
    let had_infer = has(&file.read()?, Scope::Infer);
    let (key, secret) = file.add(&NewKey { name: asked.name.clone(), scopes: asked.scope, limits })?;
    audit("key_add", &key);
    writeln!(notes, "{} ({}) for {}; this is shown once:", key.name, key.id, asked.scope)?;
    writeln!(out, "{secret}")?;
    if asked.scope.has(Scope::Infer) && !had_infer && config.require_keys == Require::Auto {
        writeln!(notes, "From now on inference needs a key (access.require: auto).")?;
    }
    Ok(())
}

/// Says so when what a key guarded is open again without it.
fn warn_of_openings(
    removed: &KeyRecord,
    left: &[KeyRecord],
    config: &Config,
    notes: &mut impl Write,
) -> std::io::Result<()> {
    let last = |scope: Scope| removed.scopes.iter().any(|name| name == scope.name()) && !has(left, scope);
    if config.require_keys != Require::Auto {
        return Ok(());
    }
    if last(Scope::Infer) {
        writeln!(notes, "That was the last key for inference: it is open to everybody now (access.require: auto).")?;
    }
    if last(Scope::Node) {
        writeln!(notes, "That was the last key for nodes: heartbeats need none now (access.require: auto).")?;
    }
    Ok(())
}

/// Says in the audit log who changed a key. A running edge tells there, too, when it notices.
fn audit(action: &str, key: &KeyRecord) {
    let by = format!("herd key, user {}", rustix::process::getuid().as_raw());
    let detail = format!("{} ({})", key.id, key.scopes.join(","));
    tracing::info!(target: "herd::audit", action, on = key.name, detail, by, "changed");
}

fn has(keys: &[KeyRecord], scope: Scope) -> bool {
    keys.iter().any(|key| key.scopes.iter().any(|name| name == scope.name()))
}

fn list(keys: &[KeyRecord], out: &mut impl Write) -> std::io::Result<()> {
    let name_width = keys.iter().map(|key| key.name.len()).max().unwrap_or(0).max(4);
    writeln!(
        out,
        "{:<14}  {:<name_width$}  {:<21}  {:<8}  {:<24}  limits",
        "id", "name", "scopes", "state", "created"
    )?;
    for key in keys {
        let state = if key.disabled { "disabled" } else { "enabled" };
        let scopes = key.scopes.join(",");
        let (id, name, created, limits) = (&key.id, &key.name, &key.created, limits(key));
        writeln!(out, "{id:<14}  {name:<name_width$}  {scopes:<21}  {state:<8}  {created:<24}  {limits}")?;
    }
    Ok(())
}

fn limits(key: &KeyRecord) -> String {
    let limits = &key.limits;
    let told = [
        limits.requests_per_s.map(|value| format!("{value} requests/s")),
        limits.in_flight.map(|value| format!("{value} at a time")),
        limits.tokens_per_min.map(|value| format!("{value} tokens/min")),
    ];
    let told: Vec<_> = told.into_iter().flatten().collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

/// An edge that asks for keys and has none serves nobody: the operator should not have to find out.
pub(crate) fn warn_of_none(keys: &Keys) {
    let posture = keys.posture();
    if posture.asks_for_key(Need::Infer, Source::Network) && !posture.scopes.has(Scope::Infer) {
        tracing::warn!("inference needs a key and there is none for it: make one with `herd key add NAME`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, Flags};
    use clap::Parser as _;

    #[test]
    fn keys_are_managed_from_the_command_line() {
        let folder = std::env::temp_dir().join(format!("herd-cli-{}", std::process::id()));
        let config = Config::build("", |_| None, &[("data_dir", folder.display().to_string())]).unwrap();
        let herd = |line: &str| {
            let flags = Flags::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
            let Some(Command::Key(command)) = &flags.command else { return Err("another command".to_owned()) };
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            run(command, &config, &mut out, &mut notes).map_err(|error| error.to_string())?;
            Ok((String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap()))
        };
        let (secret, notes) =
            herd("herd key add laptop --requests-per-s 0.5 --in-flight 2 --tokens-per-min 60000").unwrap();
        assert!(secret.starts_with("herd_") && secret.lines().count() == 1, "{secret}");
        assert!(notes.contains("infer,read") && notes.contains("From now on inference needs a key"), "{notes}");
        herd("herd key add ci --scope infer").unwrap();
        herd("herd key disable ci").unwrap();
        let (list, _) = herd("herd key list").unwrap();
        assert!(list.contains("0.5 requests/s, 2 at a time, 60000 tokens/min") && list.contains("disabled"), "{list}");
        assert!(!list.contains(secret.trim()));
        assert!(!herd("herd key remove laptop").unwrap().1.contains("open to everybody"));
        assert!(herd("herd key remove ci").unwrap().1.contains("open to everybody"));
        assert!(herd("herd key remove ci").unwrap_err().contains("no key named ci"));
        assert!(herd("herd key add x --scope root").unwrap_err().contains("infer, read, admin and node"));
        assert!(herd("herd key add x --in-flight 0").unwrap_err().contains("greater than 0"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
