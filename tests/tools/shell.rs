//! Redirections, pipes and inherited descriptors of dash and bash.

use std::fs;

use super::{Bench, Calls, On, Ran};

const SHELLS: [&str; 2] = ["dash", "bash"];
const OLD: &str = "{\"old\":true}\n";

/// Runs `script` with each shell on its own copy of the key `f`.
fn with_each_shell(on: On, script: &str, check: impl Fn(&Bench, &str, Ran)) {
    let Some(at) = on.any(&SHELLS) else { return };
    for shell in SHELLS {
        at.put("f", OLD);
        let ran = at.run(at.command(shell).arg("-c").arg(script));
        check(&at, shell, ran);
    }
}

/// The message of a shell whose builtin cannot write: dash has one for every errno.
fn refusal(shell: &str) -> &'static str {
    if shell == "bash" { "Invalid argument" } else { "I/O error" }
}

pub(super) fn echo_creates_a_key_with_one_set(on: On) {
    with_each_shell(on, r#"echo '{"by":"echo"}' > new"#, |at, shell, ran| {
        ran.succeeds(Calls::sets(1));
        assert_eq!(at.text("new"), "{\"by\":\"echo\"}\n", "{shell}");
        fs::remove_file(at.mount.path("new")).unwrap();
    });
}

pub(super) fn echo_replaces_a_value_with_one_set(on: On) {
    with_each_shell(on, r#"echo '{"by":"echo"}' > f"#, |at, shell, ran| {
        ran.succeeds(Calls::sets(1));
        assert_eq!(at.text("f"), "{\"by\":\"echo\"}\n", "{shell}");
    });
}

pub(super) fn echo_of_invalid_json_fails_and_the_old_value_stays(on: On) {
    with_each_shell(on, "echo bad > f", |at, shell, ran| {
        ran.fails(refusal(shell), Calls::NONE);
        assert_eq!(at.text("f"), OLD, "{shell}");
    });
}

pub(super) fn echo_of_invalid_json_to_a_new_key_fails_and_stores_nothing(on: On) {
    let Some(at) = on.lasting(&SHELLS) else { return };
    for shell in SHELLS {
        at.run(at.command(shell).arg("-c").arg("echo bad > new")).fails(refusal(shell), Calls::NONE);
        assert_eq!(at.stored("new"), None, "{shell}");
    }
    assert_eq!(at.afresh().names(), Vec::<String>::new());
}

pub(super) fn what_a_shell_could_not_publish_is_set_aside(on: On) {
    let Some(at) = on.any(&[]) else { return };
    at.put("f", OLD);
    at.sh("( echo '{\"half\":' ) > f");
    assert_eq!(at.text("f"), OLD);
    let kept = at.set_aside();
    assert!(kept.iter().any(|text| text.contains("{\"half\":")), "{kept:?}");
}

pub(super) fn a_redirection_alone_keeps_the_value(on: On) {
    with_each_shell(on, ": > f", |at, shell, ran| {
        assert_eq!(ran.calls, Calls::NONE, "{shell}");
        assert_eq!(at.text("f"), OLD, "{shell}");
    });
}

pub(super) fn a_heredoc_is_one_set(on: On) {
    with_each_shell(on, "cat > f <<'END'\n{\n  \"by\": \"cat\"\n}\nEND\n", |at, shell, ran| {
        ran.succeeds(Calls::sets(1));
        assert_eq!(at.text("f"), "{\n  \"by\": \"cat\"\n}\n", "{shell}");
    });
}

pub(super) fn appending_white_space_is_one_set(on: On) {
    with_each_shell(on, "printf ' \\n' >> f", |at, shell, ran| {
        ran.succeeds(Calls::sets(1));
        assert_eq!(at.text("f"), format!("{OLD} \n"), "{shell}");
    });
}

pub(super) fn appending_a_second_document_fails_and_the_old_value_stays(on: On) {
    with_each_shell(on, "echo '{}' >> f", |at, shell, ran| {
        ran.fails(refusal(shell), Calls::NONE);
        assert_eq!(at.text("f"), OLD, "{shell}");
    });
}

pub(super) fn appending_to_a_number_makes_a_longer_number(on: On) {
    with_each_shell(on, "printf 12 > n && printf 34 >> n && cat n", |_, _, ran| {
        assert_eq!(ran.succeeds(Calls::sets(2)), "1234");
    });
}

pub(super) fn appending_to_a_new_name_creates_the_key(on: On) {
    with_each_shell(on, "echo 1 >> g && cat g && rm g", |_, _, ran| {
        assert_eq!(ran.succeeds(Calls::new(1, 1, 0)), "1\n");
    });
}

pub(super) fn a_subshell_of_programs_publishes_once(on: On) {
    with_each_shell(
        on,
        "( /bin/echo '{\"a\":'; /bin/echo 1; /bin/echo '}' ) > f; echo $?",
        |at, shell, ran| {
            assert_eq!(ran.succeeds(Calls::sets(1)), "0\n");
            assert_eq!(at.text("f"), "{\"a\":\n1\n}\n", "{shell}");
        },
    );
}

pub(super) fn a_group_of_builtins_and_programs_publishes_once(on: On) {
    with_each_shell(
        on,
        "{ echo '['; /bin/echo 1,; echo 2,; /bin/echo 3; printf ']'; } > f; echo $?",
        |at, shell, ran| {
            assert_eq!(ran.succeeds(Calls::sets(1)), "0\n");
            assert_eq!(at.text("f"), "[\n1,\n2,\n3\n]", "{shell}");
        },
    );
}

pub(super) fn programs_started_by_xargs_write_one_document_together(on: On) {
    with_each_shell(on, "printf '[ 1, 2 ]' | xargs -n1 /bin/echo > f; echo $?", |at, shell, ran| {
        assert_eq!(ran.succeeds(Calls::sets(1)), "0\n");
        assert_eq!(at.text("f"), "[\n1,\n2\n]\n", "{shell}");
    });
}

pub(super) fn xargs_writes_many_keys_in_parallel(on: On) {
    let Some(at) = on.lasting(&["xargs", "seq"]) else { return };
    at.sh("seq 40 | xargs -P 4 -I N sh -c 'echo N > keyN'").succeeds(Calls::sets(40));
    for n in 1..=40 {
        assert_eq!(at.stored(&format!("key{n}")), at.kept(&format!("{n}\n")));
    }
    assert_eq!(at.names().len(), 40);
}

pub(super) fn a_descriptor_that_stays_open_publishes_what_is_complete(on: On) {
    with_each_shell(on, "exec 3> f; echo '{\"n\":1}' >&3; exec 3>&-; cat f", |_, _, ran| {
        assert_eq!(ran.succeeds(Calls::sets(1)), "{\"n\":1}\n");
    });
}

pub(super) fn a_descriptor_opened_for_both_reads_the_value(on: On) {
    with_each_shell(on, "exec 3<> f; read -r line <&3; exec 3>&-; echo \"$line\"", |at, shell, ran| {
        assert_eq!(ran.succeeds(Calls::NONE), OLD);
        assert_eq!(at.text("f"), OLD, "{shell}");
    });
}

pub(super) fn noclobber_protects_a_key(on: On) {
    with_each_shell(on, "set -C; echo 1 > f", |at, shell, ran| {
        ran.fails("f", Calls::NONE);
        assert_eq!(at.text("f"), OLD, "{shell}");
    });
    with_each_shell(on, "set -C; echo 1 > f1 && rm f1", |_, _, ran| {
        ran.succeeds(Calls::new(1, 1, 0));
    });
}

pub(super) fn tee_publishes_once(on: On) {
    with_each_shell(on, "echo '{\"by\":\"tee\"}' | tee f", |at, shell, ran| {
        assert_eq!(ran.succeeds(Calls::sets(1)), "{\"by\":\"tee\"}\n");
        assert_eq!(at.text("f"), "{\"by\":\"tee\"}\n", "{shell}");
    });
}

pub(super) fn tee_appends_with_one_set(on: On) {
    with_each_shell(on, "echo | tee -a f", |at, shell, ran| {
        ran.succeeds(Calls::sets(1));
        assert_eq!(at.text("f"), format!("{OLD}\n"), "{shell}");
    });
}

pub(super) fn tee_reports_invalid_json(on: On) {
    with_each_shell(on, "echo bad | tee f", |at, shell, ran| {
        ran.fails("Invalid argument", Calls::NONE);
        assert_eq!(at.text("f"), OLD, "{shell}");
    });
}

pub(super) fn a_value_over_the_limit_is_refused(on: On) {
    let Some(at) = on.any(&SHELLS) else { return };
    at.put("f", OLD);
    // White space counts as text, not as value: Prefect 3 takes no value over 5,000 bytes.
    at.put_beside("exact", &format!("[{}1]\n", " ".repeat(9_997)));
    at.put_beside("over", &format!("[{}1]\n", " ".repeat(9_998)));
    for script in ["cat $BESIDE/over > f", "tee f < $BESIDE/over", "cat $BESIDE/over | tee f"] {
        for shell in SHELLS {
            at.run(at.command(shell).arg("-c").arg(script)).fails("File too large", Calls::NONE);
            assert_eq!(at.text("f"), OLD, "{shell}: {script}");
        }
    }
    at.sh("cat $BESIDE/exact > f").succeeds(Calls::sets(1));
    assert_eq!(at.text("f").len(), 10_001);
}

pub(super) fn a_key_is_read_by_redirection_and_substitution(on: On) {
    with_each_shell(
        on,
        "wc -c < f && echo \"$(cat f)\" && read -r line < f && echo \"$line\"",
        |_, _, ran| {
            assert_eq!(ran.succeeds(Calls::NONE), format!("{}\n{OLD}{OLD}", OLD.len()));
        },
    );
}

pub(super) fn a_glob_expands_to_the_keys(on: On) {
    with_each_shell(on, "echo 1 > a-b; echo 2 > g; echo *; rm a-b g", |_, _, ran| {
        assert_eq!(ran.succeeds(Calls::new(2, 2, 0)), "a-b f g\n");
    });
}
