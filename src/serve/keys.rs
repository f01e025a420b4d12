//! API keys, and the tenants that each opens.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::failure::Failure;
use crate::sys;

/// The source of API keys.
#[derive(Clone, Debug)]
pub enum Source {
    /// No API keys: every request is admitted.
    NoAuth,
    /// One key, for all tenants.
    Key(String),
    /// A line per key: the key, and the tenants it may use if not all; the first is its default. `#` begins a comment.
    File(PathBuf),
    /// As [`Source::File`]; made with one random key, which is shown once, if it does not exist.
    Generated(PathBuf),
}

/// One API key.
struct ApiKey {
    secret: String,
    /// Names of tenants; all if empty.
    tenants: Vec<String>,
}

/// All API keys; `None` without authentication.
pub(super) struct Keys(Option<Known>);

struct Known {
    keys: RwLock<Vec<ApiKey>>,
    /// The file, and the version of it that was read.
    file: Option<(PathBuf, Mutex<Option<Stamp>>)>,
}

/// The version of a file: its inode, size and ctime.
type Stamp = (u64, u64, SystemTime);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.modified().ok()?))
}

impl Keys {
    /// Loads the existing keys; `None` if one is to be generated.
    pub(super) fn load(source: &Source) -> Result<Option<Self>, Failure> {
        match source {
            Source::NoAuth => Ok(Some(Self(None))),
            Source::Key(secret) => {
                let secret = check(secret.trim(), "KVFS_API_KEY")?;
                let keys = RwLock::new(vec![ApiKey { secret, tenants: Vec::new() }]);
                Ok(Some(Self(Some(Known { keys, file: None }))))
            }
            Source::Generated(path) if !path.exists() => Ok(None),
            Source::File(path) | Source::Generated(path) => Self::read(path).map(Some),
        }
    }

    /// Generates the missing key.
    pub(super) fn generate(source: &Source) -> Result<Self, Failure> {
        let Source::Generated(path) = source else {
            return Err(Failure::Other("there are no API keys".into()));
        };
        generate(path)?;
        Self::read(path)
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let stamp = stamp(path);
        let keys = RwLock::new(read(path)?);
        Ok(Self(Some(Known { keys, file: Some((path.to_owned(), Mutex::new(stamp))) })))
    }

    /// True without authentication.
    pub(super) fn are_open(&self) -> bool {
        self.0.is_none()
    }

    /// The tenants that `secret` may use, the default first and empty for all; `None` if it is no key.
    pub(super) fn tenants_of(&self, secret: Option<&str>) -> Option<Vec<String>> {
        let Some(known) = &self.0 else { return Some(Vec::new()) };
        known.refresh();
        let secret = secret?.as_bytes();
        // Compares with all, in constant time, so that the time reveals nothing about a key.
        let keys = known.keys.read();
        let found = keys.iter().fold(None, |found, key| {
            let same = bool::from(key.secret.as_bytes().ct_eq(secret));
            if same { Some(&key.tenants) } else { found }
        });
        found.cloned()
    }

    /// The names of all tenants that keys are bound to.
    pub(super) fn tenants(&self) -> Vec<String> {
        let Some(known) = &self.0 else { return Vec::new() };
        known.keys.read().iter().flat_map(|key| key.tenants.clone()).collect()
    }
}

impl Known {
    /// Reads the file again if its version has changed.
    fn refresh(&self) {
        let Some((path, last)) = &self.file else { return };
        let now = stamp(path);
        let mut last = last.lock();
        if *last == now {
            return;
        }
        *last = now;
        match read(path) {
            Ok(keys) => {
                *self.keys.write() = keys;
                tracing::info!("the API keys in {} are read again", path.display());
            }
            Err(error) => tracing::warn!("{error}; the keys that were there before hold on"),
        }
    }
}

fn read(path: &Path) -> Result<Vec<ApiKey>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!("cannot read the API keys in {}: {error}", path.display()))
    })?;
    let keys = parse(&text, path)?;
    if keys.is_empty() {
        return Err(Failure::Usage(format!("{} holds no API key; write one per line", path.display())));
    }
    Ok(keys)
}

/// Least length of a key: shorter ones can be guessed.
const SHORTEST: usize = 8;

fn check(secret: &str, place: &str) -> Result<String, Failure> {
    let wrong = if secret.is_empty() {
        "is empty; set it to a key, or leave it out"
    } else if secret.contains(char::is_whitespace) {
        "has a space, which no API key has"
    } else if secret.len() < SHORTEST {
        "is an API key of less than 8 characters, which can be guessed; `openssl rand -hex 16` makes a better one"
    } else {
        return Ok(secret.to_owned());
    };
    Err(Failure::Usage(format!("{place} {wrong}")))
}

/// A word that begins with `#` begins a comment.
fn parse(text: &str, path: &Path) -> Result<Vec<ApiKey>, Failure> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        if let Some(secret) = words.next() {
            let secret = check(secret, &format!("line {} of {}", index + 1, path.display()))?;
            keys.push(ApiKey { secret, tenants: words.map(str::to_owned).collect() });
        }
    }
    Ok(keys)
}

/// Makes a file with one random key, readable by its owner only.
fn generate(path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::Other(format!("cannot keep an API key in {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        sys::create_private_dir_all(parent).map_err(failed)?;
    }
    let key = format!("kvfs_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{key}").and_then(|()| file.sync_all()).map_err(failed)?;
    eprintln!("kvfs: the API key, shown this once and kept in {}: {key}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, Failure> {
        let keys = RwLock::new(parse(text, Path::new("keys"))?);
        Ok(Keys(Some(Known { keys, file: None })))
    }

    #[test]
    fn a_key_opens_the_tenants_of_its_line() {
        let keys = keys("# ours\nalpha-alpha # comment\n\nbeta#beta staging prod # both\n").unwrap();
        assert_eq!(keys.tenants_of(Some("alpha-alpha")), Some(Vec::new()));
        assert_eq!(keys.tenants_of(Some("beta#beta")), Some(vec!["staging".to_owned(), "prod".to_owned()]));
        for wrong in [None, Some(""), Some("alpha-alph"), Some("alpha-alphaa"), Some("#"), Some("staging")] {
            assert_eq!(keys.tenants_of(wrong), None, "{wrong:?}");
        }
        assert_eq!(keys.tenants(), ["staging", "prod"]);
        assert_eq!(Keys(None).tenants_of(None), Some(Vec::new()));
    }

    #[test]
    fn a_key_that_can_be_guessed_is_refused_by_its_line_and_not_shown() {
        let refused = keys("long-enough\nabc # comment\n").err().unwrap().to_string();
        assert!(refused.contains("line 2 of keys") && !refused.contains("abc"), "{refused}");
        for key in ["", "abc", "has a space"] {
            assert!(Keys::load(&Source::Key(key.into())).is_err(), "{key}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_is_read_again_and_one_that_is_broken_changes_nothing() {
        let home = tempfile::TempDir::new().unwrap();
        let (path, other) = (home.path().join("keys"), home.path().join("other"));
        std::fs::write(&path, "the-old-one\n").unwrap();
        let keys = Keys::load(&Source::File(path.clone())).unwrap().unwrap();
        let put = |text: &str| {
            std::fs::write(&other, text).unwrap();
            std::fs::rename(&other, &path).unwrap();
        };
        let holds = |key: &str| keys.tenants_of(Some(key)).is_some();
        assert!(holds("the-old-one"));
        put("the-new-one\n");
        assert!(holds("the-new-one") && !holds("the-old-one"));
        put("short\n");
        assert!(holds("the-new-one") && !holds("short"));
        std::fs::remove_file(&path).unwrap();
        assert!(holds("the-new-one"));
    }
}
