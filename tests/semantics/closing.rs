//! Rule 4: whose close(2) publishes, and whose is told of a fragment; where any bytes are a value none tells that they are all.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::common::inside::Inside;
use crate::common::{Elsewhere, Mount, PATIENCE, can_mount, wait_for};

const RAW: [&str; 2] = ["--validate", "none"];

fn run(shell: &str, script: &str, dir: &Path) -> Output {
    Command::new(shell).args(["-c", script]).current_dir(dir).output().unwrap()
}

/// What a script says on standard error, which is where others see the file from, once it is done without a failure.
fn seen_by(shell: &str, script: &str, dir: &Path) -> String {
    let out = run(shell, script, dir);
    assert!(out.status.success(), "{script}: {out:?}");
    String::from_utf8(out.stderr).unwrap()
}

/// A shell that goes on with each line that it is sent.
fn waiting(script: &str, dir: &Path) -> Child {
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn rule_04_where_any_bytes_are_a_value_a_redirection_sets_once() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&RAW);
    fs::write(mount.path("k"), "old").unwrap();
    let sets = || mount.calls("set_key_value");
    for (script, text) in [
        ("echo new > k", "new\n"),
        ("{ echo a; /bin/true; /bin/echo b; } > k", "a\nb\n"),
        ("(echo a; (echo b)) > k", "a\nb\n"),
        ("cat <<END > k\na\nEND", "a\n"),
        ("exec > k; echo a; /bin/true; /bin/echo b", "a\nb\n"),
        ("printf c | dd of=k status=none", "c"),
        ("printf d | tee k", "d"),
        (": > k", ""),
        ("echo 1 > new", "1\n"),
        (": > empty; mv empty k", ""),
    ] {
        for shell in ["bash", "dash"] {
            let before = sets();
            let out = run(shell, script, &mount.dir);
            assert!(out.status.success(), "{shell}: {script}: {out:?}");
            let name = if script.ends_with("new") { "new" } else { "k" };
            assert_eq!(mount.text(name).as_deref(), Some(text), "{shell}: {script}");
            assert_eq!(sets() - before, 1, "{shell}: {script}");
        }
    }
}

#[test]
fn rule_04_no_bytes_are_set_before_the_first_one_nor_by_the_close_of_a_child() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&RAW);
    let look = "sh -c 'cat k >&2'";
    for shell in ["bash", "dash"] {
        let script =
            format!("echo old > k; {{ {look}; echo new; {look}; /bin/true; {look}; echo more; }} > k");
        assert_eq!(seen_by(shell, &script, &mount.dir), "old\nold\nold\n");
        assert_eq!(mount.text("k").as_deref(), Some("new\nmore\n"));
        // Nor where the process is gone that opened the file.
        let script = format!("(exec > k; (read x; echo a; {look}; echo b) <&3 &) 3<&0");
        let mut child = Command::new(shell);
        let child = child.args(["-c", &script]).current_dir(&mount.dir).stdin(Stdio::piped());
        let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        assert!(child.wait().unwrap().success());
        stdin.write_all(b"go\n").unwrap();
        // Standard error ends with the last that has it.
        let seen = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert_eq!(seen, "new\nmore\n");
        wait_for(PATIENCE, || mount.text("k").as_deref() == Some("a\nb\n"));
    }
    // The parent has the file open, or has left it to the child.
    fs::write(mount.path("k"), "old").unwrap();
    for parent in ["pass", "f.close()"] {
        let script = format!(
            "import subprocess
f = open('k', 'w')
child = subprocess.Popen(['sh', '-c', 'read x; cat k >&2; echo by; cat k >&2; echo a child'], stdin=-1, stdout=f)
{parent}
child.communicate(b'go')
if f.closed: assert open('k').read() == 'by\\na child\\n'
f.close()
assert open('k').read() == 'by\\na child\\n'"
        );
        assert_eq!(seen_by("python3", &script, &mount.dir), "oldold", "{parent}");
        fs::write(mount.path("k"), "old").unwrap();
    }
}

#[test]
fn rule_04_who_knows_that_a_file_was_closed_finds_what_its_end_has_set() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&RAW);
    for script in [
        ": > k; cat k",
        ": > k; stat -c %s k | grep -v 0",
        "truncate -s 0 k; cat k",
        "cp /dev/null k; cat k",
        ": > k; echo more >> k; tail -n +2 k",
        ": > k; mv k l; cat l; mv l k",
        "flock k sh -c ': > k'; flock k cat k",
        "(exec > k; (echo a) & wait); grep -v a k",
        "touch new; test -e new; : > new; cat new; rm new",
    ] {
        for _ in 0..20 {
            let out = mount.sh(&format!("echo old > k; {script}"));
            assert_eq!(String::from_utf8_lossy(&out.stdout), "", "{script}: {out:?}");
        }
    }
    assert!(mount.sh(": > k; touch new").status.success());
    for name in ["k", "new"] {
        wait_for(PATIENCE, || Elsewhere::of(&mount).get(name).as_deref() == Some(""));
    }
}

#[test]
fn rule_04_others_see_no_empty_value_beside_those_who_write_one() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[&RAW[..], &["--separator", "/"]].concat());
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let other = Mount::start_in(TempDir::new().unwrap(), &store, &RAW);
    fs::write(mount.path("k"), "v\n").unwrap();
    wait_for(PATIENCE, || other.text("k").is_some());
    let script = "for i in $(seq 150); do echo v > k; printf 'v\\n' | dd of=k status=none; done";
    let writers = ["bash", "dash"]
        .map(|shell| Command::new(shell).args(["-c", script]).current_dir(&mount.dir).spawn().unwrap());
    let mut read = 0;
    for mut writer in writers {
        while writer.try_wait().unwrap().is_none() {
            for at in [&mount, &other] {
                assert_eq!(at.text("k").as_deref(), Some("v\n"), "read {read}");
                read += 1;
            }
        }
        assert!(writer.wait().unwrap().success());
    }
}

#[test]
fn rule_04_a_writer_that_is_killed_leaves_what_it_has_written() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&RAW);
    for (wrote, text) in [("echo part", "part\n"), (":", "")] {
        fs::write(mount.path("k"), "old").unwrap();
        let mut shell =
            waiting(&format!("{{ {wrote}; sh -c 'echo ready >&9'; read x; }} 9>&1 > k"), &mount.dir);
        let mut ready = [0; 6];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut ready).unwrap();
        assert_eq!(mount.text("k").as_deref(), Some("old"));
        shell.kill().unwrap();
        shell.wait().unwrap();
        // The child that it has started may be there for a moment.
        wait_for(PATIENCE, || mount.text("k").as_deref() == Some(text));
    }
}

#[test]
fn rule_04_what_the_end_of_a_file_cannot_set_is_kept() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&RAW);
    fs::write(mount.path("k"), "old").unwrap();
    // Who opens the file is gone, and its child hears of nothing.
    let mut shell = waiting("(exec 9<>k; (read x; echo late >&9) <&3 & echo ready) 3<&0", &mount.dir);
    let mut ready = [0; 6];
    std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut ready).unwrap();
    Elsewhere::of(&mount).set("k", "theirs");
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("theirs"));
    shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    wait_for(PATIENCE, || !mount.rejected().is_empty());
    assert_eq!(mount.text("k").as_deref(), Some("theirs"));
    assert!(!mount.sh("sync k").status.success());
    shell.wait().unwrap();
}

#[test]
fn rule_04_where_no_process_is_known_a_child_is_told_nothing() {
    if !can_mount() {
        return;
    }
    let inside = |args: &[&str]| Inside::start(TempDir::new().unwrap(), "memory:", args);
    let text = |at: &Inside| fs::read_to_string(at.dir.join("k")).unwrap();
    let documents = inside(&[]);
    for shell in ["bash", "dash"] {
        let script = "set -e; { printf '{\"a\":'; /bin/echo 2; printf '}'; } > k";
        assert_eq!(seen_by(shell, script, &documents.dir), "");
        assert_eq!(text(&documents), "{\"a\":2\n}");
    }
    let script = "import subprocess
def begun(text, child):
    f = open('k', 'w', buffering=1)
    f.write(text)
    f.flush()
    if child: subprocess.run(child, stdout=f, check=True)
    return f
f = begun('{\"b\":', ['/bin/echo', '2'])
f.write('}')
f.close()
for child in None, ['/bin/echo', '2']:
    try:
        begun('[1, ', child).close()
        raise SystemExit(f'{child} hides an error')
    except OSError: pass
";
    assert_eq!(seen_by("python3", script, &documents.dir), "");
    assert_eq!(text(&documents), "{\"b\":2\n}");
    let bytes = inside(&RAW);
    for shell in ["bash", "dash"] {
        let script =
            "echo old > k; { echo new; sh -c 'cat k >&2'; /bin/true; sh -c 'cat k >&2'; echo more; } > k";
        assert_eq!(seen_by(shell, script, &bytes.dir), "old\nold\n");
        assert_eq!(text(&bytes), "new\nmore\n");
        assert_eq!(seen_by(shell, ": > k; cat k >&2", &bytes.dir), "");
    }
}
