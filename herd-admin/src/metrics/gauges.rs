//! The names of all gauges of the fleet.

/// One gauge: its name, its help and its labels.
pub(super) struct Gauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Gauge {
    Gauge { name, help, labels }
}

/// Defines gauges, and [`ALL`] of them.
macro_rules! gauges {
    ($($constant:ident = $name:literal, $help:literal, $labels:expr;)*) => {
        $(pub(super) const $constant: Gauge = gauge($name, $help, $labels);)*
        /// Every gauge.
        pub(super) const ALL: &[&Gauge] = &[$(&$constant),*];
    };
}

const NODE: &[&str] = &["node"];
const GPU: &[&str] = &["node", "gpu"];
const MODEL: &[&str] = &["node", "model"];

gauges! {
    BUILD_INFO = "herd_build_info", "Always 1; what this edge was built from and with.",
        &["version", "revision", "rustc"];
    DRAINING = "herd_edge_draining", "1 while this edge takes no new requests because it stops.", &[];
    IN_FLIGHT_ALL = "herd_requests_in_flight", "Requests in flight: sent to a node and not completed.", &[];
    WAITING = "herd_requests_waiting", "Requests that wait at this edge for a slot.", &[];
    OLDEST = "herd_queue_oldest_seconds", "Age of the oldest request that waits for a slot; 0 = none waits.",
        &[];
    LIMIT = "herd_limit", "Bounds, by their keys in the configuration; those on times are left out.", &["limit"];
    LIMIT_USED = "herd_limit_used", "How much of a bound is used, where that can be counted.", &["limit"];
    NODES = "herd_nodes", "Nodes in each state.", &["state"];
    UP = "herd_node_up", "1 when the node takes new requests, else 0; with its state.", &["node", "state"];
    CONDITION = "herd_node_condition", "Always 1; with what is wrong with the node, or well.", &["node", "condition"];
    HEARTBEAT_AGE = "herd_heartbeat_age_seconds", "Time since the node's last heartbeat, by this edge's clock.", NODE;
    IN_FLIGHT = "herd_node_in_flight", "Requests of this edge in flight on the node.", NODE;
    QUEUE_DEPTH = "herd_node_queue_depth", "Requests that wait at the node for a slot, as far as is known.", NODE;
    SLOTS = "herd_node_slots", "Requests that the node's loaded models can run at once.", NODE;
    BUSY_BY_OTHERS = "herd_node_busy_by_others", "Slots of the node that are taken by requests of other clients.", NODE;
    MODELS_LOADED = "herd_node_models_loaded", "Models in the node's memory.", NODE;
    MODELS_AVAILABLE = "herd_node_models_available", "Models that the node has, in memory or on disk.", NODE;
    EJECTED = "herd_node_ejected_seconds", "Time until the node is tried again after failures; 0 = it is not ejected.",
        NODE;
    CPU = "herd_node_cpu_utilization_ratio", "Busy share of the node's processors.", NODE;
    MEMORY_TOTAL = "herd_node_memory_total_bytes", "The node's main memory.", NODE;
    MEMORY_AVAILABLE = "herd_node_memory_available_bytes", "Main memory available to new work without swapping.",
        NODE;
    PRESSURE = "herd_node_memory_pressure", "How short of memory the node is: 0 = not, 1 = warning, 2 = critical.",
        NODE;
    SWAP_USED = "herd_node_swap_used_bytes", "Swap space in use on the node.", NODE;
    DISK_TOTAL = "herd_node_disk_total_bytes", "Size of the file system of the node's models.", NODE;
    DISK_AVAILABLE = "herd_node_disk_available_bytes", "Free space of the file system of the node's models.", NODE;
    TEMPERATURE = "herd_node_temperature_celsius", "Temperature of the node's hottest sensor.", NODE;
    VRAM_TOTAL = "herd_node_vram_total_bytes",
        "Memory that models are loaded into: of GPUs, or the system's if shared.", NODE;
    VRAM_FREE = "herd_node_vram_free_bytes", "The part of herd_node_vram_total_bytes not in use.", NODE;
    GPU_VRAM_TOTAL = "herd_gpu_vram_total_bytes", "Memory of one GPU.", GPU;
    GPU_VRAM_FREE = "herd_gpu_vram_free_bytes", "The part of herd_gpu_vram_total_bytes not in use.", GPU;
    GPU_UTILIZATION = "herd_gpu_utilization_ratio", "Busy share of one GPU.", GPU;
    GPU_TEMPERATURE = "herd_gpu_temperature_celsius", "Temperature of one GPU.", GPU;
    GPU_POWER = "herd_gpu_power_watts", "Power that one GPU draws.", GPU;
    MODEL_RESIDENT = "herd_model_resident_bytes", "Memory that a loaded model holds on the node; 0 = not reported.",
        MODEL;
    MODEL_VRAM = "herd_model_vram_bytes", "The part of herd_model_resident_bytes in GPU memory, where reported.",
        MODEL;
    MODEL_CONTEXT = "herd_model_context_tokens", "Context per slot that the model is loaded with; not for other.",
        MODEL;
    MODEL_IN_FLIGHT = "herd_model_in_flight", "Requests that this edge has sent to the loaded model there.", MODEL;
}
