//! Mounts of the built binary, and the directory without a kernel as what they are compared with.
#![allow(missing_docs, clippy::unwrap_used)]

mod bad_input;
mod behaviour;
mod cli;
mod common;
mod crash;
mod embedded;
mod messages;
mod model;
mod notify;
mod oracle;
mod semantics;
mod tools;
mod trees;
mod watch;
