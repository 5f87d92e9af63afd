//! JSONL input: whatever a line holds, it is a message within the limits or an error with its number.

use segmenter::cli::fuzz;
use segmenter_core::limits;

const PAYLOAD_BYTES_MAX: usize = 64;

pub fn jsonl(input: &[u8]) {
    let lines = fuzz::read(input, PAYLOAD_BYTES_MAX);
    let there = input
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty());
    assert_eq!(lines.len(), there.count(), "a line was lost");
    for line in lines {
        let content = match line {
            Ok(content) => content,
            Err((number, why)) => {
                assert!(number > 0 && !why.is_empty());
                continue;
            }
        };
        assert!(content.payload().len() <= PAYLOAD_BYTES_MAX);
        assert!(content.key().len() <= limits::KEY_BYTES_MAX);
        let written = fuzz::write(&content);
        let again = fuzz::read(written.as_bytes(), PAYLOAD_BYTES_MAX);
        assert_eq!(again, [Ok(content)], "written as {written}");
    }
    // Whoever numbers them, the numbers rise. The first line is tried as what was typed, too.
    let typed = input
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let typed = String::from_utf8_lossy(typed);
    for id in ["p", "p:0", "p:18446744073709551615", &typed] {
        let numbers = fuzz::numbers(input, PAYLOAD_BYTES_MAX, id).unwrap_or_default();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{id}: {numbers:?}");
    }
}
