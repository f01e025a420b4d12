//! cp, mv, install, dd, truncate, touch, rm, tar and rsync.

use std::fs;
use std::time::Duration;

use super::{Bench, Calls};
use crate::common::wait_for;

const OLD: &str = "{\"old\":true}\n";
const NEW: &str = "{\"new\":true}\n";

/// A mount with the key `f`; beside it the good file `good`, `bad` (not JSON) and `big` (over the limit).
fn bench(tools: &[&str]) -> Option<Bench> {
    let at = Bench::sqlite(tools)?;
    at.put("f", OLD);
    at.put_beside("good", NEW);
    at.put_beside("bad", "{\"new\":");
    at.put_beside("big", &format!("\"{}\"\n", "x".repeat(10_000)));
    Some(at)
}

/// The key `f` has its first value, for readers and in the store, and nothing was added.
#[track_caller]
fn untouched(at: &Bench) {
    assert_eq!(at.text("f"), OLD);
    assert_eq!(at.stored("f").as_deref(), Some(OLD));
    assert_eq!(at.names(), ["f"]);
}

#[test]
fn cp_publishes_once() {
    let Some(at) = bench(&[]) else { return };
    at.sh("cp $BESIDE/good new").succeeds(Calls::sets(1));
    at.sh("cp $BESIDE/good f").succeeds(Calls::sets(1));
    at.sh("cp f copy").succeeds(Calls::sets(1));
    for name in ["new", "f", "copy"] {
        assert_eq!(at.stored(name).as_deref(), Some(NEW), "{name}");
    }
}

#[test]
fn cp_reports_content_that_cannot_be_published() {
    let Some(at) = bench(&[]) else { return };
    at.sh("cp $BESIDE/bad f").fails("Invalid argument", Calls::NONE);
    at.sh("cp $BESIDE/bad new").fails("Invalid argument", Calls::NONE);
    at.sh("cp $BESIDE/big f").fails("File too large", Calls::NONE);
    let at = at.afresh();
    untouched(&at);
}

#[test]
fn cp_of_nothing_keeps_the_value() {
    let Some(at) = bench(&[]) else { return };
    assert_eq!(at.sh("cp /dev/null f").calls, Calls::NONE);
    untouched(&at);
}

#[test]
fn cp_keeps_mode_and_time_when_asked() {
    let Some(at) = bench(&[]) else { return };
    let script = "chmod 640 $BESIDE/good && touch -d @1234567890 $BESIDE/good && cp -p $BESIDE/good new";
    at.sh(script).succeeds(Calls::sets(1));
    assert_eq!(at.sh("stat -c '%a %Y %s' new").succeeds(Calls::NONE), "640 1234567890 13\n");
}

#[test]
fn cp_copies_a_directory_in_and_out() {
    let Some(at) = bench(&["diff"]) else { return };
    at.sh("mkdir $BESIDE/many && for n in 1 2 3 4 5; do echo $n > $BESIDE/many/k$n; done")
        .succeeds(Calls::NONE);
    at.sh("cp -r $BESIDE/many/. .").succeeds(Calls::sets(5));
    at.sh("cp -a . $BESIDE/out && diff -r . $BESIDE/out").succeeds(Calls::NONE);
    assert_eq!(at.names(), ["f", "k1", "k2", "k3", "k4", "k5"]);
}

#[test]
fn install_publishes_once() {
    let Some(at) = bench(&["install"]) else { return };
    at.sh("install -m 600 $BESIDE/good new").succeeds(Calls::sets(1));
    assert_eq!(at.sh("stat -c %a new").succeeds(Calls::NONE), "600\n");
    assert_eq!(at.stored("new").as_deref(), Some(NEW));
}

#[test]
fn install_unlinks_a_key_before_it_writes_the_new_one() {
    let Some(at) = bench(&["install"]) else { return };
    at.sh("install $BESIDE/good f").succeeds(Calls::new(1, 1, 0));
    assert_eq!(at.stored("f").as_deref(), Some(NEW));
}

#[test]
fn mv_inside_renames_the_key() {
    let Some(at) = bench(&[]) else { return };
    at.sh("mv f g").succeeds(Calls::new(0, 0, 1));
    assert_eq!(at.stored("f"), None);
    assert_eq!(at.stored("g").as_deref(), Some(OLD));
    assert_eq!(at.names(), ["g"]);
}

#[test]
fn mv_inside_replaces_a_key() {
    let Some(at) = bench(&[]) else { return };
    at.put("g", NEW);
    at.sh("mv g f").succeeds(Calls::new(0, 0, 1));
    assert_eq!(at.stored("f").as_deref(), Some(NEW));
    assert_eq!(at.stored("g"), None);
    assert_eq!(at.names(), ["f"]);
}

#[test]
fn mv_without_clobbering_keeps_both_keys() {
    let Some(at) = bench(&[]) else { return };
    at.put("g", NEW);
    assert_eq!(at.sh("mv -n g f").calls, Calls::NONE);
    assert_eq!(at.text("f"), OLD);
    assert_eq!(at.text("g"), NEW);
}

#[test]
fn mv_from_another_filesystem_makes_a_key() {
    let Some(at) = bench(&[]) else { return };
    at.sh("mv $BESIDE/good new && ! test -e $BESIDE/good").succeeds(Calls::sets(1));
    assert_eq!(at.stored("new").as_deref(), Some(NEW));
}

#[test]
fn mv_from_another_filesystem_replaces_a_key() {
    let Some(at) = bench(&[]) else { return };
    at.sh("mv $BESIDE/good f && ! test -e $BESIDE/good").succeeds(Calls::new(1, 1, 0));
    assert_eq!(at.stored("f").as_deref(), Some(NEW));
}

#[test]
fn mv_to_another_filesystem_deletes_the_key() {
    let Some(at) = bench(&[]) else { return };
    at.sh("mv f $BESIDE/f").succeeds(Calls::new(0, 1, 0));
    assert_eq!(fs::read_to_string(at.beside.join("f")).unwrap(), OLD);
    assert_eq!(at.stored("f"), None);
}

/// mv unlinks the target first: the old value leaves the store, but not the machine.
#[test]
fn mv_of_a_bad_file_fails_and_the_old_value_can_be_found() {
    let Some(at) = bench(&[]) else { return };
    at.sh("mv $BESIDE/bad f").fails("Invalid argument", Calls::new(0, 1, 0));
    assert_eq!(fs::read_to_string(at.beside.join("bad")).unwrap(), "{\"new\":");
    wait_for(Duration::from_secs(20), || at.set_aside().contains(&OLD.to_owned()));
    at.sh("mv $BESIDE/bad new").fails("Invalid argument", Calls::NONE);
    assert_eq!(at.afresh().names(), Vec::<String>::new());
}

#[test]
fn dd_publishes_once_and_writes_in_place() {
    let Some(at) = bench(&["dd"]) else { return };
    at.sh("dd if=$BESIDE/good of=new bs=4 status=none").succeeds(Calls::sets(1));
    assert_eq!(at.stored("new").as_deref(), Some(NEW));
    at.sh("printf 1234 | dd of=f bs=4 seek=7 oflag=seek_bytes conv=notrunc status=none")
        .succeeds(Calls::sets(1));
    assert_eq!(at.text("f"), "{\"old\":1234}\n");
    assert_eq!(at.sh("dd if=f bs=1 skip=7 count=4 status=none").succeeds(Calls::NONE), "1234");
}

#[test]
fn a_gigabyte_is_refused_at_the_first_write() {
    let Some(at) = bench(&["dd"]) else { return };
    let writes = at.mount.messages("WRITE");
    let ran = at.sh("dd if=/dev/zero of=f bs=1M count=1024");
    ran.fails("File too large", Calls::NONE);
    assert_eq!(at.mount.messages("WRITE") - writes, 1);
    untouched(&at);
}

#[test]
fn small_blocks_are_refused_where_they_pass_the_limit() {
    let Some(at) = bench(&["dd"]) else { return };
    let writes = at.mount.messages("WRITE");
    let ran = at.sh("tr '\\0' ' ' < /dev/zero | dd of=f bs=4096 count=262144 iflag=fullblock");
    ran.fails("File too large", Calls::NONE);
    assert_eq!(at.mount.messages("WRITE") - writes, 3);
    untouched(&at);
}

#[test]
fn truncate_keeps_the_value() {
    let Some(at) = bench(&["truncate"]) else { return };
    at.sh("truncate -s 0 f").fails("Invalid argument", Calls::NONE);
    untouched(&at);
    at.sh("truncate -s 5 f").fails("Invalid argument", Calls::NONE);
    untouched(&at);
    at.sh("truncate -s 20 f").fails("Invalid argument", Calls::NONE);
    untouched(&at);
    at.sh("truncate -s 1G f").fails("File too large", Calls::NONE);
    untouched(&at);
    // A bare truncation is never published, even where what is left is a document.
    at.sh("truncate -s -1 f").fails("Invalid argument", Calls::NONE);
    untouched(&at);
}

#[test]
fn touch_sends_nothing() {
    let Some(at) = bench(&["touch"]) else { return };
    at.sh("touch f new && touch -d @1234567890 f").succeeds(Calls::NONE);
    assert_eq!(at.sh("stat -c %Y f").succeeds(Calls::NONE), "1234567890\n");
    assert_eq!(at.names(), ["f", "new"]);
    assert_eq!(at.stored("new"), None);
    let at = at.afresh();
    untouched(&at);
}

#[test]
fn modes_and_times_send_nothing() {
    let Some(at) = bench(&[]) else { return };
    let script = "chmod 600 f && chown $(id -u):$(id -g) f && touch -r $BESIDE/good f && stat -c %a f";
    assert_eq!(at.sh(script).succeeds(Calls::NONE), "600\n");
    untouched(&at);
}

#[test]
fn rm_deletes_each_key_once() {
    let Some(at) = bench(&[]) else { return };
    at.sh("echo 1 > g && echo 2 > h && rm f g").succeeds(Calls::new(2, 2, 0));
    at.sh("rm -f absent").succeeds(Calls::NONE);
    at.sh("rm absent").fails("No such file or directory", Calls::NONE);
    assert_eq!(at.names(), ["h"]);
    at.sh("rm -rf ./*").succeeds(Calls::new(0, 1, 0));
    assert_eq!(at.names(), Vec::<String>::new());
}

#[test]
fn the_view_is_flat() {
    let Some(at) = bench(&["mkfifo"]) else { return };
    for script in ["mkdir d", "ln f g", "ln -s f g", "mkfifo g", "mkdir -p a/b"] {
        at.sh(script).fails("Operation not permitted", Calls::NONE);
    }
    at.sh("cp --reflink=always f g").fails("not supported", Calls::NONE);
    at.sh("rm -f g").code.unwrap();
    untouched(&at);
}

#[test]
fn tar_unpacks_each_key_with_one_set() {
    let Some(at) = bench(&["tar"]) else { return };
    at.sh("touch -d @1234567890 $BESIDE/good && tar cf $BESIDE/t.tar -C $BESIDE good big bad")
        .succeeds(Calls::NONE);
    at.sh("tar xf $BESIDE/t.tar good").succeeds(Calls::sets(1));
    assert_eq!(at.stored("good").as_deref(), Some(NEW));
    assert_eq!(at.sh("stat -c %Y good").succeeds(Calls::NONE), "1234567890\n");
    at.sh("tar xf $BESIDE/t.tar good").succeeds(Calls::new(1, 1, 0));
    at.sh("tar xf $BESIDE/t.tar --overwrite good").succeeds(Calls::sets(1));
    assert_eq!(at.stored("good").as_deref(), Some(NEW));
    at.sh("tar xf $BESIDE/t.tar bad").fails("Invalid argument", Calls::NONE);
    at.sh("tar xf $BESIDE/t.tar big").fails("File too large", Calls::NONE);
    assert_eq!(at.afresh().names(), ["f", "good"]);
}

#[test]
fn tar_packs_the_mount_without_complaint() {
    let Some(at) = bench(&["tar"]) else { return };
    let ran = at.sh("tar cf $BESIDE/t.tar . && tar df $BESIDE/t.tar && tar xOf $BESIDE/t.tar ./f");
    assert_eq!(ran.err, "");
    assert_eq!(ran.succeeds(Calls::NONE), OLD);
}

#[test]
fn rsync_publishes_each_change_once() {
    let Some(at) = bench(&["rsync"]) else { return };
    at.sh("mkdir $BESIDE/src && for n in 1 2 3; do echo $n > $BESIDE/src/k$n; done").succeeds(Calls::NONE);
    at.sh("rsync -a $BESIDE/src/ ./").succeeds(Calls::sets(3));
    at.sh("rsync -a $BESIDE/src/ ./").succeeds(Calls::NONE);
    at.sh("echo 22 > $BESIDE/src/k2 && rsync -a --delete $BESIDE/src/ ./").succeeds(Calls::new(1, 1, 0));
    assert_eq!(at.names(), ["k1", "k2", "k3"]);
    assert_eq!(at.stored("k2").as_deref(), Some("22\n"));
    at.sh("rsync -a ./ $BESIDE/out/ && diff -r . $BESIDE/out").succeeds(Calls::NONE);
}

#[test]
fn rsync_in_place_publishes_once() {
    let Some(at) = bench(&["rsync"]) else { return };
    at.sh("touch -d @1234567890 $BESIDE/good && rsync -a --inplace $BESIDE/good f").succeeds(Calls::sets(1));
    assert_eq!(at.stored("f").as_deref(), Some(NEW));
    at.sh("echo 1 > $BESIDE/good && rsync -a --inplace $BESIDE/good f").succeeds(Calls::sets(1));
    assert_eq!(at.stored("f").as_deref(), Some("1\n"));
}

#[test]
fn rsync_reports_content_that_cannot_be_published() {
    let Some(at) = bench(&["rsync"]) else { return };
    for name in ["bad", "big"] {
        for option in ["-a", "-a --inplace"] {
            let ran = at.sh(&format!("rsync {option} $BESIDE/{name} f"));
            assert_ne!(ran.code, Some(0), "{option} {name}: {ran:?}");
            assert_eq!(ran.calls, Calls::NONE, "{option} {name}");
            untouched(&at);
        }
    }
}
