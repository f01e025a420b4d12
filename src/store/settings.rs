//! Files of settings that other programs keep.

use std::path::Path;

use toml::Table;

/// An environment variable by its name.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of this process; an empty one counts as absent.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The text of a file, if it is there.
pub(super) fn read(file: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

/// A TOML file; empty if there is none.
pub(super) fn table(file: &Path) -> Result<Table, String> {
    let broken = |error: toml::de::Error| format!("{} is not TOML: {}", file.display(), error.message());
    read(file)?.unwrap_or_default().parse().map_err(broken)
}

/// The table at `path` within another one, if it is there.
pub(super) fn within<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Table> {
    path.iter().try_fold(table, |table, name| table.get(*name)?.as_table())
}
