//! A producer that never pauses, and what several hosts did, brought into one order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use segmenter_tests::process::{self, GuestLine, until};

/// Messages of one `segmenter send`.
const BATCH: usize = 300;
const KEYS: usize = 50;

/// `segmenter send`, one after another, until it is told to end.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<(u64, String)>>,
}

impl Load {
    pub(crate) fn start(url: &str) -> Load {
        let (stop, accepted): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let (url, stopped, counter) = (url.to_owned(), stop.clone(), accepted.clone());
        let thread = std::thread::spawn(move || {
            let mut sent = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let first = sent.len();
                let line = |i: usize| {
                    let (key, number) = (i % KEYS, i / KEYS);
                    format!(r#"{{"key":"key-{key}","payload":"{number}"}}"#)
                };
                let lines: Vec<_> = (first..first + BATCH).map(line).collect();
                let args = ["--format", "json", "send", "s", "--jsonl", "-"];
                let ended = process::with_input(&url, &args, lines.join("\n").as_bytes()).ok();
                sent.extend(ended.objects().iter().map(|o| {
                    let id = o["id"].as_str().expect("id").to_owned();
                    (o["partition"].as_u64().expect("partition"), id)
                }));
                counter.store(sent.len(), Ordering::SeqCst);
            }
            sent
        });
        Load {
            stop,
            accepted,
            thread,
        }
    }

    /// Waits until that many more are in the stream.
    pub(crate) fn more(&self, messages: usize) {
        let wanted = self.accepted.load(Ordering::SeqCst) + messages;
        until("more is sent", || {
            (self.accepted.load(Ordering::SeqCst) >= wanted || self.thread.is_finished())
                .then_some(())
        });
    }

    /// What was sent in all, in the order of sending.
    pub(crate) fn end(self) -> Vec<(u64, String)> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("every send succeeds")
    }
}

/// The lines of several hosts as they happened: all clocks are this machine's.
pub(crate) fn merged(hosts: &[Vec<GuestLine>]) -> Vec<GuestLine> {
    let mut lines: Vec<_> = hosts.iter().flatten().cloned().collect();
    lines.sort_by_key(|line| line.at_us);
    lines
}

/// Lines of a host in a partition that another host had begun after it, not beyond where that one was:
/// two at work on the same partition.
pub(crate) fn overlaps(hosts: &[Vec<GuestLine>]) -> usize {
    let mut lines: Vec<_> = hosts
        .iter()
        .enumerate()
        .flat_map(|(host, lines)| lines.iter().map(move |line| (host, line)))
        .collect();
    lines.sort_by_key(|(_, line)| line.at_us);
    let mut been: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    let mut last: BTreeMap<u64, usize> = BTreeMap::new();
    let mut furthest: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut overlaps = 0;
    for (host, line) in lines {
        let known = !been.entry(line.partition).or_default().insert(host);
        let changed = last.insert(line.partition, host) != Some(host);
        let id = number(&line.id);
        let furthest = furthest.entry(line.partition).or_default();
        if known && changed && id <= *furthest {
            overlaps += 1;
        }
        *furthest = id.max(*furthest);
    }
    overlaps
}

/// Messages that were handled more than once, with who handled them, in order.
pub(crate) fn repeated(hosts: &[Vec<GuestLine>]) -> BTreeMap<(u64, String), Vec<usize>> {
    let mut lines: Vec<_> = hosts
        .iter()
        .enumerate()
        .flat_map(|(host, lines)| lines.iter().map(move |line| (host, line)))
        .collect();
    lines.sort_by_key(|(_, line)| line.at_us);
    let mut who: BTreeMap<(u64, String), Vec<usize>> = BTreeMap::new();
    for (host, line) in lines {
        who.entry(line.message()).or_default().push(host);
    }
    who.retain(|_, hosts| hosts.len() > 1);
    who
}

fn number(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').expect("an entry id");
    (
        ms.parse().expect("a number"),
        seq.parse().expect("a number"),
    )
}
