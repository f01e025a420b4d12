//! What stores promise: all of them through one suite, each in its own file for what only it promises.
#![allow(missing_docs, clippy::unwrap_used)]

mod memory;
mod process;
mod sqlite;
