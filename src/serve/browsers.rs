//! Pages in a browser on this machine reach what listens on loopback, also under names of their own (DNS rebinding).
//! Without API keys a request must not come from one.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

/// Why the request may come from a foreign page, by the headers that every browser sends and no page can forge: `Host` and
/// `Origin`.
pub(super) fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    if !headers.get_all(HOST).iter().all(is_loopback) {
        return Some("without API keys only the names of this machine are served, such as localhost");
    }
    let own = |origin: &HeaderValue| {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        origin
            .to_str()
            .is_ok_and(|origin| origin.strip_prefix("http://").is_some_and(|name| Some(name) == host))
    };
    if !headers.get_all(ORIGIN).iter().all(own) {
        return Some("without API keys pages in browsers are not served");
    }
    None
}

/// True for `localhost` and the loopback addresses, with any port.
fn is_loopback(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_foreign(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        foreign(&headers).is_some()
    }

    #[test]
    fn only_the_names_of_this_machine_are_its_own() {
        for host in [
            "localhost",
            "LocalHost:4200",
            "localhost.:1",
            "127.0.0.1:4200",
            "127.8.8.8",
            "[::1]:4200",
            "[::1]",
        ] {
            assert!(!is_foreign(host, None), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:4200",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0:4200",
            "localhost:x",
            "a@localhost",
            "[::2]:1",
            "localhost:4200, evil",
        ] {
            assert!(is_foreign(host, None), "{host}");
        }
    }

    #[test]
    fn a_page_is_foreign_unless_it_comes_from_here() {
        assert!(!is_foreign("localhost:4200", Some("http://localhost:4200")));
        for origin in [
            "http://localhost:3000",
            "https://localhost:4200",
            "http://localhost:4200.evil.example",
            "null",
            "",
        ] {
            assert!(is_foreign("localhost:4200", Some(origin)), "{origin}");
        }
    }
}
