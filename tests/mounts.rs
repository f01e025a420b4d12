//! Mounts of the built binary, and the directory without a kernel as what they are compared with.
#![allow(missing_docs, clippy::unwrap_used)]

/// A test that runs `always`, or one of the `full` matrix.
macro_rules! case {
    (always $name:ident $body:block) => {
        #[test]
        fn $name() $body
    };
    (full $name:ident $body:block) => {
        #[test]
        #[ignore = "scripts/check --full"]
        fn $name() $body
    };
}

mod attributes;
mod bad_input;
mod behaviour;
mod cli;
mod common;
mod crash;
mod descriptors;
mod embedded;
mod full;
mod identity;
mod locks;
mod memory;
mod messages;
mod model;
mod notify;
mod oracle;
mod owners;
mod readers;
mod readonly;
mod semantics;
mod starts;
mod tools;
mod trees;
mod watch;
