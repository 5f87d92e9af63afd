//! What a test came to as JUnit XML, the form that CI systems read: a test case a message. Without times, so
//! that a run twice writes the same file. Must not know how anything is compared.

use std::fmt::Write;

use super::show::differences;
use super::{Case, Result};

/// `suite` is the module, `class` the file of messages.
pub(super) fn document(suite: &str, class: &str, cases: &[Case]) -> String {
    let failures = cases
        .iter()
        .filter(|c| c.result() == Result::Otherwise)
        .count();
    let (suite, class) = (escaped(suite), escaped(class));
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\"",
        cases.len()
    );
    // Writing to a String does not fail.
    let _ = writeln!(text, "<testsuites {counts}>");
    let _ = writeln!(text, "  <testsuite name=\"{suite}\" {counts}>");
    for case in cases {
        let name = escaped(&format!("line {} {}", case.line, case.key));
        let _ = write!(text, "    <testcase classname=\"{class}\" name=\"{name}\"");
        let body = body(case);
        if body.is_empty() {
            text.push_str("/>\n");
        } else {
            let _ = writeln!(text, ">\n{body}    </testcase>");
        }
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn body(case: &Case) -> String {
    let mut text = String::new();
    if case.result() == Result::Otherwise {
        let mut whats: Vec<String> = case.differences.iter().map(|d| d.what.clone()).collect();
        let mut lines = differences(&case.differences);
        if let Some(difference) = &case.against {
            whats.push("against the other version".to_owned());
            lines.push(difference.to_string());
        }
        if let Some(reason) = super::expect::reason(&case.played.outcome) {
            lines.push(format!("reason: {reason}"));
        }
        lines.extend(case.played.backtrace.clone());
        let (message, lines) = (escaped(&whats.join(", ")), escaped(&lines.join("\n")));
        let _ = writeln!(
            text,
            "      <failure message=\"{message}\">{lines}</failure>"
        );
    }
    if !case.played.lines.is_empty() {
        let lines = case.played.lines.iter();
        let lines: Vec<_> = lines
            .map(|line| {
                let shadow = if line.shadow { " (shadow)" } else { "" };
                format!("{}{shadow} {}", line.level.as_str(), line.text)
            })
            .collect();
        let lines = escaped(&lines.join("\n"));
        let _ = writeln!(text, "      <system-out>{lines}</system-out>");
    }
    text
}

/// What XML 1.0 has no way to say at all becomes the replacement character.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => {
                let _ = write!(safe, "&#{};", u32::from(c));
            }
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_out_of_its_place() {
        assert_eq!(
            escaped("a<b> & \"c\"\n\u{0}\u{1b}[2J"),
            "a&lt;b&gt; &amp; &quot;c&quot;&#10;\u{fffd}\u{fffd}[2J"
        );
    }
}
