//! Values: set, get, delete.

use kvfs::store::Error;

use super::Bench;

pub(crate) async fn a_set_key_is_got_and_listed(at: Bench) {
    assert_eq!(at.keys().await, [""; 0]);
    let meta = at.set("db", r#"{"host":"db1"}"#).await;
    assert_eq!(meta.size, 14);
    let entry = at.get("db").await.unwrap();
    assert_eq!(entry.meta, meta);
    assert_eq!(&entry.text[..], br#"{"host":"db1"}"#);
    assert_eq!(at.list().await, [("db".to_owned(), meta)]);
}

pub(crate) async fn an_overwrite_replaces_the_whole_value(at: Bench) {
    for text in ["[1,2,3,4,5,6,7,8]", "1", "", "[1,2]"] {
        let meta = at.set("k", text).await;
        assert_eq!(meta.size, text.len() as u64);
        assert_eq!(at.text("k").await, text.as_bytes());
        assert_eq!(at.list().await, [("k".to_owned(), meta)]);
    }
}

pub(crate) async fn a_deleted_key_is_gone(at: Bench) {
    at.set("gone", "1").await;
    at.set("kept", "2").await;
    at.delete("gone").await.unwrap();
    assert!(at.is_missing("gone").await);
    assert_eq!(at.keys().await, ["kept"]);
    assert_eq!(at.delete("gone").await, Err(Error::NotFound));
    at.set("gone", "3").await;
    assert_eq!(at.text("gone").await, b"3");
    assert_eq!(at.text("kept").await, b"2");
}

pub(crate) async fn a_missing_key_is_not_found(at: Bench) {
    for key in ["missing", ""] {
        assert_eq!(at.get(key).await, Err(Error::NotFound));
        assert_eq!(at.delete(key).await, Err(Error::NotFound));
        assert_eq!(at.rename(key, "other").await, Err(Error::NotFound));
        assert_eq!(at.rename(key, key).await, Err(Error::NotFound));
    }
    assert_eq!(at.keys().await, [""; 0]);
}

pub(crate) async fn bytes_come_back_exactly(at: Bench) {
    let all: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 11] = [
        &all,
        b"",
        b"\0",
        b"\n",
        b"\n\n",
        b"\xff\xfe not UTF-8 \xc3",
        b"\xef\xbb\xbf1",
        b"{\"a\":1}\r\n",
        b"  {\"b\" : 1.0e3 , \"a\":12345678901234567890}  ",
        b"\"\\ud800\"",
        &[b'0'; 4096],
    ];
    for (number, value) in values.iter().enumerate() {
        let key = format!("k{number}");
        at.set(&key, value).await;
        assert_eq!(at.text(&key).await, *value);
        at.set("one key for all", value).await;
        assert_eq!(at.text("one key for all").await, *value);
    }
}

pub(crate) async fn a_value_at_the_limit_is_kept(at: Bench) {
    let limit = at.0.limits().value;
    let full = [b"[".to_vec(), vec![b' '; limit - 2], b"]".to_vec()].concat();
    let with_newline = [&full[..], b"\n"].concat();
    for value in [&full, &with_newline] {
        let meta = at.set("k", value).await;
        assert_eq!(meta.size, value.len() as u64);
        assert_eq!(at.text("k").await, *value);
    }
}

pub(crate) async fn a_value_over_the_limit_is_refused_and_changes_nothing(at: Bench) {
    let limit = at.0.limits().value;
    let refused = [vec![b'1'; limit + 1], [&vec![b'1'; limit][..], b"\n\n"].concat(), vec![b'1'; 3 * limit]];
    let sizes = [limit + 1, limit + 1, 3 * limit];
    at.set("old", "1").await;
    let before = at.everything().await;
    for (value, size) in refused.iter().zip(sizes) {
        for key in ["old", "new"] {
            let result = at.try_set(key, value, kvfs::store::Expect::Anything).await;
            assert_eq!(result, Err(Error::TooLarge { size, limit }));
        }
    }
    assert_eq!(at.everything().await, before);
}
