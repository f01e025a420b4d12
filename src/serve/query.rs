//! Checks and adapts the text of a query before it is parsed.

/// Limit of nested brackets of any kind.
const DEPTH: usize = 64;

/// Limit of bytes outside strings and comments: the parser needs some hundred times as much memory for them.
const CODE: usize = 64 << 10;

/// The lexical state at a character.
enum Place {
    Outside,
    Comment,
    String,
    BlockString,
}

/// The text as the parser accepts it, or an error. Python clients write characters beyond the basic plane as two escapes
/// (`\ud83d\ude00`), which GraphQL allows since 2021 and the parser does not; and the parser recurses into brackets without
/// limit.
pub(super) fn prepare(query: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(query.len());
    let mut place = Place::Outside;
    let (mut depth, mut code) = (0_usize, 0_usize);
    let mut rest = query;
    while let Some(char) = rest.chars().next() {
        let mut taken = char.len_utf8();
        match place {
            Place::Outside if rest.starts_with("\"\"\"") => (place, taken) = (Place::BlockString, 3),
            Place::Outside => {
                code += taken;
                match char {
                    '"' => place = Place::String,
                    '#' => place = Place::Comment,
                    '{' | '[' | '(' => depth += 1,
                    '}' | ']' | ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            Place::Comment if matches!(char, '\n' | '\r') => place = Place::Outside,
            Place::BlockString if rest.starts_with("\\\"\"\"") => taken = 4,
            Place::BlockString if rest.starts_with("\"\"\"") => (place, taken) = (Place::Outside, 3),
            Place::String if char == '"' => place = Place::Outside,
            Place::String if char == '\\' => {
                if let Some(unit) = escape(rest).filter(|unit| (0xd800..0xe000).contains(unit)) {
                    let low = escape(&rest[6..]);
                    let pair = low.and_then(|low| char::decode_utf16([unit, low]).next()?.ok());
                    out.push(pair.ok_or("a string holds half of a surrogate pair")?);
                    rest = &rest[12..];
                    continue;
                }
                taken += rest[1..].chars().next().map_or(0, char::len_utf8);
            }
            Place::Comment | Place::String | Place::BlockString => {}
        }
        if depth > DEPTH {
            return Err("the query is nested too deeply");
        }
        if code > CODE {
            return Err("the query is over 64 KiB, strings left out");
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Ok(out)
}

/// The number in `\uXXXX` at the start of `text`.
fn escape(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogate_pairs_become_characters_in_strings_only() {
        let same = |text: &str| assert_eq!(prepare(text).as_deref(), Ok(text));
        assert_eq!(prepare(r#"{a(b: "x\ud83d\ude00y")}"#).as_deref(), Ok("{a(b: \"x😀y\")}"));
        same(r#"{a(b: "\\ud83d")}"#);
        same(r#"{a(b: "\u00e9\n\"")}"#);
        same("{a(b: \"\"\"\\ud83d \\\"\"\" é\"\"\")} # \\ud83d \"");
        for half in
            [r#""\ud83d""#, r#""\ude00\ud83d""#, r#""\ud83dx""#, r#""\ud83d\u0041""#, r#""\ud83d\ud83d""#]
        {
            assert!(prepare(half).is_err(), "{half}");
        }
        same(r#""\u12"#);
        same("\"é\\");
    }

    #[test]
    fn nesting_is_bounded_where_it_counts() {
        assert!(prepare(&"{a".repeat(1_000)).is_err());
        assert!(prepare(&"[".repeat(65)).is_err());
        assert!(prepare(&"[".repeat(64)).is_ok());
        assert!(prepare(&format!("{{a(b: \"{}\")}}", "[".repeat(1_000))).is_ok());
        assert!(prepare(&"{}".repeat(1_000)).is_ok());
        assert!(prepare(&format!("{{a(b: \"{}\")}}", "x".repeat(1 << 20))).is_ok());
        assert!(prepare(&format!("{{{}}}", "a ".repeat(40_000))).is_err());
    }
}
