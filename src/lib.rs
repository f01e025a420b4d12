//! kvfs mounts a key-value store as a directory in which each key is a JSON file.
//!
//! Data walks one way, and nothing points back up:
//!
//! ```text
//! kernel -> fuse (decode, call, encode) -> fs (what a JSON directory means) -> cache (a store that remembers) -> store
//! Prefect 1.x client -> serve (HTTP, GraphQL) -> store
//! ```
//!
//! [`cli`] turns flags into plain settings, [`mount`] wires the modules together. `docs/architecture.md` is the map.

mod by_name;
pub mod cache;
pub mod cli;
pub mod copy;
pub mod failure;
pub mod fs;
pub mod fuse;
pub mod logging;
pub mod mount;
mod nearest;
pub mod serve;
pub mod signals;
pub mod store;
pub mod sys;
pub mod threads;
pub mod watch;
