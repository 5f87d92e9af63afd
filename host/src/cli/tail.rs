//! `tail`: messages as they arrive, in all partitions, until a signal.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags};
use segmenter_core::entry::{Entry, RawEntry};
use segmenter_core::lease::Epoch;
use segmenter_core::limits;
use segmenter_core::message::EntryId;
use segmenter_core::names::Partition;
use segmenter_core::source::Layout;
use segmenter_redis::{Delivery, Reader, admin};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::args::{Global, TailArgs};
use super::jsonl;
use crate::host::telemetry::{self, Event};
use crate::output::{Format, Out, preview};

/// Replies that may wait to be shown: a slow terminal slows the reading down.
const REPLIES: usize = 4;

pub(super) async fn run(global: &Global, args: TailArgs) -> anyhow::Result<ExitCode> {
    let broker = global.connect().await?;
    let (stream, info) = global.stream(&broker, &args.stream).await?;
    let described = admin::describe_stream(&broker, &stream, info.shape)
        .await
        .with_context(|| format!("looking at stream {stream}"))?;
    let layout = Layout::of(info.source);
    let mut starts = Vec::new();
    for partition in described {
        let start = match (&args.from, &args.group) {
            (Some(from), _) => before(*from),
            (None, Some(group)) => {
                let mut groups = partition.groups.iter();
                match groups.find(|g| g.group == group.as_str()) {
                    Some(group) => group.acked_through,
                    None => bail!(
                        "stream {stream} has no group {group}; `segmenter group list {}` shows which it has",
                        args.stream
                    ),
                }
            }
            (None, None) => partition.last,
        };
        starts.push((partition.partition, start));
    }
    // The reader is asked for a partition's next entries only when these were shown.
    let (replies_out, mut replies) = mpsc::channel(REPLIES.max(starts.len()));
    let format = global.format;
    let deliver = move |delivery| match delivery {
        Delivery::Entries {
            partition, entries, ..
        } => {
            // One reply per partition is in the air at most, so there is room.
            let _ = replies_out.try_send((partition, entries));
        }
        Delivery::Disconnected { reason } => {
            telemetry::say(format, &Event::RedisAway { why: &reason });
        }
        Delivery::Connected => telemetry::say(format, &Event::RedisBack),
    };
    let reader = Arc::new(Reader::start(
        broker.address().clone(),
        broker.clone(),
        stream,
        deliver,
    ));
    let room = limits::READ_AHEAD_BYTES / starts.len().max(1);
    for (partition, start) in starts {
        reader.ask(partition, Epoch(0), start, room);
    }
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT")?;
    let mut out = global.out();
    let mut unread = std::pin::pin!(unread());
    loop {
        tokio::select! {
            () = &mut unread => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            reply = replies.recv() => {
                let Some((partition, entries)) = reply else { break };
                let Some(last) = entries.last().map(|entry| entry.id) else { continue };
                for entry in entries {
                    show(&mut out, &layout, partition, entry)?;
                }
                out.flush()?;
                reader.ask(partition, Epoch(0), last, room);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends when whoever read stdout through a pipe is gone: on a quiet stream, nothing would be written
/// that could fail.
async fn unread() {
    let (gone, is_gone) = oneshot::channel();
    // A poll has no end for a file: the thread is left behind, and ends with the process.
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        // No event is asked for; errors and hang-ups are told nevertheless.
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match rustix::event::poll(&mut polled, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                // Then a write will have to find out.
                Err(_) => return std::mem::forget(gone),
            }
        }
        // Nobody may wait for it any more.
        let _ = gone.send(());
    });
    let _ = is_gone.await;
}

#[derive(Serialize)]
struct Line<'a> {
    partition: u32,
    id: String,
    #[serde(flatten)]
    content: jsonl::Shown<'a>,
}

/// So that the entry itself is shown, too.
fn before(id: EntryId) -> EntryId {
    match (id.ms, id.seq) {
        (0, 0) => id,
        (ms, 0) => EntryId {
            ms: ms - 1,
            seq: u64::MAX,
        },
        (ms, seq) => EntryId { ms, seq: seq - 1 },
    }
}

fn show(out: &mut Out, layout: &Layout, partition: Partition, raw: RawEntry) -> anyhow::Result<()> {
    let id = raw.id;
    let entry = layout.decode(raw, usize::MAX);
    match (out.format, &entry) {
        (Format::Json, Entry::Ours { content, .. }) => out.object(&Line {
            partition: partition.0,
            id: id.to_string(),
            content: jsonl::Shown::of(content),
        }),
        (Format::Json, Entry::Foreign { why, fields, .. }) => out.object(&json!({
            "partition": partition.0, "id": id.to_string(), "foreign": why.to_string(),
            "fields": jsonl::foreign(fields),
        })),
        (Format::Human, Entry::Ours { content, .. }) => {
            let attributes: Vec<_> = content
                .attributes()
                .iter()
                .map(|(n, v)| format!("{}={}", preview(n, 40), preview(v, 40)))
                .collect();
            let payload = preview(&String::from_utf8_lossy(content.payload()), 120);
            let line = format!(
                "{partition:>4}  {id}  {}  {}  {payload}",
                preview(content.key(), 40),
                attributes.join(" ")
            );
            out.line(line.trim_end())
        }
        (Format::Human, Entry::Foreign { why, .. }) => out.line(&format!(
            "{partition:>4}  {id}  not ours: {}",
            preview(&why.to_string(), 200)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_before_is_found_with_carry() {
        let id = |ms, seq| EntryId { ms, seq };
        assert_eq!(before(id(5, 3)), id(5, 2));
        assert_eq!(before(id(5, 0)), id(4, u64::MAX));
        assert_eq!(before(EntryId::ZERO), EntryId::ZERO);
    }
}
