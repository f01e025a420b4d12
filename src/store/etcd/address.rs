//! Where a cluster is, and which of its keys are meant: the argument after `etcd:` or `etcds:`.

use std::fmt;

/// The port of etcd, where none is named.
const PORT: u16 = 2379;

/// A cluster and a directory of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether the cluster is reached by TLS.
    pub tls: bool,
    /// `HOST:PORT` of each member.
    pub members: Vec<String>,
    /// What all keys begin with; empty, or with a final `/`.
    pub prefix: String,
}

impl Address {
    /// Parses `HOST[:PORT][,HOST[:PORT]...][/PREFIX]`. It is shown to everybody in the mount table: no secrets in it.
    pub(in crate::store) fn parse(scheme: &str, text: &str) -> Result<Self, String> {
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
        let members: Option<Vec<String>> = members.split(',').map(member).collect();
        let members = members.ok_or_else(|| {
            format!("{scheme}:{text}: the address is HOST:PORT[,HOST:PORT...][/PREFIX], as in {scheme}:127.0.0.1:2379/app")
        })?;
        let end = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
        Ok(Self { tls: scheme == "etcds", members, prefix: format!("{prefix}{end}") })
    }
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
        for text in
            ["", "/app", ",", "h:", "h:x", "h:70000", "[::1", "[x]:1", "::1", "h:1,", "h 1", "http://h:1"]
        {
            assert!(Address::parse("etcd", text).is_err_and(|why| why.contains("HOST:PORT")), "{text:?}");
        }
        for text in ["u:secret@h:1", "h:1/a?secret", "h:1/a#secret", "h:1/\nsecret"] {
            assert!(Address::parse("etcds", text).is_err_and(|why| !why.contains("secret")), "{text:?}");
        }
    }
}
