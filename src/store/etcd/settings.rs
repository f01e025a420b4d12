//! How to reach a cluster, as etcdctl reads it from the environment.

use std::path::{Path, PathBuf};

use super::Address;
use crate::store::settings::{Environment, environment};

const PASSWORD_FILE: &str = "KVFS_ETCD_PASSWORD_FILE";

/// The address of a cluster and the credentials. No `Debug`: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The members, and the directory of keys.
    pub address: Address,
    /// User and password, if there is a login.
    pub login: Option<(String, String)>,
    /// The file of the password, which is read again when it is refused.
    pub password_file: Option<PathBuf>,
    /// Certificates that are trusted in place of the machine's, in PEM.
    pub authority: Option<PathBuf>,
    /// The client's certificate and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Neither login nor certificates.
    pub fn plain(address: Address) -> Self {
        Self { address, login: None, password_file: None, authority: None, identity: None }
    }

    /// With what etcdctl would use, or with the password in `KVFS_ETCD_PASSWORD_FILE`. The error is one line for a person.
    pub fn find(address: Address) -> Result<Self, String> {
        Self::find_in(address, &environment)
    }

    fn find_in(address: Address, environment: Environment<'_>) -> Result<Self, String> {
        if environment("ETCDCTL_INSECURE_SKIP_TLS_VERIFY").is_some_and(|text| text != "false") {
            return Err("ETCDCTL_INSECURE_SKIP_TLS_VERIFY is set, and kvfs always verifies; name the certificate of the \
                        authority by ETCDCTL_CACERT instead"
                .into());
        }
        let file = |variable: &str| environment(variable).map(PathBuf::from);
        let identity = match (file("ETCDCTL_CERT"), file("ETCDCTL_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err("ETCDCTL_CERT is set without ETCDCTL_KEY, the file of its key".into());
            }
            (None, Some(_)) => {
                return Err("ETCDCTL_KEY is set without ETCDCTL_CERT, the file of its certificate".into());
            }
        };
        let password_file = file(PASSWORD_FILE).filter(|_| environment("ETCDCTL_PASSWORD").is_none());
        let (login, authority) = (login(environment)?, file("ETCDCTL_CACERT"));
        Ok(Self { address, login, password_file, authority, identity })
    }
}

fn login(environment: Environment<'_>) -> Result<Option<(String, String)>, String> {
    let alone = match (environment("ETCDCTL_PASSWORD"), environment(PASSWORD_FILE)) {
        (Some(password), _) => Some(password),
        (None, Some(file)) => Some(password_in(Path::new(&file))?),
        (None, None) => None,
    };
    match (environment("ETCDCTL_USER"), alone) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("there is a password for etcd, but no user: set ETCDCTL_USER".into()),
        (Some(user), Some(password)) => Ok(Some((user, password))),
        (Some(both), None) => match both.split_once(':') {
            Some((user, password)) => Ok(Some((user.to_owned(), password.to_owned()))),
            None => Err("ETCDCTL_USER is set without a password: set ETCDCTL_PASSWORD, or name a file that holds it in \
                         KVFS_ETCD_PASSWORD_FILE"
                .into()),
        },
    }
}

/// The password in a file, without the final newline.
pub(super) fn password_in(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the password in KVFS_ETCD_PASSWORD_FILE, {shown}: {error}"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("KVFS_ETCD_PASSWORD_FILE, {shown}, is empty"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let environment = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, text)| (*text).to_owned())
        };
        Settings::find_in(Address::parse("etcds", "h").unwrap(), &environment)
    }

    #[test]
    fn a_login_is_found_as_etcdctl_finds_it() {
        let login = |variables: &[_]| find(variables).unwrap().login;
        let is = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login(&[]), None);
        assert_eq!(login(&[("ETCDCTL_USER", "u:p:q")]), is("u", "p:q"));
        assert_eq!(login(&[("ETCDCTL_USER", "u:v"), ("ETCDCTL_PASSWORD", "p")]), is("u:v", "p"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "of file \n").unwrap();
        let named = ("KVFS_ETCD_PASSWORD_FILE", file.path().to_str().unwrap());
        assert_eq!(login(&[("ETCDCTL_USER", "u"), named]), is("u", "of file "));
    }

    #[test]
    fn half_a_setting_is_refused_by_its_name() {
        for (variables, named) in [
            (&[("ETCDCTL_USER", "u")][..], "ETCDCTL_PASSWORD"),
            (&[("ETCDCTL_PASSWORD", "secret")], "ETCDCTL_USER"),
            (&[("ETCDCTL_CERT", "c")], "ETCDCTL_KEY"),
            (&[("ETCDCTL_KEY", "c")], "ETCDCTL_CERT"),
            (&[("ETCDCTL_USER", "u"), ("KVFS_ETCD_PASSWORD_FILE", "/nowhere")], "/nowhere"),
            (&[("ETCDCTL_USER", "u"), ("KVFS_ETCD_PASSWORD_FILE", "/dev/null")], "KVFS_ETCD_PASSWORD_FILE"),
            (&[("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true")], "ETCDCTL_CACERT"),
        ] {
            let why = find(variables).err().unwrap();
            assert!(why.contains(named) && !why.contains("secret"), "{why}");
        }
    }
}
