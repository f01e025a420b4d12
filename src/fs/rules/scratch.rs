//! Which names are scratch files: an editor's swap, backup or temporary files, that never are keys.

use globset::{Glob, GlobSet, GlobSetBuilder};

/// What one scratch file may hold.
pub const FILE_LIMIT: usize = 16 << 20;
/// What all scratch files together may hold.
pub const TOTAL_LIMIT: usize = 64 << 20;

/// Swap, backup and lock files: nothing else is called so, and nothing of them is ever sent.
const HARD: [&str; 15] = [
    ".*.sw?",
    ".*.sw?x",
    ".*.un~",
    "*~",
    ".#*",
    "#*#",
    ".nfs*",
    "._*",
    ".DS_Store",
    ".fuse_hidden*",
    ".goutputstream-*",
    ".~lock.*#",
    "*___jb_tmp___",
    "*___jb_old___",
    "*.vsctmp",
];

/// Temporary files that become a key by rename. A key may be called so too: only a file created with `O_EXCL`
/// counts, and one that stays is promoted to a key.
const SOFT: [&str; 7] =
    ["sed??????", ".?*.??????", ".tmp??????", "tmp????????", "XX??????", "*.tmp", "*.part"];

/// What the name of a new file says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Stays in memory.
    Hard,
    /// Stays in memory until it is renamed onto a key, or is promoted.
    Soft,
    /// Becomes a key with its first complete document.
    Key,
}

/// The patterns of a mount.
#[derive(Clone, Debug)]
pub struct Patterns {
    hard: GlobSet,
    soft: GlobSet,
    on: bool,
}

impl Patterns {
    /// The built-in patterns and the user's (`--scratch GLOB`), which count as hard. `none` alone turns all off.
    pub fn new(added: &[String]) -> Result<Self, String> {
        let on = !matches!(added, [only] if only == "none");
        let added = added.iter().map(String::as_str).filter(|_| on);
        Ok(Self { hard: set(HARD.into_iter().chain(added))?, soft: set(SOFT.into_iter())?, on })
    }

    /// The class of a new file called `name`.
    pub fn class(&self, name: &str, exclusive: bool) -> Class {
        if !self.on {
            Class::Key
        } else if self.hard.is_match(name) || exclusive && is_vim_probe(name) {
            Class::Hard
        } else if exclusive && self.soft.is_match(name) {
            Class::Soft
        } else {
            Class::Key
        }
    }

    /// Whether a key called `key` that is renamed to `name` is a backup (an editor's) and not a key.
    pub fn is_backup(&self, name: &str, key: &str) -> bool {
        self.class(name, false) == Class::Hard || self.on && is_helix_backup(name, key)
    }
}

/// vim creates 4913, or that plus multiples of 123, to learn whether it may write in the directory.
fn is_vim_probe(name: &str) -> bool {
    name.parse::<u32>().is_ok_and(|number| number >= 4913 && (number - 4913) % 123 == 0 && number < 6000)
}

/// Helix renames the file to its name, six letters or digits, and `.bck` before it writes it anew.
fn is_helix_backup(name: &str, key: &str) -> bool {
    let letters = name.strip_prefix(key).and_then(|rest| rest.strip_suffix(".bck"));
    letters
        .is_some_and(|letters| letters.len() == 6 && letters.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn set<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<GlobSet, String> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(Glob::new(pattern).map_err(|error| format!("--scratch {pattern}: {error}"))?);
    }
    builder.build().map_err(|error| format!("--scratch: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editors_files_are_scratch_and_keys_are_not() {
        let patterns = Patterns::new(&[]).unwrap();
        for name in [".db.swp", ".db.swpx", "db~", ".#db", "#db#", ".nfs0001", "._db", ".DS_Store"] {
            assert_eq!(patterns.class(name, false), Class::Hard, "{name}");
        }
        for name in ["db.json___jb_tmp___", "db.json___jb_old___", "db.json.vsctmp"] {
            assert_eq!(patterns.class(name, false), Class::Hard, "{name}");
            assert!(patterns.is_backup(name, "db.json"), "{name}");
        }
        for name in ["db", "sedan", "a.json", "tmp", "4914", "tilde~x", ".env", "CON"] {
            assert_eq!(patterns.class(name, true), Class::Key, "{name}");
        }
        for name in ["sedAbC123", ".db.Xy12Zz", ".tmpAbC123", "tmp1234abcd", "XXn8Yz0q", "db.tmp"] {
            assert_eq!(patterns.class(name, true), Class::Soft, "{name}");
            assert_eq!(patterns.class(name, false), Class::Key, "{name}");
        }
        assert_eq!(patterns.class("4913", true), Class::Hard);
        assert_eq!(patterns.class("4913", false), Class::Key);
    }

    #[test]
    fn a_backup_of_one_key_may_be_called_as_another_key() {
        let patterns = Patterns::new(&[]).unwrap();
        assert!(patterns.is_backup("dbaB3xYz.bck", "db"));
        for (name, key) in
            [("dbaB3xYz.bck", "d"), ("db.bck", "db"), ("db-12345.bck", "db"), ("dbaB3xYz.bak", "db")]
        {
            assert!(!patterns.is_backup(name, key), "{name}");
        }
        assert_eq!(patterns.class("dbaB3xYz.bck", true), Class::Key);
        assert!(!Patterns::new(&["none".into()]).unwrap().is_backup("dbaB3xYz.bck", "db"));
    }

    #[test]
    fn patterns_can_be_added_and_turned_off() {
        assert_eq!(Patterns::new(&["*.bak".into()]).unwrap().class("db.bak", false), Class::Hard);
        assert_eq!(Patterns::new(&["none".into()]).unwrap().class("db~", true), Class::Key);
        assert!(Patterns::new(&["[".into()]).unwrap_err().contains("--scratch ["));
    }
}
