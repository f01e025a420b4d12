//! The errors of etcd's API, told apart by their messages.

use serde::Deserialize;

use super::failure::Failure;
use super::member_error::MemberError;
use super::probe::shown;
use crate::store::Error;

/// The body of an answer with an error status, as the JSON gateway gives it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ApiError {
    /// The gRPC code.
    #[serde(alias = "grpc_code")]
    code: u32,
    message: String,
}

impl ApiError {
    /// Reads an answer with an error status; `None` if it is neither from an etcd nor from a proxy in front of one.
    pub(super) fn read(status: u16, body: &[u8]) -> Option<Self> {
        if let Ok(error) = serde_json::from_slice::<Self>(body)
            && !error.message.is_empty()
        {
            return Some(Self { message: shown(&error.message), ..error });
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
        // The inverse of the gateway's translation of codes.
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

    /// What the error says about the request: by its message, which names it, else by its code.
    pub(super) fn classify(&self) -> MemberError {
        let said = || self.message().to_owned();
        match self.message() {
            "mvcc: required revision has been compacted" | "mvcc: required revision is a future revision" => {
                MemberError::Final(Failure::Compacted)
            }
            "too many operations in txn request" => MemberError::Final(Failure::TooManyOps),
            "request is too large" => MemberError::Final(Failure::TooBig),
            "mvcc: database space exceeded" => MemberError::Final(Failure::Store(Error::Quota(
                "the database of etcd has reached its quota; compact and defragment it, then `etcdctl alarm disarm`"
                    .into(),
            ))),
            "key is not provided" => {
                MemberError::Final(Failure::Store(Error::Invalid("etcd has no empty key".into())))
            }
            "invalid auth token" | "user name is empty" | "revision of auth store is old" => MemberError::BadToken,
            "permission denied"
            | "authentication failed, invalid user ID or password"
            | "authentication is not enabled"
            | "user name not found"
            | "invalid auth management" => MemberError::Final(Failure::Store(Error::Denied(said()))),
            "too many requests" => MemberError::NotDone(Error::Busy(said())),
            "no leader" | "raft proposal dropped" | "rpc not supported for learner" | "not leader" => {
                MemberError::NotDone(Error::Unreachable(said()))
            }
            "corrupt cluster" | "not capable" => MemberError::Final(Failure::Store(Error::Other(said()))),
            "request timed out"
            | "request timed out, possibly due to previous leader failure"
            | "request timed out, possibly due to connection lost"
            | "context deadline exceeded"
            | "context canceled"
            | "leader changed"
            | "server stopped"
            | "unhealthy cluster" => MemberError::Unknown(Error::Unreachable(said())),
            _ => self.by_code(),
        }
    }

    fn by_code(&self) -> MemberError {
        let said = self.message().to_owned();
        match self.code {
            UNAUTHENTICATED => MemberError::BadToken,
            PERMISSION_DENIED => MemberError::Final(Failure::Store(Error::Denied(said))),
            RESOURCE_EXHAUSTED if said.contains("larger than max") => MemberError::Final(Failure::TooBig),
            RESOURCE_EXHAUSTED => MemberError::NotDone(Error::Busy(said)),
            UNAVAILABLE if SIGNS.iter().any(|sign| said.contains(sign)) => {
                MemberError::Unknown(Error::Other(format!(
                    "the gateway of the member does not reach the member itself ({said}); where that wants certificates of \
                     clients its own must be one for clients, too (extended key usage clientAuth)"
                )))
            }
            UNAVAILABLE | CANCELLED | DEADLINE_EXCEEDED => MemberError::Unknown(Error::Unreachable(said)),
            _ => MemberError::Final(Failure::Store(Error::Other(said))),
        }
    }
}

/// The beginning of the message about a refused certificate, whatever the login.
pub(super) const NAMED: &str = "the gateway takes no client certificate with a common name";

/// Parts of the gateway's messages about its own connection to the member.
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

    fn classify(code: u32, message: &str) -> String {
        let body = serde_json::json!({"error": message, "code": code, "message": message}).to_string();
        match ApiError::read(400, body.as_bytes()).unwrap().classify() {
            MemberError::Final(failure) => format!("final {failure:?}"),
            MemberError::NotDone(error) => format!("not done {error:?}"),
            MemberError::Unknown(error) => format!("unknown {error:?}"),
            MemberError::BadToken => "bad token".into(),
            _ => unreachable!(),
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
            (16, "etcdserver: invalid auth token", "bad token"),
            (3, "etcdserver: user name is empty", "bad token"),
            (3, "etcdserver: revision of auth store is old", "bad token"),
            (7, "etcdserver: permission denied", "final Store(Denied"),
            (3, "etcdserver: authentication failed, invalid user ID or password", "final Store(Denied"),
            (13, "what nobody knows", "final Store(Other"),
        ] {
            let found = classify(code, message);
            assert!(found.starts_with(wanted), "{message}: {found}");
        }
        let read =
            |status: u16, body: &str| ApiError::read(status, body.as_bytes()).map(|error| error.message);
        assert_eq!(read(502, "<html>").as_deref(), Some("HTTP 502"));
        assert_eq!(read(404, "Not Found").or(read(501, "{}")).or(read(500, "")), None);
        assert_eq!(read(400, "{\"message\": \"a\\u001b[2Jb\"}").as_deref(), Some("a[2Jb"));
        assert!(read(400, "CommonName of client").is_some_and(|why| why.contains("ETCDCTL_USER")));
    }
}
