//! Changes of models through Ollama's own API: `/api/delete`, `/api/copy`, `/api/create`, `/api/push`, `/api/blobs`.
//!
//! A node that the request names does it. Else a model is deleted and copied on every node that has it, so that the fleet
//! stays one Ollama to its users, and what is made of several requests is made on one node: see [`Sequences`].

mod blob;
mod many;
mod one;
mod pick;
mod sequence;

pub(crate) use blob::{has_blob, put_blob};
pub(crate) use many::{copy, delete};
pub(crate) use one::{create, push};
pub(crate) use sequence::Sequences;
