//! Stores behind real servers, and the server that kvfs is itself.
#![allow(missing_docs, clippy::unwrap_used)]

mod clusters;
mod common;
mod copy;
#[macro_use]
#[allow(dead_code, reason = "for another test program too")]
mod suite;
mod etcd;
mod faults;
mod prefect;
mod prefect_cloud;
mod serve;
