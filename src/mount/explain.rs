//! Advice about a mount that the kernel or fusermount3 refuses.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind};
use std::path::Path;

use crate::failure::Failure;
use crate::sys;

const DEVICE: &str = "/dev/fuse";

/// The failure for the `error` of a mount on `path`.
pub(super) fn refusal(path: &Path, error: &Error) -> Failure {
    let (fact, advice) = fact(error);
    let why = format!("cannot mount on {}: {fact}; {advice}", path.display());
    // fusermount3's messages about a mount point.
    if fact.contains("mountpoint") { Failure::Mountpoint(why) } else { Failure::Fuse(why) }
}

fn fact(error: &Error) -> (String, &'static str) {
    let container = "in a container add --device /dev/fuse --cap-add SYS_ADMIN";
    if let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) {
        return match error.kind() {
            ErrorKind::NotFound => (
                format!("{DEVICE} is missing"),
                "install fuse3; in a container add --device /dev/fuse --cap-add SYS_ADMIN",
            ),
            ErrorKind::PermissionDenied => (
                format!("{DEVICE} may not be opened by this user: {error}"),
                "let all users do so (as root: `chmod 666 /dev/fuse`), or be root",
            ),
            _ => (format!("{DEVICE}: {error}"), container),
        };
    }
    if error.kind() == ErrorKind::WouldBlock {
        let limit = "a limit on processes is reached (`ulimit -u`, or pids.max of the control group)";
        return (error.to_string(), limit);
    }
    if sys::may_mount() {
        return (of_kernel(&error.to_string()), "the kernel's log (`dmesg`) may say more");
    }
    if !is_installed("fusermount3") {
        let fact = "this process may not mount (no CAP_SYS_ADMIN), and there is no fusermount3 to do it";
        return (fact.into(), "install fuse3, or be root; in a container add --cap-add SYS_ADMIN");
    }
    let fact = one_line(&error.to_string());
    if sys::has_no_new_privileges() {
        let advice = "this process may not gain rights (no_new_privs), which fusermount3 needs: start kvfs without that \
                      restriction, or as root";
        return (fact, advice);
    }
    let advice = if fact.contains("user_allow_other") {
        "add that line there as root, or leave --allow-other away"
    } else if fact.contains("Operation not permitted") {
        "fusermount3 needs to be setuid root; in a container add --cap-add SYS_ADMIN"
    } else {
        "be root, or see `man fusermount3`"
    };
    (fact, advice)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/bin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).exists())
}

/// fuser's message about mount(2) without the arguments.
fn of_kernel(text: &str) -> String {
    match text.rsplit_once("): ") {
        Some((call, errno)) if call.starts_with("Error calling mount()") => format!("mount(2): {errno}"),
        _ => one_line(text),
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_become_one_line() {
        let text = "Error calling mount() at \"/x\" with \"fd=9\" and flags=MsFlags(MS_NODEV | MS_RDONLY): EINVAL: Invalid argument";
        assert_eq!(of_kernel(text), "mount(2): EINVAL: Invalid argument");
        assert_eq!(
            one_line("fusermount3: no\n\n fusermount3: never\n"),
            "fusermount3: no; fusermount3: never"
        );
    }
}
