//! Maps by names and keys, which others choose: hashed with a seed of this process.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// By a name or a key; made by `default()`.
pub(crate) type ByName<K, V> = HashMap<K, V, RandomState>;
