//! Every fault of a server, and the errno it gives.

use libc::{EACCES, EBUSY, EHOSTUNREACH, EIO, ETIMEDOUT};

use super::common::{can_mount, peak_memory};
use super::proxy::{Fault, response};
use super::{Bench, Operation};

/// As long as an answer may be and longer.
const TOO_LONG: usize = 100 << 20;

fn status(status: &str, headers: &str) -> Fault {
    Fault::Answer(response(status, headers, r#"{"error":"no"}"#))
}

/// Tests of one fault each: its errno, and the most requests that one call of the store may cost.
macro_rules! faults {
    ($($name:ident: $fault:expr => $errno:expr, $requests:expr;)+) => {
        $(#[test]
        fn $name() {
            if can_mount() {
                holds(&$fault, $errno, $requests);
            }
        })+
    };
}

faults! {
    refuses: Fault::Refuse => EHOSTUNREACH, 0;
    hangs: Fault::Hang => ETIMEDOUT, 1;
    drips: Fault::Drip => ETIMEDOUT, 1;
    resets_before_the_answer: Fault::ResetAfter(0) => EIO, 2;
    resets_in_mid_head: Fault::ResetAfter(20) => EIO, 2;
    resets_in_mid_body: Fault::ResetAfter(120) => EIO, 2;
    unauthorized: status("401 Unauthorized", "") => EACCES, 1;
    forbidden: status("403 Forbidden", "") => EACCES, 1;
    not_found: status("404 Not Found", "") => EIO, 1;
    too_many_requests: status("429 Too Many Requests", "") => EBUSY, 6;
    too_many_requests_at_once: status("429 Too Many Requests", "Retry-After: 0\r\n") => EBUSY, 6;
    too_many_requests_wait: status("429 Too Many Requests", "Retry-After: 30\r\n") => EBUSY, 1;
    too_many_requests_wait_for_ever:
        status("429 Too Many Requests", "Retry-After: 18446744073709551615\r\n") => EBUSY, 1;
    too_many_requests_wait_backwards: status("429 Too Many Requests", "Retry-After: -1\r\n") => EBUSY, 6;
    too_many_requests_until:
        status("429 Too Many Requests", "Retry-After: Fri, 31 Dec 2049 23:59:59 GMT\r\n") => EBUSY, 6;
    unavailable: status("503 Service Unavailable", "") => EBUSY, 6;
    internal_error: status("500 Internal Server Error", "") => EIO, 1;
    bad_gateway: status("502 Bad Gateway", "") => EIO, 1;
    no_http: Fault::Answer(b"220 mail.example.org ESMTP\r\n".to_vec()) => EIO, 2;
    html: Fault::Answer(response("200 OK", "Content-Type: text/html\r\n", "<html>Sign in</html>")) => EIO, 1;
    empty: Fault::Answer(response("200 OK", "", "")) => EIO, 1;
    truncated_json: Fault::Answer(response("200 OK", "", r#"{"data":{"key_value":[{"id":"1","#)) => EIO, 1;
    compressed: Fault::Answer(response("200 OK", "Content-Encoding: gzip\r\n", "\u{1f}no gzip")) => EIO, 1;
    shorter_than_it_says:
        Fault::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":".to_vec()) => EIO, 2;
    longer_than_any_memory: Fault::Endless(
        format!("HTTP/1.1 200 OK\r\nContent-Length: {TOO_LONG}\r\n\r\n").into()) => EIO, 1;
    without_end: Fault::Endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()) => EIO, 1;
}

/// Under `fault` what was read stays readable, everything else gives the errno at a bounded cost, and afterwards all is
/// well again.
#[track_caller]
fn holds(fault: &Fault, expected: i32, requests: usize) {
    // Answers come long before; a short deadline keeps the cases without an answer short.
    let waits = [ETIMEDOUT, EBUSY].contains(&expected);
    let bench = Bench::prefect_cloud(if waits { "2s" } else { "30s" });
    assert_eq!(bench.text("k").as_deref(), Some("1\n"));
    let known = std::fs::read_dir(&bench.mount.dir).unwrap().count();
    let check = |operation: Operation| {
        bench.fail(fault);
        let before = (bench.calls(), bench.proxy.requests());
        let result = bench.errno(operation);
        let known_down = expected == ETIMEDOUT && result == EHOSTUNREACH;
        assert!(result == expected || known_down, "{operation:?}: {result} {}", bench.mount.last_error());
        // A call is counted before its requests.
        let (cost, calls) = (bench.proxy.requests() - before.1, bench.calls() - before.0);
        assert!(calls <= 4 && cost <= requests * calls, "{operation:?}: {cost} requests for {calls} calls");
    };
    check(Operation::Get);
    for _ in 0..2 {
        assert_eq!(bench.text("k").as_deref(), Some("1\n"));
        assert_eq!(std::fs::read_dir(&bench.mount.dir).unwrap().count(), known);
    }
    bench.heals();
    check(Operation::Set);
    bench.heals();
    check(Operation::Delete);
    bench.proxy.set(&Fault::None);
    let peak = peak_memory(u32::try_from(bench.mount.pid).unwrap());
    // A listing may have 64 MiB, and grows by doubling.
    assert!(peak < 192 << 20, "{peak} bytes of memory");
}
