//! Mounts of an ordinary user, by way of fusermount3.

use super::user;
use crate::common::can_mount;

#[test]
fn an_ordinary_user_mounts_reads_writes_and_unmounts() {
    if !can_mount() {
        return;
    }
    let script = r#"
        set -e
        kvfs memory: mnt
        echo '{"a":1}' > mnt/db; cat mnt/db; ls mnt; rm mnt/db; ls mnt | wc -l
        grep -c " $HOME/mnt fuse.kvfs .*user_id=$(id -u)," /proc/mounts
        fusermount3 -u mnt; ls -A mnt | wc -l
        mkdir 'a,b\c'; kvfs 'sqlite:a,b\c/kv.db' mnt
        echo 2 > mnt/db; cat mnt/db; grep -o 'a,b[^ ]*kv.db' /proc/mounts
        kvfs status mnt | grep -c 'sqlite:.*a,b'
        kill $(kvfs status --json mnt | sed 's/.*"pid":\([0-9]*\).*/\1/')
        while grep -q "$HOME/mnt" /proc/mounts; do sleep 0.05; done
        kvfs 'sqlite:a,b\c/kv.db' mnt; cat mnt/db; fusermount3 -u mnt"#;
    let said = user::says("", script);
    let expected = ["{\"a\":1}", "db", "0", "1", "0", "2", "a,b\\134c/kv.db", "1", "2"];
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, expected);
}

#[test]
fn an_ordinary_user_takes_over_a_dead_mount() {
    if !can_mount() {
        return;
    }
    let script = r#"
        kvfs sqlite:kv.db mnt && echo 1 > mnt/db
        kill -9 $(kvfs status --json mnt | sed 's/.*"pid":\([0-9]*\).*/\1/')
        while ls mnt > /dev/null 2>&1; do sleep 0.05; done
        kvfs sqlite:kv.db mnt && cat mnt/db; grep -c "$HOME/mnt" /proc/mounts; fusermount3 -u mnt"#;
    assert_eq!(user::says("", script), "1\n1\n");
}

#[test]
fn nothing_hangs_on_a_killed_daemon_though_nobody_may_abort_its_connection() {
    if !can_mount() {
        return;
    }
    let before =
        "umount /sys/fs/fuse/connections 2> /dev/null || :; ! ls /sys/fs/fuse/connections/* 2> /dev/null";
    // The kernel holds the directory for who removes a file there, and waits for the daemon; the daemon waits for the database. A
    // thread of it waits in the kernel for that directory, to tell that another file is written.
    let script = r#"
        until_() { for i in $(seq 2400); do "$@" && return; sleep 0.05; done; echo "late: $*"; exit 1; }
        waits_in_kernel() { grep -l kvfs-notifier /proc/$pid/task/*/comm | sed s/comm$/stat/ | xargs cat | grep -q ') D '; }
        has_lock() { grep -q locked said; }
        are_over() { ! ps -o stat= $* | grep -qv Z; }
        kvfs --timeout 1h sqlite:kv.db mnt && echo 1 > mnt/removed && echo 1 > mnt/written && echo 1 > mnt/locked
        pid=$(kvfs status --json mnt | sed 's/.*"pid":\([0-9]*\).*/\1/')
        mkfifo fifo; { flock 3; exec cat < fifo; } 3< mnt/locked & holds=$!
        until_ sh -c '! flock -n mnt/locked true'
        flock mnt/locked true & waits=$!
        mkfifo orders; sqlite3 kv.db > said < orders & exec 4> orders
        echo 'begin immediate; select "locked";' >&4; until_ has_lock
        rm mnt/removed & removes=$!
        exec 5> fifo
        while ! waits_in_kernel; do { : 6<> mnt/written; } & writes="$writes $!"; sleep 0.1; done
        kill -9 $pid
        until_ are_over $removes $waits $writes; echo over
        exec 5>&- 4>&-; until_ are_over $holds
        kvfs sqlite:kv.db mnt && cat mnt/written; fusermount3 -u mnt"#;
    let said = user::says(before, script);
    assert!(said.starts_with("over\n1\n"), "{said}");
}

#[test]
fn a_limit_on_processes_is_an_error_before_the_mount() {
    if !can_mount() {
        return;
    }
    // For each limit: refused in one line with nothing mounted, or mounted, answering, and ended by SIGTERM.
    let script = r#"
        for store in memory: sqlite:kv.db; do for n in $(seq 1 18); do
            said=$(prlimit --nproc=$n:$n kvfs $store mnt 2>&1 > /dev/null); code=$?
            if [ $code != 0 ]; then
                [ "$(echo "$said" | wc -l)" = 1 ] && [ "${said#kvfs: }" != "$said" ] && ! grep -q "$HOME/mnt" /proc/mounts \
                    && echo refused || echo "$store $n: $code $said"
                continue
            fi
            ls -d mnt > /dev/null || echo "$store $n: dead"
            echo 1 > mnt/db || echo "$store $n: no write"
            kill $(kvfs status --json mnt | sed 's/.*"pid":\([0-9]*\).*/\1/')
            while grep -q "$HOME/mnt" /proc/mounts; do sleep 0.05; done
            echo mounted
        done; done"#;
    let said = user::says("", script);
    let count = |word: &str| said.lines().filter(|line| *line == word).count();
    assert!(count("refused") > 5 && count("mounted") > 2, "{said}");
    assert_eq!(count("refused") + count("mounted"), 36, "{said}");
}

#[test]
fn a_limit_on_processes_ends_no_other_command_by_a_panic() {
    if !can_mount() {
        return;
    }
    // For each limit: refused in one line, or done.
    let script = r#"
        export KVFS_API_KEY=pcu_secret123
        judge() {
            if [ $code = 0 ]; then echo done; return; fi
            [ "$(wc -l < out)" = 1 ] && grep -q '^kvfs: ' out && echo refused || echo "$n $*: $code $(cat out)"
        }
        ends() { prlimit --nproc=$n:$n kvfs "$@" > out 2>&1; code=$?; judge "$@"; }
        # Runs until `sign` shows in its output.
        runs() {
            sign=$1; shift
            prlimit --nproc=$n:$n kvfs "$@" > out 2>&1 & pid=$!
            until grep -q "$sign" out || ! kill -0 $pid 2> /dev/null; do echo 1 > mnt/db; sleep 0.02; done
            kill $pid 2> /dev/null; wait $pid; code=$?
            # What it runs for each change may be refused; it goes on.
            if grep -q "$sign" out && ! grep -q panicked out; then echo done; else judge "$@"; fi
        }
        kvfs memory: mnt
        for n in $(seq 11 25); do
            ends copy memory: sqlite:kv.db
            ends status
            runs serving serve --listen 127.0.0.1:0 memory:
            runs '"set"' watch mnt
            runs 'RUN\|cannot run the command' watch mnt --exec 'echo RUN'
        done
        fusermount3 -u mnt"#;
    let said = user::says("", script);
    let count = |word: &str| said.lines().filter(|line| *line == word).count();
    assert!(count("refused") > 5 && count("done") > 5, "{said}");
    assert_eq!(count("refused") + count("done"), 15 * 5, "{said}");
}
