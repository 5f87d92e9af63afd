//! `dead redrive|purge`: what becomes of dead letters. Both look at them first and act on those they found
//! then: what dies meanwhile is not touched. Knows how far an interrupted redrive came only from what lies
//! in Redis: letters move into the outbox, messages from there to their target, each step whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use segmenter_core::lease::Epoch;
use segmenter_core::limits;
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, Partition, StreamId, StreamName};
use segmenter_core::port::{
    AppendFromReply, LoadOutbox, Purge, PurgeReply, Redrive, RedriveReply, Redriven, Reply,
    Request, Verify,
};
use segmenter_core::relay::{Command, Event, Relay};
use segmenter_core::source::Layout;
use segmenter_redis::admin::{self, DeadEntry, StreamInfo};
use segmenter_redis::{Broker, server_time_ms};
use serde_json::json;

use super::args::{Global, Letters};
use crate::host::relay::{Outbox, ask};
use crate::host::telemetry::{self, Event as Said};
use crate::host::{clock, random};
use crate::output::{Format, preview};

/// Letters in one purge.
const PURGE_AT_ONCE: usize = 1_000;

/// A dead letter that was chosen.
struct Chosen {
    dead_id: EntryId,
    bytes: usize,
    /// Where it was to go when a handler emitted it.
    emitted_to: Option<StreamName>,
}

/// What was chosen of a group.
struct Found {
    stream: StreamId,
    info: StreamInfo,
    group: GroupName,
    letters: BTreeMap<Partition, Vec<Chosen>>,
    /// No messages of ours: where and why.
    odd: Vec<(Partition, EntryId, String)>,
}

impl Found {
    fn count(&self) -> usize {
        self.letters.values().map(Vec::len).sum()
    }

    fn outbox(&self, partition: Partition) -> Outbox {
        Outbox {
            stream: self.stream.clone(),
            partition,
            group: self.group.clone(),
        }
    }
}

pub(super) async fn redrive(
    global: &Global,
    broker: &Broker,
    stream: &StreamName,
    group: &GroupName,
    which: &Letters,
    to: Option<&StreamName>,
    full_timeout: Duration,
) -> anyhow::Result<ExitCode> {
    let mut target_max = None;
    if let Some(to) = to {
        let (to, info) = global.stream(broker, to).await?;
        if let Some(source) = &info.source {
            bail!(
                "stream {to} reads {source}, which other programs write: XADD there appends; nothing was done"
            );
        }
        target_max = Some(info.shape.payload_max());
    }
    let end = End::Redriven { target_max };
    let found = find(global, broker, stream, group, which, end).await?;
    if let Some(source) = &found.info.source
        && to.is_none()
        && found
            .letters
            .values()
            .flatten()
            .any(|letter| letter.emitted_to.is_none())
    {
        bail!(
            "stream {} reads {source}, which other programs write, so that its dead letters cannot be redriven to it: redrive them --to a stream of Segmenter, with a handler of its own, or XADD what shall be handled again, then purge; what a handler emitted is redriven by its id or by --reason; nothing was done",
            found.stream
        );
    }
    let bar = progress(global.format, found.count(), "redriven");
    let mut redriven = 0;
    for partition in found.info.shape.all() {
        let chosen: &[Chosen] = found.letters.get(&partition).map_or(&[], Vec::as_slice);
        let outbox = found.outbox(partition);
        let mut left = chosen;
        while !left.is_empty() {
            let (some, rest) = left.split_at(chunk(left));
            left = rest;
            let (epoch, moved) = move_letters(broker, &found, partition, some, to).await?;
            relay(broker, &outbox, epoch, full_timeout).await?;
            redriven += moved;
            bar.set_position(redriven);
        }
        // What an earlier one that was interrupted left, if no host has relayed it.
        if let Some(epoch) = waiting(broker, &outbox).await? {
            relay(broker, &outbox, epoch, full_timeout).await?;
        }
    }
    bar.finish_and_clear();
    for (partition, id, why) in &found.odd {
        let text = format!(
            "dead letter {id} of partition {partition} was kept, because it is no message that can be appended there: {}",
            preview(why, 400)
        );
        telemetry::say(global.format, &Said::Warning { text: &text });
    }
    let mut out = global.out();
    let kept = found.odd.len();
    match out.format {
        Format::Json => out.object(&json!({"redriven": redriven, "kept": kept}))?,
        Format::Human => out.line(&format!("{redriven} dead letters redriven, {kept} kept"))?,
    }
    out.flush()?;
    Ok(ExitCode::from(if kept > 0 { super::FAILED } else { 0 }))
}

pub(super) async fn purge(
    global: &Global,
    broker: &Broker,
    stream: &StreamName,
    group: &GroupName,
    which: &Letters,
) -> anyhow::Result<ExitCode> {
    let found = find(global, broker, stream, group, which, End::Purged).await?;
    let bar = progress(global.format, found.count(), "purged");
    let mut purged = 0;
    for (partition, letters) in &found.letters {
        for some in letters.chunks(PURGE_AT_ONCE) {
            let request = Request::Purge(Purge {
                stream: found.stream.clone(),
                partition: *partition,
                group: group.clone(),
                letters: some.iter().map(|letter| letter.dead_id).collect(),
            });
            let reply = broker.execute(request).await.with_context(|| {
                format!("purging partition {partition}, after {purged} dead letters; call it again")
            })?;
            match reply {
                Reply::Purge(PurgeReply { removed }) => purged += removed,
                other => bail!("the broker answered something else: {other:?}"),
            }
            bar.set_position(purged);
        }
    }
    bar.finish_and_clear();
    let mut out = global.out();
    match out.format {
        Format::Json => out.object(&json!({"purged": purged}))?,
        Format::Human => out.line(&format!("{purged} dead letters purged"))?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What becomes of the letters that are looked for.
#[derive(Clone, Copy)]
enum End {
    Purged,
    /// Only what can be appended is of use.
    Redriven {
        /// Of the one stream that they all go to, if it was named.
        target_max: Option<usize>,
    },
}

impl End {
    /// Why a message cannot go where it is to go.
    fn refuses(self, info: &StreamInfo, to: Option<&StreamName>, payload: &[u8]) -> Option<String> {
        let End::Redriven { target_max } = self else {
            return None;
        };
        // Where an emitted one goes by itself, it once fitted.
        let own = || to.is_none().then(|| info.shape.payload_max());
        let max = target_max.or_else(own)?;
        let len = payload.len();
        (len > max).then(|| {
            format!("the payload has {len} bytes, and the stream that it would go to takes {max}")
        })
    }
}

/// Looks at all dead letters of the group.
async fn find(
    global: &Global,
    broker: &Broker,
    stream: &StreamName,
    group: &GroupName,
    which: &Letters,
    end: End,
) -> anyhow::Result<Found> {
    let (stream, info) = global.stream(broker, stream).await?;
    let now_ms = server_time_ms(broker)
        .await
        .context("asking Redis for its time")?;
    let mut found = Found {
        stream: stream.clone(),
        info,
        group: group.clone(),
        letters: BTreeMap::new(),
        odd: Vec::new(),
    };
    let mut missing: BTreeSet<_> = which.id.iter().copied().collect();
    let (shape, layout) = (found.info.shape, Layout::of(found.info.source.clone()));
    admin::dead_each(broker, &stream, shape, group, |letter| {
        let message = layout.decode_letter(&letter.fields);
        let key = message.as_ref().ok().map(|(_, content)| content.key());
        if !which.choose(&letter, key, now_ms) {
            return ControlFlow::Continue(());
        }
        missing.remove(&letter.id);
        let bytes = letter.fields.iter().map(|(n, v)| n.len() + v.len()).sum();
        let message = message.and_then(|(to, content)| {
            match end.refuses(&found.info, to.as_ref(), content.payload()) {
                Some(why) => Err(why),
                None => Ok(to),
            }
        });
        let emitted_to = match (message, end) {
            (Ok(to), _) => to,
            (Err(why), End::Redriven { .. }) => {
                found.odd.push((letter.partition, letter.id, why));
                return ControlFlow::Continue(());
            }
            (Err(_), End::Purged) => None,
        };
        found
            .letters
            .entry(letter.partition)
            .or_default()
            .push(Chosen {
                dead_id: letter.dead_id,
                bytes,
                emitted_to,
            });
        ControlFlow::Continue(())
    })
    .await
    .with_context(|| format!("reading the dead letters of {stream}, group {group}"))?;
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        bail!(
            "group {group} of {stream} has no dead letter of {}; nothing was done",
            missing.join(", ")
        );
    }
    Ok(found)
}

impl Letters {
    fn choose(&self, letter: &DeadEntry, key: Option<&str>, now_ms: u64) -> bool {
        let older = |age: Duration| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            letter.at_ms <= now_ms.saturating_sub(age)
        };
        self.all
            || self.id.contains(&letter.id)
            || self
                .key
                .as_deref()
                .is_some_and(|wanted| key == Some(wanted))
            || self
                .reason
                .as_ref()
                .is_some_and(|part| letter.reason.contains(part))
            || self.older_than.is_some_and(older)
    }
}

/// How many of the letters one script moves.
fn chunk(letters: &[Chosen]) -> usize {
    let mut bytes = 0;
    let fits = letters
        .iter()
        .take(limits::REDRIVE_LETTERS_MAX)
        .take_while(|letter| {
            bytes += letter.bytes;
            bytes <= limits::REDRIVE_BYTES_MAX
        });
    fits.count().max(1)
}

/// Into the outbox. How many that were: others may have taken some meanwhile.
async fn move_letters(
    broker: &Broker,
    found: &Found,
    partition: Partition,
    letters: &[Chosen],
    to: Option<&StreamName>,
) -> anyhow::Result<(Epoch, u64)> {
    let own = &found.stream.stream;
    let letters = letters.iter().map(|letter| {
        let to = to.or(letter.emitted_to.as_ref()).unwrap_or(own);
        Redriven {
            dead_id: letter.dead_id,
            to: to.clone(),
            // Other groups of the own stream have handled it.
            only: to == own && letter.emitted_to.is_none(),
            emitted: letter.emitted_to.is_some(),
        }
    });
    let request = Request::Redrive(Redrive {
        stream: found.stream.clone(),
        uid: found.info.uid.clone(),
        partition,
        group: found.group.clone(),
        source: found.info.source.clone(),
        letters: letters.collect(),
    });
    let reply = broker.execute(request).await.with_context(|| {
        format!(
            "redriving partition {partition} of {}; nothing is lost: call it again, which goes on with what is left",
            found.stream
        )
    })?;
    match reply {
        Reply::Redrive(RedriveReply::Moved { epoch, letters }) => Ok((epoch, letters.len() as u64)),
        Reply::Redrive(RedriveReply::StreamGone) => {
            bail!("stream {} was deleted or replaced meanwhile", found.stream)
        }
        Reply::Redrive(RedriveReply::GroupGone) => bail!(
            "group {} was deleted from partition {partition} of {} meanwhile",
            found.group,
            found.stream
        ),
        other => bail!("the broker answered something else: {other:?}"),
    }
}

/// The epoch of the lease if something waits in the outbox.
async fn waiting(broker: &Broker, outbox: &Outbox) -> anyhow::Result<Option<Epoch>> {
    let Outbox {
        stream,
        partition,
        group,
    } = outbox.clone();
    let load = Request::LoadOutbox(LoadOutbox {
        stream: stream.clone(),
        partition,
        group: group.clone(),
        after: EntryId::ZERO,
        count: 1,
    });
    match broker.execute(load).await.context("reading the outbox")? {
        Reply::LoadOutbox(reply) if reply.waiting.is_empty() => return Ok(None),
        _ => {}
    }
    let verify = Request::Verify(Verify {
        stream,
        group,
        partitions: vec![partition],
    });
    match broker.execute(verify).await.context("reading the lease")? {
        Reply::Verify(reply) => Ok(reply.leases.into_iter().next().flatten().map(|l| l.epoch)),
        other => bail!("the broker answered something else: {other:?}"),
    }
}

/// Relays an outbox until nothing of it is left. A host that holds the partition may do the same.
async fn relay(
    broker: &Broker,
    outbox: &Outbox,
    epoch: Epoch,
    full_timeout: Duration,
) -> anyhow::Result<()> {
    let mut relay = Relay::new(random::number());
    relay.handle(clock::now(), Event::Held { epoch });
    let mut in_air = FuturesUnordered::new();
    let mut progress = Instant::now();
    loop {
        while let Some(command) = relay.poll(clock::now()) {
            match command {
                Command::Room(_) => {}
                Command::Trouble { why } => {
                    return Err(anyhow!(why).context(left_over(outbox)));
                }
                command => in_air.push(ask(broker, outbox, command)),
            }
        }
        if relay.is_empty() && in_air.is_empty() {
            return Ok(());
        }
        if progress.elapsed() >= full_timeout {
            return Err(anyhow!(
                "no target took anything for {} s: it is full, or Redis is away",
                full_timeout.as_secs()
            )
            .context(left_over(outbox)));
        }
        tokio::select! {
            Some(event) = in_air.next(), if !in_air.is_empty() => {
                let Some(event) = event else { continue };
                if let Event::Appended { result: Ok(AppendFromReply::Accepted { ids }), .. } = &event
                    && !ids.is_empty()
                {
                    progress = Instant::now();
                }
                relay.handle(clock::now(), event);
            }
            () = clock::sleep_until(relay.poll_timeout()) => {}
        }
    }
}

fn left_over(outbox: &Outbox) -> String {
    format!(
        "messages of partition {} of {} wait in its outbox; a host of group {} relays them, and so does calling this again",
        outbox.partition, outbox.stream, outbox.group
    )
}

fn progress(format: Format, count: usize, what: &str) -> ProgressBar {
    if format == Format::Json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    let template = format!("{{bar:40}} {{pos}}/{{len}} {what}  {{elapsed}}, {{eta}} to go");
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
