//! Changes made elsewhere: they are taken in, and told to those who watch.

mod changes;
pub(crate) mod watch;
