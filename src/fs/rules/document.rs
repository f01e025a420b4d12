//! What counts as a value: one JSON text (RFC 8259), UTF-8, nested at most 128 deep.
//!
//! The validator walks bytes and keeps none: what a user wrote is stored as it was written. It can stop after any
//! byte and say whether what it saw is a document, could still become one, or never can.

/// Deeper documents are refused; common readers give up between 128 and 300.
pub const MAX_DEPTH: usize = 128;

/// Which bytes a mount accepts as a value (`--validate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validate {
    /// One JSON text.
    Json,
    /// Any bytes.
    None,
}

/// Whether `bytes` are white space of JSON alone.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of a byte.
    pub byte: usize,
    /// Its line, from 1 on.
    pub line: usize,
    /// The character in the line, from 1 on.
    pub column: usize,
}

impl Place {
    const START: Self = Self { byte: 0, line: 1, column: 1 };

    /// The end of `text`.
    pub fn after(text: &[u8]) -> Self {
        text.iter().fold(Self::START, |place, byte| place.next(*byte))
    }

    const fn next(self, byte: u8) -> Self {
        let Self { byte: at, line, column } = self;
        match byte {
            b'\n' => Self { byte: at + 1, line: line + 1, column: 1 },
            // Not the first byte of a character.
            0x80..0xc0 => Self { byte: at + 1, line, column },
            _ => Self { byte: at + 1, line, column: column + 1 },
        }
    }
}

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no document at all.
    #[error("the text is empty")]
    Empty,
    /// The text ends too early.
    #[error("the JSON text is incomplete after {} bytes (line {}, column {})", .0.byte, .0.line, .0.column)]
    Incomplete(Place),
    /// The byte at this offset cannot stand there.
    #[error("not JSON at byte {} (line {}, column {}): {why}", .at.byte, .at.line, .at.column)]
    Syntax {
        /// The byte.
        at: Place,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Fault {
    /// Where in the text it is.
    pub const fn place(&self) -> Option<Place> {
        match self {
            Self::Empty => None,
            Self::Incomplete(at) | Self::Syntax { at, .. } => Some(*at),
        }
    }
}

impl Validate {
    /// Whether `text` is a complete value.
    pub fn check(self, text: &[u8]) -> Result<(), Fault> {
        if self == Self::None {
            return Ok(());
        }
        let mut prefix = Prefix::new();
        prefix.feed(text)?;
        prefix.finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Before a value; `first` inside a just opened array, where `]` may follow.
    Value {
        first: bool,
    },
    /// Before a member name; `first` inside a just opened object, where `}` may follow.
    Name {
        first: bool,
    },
    Colon,
    /// After a value, inside an array or object or at the top.
    After,
    Text {
        name: bool,
    },
    Escape {
        name: bool,
    },
    /// Inside `\uXXXX`: digits seen, the code unit so far, and the high surrogate waiting for its partner.
    Hex {
        name: bool,
        digits: u8,
        unit: u16,
        high: bool,
    },
    /// A high surrogate needs `\` and then `u` next.
    LowBackslash {
        name: bool,
    },
    LowU {
        name: bool,
    },
    /// Inside a multi-byte character: bytes to come, and the range the next one must be in.
    Utf8 {
        name: bool,
        more: u8,
        low: u8,
        high: u8,
    },
    Literal {
        rest: &'static [u8],
    },
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// A JSON text as far as it has been seen.
#[derive(Clone, Debug)]
pub struct Prefix {
    state: State,
    /// One bit per open container, the innermost lowest: 1 an object, 0 an array.
    containers: u128,
    depth: usize,
    at: Place,
}

impl Default for Prefix {
    fn default() -> Self {
        Self::new()
    }
}

impl Prefix {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self { state: State::Value { first: false }, containers: 0, depth: 0, at: Place::START }
    }

    /// How many bytes have been seen.
    pub fn seen(&self) -> usize {
        self.at.byte
    }

    /// Takes more bytes. An error means that no continuation makes this a document.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        for &byte in bytes {
            self.state = self.step(byte).map_err(|why| Fault::Syntax { at: self.at, why })?;
            self.at = self.at.next(byte);
        }
        Ok(())
    }

    /// Whether what has been seen is a document.
    pub fn finish(&self) -> Result<(), Fault> {
        let number =
            matches!(self.state, State::Zero | State::Integer | State::Fraction | State::ExponentDigits);
        match self.state {
            _ if self.depth == 0 && (number || self.state == State::After) => Ok(()),
            State::Value { .. } if self.depth == 0 => Err(Fault::Empty),
            _ => Err(Fault::Incomplete(self.at)),
        }
    }

    /// Whether what has been seen is a document that only white space can follow. A number at the top ends with the white
    /// space after it.
    pub fn is_closed(&self) -> bool {
        self.depth == 0 && self.state == State::After
    }

    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match self.state {
            State::Value { first } => self.value(byte, first),
            State::Name { first } => match byte {
                b' ' | b'\t' | b'\n' | b'\r' => Ok(self.state),
                b'"' => Ok(State::Text { name: true }),
                b'}' if first => Ok(self.close()),
                _ => Err("a member name in double quotes was expected"),
            },
            State::Colon => match byte {
                b' ' | b'\t' | b'\n' | b'\r' => Ok(self.state),
                b':' => Ok(State::Value { first: false }),
                _ => Err("a colon was expected"),
            },
            State::After => self.after(byte),
            State::Literal { rest } => match rest.split_first() {
                Some((expected, [])) if *expected == byte => Ok(State::After),
                Some((expected, rest)) if *expected == byte => Ok(State::Literal { rest }),
                _ => Err("the words are true, false and null"),
            },
            State::Minus
            | State::Zero
            | State::Integer
            | State::Point
            | State::Fraction
            | State::Exponent
            | State::ExponentSign
            | State::ExponentDigits => self.number(byte),
            _ => string(self.state, byte),
        }
    }

    fn value(&mut self, byte: u8, first: bool) -> Result<State, &'static str> {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => Ok(self.state),
            b'{' => self.open(1).map(|()| State::Name { first: true }),
            b'[' => self.open(0).map(|()| State::Value { first: true }),
            b']' if first => Ok(self.close()),
            b'"' => Ok(State::Text { name: false }),
            b'-' => Ok(State::Minus),
            b'0' => Ok(State::Zero),
            b'1'..=b'9' => Ok(State::Integer),
            b't' => Ok(State::Literal { rest: b"rue" }),
            b'f' => Ok(State::Literal { rest: b"alse" }),
            b'n' => Ok(State::Literal { rest: b"ull" }),
            0xef if self.at.byte == 0 => Err("a byte event mark is not allowed"),
            _ => Err("a value was expected"),
        }
    }

    fn after(&mut self, byte: u8) -> Result<State, &'static str> {
        match (byte, self.depth, self.containers & 1) {
            (b' ' | b'\t' | b'\n' | b'\r', ..) => Ok(State::After),
            (_, 0, _) => Err("something follows the document"),
            (b',', _, 1) => Ok(State::Name { first: false }),
            (b',', _, _) => Ok(State::Value { first: false }),
            (b'}', _, 1) | (b']', _, 0) => Ok(self.close()),
            _ => Err("a comma or the end of the array or object was expected"),
        }
    }

    fn number(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Minus, b'0') => Ok(State::Zero),
            (State::Minus, b'1'..=b'9') | (State::Integer, b'0'..=b'9') => Ok(State::Integer),
            (State::Zero | State::Integer, b'.') => Ok(State::Point),
            (State::Point | State::Fraction, b'0'..=b'9') => Ok(State::Fraction),
            (State::Zero | State::Integer | State::Fraction, b'e' | b'E') => Ok(State::Exponent),
            (State::Exponent, b'+' | b'-') => Ok(State::ExponentSign),
            (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => {
                Ok(State::ExponentDigits)
            }
            (State::Zero | State::Integer | State::Fraction | State::ExponentDigits, _) => self.after(byte),
            _ => Err("a digit was expected"),
        }
    }

    fn open(&mut self, kind: u128) -> Result<(), &'static str> {
        if self.depth == MAX_DEPTH {
            return Err("nested deeper than 128 levels");
        }
        self.depth += 1;
        self.containers = self.containers << 1 | kind;
        Ok(())
    }

    fn close(&mut self) -> State {
        self.depth -= 1;
        self.containers >>= 1;
        State::After
    }
}

/// The states inside a string, where the containers do not matter.
fn string(state: State, byte: u8) -> Result<State, &'static str> {
    match state {
        State::Text { name } => match byte {
            b'"' => Ok(if name { State::Colon } else { State::After }),
            b'\\' => Ok(State::Escape { name }),
            0..0x20 => Err("a control character in a string must be escaped"),
            0x20..0x80 => Ok(state),
            // RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
            0xc2..=0xdf => Ok(State::Utf8 { name, more: 1, low: 0x80, high: 0xbf }),
            0xe0 => Ok(State::Utf8 { name, more: 2, low: 0xa0, high: 0xbf }),
            0xed => Ok(State::Utf8 { name, more: 2, low: 0x80, high: 0x9f }),
            0xe1..=0xef => Ok(State::Utf8 { name, more: 2, low: 0x80, high: 0xbf }),
            0xf0 => Ok(State::Utf8 { name, more: 3, low: 0x90, high: 0xbf }),
            0xf1..=0xf3 => Ok(State::Utf8 { name, more: 3, low: 0x80, high: 0xbf }),
            0xf4 => Ok(State::Utf8 { name, more: 3, low: 0x80, high: 0x8f }),
            _ => Err("not UTF-8"),
        },
        State::Utf8 { name, more, low, high } => match byte {
            _ if byte < low || byte > high => Err("not UTF-8"),
            _ if more == 1 => Ok(State::Text { name }),
            _ => Ok(State::Utf8 { name, more: more - 1, low: 0x80, high: 0xbf }),
        },
        State::Escape { name } => match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(State::Text { name }),
            b'u' => Ok(State::Hex { name, digits: 0, unit: 0, high: false }),
            _ => Err("unknown escape in a string"),
        },
        State::Hex { name, digits, unit, high } => {
            let digit = char::from(byte).to_digit(16).ok_or("four hexadecimal digits follow \\u")?;
            let unit = unit << 4 | digit as u16;
            match (digits, unit) {
                (0..3, _) => Ok(State::Hex { name, digits: digits + 1, unit, high }),
                (_, 0xdc00..=0xdfff) if high => Ok(State::Text { name }),
                (_, 0xd800..=0xdbff) if !high => Ok(State::LowBackslash { name }),
                (_, 0xd800..=0xdfff) => Err("lone surrogate"),
                _ if high => Err("lone surrogate"),
                _ => Ok(State::Text { name }),
            }
        }
        State::LowBackslash { name } if byte == b'\\' => Ok(State::LowU { name }),
        State::LowU { name } if byte == b'u' => Ok(State::Hex { name, digits: 0, unit: 0, high: true }),
        _ => Err("lone surrogate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &[u8]) -> Result<(), Fault> {
        Validate::Json.check(text)
    }

    #[test]
    fn documents_are_accepted() {
        for text in [
            "1",
            "-0",
            "1.10",
            "1e999",
            "12345678901234567890123",
            "true",
            "null",
            "\"\"",
            " [ ] \n",
            "{}",
            "[1,[2],{}]",
            r#"{"a":{"b":[1,2,{"c":null}]},"a":1}"#,
            r#""\ud83d\ude00\u00e9\n""#,
            "\"é😀\u{2028}\"",
            "0",
            "[0.5,-1E+3]",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_document_is_refused() {
        for text in [
            "",
            " ",
            "bad",
            "NaN",
            "01",
            "1.",
            "1e",
            "-",
            "tru",
            "nulll",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "1 2",
            "{} {}",
            "[}",
            "\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"a\nb\"",
            "\u{feff}1",
            "+1",
            ".5",
            "'a'",
            "]",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
        for bytes in
            [&b"\"\xff\""[..], b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"\"\xf4\x90\x80\x80\"", b"\"\xc3\""]
        {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_document_is_closed_where_only_white_space_can_follow() {
        for (text, closed) in [
            ("", false),
            (" ", false),
            ("{\"a\":1", false),
            ("{\"a\":1}", true),
            ("{\"a\":1} \n", true),
            ("[]", true),
            ("\"a\"", true),
            ("true", true),
            ("tru", false),
            ("12", false),
            ("0", false),
            ("1.5", false),
            ("1e5", false),
            ("12\n", true),
        ] {
            let mut prefix = Prefix::new();
            prefix.feed(text.as_bytes()).unwrap();
            assert_eq!(prefix.is_closed(), closed, "{text:?}");
        }
        assert!(is_blank(b" \t\r\n") && is_blank(b"") && !is_blank(b"\x0b"));
    }

    #[test]
    fn nesting_is_limited_to_128() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert_eq!(check(&nested(127)), Ok(()));
        assert_eq!(check(&nested(128)), Ok(()));
        assert!(check(&nested(129)).is_err());
        let objects = [b"{\"a\":".repeat(128), b"1".to_vec(), b"}".repeat(128)].concat();
        assert_eq!(check(&objects), Ok(()));
    }

    #[test]
    fn the_fault_says_where() {
        let why = |text: &str| check(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(why("[1, x]"), "not JSON at byte 4 (line 1, column 5): a value was expected");
        assert_eq!(
            why("[\"é😀\",\n 1,\n x]"),
            "not JSON at byte 16 (line 3, column 2): a value was expected"
        );
        assert_eq!(why("[1"), "the JSON text is incomplete after 2 bytes (line 1, column 3)");
        assert_eq!(check(b"[\n"), Err(Fault::Incomplete(Place { byte: 2, line: 2, column: 1 })));
        assert_eq!(check(b" \n").unwrap_err(), Fault::Empty);
    }

    /// What `serde_json` accepts, less what it refuses for the size of its own number types.
    fn reference(text: &[u8]) -> bool {
        serde_json::from_slice::<serde_json::Value>(text).is_ok()
    }

    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "1", "0", "-", ".", "e", "true", "null", " ",
            "\\u00e9", "\\ud83d", "\\ude00", "é", "\\n", "x",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn agrees_with_serde_json(text in prop_oneof![likely(), prop::collection::vec(any::<u8>(), 0..8)]) {
            prop_assert_eq!(check(&text).is_ok(), reference(&text), "{:?}", String::from_utf8_lossy(&text));
        }

        #[test]
        fn every_prefix_of_a_document_is_a_prefix(text in likely()) {
            if check(&text).is_ok() {
                let mut prefix = Prefix::new();
                for byte in &text {
                    prop_assert!(prefix.feed(&[*byte]).is_ok());
                }
                prop_assert!(prefix.finish().is_ok());
            }
        }
    }
}
