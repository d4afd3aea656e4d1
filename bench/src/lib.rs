//! Benchmarks of herd: what a request costs on its way, against other proxies on the same machine; and how well it is
//! routed, against other policies in virtual time. And a soak: months of a small fleet, in which everything happens.

pub mod load;
pub mod sim;
pub mod soak;
mod view;

/// As herd has it, or else the choice of a node would be measured with another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
