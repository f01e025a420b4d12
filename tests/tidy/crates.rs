//! The crates that kvfs is built of are what deny.toml says they may be; `cargo deny check` says the same, and of advisories, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

fn rules() -> toml::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The words of a list.
fn listed<'a>(rules: &'a toml::Value, section: &str, list: &str) -> Vec<&'a toml::Value> {
    rules[section][list].as_array().unwrap().iter().collect()
}

/// The crates of other people, for the targets that the rules name.
fn crates(rules: &toml::Value) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    for target in listed(rules, "graph", "targets") {
        command.args(["--filter-platform", target.as_str().unwrap()]);
    }
    let out = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    packages.into_iter().filter(|package| !package["source"].is_null()).collect()
}

fn named(package: &Value) -> String {
    format!("{}@{}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

#[test]
fn each_crate_may_be_given_away_with_kvfs() {
    let rules = rules();
    let allowed: Vec<Licensee> = listed(&rules, "licenses", "allow")
        .iter()
        .map(|licence| Licensee::parse(licence.as_str().unwrap()).unwrap())
        .collect();
    let is_allowed = |required: &LicenseReq| allowed.iter().any(|licence| licence.satisfies(required));
    for package in crates(&rules) {
        let licence =
            package["license"].as_str().unwrap_or_else(|| panic!("{}: no licence", named(&package)));
        let expression = Expression::parse_mode(licence, ParseMode::LAX).unwrap();
        assert!(expression.evaluate(is_allowed), "{}: {licence}", named(&package));
    }
}

#[test]
fn each_crate_comes_from_a_registry_that_is_named() {
    let rules = rules();
    let registries: BTreeSet<String> = listed(&rules, "sources", "allow-registry")
        .iter()
        .map(|registry| format!("registry+{}", registry.as_str().unwrap()))
        .collect();
    for package in crates(&rules) {
        assert!(registries.contains(package["source"].as_str().unwrap()), "{}", named(&package));
    }
}

#[test]
fn no_crate_comes_twice_without_a_reason() {
    let rules = rules();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in crates(&rules) {
        versions.entry(package["name"].as_str().unwrap().to_owned()).or_default().push(named(&package));
    }
    let skipped: BTreeSet<&str> = listed(&rules, "bans", "skip")
        .iter()
        .inspect(|skip| assert!(!skip["reason"].as_str().unwrap().is_empty()))
        .map(|skip| skip["crate"].as_str().unwrap())
        .collect();
    for (name, versions) in &versions {
        let counted = versions.iter().filter(|version| !skipped.contains(version.as_str())).count();
        assert!(counted <= 1, "{name}: {versions:?}");
    }
    let there: BTreeSet<&str> =
        versions.values().filter(|versions| versions.len() > 1).flatten().map(String::as_str).collect();
    assert!(skipped.is_subset(&there), "not there twice: {:?}", skipped.difference(&there));
}

#[test]
fn no_crate_asks_for_a_newer_rust_than_kvfs_does() {
    let parts =
        |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap()).collect() };
    let ours = parts(env!("CARGO_PKG_RUST_VERSION"));
    for package in crates(&rules()) {
        if let Some(version) = package["rust_version"].as_str() {
            assert!(parts(version)[..2] <= ours[..2], "{}: {version}", named(&package));
        }
    }
}
