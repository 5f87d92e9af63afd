//! Consuming a backlog: the raw ceiling, and the engine as a process.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::raw::{Item, Raw, encode};
use crate::world::{World, commits, cpu_seconds, log, redis_seconds};

/// Messages of one reply over all partitions, about: where FIGURES has the ceiling's best.
const MESSAGES_A_REPLY: usize = 1_000;
/// Nothing acked for so long: something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    /// Of one core.
    pub(crate) redis_cpu: f64,
    pub(crate) client_us: f64,
    /// Redis' CPU for one message, in µs.
    pub(crate) redis_us: f64,
    /// Messages that one commit acks, on average; of the engine.
    pub(crate) a_commit: Option<f64>,
}

impl Rate {
    /// Messages, and the seconds that passed, that Redis worked and that the client worked.
    pub(crate) fn of(messages: f64, seconds: f64, redis: f64, client: f64) -> Rate {
        Rate {
            per_second: messages / seconds,
            redis_cpu: redis / seconds,
            client_us: client * 1e6 / messages,
            redis_us: redis * 1e6 / messages,
            a_commit: None,
        }
    }
}

/// XREADGROUP and a batched XACK per partition, two reads in the air, so that Redis never waits for us.
pub(crate) fn ceiling(world: &World, partitions: u32, messages: usize) -> anyhow::Result<Rate> {
    let mut raw = world.raw()?;
    let logs: Vec<String> = (0..partitions).map(log).collect();
    for log in &logs {
        raw.command(&["XGROUP", "CREATE", log, "raw", "0"])?;
    }
    let count = (MESSAGES_A_REPLY / partitions as usize).max(1).to_string();
    let mut read = Vec::new();
    let mut args: Vec<&[u8]> = vec![
        b"XREADGROUP",
        b"GROUP",
        b"raw",
        b"c",
        b"COUNT",
        count.as_bytes(),
        b"STREAMS",
    ];
    args.extend(logs.iter().map(|log| log.as_bytes()));
    args.extend(logs.iter().map(|_| &b">"[..]));
    encode(&mut read, &args);
    let mut watch = world.raw()?;
    let (started, redis_before) = (Instant::now(), redis_seconds(&mut watch)?);
    let me_before = cpu_seconds(std::process::id())?;
    raw.send(&read)?;
    raw.send(&read)?;
    let mut items = Vec::new();
    let mut done = 0;
    // Replies to come: how many XACKs before each read's.
    let mut acks_before = std::collections::VecDeque::from([0, 0]);
    let mut out = Vec::new();
    while done < messages {
        for _ in 0..acks_before.pop_front().unwrap_or(0) {
            raw.reply(&mut items)?;
        }
        raw.reply(&mut items)?;
        out.clear();
        let mut acks = 0;
        for (log, ids) in streams(&items) {
            done += ids.len();
            let mut args: Vec<&[u8]> = vec![b"XACK", raw.text(&log), b"raw"];
            args.extend(ids.iter().map(|id| raw.text(id)));
            encode(&mut out, &args);
            acks += 1;
        }
        out.extend_from_slice(&read);
        raw.send(&out)?;
        acks_before.push_back(acks);
    }
    for acks in acks_before {
        for _ in 0..=acks {
            raw.reply(&mut items)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let redis = redis_seconds(&mut watch)? - redis_before;
    let me = cpu_seconds(std::process::id())? - me_before;
    Ok(Rate::of(messages as f64, seconds, redis, me))
}

type Span = std::ops::Range<usize>;

/// Key and ids of each stream in a reply of XREADGROUP.
pub(crate) fn streams(items: &[Item]) -> Vec<(Span, Vec<Span>)> {
    let mut at = 1;
    let mut streams = Vec::new();
    let Some(Item::Array(n)) = items.first() else {
        return streams;
    };
    for _ in 0..*n {
        let (Item::Text(log), Item::Array(entries)) = (&items[at + 1], &items[at + 2]) else {
            break;
        };
        at += 3;
        let mut ids = Vec::with_capacity(*entries);
        for _ in 0..*entries {
            let (Item::Text(id), Item::Array(fields)) = (&items[at + 1], &items[at + 2]) else {
                break;
            };
            ids.push(id.clone());
            at += 3 + fields;
        }
        streams.push((log.clone(), ids));
    }
    streams
}

/// The engine: from the first ack that is seen to the last, so that starting up does not count.
pub(crate) fn engine(
    world: &World,
    partitions: u32,
    messages: usize,
    host: Host,
) -> anyhow::Result<Rate> {
    engine_until(world, partitions, messages, host, |_| Ok(true))
}

/// The same; once all is acked, until `done` says so, too.
pub(crate) fn engine_until(
    world: &World,
    partitions: u32,
    messages: usize,
    mut host: Host,
    mut done: impl FnMut(&mut Raw) -> anyhow::Result<bool>,
) -> anyhow::Result<Rate> {
    let mut raw = world.raw()?;
    let pid = host.0.id();
    let waiting = Instant::now();
    // The groups come one by one while it starts: no reading before they are all there counts.
    let first = loop {
        let (read, _) = world.acked(&mut raw, partitions, "g")?;
        if read > 0 {
            break read;
        }
        host.alive()?;
        if waiting.elapsed() > PATIENCE {
            bail!("the host acked nothing for {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let (started, redis_before, host_before) =
        (Instant::now(), redis_seconds(&mut raw)?, cpu_seconds(pid)?);
    let commits_before = commits(&mut raw)?;
    let (mut read, mut moved) = (first, Instant::now());
    let seconds = loop {
        let (now_read, acked) = world.acked(&mut raw, partitions, "g")?;
        if acked && now_read == messages as u64 && done(&mut raw)? {
            break started.elapsed().as_secs_f64();
        }
        host.alive()?;
        if now_read > read {
            (read, moved) = (now_read, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            bail!("{read} of {messages} were acked, and no more for {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let counted = (messages as u64 - first) as f64;
    let redis = redis_seconds(&mut raw)? - redis_before;
    let host = cpu_seconds(pid)? - host_before;
    let committed = commits(&mut raw)? - commits_before;
    Ok(Rate {
        a_commit: (committed > 0.0).then_some(counted / committed),
        ..Rate::of(counted, seconds, redis, host)
    })
}

/// A running host; ends when it is dropped.
pub(crate) struct Host(pub(crate) Child);

impl Host {
    pub(crate) fn guest(world: &World, guest: &str, stderr: Stdio) -> anyhow::Result<Host> {
        Host::granted(world, guest, &[], stderr)
    }

    pub(crate) fn granted(
        world: &World,
        guest: &str,
        grants: &[&str],
        stderr: Stdio,
    ) -> anyhow::Result<Host> {
        let module = world.guests.join(format!("{guest}.wasm"));
        let mut args = vec!["--stream", "bench", "--group", "g"];
        args.extend(grants.iter().flat_map(|grant| ["--grant", grant]));
        let child = Command::new(&world.segmenter)
            .args(["--format", "json", "run"])
            .arg(module)
            .args(args)
            .env("SEGMENTER_REDIS", world.server.url())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()?;
        Ok(Host(child))
    }

    /// An instance for each message.
    pub(crate) fn fresh(world: &World, guest: &str) -> anyhow::Result<Host> {
        let module = world.guests.join(format!("{guest}.wasm"));
        let config = world.server.dir().join("fresh.toml");
        let text = format!(
            "[[handler]]\nname = \"fresh\"\nstream = \"bench\"\ngroup = \"g\"\ninstance = \"fresh\"\nmodule = {module:?}\n"
        );
        std::fs::write(&config, text)?;
        let child = Command::new(&world.segmenter)
            .args(["--format", "json", "run", "-c"])
            .arg(config)
            .env("SEGMENTER_REDIS", world.server.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Host(child))
    }

    /// The same loop with a handler that is not WebAssembly.
    pub(crate) fn native(world: &World) -> anyhow::Result<Host> {
        let child = Command::new(std::env::current_exe()?)
            .args(["native-host", &world.server.url()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Host(child))
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("the host ended with {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
