//! A file that is bind-mounted alone, as a container has it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::common::{Elsewhere, Mount, PATIENCE, can_mount, wait_for};

/// The key `app`, bound in a mount namespace of its own.
struct Bound {
    container: Child,
    ask: Option<ChildStdin>,
    told: BufReader<ChildStdout>,
}

impl Bound {
    fn start(mount: &Mount) -> Self {
        let script = "touch app.json; mount --bind mnt/app app.json; echo ready; \
            while read -r only; do [ $only ] || cat app.json 2>&1; stat -c \" %s %h\" app.json; done";
        let mut container = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .current_dir(mount.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ask, told) = (container.stdin.take(), BufReader::new(container.stdout.take().unwrap()));
        let mut bound = Self { container, ask, told };
        assert_eq!(bound.line(), "ready\n");
        bound
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line
    }

    fn answer(&mut self, question: &[u8]) -> String {
        self.ask.as_mut().unwrap().write_all(question).unwrap();
        self.line()
    }

    /// Its text, size and links.
    fn shown(&mut self) -> String {
        self.answer(b"\n")
    }

    /// Its size and links.
    fn stat(&mut self) -> String {
        self.answer(b"stat\n")
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        drop(self.ask.take());
        _ = self.container.wait();
    }
}

#[test]
fn rule_03_a_file_that_is_bind_mounted_alone_follows_updates() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("app"), "{\"v\":1}").unwrap();
    let elsewhere = Elsewhere::of(&mount);
    let mut bound = Bound::start(&mount);
    assert_eq!(bound.shown(), "{\"v\":1} 7 1\n");
    fs::write(mount.path("app"), "{\"v\":22}").unwrap();
    assert_eq!(bound.shown(), "{\"v\":22} 8 1\n");
    let reader = File::open(mount.path("app")).unwrap();
    fs::write(mount.path("app"), "{\"v\":333}").unwrap();
    assert_eq!(bound.shown().split(' ').next(), Some("{\"v\":333}"));
    drop(reader);
    let replaced =
        mount.sh("printf %s '{\"v\":4444}' > app.tmp$$ && mv app.tmp$$ app && sed -i s/4444/55555/ app");
    assert!(replaced.status.success(), "{replaced:?}");
    assert!(bound.shown().starts_with("{\"v\":55555}"));
    elsewhere.set("app", "{\"v\":6}");
    wait_for(PATIENCE, || bound.shown().starts_with("{\"v\":6} "));
    fs::set_permissions(mount.path("app"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bound.stat(), " 7 1\n");
    elsewhere.set("app", "{\"v\":77777777}");
    wait_for(PATIENCE, || bound.stat() == " 14 1\n");
}

#[test]
fn rule_03_a_bound_file_that_was_removed_goes_on_as_what_is_made_anew_under_its_name() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("app"), "1").unwrap();
    let elsewhere = Elsewhere::of(&mount);
    let mut bound = Bound::start(&mount);
    let is_gone = |shown: &str| shown.starts_with("cat: app.json: No such file");
    for (text, stat, shown) in [("22", " 2 1\n", "22 2 1\n"), ("4444", " 4 1\n", "4444 4 1\n")] {
        fs::remove_file(mount.path("app")).unwrap();
        assert!(is_gone(&bound.shown()), "{text}");
        // What stat(2) says of it.
        bound.line();
        fs::write(mount.path("app"), text).unwrap();
        assert_eq!(bound.stat(), stat);
        assert_eq!(bound.shown(), shown);
    }
    // Who writes it when it is removed; a size that the kernel counted is of no version.
    let mut writer = File::options().write(true).open(mount.path("app")).unwrap();
    writer.write_all(b"[1, 2, 3, 4, 5, 6,").unwrap();
    fs::remove_file(mount.path("app")).unwrap();
    drop(writer);
    fs::write(mount.path("app"), "666666").unwrap();
    assert_eq!(bound.stat(), " 6 1\n");
    assert_eq!(bound.shown(), "666666 6 1\n");
    for (text, stat, shown) in [("77777", " 5 1\n", "77777 5 1\n"), ("8", " 1 1\n", "8 1 1\n")] {
        elsewhere.delete("app");
        wait_for(PATIENCE, || !mount.path("app").exists());
        elsewhere.set("app", text);
        wait_for(PATIENCE, || bound.stat() == stat);
        assert_eq!(bound.shown(), shown);
    }
}
