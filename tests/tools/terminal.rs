//! A program in a terminal of its own, typed at and read from as a person would.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::{Bench, PATIENCE};

/// One private tmux server with one session; gone when dropped.
pub(crate) struct Terminal {
    socket: PathBuf,
    code: PathBuf,
    last: Cell<String>,
}

impl Terminal {
    /// Runs `script` with a shell inside the mount.
    pub(crate) fn start(at: &Bench, script: &str) -> Self {
        let home = at.mount.home.path();
        let terminal =
            Self { socket: home.join("tmux"), code: home.join("exit_code"), last: Cell::default() };
        let _ = fs::remove_file(&terminal.code);
        let script = format!("{script}; echo $? > {0}.new; mv {0}.new {0}", terminal.code.display());
        let mut tmux =
            terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "30", &script]);
        tmux.current_dir(&at.mount.dir).env("HOME", home).env("SHELL", "/bin/sh").env("LC_ALL", "C.UTF-8");
        for name in ["TMUX", "TMPDIR", "TMP", "TEMP", "VIMINIT", "EXINIT", "VERSION_CONTROL"] {
            tmux.env_remove(name);
        }
        let output = tmux.output().unwrap();
        assert!(output.status.success(), "tmux: {output:?}");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(args);
        command
    }

    fn send(&self, args: &[&str]) {
        let output = self.tmux(&["send-keys"]).args(args).output().unwrap();
        assert!(output.status.success(), "tmux send-keys {args:?}: {output:?}");
    }

    /// Presses keys by tmux's names for them: `Enter`, `C-x`, `Right`.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.send(keys);
    }

    pub(crate) fn write(&self, text: &str) {
        self.send(&["-l", text]);
    }

    pub(crate) fn enter(&self, text: &str) {
        self.write(text);
        self.send(&["Enter"]);
    }

    /// What is on the screen; the last screen seen once the program has ended.
    pub(crate) fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).output().unwrap();
        let last = self.last.take();
        let now = if output.status.success() { String::from_utf8_lossy(&output.stdout).into() } else { last };
        self.last.set(now.clone());
        now
    }

    #[track_caller]
    fn wait(&self, what: &str, mut condition: impl FnMut(&str) -> bool) {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if condition(&screen) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{what} did not come; the screen:\n{}", screen.trim_end());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        self.wait(&format!("{text:?}"), |screen| screen.contains(text));
    }

    #[track_caller]
    pub(crate) fn shows_no(&self, text: &str) {
        let screen = self.screen();
        assert!(!screen.contains(text), "{text:?} is on the screen:\n{}", screen.trim_end());
    }

    /// Waits for the script to end.
    #[track_caller]
    pub(crate) fn exit_code(&self) -> i32 {
        self.wait("the end", |_| self.code.exists());
        fs::read_to_string(&self.code).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}
