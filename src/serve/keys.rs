//! API keys: who may use which tenants.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::failure::Failure;
use crate::sys;

/// Where API keys come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Everybody may do everything.
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

/// All API keys; `None` if none is asked for.
pub(super) struct Keys(Option<Vec<ApiKey>>);

impl Keys {
    pub(super) fn load(source: &Source) -> Result<Self, Failure> {
        match source {
            Source::NoAuth => Ok(Self(None)),
            Source::Key(secret) if secret.trim().is_empty() => {
                Err(Failure::Usage("KVFS_API_KEY is empty; set it to a key, or leave it out".into()))
            }
            Source::Key(secret) => {
                Ok(Self(Some(vec![ApiKey { secret: secret.trim().to_owned(), tenants: Vec::new() }])))
            }
            Source::File(path) => Self::read(path),
            Source::Generated(path) => {
                if !path.exists() {
                    generate(path)?;
                }
                Self::read(path)
            }
        }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::Usage(format!("cannot read the API keys in {}: {error}", path.display()))
        })?;
        let keys = parse(&text);
        if keys.is_empty() {
            return Err(Failure::Usage(format!("{} holds no API key; write one per line", path.display())));
        }
        Ok(Self(Some(keys)))
    }

    /// True if no key is asked for.
    pub(super) fn are_open(&self) -> bool {
        self.0.is_none()
    }

    /// The tenants that `secret` may use, the default first and empty for all; `None` if it is no key.
    pub(super) fn tenants_of(&self, secret: Option<&str>) -> Option<&[String]> {
        let Some(keys) = &self.0 else { return Some(&[]) };
        let secret = secret?.as_bytes();
        // All are compared, so that the time tells nothing of which one was close.
        keys.iter().fold(None, |found, key| {
            let same = bool::from(key.secret.as_bytes().ct_eq(secret));
            if same { Some(&key.tenants[..]) } else { found }
        })
    }

    /// The names of all tenants that keys are bound to.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().flat_map(|key| &key.tenants).map(String::as_str)
    }
}

fn parse(text: &str) -> Vec<ApiKey> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let key = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(ApiKey { secret: words.next()?, tenants: words.collect() })
    };
    lines.filter_map(key).collect()
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

    #[test]
    fn a_key_opens_the_tenants_of_its_line() {
        let keys = Keys(Some(parse("# ours\nalpha\n\nbeta staging prod # both\n")));
        assert_eq!(keys.tenants_of(Some("alpha")), Some(&[][..]));
        assert_eq!(keys.tenants_of(Some("beta")), Some(&["staging".to_owned(), "prod".to_owned()][..]));
        for wrong in [None, Some(""), Some("alph"), Some("alphaa"), Some("#"), Some("staging")] {
            assert_eq!(keys.tenants_of(wrong), None, "{wrong:?}");
        }
        assert_eq!(keys.tenants().collect::<Vec<_>>(), ["staging", "prod"]);
        assert_eq!(Keys(None).tenants_of(None), Some(&[][..]));
    }
}
