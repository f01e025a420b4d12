//! Modules form no cycle of imports. A module and its submodules count as one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{product, sources};

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The other modules that each module of `files` names: by `use`, nested or not, or by a path in the middle of the code.
fn graph(files: &[(String, String)]) -> Graph {
    let module = |path: &str| {
        let path = path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
        path.replace('/', "::")
    };
    let modules: BTreeSet<String> = files.iter().map(|(path, _)| module(path)).collect();
    let named = |(path, text): &(String, String)| {
        let module = module(path);
        let named = paths(text).into_iter().filter_map(|path| resolve(&module, &path, &modules));
        (module.clone(), named.collect())
    };
    files.iter().map(named).collect()
}

/// The paths of `text` that begin with `crate`, `super` or `self`.
fn paths(text: &str) -> Vec<String> {
    let code: Vec<&str> =
        product(text).lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)).collect();
    let code = code.join(" ");
    let begins = |at: usize| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|char| char.is_alphanumeric() || char == '_' || char == ':')
    };
    let starts = ["crate::", "super::", "self::"].into_iter().flat_map(|word| code.match_indices(word));
    starts.filter(|(at, _)| begins(*at)).flat_map(|(at, _)| expand(&code[at..]).0).collect()
}

/// The paths that the text begins with, `a::{b, c::d}` as two, and how long that is.
fn expand(text: &str) -> (Vec<String>, usize) {
    let part = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
    let length = text.find(|char| !part(char)).unwrap_or(text.len());
    let start = &text[..length];
    if !start.ends_with("::") || !text[length..].starts_with('{') {
        return (vec![start.to_owned()], length);
    }
    let (mut found, mut at) = (Vec::new(), length + 1);
    loop {
        at += text[at..].find(|char: char| !char.is_whitespace() && char != ',').unwrap_or(text.len() - at);
        if text[at..].is_empty() || text[at..].starts_with('}') {
            return (found, text.len().min(at + 1));
        }
        let (paths, length) = expand(&text[at..]);
        found.extend(paths.into_iter().map(|path| format!("{start}{path}")));
        at += length;
        // A name of its own (`as x`), or a glob.
        at += text[at..].find([',', '}']).unwrap_or(text.len() - at);
    }
}

/// The module that `path`, found in `module`, is of.
fn resolve(module: &str, path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut parts = path.split("::").filter(|part| !part.is_empty()).peekable();
    match parts.next()? {
        "crate" => base.clear(),
        "super" => {
            base.pop();
            while parts.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        _ => {}
    }
    base.extend(parts);
    while !base.is_empty() {
        let name = base.join("::");
        if modules.contains(&name) {
            return Some(name);
        }
        base.pop();
    }
    None
}

/// Whether one is the other, or lies below it.
fn is_one(a: &str, b: &str) -> bool {
    let below =
        |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    below(a, b) || below(b, a)
}

/// A cycle from a module back to it, within one top-level module.
fn circle(graph: &Graph) -> Option<Vec<&str>> {
    let top = |module: &str| module.split("::").next().unwrap().to_owned();
    let next = |module: &str| {
        let module = module.to_owned();
        let (key, named) = graph.get_key_value(&module)?;
        Some(named.iter().filter(move |other| top(other) == top(key) && !is_one(key, other)))
    };
    for start in graph.keys() {
        let mut from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = vec![start.as_str()];
        while let Some(module) = queue.pop() {
            for other in next(module).into_iter().flatten() {
                if other == start {
                    let mut way = vec![start.as_str(), module];
                    while *way.last().unwrap() != start {
                        way.push(from[way.last().unwrap()]);
                    }
                    way.reverse();
                    return Some(way);
                }
                if let Entry::Vacant(way) = from.entry(other) {
                    way.insert(module);
                    queue.push(other);
                }
            }
        }
    }
    None
}

#[test]
fn no_room_has_a_circle_of_modules() {
    let graph = graph(&sources("src"));
    assert!(graph.len() > 50);
    assert!(graph["store::guarded"].contains("store::full"), "the check sees nothing");
    let circle = circle(&graph);
    assert!(circle.is_none(), "{}", circle.unwrap().join(" -> "));
}

#[test]
fn circles_are_seen_however_they_are_written() {
    let circle_of = |one: &str, two: &str| {
        let files =
            [("src/room.rs", "mod one; mod two;"), ("src/room/one.rs", one), ("src/room/two.rs", two)];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        circle(&graph(&files)).map(|way| way.join(" "))
    };
    let seen = Some("room::one room::two room::one".to_owned());
    let back = "use super::one::A;";
    for one in [
        "use super::two::B;",
        "use super::{\n    Other,\n    two::{self, B as C},\n};",
        "use crate::{x::Y, room::{two}};",
        "fn f() { crate::room::two::g() }",
        "fn f(of: &super::two::B) {}",
    ] {
        assert_eq!(circle_of(one, back), seen, "{one}");
    }
    for one in [
        "",
        "// use super::two::B;",
        "use super::B;",
        "use std::two;",
        "#[cfg(test)] mod t { use super::super::two; }",
    ] {
        assert_eq!(circle_of(one, back), None, "{one}");
    }
}
