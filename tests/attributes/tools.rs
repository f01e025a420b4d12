//! Programs that go by owner, mode and times, before and after a restart.

use super::{again_with, done, shown};
use crate::common::{Mount, can_mount};

fn prints(mount: &Mount, script: &str) -> String {
    let out = mount.sh(&format!("exec 2>&1; {script}"));
    String::from_utf8(out.stdout).unwrap()
}

/// Files to copy, beside the mount.
const BESIDE: &str = "umask 022; mkdir -p ../beside/d; echo '{\"a\":1}' > ../beside/k; echo 2 > ../beside/l; echo 3 > ../beside/d/m
    chmod 640 ../beside/k; chmod 600 ../beside/l; chown 7:8 ../beside/l; touch -d @1000000000 ../beside/k ../beside/l ../beside/d/m
    touch -d @1000000001 ../beside/d; chmod 2750 ../beside/d";

const TREE: &[&str] = &["--separator", "/"];

#[test]
fn rsync_copies_nothing_a_second_time_after_a_restart() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(TREE);
    done(&mount, &format!("{BESIDE}; rsync -a ../beside/ to"));
    let differs = "rsync -ain --out-format=%i:%n ../beside/ to | grep -v '^\\.d'";
    assert_eq!(prints(&mount, differs), "");
    let mount = again_with(mount, TREE);
    assert_eq!(prints(&mount, differs), "");
    let sets = mount.calls("set_key_value");
    done(&mount, "rsync -a ../beside/ to");
    assert_eq!((mount.calls("set_key_value"), mount.calls("rename_key")), (sets, 0));
    assert_eq!(prints(&mount, "stat -c '%a %u %g' to/d to/l"), "2750 0 0\n600 7 8\n");
    // And back.
    done(&mount, "rsync -a to/ ../back");
    assert_eq!(prints(&mount, "rsync -ain ../beside/ ../back | grep -v '^\\.d'"), "");
}

#[test]
fn copies_are_as_they_were_made_after_a_restart() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(TREE);
    let script = format!(
        "{BESIDE}; cp -p ../beside/k ../beside/l .; install -m 600 -o 9 -g 10 ../beside/k installed
         cp -a ../beside/d .; tar -cpf ../t -C ../beside .; mkdir tar; tar -xpf ../t -C tar; mv ../beside/l moved"
    );
    done(&mount, &script);
    let show = "stat -c '%n %a %u %g' k l installed d d/m tar/k tar/l tar/d tar/d/m moved; stat -c %Y k l d/m tar/k tar/l tar/d/m moved";
    let expected = "k 640 0 0\nl 600 7 8\ninstalled 600 9 10\nd 2750 0 0\nd/m 644 0 0
tar/k 640 0 0\ntar/l 600 7 8\ntar/d 2750 0 0\ntar/d/m 644 0 0\nmoved 600 7 8\n";
    let expected = expected.to_owned() + &"1000000000\n".repeat(7);
    assert_eq!(prints(&mount, show), expected);
    let mount = again_with(mount, TREE);
    assert_eq!(prints(&mount, show), expected);
}

#[test]
fn a_host_key_is_private_after_a_restart() {
    if !can_mount() {
        return;
    }
    let args = ["--validate", "none", "--umask", "022"];
    let mount = Mount::sqlite(&args);
    done(&mount, "ssh-keygen -q -t ed25519 -N '' -f host_key");
    let mount = again_with(mount, &args);
    assert!(shown(&mount, "host_key").starts_with("600 0 0"), "{}", shown(&mount, "host_key"));
    let public = prints(&mount, "ssh-keygen -y -f host_key");
    assert!(public.starts_with("ssh-ed25519 "), "{public}");
    assert!(mount.text("host_key.pub").unwrap().starts_with(public.split(" root").next().unwrap().trim()));
    // What it says of one that is not.
    done(&mount, "chmod 644 host_key");
    let mount = again_with(mount, &args);
    let refused = prints(&mount, "ssh-keygen -y -f host_key");
    assert!(refused.contains("UNPROTECTED PRIVATE KEY FILE"), "{refused}");
}

#[test]
fn a_user_writes_a_key_of_his_own_after_a_restart() {
    if !can_mount() {
        return;
    }
    let args = ["--allow-other", "--umask", "000"];
    let mount = Mount::sqlite(&args);
    let user = "setpriv --reuid 12345 --regid 12345 --clear-groups sh -c";
    done(
        &mount,
        &format!(
            "{user} 'umask 077; echo 1 > own; echo 1 > t; mv t temporary'; echo 1 > root; chmod 600 root"
        ),
    );
    let mount = again_with(mount, &args);
    let said = prints(&mount, &format!("{user} 'echo 2 > own; cat own temporary; chmod 640 own; cat root'"));
    assert_eq!(said, "2\n1\ncat: root: Permission denied\n");
    assert!(shown(&again_with(mount, &args), "own").starts_with("640 12345 12345"));
}

/// Sets, and changes of attributes: a file that is not a key yet when that is said of it takes it along with its set.
#[test]
fn tools_ask_the_store_for_the_set_and_once_for_each_thing_that_they_say_of_a_key() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    done(&mount, BESIDE);
    for (script, calls) in [
        ("cp ../beside/l a", (1, 0)),
        ("cp -p ../beside/l b", (1, 2)),
        ("install -m 600 -o 7 ../beside/l c", (1, 1)),
        ("rsync -a ../beside/l d", (1, 0)),
        ("tar -cpf ../t -C ../beside l; tar -xpf ../t", (1, 2)),
        ("sed -i s/2/3/ l", (1, 0)),
        ("chmod 640 l; chmod 640 l; chown 7:8 l; chown 7:9 l", (0, 2)),
        ("touch -d @5 l", (0, 1)),
        ("mv l m", (0, 0)),
    ] {
        let count = || (mount.calls("set_key_value"), mount.calls("set_attributes"));
        let before = count();
        done(&mount, script);
        let now = count();
        assert_eq!((now.0 - before.0, now.1 - before.1), calls, "{script}");
    }
}
