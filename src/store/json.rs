//! JSON values as texts: how a store that keeps JSON shows them, and how Prefect counts them.

use serde_json::Value;

use super::{Text, VALUE_LIMIT, counted_len};

/// How a value without a text of its own is shown: indented with a final newline, or compact if that passes the limit.
pub fn shown(value: &Value) -> Text {
    let indented = format!("{value:#}\n");
    if counted_len(indented.as_bytes()) <= VALUE_LIMIT {
        return Text::from(indented.into_bytes());
    }
    Text::from(format!("{value}\n").into_bytes())
}

/// The length of Python's `json.dumps(value)` in characters, by which Prefect 1.x counts: `", "` and `": "` between
/// parts, `\uXXXX` for all that is not ASCII, and numbers as Python writes them.
pub fn python_len(value: &Value) -> usize {
    let between = |parts: usize| 2 * parts.saturating_sub(1);
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => number_len(number.as_str()),
        Value::String(text) => string_len(text),
        Value::Array(items) => 2 + between(items.len()) + items.iter().map(python_len).sum::<usize>(),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| string_len(name) + 2 + python_len(value);
            2 + between(members.len()) + members.iter().map(member).sum::<usize>()
        }
    }
}

fn string_len(text: &str) -> usize {
    let escaped = |char: char| match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        ' '..='\u{7f}' => 1,
        char => 6 * char.len_utf16(),
    };
    2 + text.chars().map(escaped).sum::<usize>()
}

/// Integers keep their digits in Python; what has a point or an exponent is a float.
fn number_len(digits: &str) -> usize {
    if !digits.contains(['.', 'e', 'E']) {
        return if digits == "-0" { 1 } else { digits.len() };
    }
    digits.parse().map_or(digits.len(), float_len)
}

/// The length of Python's `repr` of a float: the shortest digits that read back as the same number, with an exponent
/// of at least two digits below 1e-4 and from 1e16 on.
fn float_len(number: f64) -> usize {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".len() } else { "-Infinity".len() };
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return plain.len() + if plain.contains('.') { 0 } else { ".0".len() };
    }
    mantissa.len() + format!("e{exponent:+03}").len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len(text: &str) -> usize {
        python_len(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn lengths_are_those_of_python() {
        // The second text of each pair is what Python 3.11's json.dumps makes of the first.
        for (text, python) in [
            ("null", "null"),
            ("[true,false]", "[true, false]"),
            (r#"{"a":1,"b":[1,2]}"#, r#"{"a": 1, "b": [1, 2]}"#),
            ("{}", "{}"),
            ("[]", "[]"),
            (r#""a\"\\\n\u0007\u007f""#, "\"a\\\"\\\\\\n\\u0007\u{7f}\""),
            ("\"é\"", r#""\u00e9""#),
            ("\"😀\"", r#""\ud83d\ude00""#),
            ("1180591620717411303424", "1180591620717411303424"),
            ("-0", "0"),
            ("1.0", "1.0"),
            ("1.10", "1.1"),
            ("-0.0", "-0.0"),
            ("1e2", "100.0"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e-7", "1e-07"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.5e300", "1.5e+300"),
            ("123456789.123456789", "123456789.12345679"),
            ("1e400", "Infinity"),
            ("-1e400", "-Infinity"),
        ] {
            assert_eq!(len(text), python.len(), "{text}");
        }
    }

    #[test]
    fn the_limit_of_the_client_is_met_exactly() {
        let string = |char: &str, count: usize| len(&format!("\"{}\"", char.repeat(count)));
        assert_eq!((string("x", 9_998), string("x", 9_999)), (10_000, 10_001));
        assert_eq!((string("é", 1_666), string("é", 1_667)), (9_998, 10_004));
        assert_eq!((string("😀", 833), string("😀", 834)), (9_998, 10_010));
        let zeros = |count: usize| len(&format!("[{}]", vec!["0"; count].join(",")));
        assert_eq!((zeros(3_333), zeros(3_334)), (9_999, 10_002));
    }

    #[test]
    fn values_are_shown_for_people_as_far_as_they_fit() {
        let show = |text: &str| {
            let shown = shown(&serde_json::from_str(text).unwrap());
            String::from_utf8(shown.to_vec()).unwrap()
        };
        assert_eq!(show(r#"{"b":1,"a":[1.0,2]}"#), "{\n  \"b\": 1,\n  \"a\": [\n    1.0,\n    2\n  ]\n}\n");
        assert_eq!(show("1180591620717411303424"), "1180591620717411303424\n");
        let long = format!("[{}]", vec!["0"; 3_000].join(","));
        assert_eq!(show(&long), format!("{long}\n"));
    }
}
