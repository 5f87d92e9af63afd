//! Files that a test is made of: messages with what is expected of them, and the state that they begin with.
//! Read whole before anything is called, so that a mistake in the last line is told at once. It must not know
//! what becomes of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use segmenter_core::effects::EffectLimits;
use segmenter_core::limits::STATE_NAME_BYTES_MAX;
use segmenter_core::message::Content;

use super::expect::{Expect, Kept};
use crate::cli::Usage;
use crate::cli::jsonl::{BadLine, Lines};
use crate::cli::numbers::Numbers;

/// Bytes of a file of samples: all of them are held in memory.
const SAMPLES_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A message of a test.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) line: u64,
    pub(super) content: Content,
    pub(super) expect: Option<Expect>,
}

/// `-` is stdin. `payload_max`: bytes, inclusive.
pub(super) fn messages(path: &Path, payload_max: usize) -> anyhow::Result<Vec<Sample>> {
    let shown = path.display();
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(open(path)?),
    };
    let mut lines = Lines::new(BufReader::new(input), Numbers::Ignored);
    let mut samples = Vec::new();
    while let Some(next) = lines.next_expecting(payload_max) {
        if lines.bytes_read > SAMPLES_BYTES_MAX {
            return Err(usage(format!(
                "{shown} is longer than {SAMPLES_BYTES_MAX} bytes; test with fewer messages"
            )));
        }
        match next {
            Ok((message, expect)) => samples.push(Sample {
                line: message.line,
                content: message.content,
                expect,
            }),
            Err(BadLine { number, why }) => {
                return Err(usage(format!("{shown} line {number}: {why}")));
            }
        }
    }
    if samples.is_empty() {
        return Err(usage(format!("{shown} holds no message to test with")));
    }
    Ok(samples)
}

/// An object of names and values, as `state` of an expectation.
pub(super) fn state(
    path: &Path,
    limits: &EffectLimits,
) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let shown = path.display();
    let mut text = String::new();
    open(path)?
        .take(SAMPLES_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|e| usage(format!("reading {shown}: {e}")))?;
    let values: BTreeMap<String, Kept> =
        serde_json::from_str(&text).map_err(|e| usage(format!("{shown}: {e}")))?;
    let mut state = BTreeMap::new();
    let mut bytes = 0;
    for (name, Kept(value)) in values {
        let Some(value) = value else { continue };
        if name.len() > STATE_NAME_BYTES_MAX || value.len() > limits.value_bytes {
            return Err(usage(format!(
                "{shown}: {name:?} is larger than state takes: names have {STATE_NAME_BYTES_MAX} bytes, values {} (limits.state_value)",
                limits.value_bytes
            )));
        }
        bytes += name.len() + value.len();
        state.insert(name, value);
    }
    if bytes > limits.state_bytes {
        return Err(usage(format!(
            "{shown} holds {bytes} bytes; the state of a partition has at most {} (limits.state)",
            limits.state_bytes
        )));
    }
    Ok(state)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).map_err(|e| usage(format!("opening {}: {e}", path.display())))
}

fn usage(why: String) -> anyhow::Error {
    Usage(why).into()
}
