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
        /// Of a batch that broke: so many, of whom this is the first, and nobody knows which it was.
        #[serde(skip_serializing_if = "is_one")]
        messages: usize,
        #[serde(serialize_with = "shortened")]
        key: &'a str,
        version: &'a str,
        outcome: &'a str,
        reason: &'a str,
        /// A line a function of the guest, innermost first.
        #[serde(skip_serializing_if = "Option::is_none")]
        backtrace: Option<&'a str>,
        /// Where it lies, or why there is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        core_dump: Option<&'a str>,
    },
    /// A call has used half of its deadline.
    HandlerSlow {
        handler: &'a str,
        partition: u32,
        #[serde(serialize_with = "as_text")]
        id: EntryId,
        attempt: u32,
        /// Of the call, whose first message this is.
        #[serde(skip_serializing_if = "is_one")]
        messages: usize,
        #[serde(serialize_with = "shortened")]
        key: &'a str,
        elapsed_ms: u64,
        deadline_ms: u64,
    },
    /// From the next message on, another version handles.
    VersionLive {
        handler: &'a str,
        version: &'a str,
        before: &'a str,
        /// Percent of the partitions that it is on trial in; none: it is the current version.
        #[serde(skip_serializing_if = "Option::is_none")]
        trial: Option<u8>,
    },
    /// The same version handles under changed settings.
    SettingsLive {
        handler: &'a str,
        version: &'a str,
    },
    /// It cannot run here; what ran goes on running.
    VersionRefused {
        handler: &'a str,
        version: &'a str,
        why: &'a str,
    },
    /// It could not be had, and is tried again; what ran goes on running.
    VersionAway {
        handler: &'a str,
        version: &'a str,
        why: &'a str,
    },
    VersionPromoted {
        handler: &'a str,
        version: &'a str,
    },
    VersionRolledBack {
        handler: &'a str,
        version: &'a str,
        to: &'a str,
        reason: &'a str,
    },
    /// From the next message on, a version sees what the live one sees, and its effects are thrown away.
    ShadowBegun {
        handler: &'a str,
        version: &'a str,
        live: &'a str,
    },
    /// It broke too often: in this partition, nothing is compared any more.
    ShadowStopped {
        handler: &'a str,
        partition: u32,
        version: &'a str,
        why: &'a str,
    },
    /// What it came to on this host.
    ShadowEnded {
        handler: &'a str,
        version: &'a str,
        found: String,
    },
    /// Where the module comes from is in no order; what runs goes on running.
    ModuleTrouble {
        handler: &'a str,
        why: &'a str,
    },
    /// The next message waits, without using an attempt, until emitted ones are at their targets.
    OutboxFull {
        handler: &'a str,
        partition: u32,
        /// The target, or partition of it, that most of them are for.
        waits_for: Option<&'a str>,
    },
    OutboxFree {
        handler: &'a str,
        partition: u32,
    },
    /// Emitted messages wait, and waiting will not mend it.
    RelayTrouble {
        handler: &'a str,
        partition: u32,
        why: &'a str,
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

/// Enough of a version to tell it from others.
fn brief(version: &str) -> &str {
    &version[..version.len().min(12)]
}

fn is_one(messages: &usize) -> bool {
    *messages == 1
}

/// How many messages a call had, unless it was one.
fn batch(messages: usize) -> String {
    match messages {
        1 => String::new(),
        _ => format!(", first of a batch of {messages}"),
    }
}

fn as_text<S: serde::Serializer>(id: &EntryId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// Characters of a key in an event: it may be 64 KiB long, and tells messages apart long before.
const KEY_CHARS: usize = 128;

fn short(key: &str) -> String {
    match key.char_indices().nth(KEY_CHARS) {
        None => key.to_owned(),
        Some((end, _)) => format!("{}…", &key[..end]),
    }
}

fn shortened<S: serde::Serializer>(key: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&short(key))
}

impl Event<'_> {
    /// Lines below the sentence, for people.
    fn more(&self) -> String {
        let Event::HandlerFailed {
            backtrace,
            core_dump,
            ..
        } = self
        else {
            return String::new();
        };
        let mut more = backtrace.unwrap_or_default().to_owned();
        if let Some(core_dump) = core_dump {
            more = format!("{more}\ncore dump: {core_dump}");
        }
        more
    }

    fn sentence(&self) -> String {
        match self {
            Event::Starting {
                handler,
                stream,
                group,
                version,
            } => format!(
                "{handler}: module {} for stream {stream}, group {group}",
                brief(version)
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
            Event::VersionLive {
                handler,
                version,
                before,
                trial,
            } => {
                let (version, before) = (brief(version), brief(before));
                match trial {
                    Some(100) => {
                        format!("{handler}: version {version} handles, on trial against {before}")
                    }
                    Some(percent) => format!(
                        "{handler}: version {version} handles in {percent} % of the partitions, on trial against {before}"
                    ),
                    None => format!("{handler}: version {version} handles, before it {before}"),
                }
            }
            Event::SettingsLive { handler, version } => format!(
                "{handler}: version {} handles under the changed settings",
                brief(version)
            ),
            Event::VersionRefused {
                handler,
                version,
                why,
            } => format!(
                "{handler}: version {} is refused, what ran goes on: {why}",
                brief(version)
            ),
            Event::VersionAway {
                handler,
                version,
                why,
            } => format!(
                "{handler}: version {} could not be had, what ran goes on, it is tried again: {why}",
                brief(version)
            ),
            Event::VersionPromoted { handler, version } => {
                format!("{handler}: version {} is promoted", brief(version))
            }
            Event::VersionRolledBack {
                handler,
                version,
                to,
                reason,
            } => format!(
                "{handler}: version {} is rolled back to {}: {reason}",
                brief(version),
                brief(to)
            ),
            Event::ShadowBegun {
                handler,
                version,
                live,
            } => format!(
                "{handler}: version {} sees what {} handles, as a shadow; its effects are thrown away",
                brief(version),
                brief(live)
            ),
            Event::ShadowStopped {
                handler,
                partition,
                version,
                why,
            } => format!(
                "{handler}: partition {partition}: the shadow {} broke too often and is not called there any more, at last: {why}",
                brief(version)
            ),
            Event::ShadowEnded {
                handler,
                version,
                found,
            } => format!(
                "{handler}: the shadow {} ended; on this host: {found}",
                brief(version)
            ),
            Event::ModuleTrouble { handler, why } => {
                format!("{handler}: what runs goes on: {why}")
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
                messages,
                key,
                version,
                outcome,
                reason,
                ..
            } => format!(
                "{handler}: partition {partition} message {id} key {:?} attempt {attempt}{} version {}: {outcome}: {reason}{}",
                short(key),
                batch(*messages),
                brief(version),
                if *messages > 1 {
                    "; each of them is called alone now"
                } else {
                    ""
                },
            ),
            Event::HandlerSlow {
                handler,
                partition,
                id,
                attempt,
                messages,
                key,
                elapsed_ms,
                deadline_ms,
            } => format!(
                "{handler}: partition {partition} message {id} key {:?} attempt {attempt}{}: slow: {elapsed_ms} ms so far, of a deadline of {deadline_ms} ms",
                short(key),
                batch(*messages),
            ),
            Event::OutboxFull {
                handler,
                partition,
                waits_for,
            } => format!(
                "{handler}: partition {partition}: the outbox is full, so the next message waits; most of it is for {}",
                waits_for.unwrap_or("targets that have it already")
            ),
            Event::OutboxFree { handler, partition } => {
                format!("{handler}: partition {partition}: the outbox has room again")
            }
            Event::RelayTrouble {
                handler,
                partition,
                why,
            } => format!(
                "{handler}: partition {partition}: emitted messages wait, and are tried again: {why}"
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
        Format::Human => {
            let mut text = preview(&event.sentence(), usize::MAX);
            for more in event.more().lines() {
                text.push_str("\n    ");
                text.push_str(&preview(more, usize::MAX));
            }
            text.into_bytes()
        }
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
    /// Not the live version's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shadow: bool,
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
                shadow: line.shadow,
            })
            .unwrap_or_default(),
            Format::Human => format!(
                "{} {} {} {}{}: {}",
                self.handler,
                line.partition,
                line.id,
                line.level.as_str(),
                if line.shadow { " (shadow)" } else { "" },
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
    fn an_event_cannot_steer_the_terminal_whatever_a_guest_gave_as_its_reason() {
        let event = Event::HandlerFailed {
            handler: "h",
            partition: 0,
            id: EntryId::ZERO,
            attempt: 1,
            messages: 1,
            key: &"k\u{1b}[2J".repeat(50),
            version: "0123456789abcdef",
            outcome: "trap",
            reason: "unreachable; stderr: one\ntwo\u{1b}[2J",
            backtrace: Some("  0: guest!boom\n  1: guest!\u{1b}[2Jhandle"),
            core_dump: None,
        };
        let human = String::from_utf8(line(Format::Human, &event)).unwrap();
        assert!(!human.contains('\u{1b}'), "{human}");
        let lines: Vec<_> = human.lines().collect();
        assert_eq!(lines.len(), 3, "{human}");
        assert!(lines[0].ends_with("stderr: one⏎two\u{fffd}[2J"), "{human}");
        assert_eq!(lines[2], "      1: guest!\u{fffd}[2Jhandle");
        let json: serde_json::Value = serde_json::from_slice(&line(Format::Json, &event)).unwrap();
        assert_eq!(json["key"].as_str().unwrap().chars().count(), KEY_CHARS + 1);
        assert_eq!(json["version"], "0123456789abcdef");
        assert_eq!(json["reason"], "unreachable; stderr: one\ntwo\u{1b}[2J");
    }
}
