//! Owners of files in a user namespace.

use std::fs::read_to_string;

use crate::failure::Failure;

/// Refuses an owner that is not mapped in this user namespace: the kernel would refuse every write.
pub(super) fn check(uid: u32, gid: u32) -> Result<(), Failure> {
    for (id, flag, map) in [(uid, "uid", "/proc/self/uid_map"), (gid, "gid", "/proc/self/gid_map")] {
        let Ok(map) = read_to_string(map) else { continue };
        if !is_mapped(id, &map) {
            return Err(Failure::Usage(format!(
                "--{flag} {id}: there is no such id in this user namespace; name one that /proc/self/{flag}_map covers"
            )));
        }
    }
    Ok(())
}

/// `user_namespaces(7)`: each line is the first id here, the first one outside, and how many there are.
fn is_mapped(id: u32, map: &str) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (fields.next(), fields.next(), fields.next());
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::is_mapped;

    #[test]
    fn an_id_is_mapped_within_the_ranges_only() {
        let map = "         0       1000          1\n        10     100000      65536\n";
        assert!([0, 10, 65_545].iter().all(|id| is_mapped(*id, map)));
        assert!(![1, 9, 65_546].iter().any(|id| is_mapped(*id, map)));
        assert!(is_mapped(u32::MAX - 1, "0 0 4294967295\n"));
    }
}
