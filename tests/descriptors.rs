//! Opens that come back by way of a descriptor, or do not come back at all.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Mount, PATIENCE, can_mount, wait_for};

/// Another process that has read the file, and has it open until its standard input ends.
fn reader(path: &Path) -> Child {
    let script = "exec 3< \"$0\"; cat <&3; echo; read -r end";
    let mut reader = Command::new("bash");
    reader.args(["-c", script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut reader = reader.spawn().unwrap();
    reader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    reader
}

/// Asks for an open without waiting, which is answered EAGAIN; others set the key; then the same thread opens it.
const GIVEN_UP: &str = r#"
import ctypes, json, os, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def opens():
    return json.loads(os.getxattr(".", "user.kvfs.status"))["messages"]["OPEN"]
def given_up():
    # Without them the kernel does not come so far as to ask.
    os.stat("."), os.stat("k")
    before = opens()
    how = struct.pack("QQQ", os.O_RDWR, 0, 0x20)
    opened = libc.syscall(437, -100, b"k", how, 24)
    if opened >= 0 or ctypes.get_errno() != 11 or opens() == before:
        print("openat2:", opened, ctypes.get_errno(), opens() - before)
        sys.exit()
def others(text):
    subprocess.run(["sh", "-c", "echo '%s' > k" % text], check=True)
given_up()
WAY
print("as expected")
"#;

/// How the thread comes to the file, after `others` set it to "new".
const WAYS: [&str; 4] = [
    "others('\"new\"')\nassert open('k').read() == '\"new\"\\n'",
    "others('\"new\"')\nassert os.stat('k').st_size == 6",
    "others('\"new\"')\nf = open('k', 'r+')\nassert f.read() == '\"new\"\\n'\nf.seek(0)\nf.write('\"own\"\\n')\nf.close()\nassert open('k').read() == '\"own\"\\n'",
    "fd = os.open('k', os.O_PATH)\nothers('\"new\"')\nassert open('/proc/self/fd/%d' % fd).read() == '\"new\"\\n'",
];

#[test]
fn an_open_that_was_to_look_again_and_does_not_is_no_trap_for_the_next_one() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mount = Mount::memory(&[]);
        fs::write(mount.path("k"), "\"before\"\n").unwrap();
        // The writer has it no more.
        wait_for(PATIENCE, || {
            let before = mount.messages("LOOKUP");
            fs::metadata(mount.path("k")).unwrap();
            mount.messages("LOOKUP") == before
        });
        let mut reader = reader(&mount.path("k"));
        let script = GIVEN_UP.replace("WAY", way);
        let ran = Command::new("python3").args(["-c", &script]).current_dir(&mount.dir).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "as expected\n", "{way}: {ran:?}");
        drop(reader.stdin.take());
        reader.wait().unwrap();
    }
}

/// The file that a process has open, anew.
fn anew(file: &File, options: &mut fs::OpenOptions) -> std::io::Result<File> {
    use std::os::fd::AsRawFd;
    options.open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn read(file: &mut File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_process_opens_anew_what_it_has_open_of_a_file_that_is_gone() {
    if !can_mount() {
        return;
    }
    for mount in [Mount::sqlite(&[]), Mount::memory(&[])] {
        let path = mount.path("k");
        for kind in ["read", "written", "published", "new"] {
            if kind != "new" {
                fs::write(&path, "\"old\"").unwrap();
            }
            let mut options = File::options();
            let mut file =
                options.read(true).write(kind != "read").create(kind != "read").open(&path).unwrap();
            let text = match kind {
                "read" => "\"old\"",
                "new" => "\"ne",
                _ => "\"mine\"",
            };
            if kind != "read" {
                file.write_all(text.as_bytes()).unwrap();
            }
            if kind == "published" {
                file.sync_all().unwrap();
            }
            fs::remove_file(&path).unwrap();
            for _ in 0..2 {
                assert_eq!(read(&mut anew(&file, File::options().read(true)).unwrap()), text, "{kind}");
            }
            let mut writer = anew(&file, File::options().read(true).write(true)).unwrap();
            assert_eq!(read(&mut writer), text, "{kind}");
            // What has no name is no key.
            writer.write_all(b" and no JSON").unwrap();
            writer.sync_all().unwrap();
            assert_eq!(crate::common::close(writer), 0, "{kind}");
            assert_eq!(
                anew(&file, File::options().write(true).truncate(true)).map(drop).ok(),
                Some(()),
                "{kind}"
            );
            // Nobody else finds it.
            assert!(!path.exists() && mount.names().is_empty(), "{kind}");
            let other = mount.sh("cat k");
            assert!(!other.status.success(), "{kind}: {other:?}");
        }
        assert!(mount.rejected().iter().all(|path| path.extension().is_some_and(|end| end == "deleted")));
    }
}
