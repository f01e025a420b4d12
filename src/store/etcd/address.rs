//! Where a cluster is, and which of its keys are meant: the argument after `etcd:` or `etcds:`.

use std::fmt;

use crate::store::settings::{Environment, environment};

/// The port of etcd, where none is named.
const PORT: u16 = 2379;

/// A cluster and a directory of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether the cluster is reached by TLS.
    pub tls: bool,
    /// `HOST:PORT` of each member.
    pub members: Vec<String>,
    /// The prefix of all keys; empty, or with a final `/`.
    pub prefix: String,
}

impl Address {
    /// Parses `HOST[:PORT][,HOST[:PORT]...][/PREFIX]`; without a host it is where etcdctl would ask. It is shown to everybody
    /// in the mount table: no secrets in it.
    pub(in crate::store) fn parse(scheme: &str, text: &str) -> Result<Self, String> {
        Self::parse_in(scheme, text, &environment)
    }

    fn parse_in(scheme: &str, text: &str, environment: Environment<'_>) -> Result<Self, String> {
        if text.contains(['@', '?', '#']) {
            return Err(format!(
                "{scheme}: no user, password or query in the address, nor @, ? or # in the prefix; the login comes from \
                 ETCDCTL_USER and ETCDCTL_PASSWORD"
            ));
        }
        if text.contains(char::is_control) {
            return Err(format!("{scheme}: no control characters in the address"));
        }
        let (members, prefix) = text.split_once('/').unwrap_or((text, ""));
        let (tls, members) = if members.is_empty() {
            let endpoints = environment(ENDPOINTS).ok_or_else(|| {
                format!(
                    "{scheme}: needs the address of a cluster, as in {scheme}:127.0.0.1:2379/app; or set {ENDPOINTS}"
                )
            })?;
            endpoints_of(scheme, &endpoints)?
        } else {
            let members: Option<Vec<String>> = members.split(',').map(member).collect();
            let members = members.ok_or_else(|| {
                format!(
                    "{scheme}:{text}: the address is HOST:PORT[,HOST:PORT...][/PREFIX], as in {scheme}:127.0.0.1:2379/app"
                )
            })?;
            (scheme == "etcds", members)
        };
        let end = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
        Ok(Self { tls, members, prefix: format!("{prefix}{end}") })
    }
}

/// Where etcdctl asks.
const ENDPOINTS: &str = "ETCDCTL_ENDPOINTS";

/// The members in the variable, and whether they are reached by TLS: `http://` and `https://` say so, else `scheme` does.
fn endpoints_of(scheme: &str, text: &str) -> Result<(bool, Vec<String>), String> {
    let one = |endpoint: &str| {
        let endpoint = endpoint.trim().trim_end_matches('/');
        let (tls, rest) = match endpoint.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return None,
            None => (scheme == "etcds", endpoint),
        };
        Some((tls, member(rest)?))
    };
    let found: Option<Vec<(bool, String)>> = text.split(',').map(one).collect();
    // The value is not shown: it may hold a password.
    let found = found.ok_or_else(|| {
        format!("{ENDPOINTS} is not of the kind HOST:PORT[,HOST:PORT...], with http:// or https:// before each host or not")
    })?;
    let tls = found.iter().any(|(tls, _)| *tls);
    if found.iter().any(|(one, _)| *one != tls) || (scheme == "etcds" && !tls) {
        return Err(format!(
            "{ENDPOINTS} names members without TLS, where others, or {scheme}:, are with it"
        ));
    }
    Ok((tls, found.into_iter().map(|(_, member)| member).collect()))
}

/// `HOST:PORT` of one member; an IPv6 address is in brackets.
fn member(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(inside) => {
            let (address, port) = inside?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{address}]"), port)
        }
        None => match text.split_once(':') {
            Some((host, _)) => (host.to_owned(), &text[host.len()..]),
            None => (text.to_owned(), ""),
        },
    };
    let named = |char: char| char.is_alphanumeric() || matches!(char, '-' | '.' | '_' | '[' | ']' | ':');
    if host.is_empty() || !host.chars().all(named) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if port.is_empty() => PORT,
        None => return None,
    };
    Some(format!("{host}:{port}"))
}

/// As it is given on the command line.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "etcds" } else { "etcd" };
        write!(f, "{scheme}:{}", self.members.join(","))?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_members_and_a_directory_of_keys() {
        let parsed = |text| {
            let address = Address::parse("etcd", text).unwrap();
            assert_eq!(Address::parse("etcd", &address.to_string()["etcd:".len()..]), Ok(address.clone()));
            (address.members.join(" "), address.prefix)
        };
        let is = |members: &str, prefix: &str| (members.to_owned(), prefix.to_owned());
        assert_eq!(parsed("h"), is("h:2379", ""));
        assert_eq!(parsed("h:1/"), is("h:1", ""));
        assert_eq!(parsed("h:1/app"), is("h:1", "app/"));
        assert_eq!(parsed("h:1/app/"), is("h:1", "app/"));
        assert_eq!(parsed("h:1//registry"), is("h:1", "/registry/"));
        assert_eq!(parsed("h:1//"), is("h:1", "/"));
        assert_eq!(
            parsed("a:1,b,[::1]:3,[fe80::1]/a b/%/c"),
            is("a:1 b:2379 [::1]:3 [fe80::1]:2379", "a b/%/c/")
        );
    }

    #[test]
    fn what_is_no_address_is_refused_in_words() {
        for text in [",", "h:", "h:x", "h:70000", "[::1", "[x]:1", "::1", "h:1,", "h 1", "http://h:1"] {
            assert!(Address::parse("etcd", text).is_err_and(|why| why.contains("HOST:PORT")), "{text:?}");
        }
        for text in ["u:secret@h:1", "h:1/a?secret", "h:1/a#secret", "h:1/\nsecret"] {
            assert!(Address::parse("etcds", text).is_err_and(|why| !why.contains("secret")), "{text:?}");
        }
    }

    #[test]
    fn without_a_host_it_is_where_etcdctl_asks() {
        let found = |scheme, text, endpoints: &str| {
            let environment =
                |name: &str| (name == ENDPOINTS && !endpoints.is_empty()).then(|| endpoints.to_owned());
            Address::parse_in(scheme, text, &environment).map(|address| address.to_string())
        };
        let is = |text: &str| Ok(text.to_owned());
        assert_eq!(found("etcd", "", "http://a:1, b:2"), is("etcd:a:1,b:2"));
        assert_eq!(found("etcd", "/app", "https://a:1/,https://b"), is("etcds:a:1,b:2379/app/"));
        assert_eq!(found("etcds", "/app", "a"), is("etcds:a:2379/app/"));
        assert_eq!(found("etcd", "c:3", "a:1"), is("etcd:c:3"));
        for (scheme, endpoints) in
            [("etcd", "http://a,https://b"), ("etcds", "http://a"), ("etcd", "https://a,b")]
        {
            assert!(
                found(scheme, "", endpoints).is_err_and(|why| why.contains("without TLS")),
                "{endpoints}"
            );
        }
        for endpoints in ["unix://x", "a:x", "http://u:secret@h:1"] {
            let why = found("etcd", "", endpoints).unwrap_err();
            assert!(why.contains("ETCDCTL_ENDPOINTS") && !why.contains("secret"), "{why}");
        }
        assert!(
            found("etcd", "/app", "")
                .is_err_and(|why| why.contains("127.0.0.1:2379") && why.contains(ENDPOINTS))
        );
    }
}
