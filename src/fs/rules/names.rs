//! Keys as file names and back: total, reversible, and nothing is listed twice.
//!
//! Most keys are their own names. `/`, control characters (which would reach a terminal through `ls`) and
//! a `%` that would read as one of these escapes become `%XX` per byte, as in a URL. `.`, `..` and the empty key
//! have fixed names. A key whose name would pass 255 bytes gets an alias: its beginning, `%~`, and a hash; the
//! alias alone does not tell the key, so [`decode`] says so and the caller looks it up in the listing.
//!
//! With a separator the parts of a key are the directories on the way to its file, each named by these rules, and the name
//! is a path. A key that is also a directory is the file `…%(value)` beside it; that is left to `ops::resolve`.

mod escape;

use std::ffi::OsStr;

use escape::{ALIAS_PREFIX, ALIAS_SUFFIX, alias, escape, unescape};

use crate::store::Key;

pub(crate) use escape::is_alias;

/// Longest file name in bytes (Linux, `NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest extension in bytes; an alias with one fits.
const EXTENSION_MAX: usize = NAME_MAX - ALIAS_PREFIX - ALIAS_SUFFIX;

/// What the name of a key that is also a directory ends in.
const VALUE: &str = "%(value)";

/// The name of the file of a key whose own name, `name`, a directory has taken.
pub(crate) fn value_name(name: &str) -> String {
    let fits = name.len() + VALUE.len() <= NAME_MAX;
    if fits { name.to_owned() + VALUE } else { alias(name, name) + VALUE }
}

/// The directory that `path` is in; empty for the root.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The last part of `path`.
pub(crate) fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}

/// Whether `path` is below the directory at `directory`.
pub(crate) fn is_inside(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether `path` is `directory` or below it.
pub(crate) fn is_within(path: &str, directory: &str) -> bool {
    path == directory || is_inside(path, directory)
}

/// The directories on the way to `path`, outermost first.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

/// `name` in the directory `parent`.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// What a file name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// This key, and no other name stands for it.
    Key(Key),
    /// The alias of a long key: only a listing tells which.
    Alias,
    /// No key has this name, for it lacks the extension, or holds the separator; a scratch file may.
    Foreign,
    /// No file has this name, and none can be created with it.
    Impossible,
}

/// How keys are called in a mount.
#[derive(Clone, Debug, Default)]
pub struct Names {
    extension: String,
    separator: String,
}

impl Names {
    /// Names that all end in `extension` (`.json`), for tools that go by it. The error is one line for a person.
    pub fn with_extension(extension: &str) -> Result<Self, String> {
        let plain = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_' | '+');
        if !(2..=EXTENSION_MAX).contains(&extension.len())
            || !extension.starts_with('.')
            || !extension.chars().all(plain)
        {
            return Err(format!(
                "{extension:?} is no file name extension; it is a dot and up to {} letters, as in .json",
                EXTENSION_MAX - 1
            ));
        }
        Ok(Self { extension: extension.to_owned(), ..Self::default() })
    }

    /// The same names in directories: the parts of a key are what is between each `separator`. The error is one line for
    /// a person.
    pub fn in_directories(self, separator: &str) -> Result<Self, String> {
        if separator.is_empty() || separator.chars().any(char::is_control) {
            return Err(format!("{separator:?} separates nothing; a separator is text as in / or . or ::"));
        }
        Ok(Self { separator: separator.to_owned(), ..self })
    }

    /// What is between the parts of a key; empty if there are no directories.
    pub fn separator(&self) -> &str {
        &self.separator
    }

    /// Whether keys with parts are in directories.
    pub fn has_directories(&self) -> bool {
        !self.separator.is_empty()
    }

    /// The name of which `name` is the [`value_name`]; it may be an alias.
    pub(crate) fn of_value<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_suffix(VALUE).filter(|_| self.has_directories())
    }

    /// What every name ends in; may be empty.
    pub fn extension(&self) -> &str {
        &self.extension
    }

    /// The file name of `key`; with a separator the path to its file.
    pub fn encode(&self, key: &Key) -> String {
        if !self.has_directories() {
            return self.part(key.as_str(), &self.extension);
        }
        let mut parts: Vec<&str> = key.as_str().split(&self.separator).collect();
        let file = parts.pop().unwrap_or_default();
        let mut path = String::with_capacity(key.as_str().len() + self.extension.len());
        for part in parts {
            path += &self.directory(part);
            path.push('/');
        }
        path + &self.part(file, &self.extension)
    }

    /// The directory name of a part of keys.
    pub(crate) fn directory(&self, part: &str) -> String {
        self.part(part, "")
    }

    /// What `name` stands for; `encode` of the answer gives `name` again.
    pub fn decode(&self, name: &OsStr) -> Decoded {
        let Some(name) = name.to_str().filter(|name| !name.chars().any(char::is_control)) else {
            return Decoded::Impossible;
        };
        let mut parts: Vec<&str> = name.split('/').collect();
        let Some(file) = parts.pop() else { return Decoded::Impossible };
        let Some(file) = file.strip_suffix(self.extension.as_str()) else { return Decoded::Foreign };
        parts.push(file);
        if parts.iter().any(|part| is_alias(part)) {
            return Decoded::Alias;
        }
        let texts: Vec<String> = parts.into_iter().map(text_of).collect();
        let key = Key::from(texts.join(&self.separator));
        match self.encode(&key) == name {
            true => Decoded::Key(key),
            // Without the separator in it, it could be one.
            false if self.has_directories() && self.would_be_key(base(name)) => Decoded::Foreign,
            false => Decoded::Impossible,
        }
    }

    fn would_be_key(&self, name: &str) -> bool {
        let flat = Self { separator: String::new(), extension: self.extension.clone() };
        name.contains(&self.separator) && matches!(flat.decode(name.as_ref()), Decoded::Key(_))
    }

    /// What all keys in the directory at `path` start with, or that only a listing tells it.
    pub(crate) fn decode_directory(&self, path: &str) -> Decoded {
        let plain = Self { extension: String::new(), ..self.clone() };
        match plain.decode(path.as_ref()) {
            Decoded::Key(key) => {
                let prefix = key.as_str().to_owned() + &self.separator;
                // A separator may begin before the end of the key, as in `a_` + `__`.
                let leads_back = plain.encode(&Key::from(prefix.clone() + "x")) == format!("{path}/x");
                if leads_back { Decoded::Key(Key::from(prefix)) } else { Decoded::Impossible }
            }
            other => other,
        }
    }

    /// The path of the directory in which all keys start with `prefix`, if [`Names::decode_directory`] of it tells that.
    pub(crate) fn directory_of(&self, prefix: &Key) -> Option<String> {
        let text = prefix.as_str();
        if text.is_empty() {
            return Some(String::new());
        }
        let parts = text.strip_suffix(&self.separator).filter(|_| self.has_directories())?;
        let parts: Vec<String> = parts.split(&self.separator).map(|part| self.directory(part)).collect();
        let path = parts.join("/");
        (self.decode_directory(&path) == Decoded::Key(prefix.clone())).then_some(path)
    }

    fn part(&self, text: &str, extension: &str) -> String {
        let name = match text {
            "" => "%(empty)".into(),
            "." => "%2E".into(),
            ".." => "%2E.".into(),
            text => escape(text, self.has_directories()),
        };
        let fits = name.len() + extension.len() <= NAME_MAX;
        (if fits { name } else { alias(&name, text) }) + extension
    }
}

/// The text that a part of a name stands for, unless it is an alias.
fn text_of(part: &str) -> String {
    match part {
        "%(empty)" => String::new(),
        "%2E" => ".".into(),
        "%2E." => "..".into(),
        part => unescape(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn encode(key: &Key) -> String {
        Names::default().encode(key)
    }

    fn decoded(name: &str) -> Decoded {
        Names::default().decode(OsStr::new(name))
    }

    #[test]
    fn with_an_extension_only_names_that_end_in_it_are_keys() {
        let names = Names::with_extension(".json").unwrap();
        for (key, name) in
            [("app", "app.json"), ("", "%(empty).json"), (".", "%2E.json"), ("a.json", "a.json.json")]
        {
            assert_eq!(names.encode(&Key::from(key)), name);
            assert_eq!(names.decode(OsStr::new(name)), Decoded::Key(Key::from(key)));
        }
        for name in ["app", ".app.json.swp", "app.json~", "sedXXXXXX"] {
            assert_eq!(names.decode(OsStr::new(name)), Decoded::Foreign);
        }
        assert_eq!(names.decode(OsStr::new(".json")), Decoded::Impossible);
        let long = names.encode(&Key::from("é".repeat(3000)));
        assert!(long.len() <= NAME_MAX && long.ends_with(names.extension()));
        assert_eq!(names.decode(OsStr::new(&long)), Decoded::Alias);
        for wrong in ["json", ".", "", "./a", ".a b", ".a%", ".abcdefghijklmnopqrstuvwxyz"] {
            assert!(Names::with_extension(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ordinary_keys_are_their_own_names() {
        for text in ["db", "Vision Zero", "50%", "%41", "a%b", "zürich", "数据", ".deferred", "%"] {
            assert_eq!(encode(&Key::from(text)), text);
        }
    }

    #[test]
    fn odd_keys_have_names_without_slash_nul_or_control() {
        for (key, name) in [
            ("", "%(empty)"),
            (".", "%2E"),
            ("..", "%2E."),
            ("a/b", "a%2Fb"),
            ("a\0b", "a%00b"),
            ("a\nb", "a%0Ab"),
            ("\u{9b}31m", "%C2%9B31m"),
            ("a%2Fb", "a%252Fb"),
            ("%(empty)", "%25(empty)"),
            ("%2E", "%252E"),
            ("%25", "%2525"),
        ] {
            assert_eq!(encode(&Key::from(key)), name);
            assert_eq!(decoded(name), Decoded::Key(Key::from(key)));
        }
    }

    #[test]
    fn names_that_no_key_has_are_impossible() {
        for name in ["a\nb", "\u{7f}", "%00\n", "a\u{85}"] {
            assert_eq!(decoded(name), Decoded::Impossible, "{name:?}");
        }
    }

    #[test]
    fn long_keys_have_a_stable_alias_within_name_max() {
        let (a, b) = (Key::from("é".repeat(3000)), Key::from("é".repeat(3001)));
        assert!(encode(&a).len() <= NAME_MAX);
        assert_ne!(encode(&a), encode(&b));
        assert_eq!(decoded(&encode(&a)), Decoded::Alias);
        let looks_like_one = encode(&Key::from(encode(&a)));
        assert_ne!(looks_like_one, encode(&a));
    }

    fn tree(separator: &str) -> Names {
        Names::default().in_directories(separator).unwrap()
    }

    #[test]
    fn with_a_separator_the_parts_of_a_key_are_directories() {
        for (separator, key, path) in [
            ("/", "a/b", "a/b"),
            ("/", "/a", "%(empty)/a"),
            ("/", "a/", "a/%(empty)"),
            ("/", "../..", "%2E./%2E."),
            ("/", "a//b", "a/%(empty)/b"),
            (".", "a.b/c", "a/b%2Fc"),
            (".", ".", "%(empty)/%(empty)"),
            ("::", "a:::b", "a/:b"),
            ("/", "a%(value)", "a%25(value)"),
            ("/", "a%2Fb", "a%252Fb"),
        ] {
            assert_eq!(tree(separator).encode(&Key::from(key)), path);
            assert_eq!(tree(separator).decode(OsStr::new(path)), Decoded::Key(Key::from(key)));
        }
        for (separator, path) in [("/", "a%2Fb"), ("/", "a%(value)"), ("/", "a//b"), ("/", "a/..")] {
            assert_eq!(tree(separator).decode(OsStr::new(path)), Decoded::Impossible, "{path}");
        }
        // A scratch file may be called so.
        assert_eq!(tree(".").decode(OsStr::new(".a.swp")), Decoded::Foreign);
        for (separator, path) in [("__", "a_"), ("aa", "a"), ("/", "a//b")] {
            assert_eq!(tree(separator).decode_directory(path), Decoded::Impossible, "{path}");
        }
        let names = Names::with_extension(".json").unwrap().in_directories("/").unwrap();
        assert_eq!(names.encode(&Key::from("a/b")), "a/b.json");
        assert_eq!(names.decode(OsStr::new("a/b")), Decoded::Foreign);
        assert_eq!(names.decode_directory("a/b"), Decoded::Key(Key::from("a/b/")));
        for wrong in ["", "\n"] {
            assert!(Names::default().in_directories(wrong).is_err());
        }
    }

    /// Text that is likely to hit the escapes.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[%/.~a-f0-9A-F]{0,4}",
            Just("%25".to_string()),
            Just("%2F".to_string()),
            Just("%~".to_string()),
            Just("%C2%85".to_string()),
            "\\PC{0,3}",
            any::<String>(),
            Just("0123456789abcdef0123456789abcdef".to_string()),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn every_key_has_one_valid_name_that_leads_back(text in texts()) {
            let key = Key::from(text);
            let name = encode(&key);
            prop_assert!(!name.is_empty() && name.len() <= NAME_MAX && name != "." && name != "..");
            prop_assert!(!name.contains('/') && !name.chars().any(char::is_control));
            match decoded(&name) {
                Decoded::Key(back) => prop_assert_eq!(back, key),
                Decoded::Alias => prop_assert!(escape(key.as_str(), false).len() > NAME_MAX),
                Decoded::Foreign | Decoded::Impossible => prop_assert!(false, "{} has no way back", name),
            }
        }

        #[test]
        fn every_name_stands_for_at_most_one_key(name in texts(), separator in "[/.%_a]|%2|__|aa|::") {
            if let Decoded::Key(key) = decoded(&name) {
                prop_assert_eq!(encode(&key), name.clone());
            }
            if let Decoded::Key(key) = tree(&separator).decode(OsStr::new(&name)) {
                prop_assert_eq!(tree(&separator).encode(&key), name);
            }
        }

        #[test]
        fn every_key_has_one_path_that_leads_back(text in texts(), separator in "[/.%_a]|%2|__|aa|::") {
            let (names, key) = (tree(&separator), Key::from(text));
            let path = names.encode(&key);
            for part in path.split('/') {
                prop_assert!(!part.is_empty() && part.len() <= NAME_MAX && part != "." && part != "..");
                prop_assert!(!part.ends_with(VALUE) && !part.chars().any(char::is_control));
            }
            match names.decode(OsStr::new(&path)) {
                Decoded::Key(back) => prop_assert_eq!(back, key),
                Decoded::Alias => prop_assert!(path.contains("%~")),
                Decoded::Foreign | Decoded::Impossible => prop_assert!(false, "{} has no way back", path),
            }
        }

        #[test]
        fn different_keys_have_different_names(texts in prop::collection::vec(texts(), 2..40)) {
            let mut names = HashMap::new();
            for text in texts {
                if let Some(other) = names.insert(encode(&Key::from(text.as_str())), text.clone()) {
                    prop_assert_eq!(other, text);
                }
            }
        }
    }
}
