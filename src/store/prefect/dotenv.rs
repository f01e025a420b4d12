//! `.env` files, by the rules of python-dotenv.

use std::collections::HashMap;

use crate::store::settings::Environment;

/// The variables that `text` sets, with references to each other, and to those of the environment, resolved. Lines
/// other than `NAME=VALUE`, with `export`, quotes and comments, are ignored.
pub(super) fn parse(text: &str, environment: Environment<'_>) -> HashMap<String, String> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all = HashMap::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return all;
        }
        match binding(rest) {
            Some((bound, after)) => {
                if let Some((name, value)) = bound {
                    let value = resolve(&value, |name| all.get(name).cloned().or_else(|| environment(name)));
                    all.insert(name.to_owned(), value);
                }
                rest = after;
            }
            None => rest = rest.find(['\r', '\n']).map_or("", |end| &rest[end..]),
        }
    }
}

type Bound<'a> = Option<(&'a str, String)>;

/// The assignment that begins here, and the rest after its line; `None` if it is malformed.
fn binding(text: &str) -> Option<(Bound<'_>, &str)> {
    let exported = text.strip_prefix("export").filter(|rest| rest.starts_with(is_blank));
    let text = exported.map_or(text, |rest| rest.trim_start_matches(is_blank));
    let (name, rest) = if let Some(quoted) = text.strip_prefix('\'') {
        let (name, rest) = quoted.split_once('\'')?;
        (Some(name).filter(|name| !name.is_empty())?, rest)
    } else {
        text.split_at(
            text.find(|char: char| matches!(char, '=' | '#') || char.is_whitespace()).unwrap_or(text.len()),
        )
    };
    if name.is_empty() {
        return text.starts_with('#').then_some(()).and_then(|()| Some((None, end_of_line(text)?)));
    }
    let Some(value) = rest.trim_start_matches(is_blank).strip_prefix('=') else {
        return Some((None, end_of_line(rest)?));
    };
    let trimmed = value.trim_start_matches(is_blank);
    let (value, rest) = match trimmed.chars().next() {
        Some('#') if trimmed.len() < value.len() => (String::new(), trimmed),
        Some(quote @ ('\'' | '"')) => quoted(&trimmed[1..], quote)?,
        _ => bare(trimmed),
    };
    Some((Some((name, value)), end_of_line(rest)?))
}

fn is_blank(char: char) -> bool {
    char.is_whitespace() && !matches!(char, '\r' | '\n')
}

/// The rest after the end of this line, which has no more than a comment.
fn end_of_line(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(is_blank);
    let end = if text.starts_with('#') { text.find(['\r', '\n']).unwrap_or(text.len()) } else { 0 };
    Some(&text[end..]).filter(|rest| rest.is_empty() || rest.starts_with(['\r', '\n']))
}

/// A value without quotes ends with its line, or before a comment that white space sets off.
fn bare(text: &str) -> (String, &str) {
    let (line, rest) = text.split_at(text.find(['\r', '\n']).unwrap_or(text.len()));
    let comment =
        line.match_indices('#').map(|(at, _)| at).find(|at| line[..*at].ends_with(char::is_whitespace));
    (line[..comment.unwrap_or(line.len())].trim_end().to_owned(), rest)
}

/// A value up to its closing quote, which a backslash before it makes a part of the value.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => {
                let (_, escaped) = chars.next()?;
                match unescape(escaped, quote) {
                    Some(char) => value.push(char),
                    None => value.extend(['\\', escaped]),
                }
            }
            char if char == quote => return Some((value, &text[at + 1..])),
            char => value.push(char),
        }
    }
    None
}

fn unescape(char: char, quote: char) -> Option<char> {
    Some(match char {
        '\\' | '\'' => char,
        _ if quote == '\'' => return None,
        '"' => '"',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        _ => return None,
    })
}

/// `value` with `${NAME}` and `${NAME:-DEFAULT}` replaced by the values that `set` has.
fn resolve(value: &str, set: impl Fn(&str) -> Option<String>) -> String {
    let (mut resolved, mut rest) = (String::new(), value);
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        resolved += before;
        let inside = reference[2..]
            .split_once('}')
            .filter(|(inside, _)| inside.split_once(':').is_none_or(|(_, default)| default.starts_with('-')));
        let Some((inside, after)) = inside else {
            resolved += "${";
            rest = &reference[2..];
            continue;
        };
        let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
        resolved += &set(name).unwrap_or_else(|| default.to_owned());
        rest = after;
    }
    resolved + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second text of each pair is what python-dotenv 1.2 makes of `A` in the first, `None` for nothing.
    const CASES: &[(&str, Option<&str>)] = &[
        ("A=b", Some("b")),
        ("export A=b", Some("b")),
        ("export\tA = b ", Some("b")),
        ("exportA=b", None),
        ("A=b # c", Some("b")),
        ("A=b\t# c", Some("b")),
        ("A=b#c", Some("b#c")),
        ("A=#c", Some("#c")),
        ("A= # c", Some("")),
        ("A=", Some("")),
        ("A", None),
        ("# A=b", None),
        ("'A'=b", Some("b")),
        ("A='b # c' # d", Some("b # c")),
        ("A=\"b\\n\\\"c\\\" \\q\"", Some("b\n\"c\" \\q")),
        ("A='b\\n\\'c'", Some("b\\n'c")),
        ("A=\"two\nlines\"", Some("two\nlines")),
        ("A=\"b\" c", None),
        ("A='b\nB=c", None),
        ("x y=1\nA=b", Some("b")),
        ("\u{feff}A=b", Some("b")),
        ("B=4200\nA=http://h:${B}/api", Some("http://h:4200/api")),
        ("A=${OUTER}", Some("outside")),
        ("A=${NONE}${NONE:-d}", Some("d")),
        ("OUTER=inside\nA='${OUTER}'", Some("inside")),
        ("A=$B ${B", Some("$B ${B")),
        ("A=1\nA=2\r\nB=3", Some("2")),
    ];

    #[test]
    fn lines_are_read_as_python_dotenv_reads_them() {
        let environment = |name: &str| (name == "OUTER").then(|| "outside".to_owned());
        for (text, value) in CASES {
            assert_eq!(parse(text, &environment).get("A").map(String::as_str), *value, "{text:?}");
        }
    }
}
