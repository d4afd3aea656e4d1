//! A laptop with an Ollama and an agent.

use std::net::{IpAddr, Ipv4Addr};

use herd_core::fleet::Sender;
use herd_core::wire::{AvailableModel, Heartbeat, HerdReport, LoadedModel, OllamaEnv, OllamaReport};

/// Requests that it runs at once.
pub(super) const SLOTS: u32 = 2;
/// Models that it holds in memory at once.
const IN_MEMORY: usize = 2;

/// One of them.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: String,
    pub(super) ip: Ipv4Addr,
    /// It sleeps until then; in the past = it is awake.
    pub(super) wakes_at_ms: u64,
    /// Since when it has been awake.
    pub(super) awake_since_ms: u64,
    /// Its models.
    pub(super) models: Vec<String>,
    /// Those in memory, the one that was loaded last at the end.
    loaded: Vec<String>,
    seq: u64,
}

impl Machine {
    pub(super) fn new(number: u8) -> Self {
        Self {
            id: format!("laptop-{number}"),
            ip: Ipv4Addr::new(10, 0, number, 1),
            wakes_at_ms: 0,
            awake_since_ms: 0,
            models: vec![format!("common-{}:latest", number % 3), "shared:latest".into()],
            loaded: Vec::new(),
            seq: 0,
        }
    }

    pub(super) fn sleeps(&self, raw_ms: u64) -> bool {
        raw_ms < self.wakes_at_ms
    }

    /// How long it has been awake.
    pub(super) fn awake_ms(&self, raw_ms: u64) -> u64 {
        if self.sleeps(raw_ms) { 0 } else { raw_ms.saturating_sub(self.awake_since_ms) }
    }

    /// Sleeps until `wakes_at_ms` and wakes with the address that the network gives it then.
    pub(super) fn sleep(&mut self, wakes_at_ms: u64, moves: bool) {
        (self.wakes_at_ms, self.awake_since_ms) = (wakes_at_ms, wakes_at_ms);
        if moves {
            let [a, b, c, d] = self.ip.octets();
            self.ip = Ipv4Addr::new(a, b, c, if d >= 250 { 1 } else { d + 1 });
        }
    }

    /// Has `model` in memory from now on, in place of another if need be.
    pub(super) fn load(&mut self, model: &str) {
        if self.loaded.iter().any(|known| known == model) {
            return;
        }
        if self.loaded.len() >= IN_MEMORY {
            self.loaded.remove(0);
        }
        self.loaded.push(model.to_owned());
    }

    pub(super) fn sender(&self) -> Sender {
        Sender::at(IpAddr::V4(self.ip))
    }

    pub(super) fn heartbeat(&mut self) -> Heartbeat {
        self.seq += 1;
        let available = self.models.iter().map(|name| AvailableModel {
            name: name.clone(),
            digest: format!("digest of {name}"),
            size_bytes: 4 << 30,
            context_length: 32_768,
            ..AvailableModel::default()
        });
        let loaded = self.loaded.iter().filter(|name| self.models.contains(name)).map(|name| LoadedModel {
            name: name.clone(),
            size_bytes: 4 << 30,
            size_vram_bytes: 4 << 30,
            context_length: 8_192,
            ..LoadedModel::default()
        });
        let env = OllamaEnv { num_parallel: Some(SLOTS), ..OllamaEnv::default() };
        let (available, loaded) = (available.collect(), loaded.collect());
        let ollama = OllamaReport { env, available, loaded, ..OllamaReport::default() };
        let report =
            HerdReport { boot: format!("boot of {}", self.id), seq: self.seq, ollama, ..HerdReport::default() };
        Heartbeat { node_id: self.id.clone(), herd: Some(report), ..Heartbeat::default() }
    }
}
