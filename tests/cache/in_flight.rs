//! Changes of a name that is being changed: each waits for the one before, and goes by what it left.

use std::pin::Pin;

use kvfs::fs::{Access, Changes, Fh, FsResult, ROOT};
use kvfs::store::Store;

use super::block_on;
use super::double::When::Before;
use super::shown::{CALLER, Files, WRITE};

const TRUNCATE: Access = Access { truncate: true, ..WRITE };

type Call = Pin<Box<dyn Future<Output = FsResult<()>> + Send>>;

/// The key `k`, which a writer is about to set to `new`, and the key `l`.
struct Written {
    files: Files,
    writer: Fh,
}

const NEW: &str = "[22]";

impl Written {
    async fn with(access: Access) -> Self {
        let files = Files::with_k().await;
        files.at.set("l", "333").await.unwrap();
        files.size("l").await;
        let ino = files.lookup("k").await.attr.unwrap().ino;
        let writer = files.fs.clone().open(CALLER, ino, access).await.unwrap().fh;
        files.fs.write(writer, 0, NEW.as_bytes()).unwrap();
        Self { files, writer }
    }

    fn close(&self) -> Call {
        Box::pin(self.files.fs.clone().flush(CALLER, self.writer, 0))
    }

    fn rename(&self, from: &str, to: &str) -> Call {
        Box::pin(self.files.rename(from, to))
    }

    fn unlink(&self, name: &str) -> Call {
        Box::pin(self.files.fs.clone().unlink(CALLER, ROOT, name.into()))
    }

    async fn truncate(&self) -> Call {
        let ino = self.files.lookup("k").await.attr.unwrap().ino;
        let size = Changes { size: Some(5), ..Changes::default() };
        let truncated = self.files.fs.clone().setattr(CALLER, ino, None, size);
        Box::pin(async move { truncated.await.map(drop) })
    }

    /// Has `first` wait in the store, and `second` begin meanwhile.
    async fn at_once(&self, method: &'static str, key: &str, first: Call, second: Call) -> [FsResult<()>; 2] {
        let hold = self.files.at.double.hold(method, key, Before);
        let first = tokio::spawn(first);
        hold.reached().await;
        let second = tokio::spawn(second);
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        hold.release();
        [first.await.unwrap(), second.await.unwrap()]
    }

    /// What the store has, and the files show.
    async fn ends_as(&self, expected: [(&str, Option<&str>); 2]) {
        for (key, text) in expected {
            let stored = self.files.at.double.store.get_key_value(&key.into()).await.ok();
            let stored = stored.map(|entry| String::from_utf8(entry.text.to_vec()).unwrap());
            assert_eq!(stored.as_deref(), text, "{key}");
            assert_eq!(self.files.size(key).await, text.map(|text| text.len() as u64), "{key}");
        }
    }
}

const DONE: [FsResult<()>; 2] = [Ok(()), Ok(())];

#[test]
fn a_rename_during_a_close_takes_along_what_the_close_sets() {
    block_on(async {
        for access in [TRUNCATE, WRITE] {
            let at = Written::with(access).await;
            let ends = at.at_once("set_key_value", "k", at.close(), at.rename("k", "m")).await;
            assert_eq!(ends, DONE);
            at.ends_as([("k", None), ("m", Some(NEW))]).await;
        }
    });
}

#[test]
fn a_close_during_a_rename_sets_the_new_name() {
    block_on(async {
        for access in [TRUNCATE, WRITE] {
            let at = Written::with(access).await;
            let ends = at.at_once("rename_key", "k", at.rename("k", "m"), at.close()).await;
            assert_eq!(ends, DONE);
            at.ends_as([("k", None), ("m", Some(NEW))]).await;
        }
    });
}

#[test]
fn a_key_that_is_removed_during_a_close_is_gone() {
    block_on(async {
        for access in [TRUNCATE, WRITE] {
            let at = Written::with(access).await;
            let ends = at.at_once("set_key_value", "k", at.close(), at.unlink("k")).await;
            assert_eq!(ends, DONE);
            at.ends_as([("k", None), ("l", Some("333"))]).await;
            let at = Written::with(access).await;
            let ends = at.at_once("delete_key", "k", at.unlink("k"), at.close()).await;
            assert_eq!(ends, DONE);
            at.ends_as([("k", None), ("l", Some("333"))]).await;
        }
    });
}

#[test]
fn a_rename_onto_a_key_during_its_close_comes_after_it() {
    block_on(async {
        for access in [TRUNCATE, WRITE] {
            let at = Written::with(access).await;
            let ends = at.at_once("set_key_value", "k", at.close(), at.rename("l", "k")).await;
            assert_eq!(ends, DONE);
            at.ends_as([("k", Some("333")), ("l", None)]).await;
        }
    });
}

#[test]
fn a_temporary_file_that_is_renamed_onto_a_key_during_its_close_comes_after_it() {
    block_on(async {
        for access in [TRUNCATE, WRITE] {
            let at = Written::with(access).await;
            at.files.make("k.tmp", NEW).await;
            let ends = at.at_once("set_key_value", "k", at.close(), at.rename("k.tmp", "k")).await;
            assert_eq!(ends, DONE);
            at.ends_as([("k", Some(NEW)), ("l", Some("333"))]).await;
        }
    });
}

#[test]
fn a_truncation_during_a_close_is_of_what_the_close_sets() {
    block_on(async {
        let at = Written::with(TRUNCATE).await;
        at.files.fs.write(at.writer, 4, b"   ").unwrap();
        let ends = at.at_once("set_key_value", "k", at.close(), at.truncate().await).await;
        assert_eq!(ends, DONE);
        at.ends_as([("k", Some("[22] ")), ("l", Some("333"))]).await;
    });
}

#[test]
fn a_key_that_is_renamed_to_a_backup_during_its_close_has_what_the_close_sets() {
    block_on(async {
        for access in [TRUNCATE, WRITE] {
            let at = Written::with(access).await;
            let ends = at.at_once("set_key_value", "k", at.close(), at.rename("k", "k~")).await;
            assert_eq!(ends, DONE);
            assert_eq!(at.files.size("k~").await, Some(NEW.len() as u64));
            assert_eq!(at.files.size("k").await, None);
        }
    });
}

/// A call that is given up leaves nothing in flight: what others set is shown.
#[test]
fn a_change_that_is_given_up_withholds_no_later_change() {
    block_on(async {
        let at = Written::with(TRUNCATE).await;
        let hold = at.files.at.double.hold("set_key_value", "k", Before);
        let closing = tokio::spawn(at.close());
        hold.reached().await;
        closing.abort();
        closing.await.unwrap_err();
        hold.release();
        let meta = at.files.at.set_elsewhere("k", "4444").await;
        at.files.tell(kvfs::store::Change::Set("k".into(), meta), "k").await;
        while at.files.size("k").await != Some(4) {
            tokio::task::yield_now().await;
        }
        assert_eq!(at.unlink("k").await, Ok(()));
    });
}
