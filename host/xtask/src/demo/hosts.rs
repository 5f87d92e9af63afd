//! Three hosts of one group: one is killed with -9 when a third is handled, one leaves with SIGTERM after
//! two thirds, the last one sees it through. Right after each of these a version is swapped.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::gate::Gate;
use super::record::{Handled, Id};
use super::swaps::{Story, Swaps};
use super::tool::Tool;
use crate::cargo;

pub(super) const HOSTS: usize = 3;
/// Nothing new for so long: something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

/// What became of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Killed,
    Left,
    Stayed,
}

pub(super) struct Record {
    pub(super) handled: Vec<Handled>,
    pub(super) ends: [End; HOSTS],
    /// Who was killed, and what each partition had acked right after.
    pub(super) killed: Killed,
    pub(super) story: Story,
}

pub(super) struct Killed {
    pub(super) host: usize,
    pub(super) acked: BTreeMap<u64, Id>,
}

enum Heard {
    Ready,
    Line(usize, Value),
    /// What it says of versions and of calls that failed.
    Event(usize, Value),
    Other(usize, String),
}

pub(super) struct Hosts<'a> {
    tool: &'a Tool<'a>,
    stream: &'a str,
    group: &'a str,
    children: Vec<Child>,
    heard: mpsc::Receiver<Heard>,
    swaps: Swaps<'a>,
    gate: &'a Gate,
    said: Vec<String>,
    handled: Vec<Handled>,
    distinct: HashSet<(u64, Id)>,
}

impl<'a> Hosts<'a> {
    /// Starts all and waits until they are members.
    pub(super) fn start(
        tool: &'a Tool<'a>,
        config: &Path,
        (stream, group): (&'a str, &'a str),
        swaps: Swaps<'a>,
        gate: &'a Gate,
    ) -> anyhow::Result<Hosts<'a>> {
        let config = config
            .to_str()
            .context("the target folder's path is not UTF-8")?;
        let (out, heard) = mpsc::channel();
        let mut hosts = Hosts {
            tool,
            stream,
            group,
            children: Vec::new(),
            heard,
            swaps,
            gate,
            said: Vec::new(),
            handled: Vec::new(),
            distinct: HashSet::new(),
        };
        for host in 0..HOSTS {
            let member = name(host);
            let mut child = tool
                .command(&["--format", "json", "run", "-c", config, "--member", &member])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("starting segmenter run")?;
            listen(host, child.stdout.take().context("its stdout")?, &out);
            listen(host, child.stderr.take().context("its stderr")?, &out);
            hosts.children.push(child);
        }
        let mut ready = 0;
        let until = Instant::now() + PATIENCE;
        while ready < HOSTS {
            match hosts.heard.recv_timeout(LOOK) {
                Ok(Heard::Ready) => ready += 1,
                Ok(heard) => hosts.take(heard)?,
                Err(_) if Instant::now() < until => {}
                Err(_) => bail!("only {ready} hosts are ready; {}", hosts.said()),
            }
        }
        Ok(hosts)
    }

    /// Until as many distinct messages were handled as there are; then the last host must drain and
    /// exit with 0. Ends early if the sender failed. The gate is open afterwards, however it ended.
    pub(super) fn watch(
        self,
        messages: u64,
        sender_failed: &AtomicBool,
        progress: &dyn Fn(u64),
        say: &dyn Fn(&str),
    ) -> anyhow::Result<Record> {
        let gate = self.gate;
        let record = self.watched(messages, sender_failed, progress, say);
        gate.move_to(u64::MAX);
        record
    }

    fn watched(
        mut self,
        messages: u64,
        sender_failed: &AtomicBool,
        progress: &dyn Fn(u64),
        say: &dyn Fn(&str),
    ) -> anyhow::Result<Record> {
        let messages = usize::try_from(messages)?;
        let mut killed: Option<Killed> = None;
        let mut leaver = None;
        let mut last_news = Instant::now();
        while self.distinct.len() < messages {
            let handled = self.distinct.len() as u64;
            self.gate.move_to(self.swaps.may_send(handled));
            let before = self.distinct.len();
            if let Ok(heard) = self.heard.recv_timeout(LOOK) {
                self.take(heard)?;
            }
            let done = self.distinct.len();
            if done > before {
                last_news = Instant::now();
                progress(done as u64);
            }
            let busy = self.handled.last().map(|line| line.host);
            match (busy, &killed) {
                (Some(host), None) if done >= messages / 3 => {
                    killed = Some(self.kill(host)?);
                    say(&format!(
                        "{} killed with -9 after {done} messages",
                        name(host)
                    ));
                }
                (Some(host), Some(dead))
                    if leaver.is_none() && done >= messages * 2 / 3 && host != dead.host =>
                {
                    self.terminate(host)?;
                    leaver = Some(host);
                    say(&format!(
                        "{} leaves (SIGTERM) after {done} messages",
                        name(host)
                    ));
                }
                _ => {}
            }
            let handled = done as u64;
            if killed.is_some() && self.swaps.is_first() {
                self.swaps.to_second(handled)?;
                say(&format!("v2 is deployed after {done} messages"));
            }
            if leaver.is_some() && self.swaps.is_second() {
                self.swaps.to_third(handled)?;
                say(&format!("v3 is deployed after {done} messages"));
            }
            let gone = [killed.as_ref().map(|dead| dead.host), leaver];
            let up = std::array::from_fn(|host| !gone.contains(&Some(host)));
            let looked = self.swaps.look(handled, &up);
            if let Some(what) = looked.with_context(|| self.said())? {
                say(&what);
            }
            for (host, child) in self.children.iter_mut().enumerate() {
                let expected =
                    killed.as_ref().is_some_and(|dead| dead.host == host) || leaver == Some(host);
                if !expected && let Some(status) = child.try_wait()? {
                    bail!("{} ended early with {status}; {}", name(host), self.said());
                }
            }
            if sender_failed.load(Ordering::SeqCst) {
                bail!("not everything was sent");
            }
            if last_news.elapsed() > PATIENCE {
                bail!(
                    "no message was handled for {} s; {done} of {messages} are; {}",
                    PATIENCE.as_secs(),
                    self.said()
                );
            }
        }
        let killed = killed.context("nobody was killed: there were too few messages")?;
        let leaver = leaver.context("nobody left: there were too few messages")?;
        self.end(killed, leaver)
    }

    /// The last one is told to end; what all said until their end counts, too.
    fn end(mut self, killed: Killed, leaver: usize) -> anyhow::Result<Record> {
        let mut ends = [End::Stayed; HOSTS];
        ends[killed.host] = End::Killed;
        ends[leaver] = End::Left;
        for (host, end) in ends.iter().enumerate() {
            if *end == End::Stayed {
                self.terminate(host)?;
            }
        }
        // Every pipe is closed when the channel is.
        while let Ok(heard) = self.heard.recv_timeout(PATIENCE) {
            self.take(heard)?;
        }
        for (host, end) in ends.iter().enumerate() {
            let status = self.children[host].wait()?;
            if *end != End::Killed && !status.success() {
                bail!(
                    "{} ended with {status} after SIGTERM; {}",
                    name(host),
                    self.said()
                );
            }
        }
        let mut handled = std::mem::take(&mut self.handled);
        handled.sort_by_key(|line| line.at_us);
        let story = self.swaps.story()?;
        Ok(Record {
            handled,
            ends,
            killed,
            story,
        })
    }

    fn take(&mut self, heard: Heard) -> anyhow::Result<()> {
        match heard {
            Heard::Ready => {}
            Heard::Line(host, line) => match Handled::parse(host, &line)? {
                Some(line) => {
                    self.distinct.insert((line.partition, line.id));
                    self.handled.push(line);
                }
                // The words of a panic.
                None if self.swaps.has_third() => {}
                None => bail!("the handler logged {line}"),
            },
            Heard::Event(host, event) => {
                self.swaps.heard(host, &event);
                self.said.push(format!("{}: {event}", name(host)));
            }
            Heard::Other(host, line) => self.said.push(format!("{}: {line}", name(host))),
        }
        Ok(())
    }

    /// What is acked is asked before a session timeout is over, so before anybody takes over.
    fn kill(&mut self, host: usize) -> anyhow::Result<Killed> {
        self.children[host].kill()?;
        self.children[host].wait()?;
        let acked = self.tool.acked(self.stream, self.group)?;
        Ok(Killed { host, acked })
    }

    fn terminate(&self, host: usize) -> anyhow::Result<()> {
        let pid = self.children[host].id().to_string();
        cargo::watched(Command::new("kill").arg(pid), "kill")
    }

    fn said(&self) -> String {
        let newest = self.said.len().saturating_sub(40);
        format!("the hosts said:\n{}", self.said[newest..].join("\n"))
    }
}

impl Drop for Hosts<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(super) fn name(host: usize) -> String {
    format!("host-{}", host + 1)
}

fn listen(host: usize, stream: impl Read + Send + 'static, out: &mpsc::Sender<Heard>) {
    let out = out.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let heard = match serde_json::from_str::<Value>(&line) {
                Ok(value) if value["event"] == "guest_log" => Heard::Line(host, value),
                Ok(value) if value["event"] == "ready" => Heard::Ready,
                Ok(value) if Swaps::listens_to(&value) => Heard::Event(host, value),
                _ => Heard::Other(host, line),
            };
            if out.send(heard).is_err() {
                return;
            }
        }
    });
}
