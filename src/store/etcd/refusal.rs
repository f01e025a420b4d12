//! What a member says when it does not do what it was asked to, by name.

use serde::Deserialize;

use super::probe::shown;
use crate::store::Error;

/// An answer that is an error, as the JSON gateway gives it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Refusal {
    /// The gRPC code.
    #[serde(alias = "grpc_code")]
    code: u32,
    message: String,
}

/// What a request came to that was not answered.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The revision that was asked for is no longer kept, or not reached.
    Compacted,
    /// More than one transaction may have.
    TooManyOps,
    /// The request, or the answer to it, is larger than it may be.
    TooBig,
    /// Anything that callers hear of as it is.
    Store(Error),
}

/// What to do after a refusal.
pub(super) enum Verdict {
    /// Every member would say so.
    Final(Failure),
    /// It was not carried out; the next member, or this one in a moment, may do it.
    NotDone(Error),
    /// It may have been carried out, or may yet be.
    Unknown(Error),
    /// It was not carried out, because the token is none that holds, or there was none.
    Login,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Compacted => Self::Other("the cluster has compacted the revision that was read".into()),
            Failure::TooManyOps => {
                Self::Other("too many operations for one transaction (--max-txn-ops)".into())
            }
            Failure::TooBig => {
                Self::Other("it is more than one request may hold (--max-request-bytes)".into())
            }
            Failure::Store(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    /// An answer with an error status; `None` where it is none of an etcd, nor of something on the way to one.
    pub(super) fn read(status: u16, body: &[u8]) -> Option<Self> {
        if let Ok(refusal) = serde_json::from_slice::<Self>(body)
            && !refusal.message.is_empty()
        {
            return Some(Self { message: shown(&refusal.message), ..refusal });
        }
        let said = String::from_utf8_lossy(body);
        if said.contains("HTTP request to an HTTPS server") {
            let message = "the cluster speaks TLS; write etcds: in place of etcd:".to_owned();
            return Some(Self { code: 0, message });
        }
        if said.contains("CommonName") {
            let message = format!(
                "{NAMED} where the cluster wants a login ({}); use one without (ETCDCTL_CERT), and ETCDCTL_USER",
                shown(&said)
            );
            return Some(Self { code: PERMISSION_DENIED, message });
        }
        // As the gateway translates codes.
        let code = match status {
            429 => RESOURCE_EXHAUSTED,
            502..=504 => UNAVAILABLE,
            _ => return None,
        };
        Some(Self { code, message: format!("HTTP {status}") })
    }

    pub(super) fn message(&self) -> &str {
        self.message.strip_prefix("etcdserver: ").unwrap_or(&self.message)
    }

    /// By the messages of etcd, which are the names of its errors; what is not known by name, by its code.
    pub(super) fn verdict(&self) -> Verdict {
        let said = || self.message().to_owned();
        match self.message() {
            "mvcc: required revision has been compacted" | "mvcc: required revision is a future revision" => {
                Verdict::Final(Failure::Compacted)
            }
            "too many operations in txn request" => Verdict::Final(Failure::TooManyOps),
            "request is too large" => Verdict::Final(Failure::TooBig),
            "mvcc: database space exceeded" => Verdict::Final(Failure::Store(Error::Quota(
                "the database of etcd has reached its quota; compact and defragment it, then `etcdctl alarm disarm`"
                    .into(),
            ))),
            "key is not provided" => {
                Verdict::Final(Failure::Store(Error::Invalid("etcd has no empty key".into())))
            }
            "invalid auth token" | "user name is empty" | "revision of auth store is old" => Verdict::Login,
            "permission denied"
            | "authentication failed, invalid user ID or password"
            | "authentication is not enabled"
            | "user name not found"
            | "invalid auth management" => Verdict::Final(Failure::Store(Error::Denied(said()))),
            "too many requests" => Verdict::NotDone(Error::Busy(said())),
            "no leader" | "raft proposal dropped" | "rpc not supported for learner" | "not leader" => {
                Verdict::NotDone(Error::Unreachable(said()))
            }
            "corrupt cluster" | "not capable" => Verdict::Final(Failure::Store(Error::Other(said()))),
            "request timed out"
            | "request timed out, possibly due to previous leader failure"
            | "request timed out, possibly due to connection lost"
            | "context deadline exceeded"
            | "context canceled"
            | "leader changed"
            | "server stopped"
            | "unhealthy cluster" => Verdict::Unknown(Error::Unreachable(said())),
            _ => self.by_code(),
        }
    }

    fn by_code(&self) -> Verdict {
        let said = self.message().to_owned();
        match self.code {
            UNAUTHENTICATED => Verdict::Login,
            PERMISSION_DENIED => Verdict::Final(Failure::Store(Error::Denied(said))),
            RESOURCE_EXHAUSTED if said.contains("larger than max") => Verdict::Final(Failure::TooBig),
            RESOURCE_EXHAUSTED => Verdict::NotDone(Error::Busy(said)),
            UNAVAILABLE if SIGNS.iter().any(|sign| said.contains(sign)) => {
                Verdict::Unknown(Error::Other(format!(
                    "the gateway of the member does not reach the member itself ({said}); where that wants certificates of \
                     clients its own must be one for clients, too (extended key usage clientAuth)"
                )))
            }
            UNAVAILABLE | CANCELLED | DEADLINE_EXCEEDED => Verdict::Unknown(Error::Unreachable(said)),
            _ => Verdict::Final(Failure::Store(Error::Other(said))),
        }
    }
}

/// How the refusal of a certificate begins, whatever the login.
pub(super) const NAMED: &str = "the gateway takes no client certificate with a common name";

/// What the gateway says of its own connection to the member.
const SIGNS: [&str; 4] = ["tls:", "tcp ", "SubConns", "closed network connection"];

const CANCELLED: u32 = 1;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: u32, message: &str) -> String {
        let body = serde_json::json!({"error": message, "code": code, "message": message}).to_string();
        match Refusal::read(400, body.as_bytes()).unwrap().verdict() {
            Verdict::Final(failure) => format!("final {failure:?}"),
            Verdict::NotDone(error) => format!("not done {error:?}"),
            Verdict::Unknown(error) => format!("unknown {error:?}"),
            Verdict::Login => "login".into(),
        }
    }

    #[test]
    fn errors_are_known_by_name_and_others_by_code() {
        for (code, message, wanted) in [
            (11, "etcdserver: mvcc: required revision has been compacted", "final Compacted"),
            (3, "etcdserver: too many operations in txn request", "final TooManyOps"),
            (3, "etcdserver: request is too large", "final TooBig"),
            (8, "grpc: received message larger than max (9 vs. 4)", "final TooBig"),
            (8, "etcdserver: mvcc: database space exceeded", "final Store(Quota"),
            (8, "etcdserver: too many requests", "not done Busy"),
            (14, "etcdserver: no leader", "not done Unreachable"),
            (2, "raft proposal dropped", "not done Unreachable"),
            (14, "etcdserver: request timed out", "unknown Unreachable"),
            (2, "context deadline exceeded", "unknown Unreachable"),
            (14, "transport is closing", "unknown Unreachable"),
            (14, "use of closed network connection", "unknown Other(\"the gateway"),
            (14, "write tcp 127.0.0.1:1->127.0.0.1:2: write: broken pipe", "unknown Other(\"the gateway"),
            (16, "etcdserver: invalid auth token", "login"),
            (3, "etcdserver: user name is empty", "login"),
            (3, "etcdserver: revision of auth store is old", "login"),
            (7, "etcdserver: permission denied", "final Store(Denied"),
            (3, "etcdserver: authentication failed, invalid user ID or password", "final Store(Denied"),
            (13, "what nobody knows", "final Store(Other"),
        ] {
            let verdict = verdict(code, message);
            assert!(verdict.starts_with(wanted), "{message}: {verdict}");
        }
        let read =
            |status: u16, body: &str| Refusal::read(status, body.as_bytes()).map(|refusal| refusal.message);
        assert_eq!(read(502, "<html>").as_deref(), Some("HTTP 502"));
        assert_eq!(read(404, "Not Found").or(read(501, "{}")).or(read(500, "")), None);
        assert_eq!(read(400, "{\"message\": \"a\\u001b[2Jb\"}").as_deref(), Some("a[2Jb"));
        assert!(read(400, "CommonName of client").is_some_and(|why| why.contains("ETCDCTL_USER")));
    }
}
