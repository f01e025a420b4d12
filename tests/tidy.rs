//! The rules of docs/architecture.md that a test can check.
#![allow(missing_docs, clippy::unwrap_used)]

mod circles;
mod crates;

use std::fs;
use std::path::{Path, PathBuf};

/// Largest source file in lines of code and comments, its tests left out.
const FILE_LINES: usize = 420;
/// Largest function in lines.
const FUNCTION_LINES: usize = 62;

fn sources(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The part of a source file before its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// Lines of code that name `word` as a path, comments left out.
fn names(text: &str, word: &str) -> bool {
    product(text).lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            let part_of_word =
                |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
            // A module of ours may be called as a crate is.
            !part_of_word(before) && before != Some(':') && line[at + word.len()..].starts_with("::")
                || line.trim_start().starts_with(&format!("use {word}")) && !part_of_word(after)
        })
    })
}

fn only_in(word: &str, modules: &[&str]) {
    for (path, text) in sources("src") {
        if names(&text, word) {
            assert!(
                modules.iter().any(|module| path.starts_with(module)),
                "{path} names {word}, which belongs to {modules:?}"
            );
        }
    }
}

#[test]
fn each_outside_crate_is_named_in_its_module_only() {
    only_in("fuser", &["src/fuse.rs", "src/fuse/"]);
    only_in("clap", &["src/cli.rs", "src/cli/"]);
    only_in("strsim", &["src/nearest.rs"]);
    only_in("rusqlite", &["src/store/sqlite.rs", "src/store/sqlite/"]);
    only_in("inotify", &["src/store/sqlite/watcher.rs", "src/store/sqlite/write_monitor.rs"]);
    let bounded = ["src/cache.rs", "src/cache/", "src/fs/state/paths.rs", "src/fs/state/predecessors.rs"];
    only_in("lru", &[&bounded[..], &["src/serve/tenant.rs", "src/store/etcd/view.rs"]].concat());
    only_in("axum", &["src/serve/"]);
    for word in ["reqwest", "reqwest_websocket"] {
        only_in(word, &["src/store/http.rs"]);
    }
    only_in("futures_util", &["src/store/http.rs", "src/serve/body.rs"]);
    only_in(
        "toml",
        &["src/store/settings.rs", "src/store/prefect/settings", "src/store/prefect_cloud/settings.rs"],
    );
    only_in("async_graphql", &["src/serve/"]);
    only_in("hyper_util", &["src/serve/listener.rs"]);
    only_in("subtle", &["src/serve/keys.rs"]);
    only_in("globset", &["src/fs/rules/scratch.rs"]);
    only_in(
        "libc",
        &[
            "src/sys.rs",
            "src/sys/",
            "src/fuse/",
            "src/mount/keeping.rs",
            "src/mount/mounts.rs",
            "src/mount/point.rs",
            "src/mount/replaced.rs",
            "src/mount/survey.rs",
        ],
    );
}

#[test]
fn nothing_points_back_up() {
    let modules = ["store", "cache", "fs", "fuse", "mount", "cli"];
    for (height, module) in modules.iter().enumerate() {
        imports_nothing_of(module, &modules[height + 1..]);
    }
    // `serve` uses the store, and nothing of the filesystem.
    imports_nothing_of("serve", &modules[1..]);
    for module in &modules[..5] {
        imports_nothing_of(module, &["serve"]);
    }
}

fn imports_nothing_of(module: &str, others: &[&str]) {
    for (path, text) in sources("src") {
        if path.starts_with(&format!("src/{module}.rs")) || path.starts_with(&format!("src/{module}/")) {
            for other in others {
                assert!(!text.contains(&format!("crate::{other}::")), "{path} imports from {other}");
            }
        }
    }
}

#[test]
fn the_errno_table_has_no_wildcard() {
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuse/errno.rs")).unwrap();
    assert!(!product(&table).contains("_ =>"));
}

#[test]
fn unsafe_code_is_in_sys_only() {
    for (path, text) in sources("src") {
        assert!(
            path.starts_with("src/sys") || !product(&text).contains("unsafe {"),
            "{path} has unsafe code"
        );
    }
}

#[test]
fn files_and_functions_stay_small() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines = product(&text).lines().count();
        // The adapter is a list of the kernel's messages; it is as long as that list.
        let limit = if path == "src/fuse/adapter.rs" { 520 } else { FILE_LINES };
        assert!(lines <= limit, "{path} has {lines} lines");
        for (name, lines) in functions(product(&text)) {
            assert!(lines <= FUNCTION_LINES, "{path}: {name} has {lines} lines");
        }
    }
}

/// Name and length of each function, told by rustfmt's indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim_start();
        let is_function = ["", "pub ", "pub(super) ", "pub(crate) "]
            .iter()
            .filter_map(|prefix| code.strip_prefix(prefix))
            .any(|code| ["fn ", "async fn ", "const fn "].iter().any(|start| code.starts_with(start)));
        if is_function {
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|line| **line == end).unwrap_or(0);
            found.push((code.to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn semantics_rules_have_tests_of_the_same_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = fs::read_to_string(root.join("docs/semantics.md")).unwrap();
    let tests: String = sources("tests").into_iter().map(|(_, text)| text).collect();
    for rule in 1..=13 {
        assert!(rules.contains(&format!("\n## {rule}. ")), "docs/semantics.md has no rule {rule}");
        assert!(tests.contains(&format!("fn rule_{rule:02}_")), "rule {rule} has no test");
    }
}
