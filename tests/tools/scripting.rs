//! sed, perl, Python, jq, sponge and git.

use super::{Bench, Calls, On};
use crate::common::http::installed;

/// Indented, so that it looks the same on every store on a new mount too.
const OLD: &str = "{\n  \"n\": 1\n}\n";
const NEW: &str = "{\n  \"n\": 2\n}\n";

/// A mount with the key `f`.
fn bench(on: On, tools: &[&str]) -> Option<Bench> {
    let at = on.lasting(tools)?;
    at.put("f", OLD);
    Some(at)
}

/// `f` is the only key, with this value for readers and in the store.
#[track_caller]
fn only_f_is(at: &Bench, value: &str) {
    assert_eq!(at.text("f"), value);
    assert_eq!(at.stored("f"), at.kept(value));
    assert_eq!(at.names(), ["f"]);
}

pub(super) fn sed_in_place_is_one_set(on: On) {
    let Some(at) = bench(on, &["sed"]) else { return };
    at.sh("sed -i s/1/2/ f").succeeds(Calls::sets(1));
    only_f_is(&at, NEW);
    only_f_is(&at.afresh(), NEW);
}

pub(super) fn sed_in_place_of_many_keys_is_one_set_each(on: On) {
    let Some(at) = bench(on, &["sed"]) else { return };
    at.sh("for n in 1 2 3; do echo 1 > k$n; done; sed -i s/1/2/ k1 k2 k3").succeeds(Calls::sets(6));
    assert_eq!(at.sh("cat k?").succeeds(Calls::NONE), "2\n2\n2\n");
}

pub(super) fn sed_in_place_that_makes_bad_json_fails_and_the_old_value_stays(on: On) {
    let Some(at) = bench(on, &["sed"]) else { return };
    at.sh("sed -i s/1/oops/ f").fails("Invalid argument", Calls::NONE);
    only_f_is(&at, OLD);
    assert!(at.mount.last_error().contains("not JSON at byte"), "{}", at.mount.last_error());
    only_f_is(&at.afresh(), OLD);
}

pub(super) fn sed_keeps_a_backup_beside_the_key(on: On) {
    let Some(at) = bench(on, &["sed"]) else { return };
    at.sh("sed -i~ s/1/2/ f").succeeds(Calls::sets(1));
    assert_eq!(at.text("f"), NEW);
    assert_eq!(at.text("f~"), OLD);
    assert_eq!(at.stored("f~"), None);
    only_f_is(&at.afresh(), NEW);
}

pub(super) fn perl_in_place_publishes_once(on: On) {
    let Some(at) = bench(on, &["perl"]) else { return };
    at.sh("perl -i -pe s/1/2/ f").succeeds(Calls::sets(1));
    only_f_is(&at, NEW);
}

pub(super) fn perl_writes_and_reports(on: On) {
    let Some(at) = bench(on, &["perl"]) else { return };
    let script =
        |text: &str| format!("perl -e 'open(F, \">\", \"f\") or die; print F q({text}); close F or die $!'");
    at.sh(&script("{\"n\":2}")).succeeds(Calls::sets(1));
    at.sh(&script("{\"n\":")).fails("Invalid argument", Calls::NONE);
    only_f_is(&at, "{\"n\":2}");
}

pub(super) fn python_dumps_json_with_one_set(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    at.python("import json\nwith open('f', 'w') as f: json.dump({'n': [1, 2, 3]}, f, indent=2)")
        .succeeds(Calls::sets(1));
    only_f_is(&at, "{\n  \"n\": [\n    1,\n    2,\n    3\n  ]\n}");
}

pub(super) fn python_hears_at_close_that_a_document_is_incomplete(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    at.python("with open('f', 'w') as f: f.write('{\"n\":')").fails("Invalid argument", Calls::NONE);
    only_f_is(&at, OLD);
}

pub(super) fn python_hears_at_fsync_that_a_document_is_incomplete(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import os\n\
                  fd = os.open('f', os.O_WRONLY | os.O_TRUNC)\n\
                  os.write(fd, b'[1,')\n\
                  try: os.fsync(fd)\n\
                  except OSError as error: print(error.strerror)\n\
                  os.write(fd, b'2]')\n\
                  os.fsync(fd)\n\
                  os.close(fd)";
    assert_eq!(at.python(script).succeeds(Calls::sets(1)), "Invalid argument\n");
    only_f_is(&at, "[1,2]");
}

pub(super) fn tinydb_sets_once_what_it_syncs_before_it_cuts_off_the_rest(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let Some(packages) = installed("tinydb-4.9.0", "tinydb/__init__.py") else { return };
    let tinydb = |change: &str| {
        let script = format!(
            "import tinydb\ndb = tinydb.TinyDB('f')\nwhere = tinydb.where('n')\n{change}\nprint(open('f').read())\ndb.close()"
        );
        let mut command = at.command("python3");
        at.run(command.arg("-c").arg(script).env("PYTHONPATH", &packages)).succeeds(Calls::sets(1))
    };
    at.put("f", "{\"_default\":{\"1\":{\"n\":\"long\"},\"2\":{\"n\":2}}}");
    for (change, left) in [
        ("db.remove(where == 'long')", "{\"_default\": {\"2\": {\"n\": 2}}}"),
        ("db.update({'n': 22})", "{\"_default\": {\"2\": {\"n\": 22}}}"),
        ("db.drop_tables()", "{}"),
    ] {
        let shown = at.kept(left);
        assert_eq!(tinydb(change).trim_end(), at.text("f").trim_end(), "{change}");
        assert_eq!(at.stored("f"), shown, "{change}");
    }
    only_f_is(&at, "{}");
}

pub(super) fn python_edits_in_place_with_one_set(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import json\n\
                  with open('f', 'r+') as f:\n\
                  \x20   value = json.load(f)\n\
                  \x20   value['n'] = 2\n\
                  \x20   f.seek(0)\n\
                  \x20   f.truncate()\n\
                  \x20   json.dump(value, f)";
    at.python(script).succeeds(Calls::sets(1));
    only_f_is(&at, "{\"n\": 2}");
}

pub(super) fn python_replaces_a_key_by_a_temporary_file_with_one_set(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import json, os, tempfile\n\
                  with tempfile.NamedTemporaryFile('w', dir='.', delete=False) as f: json.dump(2, f)\n\
                  os.replace(f.name, 'f')";
    at.python(script).succeeds(Calls::sets(1));
    only_f_is(&at, "2");
}

pub(super) fn python_replaces_a_key_by_a_synced_temporary_file(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import json, os, tempfile\n\
                  with tempfile.NamedTemporaryFile('w', dir='.', delete=False) as f:\n\
                  \x20   json.dump(2, f)\n\
                  \x20   f.flush()\n\
                  \x20   os.fsync(f.fileno())\n\
                  os.replace(f.name, 'f')";
    let ran = at.python(script);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    only_f_is(&at, "2");
}

pub(super) fn python_deletes_a_temporary_file_without_a_trace(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import tempfile\nwith tempfile.NamedTemporaryFile('w', dir='.') as f: f.write('1')";
    at.python(script).succeeds(Calls::NONE);
    only_f_is(&at, OLD);
}

pub(super) fn python_renames_keys(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    at.put("g", NEW);
    at.python("import os; os.replace('g', 'f')").succeeds(Calls::new(0, 0, 1));
    only_f_is(&at, NEW);
}

pub(super) fn python_copies_a_file_with_its_times(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    at.put_beside("src", NEW);
    let script = "import os, shutil\n\
                  src = os.environ['BESIDE'] + '/src'\n\
                  os.utime(src, (1234567890, 1234567890))\n\
                  shutil.copy2(src, 'f')\n\
                  print(int(os.stat('f').st_mtime))";
    assert_eq!(at.python(script).succeeds(Calls::sets(1)), "1234567890\n");
    only_f_is(&at, NEW);
}

pub(super) fn python_reads_through_a_map(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import mmap\n\
                  with open('f', 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:\n\
                  \x20   print(len(m), bytes(m))";
    assert_eq!(at.python(script).succeeds(Calls::NONE), "13 b'{\\n  \"n\": 1\\n}\\n'\n");
}

pub(super) fn python_writes_through_a_map_with_one_set(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import mmap\n\
                  with open('f', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:\n\
                  \x20   m[9:10] = b'2'\n\
                  \x20   m.flush()";
    at.python(script).succeeds(Calls::sets(1));
    only_f_is(&at, NEW);
}

/// The change reaches the daemon only after the last descriptor is closed.
pub(super) fn python_writes_through_a_map_that_outlives_its_descriptor(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import mmap, os\n\
                  fd = os.open('f', os.O_RDWR)\n\
                  m = mmap.mmap(fd, 0)\n\
                  os.close(fd)\n\
                  m[9:10] = b'2'\n\
                  m.close()";
    assert_eq!(at.python(script).code, Some(0));
    super::wait_for(super::PATIENCE, || at.stored("f") == at.kept(NEW));
    only_f_is(&at, NEW);
}

pub(super) fn children_of_python_write_one_document_together(on: On) {
    let Some(at) = bench(on, &["python3"]) else { return };
    let script = "import subprocess\n\
                  with open('f', 'w') as f:\n\
                  \x20   for part in ['[', '1,', '2', ']']: subprocess.run(['echo', part], stdout=f, check=True)";
    at.python(script).succeeds(Calls::sets(1));
    only_f_is(&at, "[\n1,\n2\n]\n");
}

pub(super) fn jq_and_sponge_edit_a_key_with_one_set(on: On) {
    let Some(at) = bench(on, &["jq", "sponge"]) else { return };
    at.sh("jq '.n = 2' f | sponge f").succeeds(Calls::sets(1));
    only_f_is(&at, NEW);
    at.sh("echo oops | sponge f").fails("", Calls::NONE);
    only_f_is(&at, NEW);
}

pub(super) fn jq_and_mv_edit_a_key(on: On) {
    let Some(at) = bench(on, &["jq"]) else { return };
    at.sh("jq '.n = 2' f > f-new && mv f-new f").succeeds(Calls::new(1, 0, 1));
    only_f_is(&at, NEW);
}

/// On a local disk this empties the file.
pub(super) fn jq_onto_its_own_input_never_empties_the_key(on: On) {
    let Some(at) = bench(on, &["jq"]) else { return };
    at.sh("jq . f > f").code.unwrap();
    let value: serde_json::Value = serde_json::from_str(&at.text("f")).unwrap();
    assert_eq!(value, serde_json::json!({"n": 1}));
    assert_eq!(at.stored("f"), at.kept(&at.text("f")));
}

/// Runs a script with git settings that depend on nothing outside the test.
fn git(at: &Bench, script: &str) -> super::Ran {
    let mut command = at.command("sh");
    command.arg("-c").arg(script).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "A").env(format!("GIT_{role}_EMAIL"), "a@example.org");
    }
    at.run(&mut command)
}

pub(super) fn git_commits_a_copy(on: On) {
    let Some(at) = bench(on, &["git"]) else { return };
    let script = "cp -r . $BESIDE/copy && cd $BESIDE/copy && git init -q && git add . && git commit -qm 1 &&
                  git show HEAD:f";
    assert_eq!(git(&at, script).succeeds(Calls::NONE), OLD);
}

pub(super) fn git_uses_the_mount_as_its_work_tree(on: On) {
    let Some(at) = bench(on, &["git"]) else { return };
    let git =
        |script: &str| git(&at, &format!("export GIT_DIR=$BESIDE/repository GIT_WORK_TREE=$PWD; {script}"));
    git("git init -q && git add -A && git commit -qm 1").succeeds(Calls::NONE);
    assert_eq!(git("git status --porcelain && git ls-files").succeeds(Calls::NONE), "f\n");
    git("echo '{\"n\":22}' > f && ! git diff --quiet && echo 3 > g").succeeds(Calls::sets(2));
    assert_eq!(git("git status --porcelain").succeeds(Calls::NONE), " M f\n?? g\n");
    git("git checkout -q f").succeeds(Calls::new(1, 1, 0));
    assert_eq!(at.stored("f"), at.kept(OLD));
    git("git clean -qf").succeeds(Calls::new(0, 1, 0));
    only_f_is(&at, OLD);
}

pub(super) fn git_cannot_put_its_repository_on_the_mount(on: On) {
    let Some(at) = bench(on, &["git"]) else { return };
    if on.is_flat() {
        git(&at, "git init -q").fails("Operation not permitted", Calls::NONE);
        only_f_is(&at, OLD);
    } else {
        // Its files are no JSON.
        git(&at, "git init -q").fails("Invalid argument", Calls::NONE);
        at.sh("rm -rf .git").succeeds(Calls::NONE);
        only_f_is(&at, OLD);
    }
}
