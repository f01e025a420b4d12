//! Text as part of a file name: `%XX` for what a name cannot hold, and aliases of what is too long.

use super::VALUE;
use crate::fs::rules::hash::hash;

/// How much of a long key its alias shows.
pub(super) const ALIAS_PREFIX: usize = 200;
/// `%~` and 32 hexadecimal digits.
pub(super) const ALIAS_SUFFIX: usize = 34;

/// `text` as a name, however long; in directories it does not end as the value of a directory does.
pub(super) fn escape(text: &str, in_directories: bool) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut name = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        let ambiguous = char == '%' && (reads_as_escape(text, at) || in_directories && text[at..] == *VALUE);
        if char == '/' || char.is_control() || ambiguous {
            let mut bytes = [0; 4];
            for byte in char.encode_utf8(&mut bytes).bytes() {
                name.push('%');
                for digit in [byte >> 4, byte & 15] {
                    name.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        } else {
            name.push(char);
        }
    }
    name
}

/// Whether nothing in `text` is, or needs, an escape: so are most names, and each lookup asks.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'%' | b'/'))
}

/// Whether the `%` at `at` would be taken for the start of an escape, of a fixed name or of an alias.
fn reads_as_escape(text: &str, at: usize) -> bool {
    let rest = &text[at..];
    let fixed = at == 0 && matches!(text, "%(empty)" | "%2E" | "%2E.");
    fixed || is_alias_suffix(rest) || unescape_one(rest).is_some()
}

/// What [`escape`] made `name` of.
pub(super) fn unescape(name: &str) -> String {
    if is_plain(name) {
        return name.to_owned();
    }
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(char) = rest.chars().next() {
        let (char, len) = unescape_one(rest).unwrap_or((char, char.len_utf8()));
        text.push(char);
        rest = &rest[len..];
    }
    text
}

/// The escape that `text` starts with: its character and length. Only what [`escape`] writes counts.
fn unescape_one(text: &str) -> Option<(char, usize)> {
    let first = hex(text)?;
    match first {
        b'%' | b'/' | 0..0x20 | 0x7f => Some((char::from(first), 3)),
        // The C1 controls, U+0080 to U+009F, are two bytes in UTF-8.
        0xc2 => match hex(&text[3..])? {
            second @ 0x80..0xa0 => Some((char::from(second), 6)),
            _ => None,
        },
        _ => None,
    }
}

/// The byte that `text` starts with as `%XX`, upper case only.
fn hex(text: &str) -> Option<u8> {
    let [b'%', high, low, ..] = text.as_bytes() else { return None };
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(high)? * 16 + digit(low)?)
}

/// A name for `text`, whose own would be `name`: the same for every version of kvfs on every machine.
pub(super) fn alias(name: &str, text: &str) -> String {
    let mut end = ALIAS_PREFIX;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}%~{:032x}", &name[..end], hash(text.as_bytes()))
}

/// Whether only a listing tells what `name` stands for.
pub(crate) fn is_alias(name: &str) -> bool {
    name.len() > ALIAS_SUFFIX
        && name.is_char_boundary(name.len() - ALIAS_SUFFIX)
        && is_alias_suffix(&name[name.len() - ALIAS_SUFFIX..])
}

fn is_alias_suffix(text: &str) -> bool {
    text.len() == ALIAS_SUFFIX
        && text.starts_with("%~")
        && text.bytes().skip(2).all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
