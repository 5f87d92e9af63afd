//! What a measurement stands on: a private server, a stream with a backlog, and the CPU that processes
//! took.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use segmenter_core::names::Shape;
use segmenter_core::partitioner;
use segmenter_tests::server::{Options, Server};

use crate::raw::{Item, Raw, encode};

pub(crate) const PAYLOAD_BYTES: usize = 200;
const FILL_PIPELINE: usize = 512;

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) segmenter: PathBuf,
    pub(crate) guests: PathBuf,
}

impl World {
    pub(crate) fn new() -> anyhow::Result<World> {
        let path = |name: &str| {
            let value = std::env::var_os(name);
            value
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set: run `cargo xtask bench`"))
        };
        Ok(World {
            segmenter: path("SEGMENTER_BIN")?,
            guests: path("SEGMENTER_TEST_GUESTS")?,
            server: Server::start(Options::default()),
        })
    }

    pub(crate) fn raw(&self) -> anyhow::Result<Raw> {
        Raw::connect(self.server.port())
    }

    /// As the user that the host is: what that one may do is looked up at each command.
    pub(crate) fn raw_as_host(&self) -> anyhow::Result<Raw> {
        let url = self.server.url();
        let login = url
            .strip_prefix("redis://")
            .and_then(|rest| rest.split_once('@'))
            .and_then(|(login, _)| login.split_once(':'));
        let (user, password) = login.context("the host has a user of its own")?;
        let mut raw = self.raw()?;
        raw.command(&["AUTH", user, password])?;
        Ok(raw)
    }

    /// An empty server with the stream `bench`.
    pub(crate) fn create(&self, partitions: u32, capacity: usize) -> anyhow::Result<()> {
        self.raw()?.command(&["FLUSHALL"])?;
        self.also("bench", partitions, capacity)
    }

    /// One more stream.
    pub(crate) fn also(
        &self,
        stream: &str,
        partitions: u32,
        capacity: usize,
    ) -> anyhow::Result<()> {
        let status = Command::new(&self.segmenter)
            .args([
                "stream",
                "create",
                stream,
                "--partitions",
                &partitions.to_string(),
            ])
            .args(["--capacity", &capacity.to_string()])
            .env("SEGMENTER_REDIS", self.server.url())
            .stdout(std::process::Stdio::null())
            .status()?;
        if !status.success() {
            bail!("stream create ended with {status}");
        }
        Ok(())
    }

    /// Entries of our shape, written raw; a realistic spread of keys.
    pub(crate) fn fill(&self, partitions: u32, messages: usize) -> anyhow::Result<()> {
        let shape = Shape::new(partitions, 1)?;
        let logs: Vec<String> = (0..partitions).map(log).collect();
        let payload = [b'x'; PAYLOAD_BYTES];
        let mut raw = self.raw()?;
        let mut items = Vec::new();
        let mut out = Vec::new();
        let mut in_air = 0;
        for n in 0..messages {
            let key = key(n);
            let partition = partitioner::partition(&key, shape);
            xadd(&mut out, &logs[partition.0 as usize], &key, &payload);
            in_air += 1;
            if in_air == FILL_PIPELINE || n + 1 == messages {
                raw.send(&out)?;
                out.clear();
                for _ in 0..std::mem::take(&mut in_air) {
                    raw.reply(&mut items)?;
                }
            }
        }
        Ok(())
    }

    /// Entries that the group has behind it, over all partitions, and whether none are left.
    pub(crate) fn acked(
        &self,
        raw: &mut Raw,
        partitions: u32,
        group: &str,
    ) -> anyhow::Result<(u64, bool)> {
        let mut out = Vec::new();
        for p in 0..partitions {
            encode(&mut out, &[b"XINFO", b"GROUPS", log(p).as_bytes()]);
        }
        raw.send(&out)?;
        let (mut read, mut lag, mut seen) = (0, 0, 0);
        let mut items = Vec::new();
        for _ in 0..partitions {
            raw.reply(&mut items)?;
            let mut ours = false;
            for pair in items.windows(2) {
                let name = raw.string(&pair[0]);
                match (name.as_str(), &pair[1]) {
                    ("name", Item::Text(range)) => ours = raw.text(range) == group.as_bytes(),
                    ("entries-read", Item::Int(n)) if ours => {
                        seen += 1;
                        read += u64::try_from(*n)?;
                    }
                    ("lag", Item::Int(n)) if ours => lag += *n,
                    ("lag", Item::Nil) if ours => lag += 1,
                    _ => {}
                }
            }
        }
        Ok((read, seen == partitions && lag == 0))
    }
}

/// How many keys there are.
pub(crate) const KEYS: usize = 10_007;

/// Of the n-th message.
pub(crate) fn key(n: usize) -> String {
    format!("key-{}", n % KEYS)
}

/// One entry of our shape.
pub(crate) fn xadd(out: &mut Vec<u8>, log: &str, key: &str, payload: &[u8]) {
    let (log, key) = (log.as_bytes(), key.as_bytes());
    encode(out, &[b"XADD", log, b"*", b"k", key, b"p", payload]);
}

pub(crate) fn log(partition: u32) -> String {
    format!("seg:{{default/bench/{partition}}}:log")
}

/// Seconds of CPU that the server took so far, by its own account: getrusage, so reading, parsing, scripts
/// and answers are all in it. `INFO commandstats` leaves out what surrounds a command, and /proc counts
/// hundredths of a second.
pub(crate) fn redis_seconds(raw: &mut Raw) -> anyhow::Result<f64> {
    let info = raw.command(&["INFO", "cpu"])?;
    let info = raw.string(&info[0]);
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.trim().parse::<f64>().ok())
            .with_context(|| format!("INFO does not tell {name}"))
    };
    Ok(field("used_cpu_user:")? + field("used_cpu_sys:")?)
}

/// Commits so far: each moves the mirror once, by `XGROUP SETID`.
pub(crate) fn commits(raw: &mut Raw) -> anyhow::Result<f64> {
    let info = raw.command(&["INFO", "commandstats"])?;
    let info = raw.string(&info[0]);
    let moved = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_xgroup|setid:calls="));
    let calls = moved.and_then(|line| line.split(',').next());
    Ok(calls.map_or(Ok(0.0), str::parse)?)
}

/// Seconds of CPU that a process took so far.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // The second field is a name in parentheses and may hold spaces.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    // utime and stime are fields 14 and 15 of the whole line; Linux counts 100 ticks a second.
    Ok((ticks(11) + ticks(12)) / 100.0)
}
