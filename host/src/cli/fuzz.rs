//! A door for fuzzing: JSONL both ways. Is no part of the crate's contract.

use std::io::BufReader;

use segmenter_core::message::Content;

use super::jsonl::{Lines, Shown};
use super::numbers::Numbers;

/// Every line of `input` that is not blank: the message, or the line's number and what is wrong with it.
pub fn read(input: &[u8], payload_max: usize) -> Vec<Result<Content, (u64, String)>> {
    let mut lines = Lines::new(BufReader::new(input), Numbers::None);
    std::iter::from_fn(|| lines.next(payload_max))
        .map(|line| match line {
            Ok(numbered) => Ok(numbered.content),
            Err(bad) => Err((bad.number, bad.why)),
        })
        .collect()
}

/// The numbers of the lines that are messages, up to the first that is none: as `--id ID` says.
pub fn numbers(input: &[u8], payload_max: usize, id: &str) -> Result<Vec<u64>, String> {
    let numbering = id.parse()?;
    let mut lines = Lines::new(BufReader::new(input), Numbers::of(Some(&numbering)));
    let lines = std::iter::from_fn(|| lines.next(payload_max)).map_while(Result::ok);
    Ok(lines.filter_map(|line| line.id).collect())
}

/// As `tail` shows it.
pub fn write(content: &Content) -> String {
    serde_json::to_string(&Shown::of(content)).expect("texts are always JSON")
}
