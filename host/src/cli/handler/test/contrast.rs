//! Two values that are not the same, so that a person sees where: text as text, with a mark below the first
//! character that differs, other bytes in hex around the first that differs. Must not know what they are.

/// Characters of a text that are shown before the first that differs, and from there on.
const TEXT_BEFORE: usize = 40;
const TEXT_AFTER: usize = 40;
/// The same of bytes.
const BYTES_BEFORE: usize = 8;
const BYTES_AFTER: usize = 16;

/// A value as one line, whole if it is short.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => quoted(
            &text.chars().collect::<Vec<_>>(),
            0,
            TEXT_BEFORE + TEXT_AFTER,
        ),
        Err(_) => hex(bytes, 0, BYTES_BEFORE + BYTES_AFTER),
    }
}

/// Both, and a line to be put below that marks where they differ.
pub(super) fn contrast(expected: &[u8], actual: &[u8]) -> [String; 3] {
    let texts = (std::str::from_utf8(expected), std::str::from_utf8(actual));
    let (expected, actual) = if let (Ok(expected), Ok(actual)) = texts {
        let expected: Vec<char> = expected.chars().collect();
        let actual: Vec<char> = actual.chars().collect();
        let at = common(&expected, &actual);
        let from = at.saturating_sub(TEXT_BEFORE);
        let to = at + TEXT_AFTER;
        (quoted(&expected, from, to), quoted(&actual, from, to))
    } else {
        let at = common(expected, actual);
        let from = at.saturating_sub(BYTES_BEFORE);
        let to = at + BYTES_AFTER;
        (hex(expected, from, to), hex(actual, from, to))
    };
    let (a, b): (Vec<char>, Vec<char>) = (expected.chars().collect(), actual.chars().collect());
    let mark = format!("{}^", " ".repeat(common(&a, &b)));
    [expected, actual, mark]
}

fn common<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// In quotes, with everything escaped that could steer a terminal or could not be seen.
fn quoted(text: &[char], from: usize, to: usize) -> String {
    let (from, end) = (from.min(text.len()), to.min(text.len()));
    let part: String = text[from..end].iter().collect();
    let part: String = part
        .chars()
        .map(|c| match crate::output::steers(c) {
            true => c.escape_unicode().to_string(),
            false => c.escape_debug().to_string(),
        })
        .collect();
    let (before, after) = cuts(from, end, text.len());
    format!("{before}\"{part}\"{after}")
}

/// Bytes with their number, and from which byte on.
fn hex(bytes: &[u8], from: usize, to: usize) -> String {
    let (from, end) = (from.min(bytes.len()), to.min(bytes.len()));
    let part: Vec<_> = bytes[from..end]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let (before, after) = cuts(from, end, bytes.len());
    let place = format!("{} bytes, from {from}:", bytes.len());
    format!("{place:<28} {before}{}{after}", part.join(" "))
}

fn cuts(from: usize, end: usize, len: usize) -> (&'static str, &'static str) {
    (
        if from > 0 { "…" } else { "" },
        if end < len { "…" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_quoted_and_cut_around_the_first_difference() {
        let [a, b, mark] = contrast(b"{\"total\": 3}", b"{\"total\": 41}");
        assert_eq!(a, r#""{\"total\": 3}""#);
        assert_eq!(b, r#""{\"total\": 41}""#);
        assert_eq!(mark, "             ^");
        let long = "x".repeat(100);
        let [a, b, mark] = contrast(format!("{long}a").as_bytes(), format!("{long}b").as_bytes());
        assert_eq!(a, format!("…\"{}a\"", &long[..TEXT_BEFORE]));
        assert_eq!(a.len(), b.len());
        assert_eq!(mark.chars().count(), TEXT_BEFORE + 3);
        // One is the beginning of the other; and nothing steers the terminal.
        let [a, b, mark] = contrast("ä\n".as_bytes(), "ä\n\u{1b}[2J\u{202e}".as_bytes());
        assert_eq!((a.as_str(), mark.as_str()), ("\"ä\\n\"", "    ^"));
        assert_eq!(b, "\"ä\\n\\u{1b}[2J\\u{202e}\"");
    }

    #[test]
    fn bytes_are_in_hex_and_the_mark_is_below_the_one_that_differs() {
        let (mut a, b) = (vec![0xffu8; 300], vec![0xffu8; 300]);
        a[200] = 0x0e;
        let [a, b, mark] = contrast(&a, &b);
        assert!(a.starts_with("300 bytes, from 192:"), "{a}");
        let at = mark.chars().count() - 1;
        let byte = |line: &str| line.chars().skip(at).take(2).collect::<String>();
        assert_eq!((byte(&a), byte(&b)), ("0e".to_owned(), "ff".to_owned()));
        assert!(a.ends_with('…'));
        assert_eq!(
            shown(&[0xff, 0]).trim_end(),
            "2 bytes, from 0:             ff 00"
        );
    }
}
