//! What the host says while it runs: one line an event on stderr, an object under `--format json`, a
//! sentence for people. It must not decide anything.

use std::io::Write;

use segmenter_core::message::EntryId;
use segmenter_core::names::HandlerName;
use segmenter_wasm::{GuestLine, LogSink};
use serde::Serialize;

use super::clock;
use crate::output::{Format, preview};

/// Everything that a running host reports. Fields are what machines get.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// About to do something that may take a moment.
    Starting {
        handler: &'a str,
        stream: String,
        group: &'a str,
        version: &'a str,
    },
    Registered {
        stream: String,
        partitions: u32,
        /// `None`: others write it, and nothing of ours bounds it.
        capacity: Option<u64>,
        existed: bool,
    },
    /// A member of a generation, with these partitions; without any it stands by.
    Assigned {
        handler: &'a str,
        generation: u64,
        members: u32,
        count: usize,
        partitions: String,
    },
    /// An assignment that this member computed is in force.
    Rebalanced {
        handler: &'a str,
        generation: u64,
        why: &'a str,
        moves: usize,
        plan: String,
    },
    /// Expelled, or the group is new: joining again.
    Outside {
        handler: &'a str,
    },
    PartitionLost {
        handler: &'a str,
        partition: u32,
        why: &'a str,
    },
    PartitionBroken {
        handler: &'a str,
        partition: u32,
        why: &'a str,
    },
    /// It holds nothing and reads nothing until an operator resumes it.
    PartitionHalted {
        handler: &'a str,
        partition: u32,
        reason: &'a str,
    },
    PartitionResumed {
        handler: &'a str,
        partition: u32,
    },
    EntriesVanished {
        handler: &'a str,
        partition: u32,
        entries: u64,
    },
    HandlerFailed {
        handler: &'a str,
        partition: u32,
        #[serde(serialize_with = "as_text")]
        id: EntryId,
        attempt: u32,
        outcome: &'a str,
        reason: &'a str,
    },
    RedisAway {
        why: &'a str,
    },
    RedisBack,
    /// Redis was started again without its data.
    DatabaseLost {
        handler: &'a str,
        what: String,
    },
    Draining {
        signal: &'a str,
    },
    DrainCut {
        handler: &'a str,
        partitions: usize,
    },
    Left {
        handler: &'a str,
    },
    /// It ended, and not because it was told to.
    Ended {
        handler: &'a str,
        why: &'a str,
    },
    Warning {
        text: &'a str,
    },
}

fn as_text<S: serde::Serializer>(id: &EntryId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl Event<'_> {
    fn sentence(&self) -> String {
        match self {
            Event::Starting {
                handler,
                stream,
                group,
                version,
            } => format!(
                "{handler}: module {} for stream {stream}, group {group}",
                &version[..version.len().min(12)]
            ),
            Event::Registered {
                stream,
                partitions,
                capacity,
                existed,
            } => {
                let shape = match capacity {
                    Some(capacity) => format!("{partitions} partitions of {capacity} entries"),
                    None => "bound to a stream that others write".to_owned(),
                };
                let new = if *existed { "" } else { ", created" };
                format!("stream {stream}: {shape}{new}")
            }
            Event::Assigned {
                handler,
                generation,
                members,
                count,
                partitions,
            } => {
                let of = format!("generation {generation}, {members} members");
                match count {
                    0 => format!("{handler}: standing by ({of})"),
                    1 => format!("{handler}: has partition {partitions} ({of})"),
                    _ => format!("{handler}: has {count} partitions, {partitions} ({of})"),
                }
            }
            Event::Rebalanced {
                handler,
                generation,
                why,
                plan,
                ..
            } => {
                format!("{handler}: rebalanced for generation {generation}, because {why}: {plan}")
            }
            Event::Outside { handler } => {
                format!("{handler}: not a member any more; joining again")
            }
            Event::PartitionLost {
                handler,
                partition,
                why,
            } => {
                format!("{handler}: partition {partition} lost: {why}")
            }
            Event::PartitionBroken {
                handler,
                partition,
                why,
            } => {
                format!("{handler}: partition {partition} stands still: {why}")
            }
            Event::PartitionHalted {
                handler,
                partition,
                reason,
            } => {
                format!("{handler}: partition {partition} is halted: {reason}")
            }
            Event::PartitionResumed { handler, partition } => {
                format!("{handler}: partition {partition} goes on")
            }
            Event::EntriesVanished {
                handler,
                partition,
                entries,
            } => format!(
                "{handler}: partition {partition}: {entries} entries were trimmed or deleted by others before they were handled"
            ),
            Event::HandlerFailed {
                handler,
                partition,
                id,
                attempt,
                outcome,
                reason,
            } => format!(
                "{handler}: partition {partition} message {id} attempt {attempt}: {outcome}: {reason}"
            ),
            Event::RedisAway { why } => format!("Redis is away: {why}; trying again"),
            Event::RedisBack => "Redis is back".to_owned(),
            Event::DatabaseLost { handler, what } => format!(
                "{handler}: DATA LOST: Redis was started again without {what}; whatever it held is gone. Registering it anew, from the beginning"
            ),
            Event::Draining { signal } => {
                format!("{signal}: draining; a second signal ends at once")
            }
            Event::DrainCut {
                handler,
                partitions,
            } => format!(
                "{handler}: the drain timeout is near; calls in {partitions} partitions are cancelled"
            ),
            Event::Left { handler } => format!("{handler}: left the group"),
            Event::Ended { handler, why } => format!("error: {handler}: {why}"),
            Event::Warning { text } => (*text).to_owned(),
        }
    }
}

/// Writes a line to stderr in one call, so that lines of several threads never mix. What stderr does
/// not take is lost: a log must not stop the work.
fn write(mut line: Vec<u8>) {
    line.push(b'\n');
    let _ = std::io::stderr().lock().write_all(&line);
}

pub fn say(format: Format, event: &Event<'_>) {
    write(line(format, event));
}

fn line(format: Format, event: &Event<'_>) -> Vec<u8> {
    match format {
        Format::Json => serde_json::to_vec(event).unwrap_or_default(),
        // A reason may hold whatever a guest wrote: it is one line, and cannot steer the terminal.
        Format::Human => preview(&event.sentence(), usize::MAX).into_bytes(),
    }
}

/// Says that this process is a member of all its groups; on stdout, for whoever waits for it.
pub fn say_ready(format: Format, member: &str) {
    let line = match format {
        Format::Json => serde_json::json!({"event": "ready", "member": member}).to_string(),
        Format::Human => format!("ready: member {member}; end with Ctrl-C"),
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The lines that guests write. Each is out before the call that wrote it returns, hence before the
/// commit that acks its message is sent.
pub struct GuestLog {
    format: Format,
    handler: HandlerName,
}

impl GuestLog {
    pub fn new(format: Format, handler: HandlerName) -> GuestLog {
        GuestLog { format, handler }
    }
}

#[derive(Serialize)]
struct GuestObject<'a> {
    event: &'static str,
    at_us: u64,
    handler: &'a str,
    partition: u32,
    id: String,
    attempt: u32,
    level: &'a str,
    text: &'a str,
}

impl LogSink for GuestLog {
    fn line(&self, line: &GuestLine<'_>) {
        let bytes = match self.format {
            Format::Json => serde_json::to_vec(&GuestObject {
                event: "guest_log",
                at_us: clock::now().0,
                handler: self.handler.as_str(),
                partition: line.partition.0,
                id: line.id.to_string(),
                attempt: line.attempt,
                level: line.level.as_str(),
                text: line.text,
            })
            .unwrap_or_default(),
            Format::Human => format!(
                "{} {} {} {}: {}",
                self.handler,
                line.partition,
                line.id,
                line.level.as_str(),
                preview(line.text, usize::MAX)
            )
            .into_bytes(),
        };
        write(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_a_guest_gave_as_its_reason() {
        let event = Event::HandlerFailed {
            handler: "h",
            partition: 0,
            id: EntryId::ZERO,
            attempt: 1,
            outcome: "trap",
            reason: "unreachable; stderr: one\ntwo\u{1b}[2J",
        };
        let human = String::from_utf8(line(Format::Human, &event)).unwrap();
        assert!(human.ends_with("stderr: one⏎two\u{fffd}[2J"), "{human}");
        let json: serde_json::Value = serde_json::from_slice(&line(Format::Json, &event)).unwrap();
        assert_eq!(json["reason"], "unreachable; stderr: one\ntwo\u{1b}[2J");
    }
}
