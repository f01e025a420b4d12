//! Changes made elsewhere: they are taken in, and told to those who watch.

pub(crate) mod baseline;
mod changes;
pub(crate) mod watch;
