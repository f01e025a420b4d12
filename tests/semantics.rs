//! The rules of docs/semantics.md on a real mount of the embedded store, each under its own number.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

#[path = "semantics/naming.rs"]
mod naming;
#[path = "semantics/reading.rs"]
mod reading;
#[path = "semantics/trouble.rs"]
mod trouble;
#[path = "semantics/writing.rs"]
mod writing;
