//! Benchmarks of herd: what a request costs on its way, against other proxies on the same machine.

pub mod load;
