//! How often one save of each tool sets the key: once, unless the table says why not.

use super::{Bench, Calls, On};

const OLD: &str = "{\n  \"n\": 1\n}\n";
const NEW: &str = "{\n  \"n\": 2\n}\n";

/// A save that is one set.
const ONE: Calls = Calls::sets(1);
/// A document, and then white space in a write of its own.
const TWO: Calls = Calls::sets(2);
/// The key is removed before it is written.
const REMOVED: Calls = Calls::new(1, 1, 0);
/// What was written under a name that is a key of its own is renamed onto the key.
const RENAMED: Calls = Calls::new(1, 0, 1);

/// A tool; a script that saves `NEW` to the key `f`, whose value is `OLD`; the changes that the store is asked for. `old` and `new`
/// in `$BESIDE` have these texts.
type Save = (&'static str, &'static str, Calls);

const SHELLS: &[Save] = &[
    ("bash", "bash -c 'echo \"$(cat $BESIDE/new)\" > f'", ONE),
    ("bash", "bash -c 'printf \"%s\\n\" \"$(cat $BESIDE/new)\" > f'", ONE),
    ("bash", "bash -c 'cat > f <<< \"$(cat $BESIDE/new)\"'", ONE),
    ("bash", "bash -c '{ echo { ; echo \"  \\\"n\\\": 2\"; echo }; } > f'", ONE),
    ("bash", "bash -c 'exec 3> f; cat $BESIDE/new >&3; exec 3>&-'", ONE),
    ("bash", "bash -c '{ printf %s \"$(cat $BESIDE/new)\"; echo; } > f'", TWO),
    ("dash", "dash -c 'echo \"$(cat $BESIDE/new)\" > f'", ONE),
    ("dash", "dash -c 'cat > f <<END\n{\n  \"n\": 2\n}\nEND'", ONE),
    ("dash", "dash -c '{ printf %s \"$(cat $BESIDE/new)\"; echo; } > f'", TWO),
    ("busybox", "busybox sh -c 'echo \"$(cat $BESIDE/new)\" > f'", ONE),
];

const COPIES: &[Save] = &[
    ("cat", "cat $BESIDE/new > f", ONE),
    ("cp", "cp $BESIDE/new f", ONE),
    ("cp", "cp -p $BESIDE/new f", ONE),
    ("cp", "cp -a $BESIDE/new f", ONE),
    ("cp", "cp --remove-destination $BESIDE/new f", REMOVED),
    ("cp", "cp -f --reflink=auto --sparse=always $BESIDE/new f", ONE),
    ("install", "install -m 600 $BESIDE/new f", REMOVED),
    ("mv", "cp $BESIDE/new f.new && mv f.new f", RENAMED),
    ("mv", "cp $BESIDE/new $BESIDE/f && mv $BESIDE/f f", REMOVED),
    ("tee", "tee f < $BESIDE/new > $BESIDE/out", ONE),
    ("dd", "dd if=$BESIDE/new of=f status=none", ONE),
    ("dd", "dd if=$BESIDE/new of=f bs=512 status=none", ONE),
    ("dd", "dd if=$BESIDE/new of=f bs=5 status=none", ONE),
    ("dd", "dd if=$BESIDE/new of=f bs=5 oflag=sync status=none", ONE),
    ("dd", "dd if=$BESIDE/new of=f conv=fsync status=none", ONE),
    ("dd", "dd if=$BESIDE/new of=f conv=notrunc status=none", ONE),
    ("dd", "dd if=$BESIDE/new of=f bs=12 status=none", TWO),
    ("split", "split -b 13 $BESIDE/new && cp xaa f && rm xaa", Calls::new(2, 1, 0)),
    ("curl", "curl -s -o f file://$BESIDE/new", ONE),
    ("rsync", "rsync -aI $BESIDE/new f", ONE),
    ("rsync", "rsync -aI --inplace $BESIDE/new f", ONE),
    ("rsync", "rsync -a --inplace --no-whole-file --ignore-times $BESIDE/new f", ONE),
    ("rsync", "rsync -aI --temp-dir=$BESIDE $BESIDE/new f", REMOVED),
    ("tar", "cp $BESIDE/new $BESIDE/f && tar cf $BESIDE/t -C $BESIDE f && tar xf $BESIDE/t", REMOVED),
    ("tar", "cp $BESIDE/new $BESIDE/f && tar cf $BESIDE/t -C $BESIDE f && tar xf $BESIDE/t --overwrite", ONE),
    (
        "cpio",
        "cp $BESIDE/new $BESIDE/f && (cd $BESIDE && echo f | cpio -o --quiet) | cpio -iu --quiet",
        REMOVED,
    ),
    ("busybox", "busybox cp $BESIDE/new f", ONE),
    ("busybox", "busybox tee f < $BESIDE/new > $BESIDE/out", ONE),
];

const EDITS: &[Save] = &[
    ("sed", "sed -i s/1/2/ f", ONE),
    ("sed", "sed -i.orig s/1/2/ f && rm f.orig", Calls::new(1, 1, 1)),
    ("sed", "sed -i~ s/1/2/ f && rm f~", ONE),
    ("sed", "sed -n -e s/1/2/ -e 'w f' $BESIDE/old", ONE),
    ("busybox", "busybox sed -i s/1/2/ f", RENAMED),
    ("perl", "perl -i -pe s/1/2/ f", ONE),
    ("perl", "perl -i~ -pe s/1/2/ f && rm f~", ONE),
    ("perl", "perl -pe s/1/2/ $BESIDE/old > f", ONE),
    ("awk", "awk '{ sub(/1/, 2); print > \"f\" }' $BESIDE/old", ONE),
    ("ed", "printf 's/1/2/\\n2s/1/2/\\nw\\nq\\n' | ed -s f > $BESIDE/out || true", ONE),
    ("ex", "printf '%%s/1/2/\\nwq\\n' | ex -s f", ONE),
    ("vim", "vim -Nesu NONE -c 'set writebackup backupcopy=yes' -c '%s/1/2/' -c wq f", ONE),
    ("vim", "vim -Nesu NONE -c 'set writebackup backupcopy=no' -c '%s/1/2/' -c wq f", ONE),
    ("vim", "vim -Nesu NONE -c 'set nowritebackup' -c '%s/1/2/' -c wq f", ONE),
    (
        "emacs",
        "emacs --batch -Q f --eval '(progn (search-forward \"1\") (replace-match \"2\") (save-buffer))' 2> $BESIDE/out",
        ONE,
    ),
    (
        "emacs",
        "emacs --batch -Q f --eval '(let ((backup-by-copying t)) (search-forward \"1\") (replace-match \"2\") (save-buffer))' 2> $BESIDE/out && rm -f f~",
        ONE,
    ),
    ("jq", "jq '.n = 2' f > f.new && mv f.new f", RENAMED),
    ("jq", "jq '.n = 2' $BESIDE/old > f", ONE),
    ("sponge", "sed s/1/2/ f | sponge f", ONE),
    ("patch", "diff -u $BESIDE/old $BESIDE/new > $BESIDE/diff; patch -s f < $BESIDE/diff", RENAMED),
    ("sort", "sort -c /dev/null && sort -o f -m $BESIDE/new", ONE),
    (
        "git",
        "git -C $BESIDE init -q . && cp $BESIDE/new $BESIDE/f && cd $BESIDE && git add f && cd - > $BESIDE/out && \
             GIT_DIR=$BESIDE/.git GIT_WORK_TREE=$PWD git checkout -q f",
        REMOVED,
    ),
];

const LANGUAGES: &[Save] = &[
    (
        "python3",
        "python3 -c 'import json; json.dump({\"n\": 2}, open(\"f\", \"w\"), indent=2)' && echo >> f",
        TWO,
    ),
    (
        "python3",
        "python3 -c 'import json\nwith open(\"f\", \"w\") as f: json.dump({\"n\": 2}, f, indent=2); f.write(\"\\n\")'",
        ONE,
    ),
    (
        "python3",
        "python3 -c 'import json\nwith open(\"f\", \"w\") as f: json.dump({\"n\": 2}, f, indent=2); f.flush(); f.write(\"\\n\")'",
        TWO,
    ),
    (
        "python3",
        "python3 -c 'import pathlib, os; pathlib.Path(\"f\").write_text(open(os.environ[\"BESIDE\"] + \"/new\").read())'",
        ONE,
    ),
    (
        "python3",
        "python3 -c 'import json; print(json.dumps({\"n\": 2}, indent=2), file=open(\"f\", \"w\"))'",
        ONE,
    ),
    ("python3", "python3 -u -c 'import json; print(json.dumps({\"n\": 2}, indent=2))' > f", TWO),
    (
        "python3",
        "python3 -c 'import os, shutil; shutil.copy2(os.environ[\"BESIDE\"] + \"/new\", \"f\")'",
        ONE,
    ),
    (
        "python3",
        "python3 -c 'import json\nwith open(\"f\", \"r+\") as f: json.dump({\"n\": 2}, f, indent=2); f.write(\"\\n\"); f.truncate()'",
        ONE,
    ),
    (
        "python3",
        "python3 -c 'import json, os, tempfile\nf = tempfile.NamedTemporaryFile(\"w\", dir=\".\", delete=False)\n\
                 json.dump({\"n\": 2}, f, indent=2); f.write(\"\\n\"); f.close(); os.replace(f.name, \"f\")'",
        ONE,
    ),
    (
        "node",
        "node -e 'require(\"fs\").writeFileSync(\"f\", JSON.stringify({n: 2}, null, 2) + \"\\n\")'",
        ONE,
    ),
    (
        "node",
        "node -e 'require(\"fs\").writeFile(\"f\", JSON.stringify({n: 2}, null, 2) + \"\\n\", () => 0)'",
        ONE,
    ),
    (
        "node",
        "node -e 'require(\"fs\").createWriteStream(\"f\").end(JSON.stringify({n: 2}, null, 2) + \"\\n\")'",
        ONE,
    ),
    ("node", "node -e 'require(\"fs\").cpSync(process.env.BESIDE + \"/new\", \"f\")'", REMOVED),
    ("perl", "perl -e 'open F, \">\", \"f\"; print F qq({\\n  \"n\": 2\\n}\\n); close F or die'", ONE),
];

/// All saves that differ from the table are told at once.
fn counted(on: On, saves: &[Save]) {
    let tools: Vec<&str> = saves.iter().map(|(tool, ..)| *tool).collect();
    let Some(at) = on.for_editors(&tools) else { return };
    at.put_beside("old", OLD);
    at.put_beside("new", NEW);
    let wrong: Vec<String> =
        saves.iter().filter_map(|(_, script, calls)| difference(&at, script, *calls)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(at.afresh().names(), ["f"]);
}

fn difference(at: &Bench, script: &str, calls: Calls) -> Option<String> {
    at.put("f", OLD);
    let ran = at.sh(script);
    let set = at.text("f") == NEW && at.stored("f") == at.kept(NEW);
    (ran.code != Some(0) || ran.calls != calls || !set)
        .then(|| format!("{script}: {:?} {ran:?}", at.text("f")))
}

pub(super) fn a_shell_sets_once(on: On) {
    counted(on, SHELLS);
}

pub(super) fn a_copy_sets_once(on: On) {
    counted(on, COPIES);
}

pub(super) fn an_edit_sets_once(on: On) {
    counted(on, EDITS);
}

pub(super) fn a_program_sets_once(on: On) {
    counted(on, LANGUAGES);
}
