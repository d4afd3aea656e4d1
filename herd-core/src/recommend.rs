//! What is known of models, and what memory they take.

mod catalogue;
pub mod memory;

pub use catalogue::{Catalogue, CatalogueError, KnownModel};
