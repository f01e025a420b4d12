//! A key that was renamed to a backup name has one of the two names in the store at any time.

use std::time::Duration;

use kvfs::fs::names::Names;
use kvfs::fs::{Access, Caller, FsError, FsResult, Opened, ROOT};
use kvfs::store::{Change, Store};

use super::shown::{CALLER, Files, WRITE};
use super::{block_on, down};

const READ: Access = Access { write: false, append: false, truncate: false };

fn another_process() -> Caller {
    Caller { thread: std::os::unix::process::parent_id(), ..CALLER }
}

impl Files {
    async fn stored(&self, key: &str) -> Option<String> {
        let entry = self.at.double.store.get_key_value(&key.into()).await.ok()?;
        Some(String::from_utf8(entry.text.to_vec()).unwrap())
    }

    /// Waits until the store has `texts` under `k` and `k~`, as the files do.
    async fn become_in_time(&self, texts: [Option<&str>; 2]) {
        let tending = tokio::spawn(self.fs.clone().tend());
        for (key, text) in ["k", "k~"].into_iter().zip(texts) {
            while self.stored(key).await.as_deref() != text
                || self.size(key).await != text.map(|text| text.len() as u64)
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        tending.abort();
    }

    async fn open(&self, caller: Caller, name: &str, access: Access) -> Opened {
        loop {
            let found = self.fs.clone().lookup(caller, ROOT, name.into()).await.unwrap();
            let ino = found.attr.unwrap().ino;
            match self.fs.clone().open(caller, ino, access).await {
                Err(FsError::Superseded) => {}
                opened => return opened.unwrap(),
            }
        }
    }

    async fn save(&self, caller: Caller, name: &str, text: &str) -> FsResult<()> {
        let fh = self.open(caller, name, Access { truncate: true, ..WRITE }).await.fh;
        self.fs.write(fh, 0, text.as_bytes()).unwrap();
        let closed = self.fs.clone().flush(caller, fh, 0).await;
        self.fs.clone().release(fh).await;
        closed
    }

    async fn sync(&self, name: &str) -> FsResult<()> {
        let fh = self.open(CALLER, name, READ).await.fh;
        let synced = self.fs.clone().fsync(fh).await;
        self.fs.clone().release(fh).await;
        synced
    }
}

#[test]
fn without_a_successor_it_is_the_key() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        assert_eq!(files.stored("k").await.as_deref(), Some("1"));
        files.become_in_time([None, Some("1")]).await;
        files.save(CALLER, "k~", "22").await.unwrap();
        files.become_in_time([None, Some("22")]).await;
    });
}

#[test]
fn once_it_is_synced_it_is_the_key() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.at.double.fail(down());
        files.sync("k~").await.unwrap_err();
        files.at.double.fail(None);
        files.sync("k~").await.unwrap();
        assert_eq!([files.stored("k").await, files.stored("k~").await], [None, Some("1".into())]);
        files.sync("k~").await.unwrap();
        assert_eq!((files.at.calls("rename_key"), files.at.calls("delete_key")), (2, 0));
    });
}

#[test]
fn once_its_directory_is_synced_it_is_the_key() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.fs.clone().fsync_directory(ROOT).await.unwrap();
        assert_eq!([files.stored("k").await, files.stored("k~").await], [None, Some("1".into())]);
    });
}

#[test]
fn a_mount_that_ends_carries_it_out() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.fs.clone().publish_all().await;
        assert_eq!([files.stored("k").await, files.stored("k~").await], [None, Some("1".into())]);
        assert_eq!(files.fs.clone().finish().await, 0);
    });
}

#[test]
fn a_successor_by_another_process_leaves_the_backup_in_the_store() {
    block_on(async {
        for access in [WRITE, Access { truncate: true, ..WRITE }] {
            let files = Files::with_k().await;
            files.rename("k", "k~").await.unwrap();
            let fh = files.open(another_process(), "k", access).await.fh;
            files.fs.write(fh, 0, b"22").unwrap();
            files.fs.clone().flush(another_process(), fh, 0).await.unwrap();
            files.fs.clone().release(fh).await;
            assert_eq!(
                [files.stored("k").await, files.stored("k~").await],
                ["22", "1"].map(|text| Some(text.into()))
            );
            files.become_in_time([Some("22"), Some("1")]).await;
        }
    });
}

#[test]
fn a_successor_by_the_same_process_is_one_set() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.make("k", "22").await;
        files.sync("k~").await.unwrap();
        assert_eq!([files.stored("k").await, files.stored("k~").await], [Some("22".into()), None]);
        assert_eq!((files.size("k~").await, files.at.calls("rename_key")), (Some(1), 0));
    });
}

#[test]
fn what_somebody_else_sets_or_deletes_meanwhile_stays_so() {
    block_on(async {
        for told in [true, false] {
            let files = Files::with_k().await;
            files.rename("k", "k~").await.unwrap();
            let meta = files.at.set_elsewhere("k", "22").await;
            if told {
                files.tell(Change::Set("k".into(), meta), "k").await;
            }
            files.become_in_time([Some("22"), Some("1")]).await;
            let files = Files::with_k().await;
            files.rename("k", "k~").await.unwrap();
            let revision = files.at.delete_elsewhere("k").await;
            if told {
                files.tell(Change::Deleted("k".into(), revision), "k").await;
            }
            files.become_in_time([None, Some("1")]).await;
        }
    });
}

#[test]
fn where_somebody_else_has_taken_the_backup_name_the_key_keeps_its_own() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.at.set_elsewhere("k~", "333").await;
        assert_eq!(files.sync("k~").await.unwrap_err().to_string(), FsError::Exists.to_string());
        assert_eq!(
            [files.stored("k").await, files.stored("k~").await],
            ["1", "333"].map(|text| Some(text.into()))
        );
        assert_eq!(files.size("k").await, Some(1));
    });
}

#[test]
fn where_no_key_can_have_the_backup_name_the_key_gets_its_own_back() {
    block_on(async {
        let files = Files::named(true, Names::with_extension(".json").unwrap());
        files.at.set("k", "1").await.unwrap();
        files.rename("k.json", "k.json~").await.unwrap();
        assert_eq!(files.size("k.json").await, None);
        let tending = tokio::spawn(files.fs.clone().tend());
        while files.size("k.json").await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while files.fs.last_error().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tending.abort();
        let told = files.fs.last_error().unwrap();
        assert_eq!(told.name, "k.json");
        assert!(told.reason.contains("keeps its old name"), "{}", told.reason);
        assert_eq!(files.stored("k").await.as_deref(), Some("1"));
        assert_eq!(files.size("k.json~").await, Some(1));
        files.sync("k.json~").await.unwrap_err();
        files.save(CALLER, "k.json", "22").await.unwrap();
        assert_eq!(files.stored("k").await.as_deref(), Some("22"));
        assert_eq!((files.at.calls("delete_key"), files.at.calls("rename_key")), (0, 0));
    });
}

#[test]
fn a_backup_that_is_written_moved_or_removed_is_a_key_before() {
    block_on(async {
        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.save(CALLER, "k~", "22").await.unwrap();
        files.become_in_time([None, Some("22")]).await;

        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.rename("k~", "l").await.unwrap();
        assert_eq!(files.stored("l").await.as_deref(), Some("1"));
        files.become_in_time([None, None]).await;

        let files = Files::with_k().await;
        files.rename("k", "k~").await.unwrap();
        files.fs.clone().unlink(CALLER, ROOT, "k~".into()).await.unwrap();
        files.become_in_time([None, None]).await;

        let files = Files::with_k().await;
        files.at.set("l", "333").await.unwrap();
        files.rename("k", "k~").await.unwrap();
        files.rename("l", "k~").await.unwrap();
        files.become_in_time([None, Some("333")]).await;
    });
}

#[test]
fn a_backup_that_is_moved_back_costs_nothing() {
    block_on(async {
        let files = Files::with_k().await;
        for mover in [CALLER, another_process()] {
            files.rename("k", "k~").await.unwrap();
            let back = files.fs.clone().rename(mover, (ROOT, "k~".into()), (ROOT, "k".into()), false);
            back.await.unwrap();
            files.become_in_time([Some("1"), None]).await;
        }
        assert_eq!((files.at.calls("rename_key"), files.at.calls("set_key_value")), (0, 1));
    });
}
