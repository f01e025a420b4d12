//! Many processes that count up one value on two mounts: each reads, changes and closes, and starts over on ESTALE.

use std::fs;
use std::process::{Command, Stdio};

use super::{Fleet, extent, save};

const PROCESSES: usize = 32;

/// The script of each process; an error that is no conflict ends it.
const COUNT: &str = r#"
import errno, os, random, sys, time
path, rounds = sys.argv[1], int(sys.argv[2])
done = tries = 0
while done < rounds:
    tries += 1
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        continue
    value = int(os.read(fd, 100)) + 1
    os.pwrite(fd, b"%d\n" % value, 0)
    try:
        os.close(fd)
        done += 1
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        time.sleep(random.random() * 0.05)
print(tries)
"#;

#[test]
fn a_counter_that_many_processes_count_up_on_two_mounts_is_exact() {
    // A deadline that does not depend on how busy the machine is.
    let Some(fleet) = Fleet::start(1, 2, &["--timeout", "60s"]) else { return };
    let rounds = extent("KVFS_CLUSTER_ROUNDS", 5);
    save(&fleet.mounts[0].path("counter"), "0\n").unwrap();
    let children: Vec<_> = (0..PROCESSES)
        .map(|process| {
            let path = fleet.mounts[process % 2].path("counter");
            let mut python = Command::new("python3");
            python.args(["-c", COUNT]).arg(path).arg(rounds.to_string());
            python.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut tries = 0;
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        tries += String::from_utf8(out.stdout).unwrap().trim().parse::<u64>().unwrap();
    }
    let expected = format!("{}\n", PROCESSES as u64 * rounds);
    eprintln!("{} increments in {tries} tries", PROCESSES as u64 * rounds);
    assert_eq!(fleet.cluster.members[0].get("app/counter").unwrap(), expected.as_bytes());
    for mount in &fleet.mounts {
        super::common::wait_for(super::PATIENCE, || {
            fs::read_to_string(mount.path("counter")).unwrap() == expected
        });
    }
}
