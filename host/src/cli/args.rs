//! What can be typed. Values are validated here, so that commands get names and numbers that are legal.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, MemberId, Namespace, StreamName};

use super::numbers::Numbering;
use super::time;
use crate::config::units;
use crate::output::Format;

/// Ordered, scalable message handling on Redis, with handlers in WebAssembly.
#[derive(Debug, Parser)]
#[command(name = "segmenter", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The environment is not clap's to read: its usage lines would call a variable that is set a required
/// flag, and nobody could tell afterwards where a value came from.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// redis://[USER:PASSWORD@]HOST:PORT, rediss://… for TLS, or redis+unix:///PATH
    /// [env: SEGMENTER_REDIS] [default: redis://127.0.0.1:6379]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// A file whose text is the Redis password; wins over one in the URL [env: SEGMENTER_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Keeps your streams apart from others in the same Redis
    /// [env: SEGMENTER_NAMESPACE] [default: default]
    #[arg(long, global = true, value_name = "NS")]
    pub(crate) namespace: Option<Namespace>,
    /// How answers and logs look: human, or json with one object a line
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Streams: create, list, describe, delete
    #[command(subcommand)]
    Stream(StreamCommand),
    /// Appends messages
    Send(SendArgs),
    /// Shows messages as they arrive
    Tail(TailArgs),
    /// Runs handlers: the host
    Run(RunArgs),
    /// Groups: list, describe, seek, pause, resume, delete
    #[command(subcommand)]
    Group(GroupCommand),
    /// Messages that were given up: list, show, redrive, purge
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Looks whether this Redis is fit: version, permissions, eviction, persistence, replicas, memory, latency
    Doctor,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Registers a stream; partitions and capacity never change afterwards
    Create {
        name: StreamName,
        /// 1 to 4,096; the messages of one key stay in one partition
        #[arg(long, value_name = "N")]
        partitions: u32,
        /// Entries per partition; a full one refuses
        #[arg(long, value_name = "N")]
        capacity: u64,
        /// Acked entries kept per partition for replay, while there is room: 0 to the capacity
        #[arg(long, value_name = "N")]
        retain: Option<u64>,
    },
    /// Streams of the namespace
    List,
    /// Partitions with their entries and groups
    Describe { name: StreamName },
    /// Deletes a stream with everything in it; refused while members live
    Delete {
        name: StreamName,
        /// Also while members live: they are told, and exit
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// It must exist
    pub(crate) stream: StreamName,
    /// Messages of one key are handled in order
    #[arg(
        long,
        value_name = "K",
        required_unless_present = "jsonl",
        conflicts_with = "jsonl",
        allow_negative_numbers = true
    )]
    pub(crate) key: Option<OsString>,
    /// NAME=VALUE, may be repeated
    #[arg(long, value_name = "A=B", conflicts_with = "jsonl")]
    pub(crate) attr: Vec<String>,
    /// The text to send; - reads it from stdin, bytes as they are
    #[arg(
        required_unless_present = "jsonl",
        conflicts_with = "jsonl",
        allow_negative_numbers = true
    )]
    pub(crate) payload: Option<OsString>,
    /// A file, or - for stdin; a line is {"key", "payload" or "payload_base64", "attributes": {}}
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Numbers what is sent, so that sending it again does not double it
    ///
    /// With --jsonl the number is that of line 1, and each line has one more than the line before; without a
    /// number each line has its own, {"id": 17, "key", …}. The numbers of a producer must rise: a partition
    /// remembers its last one, and what is not above that is there already. So every producer that sends
    /// messages of its own needs a name of its own, which it keeps. What was interrupted is sent again as a
    /// whole, with the same numbers.
    #[arg(long, value_name = "PRODUCER:NUMBER")]
    pub(crate) id: Option<Numbering>,
    /// How long to wait for a full partition, or for a Redis that is away, before giving up
    #[arg(long, value_name = "D", default_value = "30s", value_parser = duration)]
    pub(crate) full_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    pub(crate) stream: StreamName,
    /// An entry id, or "start"; without it only what comes from now on
    #[arg(long, value_name = "ID|start", value_parser = from, conflicts_with = "group")]
    pub(crate) from: Option<EntryId>,
    /// From where this group has acked through
    #[arg(long, value_name = "G")]
    pub(crate) group: Option<GroupName>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A handler without a configuration file; needs --stream and --group
    #[arg(value_name = "HANDLER.wasm")]
    pub(crate) module: Option<PathBuf>,
    /// [default: segmenter.toml, without HANDLER.wasm]
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["module", "stream", "group", "from", "grant"])]
    pub(crate) config: Option<PathBuf>,
    /// What the handler reads; it must exist
    #[arg(long, value_name = "S", requires = "module")]
    pub(crate) stream: Option<StreamName>,
    /// The group that remembers how far the handler is
    #[arg(long, value_name = "G", requires = "module")]
    pub(crate) group: Option<GroupName>,
    /// Where a group begins that does not exist yet
    #[arg(long, value_enum, default_value_t, requires = "module")]
    pub(crate) from: From,
    /// A member id that survives restarts; without it every start is a member of its own
    #[arg(long, value_name = "ID")]
    pub(crate) member: Option<MemberId>,
    /// What the handler may touch: state, emit=STREAM, http=https://HOST; may be repeated
    #[arg(long, value_name = "GRANT", requires = "module")]
    pub(crate) grant: Vec<String>,
    /// Writes a WebAssembly core dump of each trap into this folder, at most 10 in a run
    #[arg(long, value_name = "DIR")]
    pub(crate) coredump: Option<PathBuf>,
    /// Validates configuration, modules and grants, and ends
    #[arg(long)]
    pub(crate) check: bool,
    /// Waits for Redis for ever instead of 10 s
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum From {
    #[default]
    Beginning,
    End,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Groups of a stream
    List { stream: StreamName },
    /// Members, and who owns which partition and how far it is
    Describe {
        stream: StreamName,
        group: GroupName,
    },
    /// Moves how far a group is, also while members run
    ///
    /// Backward, messages are handled again from there, in order, as far as the log still holds them.
    /// Forward, what is skipped counts as acked: trimming may take it.
    Seek {
        stream: StreamName,
        group: GroupName,
        /// The first message to handle next: start, end, an entry id, a moment as 2026-11-24T22:00:00Z
        /// (RFC 3339), or a time ago as 2h (ms, s, m, h)
        #[arg(long, value_name = "start|end|ID|TIME", value_parser = to)]
        to: To,
        /// Only this one [default: all]
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
    },
    /// Halts partitions: messages arrive and wait, nothing is handled until resume
    Pause {
        stream: StreamName,
        group: GroupName,
        /// Only this one [default: all]
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
    },
    /// Ends a halt
    Resume {
        stream: StreamName,
        group: GroupName,
        /// Only this one [default: all]
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
        /// The next message of every partition that is halted becomes a dead letter; what follows goes on
        #[arg(long)]
        skip: bool,
    },
    /// Deletes a group with its dead letters; refused while members live
    ///
    /// Messages that only this group had not acked may be trimmed.
    Delete {
        stream: StreamName,
        group: GroupName,
        /// Also while members live: they are told, and exit
        #[arg(long)]
        force: bool,
    },
}

/// Where a group shall go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Start,
    End,
    Id(EntryId),
    /// Milliseconds since 1970.
    At(u64),
    Ago(Duration),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// Dead letters without their messages
    List {
        stream: StreamName,
        group: GroupName,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
    },
    /// Dead letters whole, by their entry ids in the log
    Show {
        stream: StreamName,
        group: GroupName,
        #[arg(required = true)]
        id: Vec<EntryId>,
    },
    /// Appends dead letters again, at the end of their stream, where only their group handles them
    ///
    /// Interrupted anywhere, nothing is lost and nothing doubled: call it again.
    Redrive {
        stream: StreamName,
        group: GroupName,
        #[command(flatten)]
        which: Letters,
        /// To this stream instead, where every group handles them
        #[arg(long, value_name = "STREAM")]
        to: Option<StreamName>,
        /// How long to wait for a full partition before giving up
        #[arg(long, value_name = "D", default_value = "30s", value_parser = duration)]
        full_timeout: Duration,
    },
    /// Deletes dead letters for good
    Purge {
        stream: StreamName,
        group: GroupName,
        #[command(flatten)]
        which: Letters,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Letters {
    /// Their entry ids in the log
    pub(crate) id: Vec<EntryId>,
    /// Those of this key
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub(crate) key: Option<String>,
    /// Those whose reason contains this text
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    pub(crate) reason: Option<String>,
    /// Those that died before that time, as 2h (ms, s, m, h)
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
    /// All of the group
    #[arg(long)]
    pub(crate) all: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text)
}

fn to(text: &str) -> Result<To, String> {
    match text {
        "start" => return Ok(To::Start),
        "end" => return Ok(To::End),
        _ => {}
    }
    if let Ok(id) = text.parse() {
        return Ok(To::Id(id));
    }
    if let Ok(ago) = units::duration(text) {
        return Ok(To::Ago(ago));
    }
    time::parse(text).map(To::At).map_err(|_| {
        format!("{text:?} is neither start nor end, no entry id (1526919030474-55), no moment (2026-11-24T22:00:00Z) and no time ago (2h)")
    })
}

fn from(text: &str) -> Result<EntryId, String> {
    if text == "start" {
        return Ok(EntryId::ZERO);
    }
    text.parse().map_err(|e| format!("{e}, or \"start\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_position_is_a_word_an_id_a_moment_or_a_time_ago() {
        let id = |ms, seq| To::Id(EntryId { ms, seq });
        for (text, expected) in [
            ("start", To::Start),
            ("end", To::End),
            ("17-4", id(17, 4)),
            ("17", id(17, 0)),
            ("1970-01-01T00:00:01Z", To::At(1_000)),
            ("2h", To::Ago(Duration::from_secs(7_200))),
        ] {
            assert_eq!(to(text), Ok(expected), "{text}");
        }
        for text in ["", "middle", "2d", "-5", "2026-11-24", "1-2-3"] {
            assert!(to(text).unwrap_err().contains("neither"), "{text}");
        }
    }
}
