//! Finds Ollama's own process and its runners in a list of processes. Pure.

use std::path::Path;

use herd_core::wire;

use super::activity::{Usage, Worker};
use crate::config::{ollama_env, ollama_host};

/// A process, as far as it can be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: Option<u32>,
    pub(super) name: String,
    pub(super) cmd: Vec<String>,
    /// `NAME=value`; empty when it belongs to someone else and we are not root.
    pub(super) env: Vec<String>,
}

impl Process {
    /// An `ollama serve`, whatever it listens on.
    pub(super) fn is_ollama(&self) -> bool {
        let name = self.name.strip_suffix(".exe").unwrap_or(&self.name);
        name == "ollama" && self.cmd.iter().any(|arg| arg == "serve")
    }

    /// A variable of its environment.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Its settings.
    pub(super) fn ollama_env(&self) -> wire::OllamaEnv {
        ollama_env(|name| self.variable(name))
    }

    fn listens_on(&self, port: u16) -> bool {
        let url = ollama_host::ollama_url(self.variable("OLLAMA_HOST").unwrap_or_default());
        url.ok().and_then(|url| url.port_or_known_default()) == Some(port)
    }
}

/// The Ollama that listens on `port`.
///
/// One whose environment can be read must name that port. One whose environment cannot be read is taken only when it is
/// the only Ollama: a wrong server's facts are worse than none.
pub(super) fn server(processes: &[Process], port: u16) -> Option<&Process> {
    let all: Vec<&Process> = processes.iter().filter(|process| process.is_ollama()).collect();
    // A runner looks like its parent for a moment, between fork and exec.
    let is_child = |process: &Process| all.iter().any(|other| process.parent == Some(other.pid));
    let servers: Vec<&Process> = all.iter().copied().filter(|process| !is_child(process)).collect();
    let known = servers.iter().find(|server| !server.env.is_empty() && server.listens_on(port));
    match (known, servers.as_slice()) {
        (Some(server), _) => Some(server),
        (None, [only]) if only.env.is_empty() => Some(only),
        _ => None,
    }
}

/// A `llama-server` that Ollama started for one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RunnerProcess {
    /// Its port on 127.0.0.1.
    pub(super) port: u16,
    /// The weights it runs: `<models>/blobs/sha256-...`.
    pub(super) model: String,
}

/// The runners that are children of the process `server`.
///
/// Nothing else is ever asked: a port number on a stranger's command line is not an invitation.
pub(super) fn runners(processes: &[Process], server: u32) -> Vec<RunnerProcess> {
    processes.iter().filter(|process| process.parent == Some(server)).filter_map(runner).collect()
}

/// The children of the process `server`, each with all that it has started itself: Ollama starts runners alone. `usage`
/// tells what a process has used.
pub(super) fn workers(processes: &[Process], server: u32, usage: impl Fn(u32) -> Usage) -> Vec<Worker> {
    let children = processes.iter().filter(|process| process.parent == Some(server));
    let worker = |process: &Process| Worker {
        pid: process.pid,
        model: option(&process.cmd, "--model").unwrap_or_default().to_owned(),
        usage: family(processes, process.pid).into_iter().map(&usage).sum(),
    };
    children.map(worker).collect()
}

/// The process `pid` and its descendants.
pub(super) fn family(processes: &[Process], pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        let children = processes.iter().filter(|process| process.parent == Some(parent)).map(|process| process.pid);
        // A process list is read while processes come and go: what it says of parents may not be a tree.
        let new: Vec<u32> = children.filter(|child| !family.contains(child)).collect();
        family.extend(new);
    }
    family
}

fn runner(process: &Process) -> Option<RunnerProcess> {
    let program = Path::new(process.cmd.first()?).file_stem()?.to_str()?;
    if program != "llama-server" {
        return None;
    }
    let port = option(&process.cmd, "--port")?.parse().ok().filter(|port| *port != 0)?;
    Some(RunnerProcess { port, model: option(&process.cmd, "--model")?.to_owned() })
}

/// Value of `--name value` or `--name=value`.
fn option<'a>(cmd: &'a [String], name: &str) -> Option<&'a str> {
    cmd.iter().enumerate().find_map(|(index, arg)| match arg.strip_prefix(name)? {
        "" => cmd.get(index + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, cmd: &str, env: &[&str]) -> Process {
        let cmd: Vec<String> = cmd.split(' ').map(str::to_owned).collect();
        let name = Path::new(&cmd[0]).file_name().unwrap().to_str().unwrap().to_owned();
        Process { pid, parent: Some(parent), name, cmd, env: env.iter().map(|e| (*e).to_owned()).collect() }
    }

    const RUNNER: &str =
        "/usr/lib/ollama/llama-server --model /m/blobs/sha256-ab --port 40123 -c 8192 -np 2 --no-webui";

    #[test]
    fn runners_are_found_among_ollamas_children_only() {
        let processes = [
            process(10, 1, "/usr/bin/ollama serve", &["HOME=/root"]),
            process(11, 10, RUNNER, &[]),
            process(12, 1, "/home/me/llama-server --model=/x --port=8080", &[]),
            process(13, 10, "/usr/bin/nc --model /x --port 22", &[]),
            process(14, 10, "/usr/lib/ollama/llama-server --model /x --port high", &[]),
            process(15, 10, "/usr/lib/ollama/llama-server --port", &[]),
        ];
        let expected = RunnerProcess { port: 40123, model: "/m/blobs/sha256-ab".to_owned() };
        assert_eq!(runners(&processes, 10), [expected]);
    }

    #[test]
    fn a_runner_uses_what_its_children_use() {
        let processes = [
            process(10, 1, "/usr/bin/ollama serve", &[]),
            process(11, 10, "/usr/bin/ollama runner --model /m/blobs/sha256-ab --port 40123", &[]),
            process(12, 11, "helper", &[]),
            process(13, 12, "helper", &[]),
            process(14, 10, "/usr/bin/ollama runner", &[]),
            process(15, 1, "stranger --model /x", &[]),
            process(16, 17, "its own grandparent", &[]),
            process(17, 16, "its own grandparent", &[]),
        ];
        let usage = |pid: u32| Usage { cpu_ms: u64::from(pid), ..Usage::default() };
        let workers = workers(&processes, 10, usage);
        let seen: Vec<_> = workers.iter().map(|one| (one.pid, one.model.as_str(), one.usage.cpu_ms)).collect();
        assert_eq!(seen, [(11, "/m/blobs/sha256-ab", 36), (14, "", 14)]);
        assert_eq!(family(&processes, 16), [16, 17]);
    }

    #[test]
    fn both_forms_of_an_option_are_read() {
        let processes = [process(2, 1, "llama-server --port=40123 --model=/m", &[])];
        assert_eq!(runners(&processes, 1), [RunnerProcess { port: 40123, model: "/m".to_owned() }]);
    }

    #[track_caller]
    fn check_server(processes: &[Process], port: u16, expected: Option<u32>) {
        assert_eq!(server(processes, port).map(|process| process.pid), expected);
    }

    #[test]
    fn the_server_on_our_port_is_chosen() {
        let one = process(1, 0, "ollama serve", &["OLLAMA_HOST=0.0.0.0"]);
        let two = process(2, 0, "/opt/ollama serve", &["OLLAMA_HOST=127.0.0.1:9000"]);
        let hidden = process(3, 0, "ollama serve", &[]);
        let client = process(4, 0, "ollama run tiny", &["OLLAMA_HOST=:9000"]);
        check_server(&[one.clone(), two.clone(), client], 9000, Some(2));
        check_server(&[one.clone(), two.clone()], 11434, Some(1));
        check_server(&[one.clone(), two.clone()], 9999, None);
        check_server(std::slice::from_ref(&hidden), 9999, Some(3));
        check_server(&[process(5, 3, "ollama serve", &[]), hidden.clone()], 9999, Some(3));
        check_server(&[one, hidden], 9999, None);
        check_server(&[], 11434, None);
    }

    #[test]
    fn settings_come_from_the_servers_environment() {
        let env = ["OLLAMA_NUM_PARALLEL=4", "OLLAMA_CONTEXT_LENGTH=\"16384\"", "OLLAMA_MAX_LOADED_MODELS=0"];
        let server = process(1, 0, "ollama serve", &env);
        let expected = wire::OllamaEnv { num_parallel: Some(4), max_loaded_models: None, context_length: Some(16384) };
        assert_eq!(server.ollama_env(), expected);
    }
}
