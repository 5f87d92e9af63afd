//! Sizes and durations as people write them. Knows the units; a bare number is an error, because nobody
//! can tell milliseconds from seconds.

use std::time::Duration;

/// `10s`, `250ms`, `5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let millis_per = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => {
            return Err(format!(
                "{text:?} has no unit; write ms, s, m or h, such as \"{text}s\""
            ));
        }
        _ => {
            return Err(format!(
                "{text:?}: the unit {unit:?} is unknown; use ms, s, m or h"
            ));
        }
    };
    let millis = whole(text, number)?
        .checked_mul(millis_per)
        .ok_or_else(|| format!("{text:?} is too long"))?;
    Ok(Duration::from_millis(millis))
}

/// A size for people, in the largest unit of which it has one: `1.5MiB`.
pub fn show(bytes: usize) -> String {
    const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) if bytes.is_multiple_of(*size) => format!("{}{unit}", bytes / size),
        Some((unit, size)) => format!("{:.1}{unit}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}

/// `64MiB`, `512KiB`, `100B`; in bytes.
pub fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let bytes_per: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => {
            return Err(format!(
                "{text:?} has no unit; write B, KiB, MiB or GiB, such as \"{text}MiB\""
            ));
        }
        _ => {
            return Err(format!(
                "{text:?}: the unit {unit:?} is unknown; use B, KiB, MiB or GiB"
            ));
        }
    };
    whole(text, number)?
        .checked_mul(bytes_per)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("{text:?} is too large"))
}

fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn whole(text: &str, number: &str) -> Result<u64, String> {
    number
        .replace('_', "")
        .parse()
        .map_err(|_| format!("{text:?} does not begin with a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10 s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1_000B"), Ok(1000));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_they_have() {
        for (bytes, shown) in [
            (0, "0B"),
            (1_023, "1023B"),
            (64 << 10, "64KiB"),
            ((1 << 20) + (1 << 19), "1.5MiB"),
            (256 << 20, "256MiB"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(show(bytes), shown);
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_the_reason() {
        for (text, says) in [
            ("10", "no unit"),
            ("s", "whole number"),
            ("1.5s", "unit"),
            ("-1s", "unit"),
            ("5d", "\"d\" is unknown"),
            ("99999999999999999999s", "whole number"),
            ("9999999999999999999h", "too long"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        for (text, says) in [
            ("64", "no unit"),
            ("64MB", "\"MB\" is unknown"),
            ("99999999999GiB", "too large"),
        ] {
            let error = size(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
