//! Changes made elsewhere, for those who watch files by inotify (`--notify`).

pub mod queue;
pub mod relay;
