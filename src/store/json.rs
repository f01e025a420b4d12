//! JSON values as texts: how a store that keeps JSON shows them, and how Prefect counts them.

use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::{Error, Result, Text, VALUE_LIMIT, counted_len};

/// How a value without a text of its own is shown: indented with a final newline, or compact if that passes the limit.
pub fn shown(value: &Value) -> Text {
    let indented = format!("{value:#}\n");
    if counted_len(indented.as_bytes()) <= VALUE_LIMIT {
        return Text::from(indented.into_bytes());
    }
    Text::from(format!("{value}\n").into_bytes())
}

/// The value that `text` stands for; an error for a duplicate member, which a store of values would drop.
pub fn unique(text: &[u8]) -> Result<Value> {
    let refused =
        |error: serde_json::Error| Error::Invalid(format!("Prefect keeps JSON values only: {error}"));
    serde_json::from_slice::<Unique>(text).map_err(refused)?;
    serde_json::from_slice(text).map_err(refused)
}

/// JSON without objects that have a member twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    /// Numbers of any precision come as maps too.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("the member {name:?} is there twice")));
            }
            members.next_value::<Self>()?;
            names.insert(name);
        }
        Ok(self)
    }
}

/// The value of a member of an answer. One that is nested too deeply to be parsed becomes a string of its text.
pub fn lenient(raw: &RawValue) -> Value {
    lenient_text(raw.get())
}

fn lenient_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A value as a server wrote it. It takes the room of its text, and read it takes many times that.
pub struct Unread(Box<str>);

impl Unread {
    /// The value that was read as `raw`.
    pub fn of(raw: &RawValue) -> Self {
        Self(raw.get().into())
    }

    /// The value, by [`lenient`].
    pub fn read(&self) -> Value {
        lenient_text(&self.0)
    }
}

/// Whether `text` is a way to write `value`.
pub fn stands_for(text: &[u8], value: &Value) -> bool {
    serde_json::from_slice::<Value>(text).is_ok_and(|own| same(&own, value))
}

/// Whether two values mean the same: numbers with a point or exponent compare as floats (`1.0` is `1`, `1e2` is `100`),
/// integers digit by digit.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => digits(one) == digits(other) || same_float(one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let found = |(name, value)| other.get(name).is_some_and(|other| same(value, other));
            one.len() == other.len() && one.iter().all(found)
        }
        _ => one == other,
    }
}

/// The digits of a number; `-0` is `0`.
fn digits(number: &Number) -> &str {
    if number.as_str() == "-0" { "0" } else { number.as_str() }
}

fn same_float(one: &Number, other: &Number) -> bool {
    let is_float = |number: &Number| number.as_str().contains(['.', 'e', 'E']);
    let read = |number: &Number| number.as_str().parse::<f64>().ok().filter(|read| read.is_finite());
    (is_float(one) || is_float(other)) && read(one).is_some_and(|one| read(other) == Some(one))
}

/// The length in bytes of the most compact text of `value` in UTF-8, by which Prefect 3 counts.
pub fn compact_len(value: &Value) -> usize {
    let between = |parts: usize| parts.saturating_sub(1);
    match value {
        Value::Number(number) if number.as_str().contains(['.', 'e', 'E']) => {
            let float = number.as_str().parse().ok().and_then(Number::from_f64);
            float.as_ref().unwrap_or(number).as_str().len()
        }
        Value::Array(items) => 2 + between(items.len()) + items.iter().map(compact_len).sum::<usize>(),
        Value::Object(members) => {
            let name_len = |name: &str| Value::from(name).to_string().len();
            let member = |(name, value): (&String, &Value)| name_len(name) + 1 + compact_len(value);
            2 + between(members.len()) + members.iter().map(member).sum::<usize>()
        }
        scalar => scalar.to_string().len(),
    }
}

/// Whether every Prefect 3 keeps `value`. All refuse or round integers beyond 64 bits (63 for a value that is a number
/// itself), and make null of what no float can hold. One on PostgreSQL takes no NUL, and makes an integer of a float that
/// Python writes with an exponent: of one beyond 64 bits it fails at every answer that would show it.
pub fn check_kept(value: &Value) -> Result<()> {
    match value {
        Value::Number(number) if number.as_i64().is_none() => keepable(number, false),
        value => check_inner(value),
    }
}

fn check_inner(value: &Value) -> Result<()> {
    match value {
        Value::Number(number) => keepable(number, number.as_u64().is_some()),
        Value::String(text) => check_text(text),
        Value::Array(items) => items.iter().try_for_each(check_inner),
        Value::Object(members) => {
            members.iter().try_for_each(|(name, value)| check_text(name).and_then(|()| check_inner(value)))
        }
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

/// Whether every Prefect 3 keeps a string.
pub fn check_text(text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::Invalid("it has a NUL (\\u0000), which Prefect on PostgreSQL cannot keep".into()));
    }
    Ok(())
}

fn keepable(number: &Number, unsigned: bool) -> Result<()> {
    let text = number.as_str();
    if unsigned || number.as_i64().is_some() || text == "-0" {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(Error::Invalid(format!("the number {} {why}", text.chars().take(40).collect::<String>())))
    };
    match text.parse::<f64>() {
        Ok(float) if text.contains(['.', 'e', 'E']) && float.is_finite() => {
            let whole = float.to_string();
            let fits = whole.parse::<u64>().is_ok() || whole.parse::<i64>().is_ok();
            if float.abs() < 1e16 || fits {
                return Ok(());
            }
            refused("is over 64 bits, which Prefect on PostgreSQL cannot show; write it as a string")
        }
        _ => refused("is too large for Prefect"),
    }
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
    fn a_member_that_is_there_twice_is_no_value() {
        for text in [
            "1",
            "-1",
            "1.5",
            "18446744073709551616",
            "null",
            "\"a\"",
            r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#,
        ] {
            assert_eq!(unique(text.as_bytes()).unwrap().to_string(), text);
        }
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#, "{", "", "NaN", r#""\ud800""#] {
            assert!(matches!(unique(text.as_bytes()), Err(Error::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn numbers_are_the_same_by_value_and_integers_by_digit() {
        let same = |one: &str, other: &str| {
            same(&serde_json::from_str(one).unwrap(), &serde_json::from_str(other).unwrap())
        };
        assert!(
            same("[-0]", "[0]")
                && same("1.0", "1")
                && same("[1e2]", "[100.0]")
                && same(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#)
        );
        assert!(
            !same("18446744073709551615", "18446744073709551616") && !same("1", "2") && !same("[1]", "[1,2]")
        );
        assert!(!same("1", "\"1\"") && !same(r#"{"a":1}"#, r#"{"b":1}"#) && !same("1e400", "1e401"));
    }

    const KEPT: &[&str] = &[
        "9223372036854775807",
        "-9223372036854775808",
        "[18446744073709551615]",
        "-0",
        "1e19",
        "[-9.2e18]",
        "1844674407370955100.5",
        "5e-324",
        "1e-400",
        r#""\u0001""#,
    ];
    const NOT_KEPT: &[&str] = &[
        "9223372036854775808",
        "[18446744073709551616]",
        r#"{"a":-9223372036854775809}"#,
        "[1e400]",
        "1e308",
        r#"{"n":1e22}"#,
        "1e20",
        "-1e19",
        "18446744073709551616.0",
        r#"["a\u0000"]"#,
        r#"{"\u0000":1}"#,
    ];

    #[test]
    fn prefect_3_counts_compact_bytes_and_keeps_some_numbers() {
        let compact = |text: &str| compact_len(&serde_json::from_str(text).unwrap());
        for (text, kept) in [
            (r#"{ "a" : [ 1, 2 ] }"#, r#"{"a":[1,2]}"#),
            ("\"é\\u00e9\\n\"", "\"éé\\n\""),
            ("[1e2,0.10]", "[100.0,0.1]"),
            ("[]", "[]"),
        ] {
            assert_eq!(compact(text), kept.len(), "{text}");
        }
        let keeps = |text: &str| check_kept(&serde_json::from_str(text).unwrap()).is_ok();
        for text in KEPT {
            assert!(keeps(text), "{text}");
        }
        for text in NOT_KEPT {
            assert!(!keeps(text), "{text}");
        }
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
