//! What stores promise: all of them through one suite, each in its own file for what only it promises.
#![allow(missing_docs, clippy::unwrap_used)]

#[macro_use]
#[path = "store/suite.rs"]
mod suite;

#[path = "store/memory.rs"]
mod memory;
#[path = "store/process.rs"]
mod process;
#[path = "store/sqlite.rs"]
mod sqlite;
