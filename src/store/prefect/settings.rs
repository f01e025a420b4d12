//! Where the unchanged Prefect 3 client would connect, and with which credentials.

mod sources;

use std::path::{Path, PathBuf};

use crate::store::settings::{Environment, environment};
use sources::{Found, Source, Sources};

/// How to reach the Variables API.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Base address of the API, without a final slash.
    pub url: String,
    /// The login, if there is one.
    pub login: Option<Login>,
    /// Where the login was found, for messages.
    pub login_from: &'static str,
    /// The file in which it was found.
    pub login_source: Option<Source>,
    /// Certificates to trust, in PEM.
    pub certificates: Option<PathBuf>,
}

/// A way to authenticate.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// `PREFECT_API_KEY`, of Prefect Cloud.
    Key(String),
    /// `PREFECT_API_AUTH_STRING`, `user:password` of a self-hosted server.
    Basic(String),
}

impl Login {
    /// Of the same kind, as it is now.
    pub(super) fn replaced(&self, source: &Source) -> Result<Self, String> {
        Ok(match self {
            Self::Key(_) => Self::Key(source.read("key", &environment)?),
            Self::Basic(_) => Self::Basic(source.read("auth_string", &environment)?),
        })
    }
}

impl Settings {
    /// As Prefect 3 finds them: environment, `.env`, `prefect.toml`, `pyproject.toml`, the active profile. `url` comes
    /// first. The error is one line for a person.
    pub fn find(url: Option<&str>) -> Result<Self, String> {
        Self::find_in(url, Path::new("."), &environment)
    }

    fn find_in(url: Option<&str>, directory: &Path, environment: Environment<'_>) -> Result<Self, String> {
        let sources = Sources::read(directory, environment)?;
        let text = |setting: &str| sources.text(setting, environment).map(|(text, _)| text);
        let url = url.map(str::to_owned).or_else(|| text("url"));
        let url = url.ok_or(
            "no address of Prefect's API is set; run `prefect config set PREFECT_API_URL=http://HOST:4200/api`, or \
             name it, as in prefect:http://127.0.0.1:4200/api",
        )?;
        if text("tls_insecure_skip_verify").is_some_and(|text| matches!(&*text, "true" | "True" | "1")) {
            return Err("PREFECT_API_TLS_INSECURE_SKIP_VERIFY is set, and kvfs always verifies; name the \
                        certificate by PREFECT_API_SSL_CERT_FILE instead"
                .into());
        }
        // First, as Prefect's own client has it.
        let basic = sources.text("auth_string", environment).map(|(text, found)| (Login::Basic(text), found));
        let key = || sources.text("key", environment).map(|(key, found)| (Login::Key(key), found));
        let (login, found) = basic.or_else(key).unzip();
        let login_from = found.map_or("", Found::from);
        let login_source = found.and_then(|found| sources.source(found));
        let certificates = text("ssl_cert_file").map(PathBuf::from);
        Ok(Self { url: base(&url)?, login, login_from, login_source, certificates })
    }
}

/// The address without a final slash; a host alone is that of a self-hosted server.
fn base(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(format!("the address {url:?} of Prefect's API does not begin with http:// or https://"));
    };
    if rest.contains(['@', '?', '#']) {
        return Err(
            "no user, password or query in the address of Prefect's API; the login is PREFECT_API_KEY or \
                    PREFECT_API_AUTH_STRING"
                .into(),
        );
    }
    let url = url.trim_end_matches('/');
    Ok(if rest.trim_end_matches('/').contains('/') { url.to_owned() } else { format!("{url}/api") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings with these files in the current directory and the home, and these variables.
    fn find(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Settings, String> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".prefect")).unwrap();
        for (name, text) in files {
            std::fs::write(home.path().join(name), text).unwrap();
        }
        let environment = |name: &str| {
            let set = variables.iter().find(|(variable, _)| *variable == name);
            let home = || (name == "HOME").then(|| home.path().display().to_string());
            set.map(|(_, text)| (*text).to_owned()).or_else(home)
        };
        Settings::find_in(None, home.path(), &environment)
    }

    const PROFILE: (&str, &str) = (
        ".prefect/profiles.toml",
        "active = \"a\"\n[profiles.a]\nPREFECT_API_URL = \"http://profile/api\"\nPREFECT_API_KEY = \"of-profile\"\n\
         [profiles.b]\nPREFECT_API_URL = \"http://b/api\"\n",
    );
    const PYPROJECT: (&str, &str) =
        ("pyproject.toml", "[tool.prefect.api]\nurl = \"http://pyproject/api\"\n");
    const PREFECT: (&str, &str) =
        ("prefect.toml", "[api]\nurl = \"http://prefect/api\"\nauth_string = \"u:p\"\n");
    const DOTENV: (&str, &str) = (".env", "# x\nexport PREFECT_API_URL='http://dotenv/api' # y\nA=b #c\n");
    const VARIABLE: (&str, &str) = ("PREFECT_API_URL", "http://environment/api/");

    #[test]
    fn the_strongest_source_wins() {
        let url = |files: &[_], variables: &[_]| find(files, variables).unwrap().url;
        assert_eq!(url(&[PROFILE], &[]), "http://profile/api");
        assert_eq!(url(&[PROFILE, PYPROJECT], &[]), "http://pyproject/api");
        assert_eq!(url(&[PROFILE, PYPROJECT, PREFECT], &[]), "http://prefect/api");
        assert_eq!(url(&[PROFILE, PYPROJECT, PREFECT, DOTENV], &[]), "http://dotenv/api");
        assert_eq!(url(&[PROFILE, PYPROJECT, PREFECT, DOTENV], &[VARIABLE]), "http://environment/api");
        assert_eq!(url(&[PROFILE], &[("PREFECT_PROFILE", "b")]), "http://b/api");
        let elsewhere = ("prefect.toml", "profiles_path = \"~/p.toml\"");
        let profiles = ("p.toml", "active = \"a\"\n[profiles.a]\nPREFECT_API_URL = \"http://p/api\"\n");
        assert_eq!(url(&[PROFILE, elsewhere, profiles], &[]), "http://p/api");
        assert!(
            find(&[PROFILE], &[("PREFECT_PROFILE", "none")])
                .is_err_and(|why| why.contains("PREFECT_API_URL"))
        );
    }

    #[test]
    fn a_login_says_where_it_is_from() {
        let login = |files: &[_], variables: &[_]| {
            let found = find(files, variables).unwrap();
            match found.login {
                Some(Login::Key(key)) => (key, found.login_from),
                Some(Login::Basic(text)) => (text, found.login_from),
                None => (String::new(), found.login_from),
            }
        };
        assert_eq!(login(&[PROFILE], &[]), ("of-profile".into(), "the active profile in profiles.toml"));
        assert_eq!(login(&[PREFECT], &[]), ("u:p".into(), "prefect.toml"));
        let key = ("PREFECT_API_KEY", "k");
        assert_eq!(login(&[PREFECT], &[key]), ("u:p".into(), "prefect.toml"), "as Prefect's client has it");
        assert_eq!(login(&[PYPROJECT], &[key]), ("k".into(), "the environment"));
        let dotenv = (".env", "SECRET=s\nprefect_api_auth_string=u:${SECRET}\t# of the server\n");
        assert_eq!(login(&[PYPROJECT, dotenv], &[key]), ("u:s".into(), ".env"));
        assert_eq!(login(&[PYPROJECT], &[]), (String::new(), ""));
    }

    #[test]
    fn a_login_is_read_again_where_it_was_found_while_no_other_address_is_named() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".prefect")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        let environment = |name: &str| (name == "HOME").then(|| home.path().display().to_string());
        write(PROFILE.0, PROFILE.1);
        let source = Settings::find_in(None, home.path(), &environment).unwrap().login_source.unwrap();
        let new = PROFILE.1.replace("of-profile", "new");
        let read = |text: &str| {
            write(PROFILE.0, text);
            source.read("key", &environment)
        };
        assert_eq!(read(&new), Ok("new".into()));
        assert_eq!(read(&new.replace("active = \"a\"", "active = \"b\"")), Ok("new".into()));
        let other = read(&new.replace("http://profile/", "http://other/"));
        assert!(other.is_err_and(|why| why.contains("profiles.toml names another address")));
        let none = read("[profiles.a]\nPREFECT_API_URL = \"http://profile/api\"\n");
        assert!(none.is_err_and(|why| why.contains("has none")));
        assert!(read("[profiles.a").is_err_and(|why| why.contains("is not TOML")));
        write(DOTENV.0, DOTENV.1);
        assert!(read(&new).is_err_and(|why| why.contains(".env names another address")));
        let key = find(&[PROFILE], &[("PREFECT_API_KEY", "k")]).unwrap();
        assert!(key.login.is_some() && key.login_source.is_none(), "an environment stays as it is");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words() {
        let insecure = ("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "true");
        assert!(find(&[PROFILE], &[insecure]).is_err_and(|why| why.contains("PREFECT_API_SSL_CERT_FILE")));
        assert!(
            find(&[("prefect.toml", "[api")], &[VARIABLE]).is_err_and(|why| why.contains("prefect.toml"))
        );
        assert!(base("host:4200").is_err());
        assert!(base("http://u:secret@host/api").is_err_and(|why| !why.contains("secret")));
        assert_eq!(base("http://host:4200").unwrap(), "http://host:4200/api");
        assert_eq!(base("https://host/x/api/").unwrap(), "https://host/x/api");
    }
}
