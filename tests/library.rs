//! The library without a kernel: stores, the cache, and the house rules of the source.
#![allow(missing_docs, clippy::unwrap_used)]

mod cache;
mod common;
#[macro_use]
#[allow(dead_code, reason = "for another test program too")]
mod suite;
mod store;
mod tidy;
