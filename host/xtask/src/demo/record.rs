//! One call of the handler, as its log line tells it.

use std::str::FromStr;

use anyhow::Context;
use serde_json::Value;

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

/// What a version counted in one message. v1 does not know of `unsafe`, which tells it from v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) lines: u64,
    pub(super) unsafes: Option<u64>,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handled {
    /// Of the machine's clock, so that several hosts' lines have one order.
    pub(super) at_us: u64,
    pub(super) host: usize,
    pub(super) partition: u64,
    pub(super) id: Id,
    pub(super) logged: Logged,
}

impl Handled {
    /// `None`: a guest's words that count nothing, as a panic's are.
    pub(super) fn parse(host: usize, line: &Value) -> anyhow::Result<Option<Handled>> {
        let text = line["text"].as_str().unwrap_or_default();
        if !text.starts_with("lines=") {
            return Ok(None);
        }
        let logged = Logged::parse(text).with_context(|| format!("the handler logged {text:?}"))?;
        Ok(Some(Handled {
            at_us: line["at_us"].as_u64().context("a line without a time")?,
            host,
            partition: line["partition"]
                .as_u64()
                .context("a log line without a partition")?,
            id: line["id"]
                .as_str()
                .context("a log line without an id")?
                .parse()?,
            logged,
        }))
    }
}

impl Logged {
    /// `lines=N bytes=B` of v1, `lines=N unsafe=M bytes=B` of v2, and nothing else.
    fn parse(text: &str) -> Option<Logged> {
        let mut words = text.split(' ');
        let mut word = |name: &str| words.next()?.strip_prefix(name)?.parse::<u64>().ok();
        let lines = word("lines=")?;
        let (unsafes, bytes) = match text.contains(" unsafe=") {
            true => (Some(word("unsafe=")?), word("bytes=")?),
            false => (None, word("bytes=")?),
        };
        words.next().is_none().then_some(Logged {
            lines,
            unsafes,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_both_versions_are_read_and_what_counts_nothing_is_told() {
        let line = |text: &str| json!({"at_us": 9, "partition": 3, "id": "5-1", "text": text});
        let parse = |text: &str| Handled::parse(1, &line(text));
        let expected = |unsafes| Handled {
            at_us: 9,
            host: 1,
            partition: 3,
            id: Id(5, 1),
            logged: Logged {
                lines: 1,
                unsafes,
                bytes: 3,
            },
        };
        let found = parse("lines=1 unsafe=2 bytes=3").unwrap();
        assert_eq!(found, Some(expected(Some(2))));
        assert_eq!(parse("lines=1 bytes=3").unwrap(), Some(expected(None)));
        assert_eq!(parse("thread '<unnamed>' panicked").unwrap(), None);
        for odd in [
            "lines=1",
            "lines=1 bytes=3 more",
            "lines=x bytes=3",
            "lines=1 unsafe= bytes=3",
        ] {
            assert!(parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn ids_sort_as_numbers() {
        let id = |text: &str| text.parse::<Id>().unwrap();
        assert!(id("9-9") < id("10-0") && id("5-2") < id("5-10"));
        assert!("5".parse::<Id>().is_err());
    }
}
