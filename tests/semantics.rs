//! The rules of docs/semantics.md on a real mount of the embedded store, each under its own number.
#![allow(missing_docs, clippy::unwrap_used)]

mod attributes;
mod in_flight;
mod naming;
mod reading;
mod refusals;
mod trouble;
mod writing;
