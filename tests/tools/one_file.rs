//! Programs that compare a descriptor with the name, hold a file while others write it, or watch it: as on a local disk.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use tempfile::TempDir;

use super::bench::ready;
use super::{Bench, Calls, On, PATIENCE, Ran, wait_for};
use crate::common::Mount;

/// Runs that a race has to show itself in.
const RUNS: usize = 100;

fn run(at: &Path, program: &str, script: &str) -> Ran {
    let out =
        Command::new(program).arg("-c").arg(script).current_dir(at).stdin(Stdio::null()).output().unwrap();
    Ran::of(&out, Calls::NONE)
}

/// A directory on another filesystem, and one on a mount that takes any text.
fn side_by_side(tools: &[&str], each: impl Fn(&Path) -> String) {
    if !ready(tools) {
        return;
    }
    let (local, mount) = (TempDir::new_in("/dev/shm").unwrap(), Mount::memory(&["--validate", "none"]));
    assert_eq!(each(&mount.dir), each(local.path()));
}

/// A program that goes on until it is dropped, and what it has printed so far.
struct Running {
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Running {
    fn start(at: &Path, command: &[&str]) -> Self {
        let mut program = Command::new(command[0]);
        program.args(&command[1..]).current_dir(at);
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = program.spawn().unwrap();
        let (out, printed) =
            (BufReader::new(child.stdout.take().unwrap()), Arc::new(Mutex::new(String::new())));
        let told = Arc::clone(&printed);
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                *told.lock().unwrap() += &(line + "\n");
            }
        });
        Self { child, printed }
    }

    fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn cp_of_a_directory_skips_no_file_that_is_written_meanwhile() {
    let Some(at) = On::Local.any(&["cp", "python3"]) else { return };
    let write = |mode: &str, first: usize| {
        format!(
            "n = 0\nwhile True:\n    n += 1\n    with open(f'k{{n % 5 * 2 + {first}}}', '{mode}') as f: f.write(str(n)); f.truncate()\n"
        )
    };
    for name in 0..10 {
        at.put(&format!("k{name}"), "0");
    }
    let _writers = [write("w", 0), write("r+", 1)]
        .map(|script| Running::start(&at.mount.dir, &["python3", "-c", &script]));
    for _ in 0..RUNS {
        at.sh("cp -r . $BESIDE/copy").code.filter(|code| *code == 0).expect("cp copies all");
        fs::remove_dir_all(at.beside.join("copy")).unwrap();
    }
}

/// Eight processes add 1 each so many times, and unlock before they close.
fn counted(at: &Bench, lock: &str) -> String {
    let script = format!(
        "import fcntl\nfor _ in range(25):\n    with open('counter', 'r+') as f:\n        fcntl.{lock}(f, fcntl.LOCK_EX)\n        \
         n = int(f.read()); f.seek(0); f.write(str(n + 1)); f.flush()\n        fcntl.{lock}(f, fcntl.LOCK_UN)\n"
    );
    at.put("counter", "100");
    let start = |_| at.command("python3").arg("-c").arg(&script).stderr(Stdio::piped()).spawn().unwrap();
    let started: Vec<Child> = (0..8).map(start).collect();
    for child in started {
        Ran::of(&child.wait_with_output().unwrap(), Calls::NONE).succeeds(Calls::NONE);
    }
    at.text("counter")
}

#[test]
fn a_counter_that_is_unlocked_before_it_is_closed_loses_nothing() {
    let Some(at) = On::Local.any(&["python3"]) else { return };
    for lock in ["flock", "lockf"] {
        assert_eq!(counted(&at, lock), "300", "{lock}");
    }
}

#[test]
fn emacs_knows_its_own_save_from_another_programs() {
    side_by_side(&["emacs"], |at| {
        fs::write(at.join("k"), "1\n").unwrap();
        let script =
            "(progn (setq make-backup-files nil) (find-file \"k\") (goto-char (point-max)) (insert \"\\n\")
            (save-buffer) (princ (format \"own %s\" (verify-visited-file-modtime (current-buffer))))
            (call-process \"sh\" nil nil nil \"-c\" \"echo 22 > k; touch -d 2020-01-01 k\")
            (princ (format \" another's %s\" (verify-visited-file-modtime (current-buffer)))))";
        let script = format!("emacs -Q --batch --eval '{}'", script.replace('\'', "'\\''"));
        let told = run(at, "sh", &script).succeeds(Calls::NONE);
        assert_eq!(told, "own t another's nil");
        told
    });
}

#[test]
fn vim_knows_its_own_save_from_another_programs() {
    side_by_side(&["vim"], |at| {
        fs::write(at.join("k"), "1\n").unwrap();
        let beside = TempDir::new().unwrap();
        let (script, heard) = (beside.path().join("script"), beside.path().join("heard"));
        let lines = format!(
            "let g:heard = []\nautocmd FileChangedShell * call add(g:heard, v:fcs_reason)\ncall append('$', '')\nwrite\n\
             checktime\ncall add(g:heard, 'saved')\ncall system('echo 22 > k; touch -d 2020-01-01 k')\nchecktime\n\
             call writefile(g:heard, '{}')\nqall!\n",
            heard.display()
        );
        fs::write(&script, lines).unwrap();
        run(at, "sh", &format!("vim -u NONE -N -es -S {} k", script.display())).succeeds(Calls::NONE);
        let heard = fs::read_to_string(heard).unwrap();
        assert_eq!(heard, "saved\nchanged\n");
        heard
    });
}

/// By polling, which goes by the number and the size of the file. It holds the file open, so each set makes another one for
/// it, which it prints from the start (rule 3).
#[test]
fn tail_follows_a_file_that_it_holds_open() {
    side_by_side(&["tail"], |at| {
        fs::write(at.join("log"), "one\n").unwrap();
        let tail = Running::start(at, &["tail", "-F", "-s", "0.05", "---disable-inotify", "log"]);
        let prints = |text: &str| wait_for(PATIENCE, || tail.printed().ends_with(text));
        prints("one\n");
        for text in ["two\n", "three\n", "four\n"] {
            File::options().append(true).open(at.join("log")).unwrap().write_all(text.as_bytes()).unwrap();
            prints(text);
        }
        tail.printed().lines().last().unwrap().to_owned()
    });
}

#[test]
fn a_watch_of_a_file_hears_what_it_hears_on_a_local_disk() {
    const SAVES: [&str; 3] =
        ["echo 22 > k", "echo >> k", "python3 -c \"f = open('k', 'r+'); f.write('3'); f.close()\""];
    for save in SAVES {
        side_by_side(&["inotifywait", "python3"], |at| {
            fs::write(at.join("k"), "1\n").unwrap();
            let watch = Running::start(at, &["inotifywait", "-m", "--format", "%e", "k"]);
            // It says on standard error that it watches; the first event shows it, too.
            wait_for(PATIENCE, || {
                run(at, "sh", "cat k").succeeds(Calls::NONE);
                watch.printed().contains("CLOSE_NOWRITE")
            });
            let before = watch.printed().len();
            run(at, "sh", save).succeeds(Calls::NONE);
            wait_for(PATIENCE, || watch.printed()[before..].contains("CLOSE_WRITE"));
            let heard = watch.printed()[before..].to_owned();
            // Reads of the wait above may be told late.
            let said = |line: &&str| !matches!(*line, "OPEN" | "ACCESS" | "CLOSE_NOWRITE,CLOSE");
            let mut heard: Vec<&str> = heard.lines().filter(said).collect();
            // What is not read yet is not told twice.
            heard.dedup();
            heard.join(" ")
        });
    }
}

#[test]
fn tar_with_extended_attributes_unpacks_what_it_packed() {
    let Some(at) = On::Local.any(&["tar"]) else { return };
    at.put("a", "1\n");
    at.put("b", "2\n");
    let tar = "tar --xattrs --xattrs-include='*'";
    let script = format!("{tar} -cf $BESIDE/t a b && {tar} -xf $BESIDE/t && {tar} -df $BESIDE/t");
    let ran = at.sh(&script);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""), "{ran:?}");
    assert_eq!((at.names(), at.text("b")), (vec!["a".to_owned(), "b".to_owned()], "2\n".to_owned()));
}

#[test]
fn rsync_with_extended_attributes_finds_nothing_to_do_there_and_back() {
    let Some(at) = On::Local.any(&["rsync"]) else { return };
    let script = "mkdir $BESIDE/in && echo 1 > $BESIDE/in/a && echo 2 > $BESIDE/in/b &&
        rsync -aX --omit-dir-times $BESIDE/in/ ./ && rsync -aX --omit-dir-times -i $BESIDE/in/ ./ &&
        rsync -aX ./ $BESIDE/out/ && rsync -aXi ./ $BESIDE/out/ && diff -r $BESIDE/in $BESIDE/out";
    let ran = at.sh(script);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""), "{ran:?}");
}

/// What libraries of lock files look at, to see that nobody has replaced the file.
#[test]
fn a_descriptor_is_the_file_that_its_name_has() {
    let Some(at) = On::Local.any(&["python3"]) else { return };
    at.put("k", "1\n");
    let script = "
import fcntl, os
def same(fd): return os.path.samestat(os.fstat(fd), os.stat('k'))
number = os.stat('k').st_ino
reader = os.open('k', os.O_RDONLY)
assert same(reader)
for flags in os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT:
    writer = os.open('k', flags)
    fcntl.flock(writer, fcntl.LOCK_EX)
    assert same(writer), flags
    os.write(writer, b'2\\n' if flags & os.O_APPEND == 0 else b'\\n')
    assert same(writer), flags
    os.close(writer)
assert os.stat('k').st_ino == number
";
    at.python(script).out.is_empty().then_some(()).unwrap();
}
