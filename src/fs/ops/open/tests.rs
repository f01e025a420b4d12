use crate::store::{Change, Expect, Key, Store, Text};

use std::time::Duration;

use crate::fs::types::ROOT;

use super::*;

#[tokio::test]
async fn a_listing_that_is_newer_than_the_remembered_value_is_never_read_as_that_value() {
    let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
    let caller = Caller { thread: 1, uid: 0, gid: 0 };
    let text = |text: &str| Text::from(text.as_bytes());
    fs.cache.set_key_value(&Key::from("k"), text("1"), Expect::Anything).await.unwrap();
    let ino = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
    // The feed has not told of it yet.
    elsewhere.set_key_value(&Key::from("k"), text("22"), Expect::Anything).await.unwrap();
    let directory = fs.clone().open_directory(caller, ROOT).await.unwrap();
    let mut size = 0;
    fs.read_directory_plus(&directory, 2, |_, attr, _| {
        size = attr.size;
        true
    });
    assert_eq!(size, 2);
    let access = Access { write: false, append: false, truncate: false };
    let opened = fs.clone().open(caller, ino, access).await.unwrap();
    assert_eq!(fs.read(opened.fh, 0, 10, <[u8]>::to_vec).unwrap(), b"22");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_comes_back_late_is_not_sent_to_look_again() {
    let access = Access { write: true, append: false, truncate: false };
    let caller = Caller { thread: 1, uid: 0, gid: 0 };
    for (before, after) in [(60, 0), (0, 60), (60, 60)] {
        let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
        fs.cache.set_key_value(&Key::from("k"), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let look = async || fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let read = Access { write: false, ..access };
        fs.clone().open(Caller { thread: 2, ..caller }, look().await, read).await.unwrap();
        assert_eq!(fs.clone().open(caller, look().await, access).await, Err(FsError::Superseded));
        // The kernel waits for the lock of a directory, or for the names on the way.
        tokio::time::advance(Duration::from_secs(before)).await;
        let ino = look().await;
        tokio::time::advance(Duration::from_secs(after)).await;
        let opened = fs.clone().open(caller, ino, access).await.unwrap();
        fs.write(opened.fh, 0, b"2").unwrap();
        fs.clone().flush(caller, opened.fh, 0).await.unwrap();
        fs.clone().release(opened.fh).await;
        assert_eq!(fs.cache.peek(&Key::from("k")).unwrap().value.unwrap().text[..], *b"2");
    }
}

const WRITE: Access = Access { write: true, append: false, truncate: true };
const READ: Access = Access { write: false, append: false, truncate: false };

fn thread(thread: u32) -> Caller {
    Caller { thread, uid: 0, gid: 0 }
}

/// A mount with the key `k`, which is 1.
async fn with_k() -> Arc<Fs> {
    let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
    fs.cache.set_key_value(&Key::from("k"), Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
    fs
}

async fn look(fs: &Arc<Fs>, caller: Caller) -> (Ino, u64) {
    let attr = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap();
    (attr.ino, attr.size)
}

async fn set(fs: &Arc<Fs>, caller: Caller, opened: Opened, text: &[u8]) {
    fs.write(opened.fh, 0, text).unwrap();
    fs.clone().flush(caller, opened.fh, 0).await.unwrap();
}

#[tokio::test]
async fn a_writer_works_on_the_inode_of_the_name_and_others_find_snapshots() {
    let fs = with_k().await;
    let (writer, other) = (thread(1), thread(2));
    let (home, _) = look(&fs, writer).await;
    let opened = fs.clone().open(writer, home, WRITE).await.unwrap();
    let (before, size) = look(&fs, other).await;
    assert!(before != home && size == 1);
    set(&fs, writer, opened, b"22").await;
    let (after, size) = look(&fs, other).await;
    assert!(after != home && after != before && size == 2);
    fs.clone().release(opened.fh).await;
    assert_eq!(look(&fs, other).await, (home, 2));
}

#[tokio::test(start_paused = true)]
async fn the_name_comes_back_when_who_kept_it_away_has_closed_it() {
    let fs = with_k().await;
    let (writer, other) = (thread(1), thread(2));
    let (home, _) = look(&fs, other).await;
    let reader = fs.clone().open(other, home, READ).await.unwrap();
    assert_eq!(fs.clone().open(writer, home, WRITE).await, Err(FsError::Superseded));
    let (own, _) = look(&fs, writer).await;
    assert_ne!(own, home);
    let opened = fs.clone().open(writer, own, WRITE).await.unwrap();
    set(&fs, writer, opened, b"22").await;
    fs.clone().release(opened.fh).await;
    assert_eq!(fs.read(reader.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"1");
    assert_ne!(look(&fs, other).await.0, home);
    fs.clone().release(reader.fh).await;
    assert_eq!(look(&fs, other).await, (home, 2));
}

#[tokio::test(start_paused = true)]
async fn callers_who_cannot_be_told_apart_have_an_inode_each() {
    let fs = with_k().await;
    let unknown = thread(0);
    let (home, _) = look(&fs, thread(1)).await;
    let reader = fs.clone().open(thread(1), home, READ).await.unwrap();
    assert_eq!(fs.clone().open(unknown, home, WRITE).await, Err(FsError::Superseded));
    let own = [look(&fs, unknown).await.0, look(&fs, unknown).await.0];
    assert!(own[0] != own[1] && !own.contains(&home));
    let [first, second] = own.map(|ino| fs.clone().open(unknown, ino, WRITE));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    set(&fs, unknown, first, b"22").await;
    set(&fs, unknown, second, b"333").await;
    for fh in [first.fh, second.fh, reader.fh] {
        fs.clone().release(fh).await;
    }
    assert_eq!(look(&fs, thread(1)).await, (home, 3));
}

#[tokio::test(start_paused = true)]
async fn who_has_no_name_to_look_up_waits_for_the_writer_and_then_reads_past_the_page_cache() {
    for caller in [thread(0), thread(2)] {
        let fs = with_k().await;
        let (home, _) = look(&fs, thread(1)).await;
        let opened = fs.clone().open(thread(1), home, WRITE).await.unwrap();
        assert_eq!(fs.clone().open(caller, home, READ).await, Err(FsError::Superseded));
        let direct = fs.clone().open(caller, home, READ).await.unwrap();
        assert!(direct.direct);
        assert_eq!(fs.read(direct.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"1");
        fs.clone().release(direct.fh).await;
        assert_eq!(fs.clone().open(caller, home, READ).await, Err(FsError::Superseded));
        let waiting = tokio::spawn(fs.clone().open(caller, home, READ));
        tokio::task::yield_now().await;
        set(&fs, thread(1), opened, b"22").await;
        fs.clone().release(opened.fh).await;
        let cached = waiting.await.unwrap().unwrap();
        assert!(!cached.direct);
        assert_eq!(fs.read(cached.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
    }
}

#[tokio::test(start_paused = true)]
async fn what_who_was_sent_back_reads_has_the_size_that_the_kernel_is_told() {
    let fs = with_k().await;
    let (writer, reader) = (thread(1), thread(2));
    let (home, _) = look(&fs, reader).await;
    let opened = fs.clone().open(writer, home, WRITE).await.unwrap();
    assert_eq!(fs.clone().open(reader, home, READ).await, Err(FsError::Superseded));
    let (snapshot, size) = look(&fs, thread(3)).await;
    assert!(snapshot != home && size == 1);
    // The text is not at hand, as while a set is in flight, and is another one when it is read.
    let private = fs.state.lock().private(snapshot, None);
    set(&fs, writer, opened, b"22").await;
    let read = fs.clone().open(reader, private, READ).await.unwrap();
    let size = fs.getattr(private, None).unwrap().attr.unwrap().size;
    assert_eq!(size, 2);
    assert_eq!(fs.read(read.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
}

#[tokio::test(start_paused = true)]
async fn one_who_cannot_be_told_apart_does_not_wait_for_those_who_were_sent_back_after_he_came() {
    let fs = with_k().await;
    let unknown = thread(0);
    let (home, _) = look(&fs, unknown).await;
    let writer = fs.clone().open(thread(1), home, WRITE).await.unwrap();
    assert_eq!(fs.clone().open(unknown, home, READ).await, Err(FsError::Superseded));
    tokio::time::advance(Duration::from_millis(1)).await;
    let waiting = tokio::spawn(fs.clone().open(unknown, home, READ));
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(1)).await;
    // The first one is back, and another one is sent to look again at the same time.
    look(&fs, unknown).await;
    assert_eq!(fs.clone().open(unknown, home, READ).await, Err(FsError::Superseded));
    assert_eq!(waiting.await.unwrap(), Err(FsError::Superseded));
    fs.clone().release(writer.fh).await;
}

#[tokio::test]
async fn a_change_that_came_in_since_the_value_was_fetched_is_what_is_read() {
    let fs = with_k().await;
    let (home, _) = look(&fs, thread(1)).await;
    let (key, old) = (Key::from("k"), fs.cache.peek(&Key::from("k")).unwrap().value);
    let meta = fs.cache.set_key_value(&key, Text::from(&b"22"[..]), Expect::Anything).await.unwrap();
    let stale = fs.state.lock().install_version("k", &meta, Origin::Read);
    fs.invalidate_and_wait(stale).await;
    let fetched = Some(Fetched(key, old));
    let mut attempt = Attempt { fetched, asked: 1, since: Instant::now(), retried: false, turn: None };
    let Ok(Plan::Done(opened)) = fs.plan_open(thread(1), home, READ, &mut attempt) else { panic!() };
    assert_eq!(fs.read(opened.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
}

#[tokio::test]
async fn a_version_that_the_feed_told_of_since_the_value_was_fetched_is_fetched() {
    let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
    let (key, text) = (Key::from("k"), |text: &str| Text::from(text.as_bytes()));
    fs.cache.set_key_value(&key, text("1"), Expect::Anything).await.unwrap();
    let (home, _) = look(&fs, thread(1)).await;
    let old = fs.cache.peek(&key).unwrap().value;
    let meta = elsewhere.set_key_value(&key, text("22"), Expect::Anything).await.unwrap();
    fs.take_in(Change::Set(key.clone(), meta)).await;
    assert!(fs.cache.peek(&key).is_none());
    let mut attempt = Attempt {
        fetched: Some(Fetched(key, old)),
        asked: 1,
        since: Instant::now(),
        retried: false,
        turn: None,
    };
    let plan = fs.plan_open(thread(1), home, READ, &mut attempt);
    assert!(matches!(plan, Ok(Plan::Fetch)));
}

#[tokio::test(start_paused = true)]
async fn who_changes_a_text_of_which_the_kernel_has_no_size_writes_past_its_pages() {
    let fs = with_k().await;
    let (writer, change) = (thread(1), Access { truncate: false, ..WRITE });
    let (home, _) = look(&fs, writer).await;
    for append in [false, true] {
        for (is_told, truncate) in [(false, false), (true, false), (false, true)] {
            fs.state.lock().stale(home);
            fs.invalidate_now(home).await;
            if is_told {
                fs.getattr(home, None).unwrap();
            }
            let access = Access { append, truncate, ..change };
            let opened = fs.clone().open(writer, home, access).await.unwrap();
            assert_eq!(opened.direct, !is_told && !truncate);
            fs.write(opened.fh, 0, b"22").unwrap();
            fs.clone().flush(writer, opened.fh, 0).await.unwrap();
            fs.clone().release(opened.fh).await;
            let shown = fs.getattr(home, None).unwrap().attr.unwrap().size;
            let text = fs.cache.peek(&Key::from("k")).unwrap().value.unwrap().text;
            assert_eq!(shown, text.len() as u64);
        }
    }
}

#[tokio::test]
async fn two_who_write_a_new_file_have_a_draft_each_and_others_see_none() {
    let fs = Fs::in_memory(Duration::ZERO).0;
    let (_, first) = fs.create(thread(0), (ROOT, "k"), 0o644, WRITE, false).unwrap();
    fs.write(first.fh, 0, b"[1,").unwrap();
    let (empty, size) = look(&fs, thread(0)).await;
    assert_eq!(size, 0);
    let second = fs.clone().open(thread(0), empty, WRITE).await.unwrap();
    set(&fs, thread(0), second, b"22").await;
    assert_eq!(look(&fs, thread(2)).await.1, 2);
    fs.write(first.fh, 3, b"2]").unwrap();
    fs.clone().flush(thread(0), first.fh, 0).await.unwrap();
    fs.clone().release(first.fh).await;
    fs.clone().release(second.fh).await;
    assert_eq!(look(&fs, thread(2)).await.1, 5);
}

#[tokio::test]
async fn who_gave_up_an_open_that_was_to_look_again_finds_the_newest_version_by_the_next() {
    let newest = |access: Access| Access { truncate: false, ..access };
    for (looked, write) in [(false, false), (false, true), (true, false), (true, true)] {
        let fs = with_k().await;
        let (writer, other) = (thread(1), thread(2));
        let (home, _) = look(&fs, other).await;
        let reader = fs.clone().open(other, home, READ).await.unwrap();
        assert_eq!(fs.clone().open(writer, home, newest(WRITE)).await, Err(FsError::Superseded));
        let before = if looked { Some(look(&fs, writer).await.0) } else { None };
        let text = Text::from(&b"22"[..]);
        let meta = fs.cache.set_key_value(&Key::from("k"), text, Expect::Anything).await.unwrap();
        fs.take_in(Change::Set(Key::from("k"), meta)).await;
        let ino = if let Some(ino) = before {
            // By way of a descriptor of O_PATH.
            ino
        } else {
            let (ino, size) = look(&fs, writer).await;
            assert_eq!(size, 2);
            ino
        };
        let opened = fs.clone().open(writer, ino, if write { newest(WRITE) } else { READ }).await.unwrap();
        assert_eq!(fs.read(opened.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"22");
        assert_eq!(fs.getattr(ino, Some(opened.fh)).unwrap().attr.unwrap().size, 2);
        if write {
            set(&fs, writer, opened, b"33").await;
        }
        for fh in [opened.fh, reader.fh] {
            fs.clone().release(fh).await;
        }
        assert_eq!(look(&fs, other).await, (home, 2));
    }
}

#[tokio::test]
async fn who_gave_up_an_open_finds_nothing_where_the_key_is_gone() {
    let fs = with_k().await;
    let (home, _) = look(&fs, thread(2)).await;
    fs.clone().open(thread(2), home, READ).await.unwrap();
    assert_eq!(fs.clone().open(thread(1), home, WRITE).await, Err(FsError::Superseded));
    fs.clone().unlink(thread(3), ROOT, "k".into()).await.unwrap();
    assert_eq!(fs.clone().lookup(thread(1), ROOT, "k".into()).await.unwrap().attr, None);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_name_to_look_up_waits_longer_for_those_who_have_just_come() {
    let fs = with_k().await;
    let (reader, writer) = (thread(1), thread(2));
    let (home, _) = look(&fs, reader).await;
    let read = fs.clone().open(reader, home, READ).await.unwrap();
    assert_eq!(fs.clone().open(writer, home, WRITE).await, Err(FsError::Superseded));
    let waiting = tokio::spawn(fs.clone().open(writer, home, WRITE));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    fs.clone().release(read.fh).await;
    assert!(!waiting.await.unwrap().unwrap().direct);
}

#[tokio::test(start_paused = true)]
async fn a_name_lasts_again_where_nobody_has_come_for_the_open_that_he_was_sent_away_with() {
    let fs = with_k().await;
    let (writer, other) = (thread(1), thread(2));
    let lasts = async || !fs.clone().lookup(other, ROOT, "k".into()).await.unwrap().ttl.is_zero();
    let (home, _) = look(&fs, other).await;
    fs.clone().open(other, home, READ).await.unwrap();
    assert!(lasts().await);
    assert_eq!(fs.clone().open(writer, home, WRITE).await, Err(FsError::Superseded));
    let (own, _) = look(&fs, writer).await;
    assert!(own != home && !lasts().await);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(lasts().await);
    // Late, but there he is.
    let opened = fs.clone().open(writer, own, WRITE).await.unwrap();
    assert!(!lasts().await);
    set(&fs, writer, opened, b"22").await;
    assert_eq!(look(&fs, other).await.1, 2);
}

#[tokio::test(start_paused = true)]
async fn who_waited_while_the_file_was_removed_and_made_anew_reads_the_new_one_at_its_size() {
    let fs = with_k().await;
    let (writer, reader, other) = (thread(1), thread(2), thread(3));
    let (home, _) = look(&fs, writer).await;
    let opened = fs.clone().open(writer, home, Access { truncate: false, ..WRITE }).await.unwrap();
    assert_eq!(fs.clone().open(reader, home, READ).await, Err(FsError::Superseded));
    let waiting = tokio::spawn(fs.clone().open(reader, home, READ));
    tokio::task::yield_now().await;
    fs.clone().unlink(other, ROOT, "k".into()).await.unwrap();
    fs.write(opened.fh, 0, b"4444").unwrap();
    let (_, made) = fs.create(other, (ROOT, "k"), 0o644, WRITE, false).unwrap();
    set(&fs, other, made, b"55555").await;
    fs.clone().release(made.fh).await;
    fs.clone().release(opened.fh).await;
    let read = waiting.await.unwrap().unwrap();
    assert_eq!(fs.read(read.fh, 0, 9, <[u8]>::to_vec).unwrap(), b"55555");
    assert_eq!(fs.getattr(home, None).unwrap().attr.unwrap().size, 5);
}

#[tokio::test(start_paused = true)]
async fn who_writes_a_bound_file_beside_who_made_it_anew_sees_his_own_size() {
    let fs = with_k().await;
    let (bound, other) = (thread(1), thread(2));
    let (home, _) = look(&fs, bound).await;
    fs.clone().unlink(other, ROOT, "k".into()).await.unwrap();
    let (_, made) = fs.create(other, (ROOT, "k"), 0o644, WRITE, false).unwrap();
    set(&fs, other, made, b"55555").await;
    let change = Access { truncate: false, ..WRITE };
    assert_eq!(fs.clone().open(bound, home, change).await, Err(FsError::Superseded));
    let opened = fs.clone().open(bound, home, change).await.unwrap();
    fs.write(opened.fh, 0, b"4444444").unwrap();
    assert_eq!(fs.getattr(home, None).unwrap().attr.unwrap().size, 7);
    fs.clone().flush(bound, opened.fh, 0).await.unwrap();
    fs.clone().release(opened.fh).await;
    fs.clone().release(made.fh).await;
    let (_, size) = look(&fs, other).await;
    assert_eq!((size, fs.getattr(home, None).unwrap().attr.unwrap().size), (7, 7));
}
