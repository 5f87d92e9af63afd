//! `group seek|pause|resume|delete`: what an operator does to a group, also while its members run. Each
//! partition is a request of its own; interrupted anywhere, the command can be given again.

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt};
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, Partition, StreamId, StreamName, Uid};
use segmenter_core::port::{
    Halt, HaltReply, Position, Reply, Request, Resume, ResumeReply, Seek, SeekReply,
};
use segmenter_redis::admin::{self, StreamInfo};
use segmenter_redis::{Broker, GroupDeleted, delete_group, server_time_ms};
use serde_json::json;

use super::Usage;
use super::args::{Global, To};
use super::time;
use crate::output::Format;

/// Partitions that are asked at once.
const AT_ONCE: usize = 64;

/// The group of a stream, as far as a command is about it.
pub(super) struct Group<'a> {
    pub(super) stream: &'a StreamName,
    pub(super) group: &'a GroupName,
    pub(super) partition: Option<u32>,
}

/// It was looked up, and exists.
struct Found<'a> {
    broker: Broker,
    stream: StreamId,
    info: StreamInfo,
    group: &'a GroupName,
    partitions: Vec<Partition>,
}

impl Group<'_> {
    async fn find(&self, global: &Global) -> anyhow::Result<Found<'_>> {
        let broker = global.connect().await?;
        let (stream, info) = global.stream(&broker, self.stream).await?;
        let group = self.group;
        if let Some(partition) = self.partition
            && partition >= info.shape.partitions()
        {
            let last = info.shape.partitions() - 1;
            let why =
                format!("--partition {partition}: stream {stream} has partitions 0 to {last}");
            return Err(Usage(why).into());
        }
        let described = admin::describe_group(&broker, &stream, info.shape, group)
            .await
            .with_context(|| format!("looking up group {group} of {stream}"))?;
        let Some(described) = described else {
            bail!(
                "stream {stream} has no group {group}; `segmenter group list {}` shows which it has",
                self.stream
            );
        };
        let wanted = |p: &Partition| self.partition.is_none_or(|wanted| wanted == p.0);
        let partitions = described.partitions.iter().map(|(p, _)| *p);
        let partitions: Vec<_> = partitions.filter(wanted).collect();
        Ok(Found {
            broker,
            stream,
            info,
            group,
            partitions,
        })
    }
}

impl Found<'_> {
    /// Asks all partitions; the answers in partition order.
    async fn ask(
        &self,
        doing: &str,
        request: impl Fn(Target) -> Request,
    ) -> anyhow::Result<Vec<(Partition, Reply)>> {
        let asked = self.partitions.iter().map(|partition| {
            let target = Target {
                stream: self.stream.clone(),
                uid: self.info.uid.clone(),
                partition: *partition,
                group: self.group.clone(),
            };
            let request = request(target);
            async move {
                let reply = self.broker.execute(request).await;
                let reply = reply.with_context(|| {
                    format!(
                        "{doing} group {} in partition {partition} of {}",
                        self.group, self.stream
                    )
                })?;
                anyhow::Ok((*partition, reply))
            }
        });
        futures_util::stream::iter(asked)
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    fn gone(&self, partition: Partition, reply: &Reply) -> anyhow::Error {
        let (stream, group) = (&self.stream, self.group);
        match reply {
            Reply::Seek(SeekReply::StreamGone)
            | Reply::Halt(HaltReply::StreamGone)
            | Reply::Resume(ResumeReply::StreamGone) => {
                anyhow::anyhow!("stream {stream} was deleted or replaced meanwhile")
            }
            Reply::Seek(SeekReply::GroupGone)
            | Reply::Halt(HaltReply::GroupGone)
            | Reply::Resume(ResumeReply::GroupGone) => {
                anyhow::anyhow!(
                    "group {group} was deleted from partition {partition} of {stream} meanwhile"
                )
            }
            other => anyhow::anyhow!("the broker answered something else: {other:?}"),
        }
    }
}

struct Target {
    stream: StreamId,
    uid: Uid,
    partition: Partition,
    group: GroupName,
}

pub(super) async fn seek(global: &Global, which: Group<'_>, to: To) -> anyhow::Result<()> {
    let found = which.find(global).await?;
    let position = match to {
        To::Start => Position::Start,
        To::End => Position::End,
        To::Id(id) => Position::From(id),
        To::At(ms) => Position::From(EntryId { ms, seq: 0 }),
        To::Ago(ago) => {
            // Ids carry Redis' time, which may differ from ours.
            let now = server_time_ms(&found.broker)
                .await
                .context("asking Redis for its time")?;
            let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            Position::From(EntryId {
                ms: now.saturating_sub(ago),
                seq: 0,
            })
        }
    };
    let replies = found
        .ask("seeking", |t| {
            Request::Seek(Seek {
                stream: t.stream,
                uid: t.uid,
                partition: t.partition,
                group: t.group,
                to: position,
            })
        })
        .await?;
    let mut out = global.out();
    let mut rows = Vec::new();
    for (partition, reply) in &replies {
        let Reply::Seek(SeekReply::Sought { was, acked, .. }) = reply else {
            return Err(found.gone(*partition, reply));
        };
        match out.format {
            Format::Json => out.object(&json!({
                "partition": partition.0,
                "was": was.to_string(),
                "acked_through": acked.to_string(),
            }))?,
            Format::Human => rows.push(vec![
                partition.to_string(),
                was.to_string(),
                acked.to_string(),
            ]),
        }
    }
    if out.format == Format::Human {
        out.table(
            &["PARTITION", "WAS", "ACKED THROUGH"],
            &rows,
            "no partitions",
        )?;
    }
    out.flush()
}

pub(super) async fn pause(global: &Global, which: Group<'_>) -> anyhow::Result<()> {
    let found = which.find(global).await?;
    let now = server_time_ms(&found.broker)
        .await
        .context("asking Redis for its time")?;
    let reason = format!("paused by an operator at {}", time::format(now));
    let replies = found
        .ask("pausing", |t| {
            Request::Halt(Halt {
                stream: t.stream,
                uid: t.uid,
                partition: t.partition,
                group: t.group,
                reason: reason.clone(),
            })
        })
        .await?;
    let mut out = global.out();
    for (partition, reply) in &replies {
        let (halted, already) = match reply {
            Reply::Halt(HaltReply::Halted) => (&reason, false),
            Reply::Halt(HaltReply::Already { reason }) => (reason, true),
            other => return Err(found.gone(*partition, other)),
        };
        match out.format {
            Format::Json => out.object(&json!({
                "partition": partition.0,
                "halted": halted,
                "already": already,
            }))?,
            Format::Human if already => {
                out.line(&format!(
                    "partition {partition} was halted already: {halted}"
                ))?;
            }
            Format::Human => out.line(&format!("partition {partition} is halted"))?,
        }
    }
    out.flush()
}

pub(super) async fn resume(global: &Global, which: Group<'_>, skip: bool) -> anyhow::Result<()> {
    let found = which.find(global).await?;
    let reason = if skip {
        let now = server_time_ms(&found.broker)
            .await
            .context("asking Redis for its time")?;
        Some(format!("skipped by an operator at {}", time::format(now)))
    } else {
        None
    };
    let replies = found
        .ask("resuming", |t| {
            Request::Resume(Resume {
                stream: t.stream,
                uid: t.uid,
                partition: t.partition,
                group: t.group,
                skip: reason.clone(),
            })
        })
        .await?;
    let mut out = global.out();
    let mut resumed_any = false;
    for (partition, reply) in &replies {
        let (resumed, skipped) = match reply {
            Reply::Resume(ResumeReply::Resumed { skipped }) => (true, *skipped),
            Reply::Resume(ResumeReply::NotHalted) => (false, None),
            other => return Err(found.gone(*partition, other)),
        };
        resumed_any |= resumed;
        match out.format {
            Format::Json => out.object(&json!({
                "partition": partition.0,
                "resumed": resumed,
                "skipped": skipped.map(|id| id.to_string()),
            }))?,
            Format::Human => out.line(&match (resumed, skipped) {
                (true, Some(id)) => {
                    format!("partition {partition} goes on behind {id}, which is a dead letter now")
                }
                (true, None) if skip => {
                    format!("partition {partition} goes on; there was no message to skip")
                }
                (true, None) => format!("partition {partition} goes on"),
                (false, _) => format!("partition {partition} was not halted"),
            })?,
        }
    }
    out.flush()?;
    if skip && !resumed_any {
        bail!(
            "nothing was skipped: no partition that was asked for is halted; `segmenter group pause` halts one"
        );
    }
    Ok(())
}

pub(super) async fn delete(
    global: &Global,
    stream: &StreamName,
    group: &GroupName,
    force: bool,
) -> anyhow::Result<()> {
    let broker = global.connect().await?;
    let (id, info) = global.stream(&broker, stream).await?;
    let deleted = delete_group(&broker, &id, &info.uid, info.shape, group, force)
        .await
        .with_context(|| format!("deleting group {group} of {id}"))?;
    match deleted {
        GroupDeleted::Deleted => {}
        GroupDeleted::NotFound => bail!("stream {id} has no group {group}"),
        GroupDeleted::StreamGone => bail!("stream {id} was deleted or replaced meanwhile"),
        GroupDeleted::MembersLive(members) => bail!(
            "group {group} of {id} is in use: it has the member{} {}; end them first, or use --force, and they end by themselves",
            if members.len() == 1 { "" } else { "s" },
            members.join(", ")
        ),
    }
    let mut out = global.out();
    match out.format {
        Format::Json => out.object(&json!({"group": group.as_str(), "deleted": true}))?,
        Format::Human => out.line(&format!("group {group} of {id} deleted"))?,
    }
    out.flush()
}
