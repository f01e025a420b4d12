//! Mounts on a full disk: writes fail where shells look, and operations that free space work.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use crate::common::{KVFS, can_mount};

/// Runs `script` with bash in an empty directory, in which `disk` has 2 MiB, and a database of the mount `mnt`.
fn on_a_small_disk(script: &str) -> String {
    let home = tempfile::TempDir::new().unwrap();
    let script = format!(
        "set -e; mkdir disk; mount -t tmpfs -o size=2m none disk; {KVFS} sqlite:$PWD/disk/kv.db mnt
         fill() {{ dd if=/dev/zero of=disk/ballast bs=512 2>/dev/null || true; }}
         {script}
         umount mnt; umount -l disk"
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", &script]).current_dir(home.path());
    command.env("HOME", home.path()).env("XDG_STATE_HOME", home.path().join("state"));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_shell_hears_of_a_full_disk() {
    if !can_mount() {
        return;
    }
    // The shell reports each failed write, but of `>>` that of a set that is let through to try again.
    let told = on_a_small_disk(
        "echo 1 > mnt/there; fill; text=$(printf '%09000d' 1); failed=0
         for n in $(seq 300); do (echo \"\\\"$text\\\"\" > mnt/k$n) 2>/dev/null || failed=$((failed + 1)); done
         for n in $(seq 300); do (echo \"\\\"$text\\\"\" > mnt/there) 2>/dev/null || failed=$((failed + 1)); done
         for n in $(seq 300); do (echo \"\\\"$text\\\"\" >> mnt/there) 2>/dev/null || failed=$((failed + 1)); done
         cat mnt/there; echo $failed",
    );
    let (there, failed) = told.split_once('\n').unwrap();
    assert_eq!(there, "1");
    assert!(failed.trim().parse::<u32>().unwrap() > 700, "{failed} of 900 sets were told to have failed");
}

#[test]
fn what_makes_room_works_on_a_full_disk_and_then_there_is_some() {
    if !can_mount() {
        return;
    }
    let told = on_a_small_disk(
        "text=$(printf '\"%09000d\"' 1); for n in $(seq 20); do printf %s $text > mnt/k$n; done; fill
         (printf %s $text > mnt/new) 2>/dev/null || true
         for n in $(seq 20); do mv mnt/k$n mnt/m$n; done
         for n in $(seq 2 20); do rm mnt/m$n; done
         printf %s $text > mnt/again; cat mnt/again mnt/m1 | cmp - <(printf %s%s $text $text) && echo well",
    );
    assert_eq!(told, "well\n");
}

#[test]
fn directories_whose_mode_is_kept_are_renamed_and_removed_on_a_full_disk() {
    if !can_mount() {
        return;
    }
    let told = on_a_small_disk(&format!(
        "umount mnt; {KVFS} -q --separator / sqlite:$PWD/disk/kv.db mnt
         mkdir -m 700 mnt/d mnt/gone mnt/e; echo 1 > mnt/d/k; fill
         text=$(printf '\"%09000d\"' 1); for n in $(seq 20); do (printf %s $text > mnt/k$n) 2>/dev/null || true; done
         mv mnt/d mnt/new; mv mnt/e mnt/other; rmdir mnt/gone mnt/other; rm -r mnt/new; echo well"
    ));
    assert_eq!(told.lines().last(), Some("well"));
}

#[test]
fn room_on_the_disk_is_used_at_once() {
    if !can_mount() {
        return;
    }
    let told = on_a_small_disk(
        "text=$(printf '\"%09000d\"' 1); fill
         for n in $(seq 5); do (printf %s $text > mnt/k) 2>/dev/null || true; done
         rm disk/ballast; printf %s $text > mnt/k; cmp mnt/k <(printf %s $text) && echo well",
    );
    assert_eq!(told, "well\n");
}

#[test]
fn df_shows_the_disk_of_the_database() {
    if !can_mount() {
        return;
    }
    let told = on_a_small_disk(
        "fill; stat -f -c '%b %f %a %S' disk; stat -f -c '%b %f %a %S' mnt; df --output=size,avail mnt | tail -1",
    );
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["2048", "0"]);
}
