//! Benchmarks of herd: what a request costs on its way, against other proxies on the same machine; and how well it is
//! routed, against other policies in virtual time.

pub mod load;
pub mod sim;
