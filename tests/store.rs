//! The contract of stores: one suite for all, and a file for the properties of each.
#![allow(missing_docs, clippy::unwrap_used)]

mod memory;
mod process;
mod sqlite;
