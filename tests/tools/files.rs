//! cp, mv, install, dd, truncate, touch, rm, tar and rsync.

use std::fs;

use super::{Bench, Calls, On};

/// Indented, so that it looks the same on every store on a new mount too.
const OLD: &str = "{\n  \"old\": true\n}\n";
const NEW: &str = "{\"new\":true}\n";

/// A mount with the key `f`; beside it the good file `good`, `bad` (not JSON) and `big` (over the limit).
fn bench(on: On, tools: &[&str]) -> Option<Bench> {
    let at = on.lasting(tools)?;
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
    assert_eq!(at.stored("f"), at.kept(OLD));
    assert_eq!(at.names(), ["f"]);
}

pub(super) fn cp_publishes_once(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("cp $BESIDE/good new").succeeds(Calls::sets(1));
    at.sh("cp $BESIDE/good f").succeeds(Calls::sets(1));
    at.sh("cp f copy").succeeds(Calls::sets(1));
    for name in ["new", "f", "copy"] {
        assert_eq!(at.stored(name), at.kept(NEW), "{name}");
    }
}

pub(super) fn cp_reports_content_that_cannot_be_published(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("cp $BESIDE/bad f").fails("Invalid argument", Calls::NONE);
    at.sh("cp $BESIDE/bad new").fails("Invalid argument", Calls::NONE);
    at.sh("cp $BESIDE/big f").fails("File too large", Calls::NONE);
    let at = at.afresh();
    untouched(&at);
}

pub(super) fn cp_of_nothing_keeps_the_value(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    assert_eq!(at.sh("cp /dev/null f").calls, Calls::NONE);
    untouched(&at);
}

pub(super) fn cp_keeps_mode_and_time_when_asked(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    let script = "chmod 640 $BESIDE/good && touch -d @1234567890 $BESIDE/good && cp -p $BESIDE/good new";
    at.sh(script).succeeds(Calls::sets(1));
    assert_eq!(at.sh("stat -c '%a %Y %s' new").succeeds(Calls::NONE), "640 1234567890 13\n");
}

pub(super) fn cp_copies_a_directory_in_and_out(on: On) {
    let Some(at) = bench(on, &["diff"]) else { return };
    at.sh("mkdir $BESIDE/many && for n in 1 2 3 4 5; do echo $n > $BESIDE/many/k$n; done")
        .succeeds(Calls::NONE);
    at.sh("cp -r $BESIDE/many/. .").succeeds(Calls::sets(5));
    at.sh("cp -a . $BESIDE/out && diff -r . $BESIDE/out").succeeds(Calls::NONE);
    assert_eq!(at.names(), ["f", "k1", "k2", "k3", "k4", "k5"]);
}

pub(super) fn install_publishes_once(on: On) {
    let Some(at) = bench(on, &["install"]) else { return };
    at.sh("install -m 600 $BESIDE/good new").succeeds(Calls::sets(1));
    assert_eq!(at.sh("stat -c %a new").succeeds(Calls::NONE), "600\n");
    assert_eq!(at.stored("new"), at.kept(NEW));
}

pub(super) fn install_unlinks_a_key_before_it_writes_the_new_one(on: On) {
    let Some(at) = bench(on, &["install"]) else { return };
    at.sh("install $BESIDE/good f").succeeds(Calls::new(1, 1, 0));
    assert_eq!(at.stored("f"), at.kept(NEW));
}

pub(super) fn mv_inside_renames_the_key(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("mv f g").succeeds(Calls::new(0, 0, 1));
    assert_eq!(at.stored("f"), None);
    assert_eq!(at.stored("g"), at.kept(OLD));
    assert_eq!(at.names(), ["g"]);
}

pub(super) fn mv_inside_replaces_a_key(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.put("g", NEW);
    at.sh("mv g f").succeeds(Calls::new(0, 0, 1));
    assert_eq!(at.stored("f"), at.kept(NEW));
    assert_eq!(at.stored("g"), None);
    assert_eq!(at.names(), ["f"]);
}

pub(super) fn mv_without_clobbering_keeps_both_keys(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.put("g", NEW);
    assert_eq!(at.sh("mv -n g f").calls, Calls::NONE);
    assert_eq!(at.text("f"), OLD);
    assert_eq!(at.text("g"), NEW);
}

pub(super) fn mv_from_another_filesystem_makes_a_key(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("mv $BESIDE/good new && ! test -e $BESIDE/good").succeeds(Calls::sets(1));
    assert_eq!(at.stored("new"), at.kept(NEW));
}

pub(super) fn mv_from_another_filesystem_replaces_a_key(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("mv $BESIDE/good f && ! test -e $BESIDE/good").succeeds(Calls::new(1, 1, 0));
    assert_eq!(at.stored("f"), at.kept(NEW));
}

pub(super) fn mv_to_another_filesystem_deletes_the_key(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("mv f $BESIDE/f").succeeds(Calls::new(0, 1, 0));
    assert_eq!(fs::read_to_string(at.beside.join("f")).unwrap(), OLD);
    assert_eq!(at.stored("f"), None);
}

/// mv unlinks the target first, and is refused then.
pub(super) fn mv_of_a_bad_file_fails_and_the_old_value_is_back(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("mv $BESIDE/bad f").fails("Invalid argument", Calls::new(1, 1, 0));
    assert_eq!(fs::read_to_string(at.beside.join("bad")).unwrap(), "{\"new\":");
    untouched(&at);
    at.sh("mv $BESIDE/bad new").fails("Invalid argument", Calls::NONE);
    untouched(&at.afresh());
}

pub(super) fn dd_publishes_once_and_writes_in_place(on: On) {
    let Some(at) = bench(on, &["dd"]) else { return };
    at.sh("dd if=$BESIDE/good of=new bs=5 status=none").succeeds(Calls::sets(1));
    assert_eq!(at.stored("new"), at.kept(NEW));
    at.sh("printf 1234 | dd of=f bs=4 seek=11 oflag=seek_bytes conv=notrunc status=none")
        .succeeds(Calls::sets(1));
    assert_eq!(at.text("f"), "{\n  \"old\": 1234\n}\n");
    assert_eq!(at.sh("dd if=f bs=1 skip=11 count=4 status=none").succeeds(Calls::NONE), "1234");
}

pub(super) fn a_gigabyte_is_refused_at_the_first_write(on: On) {
    let Some(at) = bench(on, &["dd"]) else { return };
    let writes = at.mount.messages("WRITE");
    let ran = at.sh("dd if=/dev/zero of=f bs=1M count=1024");
    ran.fails("File too large", Calls::NONE);
    assert_eq!(at.mount.messages("WRITE") - writes, 1);
    untouched(&at);
}

pub(super) fn small_blocks_are_refused_where_they_pass_the_limit(on: On) {
    let Some(at) = bench(on, &["dd"]) else { return };
    let writes = at.mount.messages("WRITE");
    let ran = at.sh("tr '\\0' ' ' < /dev/zero | dd of=f bs=4096 count=262144 iflag=fullblock");
    ran.fails("File too large", Calls::NONE);
    assert_eq!(at.mount.messages("WRITE") - writes, 3);
    untouched(&at);
}

pub(super) fn truncate_publishes_a_document_and_nothing_else(on: On) {
    let Some(at) = bench(on, &["truncate"]) else { return };
    at.sh("truncate -s 0 f").fails("Invalid argument", Calls::NONE);
    untouched(&at);
    at.sh("truncate -s 5 f").fails("Invalid argument", Calls::NONE);
    untouched(&at);
    at.sh("truncate -s 20 f").fails("Invalid argument", Calls::NONE);
    untouched(&at);
    at.sh("truncate -s 1G f").fails("File too large", Calls::NONE);
    untouched(&at);
    at.put("g", "[1, 2, 3]\n");
    let text = at.text("g");
    at.sh("truncate -s -1 g").succeeds(Calls::sets(1));
    assert_eq!(at.text("g"), text.trim_end());
}

pub(super) fn touch_sends_nothing(on: On) {
    let Some(at) = bench(on, &["touch"]) else { return };
    at.sh("touch f new && touch -d @1234567890 f").succeeds(Calls::NONE);
    assert_eq!(at.sh("stat -c %Y f").succeeds(Calls::NONE), "1234567890\n");
    assert_eq!(at.names(), ["f", "new"]);
    assert_eq!(at.stored("new"), None);
    let at = at.afresh();
    untouched(&at);
}

pub(super) fn modes_and_times_send_nothing(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    let script = "chmod 600 f && chown $(id -u):$(id -g) f && touch -r $BESIDE/good f && stat -c %a f";
    assert_eq!(at.sh(script).succeeds(Calls::NONE), "600\n");
    untouched(&at);
}

pub(super) fn rm_deletes_each_key_once(on: On) {
    let Some(at) = bench(on, &[]) else { return };
    at.sh("echo 1 > g && echo 2 > h && rm f g").succeeds(Calls::new(2, 2, 0));
    at.sh("rm -f absent").succeeds(Calls::NONE);
    at.sh("rm absent").fails("No such file or directory", Calls::NONE);
    assert_eq!(at.names(), ["h"]);
    at.sh("rm -rf ./*").succeeds(Calls::new(0, 1, 0));
    assert_eq!(at.names(), Vec::<String>::new());
}

pub(super) fn there_are_no_links_and_directories_as_the_view_has_them(on: On) {
    let Some(at) = bench(on, &["mkfifo"]) else { return };
    for script in ["ln f g", "ln -s f g", "mkfifo g"] {
        at.sh(script).fails("Operation not permitted", Calls::NONE);
    }
    for (make, remove) in [("mkdir d", "rmdir d"), ("mkdir -p a/b", "rmdir a/b a")] {
        if on.is_flat() {
            at.sh(make).fails("Operation not permitted", Calls::NONE);
        } else {
            at.sh(&format!("{make} && {remove}")).succeeds(Calls::NONE);
        }
    }
    at.sh("cp --reflink=always f g").fails("not supported", Calls::NONE);
    at.sh("rm -f g").code.unwrap();
    untouched(&at);
}

pub(super) fn tar_unpacks_each_key_with_one_set(on: On) {
    let Some(at) = bench(on, &["tar"]) else { return };
    at.sh("touch -d @1234567890 $BESIDE/good && tar cf $BESIDE/t.tar -C $BESIDE good big bad")
        .succeeds(Calls::NONE);
    at.sh("tar xf $BESIDE/t.tar good").succeeds(Calls::sets(1));
    assert_eq!(at.stored("good"), at.kept(NEW));
    assert_eq!(at.sh("stat -c %Y good").succeeds(Calls::NONE), "1234567890\n");
    at.sh("tar xf $BESIDE/t.tar good").succeeds(Calls::new(1, 1, 0));
    at.sh("tar xf $BESIDE/t.tar --overwrite good").succeeds(Calls::sets(1));
    assert_eq!(at.stored("good"), at.kept(NEW));
    at.sh("tar xf $BESIDE/t.tar bad").fails("Invalid argument", Calls::NONE);
    at.sh("tar xf $BESIDE/t.tar big").fails("File too large", Calls::NONE);
    assert_eq!(at.afresh().names(), ["f", "good"]);
}

pub(super) fn tar_packs_the_mount_without_complaint(on: On) {
    let Some(at) = bench(on, &["tar"]) else { return };
    let ran = at.sh("tar cf $BESIDE/t.tar . && tar df $BESIDE/t.tar && tar xOf $BESIDE/t.tar ./f");
    assert_eq!(ran.err, "");
    assert_eq!(ran.succeeds(Calls::NONE), OLD);
}

pub(super) fn rsync_publishes_each_change_once(on: On) {
    let Some(at) = bench(on, &["rsync"]) else { return };
    at.sh("mkdir $BESIDE/src && for n in 1 2 3; do echo $n > $BESIDE/src/k$n; done").succeeds(Calls::NONE);
    at.sh("rsync -a $BESIDE/src/ ./").succeeds(Calls::sets(3));
    at.sh("rsync -a $BESIDE/src/ ./").succeeds(Calls::NONE);
    at.sh("echo 22 > $BESIDE/src/k2 && rsync -a --delete $BESIDE/src/ ./").succeeds(Calls::new(1, 1, 0));
    assert_eq!(at.names(), ["k1", "k2", "k3"]);
    assert_eq!(at.stored("k2"), at.kept("22\n"));
    at.sh("rsync -a ./ $BESIDE/out/ && diff -r . $BESIDE/out").succeeds(Calls::NONE);
}

pub(super) fn rsync_in_place_publishes_once(on: On) {
    let Some(at) = bench(on, &["rsync"]) else { return };
    at.sh("touch -d @1234567890 $BESIDE/good && rsync -a --inplace $BESIDE/good f").succeeds(Calls::sets(1));
    assert_eq!(at.stored("f"), at.kept(NEW));
    at.sh("echo 1 > $BESIDE/good && rsync -a --inplace $BESIDE/good f").succeeds(Calls::sets(1));
    assert_eq!(at.stored("f"), at.kept("1\n"));
}

pub(super) fn rsync_reports_content_that_cannot_be_published(on: On) {
    let Some(at) = bench(on, &["rsync"]) else { return };
    for name in ["bad", "big"] {
        for option in ["-a", "-a --inplace"] {
            let ran = at.sh(&format!("rsync {option} $BESIDE/{name} f"));
            assert_ne!(ran.code, Some(0), "{option} {name}: {ran:?}");
            assert_eq!(ran.calls, Calls::NONE, "{option} {name}");
            untouched(&at);
        }
    }
}
