//! Rules 1 to 3: what a reader sees.

use std::fs;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use crate::common::{Elsewhere, Mount, PATIENCE, Raise, can_mount, close, errno, wait_for};

#[test]
fn rule_01_a_key_is_a_file_with_its_bytes_and_true_size() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let text = "{ \"b\": 1.10,\t\"a\": 12345678901234567890123, \"b\": null }\n\n";
    fs::write(mount.path("db"), text).unwrap();
    let elsewhere = Elsewhere::of(&mount);
    assert_eq!(elsewhere.get("db").unwrap(), text);
    elsewhere.set("other", "[1, 2]");
    wait_for(PATIENCE, || mount.path("other").exists());
    let listed: Vec<(String, u64)> = fs::read_dir(&mount.dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    assert_eq!(listed, [("db".into(), text.len() as u64), ("other".into(), 6)]);
    let age = SystemTime::now()
        .duration_since(fs::metadata(mount.path("db")).unwrap().modified().unwrap())
        .unwrap();
    assert!(age < Duration::from_mins(10));
    assert_eq!(fs::read_to_string(mount.path("db")).unwrap(), text);
    assert_eq!(fs::read_to_string(mount.path("other")).unwrap(), "[1, 2]");
}

#[test]
fn rule_02_every_key_has_one_name_and_every_name_one_key() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    let long = "é".repeat(400);
    let keys = [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a\nb",
        "\u{1b}[31mred",
        "50%",
        "a%2Fb",
        "%(empty)",
        "数据",
        "-rf",
        &long,
    ];
    for (number, key) in keys.iter().enumerate() {
        elsewhere.set(key, &number.to_string());
    }
    wait_for(PATIENCE, || fs::read_dir(&mount.dir).unwrap().count() == keys.len());
    let mut seen: Vec<usize> = Vec::new();
    for entry in fs::read_dir(&mount.dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.contains(char::is_control) && name.len() <= 255, "{name:?}");
        seen.push(fs::read_to_string(entry.path()).unwrap().parse().unwrap());
        fs::write(entry.path(), format!("[{}]", seen.last().unwrap())).unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..keys.len()).collect::<Vec<_>>());
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(elsewhere.get(key).unwrap(), format!("[{number}]"));
    }
    assert_eq!(fs::read_to_string(mount.path("a%2Fb")).unwrap(), "[3]");
    assert_eq!(errno(File::create(mount.path("a\nb"))), libc::EINVAL);
    assert_eq!(errno(File::open(mount.path("a\nb"))), libc::ENOENT);
    assert_eq!(errno(File::create(mount.path("x".repeat(256)))), libc::ENAMETOOLONG);
    let removed = mount.sh("rm -- *");
    assert!(removed.status.success(), "{removed:?}");
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 0);
}

#[test]
fn rule_03_readers_see_one_version_whole() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let (old, new) = ("[".to_owned() + &"1,".repeat(3000) + "1]", "[".to_owned() + &"2,".repeat(100) + "2]");
    fs::write(mount.path("db"), &old).unwrap();
    let mut reader = File::open(mount.path("db")).unwrap();
    let mut first = [0; 4096];
    reader.read_exact(&mut first).unwrap();
    let mut writer = File::create(mount.path("db")).unwrap();
    writer.write_all(&new.as_bytes()[..50]).unwrap();
    assert_eq!(fs::read_to_string(mount.path("db")).unwrap(), old);
    assert_eq!(fs::metadata(mount.path("db")).unwrap().len(), old.len() as u64);
    writer.write_all(&new.as_bytes()[50..]).unwrap();
    assert_eq!(close(writer), 0);
    assert_eq!(fs::read_to_string(mount.path("db")).unwrap(), new);
    assert_eq!(fs::metadata(mount.path("db")).unwrap().len(), new.len() as u64);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(String::from_utf8(first.to_vec()).unwrap() + &rest, old);
    reader.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), old.len() as u64);
    let mut again = String::new();
    reader.read_to_string(&mut again).unwrap();
    assert_eq!(again, old);
}

/// The kernel hears of sizes, contents and changes by ways of their own, in any order.
#[test]
fn rule_03_a_value_is_never_cut_at_the_length_of_another_one() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--timeout", "60s"]);
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let other = Mount::start_in(tempfile::TempDir::new().unwrap(), &store, &["--timeout", "60s"]);
    let text = |number: usize| format!("[{number},\"{}\",{number}]\n", "x".repeat(number));
    let save = |number: usize| {
        let mut file = File::create(mount.path("k")).unwrap();
        file.write_all(text(number).as_bytes()).unwrap();
        assert_eq!(close(file), 0);
    };
    save(0);
    wait_for(PATIENCE, || other.path("k").exists());
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for path in [mount.path("k"), other.path("k"), mount.path("k"), other.path("k")] {
            let over = &over;
            scope.spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let seen = fs::read_to_string(&path).unwrap();
                    let number = seen[1..].split(',').next().unwrap().parse().unwrap();
                    assert_eq!(seen, text(number));
                }
            });
        }
        let _end = Raise(&over);
        (1..400).for_each(save);
    });
}

#[test]
fn rule_02_a_listing_that_is_read_on_brings_nothing_back() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let name = |number: usize| format!("{number:04}-{}", "x".repeat(200));
    for number in 0..400 {
        fs::write(mount.path(name(number)), "1").unwrap();
    }
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let mount = Mount::start_in(mount.unmount(), &store, &[]);
    let mut entries = fs::read_dir(&mount.dir).unwrap();
    // The directory is open, and the kernel has its first page only.
    let mut seen = vec![entries.next().unwrap().unwrap()];
    fs::remove_file(mount.path(name(390))).unwrap();
    fs::write(mount.path(name(391)), "[22]").unwrap();
    seen.extend(entries.map(Result::unwrap));
    assert!(seen.len() >= 399);
    assert!(!mount.path(name(390)).exists());
    assert_eq!(fs::metadata(mount.path(name(391))).unwrap().len(), 4);
    fs::write(mount.path(name(390)), "[3]").unwrap();
    assert_eq!(fs::read_to_string(mount.path(name(390))).unwrap(), "[3]");
}

#[test]
fn rule_02_with_an_extension_every_key_ends_in_it() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--extension", ".json"]);
    let elsewhere = Elsewhere::of(&mount);
    // A key that is called like a scratch file is not one, and a scratch file is not that key.
    elsewhere.set("k.swp", "[1]");
    elsewhere.set(".app.json.swp", "[2]");
    wait_for(PATIENCE, || mount.path("k.swp.json").exists());
    assert_eq!(fs::read_to_string(mount.path(".app.json.swp.json")).unwrap(), "[2]");
    fs::write(mount.path(".app.json.swp"), "no JSON").unwrap();
    assert_eq!(fs::read_to_string(mount.path(".app.json.swp")).unwrap(), "no JSON");
    assert_eq!(elsewhere.get(".app.json.swp").as_deref(), Some("[2]"));
    fs::remove_file(mount.path(".app.json.swp")).unwrap();
    assert_eq!(elsewhere.get(".app.json.swp").as_deref(), Some("[2]"));
    let out = mount
        .sh("echo '{\"a\":1}' > app.json && sed -i s/1/2/ app.json && cp app.json copy.json && rm app.json");
    assert!(out.status.success(), "{out:?}");
    assert_eq!(elsewhere.get("copy").as_deref(), Some("{\"a\":2}\n"));
    assert_eq!(elsewhere.get("app"), None);
    // The temporary file of a program that synchronises it before the rename.
    let out = mount.sh("set -C; echo '[3]' > app.json.tmp && sync app.json.tmp && mv app.json.tmp app.json");
    assert!(out.status.success(), "{out:?}");
    assert_eq!(elsewhere.get("app").as_deref(), Some("[3]\n"));
    assert_eq!(elsewhere.get("app.json.tmp"), None);
    // However it is created: a temporary name is never taken for a key, nor does one hide a key of that name.
    elsewhere.set("app.tmp", "[4]");
    let out = mount.sh("echo '[5]' > app.tmp && ls app.tmp* && mv app.tmp app.json && echo '[6]' > tmp12345678 && sync tmp12345678 && rm tmp12345678");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "app.tmp\napp.tmp.json\n", "{out:?}");
    assert_eq!(elsewhere.get("app").as_deref(), Some("[5]\n"));
    assert_eq!(elsewhere.get("app.tmp").as_deref(), Some("[4]"));
    assert_eq!(elsewhere.get("tmp12345678"), None);
    assert_eq!(errno(fs::rename(mount.path("app.json"), mount.path("app.part"))), libc::EINVAL);
    elsewhere.delete("app.tmp");
    wait_for(PATIENCE, || !mount.path("app.tmp.json").exists());
    let refused = fs::write(mount.path("plain"), "1");
    assert_eq!(errno(refused), libc::EINVAL);
    assert!(!mount.path("plain").exists());
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 4);
}

#[test]
fn rule_03_a_new_file_that_is_written_is_an_empty_one_of_one_time_for_others() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let shown = || {
        let out = mount.sh("stat -c '%s %.9Y %.9Z' new; tar cf /dev/null new");
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let mut file = File::create_new(mount.path("new")).unwrap();
    let made = shown();
    assert!(made.0.starts_with("0 ") && made.1.is_empty(), "{made:?}");
    file.write_all(b"[1,").unwrap();
    assert_eq!(shown(), made);
    file.write_all(b"2,").unwrap();
    assert_eq!(shown(), made);
    assert_eq!(mount.sh("touch -d @1000000000 new; stat -c '%s %Y' new").stdout, b"0 1000000000\n");
    file.write_all(b"3]").unwrap();
    assert!(shown().0.starts_with("7 "), "{:?}", shown());
}
