//! The store argument of the command line, parsed in one place.

use std::fmt;
use std::path::PathBuf;

/// Which store to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `memory:`, gone at unmount.
    Memory,
    /// `sqlite:PATH`, the embedded store.
    Sqlite(PathBuf),
    /// `prefect-cloud` or `prefect-cloud:URL`, the KV API of Prefect Cloud 1.
    PrefectCloud(Option<String>),
}

impl Location {
    /// Parses a store argument. Absent, empty, `kvfs`, `none` and `default` (as fstab lines have them) mean
    /// the embedded store at `data_home/kvfs/kv.db`.
    pub fn parse(text: Option<&str>, data_home: &std::path::Path) -> Result<Self, String> {
        match text.unwrap_or_default() {
            "" | "kvfs" | "none" | "default" => Ok(Self::Sqlite(data_home.join("kvfs").join("kv.db"))),
            "memory:" => Ok(Self::Memory),
            "prefect-cloud" | "prefect-cloud:" => Ok(Self::PrefectCloud(None)),
            text if text.starts_with("prefect-cloud:") => url(&text["prefect-cloud:".len()..]),
            text => match text.strip_prefix("sqlite:") {
                Some("") => {
                    Err("sqlite: needs the path of a database file, as in sqlite:/var/lib/kvfs/kv.db".into())
                }
                Some(path) => Ok(Self::Sqlite(PathBuf::from(path))),
                None => Err(format!(
                    "{text:?} is not a store (stores: sqlite:PATH, memory:, prefect-cloud[:URL])"
                )),
            },
        }
    }

    /// Whether the store keeps any bytes, or JSON only.
    pub const fn keeps_bytes(&self) -> bool {
        match self {
            Self::Memory | Self::Sqlite(_) => true,
            Self::PrefectCloud(_) => false,
        }
    }

    /// True if `text` can only be meant as a store.
    pub fn looks_like(text: &str) -> bool {
        matches!(text, "kvfs" | "none" | "default" | "prefect-cloud")
            || text.split_once(':').is_some_and(|(scheme, _)| {
                !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            })
    }
}

/// The location is shown to everybody in the mount table: no secrets in it.
fn url(text: &str) -> Result<Location, String> {
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err(format!("prefect-cloud:{text}: the address must begin with http:// or https://"));
    }
    if text.contains(['@', '?', '#']) {
        return Err("prefect-cloud: no user, password or query in the address; the API key comes from \
                    PREFECT__CLOUD__API_KEY or `prefect auth login`"
            .into());
    }
    Ok(Location::PrefectCloud(Some(text.to_owned())))
}

/// As it is given on the command line.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::PrefectCloud(None) => f.write_str("prefect-cloud"),
            Self::PrefectCloud(Some(url)) => write!(f, "prefect-cloud:{url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_store_argument_names_one_store() {
        let home = Path::new("/data");
        let parse = |text| Location::parse(Some(text), home);
        assert_eq!(parse("memory:"), Ok(Location::Memory));
        assert_eq!(parse("sqlite:/x/kv.db"), Ok(Location::Sqlite("/x/kv.db".into())));
        assert_eq!(parse("none"), Ok(Location::Sqlite("/data/kvfs/kv.db".into())));
        assert_eq!(Location::parse(None, home), parse("kvfs"));
        assert!(parse("sqlite:").is_err());
        assert_eq!(parse("prefect-cloud"), Ok(Location::PrefectCloud(None)));
        let server = parse("prefect-cloud:http://127.0.0.1:4200").unwrap();
        assert_eq!(server.to_string(), "prefect-cloud:http://127.0.0.1:4200");
        assert!(parse("prefect-cloud:https://user:secret@host").is_err_and(|why| !why.contains("secret")));
        assert!(parse("prefect-cloud:host").is_err());
        assert!(parse("redis:host").unwrap_err().contains("redis:host"));
    }
}
