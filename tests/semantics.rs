//! The rules of docs/semantics.md on a real mount of the embedded store, each under its own number.
#![allow(missing_docs, clippy::unwrap_used)]

mod appending;
mod attributes;
mod bound;
mod closing;
mod completing;
mod in_flight;
mod naming;
mod one_process;
mod reading;
mod refusals;
mod removed;
mod told;
mod trouble;
mod writing;
