//! Calls on names and on the directory itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use libc::{
    O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY,
    RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, S_IFIFO, S_IFREG, S_IFSOCK,
};

use super::sys::{access, close, longest_name, make_node, open, rename_with, told, truncate_path};

/// Calls in a directory that holds the files `f` and `g`; the answers in words.
pub(super) type Work = fn(&Path) -> Vec<String>;

/// A difference that the design wants: the first answer of a mount.
pub(super) struct Wanted {
    pub(super) label: &'static str,
    pub(super) mount: &'static str,
}

const fn wanted(label: &'static str, mount: &'static str) -> Wanted {
    Wanted { label, mount }
}

/// Why each: the directory is flat (rule 6: EPERM), or it cannot do what the flag asks for.
pub(super) const WANTED: &[Wanted] = &[
    // No directories, links, or special files.
    wanted("mkdir", "EPERM"),
    wanted("symlink", "EPERM"),
    wanted("link", "EPERM"),
    wanted("mkfifo", "EPERM"),
    wanted("a socket", "EPERM"),
    // Two keys cannot change places in one request, and there are no whiteouts.
    wanted("rename exchange", "EINVAL"),
    wanted("rename with a whiteout", "EINVAL"),
    // A file without a name is not a key.
    wanted("a file without a name", "EOPNOTSUPP"),
    // Values are data.
    wanted("permission to execute", "EACCES"),
    // Rule 2: a name no key has.
    wanted("a control character in a name", "EINVAL"),
];

/// Runs `work` in `dir`; then the names that are there, and their content. Leaves nothing behind.
pub(super) fn run(dir: &Path, work: Work) -> Vec<String> {
    fs::write(dir.join("f"), "[1]").unwrap();
    fs::write(dir.join("g"), "[1,2]").unwrap();
    let mut log = work(dir);
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names {
        log.push(format!("{name:?} {}", told(fs::read_to_string(dir.join(&name)))));
    }
    super::clear(dir);
    log
}

/// open(2) and close(2).
fn opened(path: &Path, flags: i32) -> String {
    told(open(path, flags).map(|file| close(file).is_ok()))
}

fn slash(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(format!("{name}/"))
}

/// By name.
pub(super) const WORKS: &[(&str, Work)] = &[
    ("mkdir", |dir| vec![told(fs::create_dir(dir.join("new")))]),
    ("mkdir on a file", |dir| vec![told(fs::create_dir(dir.join("f"))), told(fs::create_dir(dir.join(".")))]),
    ("symlink", |dir| vec![told(symlink("f", dir.join("new")))]),
    ("symlink on a file", |dir| vec![told(symlink("g", dir.join("f")))]),
    ("link", |dir| vec![told(fs::hard_link(dir.join("f"), dir.join("new")))]),
    ("link on a file", |dir| vec![told(fs::hard_link(dir.join("f"), dir.join("g")))]),
    ("link of what is not there", |dir| vec![told(fs::hard_link(dir.join("x"), dir.join("new")))]),
    ("mkfifo", |dir| vec![told(make_node(&dir.join("new"), S_IFIFO))]),
    ("mkfifo on a file", |dir| vec![told(make_node(&dir.join("f"), S_IFIFO))]),
    ("a socket", |dir| vec![told(make_node(&dir.join("new"), S_IFSOCK))]),
    ("mknod of a regular file", |dir| vec![told(make_node(&dir.join("new"), S_IFREG))]),
    ("rmdir", |dir| {
        let names = ["f", "missing", ".", "f/.."];
        names.iter().map(|name| told(fs::remove_dir(dir.join(name)))).collect()
    }),
    ("unlink", |dir| {
        let names = ["f", "f", "missing", ".", ".."];
        names.iter().map(|name| told(fs::remove_file(dir.join(name)))).collect()
    }),
    ("unlink with a slash", |dir| vec![told(fs::remove_file(slash(dir, "f")))]),
    ("readlink", |dir| vec![told(fs::read_link(dir.join("f"))), told(fs::read_link(dir.join("missing")))]),
    ("rename onto a file", |dir| vec![told(fs::rename(dir.join("f"), dir.join("g")))]),
    ("rename onto a new name", |dir| vec![told(fs::rename(dir.join("f"), dir.join("new")))]),
    ("rename onto itself", |dir| vec![told(fs::rename(dir.join("f"), dir.join("f")))]),
    ("rename of what is not there", |dir| vec![told(fs::rename(dir.join("x"), dir.join("g")))]),
    ("rename onto a directory", |dir| {
        vec![told(fs::rename(dir.join("f"), dir.join("."))), told(fs::rename(dir.join("."), dir.join("f")))]
    }),
    ("rename with a slash", |dir| {
        vec![
            told(fs::rename(slash(dir, "f"), dir.join("new"))),
            told(fs::rename(dir.join("f"), slash(dir, "new"))),
            told(fs::rename(dir.join("f"), slash(dir, "g"))),
        ]
    }),
    ("rename without replacing", |dir| {
        let to = |name: &str| told(rename_with(&dir.join("f"), &dir.join(name), RENAME_NOREPLACE));
        vec![to("g"), to("f"), to("new"), to("newer")]
    }),
    ("rename exchange", |dir| vec![told(rename_with(&dir.join("f"), &dir.join("g"), RENAME_EXCHANGE))]),
    ("rename exchange with nothing", |dir| {
        vec![told(rename_with(&dir.join("f"), &dir.join("x"), RENAME_EXCHANGE))]
    }),
    ("rename with a whiteout", |dir| {
        vec![told(rename_with(&dir.join("f"), &dir.join("new"), RENAME_WHITEOUT))]
    }),
    ("rename with flags that exclude each other", |dir| {
        vec![told(rename_with(&dir.join("f"), &dir.join("g"), RENAME_EXCHANGE | RENAME_NOREPLACE))]
    }),
    ("names of 255 and 256 bytes", |dir| {
        let (most, more) = (dir.join("n".repeat(255)), dir.join("n".repeat(256)));
        vec![
            opened(&most, O_WRONLY | O_CREAT),
            opened(&more, O_WRONLY | O_CREAT),
            opened(&more, O_RDONLY),
            told(fs::metadata(&more).map(|meta| meta.len())),
            told(fs::remove_file(&more)),
            told(fs::rename(dir.join("f"), &more)),
            told(fs::rename(&more, dir.join("f"))),
            told(fs::create_dir(&more)),
            told(symlink("f", &more)),
            told(fs::rename(dir.join("f"), &most)),
        ]
    }),
    ("a name of 255 bytes in letters of two", |dir| {
        let name = dir.join(format!("{}n", "é".repeat(127)));
        vec![told(fs::rename(dir.join("f"), name)), told(fs::metadata(dir.join("é".repeat(128))).map(|_| ()))]
    }),
    ("unusual names", |dir| {
        let names =
            [" ", "-", "%", "%41", "a b", "ü", "日本", "a\\b", "*", "'\"", "a:b", "con", ".hidden", "..."];
        names.iter().map(|name| told(fs::write(dir.join(name), "1"))).collect()
    }),
    ("a control character in a name", |dir| vec![opened(&dir.join("a\nb"), O_WRONLY | O_CREAT)]),
    ("a file with a trailing slash", |dir| {
        let flags =
            [O_RDONLY, O_WRONLY, O_RDWR | O_CREAT, O_WRONLY | O_CREAT | O_EXCL, O_RDONLY | O_DIRECTORY];
        let mut log: Vec<String> = flags.iter().map(|flags| opened(&slash(dir, "f"), *flags)).collect();
        log.extend(flags.iter().map(|flags| opened(&slash(dir, "new"), *flags)));
        log.push(told(fs::metadata(slash(dir, "f")).map(|_| ())));
        log
    }),
    ("below a file", |dir| {
        let path = dir.join("f/below");
        vec![opened(&path, O_RDONLY), opened(&path, O_WRONLY | O_CREAT), told(fs::create_dir(&path))]
    }),
    ("below what is not there", |dir| {
        vec![opened(&dir.join("x/y"), O_WRONLY | O_CREAT), told(fs::metadata(dir.join("x/y")).map(|_| ()))]
    }),
    ("a file as a directory", |dir| {
        vec![opened(&dir.join("f"), O_RDONLY | O_DIRECTORY), told(fs::read_dir(dir.join("f")).map(|_| ()))]
    }),
    ("a file and not a link", |dir| {
        vec![opened(&dir.join("f"), O_RDONLY | O_NOFOLLOW), opened(&dir.join("f"), O_RDWR | O_NOFOLLOW)]
    }),
    ("a path only", |dir| {
        vec![
            opened(&dir.join("f"), O_PATH),
            opened(&dir.join("x"), O_PATH),
            opened(&dir.join("f"), O_PATH | O_DIRECTORY),
        ]
    }),
    ("a file without a name", |dir| vec![opened(dir, O_RDWR | O_TMPFILE)]),
    ("the directory", |dir| {
        let flags = [
            O_RDONLY,
            O_RDONLY | O_DIRECTORY,
            O_WRONLY,
            O_RDWR,
            O_RDONLY | O_TRUNC,
            O_RDONLY | O_CREAT,
            O_WRONLY | O_CREAT,
            O_RDWR | O_CREAT | O_EXCL,
            O_WRONLY | O_DIRECTORY,
        ];
        flags.iter().map(|flags| opened(dir, *flags)).chain([told(truncate_path(dir, 0))]).collect()
    }),
    ("reading the directory as a file", |dir| vec![told(fs::read(dir)), told(fs::write(dir, "1"))]),
    ("syncing the directory", |dir| {
        let file = open(dir, O_RDONLY).unwrap();
        vec![told(file.sync_all()), told(file.sync_data()), told(close(file))]
    }),
    ("access", |dir| {
        let modes = [libc::F_OK, libc::R_OK, libc::W_OK, libc::X_OK, libc::R_OK | libc::W_OK];
        let of = |name: &str| modes.map(|mode| told(access(&dir.join(name), mode)));
        [of("f"), of("missing"), of(".")].concat()
    }),
    ("chmod", |dir| {
        let path = dir.join("f");
        let set = |mode: u32| {
            let done = told(fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            format!("{done} {mode:o}")
        };
        [0o600, 0o755, 0o000, 0o7777, 0o644].map(set).to_vec()
    }),
    ("permission to execute", |dir| {
        fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o755)).unwrap();
        vec![told(access(&dir.join("f"), libc::X_OK))]
    }),
    ("the mode of a new file", |dir| {
        let mode = |name: &str| format!("{:o}", fs::metadata(dir.join(name)).unwrap().permissions().mode());
        vec![opened(&dir.join("new"), O_WRONLY | O_CREAT), mode("new"), mode("f")]
    }),
    ("utimes", |dir| {
        let times = |seconds: u64, nanos: u32| {
            let file = open(&dir.join("f"), O_RDWR).unwrap();
            let time = UNIX_EPOCH + Duration::new(seconds, nanos);
            let set = told(file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)));
            let closed = told(close(file));
            let meta = fs::metadata(dir.join("f")).unwrap();
            let same = (meta.modified().unwrap() == time, meta.accessed().unwrap() == time);
            format!("{set} {closed} {same:?}")
        };
        vec![times(1, 1), times(1_700_000_000, 123_456_789), times(4_000_000_000, 0)]
    }),
    ("links of a file", |dir| {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(dir.join("f")).unwrap();
        vec![format!("{} {} {} {}", meta.nlink(), meta.is_file(), meta.uid(), meta.blksize())]
    }),
    ("the longest name", |dir| vec![told(longest_name(dir)), told(longest_name(&dir.join("f")))]),
];
