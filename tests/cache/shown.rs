//! What files show of changes that meet others on their way.

use std::sync::Arc;
use std::time::Duration;

use kvfs::cache::FOREVER;
use kvfs::fs::document::Validate;
use kvfs::fs::names::Names;
use kvfs::fs::scratch::Patterns;
use kvfs::fs::{Access, Caller, Found, Fs, FsResult, Ino, Invalidation, Kernel, ROOT, Settings};
use kvfs::store::{Change, FeedSender, Store, feed};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Remembered::Nothing;
use super::double::When::{After, Before};
use super::{Bench, HOUR, block_on, down, roomy};

pub(super) const READ: Access = Access { write: false, ..WRITE };
pub(super) const CALLER: Caller = Caller { thread: 1, uid: 0, gid: 0 };
pub(super) const WRITE: Access = Access { write: true, append: false, truncate: false };

/// The files of a bench, the feed of the store, and what the kernel was told.
pub(super) struct Files {
    pub(super) at: Bench,
    pub(super) fs: Arc<Fs>,
    feed: FeedSender,
    drops: Drops,
    _home: tempfile::TempDir,
}

#[derive(Clone, Default)]
struct Drops(Arc<Mutex<Vec<Invalidation>>>);

impl Kernel for Drops {
    fn can_invalidate_all(&self) -> bool {
        true
    }

    fn invalidate(&self, invalidations: Vec<Invalidation>) -> oneshot::Receiver<()> {
        self.0.lock().extend(invalidations);
        oneshot::channel().1
    }

    fn invalidate_inode(&self, _: Ino) -> bool {
        true
    }

    fn expire_attributes(&self, _: Ino) {}

    fn invalidate_all(&self) {}
}

impl Files {
    fn new(pushed: bool) -> Self {
        Self::named(pushed, Names::default())
    }

    pub(super) fn named(pushed: bool, names: Names) -> Self {
        let at = Bench::new(roomy());
        let (feed, changes) = feed::channel();
        *at.double.feed.lock() = pushed.then_some(changes);
        let home = tempfile::tempdir().unwrap();
        let settings = Settings {
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0,
            of_new: kvfs::fs::OfNew::default(),
            validate: Validate::Json,
            names,
            scratch: Patterns::new(&[]).unwrap(),
            rejected: home.path().to_owned(),
            clock: Arc::new(kvfs::fs::SystemClock),
            timeout: HOUR,
        };
        let fs = Fs::new(at.cache.clone(), settings);
        let drops = Drops::default();
        fs.attach(Box::new(drops.clone()));
        tokio::spawn(fs.clone().follow(at.cache.follow()));
        Self { at, fs, feed, drops, _home: home }
    }

    /// Of a store that tells of its changes, with the key `k` that was set and looked at here.
    pub(super) async fn with_k() -> Self {
        let files = Self::new(true);
        files.at.set("k", "1").await.unwrap();
        assert_eq!(files.size("k").await, Some(1));
        files
    }

    pub(super) async fn lookup(&self, name: &str) -> Found {
        self.fs.clone().lookup(CALLER, ROOT, name.to_owned()).await.unwrap()
    }

    /// The size of a file; `None` if there is no such file.
    pub(super) async fn size(&self, name: &str) -> Option<u64> {
        self.lookup(name).await.attr.map(|attr| attr.size)
    }

    /// Makes a file, writes `text` to it and closes it.
    pub(super) async fn make(&self, name: &str, text: &str) {
        let (_, opened) = self.fs.create(CALLER, (ROOT, name), 0o666, WRITE, true).unwrap();
        if !text.is_empty() {
            self.fs.write(opened.fh, 0, text.as_bytes()).unwrap();
        }
        self.fs.clone().flush(CALLER, opened.fh, 0).await.unwrap();
        self.fs.clone().release(opened.fh).await;
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> impl Future<Output = FsResult<()>> + use<> {
        self.fs.clone().rename(CALLER, (ROOT, from.to_owned()), (ROOT, to.to_owned()), false)
    }

    /// The store tells that changes were missed.
    async fn miss_changes(&self) {
        self.at.get("another").await.unwrap();
        self.tell(Change::Everything, "another").await;
    }

    /// The store tells of a change, after which nothing is remembered of `key`.
    pub(super) async fn tell(&self, change: Change, key: &str) {
        self.feed.send(change);
        while self.at.remembered(key) != Nothing {
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn a_new_file_that_is_empty_gives_way_to_a_key_that_was_set_among_changes_that_were_missed() {
    block_on(async {
        let files = Files::new(true);
        assert_eq!(files.size("k").await, None);
        files.make("k", "").await;
        assert_eq!(files.size("k").await, Some(0));
        files.at.set_elsewhere("k", "22").await;
        files.miss_changes().await;
        assert_eq!(files.size("k").await, Some(2));
    });
}

#[test]
fn a_new_file_that_is_empty_gives_way_to_a_key_although_the_store_was_down_when_it_was_closed() {
    block_on(async {
        let files = Files::new(true);
        assert_eq!(files.size("k").await, None);
        let (_, opened) = files.fs.create(CALLER, (ROOT, "k"), 0o666, WRITE, false).unwrap();
        let meta = files.at.set_elsewhere("k", "22").await;
        files.tell(Change::Set("k".into(), meta), "k").await;
        files.at.double.fail(down());
        files.fs.clone().release(opened.fh).await;
        files.at.double.fail(None);
        assert_eq!(files.size("k").await, Some(2));
    });
}

#[test]
fn a_file_renamed_onto_a_key_does_not_hide_a_newer_value_among_changes_that_were_missed() {
    block_on(async {
        let files = Files::with_k().await;
        files.make("k.tmp", "333").await;
        let hold = files.at.double.hold("set_key_value", "k", After);
        let renaming = tokio::spawn(files.rename("k.tmp", "k"));
        hold.reached().await;
        files.at.set_elsewhere("k", "22").await;
        files.miss_changes().await;
        hold.release();
        renaming.await.unwrap().unwrap();
        assert_eq!(files.size("k").await, Some(2));
    });
}

#[test]
fn changes_missed_during_many_writes_are_told_to_the_kernel_once() {
    block_on(async {
        let files = Files::new(true);
        let names: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
        let mut renaming = Vec::new();
        for name in &names {
            let temporary = format!("{name}.tmp");
            files.make(&temporary, "1").await;
            let hold = files.at.double.hold("set_key_value", name, After);
            renaming.push((tokio::spawn(files.rename(&temporary, name)), hold.clone()));
            hold.reached().await;
        }
        files.miss_changes().await;
        for (renaming, hold) in renaming {
            hold.release();
            renaming.await.unwrap().unwrap();
        }
        let all = |drop: &&Invalidation| matches!(drop, Invalidation::Everything);
        assert_eq!(files.drops.0.lock().iter().filter(all).count(), 1);
        for name in &names {
            assert_eq!(files.size(name).await, Some(1));
        }
    });
}

#[test]
fn a_key_that_is_newer_in_a_listing_than_what_is_remembered_of_it_is_found_while_the_store_is_down() {
    block_on(async {
        let files = Files::with_k().await;
        let meta = files.at.set_elsewhere("k", "22").await;
        files.at.double.fail(down());
        files.tell(Change::Set("k".into(), meta), "k").await;
        files.feed.send(Change::Paused);
        while files.at.cache.is_pushed() {
            tokio::task::yield_now().await;
        }
        assert_eq!(files.size("k").await, Some(2));
    });
}

#[test]
fn what_is_read_of_an_older_version_is_not_what_the_kernel_takes_the_file_for() {
    block_on(async {
        let files = Files::new(true);
        files.at.set("k", "1").await.unwrap();
        let ino = files.lookup("k").await.attr.unwrap().ino;
        files.at.set_elsewhere("k", "22").await;
        let directory = files.fs.clone().open_directory(CALLER, ROOT).await.unwrap();
        files.fs.read_directory_plus(&directory, 2, |_, _, _| false);
        files.at.double.fail(down());
        let read = Access { write: false, append: false, truncate: false };
        let opened = files.fs.clone().open(CALLER, ino, read).await.unwrap();
        assert!(opened.direct);
        let shown = |fh| files.fs.getattr(ino, fh).map(|found| (found.attr.unwrap().size, found.ttl));
        assert_eq!(shown(Some(opened.fh)).unwrap(), (1, Duration::ZERO));
        assert_eq!(shown(None).unwrap().0, 2);
    });
}

#[test]
fn a_new_file_outlives_the_key_of_its_name_that_was_renamed_to_a_backup() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.make("k", "").await;
        assert_eq!(files.size("k").await, Some(0));
        let tending = tokio::spawn(files.fs.clone().tend());
        while files.at.calls("rename_key") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(files.size("k").await, Some(0));
        tending.abort();
    });
}

#[test]
fn a_file_that_is_restored_from_its_backup_is_there_although_its_key_was_being_renamed() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.make("k.tmp", "1").await;
        let hold = files.at.double.hold("rename_key", "k", Before);
        let tending = tokio::spawn(files.fs.clone().tend());
        hold.reached().await;
        let restoring = tokio::spawn(files.rename("k.tmp", "k"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        hold.release();
        restoring.await.unwrap().unwrap();
        let entry = files.at.double.store.get_key_value(&"k".into()).await.unwrap();
        assert_eq!(entry.text[..], *b"1");
        assert_eq!(files.size("k").await, Some(1));
        tending.abort();
    });
}

#[test]
fn a_key_that_two_processes_rename_to_a_backup_is_renamed_once() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        // Who does not see that it was renamed.
        let other = Caller { thread: std::os::unix::process::parent_id(), ..CALLER };
        let again = files.fs.clone().rename(other, (ROOT, "k".into()), (ROOT, "k~".into()), false);
        again.await.unwrap_err();
        assert_eq!((files.size("k").await, files.size("k~").await), (None, Some(1)));
        assert_eq!(files.at.calls("rename_key"), 1);
        files.at.double.store.get_key_value(&"k~".into()).await.unwrap();
    });
}

#[test]
fn a_temporary_file_that_is_rewritten_while_it_becomes_a_key_becomes_it_again() {
    block_on(async {
        let files = Files::new(true);
        files.make("k.tmp", "1").await;
        let hold = files.at.double.hold("set_key_value", "k.tmp", After);
        let tending = tokio::spawn(files.fs.clone().tend());
        hold.reached().await;
        let ino = files.lookup("k.tmp").await.attr.unwrap().ino;
        let opened = files.fs.clone().open(CALLER, ino, WRITE).await.unwrap();
        files.fs.write(opened.fh, 0, b"22").unwrap();
        files.fs.clone().flush(CALLER, opened.fh, 0).await.unwrap();
        files.fs.clone().release(opened.fh).await;
        hold.release();
        let stored = async || files.at.double.store.get_key_value(&"k.tmp".into()).await.unwrap().text;
        while stored().await[..] != *b"22" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(files.size("k.tmp").await, Some(2));
        tending.abort();
    });
}

#[test]
fn a_writer_that_found_its_key_gone_has_an_inode_of_its_own_when_it_writes_the_next() {
    block_on(async {
        let files = Files::new(true);
        files.at.set("k", "1").await.unwrap();
        let ino = files.lookup("k").await.attr.unwrap().ino;
        files.at.delete_elsewhere("k").await;
        files.miss_changes().await;
        assert_eq!(files.at.get("k").await.unwrap().value, None);
        files.fs.clone().open(CALLER, ino, WRITE).await.unwrap_err();
        assert_eq!(files.size("k").await, None);
        files.make("k", "22").await;
        let found = files.lookup("k").await.attr.unwrap();
        files.fs.clone().open(CALLER, found.ino, READ).await.unwrap();
        files.fs.clone().open(CALLER, found.ino, WRITE).await.unwrap_err();
        let own = files.lookup("k").await.attr.unwrap();
        assert_ne!(own.ino, found.ino);
        assert_eq!(own.number, found.number);
    });
}

#[test]
fn a_file_that_is_restored_from_its_backup_in_time_costs_no_set() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.make("k.tmp", "1").await;
        let sets = files.at.calls("set_key_value");
        let hold = files.at.double.hold("get_key_value", "k", After);
        let renaming = tokio::spawn(files.rename("k.tmp", "k"));
        hold.reached().await;
        // What is about to take the place of the key relies on it.
        let tending = tokio::spawn(files.fs.clone().tend());
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        hold.release();
        renaming.await.unwrap().unwrap();
        assert_eq!((files.at.calls("set_key_value"), files.at.calls("rename_key")), (sets, 0));
        assert_eq!(files.size("k").await, Some(1));
        tending.abort();
    });
}

#[test]
fn a_key_that_is_newer_in_a_listing_than_what_is_remembered_of_it_is_found() {
    block_on(async {
        let files = Files::new(false);
        files.at.set_elsewhere("k", "1").await;
        assert_eq!(files.size("k").await, Some(1));
        files.at.set_elsewhere("k", "22").await;
        let directory = files.fs.clone().open_directory(CALLER, ROOT).await.unwrap();
        files.fs.read_directory_plus(&directory, 2, |_, _, _| false);
        assert_eq!(files.size("k").await, Some(2));
    });
}

#[test]
fn a_file_renamed_onto_a_key_is_its_value_whatever_is_remembered_of_it() {
    block_on(async {
        let files = Files::new(false);
        files.at.set("k", "1").await.unwrap();
        files.at.set_elsewhere("k", "22").await;
        files.make("k.tmp", "1").await;
        files.rename("k.tmp", "k").await.unwrap();
        let entry = files.at.double.store.get_key_value(&"k".into()).await.unwrap();
        assert_eq!(entry.text[..], *b"1");
    });
}

#[test]
fn a_file_is_not_renamed_onto_a_key_while_the_store_is_down() {
    block_on(async {
        let files = Files::new(false);
        files.at.set("k", "1").await.unwrap();
        files.make("k.tmp", "1").await;
        files.at.double.fail(down());
        files.rename("k.tmp", "k").await.unwrap_err();
    });
}

#[test]
fn a_directory_that_somebody_holds_is_found_again_after_changes_that_were_missed() {
    block_on(async {
        let files = Files::named(true, Names::default().in_directories("/").unwrap());
        files.at.set_elsewhere("held/a", "1").await;
        assert!(files.lookup("held").await.attr.unwrap().directory);
        files.at.delete_elsewhere("held/a").await;
        files.miss_changes().await;
        assert_eq!(files.lookup("held").await, Found { attr: None, ttl: FOREVER });
        files.drops.0.lock().clear();
        files.at.get("held/b").await.unwrap();
        let meta = files.at.set_elsewhere("held/b", "1").await;
        files.tell(Change::Set("held/b".into(), meta), "held/b").await;
        assert!(files.drops.0.lock().contains(&Invalidation::Expired(ROOT, "held".into())));
    });
}
