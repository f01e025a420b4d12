//! Times and sizes as people write them.

use std::time::Duration;

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

/// `1000`, `64K`, `64M`, `1G`, in powers of 1024.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("a size is a number with K, M or G".into()),
    };
    let number: usize = number.parse().map_err(|_| "a size is a whole number with K, M or G")?;
    number.checked_mul(1 << shift).ok_or_else(|| "the size is too large".into())
}

/// `022`.
pub(super) fn octal(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| "a umask is an octal number up to 777".into())
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
        assert!(octal("8").is_err() && octal("7777").is_err());
    }
}
