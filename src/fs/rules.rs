//! Pure rules: nothing here knows of tables.

pub mod document;
pub(super) mod error;
pub(super) mod hash;
pub mod names;
pub mod scratch;
