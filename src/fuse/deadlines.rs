//! Each message is answered within one `--timeout`, however many calls of a slow store it takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fuser::Errno;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::answer::Answers;
use super::messages::Op;
use crate::cache::{self, Cache};
use crate::fs::names::Names;
use crate::fs::{self, Access, Caller, Changes, Fh, Fs, FsResult, Ino, ROOT, WriteMode};
use crate::store::{
    Entry, Error, Expect, Feed, Guarded, Key, Limits, Listing, MemoryStore, Meta, Rename, Result, Revision,
    Store, Text,
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// One answer is within the deadline, two are not.
const SLOW: Duration = Duration::from_secs(4);
const NEVER: Duration = Duration::from_hours(1);
const CALLER: Caller = Caller { thread: 1, uid: 0, gid: 0 };
const OVERWRITE: Access = Access { write: true, append: false, truncate: true };

/// A store in memory that takes its time, and tells what it was asked to change.
struct Slow {
    store: MemoryStore,
    millis: AtomicU64,
    busy: AtomicBool,
    changes: Mutex<Vec<String>>,
}

impl Slow {
    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let millis = self.millis.load(Ordering::Relaxed);
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        call.await
    }

    async fn change<T>(&self, what: String, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.changes.lock().push(what);
        if self.busy.load(Ordering::Relaxed) {
            return Err(Error::Busy("locked".into()));
        }
        self.call(call).await
    }

    /// From now on each call takes this long.
    fn takes(&self, time: Duration) {
        self.millis.store(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for Slow {
    fn name(&self) -> &'static str {
        "slow:"
    }

    fn limits(&self) -> Limits {
        Limits { tags: true, ..self.store.limits() }
    }

    async fn list_keys(&self) -> Result<Listing> {
        self.call(self.store.list_keys()).await
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.call(self.store.get_key_value(key)).await
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        let shown = String::from_utf8_lossy(&text).into_owned();
        self.change(shown, self.store.set_key_value(key, text, expect)).await
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        self.change("delete".into(), self.store.delete_key(key, expect)).await
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        self.change("rename".into(), self.store.rename_key(from, to, at, expect)).await
    }

    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        self.change("rename all".into(), self.store.rename_keys(renames)).await
    }

    async fn get_tags(&self, _: &Key) -> Result<Vec<String>> {
        self.call(async { Ok(Vec::new()) }).await
    }

    async fn set_tags(&self, _: &Key, _: &[String]) -> Result<()> {
        self.change("tags".into(), async { Ok(()) }).await
    }

    fn changes(&self) -> Option<Feed> {
        None
    }
}

/// A mount of the keys `a`, `b`, `d/1` and `d/2`, of which nothing is remembered.
struct Mount {
    fs: Arc<Fs>,
    answers: Answers,
    store: Arc<Slow>,
    home: TempDir,
}

impl Mount {
    async fn new() -> Self {
        let home = TempDir::new().unwrap();
        let store = Arc::new(Slow {
            store: MemoryStore::new(),
            millis: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            changes: Mutex::default(),
        });
        let bounds = cache::Settings {
            entries: 100.try_into().unwrap(),
            bytes: 1 << 20,
            max_age: Duration::ZERO,
            max_stale: Duration::ZERO,
        };
        let cache = Arc::new(Cache::new(Arc::new(Guarded::new(store.clone(), TIMEOUT)), bounds));
        let settings = fs::Settings {
            names: Names::default().in_directories("/").unwrap(),
            rejected: home.path().join("rejected"),
            ..fs::Settings::plain()
        };
        let fs = Fs::new(cache, settings);
        let answers = Answers::new(fs.clone(), Handle::current(), Arc::default());
        let mount = Self { fs, answers, store, home };
        for key in ["a", "b", "d/1", "d/2"] {
            mount.set(key).await;
        }
        mount
    }

    /// Somebody else sets `key`.
    async fn set(&self, key: &str) {
        let text = Text::from(&b"1\n"[..]);
        self.store.store.set_key_value(&Key::from(key), text, Expect::Anything).await.unwrap();
    }

    /// The answer to a message, and how long it took.
    async fn answer<T: Send + 'static>(
        &self,
        op: Op,
        work: impl Future<Output = FsResult<T>> + Send + 'static,
    ) -> (std::result::Result<T, Errno>, Duration) {
        let (reply, answer) = oneshot::channel();
        let began = Instant::now();
        self.answers.give(op, "a", work, move |result| drop(reply.send(result)));
        (answer.await.unwrap(), began.elapsed())
    }

    async fn ino(&self, within: Ino, name: &str) -> Ino {
        self.fs.clone().lookup(CALLER, within, name.into()).await.unwrap().attr.unwrap().ino
    }

    /// Opens the key `name` to overwrite it, as the kernel does: it looks again where it is told to.
    async fn overwrite(&self, name: &str) -> Fh {
        let ino = self.ino(ROOT, name).await;
        if let Ok(opened) = self.fs.clone().open(CALLER, ino, OVERWRITE).await {
            return opened.fh;
        }
        let ino = self.ino(ROOT, name).await;
        self.fs.clone().open(CALLER, ino, OVERWRITE).await.unwrap().fh
    }

    /// Has `b` renamed to a backup name, which is deferred.
    async fn move_aside(&self) -> Ino {
        self.ino(ROOT, "b").await;
        self.fs.clone().rename(CALLER, (ROOT, "b".into()), (ROOT, "b~".into()), false).await.unwrap();
        self.ino(ROOT, "b~").await
    }

    fn kept(&self) -> usize {
        let entries = std::fs::read_dir(self.home.path().join("rejected")).into_iter().flatten();
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".rejected")).count()
    }
}

type Work = Pin<Box<dyn Future<Output = FsResult<()>> + Send>>;

/// Messages of every kind that asks the store, each about names of its own.
async fn messages(at: &Mount) -> Vec<(Op, Work)> {
    let (a, d) = (at.ino(ROOT, "a").await, at.ino(ROOT, "d").await);
    let (written, backup) = (at.overwrite("a").await, at.move_aside().await);
    let directory = Arc::new(at.fs.clone().open_directory(CALLER, ROOT).await.unwrap());
    // Who reads it a second time from the start wants the names of now.
    let directory = at.fs.clone().directory_at(CALLER, directory, 0).await.unwrap();
    let fs = || at.fs.clone();
    let read = Access { write: false, append: false, truncate: false };
    let size = Changes { size: Some(1), ..Changes::default() };
    let name = |name: &str| name.to_owned();
    macro_rules! work {
        ($call:expr) => {{
            let call = $call;
            Box::pin(async move { call.await.map(drop) }) as Work
        }};
    }
    vec![
        (Op::Lookup, work!(fs().lookup(CALLER, d, name("1")))),
        (Op::Open, work!(fs().open(CALLER, a, read))),
        (Op::Open, work!(fs().open(CALLER, backup, OVERWRITE))),
        (Op::Unlink, work!(fs().unlink(CALLER, ROOT, name("a")))),
        (Op::Rename, work!(fs().rename(CALLER, (ROOT, name("a")), (ROOT, name("c")), false))),
        (Op::Rename, work!(fs().rename(CALLER, (ROOT, name("d")), (ROOT, name("e")), false))),
        (Op::SetAttr, work!(fs().setattr(CALLER, a, None, size))),
        (Op::SetAttr, work!(fs().setattr(CALLER, backup, None, size))),
        (Op::GetXAttr, work!(fs().get_xattr(a, name("user.kvfs.tags")))),
        (Op::GetXAttr, work!(fs().get_xattr(a, name("user.kvfs.age")))),
        (Op::GetXAttr, work!(fs().get_xattr(a, name("user.kvfs.check")))),
        (Op::GetXAttr, work!(fs().get_xattr(ROOT, name("user.kvfs.changes")))),
        (Op::SetXAttr, work!(fs().set_xattr(a, name("user.kvfs.tags"), b"[]".to_vec()))),
        (Op::OpenDir, work!(fs().open_directory(CALLER, d))),
        (Op::ReadDir, work!(fs().directory_at(CALLER, directory, 0))),
        (Op::MkDir, work!(fs().make_directory(CALLER, ROOT, name("n"), 0o755))),
        (Op::RmDir, work!(fs().remove_directory(CALLER, ROOT, name("d")))),
        (Op::FSyncDir, work!(fs().fsync_directory(ROOT))),
        (Op::Write, work!(fs().write_and_publish(written, 0, b"3\n", WriteMode::default()))),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_message_is_answered_within_one_deadline() {
    for time in [SLOW, NEVER] {
        let mut late = Vec::new();
        let count = messages(&Mount::new().await).await.len();
        for index in 0..count {
            let at = Mount::new().await;
            let (op, work) = messages(&at).await.swap_remove(index);
            at.store.takes(time);
            let (_, took) = at.answer(op, work).await;
            if took > TIMEOUT {
                late.push(format!("{} ({index}): {took:?}", op.name()));
            }
            // Nothing is left in flight.
            at.store.takes(Duration::ZERO);
            tokio::time::sleep(NEVER).await;
            at.set("a").await;
            let fh = at.overwrite("a").await;
            at.fs.write(fh, 0, b"2\n").unwrap();
            at.fs.clone().flush(CALLER, fh, 0).await.unwrap();
            at.fs.clone().release(fh).await;
        }
        assert_eq!(late, Vec::<String>::new(), "{time:?} for each call of the store");
    }
}

#[tokio::test(start_paused = true)]
async fn all_messages_at_once_are_answered_within_one_deadline() {
    for time in [SLOW, NEVER] {
        let at = Mount::new().await;
        let messages = messages(&at).await;
        at.store.takes(time);
        let began = Instant::now();
        let (ended, mut ends) = mpsc::unbounded_channel();
        for (op, work) in messages {
            let ended = ended.clone();
            at.answers.give(op, "a", work, move |_| _ = ended.send(began.elapsed()));
        }
        drop(ended);
        while let Some(took) = ends.recv().await {
            assert!(took <= TIMEOUT, "{took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_did_not_get_its_turn_is_known_not_to_have_been_made() {
    let at = Mount::new().await;
    let (first, second) = (at.overwrite("a").await, at.overwrite("a").await);
    at.fs.write(first, 0, b"\"first\"\n").unwrap();
    at.fs.write(second, 0, b"\"second\"\n").unwrap();
    at.store.takes(NEVER);
    let close = |fh| at.answer(Op::Flush, at.fs.clone().flush(CALLER, fh, 0));
    let ((one, _), (other, took)) = tokio::join!(close(first), close(second));
    assert!(
        matches!((one, other), (Err(one), Err(other)) if (one.code(), other.code()) == (libc::ETIMEDOUT, libc::ETIMEDOUT))
    );
    assert!(took <= TIMEOUT, "{took:?}");
    at.store.takes(Duration::ZERO);
    tokio::time::sleep(NEVER).await;
    at.fs.clone().release(first).await;
    at.fs.clone().release(second).await;
    // What was told as not done is not done after all, and both texts are kept.
    assert_eq!(*at.store.changes.lock(), ["\"first\"\n"]);
    assert_eq!(at.kept(), 2);
    let why = at.fs.refusals(ROOT).unwrap();
    let said = |part: &str| why.iter().any(|(_, refusal)| refusal.to_string().contains(part));
    assert!(said("the store was not asked") && said("no answer from the store"), "{why:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_end_of_a_mount_is_published_although_the_store_was_busy_just_before() {
    let at = Mount::new().await;
    let fh = at.overwrite("a").await;
    at.fs.write(fh, 0, b"2\n").unwrap();
    at.store.busy.store(true, Ordering::Relaxed);
    let (closed, _) = at.answer(Op::Flush, at.fs.clone().flush(CALLER, fh, 0)).await;
    assert_eq!(closed.unwrap_err().code(), libc::EBUSY);
    at.store.busy.store(false, Ordering::Relaxed);
    assert_eq!((at.fs.clone().finish().await, at.kept()), (0, 0));
    assert_eq!(at.store.store.get_key_value(&Key::from("a")).await.unwrap().text[..], *b"2\n");
}
