//! The machine that a simulated node pretends to be.

use serde::{Deserialize, Serialize};

/// The machine a node pretends to be; what its agent reports instead of the real one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hardware {
    /// Class of machine.
    pub kind: HardwareKind,
    /// Name of the chip or processor.
    pub chip: String,
    /// Physical cores.
    pub cores_physical: u32,
    /// Memory of the machine (unified memory on a Mac).
    pub memory_total_bytes: u64,
    /// Discrete GPU, if there is one.
    pub gpu: Option<SimGpu>,
    /// Bandwidth of the memory that holds the weights, in gigabytes per second.
    pub memory_bandwidth_gbps: f64,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            kind: HardwareKind::Generic,
            chip: "Simulated CPU".to_owned(),
            cores_physical: 8,
            memory_total_bytes: 64 << 30,
            gpu: None,
            memory_bandwidth_gbps: 100.0,
        }
    }
}

/// Class of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardwareKind {
    /// A desktop with much unified memory.
    MacStudio,
    /// A workstation with a discrete NVIDIA GPU.
    Rtx,
    /// A small machine that its owner uses.
    Laptop,
    /// Anything else.
    Generic,
}

/// A discrete GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimGpu {
    /// Its name, as the driver gives it.
    pub name: String,
    /// Its memory.
    pub vram_bytes: u64,
}
