//! Times, sizes, numbers, users and choices as people write them.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::mount::leftovers::Leftovers;
use crate::sys;

/// `500ms`, `5s`, `2m`, `1h`, or seconds without a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("a time is a number with ms, s, m, h or d, as in 5s".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a time is a number with ms, s, m, h or d, as in 5s")?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// A time in which something can be done.
pub(super) fn deadline(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("a time over 0 is needed, as in 5s".into()) } else { Ok(time) }
}

/// `1000`, `64K`, `64M`, `1G`, in powers of 1024.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("a size is a number with K, M or G, as in 64M".into()),
    };
    let number: usize = number.parse().map_err(|_| "a size is a whole number with K, M or G, as in 64M")?;
    number.checked_mul(1 << shift).ok_or_else(|| "the size is too large".into())
}

/// `022`.
pub(super) fn octal(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| "a umask is an octal number up to 777, as in 027".into())
}

/// `100000`.
pub(super) fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "a whole number over 0 is needed, as in 100000".into())
}

/// `1000`, or the name of a user.
pub(super) fn user(text: &str) -> Result<u32, String> {
    id(text, sys::user_id(text), "user", "id -u")
}

/// `1000`, or the name of a group.
pub(super) fn group(text: &str) -> Result<u32, String> {
    id(text, sys::group_id(text), "group", "getent group")
}

fn id(text: &str, named: Option<u32>, what: &str, command: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|id| *id != u32::MAX);
    number
        .or(named)
        .ok_or_else(|| format!("there is no {what} of this name; `{command} NAME` tells the number"))
}

/// `aside` or `set`.
pub(super) fn leftovers(text: &str) -> Result<Leftovers, String> {
    match text {
        "aside" => Ok(Leftovers::Aside),
        "set" => Ok(Leftovers::Set),
        _ => Err("aside moves what lies in the directory away, set also sets it".into()),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_mins(90)));
        assert!(duration("5 parsecs").is_err() && duration("").is_err() && duration("1e400").is_err());
        assert_eq!(bytes("64M"), Ok(64 << 20));
        assert_eq!(bytes("10KiB"), Ok(10 << 10));
        assert!(bytes("1.5M").is_err() && bytes("x").is_err());
        assert_eq!(octal("027"), Ok(0o27));
        assert!(deadline("0").is_err() && deadline("0ms").is_err() && deadline("1ms").is_ok());
        assert!(count("0").is_err() && count("-1").is_err() && count("7").is_ok());
        assert_eq!((user("7"), user("root"), group("root")), (Ok(7), Ok(0), Ok(0)));
        assert!(user("no such user").is_err() && user("4294967295").is_err() && group("").is_err());
        assert!(octal("8").is_err() && octal("7777").is_err());
    }
}
