//! The store argument of the command line, parsed in one place.

use std::fmt;
use std::path::PathBuf;

use super::etcd::Address as EtcdAddress;
use crate::nearest::nearest;

/// Which store to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `memory:`, gone at unmount.
    Memory,
    /// `sqlite:PATH`, the embedded store.
    Sqlite(PathBuf),
    /// `prefect` or `prefect:URL`, the Variables of Prefect 3.
    Prefect(Option<String>),
    /// `prefect-cloud` or `prefect-cloud:URL`, the KV API of Prefect Cloud 1.
    PrefectCloud(Option<String>),
    /// `etcd:HOST:PORT[,HOST:PORT...][/PREFIX]`, or `etcds:` with TLS: a cluster.
    Etcd(EtcdAddress),
}

impl Location {
    /// The beginnings of store arguments, for suggestions.
    pub const NAMES: [&str; 6] = ["sqlite:", "memory:", "etcd:", "etcds:", "prefect", "prefect-cloud"];

    /// An example of a command line for the kind of store that `name` begins.
    pub fn example(name: &str) -> String {
        let store = match name {
            "sqlite:" => "sqlite:/srv/app/kv.db",
            "etcd:" | "etcds:" => &format!("{name}10.0.0.1:2379/app"),
            name => name,
        };
        format!("kvfs {store} /mnt/kv")
    }

    /// Parses a store argument. Absent, empty, `kvfs`, `none` and `default` (as fstab lines have them) mean
    /// the embedded store at `data_home/kvfs/kv.db`.
    pub fn parse(text: Option<&str>, data_home: &std::path::Path) -> Result<Self, String> {
        match text.unwrap_or_default() {
            "" | "kvfs" | "none" | "default" => Ok(Self::Sqlite(data_home.join("kvfs").join("kv.db"))),
            "memory:" => Ok(Self::Memory),
            text => match text.split_once(':').unwrap_or((text, "")) {
                ("sqlite", "") => {
                    Err("sqlite: needs the path of a database file, as in sqlite:/var/lib/kvfs/kv.db".into())
                }
                ("sqlite", path) if path.starts_with('~') => Err(tilde(path)),
                ("sqlite", path) => Ok(Self::Sqlite(PathBuf::from(path))),
                ("memory", rest) if !rest.is_empty() => {
                    Err(format!("{text:?}: nothing follows memory: in this store's name"))
                }
                ("prefect", address) => {
                    Ok(Self::Prefect(url("prefect", address, "PREFECT_API_KEY or the profile")?))
                }
                ("prefect-cloud", address) => Ok(Self::PrefectCloud(url(
                    "prefect-cloud",
                    address,
                    "PREFECT__CLOUD__API_KEY or `prefect auth login`",
                )?)),
                (scheme @ ("etcd" | "etcds"), address) => EtcdAddress::parse(scheme, address).map(Self::Etcd),
                (scheme, rest) => Err(unknown(text, scheme, rest)),
            },
        }
    }

    /// Whether the store keeps any bytes, or JSON only.
    pub const fn keeps_bytes(&self) -> bool {
        match self {
            Self::Memory | Self::Sqlite(_) | Self::Etcd(_) => true,
            Self::Prefect(_) | Self::PrefectCloud(_) => false,
        }
    }

    /// The default separator of the parts of keys that are shown as directories.
    pub const fn separator(&self) -> Option<&'static str> {
        match self {
            Self::Etcd(_) => Some("/"),
            Self::Memory | Self::Sqlite(_) | Self::Prefect(_) | Self::PrefectCloud(_) => None,
        }
    }

    /// True if `text` can only be meant as a store.
    pub fn looks_like(text: &str) -> bool {
        matches!(text, "kvfs" | "none" | "default" | "prefect" | "prefect-cloud" | "etcd" | "etcds")
            || text.split_once(':').is_some_and(|(scheme, _)| {
                !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            })
    }
}

/// The message about a `~` that the shell has not replaced, because it does not begin a word.
fn tilde(path: &str) -> String {
    let home = std::env::home_dir().filter(|_| path == "~" || path.starts_with("~/"));
    let meant = home.map(|home| home.join(path[1..].trim_start_matches('/')));
    let meant = meant
        .map_or_else(|| "the whole path of the home".into(), |path| format!("sqlite:{}", path.display()));
    format!(
        "sqlite:{path}: the shell does not replace this ~; write {meant} (or sqlite:./{path}, if it is called so)"
    )
}

fn unknown(text: &str, scheme: &str, rest: &str) -> String {
    if matches!(scheme, "http" | "https") {
        return format!(
            "{text:?} is the address of a server; say of what kind it is: prefect:{text}, prefect-cloud:{text} or \
             etcd:HOST:PORT"
        );
    }
    if let Some(near) = nearest(scheme, Location::NAMES.map(|name| name.trim_end_matches(':'))) {
        return format!("{text:?} is not a store; the nearest is {near}:{rest}");
    }
    if text.contains('/') || std::path::Path::new(text).is_file() {
        return format!("{text:?} is not a store; a database is named so: sqlite:{text}");
    }
    format!(
        "{text:?} is not a store (stores: sqlite:PATH, memory:, etcd:HOST:PORT[/PREFIX], prefect[:URL], \
         prefect-cloud[:URL])"
    )
}

/// The address after `scheme`, if any. It is shown to everybody in the mount table: no secrets in it.
fn url(scheme: &str, text: &str, login_from: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err(format!("{scheme}:{text}: the address must begin with http:// or https://"));
    }
    if text.contains(['@', '?', '#']) {
        return Err(format!(
            "{scheme}: no user, password or query in the address; the login comes from {login_from}"
        ));
    }
    Ok(Some(text.to_owned()))
}

/// As it is given on the command line.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Prefect(None) => f.write_str("prefect"),
            Self::Prefect(Some(url)) => write!(f, "prefect:{url}"),
            Self::PrefectCloud(None) => f.write_str("prefect-cloud"),
            Self::PrefectCloud(Some(url)) => write!(f, "prefect-cloud:{url}"),
            Self::Etcd(address) => address.fmt(f),
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
        assert_eq!(parse("etcds:a:1,b/app").unwrap().to_string(), "etcds:a:1,b:2379/app/");
        assert!(Location::looks_like("etcd:h") && parse("etcd").unwrap_err().contains("127.0.0.1:2379"));
        assert!(parse("redis:host").unwrap_err().contains("redis:host"));
    }
}
