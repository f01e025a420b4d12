//! Why a request to one member failed, and whether another member may be asked.

use std::time::Instant;

use super::failure::Failure;
use crate::store::Error;
use crate::store::distrust::{WITHOUT_TLS, is_closed};

/// Whether a request whose answer is lost may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may be asked again.
    Read,
    /// It may have been carried out: only the store knows.
    Write,
}

pub(super) enum MemberError {
    /// Every member would answer so.
    Final(Failure),
    /// It was not carried out; the next member may do so, and this one in a moment.
    NotDone(Error),
    /// No etcd answers at the address.
    Absent(Error),
    /// It may have been carried out, or may yet be.
    Unknown(Error),
    /// The connection was closed in place of an answer. Some versions of etcd do so when they refuse a token; and where a
    /// certificate is refused the close may arrive before the alert that says so is read.
    Closed(Error),
    /// It was not carried out, because the token is invalid or missing.
    BadToken,
    /// Client and server do not trust each other's certificates, or seem not to: nothing was sent.
    Certificates(Error),
}

impl MemberError {
    /// The error of a request that was sent, and may have been carried out, to a cluster `with_login`.
    pub(super) fn lost(error: Error, tls: bool, with_login: bool) -> Self {
        match explained(error) {
            error @ Error::Denied(_) => Self::Certificates(error),
            Error::Other(why) if is_closed(&why) => {
                let login = if with_login { LOGIN_REFUSED } else { LOGIN_MISSING };
                let way = if tls { CERTIFICATE_REFUSED } else { TLS_MISSING };
                Self::Closed(Error::Other(format!("{why}; {way}; {login}")))
            }
            error => Self::Unknown(error),
        }
    }

    /// Whether no other member is to be asked.
    pub(super) fn is_the_last(&self, kind: Kind) -> bool {
        match self {
            Self::Final(_) | Self::BadToken => true,
            Self::Unknown(_) | Self::Closed(_) => kind == Kind::Write,
            Self::NotDone(_) | Self::Absent(_) | Self::Certificates(_) => false,
        }
    }

    /// Whether other certificates may help.
    pub(super) fn is_distrust(&self) -> bool {
        matches!(self, Self::Certificates(_) | Self::Closed(_))
    }

    /// The error of a request that was not sent.
    pub(super) fn absent(error: Error) -> Self {
        match explained(error) {
            error @ (Error::Denied(_) | Error::Untrusted(_)) => Self::Certificates(error),
            Error::Unreachable(why) if why.contains(SCHEME_WITHOUT_TLS) => {
                Self::Certificates(Error::Unreachable(format!("{why}; {CERTIFICATE_REFUSED}")))
            }
            error => Self::Absent(error),
        }
    }
}

/// The error of a change whose answer is lost. Not [`Error::Unreachable`], which says that nothing was changed.
pub(super) fn unsure(error: Error, start: Instant) -> Error {
    match error {
        Error::Unreachable(why) if why.contains("timed out") || why.contains("deadline") => {
            Error::TimedOut(start.elapsed().as_millis())
        }
        Error::TimedOut(_) => error,
        error => Error::Other(format!("{error}; whether the change was made, only the cluster knows")),
    }
}

// What may be the reason where a connection is closed in place of an answer.
const SCHEME_WITHOUT_TLS: &str = "write etcd: in place of etcds:";
/// A member with TLS closes a connection without.
const TLS_MISSING: &str = "if the cluster speaks TLS, write etcds: in place of etcd:";
const CERTIFICATE_REFUSED: &str =
    "if the cluster wants client certificates, ETCDCTL_CERT and ETCDCTL_KEY have to name one that it knows";
const LOGIN_MISSING: &str = "if it wants a login, set ETCDCTL_USER and ETCDCTL_PASSWORD";
const LOGIN_REFUSED: &str =
    "some versions of etcd do so in place of a refusal: is the login right, and may it use these keys?";

/// The alerts of a server that does not take the client's certificate, or its lack.
const CERTIFICATE_ALERTS: [&str; 8] = [
    "CertificateRequired",
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRevoked",
    "CertificateExpired",
    "CertificateUnknown",
    "UnknownCA",
    "AccessDenied",
];

/// The error with advice for etcd.
fn explained(error: Error) -> Error {
    match error {
        Error::Other(why) | Error::Unreachable(why) if why.ends_with("NoApplicationProtocol") => Error::Other(
            "it speaks gRPC only, and kvfs needs the JSON gateway: name the address of --listen-client-http-urls, if the etcd \
             has one"
                .into(),
        ),
        Error::Untrusted(why) => {
            Error::Untrusted(why.replace("SSL_CERT_FILE", "ETCDCTL_CACERT").replace(WITHOUT_TLS, SCHEME_WITHOUT_TLS))
        }
        Error::Other(why) | Error::Unreachable(why)
            if CERTIFICATE_ALERTS.iter().any(|alert| why.ends_with(alert)) =>
        {
            Error::Denied(format!(
                "the cluster wants a client certificate that it knows: set ETCDCTL_CERT and ETCDCTL_KEY ({why})"
            ))
        }
        Error::Unreachable(why) => Error::Unreachable(why.replace(WITHOUT_TLS, SCHEME_WITHOUT_TLS)),
        error => error,
    }
}
