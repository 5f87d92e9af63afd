//! How answers look: lines of JSON for machines, aligned tables for people. Knows terminals; must not
//! know what it shows.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Of everything that is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One object a line.
    Json,
}

/// stdout of a command. A reader that went away (`| head`) ends the command without a word.
pub(crate) struct Out {
    pub(crate) format: Format,
    out: io::BufWriter<io::Stdout>,
}

/// Whoever read the output is gone: not an error of the command.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(crate) struct Closed;

impl Out {
    pub(crate) fn new(format: Format) -> Out {
        Out {
            format,
            out: io::BufWriter::new(io::stdout()),
        }
    }

    pub(crate) fn object(&mut self, object: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(object)?)
    }

    pub(crate) fn line(&mut self, line: &str) -> anyhow::Result<()> {
        closed(writeln!(self.out, "{line}"))
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        closed(self.out.flush())
    }

    /// Columns as wide as their widest cell; numbers to the right. Without rows: `empty`.
    pub(crate) fn table(
        &mut self,
        header: &[&str],
        rows: &[Vec<String>],
        empty: &str,
    ) -> anyhow::Result<()> {
        if rows.is_empty() {
            return self.line(empty);
        }
        let bold = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for (i, line) in layout(header, rows).into_iter().enumerate() {
            if bold && i == 0 {
                self.line(&format!("\x1b[1m{line}\x1b[0m"))?;
            } else {
                self.line(&line)?;
            }
        }
        Ok(())
    }
}

fn closed(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        other => Ok(other?),
    }
}

fn layout(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    let all = || std::iter::once(&header).chain(rows);
    let width = |column: usize| {
        all()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let is_number = |cell: &String| {
        cell == "-" || (!cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit()))
    };
    let right: Vec<bool> = (0..header.len())
        .map(|column| rows.iter().all(|row| is_number(&row[column])))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if right[column] {
                format!("{pad}{cell}")
            } else {
                format!("{cell}{pad}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

/// Text from elsewhere, safe for a terminal and on one line, at most `max` characters.
pub(crate) fn preview(text: &str, max: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(max)
        .map(|c| match c {
            '\n' => '⏎',
            '\t' => ' ',
            c if c.is_control() || steers(c) => '\u{fffd}',
            c => c,
        })
        .collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

/// Line ends and changes of direction, which Unicode does not count as control characters: the rest of
/// the line could be made to read as something else.
pub(crate) fn steers(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `2026-11-24 12:58:21.042 UTC` of milliseconds since 1970.
pub(crate) fn moment(at_ms: u64) -> String {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    // Years begin in March, so that the leap day is the last of one; 400 of them are 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + next_year;
    let (s, ms) = (ms / 1_000, ms % 1_000);
    let (h, m, s) = (s / 3_600, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}.{ms:03} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let rows = vec![
            vec!["orders".to_owned(), "8".to_owned(), "a".to_owned()],
            vec!["ключ".to_owned(), "1024".to_owned(), String::new()],
        ];
        assert_eq!(
            layout(&["NAME", "N", "LAST"], &rows),
            ["NAME       N  LAST", "orders     8  a", "ключ    1024"]
        );
    }

    #[test]
    fn a_preview_cannot_steer_the_terminal() {
        assert_eq!(preview("a\nb\x1b[2Jc", 80), "a⏎b\u{fffd}[2Jc");
        assert_eq!(preview("a\u{202e}b\u{2028}c", 80), "a\u{fffd}b\u{fffd}c");
        assert_eq!(preview("abcdef", 3), "abc…");
    }

    /// The right sides come from `date -u`.
    #[test]
    fn a_moment_is_told_as_a_date() {
        for (at_s, says) in [
            (0, "1970-01-01 00:00:00.007 UTC"),
            (951_782_399, "2000-02-28 23:59:59.007 UTC"),
            (951_868_799, "2000-02-29 23:59:59.007 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00.007 UTC"),
            (1_795_525_101, "2026-11-24 12:58:21.007 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00.007 UTC"),
        ] {
            assert_eq!(moment(at_s * 1_000 + 7), says);
        }
    }
}
