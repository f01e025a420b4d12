//! Tools that only read: what they count and find must be true.

use super::{Bench, Calls, On};

/// Indented, so that it looks the same on every store.
const DB: &str = "{\n  \"h\": 1\n}\n";

/// Three keys of 13, 3 and 1,999 bytes, on a mount that has not read them yet.
fn bench(on: On, tools: &[&str]) -> Option<Bench> {
    let at = on.lasting(tools)?;
    at.put("db", DB);
    at.put("small-key", "42\n");
    at.put("large", &format!("\"{}needle\"\n", "x".repeat(1_990)));
    Some(at.afresh())
}

/// The first command on a mount that has read nothing prints `expected`, and so does the second.
#[track_caller]
fn prints(on: On, tools: &[&str], script: &str, expected: &str) {
    let Some(at) = bench(on, tools) else { return };
    for _ in 0..2 {
        assert_eq!(at.sh(script).succeeds(Calls::NONE), expected, "{script}");
    }
}

pub(super) fn stat_knows_the_size_before_the_first_read(on: On) {
    prints(
        on,
        &["stat"],
        "stat -c '%s %F %h' db small-key large",
        "13 regular file 1\n3 regular file 1\n1999 regular file 1\n",
    );
}

pub(super) fn ls_lists_names_and_sizes(on: On) {
    prints(
        on,
        &["ls", "awk"],
        "ls; ls -l | awk 'NR > 1 { print $5 }'",
        "db\nlarge\nsmall-key\n13\n1999\n3\n",
    );
}

pub(super) fn ls_shows_when_a_key_was_written(on: On) {
    let Some(at) = on.lasting(&["find"]) else { return };
    at.sh("touch -d '-1 minute' $BESIDE/before && echo 1 > k").succeeds(Calls::sets(1));
    let at = at.afresh();
    let script = "find . -type f -newer $BESIDE/before; find . -type f -mmin +1";
    assert_eq!(at.sh(script).succeeds(Calls::NONE), "./k\n");
}

pub(super) fn find_selects_by_size_name_and_type(on: On) {
    prints(
        on,
        &["find"],
        "find . -type f -size 13c; find . -type f -size +1000c; find . -name 'small*'; find . -type d",
        "./db\n./large\n./small-key\n.\n",
    );
}

pub(super) fn find_sees_no_empty_file(on: On) {
    prints(on, &["find"], "find . -empty", "");
}

pub(super) fn grep_finds_text_in_every_key(on: On) {
    prints(
        on,
        &["grep"],
        "grep -rl needle . ; grep -rc 42 . | sort",
        "./large\n./db:0\n./large:0\n./small-key:1\n",
    );
}

pub(super) fn wc_counts_what_is_read(on: On) {
    prints(
        on,
        &["wc"],
        "wc -c db large; cat * | wc -c; wc -l < db",
        "  13 db\n1999 large\n2012 total\n2015\n3\n",
    );
}

pub(super) fn du_adds_up_sizes(on: On) {
    prints(
        on,
        &["du"],
        "du -b db large | cut -f1; test $(du -s db | cut -f1) -gt 0 && echo blocks",
        "13\n1999\nblocks\n",
    );
}

pub(super) fn df_shows_a_filesystem_with_room(on: On) {
    let Some(at) = bench(on, &["df"]) else { return };
    let ran = at.sh("df --output=target,size,avail -k . | tail -n 1");
    let line = ran.succeeds(Calls::NONE);
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(columns[0], at.mount.dir.display().to_string());
    assert!(columns[1..].iter().all(|blocks| blocks.parse::<u64>().is_ok_and(|n| n > 0)), "{line}");
}

pub(super) fn checksums_are_those_of_the_same_file_elsewhere(on: On) {
    let Some(at) = bench(on, &["md5sum", "sha256sum", "cp"]) else { return };
    let script =
        "md5sum * > $BESIDE/sums && cp -r . $BESIDE/copy && cd $BESIDE/copy && md5sum -c --quiet ../sums";
    assert_eq!(at.sh(script).succeeds(Calls::NONE), "");
    drop(at);
    prints(on, &["md5sum"], "md5sum < db", "8e8b221808a52124e5f87feb208c47ca  -\n");
}

pub(super) fn diff_compares_keys(on: On) {
    let Some(at) = bench(on, &["diff", "cmp"]) else { return };
    at.put("db2", DB);
    at.sh("diff db db2 && cmp db db2").succeeds(Calls::NONE);
    let ran = at.sh("diff db small-key");
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "1,3c1\n< {\n<   \"h\": 1\n< }\n---\n> 42\n"));
}

pub(super) fn head_and_tail_read_a_part(on: On) {
    prints(
        on,
        &["head", "tail"],
        "tail -c 8 large; head -c 4 db; tail -n 1 db; tail -c +7 db",
        "needle\"\n{\n  }\n\": 1\n}\n",
    );
}

pub(super) fn dumps_and_filters_read_to_the_end(on: On) {
    prints(
        on,
        &["xxd", "od", "sort", "jq"],
        "xxd -p db; od -An -c small-key; sort db small-key; jq -c . db",
        "7b0a20202268223a20310a7d0a\n   4   2  \\n\n  \"h\": 1\n42\n{\n}\n{\"h\":1}\n",
    );
}

pub(super) fn a_missing_key_is_reported_as_missing(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    for script in ["cat absent", "stat absent", "ls absent", "wc -c absent"] {
        at.sh(script).fails("No such file or directory", Calls::NONE);
    }
}

pub(super) fn reading_changes_nothing(on: On) {
    let Some(at) = bench(on, &["getfattr"]) else { return };
    at.sh("cat * > /dev/null; ls -la; find . -ls; getfattr -d -m - * > /dev/null").succeeds(Calls::NONE);
    assert_eq!(at.names(), ["db", "large", "small-key"]);
    assert_eq!(at.stored("db"), at.kept(DB));
}

/// A listing is a snapshot, which must not bring back names and sizes that have changed since.
pub(super) fn a_listing_in_progress_does_not_undo_changes(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import os\n\
                  listing = os.scandir('.')\n\
                  os.unlink('small-key')\n\
                  os.rename('large', 'renamed')\n\
                  open('db', 'w').write('[' + '1,' * 2000 + '1]')\n\
                  list(listing)\n\
                  print(os.path.exists('small-key'), os.path.exists('large'), os.stat('db').st_size)\n\
                  open('small-key', 'w').write('1')\n\
                  open('large', 'w').write('2')\n\
                  print(sorted(os.listdir()))";
    let expected = "False False 4003\n['db', 'large', 'renamed', 'small-key']\n";
    assert_eq!(at.python(script).succeeds(Calls::new(3, 1, 1)), expected);
}
