//! Models that stay in the memory of their nodes: which they are, and the keeper that loads them.

mod book;
mod http;
mod keeper;

pub(crate) use book::Pins;
pub(crate) use http::{list, pin, unpin};
#[cfg(test)]
pub(crate) use keeper::look;
pub(crate) use keeper::run;
