//! Directories that stay open.

use super::door::Door;
use super::sys::Stream;

fn rest(stream: &mut Stream) -> Vec<String> {
    stream.by_ref().collect()
}

#[test]
fn who_starts_over_reads_what_is_there_then() {
    let Some(door) = super::on_memory() else { return };
    let files: &dyn Door = &door;
    files.save("a", "1").unwrap();
    let mut stream = Stream::open(&door.mount.dir).unwrap();
    assert_eq!(rest(&mut stream), ["a"]);
    for (remove, add, expected) in
        [("a", "b", &["b"][..]), ("none", "c~", &["b", "c~"]), ("b", "d", &["d", "c~"])]
    {
        _ = files.unlink(remove);
        files.save(add, "2").unwrap();
        assert_eq!(rest(&mut stream), [""; 0]);
        stream.rewind();
        assert_eq!(rest(&mut stream), expected);
    }
}

#[test]
fn a_position_is_one_of_the_names_that_were_read() {
    let Some(door) = super::on_memory() else { return };
    let files: &dyn Door = &door;
    for name in ["b", "d", "f"] {
        files.save(name, "1").unwrap();
    }
    let mut stream = Stream::open(&door.mount.dir).unwrap();
    for names in [["b", "d", "f"], ["a", "b", "c"]] {
        assert_eq!(stream.next().as_deref(), Some(names[0]));
        let second = stream.tell();
        assert_eq!(stream.next().as_deref(), Some(names[1]));
        files.save("a", "1").unwrap();
        files.save("c", "1").unwrap();
        stream.seek(second);
        assert_eq!(rest(&mut stream).first().map(String::as_str), Some(names[1]));
        stream.rewind();
        assert_eq!(rest(&mut stream), ["a", "b", "c", "d", "f"]);
        stream.rewind();
    }
}

/// More names than one answer to the kernel holds: those after the first page belong to the same snapshot.
#[test]
fn all_pages_after_a_new_start_are_of_one_moment() {
    let Some(door) = super::on_memory() else { return };
    let mount = &door.mount;
    let name = |number: usize| format!("{number:03}-{}", "x".repeat(200));
    for number in 0..300 {
        std::fs::write(mount.path(name(number)), "1").unwrap();
    }
    let mut stream = Stream::open(&mount.dir).unwrap();
    assert_eq!(rest(&mut stream).len(), 300);
    std::fs::remove_file(mount.path(name(0))).unwrap();
    stream.rewind();
    assert_eq!(stream.next(), Some(name(1)));
    for number in 1..100 {
        std::fs::remove_file(mount.path(name(number))).unwrap();
    }
    let seen = rest(&mut stream);
    assert!(seen.ends_with(&(100..300).map(name).collect::<Vec<_>>()), "{seen:?}");
    stream.rewind();
    assert_eq!(rest(&mut stream), (100..300).map(name).collect::<Vec<_>>());
}
