//! Texts that say what they are: a JSON document that tells its own length and the number of its write, and lines of white space
//! that tell theirs, for a JSON document may end in them.

/// The number of a write; 0 is what the key has before any.
pub(super) type Number = u32;

/// Bits of a number, of which each is a blank or a tab of an appended line.
const BITS: u32 = 24;

/// Bytes of an appended line.
pub(super) const LINE: usize = BITS as usize + 1;

/// The shortest document.
pub(super) const SHORTEST: usize = 60;

/// What is wrong with a text that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    /// The beginning of a text.
    Cut,
    /// Parts of several texts.
    Torn,
    /// Zeros that nobody wrote.
    Nul,
}

impl Fault {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Cut => "cut",
            Self::Torn => "torn",
            Self::Nul => "NUL-filled",
        }
    }
}

/// A document of `length` bytes.
pub(super) fn document(number: Number, length: usize) -> Vec<u8> {
    const END: &str = "\"}\n";
    let mut text = format!("{{\"length\":\"{length:04}\",\"number\":\"{number:08}\",\"text\":\"");
    let filling = format!(".{number:08}");
    text.extend(filling.chars().cycle().take(length - END.len() - text.len()));
    text.push_str(END);
    text.into_bytes()
}

/// A line to append.
pub(super) fn line(number: Number) -> Vec<u8> {
    let bit = |bit: u32| if number >> bit & 1 == 1 { b'\t' } else { b' ' };
    (0..BITS).map(bit).chain([b'\n']).collect()
}

/// The number of the last write that made `text`.
pub(super) fn judge(text: &[u8]) -> Result<Number, Fault> {
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    if text.contains(&0) {
        return Err(Fault::Nul);
    }
    let (length, number) = head(text)?;
    let whole = document(number, length);
    let lines = match text.strip_prefix(whole.as_slice()) {
        Some(lines) => lines,
        None if whole.starts_with(text) => return Err(Fault::Cut),
        None => return Err(Fault::Torn),
    };
    if lines.len() % LINE != 0 {
        return Err(Fault::Cut);
    }
    lines.chunks(LINE).try_fold(number, |_, line| number_of(line))
}

/// Length and number that a document tells.
fn head(text: &[u8]) -> Result<(usize, Number), Fault> {
    const HEAD: &str = "{\"length\":\"0000\",\"number\":\"00000000\",";
    if text.len() < HEAD.len() {
        return Err(Fault::Cut);
    }
    let digits = |from: usize, to: usize| std::str::from_utf8(&text[from..to]).ok()?.parse::<u32>().ok();
    match (digits(11, 15), digits(27, 35)) {
        (Some(length), Some(number)) if length as usize >= SHORTEST => Ok((length as usize, number)),
        _ => Err(Fault::Torn),
    }
}

fn number_of(line: &[u8]) -> Result<Number, Fault> {
    let (end, bits) = line.split_last().ok_or(Fault::Cut)?;
    let bit = |number: Number, (bit, byte): (usize, &u8)| match byte {
        b' ' => Some(number),
        b'\t' => Some(number | 1 << bit),
        _ => None,
    };
    let number = bits.iter().enumerate().try_fold(0, bit);
    number.filter(|_| *end == b'\n').ok_or(Fault::Torn)
}

#[test]
fn a_text_tells_what_is_wrong_with_it() {
    let text = document(7, 500);
    assert_eq!((text.len(), judge(&text)), (500, Ok(7)));
    let longer = [text.as_slice(), &line(8), &line(9_000_001)].concat();
    assert_eq!(judge(&longer), Ok(9_000_001));
    assert_eq!(judge(b""), Err(Fault::Empty));
    for length in [1, 30, 499, 501, 526] {
        assert_eq!(judge(&longer[..length]), Err(Fault::Cut), "{length}");
    }
    let other = document(8, 500);
    assert_eq!(judge(&[&text[..250], &other[250..]].concat()), Err(Fault::Torn));
    assert_eq!(judge(&[&text[..250], &[0; 250]].concat()), Err(Fault::Nul));
}
