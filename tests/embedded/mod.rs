//! Mounts of the embedded store: its one file, from the first open to the last close.

mod end;
mod floor;
mod rows;
