//! Where the unchanged Prefect 1.x client would connect, and with which key.

use std::path::{Path, PathBuf};

use toml::Table;

use crate::store::settings::{Environment, environment, table, within};

/// How to reach the KV API.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The address that is posted to.
    pub url: String,
    /// The API key.
    pub key: Option<String>,
    /// Where the key was found, for messages.
    pub key_from: &'static str,
    /// The file in which it was found.
    pub key_source: Option<Source>,
    /// The tenant, if one is chosen.
    pub tenant: Option<String>,
}

impl Settings {
    /// As the 1.x client finds them: environment, `backend.toml`, `config.toml`, and `auth.toml` for the host. `url`
    /// comes first. The error is one line for a person.
    pub fn find(url: Option<&str>) -> Result<Self, String> {
        Self::find_in(url, &environment)
    }

    fn find_in(url: Option<&str>, environment: Environment<'_>) -> Result<Self, String> {
        let files = Files::read(environment)?;
        let text = |path: &[&str]| files.text(path, environment);
        if url.is_none() && text(&["backend"]).as_deref() == Some("server") {
            return Err("Prefect's backend is \"server\", and key-value operations are only supported in Prefect \
                        Cloud; run `prefect backend cloud`, or name the address, as in prefect-cloud:https://..."
                .into());
        }
        let url = url.map(str::to_owned);
        let url = url.or_else(|| text(&["cloud", "api"]));
        let url = url.or_else(|| text(&["cloud", "endpoint"]));
        let url = url.ok_or(
            "Prefect Cloud 1 is gone and no other address of its API is set; set PREFECT__CLOUD__API, or name it, \
             as in prefect-cloud:http://127.0.0.1:4200",
        )?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!(
                "the address {url:?} of Prefect's API does not begin with http:// or https://"
            ));
        }
        if url.contains(['@', '?', '#']) {
            return Err(
                "no user, password or query in the address of Prefect's API; the API key comes from \
                        PREFECT__CLOUD__API_KEY or `prefect auth login`"
                    .into(),
            );
        }
        let host = slug(&url);
        let login = |name: &str| written(&files.auth, &[&host, name]);
        let configured = text(KEY);
        let (from, source) = match environment("PREFECT__CLOUD__API_KEY") {
            // The environment of a process does not change.
            Some(_) => ("PREFECT__CLOUD__API_KEY", None),
            None => ("config.toml", files.key_source()),
        };
        let by_login = Source::Login { auth: files.auth_path.clone(), host: host.clone() };
        let found = [
            (configured, from, source),
            (login("api_key"), "auth.toml (prefect auth login)", Some(by_login)),
        ];
        let found = found.into_iter().find(|(key, ..)| key.is_some());
        let (key, key_from, key_source) = found.unwrap_or((None, "no file", None));
        let tenant = text(&["cloud", "tenant_id"]).or_else(|| login("tenant_id"));
        Ok(Self { url, key, key_from, key_source, tenant })
    }
}

/// Where a key was found, to be read again.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// The key that `prefect auth login` has stored for the host.
    Login {
        /// `auth.toml`.
        auth: PathBuf,
        /// The name of the host's table.
        host: String,
    },
    /// A setting in one of two files.
    Config {
        /// `backend.toml` and `config.toml`.
        paths: [PathBuf; 2],
        /// The one that had it.
        at: usize,
        /// The addresses in the files at that time: with another address the key may be another server's.
        addresses: Vec<Option<String>>,
    },
}

impl Source {
    /// The key that is there now.
    pub(super) fn read(&self) -> Result<String, String> {
        self.read_in(&environment)
    }

    fn read_in(&self, environment: Environment<'_>) -> Result<String, String> {
        let none = |file: &Path| format!("{} has none any more", file.display());
        match self {
            Self::Login { auth, host } => {
                written(&table(auth)?, &[host, "api_key"]).ok_or_else(|| none(auth))
            }
            Self::Config { paths, at, addresses } => {
                let config = [table(&paths[0])?, table(&paths[1])?];
                if named(&config) != *addresses {
                    let [backend, config] = paths.each_ref().map(|path| path.display());
                    return Err(format!(
                        "{config} (or {backend}) names another address than it did, whose key it may be; to use that \
                         one, mount again"
                    ));
                }
                let files = Files { config, paths: paths.clone(), ..Files::none(environment) };
                let key = files.text(KEY, environment).filter(|_| files.key_at() == Some(*at));
                key.ok_or_else(|| none(&paths[*at]))
            }
        }
    }
}

const KEY: &[&str] = &["cloud", "api_key"];

/// The addresses that files name, as they are written there.
fn named(config: &[Table; 2]) -> Vec<Option<String>> {
    config.iter().flat_map(|table| ["api", "endpoint"].map(|name| written(table, &["cloud", name]))).collect()
}

/// The text at a path in a file.
fn written(table: &Table, path: &[&str]) -> Option<String> {
    let (last, sections) = path.split_last()?;
    within(table, sections)?.get(*last)?.as_str().map(str::to_owned)
}

/// Prefect's configuration files; the first is the strongest.
#[derive(Default)]
struct Files {
    config: [Table; 2],
    paths: [PathBuf; 2],
    auth: Table,
    auth_path: PathBuf,
    home: PathBuf,
}

/// How often references in settings are replaced, so that one may lead to another.
const ROUNDS: usize = 10;

impl Files {
    fn read(environment: Environment<'_>) -> Result<Self, String> {
        // Read again from another directory, perhaps.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let mut files = Self::none(environment);
        let prefect = files.home.join(".prefect");
        let place = |variable: &str, default: &str| {
            environment(variable)
                .map_or_else(|| prefect.join(default), |path| files.expanded(path, environment).into())
        };
        files.paths = [
            absolute(place("PREFECT__BACKEND_CONFIG_PATH", "backend.toml")),
            absolute(place("PREFECT__USER_CONFIG_PATH", "config.toml")),
        ];
        files.config = [table(&files.paths[0])?, table(&files.paths[1])?];
        let prefect = files.text(&["home_dir"], environment).map_or(prefect, PathBuf::from);
        files.auth_path = absolute(prefect.join("auth.toml"));
        files.auth = table(&files.auth_path)?;
        Ok(files)
    }

    /// No files yet.
    fn none(environment: Environment<'_>) -> Self {
        let home = PathBuf::from(environment("HOME").unwrap_or_else(|| "/".into()));
        Self { home, ..Self::default() }
    }

    /// Which of the two files has the key.
    fn key_at(&self) -> Option<usize> {
        self.config.iter().position(|table| written(table, KEY).is_some())
    }

    fn key_source(&self) -> Option<Source> {
        let addresses = named(&self.config);
        self.key_at().map(|at| Source::Config { paths: self.paths.clone(), at, addresses })
    }

    /// A setting, from `PREFECT__*` or a file, with its references replaced; an empty one counts as absent.
    fn text(&self, path: &[&str], environment: Environment<'_>) -> Option<String> {
        let mut text = self.raw(path, environment)?;
        for _ in 0..ROUNDS {
            let Some((before, name, after)) = reference(&text) else { break };
            let path: Vec<&str> = name.split('.').collect();
            let other = match (self.raw(&path, environment), &*path) {
                (Some(other), _) => other,
                (None, ["backend"]) => "cloud".to_owned(),
                // Its default is gone.
                (None, [.., "endpoint"]) => return None,
                (None, _) => String::new(),
            };
            text = [before, &other, after].concat();
        }
        Some(text).filter(|text| !text.is_empty())
    }

    fn raw(&self, path: &[&str], environment: Environment<'_>) -> Option<String> {
        let variable = format!("PREFECT__{}", path.join("__").to_ascii_uppercase());
        let found = || self.config.iter().find_map(|table| written(table, path));
        let found = environment(&variable).or_else(found)?;
        Some(self.expanded(found, environment))
    }

    /// As Python's `expandvars` and `expanduser` have it, again and again.
    fn expanded(&self, mut text: String, environment: Environment<'_>) -> String {
        for _ in 0..ROUNDS {
            let mut next = variables(&text, environment);
            if let Some(rest) = next.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'))
            {
                next = format!("{}{rest}", self.home.display());
            }
            if next == text {
                break;
            }
            text = next;
        }
        text
    }
}

/// `text` with `$NAME` and `${NAME}` replaced; what is not set stays as it is.
fn variables(text: &str, environment: Environment<'_>) -> String {
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some(start) = rest.find('$') {
        let (before, reference) = rest.split_at(start);
        replaced += before;
        let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let inside = reference.strip_prefix("${").and_then(|inside| Some(inside.split_once('}')?.0));
        let braced = inside.filter(|inside| inside.chars().all(is_name));
        let bare =
            || &reference[1..=reference[1..].find(|char| !is_name(char)).unwrap_or(reference.len() - 1)];
        let (name, length) = braced.map_or_else(|| (bare(), bare().len() + 1), |name| (name, name.len() + 3));
        replaced += &Some(name)
            .filter(|name| !name.is_empty())
            .and_then(environment)
            .unwrap_or_else(|| reference[..length].to_owned());
        rest = &reference[length..];
    }
    replaced + rest
}

/// The first `${SETTING}` in which there is no other one, and what is before and after it.
fn reference(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("${").find_map(|(start, _)| {
        let (name, after) = text[start + 2..].split_once('}')?;
        (!name.contains(['$', '{'])).then_some((&text[..start], name, after))
    })
}

/// The name of a host's table in `auth.toml`: its address and port in lower case, with `-` for all but letters, digits,
/// `.` and `-`.
fn slug(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.');
    let parts: Vec<&str> = host.split(|char| !plain(char)).filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_name_that_prefect_gives_it() {
        for (url, name) in [
            ("https://api.prefect.io", "api.prefect.io"),
            ("http://127.0.0.1:4311/graphql", "127.0.0.1-4311"),
            ("http://localhost:4200/", "localhost-4200"),
            ("https://My-Host.example.com:8443", "my-host.example.com-8443"),
            ("http://[::1]:4200", "1-4200"),
        ] {
            assert_eq!(slug(url), name);
        }
    }

    /// Settings in a home with these files and this environment.
    fn find(
        url: Option<&str>,
        files: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Result<Settings, String> {
        let home = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(home.path().join(".prefect")).unwrap();
        for (name, text) in files {
            let file = home.path().join(".prefect").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let set = |name: &str| {
            let given = variables.iter().find(|(variable, _)| *variable == name);
            given.map(|(_, value)| (*value).to_owned())
        };
        let home = home.path().to_str().unwrap().to_owned();
        let found =
            Settings::find_in(url, &|name| set(name).or_else(|| (name == "HOME").then(|| home.clone())));
        found.map(|found| Settings { key_source: None, ..found })
    }

    fn settings(url: &str, key: Option<&str>, key_from: &'static str, tenant: Option<&str>) -> Settings {
        let owned = |text: &str| text.to_owned();
        let (key, tenant) = (key.map(owned), tenant.map(owned));
        Settings { url: url.to_owned(), key, key_from, key_source: None, tenant }
    }

    const AUTH: (&str, &str) = ("auth.toml", "[\"h-1\"]\napi_key = \"login\"\ntenant_id = \"t-login\"\n");
    const LOGIN: &str = "auth.toml (prefect auth login)";

    #[test]
    fn what_stands_first_counts() {
        let config = ("config.toml", "[cloud]\napi = \"http://h:1\"\napi_key = \"configured\"\n");
        assert_eq!(
            find(None, &[AUTH, config], &[]),
            Ok(settings("http://h:1", Some("configured"), "config.toml", Some("t-login")))
        );
        let variables = [("PREFECT__CLOUD__API_KEY", "environment"), ("PREFECT__CLOUD__TENANT_ID", "t")];
        let expected = settings("http://h:1", Some("environment"), "PREFECT__CLOUD__API_KEY", Some("t"));
        assert_eq!(find(None, &[AUTH, config], &variables), Ok(expected));
        let api = [("PREFECT__CLOUD__API", "https://h:1/graphql"), ("PREFECT__CLOUD__ENDPOINT", "http://no")];
        let expected = settings("https://h:1/graphql", Some("login"), LOGIN, Some("t-login"));
        assert_eq!(find(None, &[AUTH], &api), Ok(expected));
        let expected = settings("http://h:1", Some("login"), LOGIN, Some("t-login"));
        assert_eq!(find(Some("http://h:1"), &[AUTH], &api), Ok(expected));
        let empty = ("config.toml", "[cloud]\napi = \"http://h:1\"\napi_key = \"\"\n");
        let expected = settings("http://h:1", Some("login"), LOGIN, Some("t-login"));
        assert_eq!(find(None, &[AUTH, empty], &[]), Ok(expected), "an empty key does not hide the login");
        let endpoint = ("config.toml", "[cloud]\napi = \"${cloud.endpoint}\"\nendpoint = \"http://other\"\n");
        assert_eq!(find(None, &[AUTH, endpoint], &[]), Ok(settings("http://other", None, "no file", None)));
    }

    #[test]
    fn settings_refer_to_variables_and_to_each_other() {
        let config = (
            "config.toml",
            "backend = \"cloud\"\n[cloud]\napi = \"${${backend}.endpoint}/graphql\"\nendpoint = \"http://${HOST_NAME}:1\"\n\
             api_key = \"$MY_KEY\"\ntenant_id = \"$NONE-${x.y}\"\n",
        );
        let variables = [("MY_KEY", "${OTHER}"), ("OTHER", "secret"), ("HOST_NAME", "h")];
        let expected = settings("http://h:1/graphql", Some("secret"), "config.toml", Some("$NONE-"));
        assert_eq!(find(None, &[AUTH, config], &variables), Ok(expected));
        let api = ("PREFECT__CLOUD__API", "http://$HOST_NAME");
        let expected = settings("http://h", Some("secret"), "config.toml", Some("$NONE-"));
        assert_eq!(find(None, &[config], &[&variables[..], &[api]].concat()), Ok(expected));
        let moved = ("config.toml", "home_dir = \"~/elsewhere\"\n[cloud]\napi = \"http://h:1\"\n");
        let expected = settings("http://h:1", Some("login"), LOGIN, Some("t-login"));
        assert_eq!(find(None, &[("../elsewhere/auth.toml", AUTH.1), moved], &[]), Ok(expected));
    }

    #[test]
    fn a_key_is_read_again_where_it_was_found_while_no_other_address_is_named() {
        let home = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(home.path().join(".prefect")).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(home.path().join(".prefect").join(name), text).unwrap();
        };
        let environment = |name: &str| match name {
            "HOME" => Some(home.path().display().to_string()),
            "MY_KEY" => Some("of-environment".to_owned()),
            _ => None,
        };
        let source = || Settings::find_in(None, &environment).unwrap().key_source.unwrap();
        let config = "[cloud]\napi = \"http://h:1\"\napi_key = \"$MY_KEY\"\n";
        write("config.toml", config);
        let configured = source();
        assert_eq!(configured.read_in(&environment), Ok("of-environment".into()));
        write("config.toml", &config.replace("$MY_KEY", "new"));
        assert_eq!(configured.read_in(&environment), Ok("new".into()));
        write("config.toml", &config.replace("h:1", "h:2"));
        assert!(configured.read_in(&environment).is_err_and(|why| why.contains("another address")));
        write("config.toml", config);
        write("backend.toml", "[cloud]\napi_key = \"stronger\"\n");
        assert!(configured.read_in(&environment).is_err_and(|why| why.contains("config.toml has none")));
        write("backend.toml", "");
        write("config.toml", "[cloud]\napi = \"http://h:1\"\n");
        write(AUTH.0, AUTH.1);
        let login = source();
        write(AUTH.0, &AUTH.1.replace("\"login\"", "\"new\""));
        assert_eq!(login.read_in(&environment), Ok("new".into()));
        write(AUTH.0, "[\"h-2\"]\napi_key = \"of-another\"\n");
        assert!(login.read_in(&environment).is_err_and(|why| why.contains("auth.toml has none")));
    }

    #[test]
    fn the_backend_must_be_cloud_unless_the_address_is_named() {
        let server = ("backend.toml", "backend = \"server\"\n");
        let cloud = ("config.toml", "backend = \"cloud\"\n[cloud]\napi = \"http://h:1\"\n");
        assert!(
            find(None, &[server, cloud], &[])
                .is_err_and(|why| why.contains("only supported in Prefect Cloud"))
        );
        assert!(find(None, &[server, cloud], &[("PREFECT__BACKEND", "cloud")]).is_ok());
        assert!(find(Some("http://h:1"), &[server], &[]).is_ok());
        assert!(find(None, &[], &[]).is_err_and(|why| why.contains("PREFECT__CLOUD__API")));
        assert!(find(None, &[("auth.toml", "[")], &[]).is_err_and(|why| why.contains("auth.toml")));
    }

    impl std::fmt::Debug for Settings {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{} {:?} {} {:?}", self.url, self.key, self.key_from, self.tenant)
        }
    }
}
