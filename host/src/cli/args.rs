//! What can be typed. Values are validated here, so that commands get names and numbers that are legal.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use segmenter_core::limits;
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, HandlerName, MemberId, Namespace, StreamName};
use segmenter_core::rollout::Share;

use super::new::{Lang, ProjectName};
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
    /// Handlers: inspect and test files; deploy, list, history, rollback of versions in this Redis
    #[command(subcommand)]
    Handler(HandlerCommand),
    /// Messages that were given up: list, show, redrive, purge
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Makes a project for a handler: source, samples with expectations, configuration, README
    New(NewArgs),
    /// Looks whether this Redis is fit: version, permissions, eviction, persistence, replicas, memory, latency
    Doctor,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Registers a stream; only --retain can be changed afterwards
    Create(CreateArgs),
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
pub(crate) struct NewArgs {
    /// Where; it must be empty or not there
    pub(crate) dir: PathBuf,
    /// What the handler is written in
    #[arg(
        long,
        value_enum,
        value_name = "rust|c|zig|js|python",
        hide_possible_values = true
    )]
    pub(crate) lang: Lang,
    /// What it is called [default: like its folder]
    #[arg(long, value_name = "NAME", value_parser = ProjectName::new)]
    pub(crate) name: Option<ProjectName>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    pub(crate) name: StreamName,
    /// 1 to 4,096; the messages of one key stay in one partition
    #[arg(long, value_name = "N", required_unless_present = "source_key")]
    pub(crate) partitions: Option<u32>,
    /// Entries per partition; a full one refuses
    #[arg(long, value_name = "N", required_unless_present = "source_key")]
    pub(crate) capacity: Option<u64>,
    /// Acked entries kept per partition for replay, while there is room: 0 to the capacity
    #[arg(long, value_name = "N")]
    pub(crate) retain: Option<u64>,
    /// The largest payload, 1B to 64MiB [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) payload_max: Option<usize>,
    /// A plain Redis stream that other programs write, bound as it is, instead of entries of its own
    #[arg(
        long,
        value_name = "REDIS_KEY",
        requires_all = ["key_field", "payload_field"],
        conflicts_with_all = ["partitions", "capacity", "retain"]
    )]
    pub(crate) source_key: Option<String>,
    /// The field of its entries that is a message's key
    #[arg(long, value_name = "FIELD", requires = "source_key")]
    pub(crate) key_field: Option<String>,
    /// The field of its entries that is a message's payload
    #[arg(long, value_name = "FIELD", requires = "source_key")]
    pub(crate) payload_field: Option<String>,
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
    /// Bytes of messages that it may hold that are read and not yet let go, over all partitions, such as
    /// 256MiB
    #[arg(long, value_name = "SIZE", env = "SEGMENTER_READ_AHEAD", value_parser = crate::config::read_ahead)]
    pub(crate) read_ahead: Option<usize>,
    /// Writes a WebAssembly core dump of each trap into this folder, at most 10 in a run
    #[arg(long, value_name = "DIR")]
    pub(crate) coredump: Option<PathBuf>,
    /// Tells each call: its message, what it came to, what it emitted and changed
    #[arg(long)]
    pub(crate) calls: bool,
    /// A module file that changes is current at once, without a trial against the version before
    #[arg(long)]
    pub(crate) now: bool,
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

#[derive(Debug, Subcommand)]
pub(crate) enum HandlerCommand {
    /// What a file is: kind, imports with the grants that they need, exports, size, digest, who made it
    ///
    /// Exit status 1 if it is no handler: what can be said is said all the same. With --format json one
    /// object {"file", "kind" or null, "error" or null, "size", "digest", "languages", "processed_by" and
    /// "sdks": [{"name", "version"}], "compile_ms", "exports", "imports": [{"import", "grant", "flag",
    /// "missing"}], "grants": [line]}.
    Inspect { file: PathBuf },
    /// Messages through a handler, without Redis, held against what is expected of them
    ///
    /// A line of the messages is one that `send --jsonl` takes and may have "expect": {"outcome": "ok",
    /// "retry", "reject", "trap", "deadline", "memory", "instantiate" or "answer", "reason": a text that must occur in
    /// it, "after_ms", "emitted": [{"to", "key", "payload" or "payload_base64", "attributes": {NAME: TEXT or
    /// null}}], "state": {NAME: TEXT, {"base64"} or null, as it is after the message}}. What is not named is
    /// not compared, but whoever names no outcome expects ok.
    ///
    /// All of them go through one partition, 0 of 1, in order, each once, as attempt 1: a retry is an
    /// outcome. The handler's clock begins at 2026-01-01T00:00:00Z and is a second later at each message;
    /// random numbers come from --seed and the message. So a run twice gives the same bytes; requests over
    /// HTTP alone are real.
    ///
    /// Exit status 0 if all are as expected; 1 if one is not, or differs from --against; 2 if nothing could
    /// be tested: wrong arguments, a wrong line, a component that cannot run. With --format json one object
    /// a message: {"line", "key", "result": "as_expected", "unchecked" or "otherwise", "outcome", "reason",
    /// "after_ms", "emitted", "state": what it changed, "differences": [{"what", "expected", "actual"}],
    /// "log": [{"level", "text"}]} and, with --against, "against": {"outcome", "difference"}.
    Test(TestArgs),
    /// Makes a module the next version of a handler: hosts with module = "deployed" follow
    ///
    /// It is checked here, stored by its sha256, and on trial in all partitions for 5 s: what it does not
    /// ack is asked of the version before, and if that acks more of it, the new one is rolled back by itself
    /// and marked bad. A handler's first version is current at once.
    ///
    /// With --format json: {"handler", "version", "result": "current", "trial", "shadow" or "unchanged",
    /// "revision"}, and with --wait a second object {"handler", "version", "outcome": "running",
    /// "shadow_ended", "rolled_back", "refused", "replaced", "timeout" or "interrupted", "reason"}.
    Deploy(DeployArgs),
    /// Handlers that were deployed: what is wanted, and what each host and partition runs
    ///
    /// With --format json, one object a handler: {"handler", "revision", "current", "candidate": {"version",
    /// "mode": "trial" or "shadow", "share_percent", "left_ms", "by"} or null, "past": [version], "bad":
    /// [{"version", "at_ms", "reason"}], "hosts": [{"host", "stream", "group", "age_ms", "revision" (0: it
    /// runs a file),
    /// "current", "refused", "candidate": "none", "loading", "loaded" or "refused", "candidate_refused",
    /// "live_versions", "candidate_calls" and "current_calls": {"calls", "failed", "overruled", "micros"},
    /// "differences": {"same", "outcome", "emitted", "state", "example"}, "partitions": [{"partition",
    /// "version"}]}]}.
    List {
        /// Only these [default: all of the namespace]
        name: Vec<HandlerName>,
    },
    /// What was done to a handler's versions, when and by whom; the last 1,000 changes
    ///
    /// With --format json, one object a change: {"at_ms", "change": "deployed", "trial", "shadow",
    /// "promoted", "rolled_back" or "shadow_ended", "version", "from", "current", "revision", "by", "reason"}.
    History { name: HandlerName },
    /// Goes back at once: from a version on trial to the current one, else to the one before
    Rollback {
        name: HandlerName,
        /// To this version instead: its sha256, or the first 6 digits of it or more
        #[arg(long, value_name = "DIGEST", value_parser = digest)]
        to: Option<String>,
        /// Marks the version that is left as bad: it is not deployed again without --again
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// A component [default: the module of the handler in --config]
    #[arg(value_name = "FILE.wasm")]
    pub(crate) file: Option<PathBuf>,
    /// Messages with what is expected of them, one a line; - reads stdin
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) messages: PathBuf,
    /// The state before the first message: {NAME: TEXT or {"base64"}} [default: none]
    #[arg(long, value_name = "FILE.json")]
    pub(crate) state: Option<PathBuf>,
    /// Another version: it sees each message just before, from the same state, as a shadow does in a host,
    /// and where it does something else that is told
    #[arg(long, value_name = "OTHER.wasm")]
    pub(crate) against: Option<PathBuf>,
    /// Grants, limits and names are those of a handler in this configuration
    #[arg(short, long, value_name = "FILE.toml", conflicts_with = "grant")]
    pub(crate) config: Option<PathBuf>,
    /// Which handler of it [default: the only one]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(crate) handler: Option<HandlerName>,
    /// What the handler may touch: state, emit=STREAM, http=https://HOST; may be repeated
    #[arg(long, value_name = "GRANT")]
    pub(crate) grant: Vec<String>,
    /// Of the random numbers that the handler draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Writes what it came to as JUnit XML, too
    #[arg(long, value_name = "FILE.xml")]
    pub(crate) junit: Option<PathBuf>,
    /// Shows effects and log of every message, and the state at the end
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    pub(crate) name: HandlerName,
    /// A component: the .wasm file that your toolchain wrote, at most 256 MiB
    pub(crate) file: PathBuf,
    /// On trial in this share of the partitions only, as 25%; needs --for
    #[arg(long, value_name = "P%", value_parser = share, requires = "lasts", conflicts_with_all = ["shadow", "now"])]
    pub(crate) canary: Option<Share>,
    /// Beside the current version on the same messages, its effects thrown away: only what would differ is
    /// told; needs --for
    #[arg(long, requires = "lasts", conflicts_with = "now")]
    pub(crate) shadow: bool,
    /// How long the trial or shadow lasts, up to 168h [default of a trial: 5s]
    #[arg(long = "for", id = "lasts", value_name = "D", value_parser = lasts, conflicts_with = "now")]
    pub(crate) lasts: Option<Duration>,
    /// Current at once, without a trial
    #[arg(long)]
    pub(crate) now: bool,
    /// Although it was rolled back before
    #[arg(long)]
    pub(crate) again: bool,
    /// Until every host that is heard of runs it (exit status 0), or it was rolled back or refused (1)
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait [default: a minute more than the trial lasts]
    #[arg(long, value_name = "D", value_parser = duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    /// Memory that an instance may take in the check here; as the hosts' limits.memory
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory)]
    pub(crate) memory: usize,
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

fn size(text: &str) -> Result<usize, String> {
    units::size(text)
}

fn memory(text: &str) -> Result<usize, String> {
    match units::size(text)? {
        bytes @ 65_536..=4_294_967_296 => Ok(bytes),
        _ => Err(format!("{text:?} is not between 64KiB and 4GiB")),
    }
}

fn lasts(text: &str) -> Result<Duration, String> {
    let lasts = units::duration(text)?;
    if lasts.is_zero() || lasts > limits::TRIAL_MAX {
        return Err(format!("{text:?} is not between 1ms and 168h"));
    }
    Ok(lasts)
}

fn share(text: &str) -> Result<Share, String> {
    let number = text
        .strip_suffix('%')
        .ok_or_else(|| format!("{text:?} is no share; write a percentage such as 25%"))?;
    let percent = number
        .trim_end()
        .parse()
        .map_err(|_| format!("{text:?} does not begin with a whole number"))?;
    Share::percent(percent).map_err(|e| e.to_string())
}

/// Digits that a version begins with.
fn digest(text: &str) -> Result<String, String> {
    let hex = text.chars().all(|c| c.is_ascii_hexdigit());
    match text.len() {
        6..=64 if hex => Ok(text.to_ascii_lowercase()),
        _ => Err(format!(
            "{text:?} is no digest: give the 64 hex digits of a version's sha256, or the first 6 of them or more"
        )),
    }
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
    fn a_share_has_a_percent_sign_and_a_digest_has_hex_digits() {
        assert_eq!(share("25%").unwrap().as_percent(), 25);
        for text in ["25", "0%", "101%", "-1%", "2.5%", "%", ""] {
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!(digest("0A1b2c").as_deref(), Ok("0a1b2c"));
        for text in ["0a1b2", "0a1b2g", "", &"0".repeat(65)] {
            assert!(digest(text).unwrap_err().contains("digest"), "{text}");
        }
        assert!(lasts("168h").is_ok());
        for text in ["0s", "169h", "5"] {
            assert!(lasts(text).is_err(), "{text}");
        }
        for text in ["63KiB", "5GiB", "1"] {
            assert!(memory(text).is_err(), "{text}");
        }
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
