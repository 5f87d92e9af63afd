//! What handlers did: the guest's line of each call, parsed and kept small. It must not judge.

use std::borrow::Cow;
use std::fmt;

use segmenter_core::message::EntryId;
use serde::Deserialize;

/// One call that a handler finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handled {
    pub(super) at_us: u64,
    /// Which process: its number in the fleet.
    pub(super) life: u32,
    pub(super) partition: u32,
    pub(super) id: EntryId,
    pub(super) what: What,
    /// That the handler gave it among the messages of its key.
    pub(super) number: u64,
}

/// A message as it was emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) what: What,
    pub(super) number: u64,
}

/// A message as its producer numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct What {
    pub(super) key: u32,
    /// Counts per key, from 0.
    pub(super) number: u32,
}

impl fmt::Display for Handled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handled {
            at_us,
            life,
            partition,
            id,
            what,
            number,
        } = self;
        write!(
            f,
            "partition {partition} {id} ({what}) as number {number} by host {life} at {at_us}"
        )
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}:{}", self.key, self.number)
    }
}

impl What {
    pub(super) fn key_text(key: u32) -> String {
        format!("k{key}")
    }

    pub(super) fn of(key: &str, payload: &str) -> Option<What> {
        Some(What {
            key: key.strip_prefix('k')?.parse().ok()?,
            number: payload.parse().ok()?,
        })
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(default)]
    at_us: u64,
    #[serde(default)]
    partition: u32,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

/// `None` for a line that is not a guest's. The guest is `number`, which says `key=K payload=P number=N`.
pub(super) fn parse(line: &str, life: u32) -> Option<Result<Handled, String>> {
    let found: Line<'_> = serde_json::from_str(line).ok()?;
    if found.event != "guest_log" {
        return None;
    }
    let numbered = numbered(&found.text);
    let handled = numbered
        .zip(found.id.parse().ok())
        .map(|(Numbered { what, number }, id)| Handled {
            at_us: found.at_us,
            life,
            partition: found.partition,
            id,
            what,
            number,
        });
    Some(handled.ok_or_else(|| format!("a guest's line that no message explains: {line}")))
}

fn numbered(text: &str) -> Option<Numbered> {
    let (key, rest) = text.strip_prefix("key=")?.split_once(" payload=")?;
    let (payload, number) = rest.split_once(" number=")?;
    Some(Numbered {
        what: What::of(key, payload)?,
        number: number.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_line_is_read_and_others_are_not() {
        let line = r#"{"event":"guest_log","at_us":7,"handler":"h","partition":3,"id":"5-1","attempt":1,"level":"info","text":"key=k12 payload=34 number=35"}"#;
        let expected = Handled {
            at_us: 7,
            life: 2,
            partition: 3,
            id: EntryId { ms: 5, seq: 1 },
            what: What {
                key: 12,
                number: 34,
            },
            number: 35,
        };
        assert_eq!(parse(line, 2), Some(Ok(expected)));
        assert_eq!(parse(r#"{"event":"ready","member":"m"}"#, 2), None);
        assert_eq!(parse("no object", 2), None);
        let odd = line.replace("k12", "x");
        assert!(parse(&odd, 2).unwrap().is_err());
    }
}
