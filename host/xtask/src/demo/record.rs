//! One call of the handler, as its log line tells it.

use std::str::FromStr;

use anyhow::Context;
use serde_json::Value;

use crate::source::Counts;

/// Milliseconds and sequence number: they sort as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) u64, pub(super) u64);

impl FromStr for Id {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> anyhow::Result<Id> {
        let (ms, seq) = text
            .split_once('-')
            .with_context(|| format!("{text:?} is no entry id"))?;
        Ok(Id(ms.parse()?, seq.parse()?))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handled {
    /// Of the machine's clock, so that several hosts' lines have one order.
    pub(super) at_us: u64,
    pub(super) host: usize,
    pub(super) partition: u64,
    pub(super) id: Id,
    pub(super) counts: Counts,
}

impl Handled {
    /// `lines=N unsafe=M bytes=B`
    pub(super) fn parse(host: usize, line: &Value) -> anyhow::Result<Handled> {
        let text = line["text"].as_str().unwrap_or_default();
        let field = |name: &str| {
            let word = text
                .split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|n| n.parse::<u64>().ok())
                .with_context(|| format!("the handler logged {text:?}"))
        };
        let counts = Counts {
            lines: field("lines")?,
            unsafes: field("unsafe")?,
            bytes: field("bytes")?,
        };
        Ok(Handled {
            at_us: line["at_us"].as_u64().context("a line without a time")?,
            host,
            partition: line["partition"]
                .as_u64()
                .context("a log line without a partition")?,
            id: line["id"]
                .as_str()
                .context("a log line without an id")?
                .parse()?,
            counts,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_log_line_is_read() {
        let line =
            json!({"at_us": 9, "partition": 3, "id": "5-1", "text": "lines=1 unsafe=2 bytes=3"});
        let expected = Handled {
            at_us: 9,
            host: 1,
            partition: 3,
            id: Id(5, 1),
            counts: Counts {
                lines: 1,
                unsafes: 2,
                bytes: 3,
            },
        };
        assert_eq!(Handled::parse(1, &line).unwrap(), expected);
        assert!(Handled::parse(1, &json!({"text": "something else"})).is_err());
    }

    #[test]
    fn ids_sort_as_numbers() {
        let id = |text: &str| text.parse::<Id>().unwrap();
        assert!(id("9-9") < id("10-0") && id("5-2") < id("5-10"));
        assert!("5".parse::<Id>().is_err());
    }
}
