//! Moments as people write them: RFC 3339, in the Gregorian calendar, UTC inside. Knows no clock.

const MS_PER_DAY: i64 = 86_400_000;

/// Milliseconds since 1970 of `2026-11-24T22:00:00Z`, `2026-11-24 22:00:00.5+01:00`.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "{text:?} is no moment; write it as RFC 3339, such as 2026-11-24T22:00:00Z or 2026-11-24T23:00:00+01:00"
        )
    };
    let number = |part: Option<&str>, low: i64, high: i64| {
        part.filter(|part| part.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|part| part.parse::<i64>().ok())
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(bad)
    };
    let plain = text.as_bytes();
    let dashes = plain.get(4) == Some(&b'-') && plain.get(7) == Some(&b'-');
    let colons = plain.get(13) == Some(&b':') && plain.get(16) == Some(&b':');
    let joint = matches!(plain.get(10), Some(b'T' | b't' | b' '));
    if !(dashes && colons && joint) {
        return Err(bad());
    }
    let year = number(text.get(0..4), 1970, 9999)?;
    let month = number(text.get(5..7), 1, 12)?;
    let day = number(text.get(8..10), 1, days_in(year, month))?;
    let hour = number(text.get(11..13), 0, 23)?;
    let minute = number(text.get(14..16), 0, 59)?;
    // A leap second counts as the first of the next minute.
    let second = number(text.get(17..19), 0, 60)?;
    let mut rest = text.get(19..).ok_or_else(bad)?;
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let three = format!("{:0<3.3}", &fraction[..digits]);
        ms = number(
            Some(&three).filter(|_| digits > 0).map(String::as_str),
            0,
            999,
        )?;
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = match rest.as_bytes() {
                [b'+', _, _, b':', _, _] => 1,
                [b'-', _, _, b':', _, _] => -1,
                _ => return Err(bad()),
            };
            let hours = number(rest.get(1..3), 0, 23)?;
            sign * (hours * 60 + number(rest.get(4..6), 0, 59)?)
        }
    };
    let minutes = (hour * 60 + minute) - offset_minutes;
    let ms = days(year, month, day) * MS_PER_DAY + minutes * 60_000 + second * 1_000 + ms;
    u64::try_from(ms).map_err(|_| bad())
}

/// `2026-11-24T22:00:00Z`.
pub(super) fn format(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (mut days_left, of_day) = (
        i64::try_from(seconds / 86_400).unwrap_or(0),
        seconds % 86_400,
    );
    let mut year = 1970;
    // At most a few thousand steps, and never on the hot path.
    while days_left >= days(year + 1, 1, 1) - days(year, 1, 1) && year < 9999 {
        days_left -= days(year + 1, 1, 1) - days(year, 1, 1);
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_left >= days_in(year, month) {
        days_left -= days_in(year, month);
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        days_left + 1
    )
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Since 1970.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400;
    let months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    // 477 leap years before 1970.
    (year - 1970) * 365 + leaps - 477 + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_written() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2026-11-24T22:00:52Z", 1_795_557_652_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
        ] {
            assert_eq!(parse(text), Ok(ms), "{text}");
            assert_eq!(format(ms), text);
        }
        for (text, same) in [
            ("2026-11-24T23:30:52+01:30", "2026-11-24T22:00:52Z"),
            ("2026-11-24 14:00:52-08:00", "2026-11-24T22:00:52Z"),
            ("2026-12-31T23:59:60Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse(text), parse(same), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Ok(1_500));
        assert_eq!(parse("1970-01-01T00:00:01.987654Z"), Ok(1_987));
    }

    #[test]
    fn every_day_comes_back() {
        for day in (0..200_000).step_by(13) {
            let ms = day * 86_400_000;
            assert_eq!(parse(&format(ms)), Ok(ms), "{}", format(ms));
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-24",
            "2026-11-24T22:00:52",
            "2026-13-24T22:00:52Z",
            "2026-02-29T22:00:52Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T22:00:52.Z",
            "2026-11-24T22:00:52+1:00",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-11-24T22:00:+2Z",
            "２026-11-24T22:00:52Z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
