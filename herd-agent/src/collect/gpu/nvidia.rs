//! NVIDIA GPUs through NVML, the driver's own library, loaded at run time: where it is absent, there is no such GPU.

use std::time::{Duration, Instant};

use herd_core::wire;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::Card;

/// How often a missing library is looked for again: a driver can be installed, or a container's hook come late.
const PROBE_AGAIN: Duration = Duration::from_mins(5);

/// The library, once it was found.
#[derive(Default)]
pub(super) struct Nvidia {
    library: Option<Nvml>,
    probed: Option<Instant>,
}

impl Nvidia {
    /// Every GPU that the driver lists, in the order of the bus. A GPU that fell off the bus is left out.
    pub(super) fn read(&mut self) -> Vec<Card> {
        self.probe();
        let Some(library) = &self.library else { return Vec::new() };
        match library.device_count() {
            Ok(count) => (0..count).filter_map(|index| library.device_by_index(index).ok()).map(|d| card(&d)).collect(),
            Err(error) => {
                // The driver was replaced under a running library: every call fails until it is loaded anew.
                tracing::warn!(%error, "the NVIDIA driver does not answer any more");
                self.library = None;
                Vec::new()
            }
        }
    }

    fn probe(&mut self) {
        if self.library.is_some() || self.probed.is_some_and(|at| at.elapsed() < PROBE_AGAIN) {
            return;
        }
        self.probed = Some(Instant::now());
        match Nvml::init() {
            Ok(library) => self.library = Some(library),
            Err(error) => tracing::debug!(%error, "no NVIDIA driver"),
        }
    }
}

fn card(device: &Device<'_>) -> Card {
    let clock_mhz = device.max_clock_info(Clock::SM).ok();
    Card {
        gpu: facts(device),
        uuid: device.uuid().unwrap_or_default(),
        speed: device.num_cores().ok().zip(clock_mhz).map(|(cores, mhz)| u64::from(cores) * u64::from(mhz)),
    }
}

fn facts(device: &Device<'_>) -> wire::Gpu {
    let memory = device.memory_info();
    // Those that are part of the processor (Jetson, GB10) share its memory, and tell of none that is theirs.
    let unified = matches!(memory, Err(NvmlError::NotSupported));
    let memory = memory.ok();
    wire::Gpu {
        name: device.name().unwrap_or_default(),
        vendor: "nvidia".to_owned(),
        unified,
        vram_total_bytes: memory.as_ref().map(|memory| memory.total),
        vram_free_bytes: memory.as_ref().map(|memory| memory.free),
        utilization_pct: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu)),
        temperature_c: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
    }
}
