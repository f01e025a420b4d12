//! vim, nano and emacs in a terminal. While they save, a watcher reads the key through the mount and straight
//! from the store: it must never be missing, empty or half-written.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::terminal::Terminal;
use super::{Bench, Calls, On, Past};

/// Every different state of the key `f` that was seen; `None` is absence.
#[derive(Default)]
struct Seen {
    stored: BTreeSet<Option<String>>,
    read: BTreeSet<Option<String>>,
}

struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Seen, Past)>,
}

impl Watch {
    fn start(at: &Bench) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, past, path) = (Arc::clone(&stop), at.past(), at.mount.path("f"));
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                seen.stored.insert(past.stored("f"));
                seen.read.insert(fs::read_to_string(&path).ok());
            }
            (seen, past)
        });
        Self { stop, thread }
    }

    /// Ends the watch; nothing but `values` may have been seen.
    #[track_caller]
    fn saw_only(self, values: &[&str]) {
        self.stop.store(true, Ordering::Relaxed);
        let (seen, past) = self.thread.join().unwrap();
        let kept: BTreeSet<_> = values.iter().map(|value| past.kept(value)).collect();
        let values: BTreeSet<_> = values.iter().map(|value| Some((*value).to_owned())).collect();
        assert!(!seen.stored.is_empty());
        assert!(seen.stored.is_subset(&kept), "in the store: {:?}", seen.stored);
        assert!(seen.read.is_subset(&values), "through the mount: {:?}", seen.read);
    }
}

/// Indented, so that it looks the same on every store on a new mount too.
const OLD: &str = "{\n  \"n\": 1\n}\n";
const NEW: &str = "{\n  \"n\": 2\n}\n";
const NEXT: &str = "{\n  \"n\": 3\n}\n";

/// Store calls since the last look.
fn calls_since(at: &Bench, before: &mut Calls) -> Calls {
    let now = Calls::of(&at.mount);
    now.since(std::mem::replace(before, now))
}

/// A key `f` with a first value, mounted afresh.
fn bench(on: On, editor: &str) -> Option<Bench> {
    let at = on.for_editors(&["tmux", editor])?;
    at.put("f", OLD);
    Some(at.afresh())
}

fn vim_saves_twice(at: &Bench, command: &str) {
    let watch = Watch::start(at);
    let mut calls = Calls::of(&at.mount);
    let vim = Terminal::start(at, command);
    vim.shows("\"n\": 1");
    vim.enter(":%s/1/2/");
    vim.shows("\"n\": 2");
    vim.enter(":w");
    vim.shows("written");
    vim.shows_no("changed");
    assert_eq!(calls_since(at, &mut calls), Calls::sets(1), ":w");
    assert_eq!(at.stored("f"), at.kept(NEW));
    vim.enter(":%s/2/3/");
    vim.shows("\"n\": 3");
    vim.shows_no("changed");
    vim.enter(":wq");
    assert_eq!(vim.exit_code(), 0, "{}", vim.screen());
    assert_eq!(calls_since(at, &mut calls), Calls::sets(1), ":wq");
    assert_eq!(at.text("f"), NEXT);
    assert_eq!(at.names(), ["f"]);
    watch.saw_only(&[OLD, NEW, NEXT]);
}

pub(super) fn vim_saves_with_one_set(on: On) {
    let Some(at) = bench(on, "vim") else { return };
    vim_saves_twice(&at, "vim f");
    assert_eq!(at.mount.rejected(), Vec::<std::path::PathBuf>::new());
}

pub(super) fn vim_saves_with_one_set_whatever_it_does_for_a_backup(on: On) {
    for option in ["backup", "nowritebackup", "backupcopy=yes", "backupcopy=no", "noswapfile", "undofile"] {
        let Some(at) = on.for_editors(&["tmux", "vim"]) else { return };
        fs::write(at.mount.home.path().join(".vimrc"), format!("set {option}\n")).unwrap();
        at.put("f", OLD);
        let vim = Terminal::start(&at, "vim f");
        vim.shows("\"n\": 1");
        let mut calls = Calls::of(&at.mount);
        vim.enter(":%s/1/2/");
        vim.enter(":wq");
        assert_eq!(vim.exit_code(), 0, "{option}: {}", vim.screen());
        assert_eq!(calls_since(&at, &mut calls), Calls::sets(1), "{option}");
        assert_eq!(at.stored("f"), at.kept(NEW), "{option}");
        assert_eq!(at.afresh().names(), ["f"], "{option}");
    }
}

pub(super) fn vim_saves_with_one_set_when_started_elsewhere(on: On) {
    let Some(at) = bench(on, "vim") else { return };
    let path = at.mount.path("f");
    vim_saves_twice(&at, &format!("cd / && vim {}", path.display()));
}

pub(super) fn vim_creates_a_key_with_one_set(on: On) {
    let Some(at) = bench(on, "vim") else { return };
    let mut calls = Calls::of(&at.mount);
    let vim = Terminal::start(&at, "vim new");
    vim.shows("\"new\" [New]");
    vim.press(&["i"]);
    vim.enter("{");
    vim.enter("\"n\": 1");
    vim.enter("}");
    vim.press(&["BSpace", "Escape"]);
    vim.enter(":wq");
    assert_eq!(vim.exit_code(), 0, "{}", vim.screen());
    assert_eq!(calls_since(&at, &mut calls), Calls::sets(1));
    assert_eq!(at.text("new"), "{\n\"n\": 1\n}\n");
    assert_eq!(at.names(), ["f", "new"]);
}

pub(super) fn vim_shows_why_it_could_not_save_and_the_old_value_stays(on: On) {
    let Some(at) = bench(on, "vim") else { return };
    let watch = Watch::start(&at);
    let before = Calls::of(&at.mount);
    let vim = Terminal::start(&at, "vim f");
    vim.shows("\"n\": 1");
    vim.enter(":%s/1/oops/");
    vim.shows("\"n\": oops");
    vim.enter(":w");
    vim.shows("E");
    vim.enter(":echo 'the answer is' 40 + 2");
    vim.shows("the answer is 42");
    assert_eq!(at.text("f"), OLD);
    vim.enter(":q!");
    vim.exit_code();
    assert_eq!(Calls::of(&at.mount).since(before), Calls::NONE);
    assert_eq!(at.names(), ["f"]);
    watch.saw_only(&[OLD]);
    let kept = at.set_aside();
    assert!(kept.contains(&"{\n  \"n\": oops\n}\n".to_owned()), "{kept:?}");
}

pub(super) fn vim_keeps_the_old_value_whatever_it_does_for_a_backup(on: On) {
    for (options, leaves) in [
        ("backupcopy=yes writebackup", &["f", "f~"][..]),
        ("backupcopy=no writebackup", &["f"]),
        ("backupcopy=auto backup patchmode=.orig", &["f"]),
        ("nobackup nowritebackup", &["f"]),
    ] {
        let Some(at) = bench(on, "vim") else { return };
        let vim = format!("vim -u NONE -N -es -c 'set {options}' -c '%s/1/oops/' -c 'silent! w' -c 'qa!' f");
        let before = Calls::of(&at.mount);
        assert_eq!(at.sh(&format!("{vim} || true")).code, Some(0), "{options}");
        // A copy is written back.
        let calls = Calls::of(&at.mount).since(before);
        assert!([Calls::NONE, Calls::sets(1)].contains(&calls), "{options}: {calls:?}");
        assert_eq!((at.text("f").as_str(), at.stored("f")), (OLD, at.kept(OLD)), "{options}");
        assert_eq!(at.names(), leaves, "{options}");
        assert!(at.mount.last_error().contains("not JSON at byte"), "{options}: {}", at.mount.last_error());
        assert!(at.set_aside().contains(&"{\n  \"n\": oops\n}\n".to_owned()), "{options}");
        assert_eq!(at.afresh().names(), ["f"], "{options}");
    }
}

pub(super) fn vim_leaves_a_swap_file_only_while_it_runs(on: On) {
    let Some(at) = bench(on, "vim") else { return };
    let before = Calls::of(&at.mount);
    let vim = Terminal::start(&at, "vim f");
    vim.shows("\"n\": 1");
    vim.enter(":%s/1/2/");
    vim.shows("\"n\": 2");
    vim.enter(":preserve");
    vim.shows("preserved");
    assert_eq!(at.names(), [".f.swp", "f"]);
    let swap = fs::read(at.mount.path(".f.swp")).unwrap();
    assert!(swap.len() > 10_000, "{}", swap.len());
    assert_eq!(at.stored(".f.swp"), None);
    vim.enter(":q!");
    vim.exit_code();
    assert_eq!(at.names(), ["f"]);
    assert_eq!(Calls::of(&at.mount).since(before), Calls::NONE);
}

/// Changes the `1` in the document by cursor keys, as nano and emacs are used.
fn change_digit(editor: &Terminal, delete: &str, to: &str) {
    editor.press(&["Down", "Right", "Right", "Right", "Right", "Right", "Right", "Right", delete]);
    editor.write(to);
    editor.shows(&format!("\"n\": {to}"));
}

pub(super) fn nano_saves_with_one_set(on: On) {
    for command in ["nano f", "nano -B f"] {
        let Some(at) = bench(on, "nano") else { return };
        let watch = Watch::start(&at);
        let mut calls = Calls::of(&at.mount);
        let nano = Terminal::start(&at, command);
        nano.shows("\"n\": 1");
        change_digit(&nano, "DC", "2");
        nano.press(&["C-o"]);
        nano.shows("File Name to Write");
        nano.press(&["Enter"]);
        nano.shows("Wrote 3 lines");
        assert_eq!(calls_since(&at, &mut calls), Calls::sets(1), "{command}");
        assert_eq!(at.stored("f"), at.kept(NEW));
        nano.press(&["C-x"]);
        assert_eq!(nano.exit_code(), 0);
        assert_eq!(calls_since(&at, &mut calls), Calls::NONE, "{command}");
        watch.saw_only(&[OLD, NEW]);
        assert_eq!(at.afresh().names(), ["f"]);
    }
}

pub(super) fn nano_shows_why_it_could_not_save_and_the_old_value_stays(on: On) {
    let Some(at) = bench(on, "nano") else { return };
    let watch = Watch::start(&at);
    let before = Calls::of(&at.mount);
    let nano = Terminal::start(&at, "nano f");
    nano.shows("\"n\": 1");
    change_digit(&nano, "DC", "oops");
    nano.press(&["C-o"]);
    nano.shows("File Name to Write");
    nano.press(&["Enter"]);
    nano.shows("Error writing f: Invalid argument");
    nano.press(&["C-x"]);
    nano.shows("Save modified buffer?");
    nano.press(&["n"]);
    nano.exit_code();
    assert_eq!(Calls::of(&at.mount).since(before), Calls::NONE);
    assert_eq!(at.text("f"), OLD);
    watch.saw_only(&[OLD]);
}

pub(super) fn emacs_saves_with_one_set(on: On) {
    for command in ["emacs -nw -Q f", "emacs -nw f"] {
        let Some(at) = bench(on, "emacs") else { return };
        let watch = Watch::start(&at);
        let mut calls = Calls::of(&at.mount);
        let emacs = Terminal::start(&at, command);
        emacs.shows("\"n\": 1");
        change_digit(&emacs, "C-d", "2");
        emacs.press(&["C-x", "C-s"]);
        emacs.shows("Wrote ");
        assert_eq!(calls_since(&at, &mut calls), Calls::sets(1), "{command}");
        assert_eq!(at.stored("f"), at.kept(NEW));
        emacs.press(&["C-x", "C-c"]);
        assert_eq!(emacs.exit_code(), 0);
        assert_eq!(calls_since(&at, &mut calls), Calls::NONE, "{command}");
        assert_eq!(at.text("f"), NEW);
        watch.saw_only(&[OLD, NEW]);
        assert_eq!(at.afresh().names(), ["f"]);
    }
}

pub(super) fn emacs_shows_why_it_could_not_save_and_the_old_value_stays(on: On) {
    let Some(at) = bench(on, "emacs") else { return };
    let watch = Watch::start(&at);
    let before = Calls::of(&at.mount);
    let emacs = Terminal::start(&at, "emacs -nw -Q f");
    emacs.shows("\"n\": 1");
    change_digit(&emacs, "C-d", "oops");
    emacs.press(&["C-x", "C-s"]);
    emacs.shows("nvalid argument");
    emacs.press(&["C-x", "C-c"]);
    emacs.shows("Save file");
    emacs.press(&["n"]);
    emacs.shows("exit anyway");
    emacs.enter("yes");
    emacs.exit_code();
    assert_eq!(Calls::of(&at.mount).since(before), Calls::NONE);
    assert_eq!(at.text("f"), OLD);
    assert_eq!(at.stored("f"), at.kept(OLD));
    watch.saw_only(&[OLD]);
}
