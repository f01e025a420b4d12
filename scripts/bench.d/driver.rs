//! Times file operations for `scripts/bench` and turns the records into tables.
//!
//!     driver run OP [--OPTION VALUE]...      one measurement, one record per metric on stdout
//!     driver time [--OPTION VALUE]... -- CMD the same for a whole command
//!     driver spin                            keeps one CPU from going idle until killed
//!     driver report SECTION RECORDS          a markdown table: medians over rounds, ratios per round
//!
//! A record is `section <tab> operation <tab> target <tab> round <tab> metric <tab> value`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn read(fd: c_int, buffer: *mut c_void, count: usize) -> isize;
    fn pread(fd: c_int, buffer: *mut c_void, count: usize, offset: i64) -> isize;
    fn write(fd: c_int, buffer: *const c_void, count: usize) -> isize;
    fn fstat(fd: c_int, stat: *mut StatBuffer) -> c_int;
    fn fstatat(dir: c_int, path: *const c_char, stat: *mut StatBuffer, flags: c_int) -> c_int;
    fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn renameat(from: c_int, old: *const c_char, to: c_int, new: *const c_char) -> c_int;
    fn fdatasync(fd: c_int) -> c_int;
    fn eventfd(initial: c_uint, flags: c_int) -> c_int;
    fn getdents64(fd: c_int, buffer: *mut c_void, count: usize) -> isize;
}

const AT_FDCWD: c_int = -100;
const AT_SYMLINK_NOFOLLOW: c_int = 0x100;
const O_RDONLY: c_int = 0;
const O_WRONLY: c_int = 1;
const O_CREAT: c_int = 0o100;
const O_EXCL: c_int = 0o200;
const O_TRUNC: c_int = 0o1000;
const O_APPEND: c_int = 0o2000;
const O_CLOEXEC: c_int = 0o2_000_000;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
const O_DIRECTORY: c_int = 0o200_000;
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
const O_DIRECTORY: c_int = 0o40_000;
const ENOENT: i32 = 2;

/// Room for any libc's `struct stat`; only the success of the call matters here.
#[repr(C, align(16))]
struct StatBuffer([u8; 256]);

/// The getdents64 buffer of glibc's readdir.
const DIRENT_BUFFER: usize = 32 * 1024;

/// The read buffer of coreutils' cat.
const READ_BUFFER: usize = 128 * 1024;

fn check(result: isize, call: &str, name: &CString) -> Result<usize, String> {
    usize::try_from(result)
        .map_err(|_| format!("{call} {}: {}", name.to_string_lossy(), std::io::Error::last_os_error()))
}

struct Fd(c_int);

impl Fd {
    fn open(dir: &Fd, name: &CString, flags: c_int) -> Result<Fd, String> {
        Fd::open_at(dir.0, name, flags)
    }

    fn open_dir(path: &CString) -> Result<Fd, String> {
        Fd::open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY)
    }

    fn open_at(dir: c_int, name: &CString, flags: c_int) -> Result<Fd, String> {
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        let fd = unsafe { openat(dir, name.as_ptr(), flags | O_CLOEXEC, 0o644) };
        check(fd as isize, "open", name).map(|_| Fd(fd))
    }

    fn close(self, name: &CString) -> Result<(), String> {
        let fd = self.0;
        std::mem::forget(self);
        // SAFETY: the descriptor is owned and never used again.
        check(unsafe { close(fd) } as isize, "close", name).map(drop)
    }

    fn read(&self, buffer: &mut [u8], name: &CString) -> Result<usize, String> {
        // SAFETY: the buffer is writable for its whole length.
        check(unsafe { read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) }, "read", name)
    }

    fn pread(&self, buffer: &mut [u8], name: &CString) -> Result<usize, String> {
        // SAFETY: the buffer is writable for its whole length.
        check(unsafe { pread(self.0, buffer.as_mut_ptr().cast(), buffer.len(), 0) }, "pread", name)
    }

    fn write_all(&self, bytes: &[u8], name: &CString) -> Result<(), String> {
        // SAFETY: the buffer is readable for its whole length.
        let count = check(unsafe { write(self.0, bytes.as_ptr().cast(), bytes.len()) }, "write", name)?;
        if count == bytes.len() { Ok(()) } else { Err(format!("write: {count} of {} bytes", bytes.len())) }
    }

    fn stat(&self, name: &CString) -> Result<(), String> {
        let mut stat = StatBuffer([0; 256]);
        // SAFETY: the buffer is larger than any struct stat.
        check(unsafe { fstat(self.0, &raw mut stat) } as isize, "fstat", name).map(drop)
    }

    fn lstat_in(&self, name: &CString) -> Result<(), String> {
        self.lstat_pointer(name.as_ptr()).map_err(|e| format!("lstat {}: {e}", name.to_string_lossy()))
    }

    fn lstat_pointer(&self, name: *const c_char) -> std::io::Result<()> {
        let mut stat = StatBuffer([0; 256]);
        // SAFETY: callers pass a NUL-terminated string; the buffer is larger than any struct stat.
        match unsafe { fstatat(self.0, name, &raw mut stat, AT_SYMLINK_NOFOLLOW) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    fn datasync(&self, name: &CString) -> Result<(), String> {
        // SAFETY: plain system call on an owned descriptor.
        check(unsafe { fdatasync(self.0) } as isize, "fdatasync", name).map(drop)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned and never used again.
        unsafe { close(self.0) };
    }
}

/// splitmix64: the same seed gives every target of a round the same sequence of keys.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

fn c(name: &str) -> CString {
    CString::new(name).expect("names hold no NUL")
}

fn names(prefix: &str, count: usize) -> Vec<CString> {
    (0..count).map(|i| c(&format!("{prefix}{i:07}"))).collect()
}

/// A JSON document of exactly `size` bytes, the final newline included, whose serial number can be replaced in place.
struct Value(Vec<u8>);

impl Value {
    const SERIAL: std::ops::Range<usize> = 6..16;

    fn new(size: usize) -> Value {
        let pad = "x".repeat(size.saturating_sub(28));
        Value(format!("{{\"n\":\"0000000000\",\"pad\":\"{pad}\"}}\n").into_bytes())
    }

    fn numbered(&mut self, mut serial: u64) -> &[u8] {
        for digit in self.0[Self::SERIAL].iter_mut().rev() {
            *digit = b'0' + (serial % 10) as u8;
            serial /= 10;
        }
        &self.0
    }
}

#[derive(Default)]
struct Sample {
    total: Duration,
    latencies: Vec<Duration>,
}

impl Sample {
    /// One clock reading per operation: its end is the next one's start.
    fn of(count: usize, mut operation: impl FnMut(usize) -> Result<(), String>) -> Result<Sample, String> {
        let mut latencies = Vec::with_capacity(count);
        let start = Instant::now();
        let mut last = start;
        for i in 0..count {
            operation(i)?;
            let now = Instant::now();
            latencies.push(now - last);
            last = now;
        }
        Ok(Sample { total: last - start, latencies })
    }

    /// Operations of several threads at once: the wall time of all of them, the latencies of each.
    fn of_threads<F>(threads: usize, per_thread: usize, setup: F) -> Result<Sample, String>
    where
        F: Fn(usize) -> Result<Box<dyn FnMut(usize) -> Result<(), String>>, String> + Sync,
    {
        let barrier = Barrier::new(threads);
        let parts: Result<Vec<(Instant, Sample)>, String> = std::thread::scope(|scope| {
            let (barrier, setup) = (&barrier, &setup);
            let workers: Vec<_> = (0..threads)
                .map(|t| {
                    scope.spawn(move || {
                        let operation = setup(t);
                        barrier.wait();
                        let start = Instant::now();
                        Ok((start, Sample::of(per_thread, operation?)?))
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().expect("worker")).collect()
        });
        let parts = parts?;
        let start = parts.iter().map(|p| p.0).min().expect("at least one thread");
        let end = parts.iter().map(|p| p.0 + p.1.total).max().expect("at least one thread");
        Ok(Sample { total: end - start, latencies: parts.into_iter().flat_map(|p| p.1.latencies).collect() })
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

struct Options {
    values: HashMap<String, String>,
    command: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let mut values = HashMap::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix("--") else { return Err(format!("unexpected argument {arg}")) };
            if name.is_empty() {
                break;
            }
            values.insert(name.into(), args.next().ok_or(format!("{arg} needs a value"))?.clone());
        }
        Ok(Options { values, command: args.cloned().collect() })
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        self.values.get(name).map(String::as_str).ok_or(format!("--{name} is missing"))
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, String> {
        let Some(text) = self.values.get(name) else { return Ok(default) };
        text.parse().map_err(|_| format!("--{name} {text}: not a number"))
    }
}

type Counters = BTreeMap<String, i64>;

/// The daemon's counters: messages as `/OPCODE`, calls of the store as `+name`. Both are flat objects of
/// numbers, so no JSON library is needed.
fn counters(binary: &str, mount: &str) -> Result<Counters, String> {
    let output = Command::new(binary)
        .args(["status", "--json", mount])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{binary} status: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut counters = Counters::new();
    for (field, mark) in [("\"messages\"", '/'), ("\"calls\"", '+')] {
        let unreadable = || format!("{binary} status --json {mount}: no {field} in {text:?}");
        let rest = &text[text.find(field).ok_or_else(unreadable)?..];
        let open = rest.find('{').ok_or_else(unreadable)? + 1;
        let body = &rest[open..rest.find('}').ok_or_else(unreadable)?];
        for pair in body.split(',').filter(|p| !p.trim().is_empty()) {
            let (name, count) = pair.split_once(':').ok_or_else(unreadable)?;
            let count = count.trim().parse().map_err(|_| unreadable())?;
            counters.insert(format!("{mark}{}", name.trim().trim_matches('"')), count);
        }
    }
    Ok(counters)
}

fn difference(after: &Counters, before: &Counters) -> Counters {
    after.iter().map(|(name, n)| (name.clone(), n - before.get(name).unwrap_or(&0))).collect()
}

/// Counts the messages of `work`, without those that asking for the counters costs.
fn counted<T>(
    options: &Options,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<(T, Option<Counters>), String> {
    let Some(binary) = options.values.get("status") else { return Ok((work()?, None)) };
    let mount = options.text("dir")?;
    let first = counters(binary, mount)?;
    let before = counters(binary, mount)?;
    let result = work()?;
    // RELEASE and FORGET are asynchronous.
    std::thread::sleep(Duration::from_millis(30));
    let mut messages = difference(&counters(binary, mount)?, &before);
    for (name, n) in difference(&before, &first) {
        *messages.entry(name).or_default() -= n;
    }
    Ok((result, Some(messages)))
}

fn list(
    dir: &CString,
    mut each: impl FnMut(&Fd, *const c_char) -> Result<(), String>,
) -> Result<usize, String> {
    const HEADER: usize = 19;
    let fd = Fd::open_dir(dir)?;
    let mut buffer = vec![0u64; DIRENT_BUFFER / 8];
    let base = buffer.as_mut_ptr().cast::<u8>();
    let mut count = 0;
    loop {
        // SAFETY: the buffer is writable for DIRENT_BUFFER bytes.
        let length = check(unsafe { getdents64(fd.0, base.cast(), DIRENT_BUFFER) }, "getdents64", dir)?;
        if length == 0 {
            fd.close(dir)?;
            return Ok(count);
        }
        let mut at = 0;
        while at < length {
            // SAFETY: the kernel filled the buffer with whole records: ino 8, off 8, reclen 2, type 1, name.
            let (reclen, name) = unsafe {
                (base.add(at + 16).cast::<u16>().read_unaligned(), base.add(at + HEADER).cast::<c_char>())
            };
            // SAFETY: names in the buffer end with a NUL.
            let bytes = unsafe { std::ffi::CStr::from_ptr(name) }.to_bytes();
            if bytes != b"." && bytes != b".." {
                count += 1;
                each(&fd, name)?;
            }
            at += usize::from(reclen);
        }
    }
}

fn lstat_each(dir: &Fd, name: *const c_char) -> Result<(), String> {
    dir.lstat_pointer(name).map_err(|e| format!("lstat of a listed name: {e}"))
}

fn read_whole(dir: &Fd, name: &CString, buffer: &mut [u8]) -> Result<usize, String> {
    let file = Fd::open(dir, name, O_RDONLY)?;
    file.stat(name)?;
    let mut length = 0;
    loop {
        match file.read(buffer, name)? {
            0 => break,
            count => length += count,
        }
    }
    file.close(name)?;
    Ok(length)
}

fn expect(found: usize, wanted: usize, what: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found} instead of {wanted}")) }
}

fn put(dir: &Fd, name: &CString, flags: c_int, bytes: &[u8]) -> Result<(), String> {
    let file = Fd::open(dir, name, O_WRONLY | flags)?;
    file.write_all(bytes, name)?;
    file.close(name)
}

struct Bench<'a> {
    options: &'a Options,
    path: CString,
    dir: Fd,
    ops: usize,
    keys: usize,
    size: usize,
    threads: usize,
    round: usize,
    seed: u64,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options) -> Result<Bench<'a>, String> {
        let path = c(options.text("dir")?);
        let round = options.number("round", 0)?;
        let seed = options.number("seed", 1)?;
        Ok(Bench {
            options,
            dir: Fd::open_dir(&path)?,
            path,
            ops: options.number("ops", 1)?,
            keys: options.number("keys", 2000)?,
            size: options.number("size", 1024)?,
            threads: options.number("threads", 1)?,
            round,
            seed: (seed + round) as u64,
        })
    }

    fn run(&self, operation: &str) -> Result<(Sample, Option<Counters>), String> {
        match operation {
            "fill" => self.fill(),
            "orc" | "cat" => self.hot_read(operation == "cat"),
            "stat" => self.hot(&names("key-", self.keys), |name| self.dir.lstat_in(name)),
            "negstat" => self.hot(&names("none-", self.keys), |name| {
                match self.dir.lstat_pointer(name.as_ptr()).map_err(|e| e.raw_os_error()) {
                    Err(Some(ENOENT)) => Ok(()),
                    other => Err(format!("stat of a missing key: {other:?}")),
                }
            }),
            "pread" => self.pread(),
            "ls" => self.listing(|_, _| Ok(())),
            "lsl" => self.listing(lstat_each),
            "lscat" => self.list_and_cat(),
            "create" => self.over_new_names(|name, value| put(&self.dir, name, O_CREAT | O_TRUNC, value)),
            "overwrite" => self.over_new_names(|name, value| put(&self.dir, name, O_TRUNC, value)),
            // White space may follow a document.
            "append" => self.over_new_names(|name, _| put(&self.dir, name, O_APPEND, b"\n")),
            "replace" => self.replace(),
            "unlink" => self.over_new_names(|name, _| {
                // SAFETY: `name` is a NUL-terminated string that outlives the call.
                check(unsafe { unlinkat(self.dir.0, name.as_ptr(), 0) } as isize, "unlink", name).map(drop)
            }),
            "set" => self.set(O_TRUNC, false),
            "setsync" => self.set(O_TRUNC, true),
            "handover" => self.hand_over(),
            "raw" => self.raw(1),
            "rawbatch" => self.raw(16),
            "rawgroup" => self.raw_group(16),
            other => Err(format!("unknown operation {other}")),
        }
    }

    fn fill(&self) -> Result<(Sample, Option<Counters>), String> {
        let per_thread = self.keys.div_ceil(self.threads);
        let sample = Sample::of_threads(self.threads, per_thread, |t| {
            let (dir, mut value, keys) = (Fd::open_dir(&self.path)?, Value::new(self.size), self.keys);
            Ok(Box::new(move |i| match t * per_thread + i {
                key if key < keys => {
                    put(&dir, &c(&format!("key-{key:07}")), O_CREAT | O_TRUNC, value.numbered(key as u64))
                }
                _ => Ok(()),
            }))
        })?;
        Ok((sample, None))
    }

    /// Random names out of `names`, after two passes over all of them: the first READ of an inode makes its
    /// cached atime stale, which costs the next stat one GETATTR, once.
    fn hot(
        &self,
        names: &[CString],
        mut operation: impl FnMut(&CString) -> Result<(), String>,
    ) -> Result<(Sample, Option<Counters>), String> {
        for name in names.iter().chain(names) {
            operation(name)?;
        }
        let mut random = Random(self.seed);
        counted(self.options, || Sample::of(self.ops, |_| operation(&names[random.below(names.len())])))
    }

    fn hot_read(&self, like_cat: bool) -> Result<(Sample, Option<Counters>), String> {
        let mut buffer = vec![0; READ_BUFFER];
        self.hot(&names("key-", self.keys), |name| {
            let length = if like_cat {
                read_whole(&self.dir, name, &mut buffer)?
            } else {
                let file = Fd::open(&self.dir, name, O_RDONLY)?;
                let length = file.read(&mut buffer, name)?;
                file.close(name)?;
                length
            };
            expect(length, self.size, "bytes read")
        })
    }

    fn pread(&self) -> Result<(Sample, Option<Counters>), String> {
        let names = names("key-", self.keys.min(64));
        let files: Result<Vec<Fd>, String> =
            names.iter().map(|name| Fd::open(&self.dir, name, O_RDONLY)).collect();
        let files = files?;
        let mut buffer = vec![0; READ_BUFFER];
        let mut once = |i: usize| expect(files[i].pread(&mut buffer, &names[i])?, self.size, "bytes read");
        (0..files.len()).try_for_each(&mut once)?;
        let mut random = Random(self.seed);
        counted(self.options, || Sample::of(self.ops, |_| once(random.below(files.len()))))
    }

    fn listing(
        &self,
        each: impl Fn(&Fd, *const c_char) -> Result<(), String>,
    ) -> Result<(Sample, Option<Counters>), String> {
        for _ in 0..self.options.number("warm", 0)? {
            list(&self.path, &each)?;
        }
        counted(self.options, || {
            Sample::of(self.ops, |_| expect(list(&self.path, &each)?, self.keys, "names listed"))
        })
    }

    fn list_and_cat(&self) -> Result<(Sample, Option<Counters>), String> {
        let mut buffer = vec![0; READ_BUFFER];
        let once = |_| {
            let mut found = Vec::with_capacity(self.keys);
            list(&self.path, |_, name| {
                // SAFETY: `list` passes NUL-terminated names.
                found.push(unsafe { std::ffi::CStr::from_ptr(name) }.to_owned());
                Ok(())
            })?;
            expect(found.len(), self.keys, "names listed")?;
            found.iter().try_for_each(|name| {
                expect(read_whole(&self.dir, name, &mut buffer)?, self.size, "bytes read")
            })
        };
        counted(self.options, || Sample::of(self.ops, once))
    }

    /// Names that no earlier round has used: a name seen before may have a cached negative entry.
    fn new_names(&self) -> Vec<CString> {
        names(&format!("new-{}-", self.round), self.ops)
    }

    /// Every call writes other values: kvfs does not publish what the key has already.
    fn over_new_names(
        &self,
        mut operation: impl FnMut(&CString, &[u8]) -> Result<(), String>,
    ) -> Result<(Sample, Option<Counters>), String> {
        let now = std::time::UNIX_EPOCH.elapsed().map_err(|e| e.to_string())?;
        let (names, mut value, mut random) =
            (self.new_names(), Value::new(self.size), Random(now.as_nanos() as u64));
        counted(self.options, || {
            Sample::of(self.ops, |i| operation(&names[i], value.numbered(random.below(1 << 32) as u64)))
        })
    }

    /// What rsync and atomic writers do: a temporary neighbour, then rename(2) over the key.
    fn replace(&self) -> Result<(Sample, Option<Counters>), String> {
        let temporary: Vec<CString> =
            (0..self.ops).map(|i| c(&format!(".new-{}.{:06}", self.round, i))).collect();
        let mut next = temporary.iter();
        self.over_new_names(|name, value| {
            let temporary = next.next().expect("one per operation");
            put(&self.dir, temporary, O_CREAT | O_EXCL, value)?;
            // SAFETY: both names are NUL-terminated strings that outlive the call.
            let result = unsafe { renameat(self.dir.0, temporary.as_ptr(), self.dir.0, name.as_ptr()) };
            check(result as isize, "rename to", name).map(drop)
        })
    }

    /// `threads` writers replace values of their own random keys: open(O_TRUNC), write, close.
    fn set(&self, flags: c_int, sync: bool) -> Result<(Sample, Option<Counters>), String> {
        let own = self.keys / self.threads;
        counted(self.options, || {
            Sample::of_threads(self.threads, self.ops / self.threads, |t| {
                let (dir, mut value) = (Fd::open_dir(&self.path)?, Value::new(self.size));
                let names = names("key-", self.keys)[t * own..(t + 1) * own].to_vec();
                let mut random = Random(self.seed.wrapping_mul(1000) + t as u64);
                Ok(Box::new(move |_| {
                    let name = &names[random.below(names.len())];
                    let bytes = value.numbered(random.below(1 << 32) as u64);
                    if !sync {
                        return put(&dir, name, flags, bytes);
                    }
                    let file = Fd::open(&dir, name, O_WRONLY | flags)?;
                    file.write_all(bytes, name)?;
                    file.datasync(name)?;
                    file.close(name)
                }))
            })
        })
    }

    /// What waking another thread and being woken by it costs on this machine at this moment: the floor of every
    /// message to a daemon. Eventfds wake as /dev/fuse does, without the hint that keeps pipes on one CPU.
    fn hand_over(&self) -> Result<(Sample, Option<Counters>), String> {
        let name = c("eventfd");
        let new = || {
            // SAFETY: plain system call.
            let fd = unsafe { eventfd(0, 0) };
            check(fd as isize, "eventfd", &name).map(|_| Fd(fd))
        };
        let (there, back) = (new()?, new()?);
        let one = 1u64.to_ne_bytes();
        std::thread::scope(|scope| {
            let (there, back, name) = (&there, &back, &name);
            let echo = scope.spawn(move || {
                (0..self.ops).try_for_each(|_| {
                    there.read(&mut [0; 8], name)?;
                    back.write_all(&one, name)
                })
            });
            let sample = Sample::of(self.ops, |_| {
                there.write_all(&one, name)?;
                back.read(&mut [0; 8], name).map(drop)
            })?;
            echo.join().expect("echo")?;
            Ok((sample, None))
        })
    }

    fn raw_file(&self, name: &CString) -> Result<Fd, String> {
        Fd::open(&self.dir, name, O_WRONLY | O_CREAT | O_APPEND | O_TRUNC)
    }

    fn raw(&self, batch: usize) -> Result<(Sample, Option<Counters>), String> {
        let name = c(&format!("raw-{batch}"));
        let (file, mut value) = (self.raw_file(&name)?, Value::new(self.size));
        let mut sample = Sample::of(self.ops / batch, |i| {
            for j in 0..batch {
                file.write_all(value.numbered((i * batch + j) as u64), &name)?;
            }
            file.datasync(&name)
        })?;
        for latency in &mut sample.latencies {
            *latency /= batch as u32;
        }
        sample.total /= batch as u32;
        Ok((sample, None))
    }

    /// Writers hand their record to one committer and wait. The committer takes what is queued, at most `limit`
    /// records, appends each with its own write(2), calls fdatasync(2) once and then wakes those writers.
    fn raw_group(&self, limit: usize) -> Result<(Sample, Option<Counters>), String> {
        type Job = (Vec<u8>, mpsc::SyncSender<()>);
        let name = c("raw-group");
        let file = self.raw_file(&name)?;
        let (sender, receiver) = mpsc::channel::<Job>();
        let committer = std::thread::spawn(move || -> Result<(), String> {
            while let Ok(first) = receiver.recv() {
                let mut batch = vec![first];
                batch.extend(receiver.try_iter().take(limit - 1));
                for (record, _) in &batch {
                    file.write_all(record, &name)?;
                }
                file.datasync(&name)?;
                for (_, done) in batch {
                    done.send(()).map_err(|_| "a writer is gone")?;
                }
            }
            Ok(())
        });
        let sample = Sample::of_threads(self.threads, self.ops / self.threads, |t| {
            let (sender, mut value, size) = (sender.clone(), Value::new(self.size), t as u64);
            let (done, wait) = mpsc::sync_channel(1);
            Ok(Box::new(move |i| {
                let record = value.numbered(size << 24 | i as u64).to_vec();
                sender.send((record, done.clone())).map_err(|_| "the committer is gone")?;
                wait.recv().map_err(|_| "the committer is gone".into())
            }))
        });
        drop(sender);
        committer.join().expect("committer")?;
        Ok((sample?, None))
    }
}

fn run_command(options: &Options) -> Result<(Sample, Option<Counters>), String> {
    let [program, args @ ..] = options.command.as_slice() else { return Err("no command".into()) };
    counted(options, || {
        Sample::of(1, |_| {
            let status = Command::new(program)
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .map_err(|e| format!("{program}: {e}"))?;
            if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
        })
    })
}

/// Records per operation; a command counts as one operation.
fn print_records(options: &Options, sample: Sample, messages: Option<Counters>) -> Result<(), String> {
    let Sample { total, mut latencies } = sample;
    latencies.sort_unstable();
    let count = latencies.len() as f64;
    let key = ["section", "op", "target", "round"]
        .map(|name| options.text(name).map(str::to_owned))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?
        .join("\t");
    println!("{key}\tns\t{:.1}", total.as_nanos() as f64 / count);
    println!("{key}\tp50\t{}", percentile(&latencies, 50).as_nanos());
    println!("{key}\tp99\t{}", percentile(&latencies, 99).as_nanos());
    if let Some(keys) = options.values.get("per") {
        println!("{key}\tkeys\t{keys}");
    }
    if let Some(messages) = messages {
        println!("{key}\tcounted\t1");
        for (name, n) in messages.iter().filter(|(_, n)| **n != 0) {
            println!("{key}\t{name}\t{:.4}", *n as f64 / count);
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Beyond this factor a goal counts as missed; less is within the noise of a shared machine.
const TOLERANCE: f64 = 1.1;

/// The ratio a row should stay under.
fn goal(section: &str, operation: &str, target: &str) -> Option<f64> {
    let sqlite = target == "kvfs sqlite:";
    if section == "durable" {
        return match (operation, target) {
            ("1 writer", "kvfs sqlite: less kvfs memory:") => Some(1.25),
            ("16 writers", "kvfs sqlite:") => Some(1.3),
            _ => None,
        };
    }
    if !(sqlite || target == "kvfs memory:") {
        return None;
    }
    match (section, operation) {
        ("hot", "open+read+close") => Some(5.5),
        ("hot", "cat") => Some(4.6),
        ("hot", "stat") => Some(1.2),
        ("hot", "stat, no such key") => Some(0.7),
        ("hot", "pread") => Some(1.0),
        ("list", "ls, hot") => Some(0.5),
        ("list", "ls -l, cold") => Some(3.0),
        ("write", "create") if !sqlite => Some(6.0),
        ("write", "overwrite") if !sqlite => Some(5.0),
        ("write", "unlink") if !sqlite => Some(3.2),
        _ => None,
    }
}

/// Measured values of one operation on one target: metric -> round -> value.
type Row = HashMap<String, BTreeMap<usize, f64>>;

#[derive(Default)]
struct Table {
    order: Vec<(String, String)>,
    rows: HashMap<(String, String), Row>,
}

impl Table {
    fn read(section: &str, records: &str) -> Table {
        let mut table = Table::default();
        for line in records.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [of, operation, target, round, metric, value] = fields[..] else { continue };
            let (Ok(round), Ok(value)) = (round.parse(), value.parse()) else { continue };
            if of == section {
                table.add(operation, target, round, metric, value);
            }
        }
        table
    }

    fn add(&mut self, operation: &str, target: &str, round: usize, metric: &str, value: f64) {
        let key = (operation.to_owned(), target.to_owned());
        if !self.rows.contains_key(&key) {
            // Targets of an operation stay together although rounds start with different ones.
            let after =
                self.order.iter().rposition(|(o, _)| o == operation).map_or(self.order.len(), |i| i + 1);
            self.order.insert(after, key.clone());
        }
        self.rows.entry(key).or_default().entry(metric.into()).or_default().insert(round, value);
    }

    fn values(&self, operation: &str, target: &str, metric: &str) -> Option<&BTreeMap<usize, f64>> {
        self.rows.get(&(operation.to_owned(), target.to_owned()))?.get(metric)
    }

    fn median(&self, operation: &str, target: &str, metric: &str) -> Option<f64> {
        median(self.values(operation, target, metric)?.values().copied().collect())
    }

    /// The median of the per-round ratios to the reference target.
    fn ratio(&self, operation: &str, target: &str, reference: &str, metric: &str) -> Option<f64> {
        let base = self.values(operation, reference, metric)?;
        let mine = self.values(operation, target, metric)?;
        median(mine.iter().filter_map(|(round, v)| Some(v / base.get(round)?)).collect())
    }

    /// The counters whose name begins with `mark`, most frequent first.
    fn counts(&self, operation: &str, target: &str, mark: char) -> String {
        let row = &self.rows[&(operation.to_owned(), target.to_owned())];
        if !row.contains_key("counted") {
            return String::new();
        }
        let rounds = row["counted"].len();
        let mut found: Vec<(f64, &str)> = row
            .iter()
            .filter_map(|(metric, values)| {
                let name = metric.strip_prefix(mark)?;
                // What is absent from a round was counted zero times in it.
                let zeros = rounds - values.len();
                let all = values.values().copied().chain(std::iter::repeat_n(0.0, zeros)).collect();
                Some((median(all)?, name))
            })
            .filter(|(n, _)| n.abs() >= 0.005)
            .collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        if found.is_empty() {
            return "none".into();
        }
        let show = |n: f64| if n.fract() == 0.0 { format!("{n}") } else { format!("{n:.2}") };
        found.iter().map(|(n, name)| format!("{} {name}", show(*n))).collect::<Vec<_>>().join(", ")
    }

    fn messages(&self, operation: &str, target: &str) -> String {
        let [messages, calls] = ['/', '+'].map(|mark| self.counts(operation, target, mark));
        if calls.is_empty() || calls == "none" { messages } else { format!("{messages}; store: {calls}") }
    }

    /// What the store adds to the messages of the same operation on memory.
    fn add_difference(&mut self, operation: &str) {
        for metric in ["ns", "p50"] {
            let [Some(sqlite), Some(memory)] = ["kvfs sqlite:", "kvfs memory:"]
                .map(|target| self.values(operation, target, metric).cloned())
            else {
                continue;
            };
            for (round, value) in sqlite {
                if let Some(less) = memory.get(&round) {
                    self.add(operation, "kvfs sqlite: less kvfs memory:", round, metric, value - less);
                }
            }
        }
    }

    /// The display order: the order of first appearance in the first round depends on its rotation.
    fn sorted(&self, reference: &str) -> Vec<(String, String)> {
        let rank = |target: &str| {
            [reference, "raw", "ext4", "bindfs", "kvfs memory:", "kvfs sqlite:"]
                .iter()
                .position(|t| target == *t)
                .unwrap_or(if target.starts_with("kvfs") { 9 } else { 3 })
        };
        let mut operations: Vec<&str> = Vec::new();
        for (operation, _) in &self.order {
            if !operations.contains(&operation.as_str()) {
                operations.push(operation);
            }
        }
        let mut order = self.order.clone();
        order.sort_by_key(|(o, t)| (operations.iter().position(|x| x == o), rank(t)));
        order
    }
}

fn significant(value: f64) -> String {
    match value.abs() {
        v if v >= 99.5 => format!("{value:.0}"),
        v if v >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn cell(value: Option<f64>, suffix: &str) -> String {
    value.map_or(String::new(), |v| significant(v) + suffix)
}

fn report(section: &str, records: &str) -> String {
    let mut table = Table::read(section, records);
    let mut out = String::new();
    let reference = if section == "durable" { "raw" } else { "tmpfs" };
    if section == "durable" {
        table.add_difference("1 writer");
        table.add_difference("16 writers");
    }
    if section == "million" {
        return report_values(&table, reference);
    }
    let listing = section == "list";
    let unit = if listing { "ms | µs per key" } else { "µs" };
    let spread = if listing { String::new() } else { format!(" p50 | x {reference} | x bindfs | p99 |") };
    let _ = writeln!(out, "| operation | target | {unit} | x {reference} |{spread} goal | messages |");
    let _ = writeln!(out, "|---|---|{}", "---|".repeat(if listing { 5 } else { 8 }));
    for (operation, target) in table.sorted(reference) {
        let (op, to) = (operation.as_str(), target.as_str());
        let get = |metric| table.median(op, to, metric);
        let ratio = table.ratio(op, to, reference, "ns");
        // A disk stalls now and then; with one writer the median tells what a commit costs.
        let judged = if op == "1 writer" { table.ratio(op, to, reference, "p50") } else { ratio };
        let goal = match (goal(section, op, to), judged) {
            (Some(goal), Some(ratio)) if ratio > goal * TOLERANCE => format!("{goal}x, **missed**"),
            (Some(goal), _) => format!("{goal}x"),
            _ => String::new(),
        };
        let ns = get("ns");
        let times = if listing {
            let per_key = ns.zip(get("keys")).map(|(ns, keys)| ns / keys / 1e3);
            format!("{} | {} | {}", cell(ns.map(|v| v / 1e6), ""), cell(per_key, ""), cell(ratio, "x"))
        } else {
            let [p50, p99] = ["p50", "p99"].map(|metric| cell(get(metric).map(|v| v / 1e3), ""));
            let typical = [reference, "bindfs"].map(|other| cell(table.ratio(op, to, other, "p50"), "x"));
            let (mean, typical) = (cell(ns.map(|v| v / 1e3), ""), typical.join(" | "));
            format!("{mean} | {} | {p50} | {typical} | {p99}", cell(ratio, "x"))
        };
        let _ = writeln!(out, "| {op} | {to} | {times} | {goal} | {} |", table.messages(op, to));
    }
    out
}

/// Operations that each have one metric, named by its unit.
fn report_values(table: &Table, reference: &str) -> String {
    let mut out = format!("| measure | target | median | min | max | x {reference} | messages |\n");
    out += "|---|---|---|---|---|---|---|\n";
    for (operation, target) in table.sorted(reference) {
        let (op, to) = (operation.as_str(), target.as_str());
        let row = &table.rows[&(operation.clone(), target.clone())];
        let Some((unit, scale)) = [("ns", 1e6), ("MiB", 1.0), ("bytes", 1.0), ("objects", 1.0)]
            .into_iter()
            .find(|(unit, _)| row.contains_key(*unit))
        else {
            continue;
        };
        let values = || row[unit].values().map(|v| v / scale);
        let shown = if unit == "ns" { " ms" } else { &format!(" {unit}") };
        let [low, high] =
            [values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max)].map(significant);
        let ratio = (to != reference && unit == "ns").then(|| table.ratio(op, to, reference, unit)).flatten();
        let _ = writeln!(
            out,
            "| {op} | {to} | {} | {low} | {high} | {} | {} |",
            cell(median(values().collect()), shown),
            cell(ratio, "x"),
            table.messages(op, to)
        );
    }
    out
}

fn main_with(args: &[String]) -> Result<(), String> {
    match args {
        [mode, operation, rest @ ..] if mode == "run" => {
            let options = Options::parse(rest)?;
            let (sample, messages) = Bench::new(&options)?.run(operation)?;
            print_records(&options, sample, messages)
        }
        [mode, rest @ ..] if mode == "time" => {
            let options = Options::parse(rest)?;
            let (sample, messages) = run_command(&options)?;
            print_records(&options, sample, messages)
        }
        [mode] if mode == "spin" => loop {
            std::hint::spin_loop();
        },
        [mode, section, path] if mode == "report" => {
            let records = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            print!("{}", report(section, &records));
            Ok(())
        }
        _ => Err("usage: driver run OP ... | driver time ... -- CMD | driver report SECTION FILE".into()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match main_with(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bench driver: {message}");
            ExitCode::FAILURE
        }
    }
}
