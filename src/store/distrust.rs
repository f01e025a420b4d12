//! What the errors of connections and of rustls say to a person.

/// What to do about a server without TLS.
pub(super) const WITHOUT_TLS: &str = "the address begins with http://";

/// Whether the server has closed the connection in place of an answer.
pub(super) fn is_closed(why: &str) -> bool {
    ["closed before message completed", "reset by peer", "Broken pipe", "close_notify", "handshake eof"]
        .iter()
        .any(|said| why.contains(said))
}

/// Explains an error of rustls to a person; `None` for other errors.
pub(super) fn distrust(why: &str) -> Option<String> {
    if why.contains("InvalidContentType") {
        return Some(format!("it does not speak TLS; for a server without, {WITHOUT_TLS}"));
    }
    let why = why.strip_prefix("invalid peer certificate: ")?;
    Some(if why.contains("UnknownIssuer") || why.contains("BadSignature") {
        "its certificate is from an authority that is not known here; name the file of the authority's certificate in \
         SSL_CERT_FILE"
            .into()
    } else if why.contains("xpired") {
        format!("its certificate has expired ({why})")
    } else if why.contains("ValidYet") || why.contains("valid yet") {
        format!("its certificate is not valid yet, or the clock is wrong ({why})")
    } else if why.contains("ValidForName") || why.contains("not valid for name") {
        format!("its certificate is for another host ({why})")
    } else {
        format!("its certificate does not hold ({why})")
    })
}
