//! What an operator does to a group, executed: seek, halt, resume, delete. Each acts through the lease of
//! a partition in one script, so that a running owner is fenced; the news make it look at once.

use redis::Value;
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, Partition, Shape, StreamId, Uid};
use segmenter_core::port::{
    DeleteGroup, DeleteGroupReply, Failure, Halt, HaltReply, Position, Resume, ResumeReply, Seek,
    SeekReply,
};

use crate::admin;
use crate::broker::Broker;
use crate::convert::{id, list, number, odd, text};
use crate::execute::{AT_ONCE, LETTER_FIELDS_MAX, placed};
use crate::key::Key;
use crate::script::Script;

/// Entries that one script counts: some ms.
const COUNT_AT_ONCE: u32 = 4_096;
/// Counts that a log may spoil by being trimmed meanwhile. A trim that goes beyond the position leaves
/// nothing to count, so that the second one holds.
const COUNTS_MAX: u32 = 5;

/// Where a position is in the log as it stands.
struct Counted {
    /// The first entry from there on.
    first: String,
    /// Entries before it, since the log's first.
    before: u64,
}

impl Broker {
    pub(crate) async fn seek(&self, r: Seek) -> Result<SeekReply, Failure> {
        let place = self.place(&r.stream).await?;
        let (stream, partition) = (&r.stream, r.partition);
        for _ in 0..COUNTS_MAX {
            let unused = Counted {
                first: String::new(),
                before: 0,
            };
            let (to, counted) = match r.to {
                // Nothing comes before the smallest id.
                Position::Start | Position::From(EntryId::ZERO) => ("start".to_owned(), unused),
                Position::End => ("end".to_owned(), unused),
                Position::From(from) => match self.count(stream, partition, &r.uid, from).await? {
                    Some(counted) => (from.to_string(), counted),
                    None => return Ok(SeekReply::StreamGone),
                },
            };
            let answer = self
                .script(Script::GroupSeek, |cmd| {
                    placed(
                        cmd,
                        &place,
                        &[
                            Key::Meta(stream, partition),
                            Key::Log(stream, partition),
                            Key::Lease(stream, partition, &r.group),
                        ],
                    );
                    cmd.arg(r.uid.as_str())
                        .arg(r.group.as_str())
                        .arg(Key::News(stream, &r.group))
                        .arg(&to)
                        .arg(&counted.first)
                        .arg(counted.before);
                })
                .await?;
            match word_or_list(answer)? {
                Ok(parts) => {
                    let mut parts = parts.into_iter();
                    let mut next = || parts.next().unwrap_or(Value::Nil);
                    return Ok(SeekReply::Sought {
                        was: id(next())?,
                        acked: id(next())?,
                        read: number(next())?,
                    });
                }
                Err(word) => match word.as_str() {
                    "again" => {}
                    "gone" => return Ok(SeekReply::StreamGone),
                    "nogroup" => return Ok(SeekReply::GroupGone),
                    other => return Err(odd("seek", &Value::SimpleString(other.to_owned()))),
                },
            }
        }
        Err(Failure::NotDone(format!(
            "partition {partition} of {stream} is trimmed faster than its entries can be counted; try again"
        )))
    }

    /// `None`: the stream is gone. In steps, because a script that walks a long log stops everybody.
    async fn count(
        &self,
        stream: &StreamId,
        partition: Partition,
        uid: &Uid,
        from: EntryId,
    ) -> Result<Option<Counted>, Failure> {
        let place = self.place(stream).await?;
        let (mut from, mut last) = (from.to_string(), String::new());
        let mut start: Option<(String, u64)> = None;
        let mut counted = 0;
        loop {
            let answer = self
                .script(Script::LogCount, |cmd| {
                    placed(
                        cmd,
                        &place,
                        &[Key::Meta(stream, partition), Key::Log(stream, partition)],
                    );
                    cmd.arg(uid.as_str())
                        .arg(&from)
                        .arg(&last)
                        .arg(COUNT_AT_ONCE);
                })
                .await?;
            let Ok(parts) = word_or_list(answer)? else {
                return Ok(None);
            };
            let mut parts = parts.into_iter();
            let mut next = || parts.next().unwrap_or(Value::Nil);
            counted += number(next())?;
            from = text(next())?;
            let first = text(next())?;
            last = text(next())?;
            let added = number(next())?;
            // What is appended from now on moves both the end and the number of entries added.
            let (first, added) = start.get_or_insert((first, added));
            if from.is_empty() {
                return Ok(Some(Counted {
                    first: std::mem::take(first),
                    before: added.saturating_sub(counted),
                }));
            }
        }
    }

    pub(crate) async fn halt(&self, r: Halt) -> Result<HaltReply, Failure> {
        let place = self.place(&r.stream).await?;
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::GroupHalt, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Meta(stream, partition),
                        Key::Log(stream, partition),
                        Key::Lease(stream, partition, &r.group),
                    ],
                );
                cmd.arg(r.uid.as_str())
                    .arg(Key::News(stream, &r.group))
                    .arg(&r.reason);
            })
            .await?;
        match word_or_list(answer)? {
            Ok(parts) => {
                let mut parts = parts.into_iter();
                let mut next = || parts.next().unwrap_or(Value::Nil);
                match text(next())?.as_str() {
                    "already" => Ok(HaltReply::Already {
                        reason: text(next())?,
                    }),
                    _ => Ok(HaltReply::Halted),
                }
            }
            Err(word) => match word.as_str() {
                "gone" => Ok(HaltReply::StreamGone),
                "nogroup" => Ok(HaltReply::GroupGone),
                other => Err(odd("halt", &Value::SimpleString(other.to_owned()))),
            },
        }
    }

    pub(crate) async fn resume(&self, r: Resume) -> Result<ResumeReply, Failure> {
        let place = self.place(&r.stream).await?;
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::GroupResume, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Meta(stream, partition),
                        Key::Log(stream, partition),
                        Key::Lease(stream, partition, &r.group),
                        Key::Dead(stream, partition, &r.group),
                    ],
                );
                cmd.arg(r.uid.as_str())
                    .arg(r.group.as_str())
                    .arg(Key::News(stream, &r.group))
                    .arg(r.skip.as_deref().unwrap_or_default())
                    .arg(LETTER_FIELDS_MAX);
            })
            .await?;
        match word_or_list(answer)? {
            Ok(parts) => {
                let skipped = text(parts.into_iter().next().unwrap_or(Value::Nil))?;
                let skipped = match skipped.as_str() {
                    "" => None,
                    some => Some(id(Value::SimpleString(some.to_owned()))?),
                };
                Ok(ResumeReply::Resumed { skipped })
            }
            Err(word) => match word.as_str() {
                "running" => Ok(ResumeReply::NotHalted),
                "gone" => Ok(ResumeReply::StreamGone),
                "nogroup" => Ok(ResumeReply::GroupGone),
                other => Err(odd("resume", &Value::SimpleString(other.to_owned()))),
            },
        }
    }

    pub(crate) async fn delete_group(&self, r: DeleteGroup) -> Result<DeleteGroupReply, Failure> {
        let place = self.place(&r.stream).await?;
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::GroupDelete, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Meta(stream, partition),
                        Key::Log(stream, partition),
                        Key::Lease(stream, partition, &r.group),
                    ],
                );
                cmd.arg(r.uid.as_str())
                    .arg(r.group.as_str())
                    .arg(place.key(Key::PartitionPrefix(stream, partition)));
            })
            .await?;
        match answer {
            Value::Int(existed) => Ok(DeleteGroupReply::Deleted {
                existed: existed == 1,
            }),
            other => match text(other)?.as_str() {
                "gone" => Ok(DeleteGroupReply::StreamGone),
                other => Err(odd("group_delete", &Value::SimpleString(other.to_owned()))),
            },
        }
    }
}

impl Broker {
    /// Whether the group is there, as seen from the partition that a delete begins with.
    pub(crate) async fn has_group(
        &self,
        stream: &StreamId,
        group: &GroupName,
    ) -> Result<bool, Failure> {
        let place = self.place(stream).await?;
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(place.key(Key::Lease(stream, Partition(0), group)))
            .arg("acked");
        let acked = list(self.send(&cmd).await?)?.into_iter().next();
        Ok(!matches!(acked, None | Some(Value::Nil)))
    }
}

/// A list, or the word that was answered instead.
fn word_or_list(answer: Value) -> Result<Result<Vec<Value>, String>, Failure> {
    match answer {
        Value::Array(_) => Ok(Ok(list(answer)?)),
        other => Ok(Err(text(other)?)),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupDeleted {
    Deleted,
    NotFound,
    /// And it was not forced.
    MembersLive(Vec<String>),
    StreamGone,
}

/// Removes a group from all partitions, then its membership, then tells its members. Interrupted anywhere,
/// it can be asked again. The first partition goes first: a join looks there whether the group is.
pub async fn delete_group(
    broker: &Broker,
    stream: &StreamId,
    uid: &Uid,
    shape: Shape,
    group: &GroupName,
    force: bool,
) -> Result<GroupDeleted, Failure> {
    if !force {
        let members = admin::members(broker, stream, group).await?.members;
        if !members.is_empty() {
            let names = members.into_iter().map(|m| m.member).collect();
            return Ok(GroupDeleted::MembersLive(names));
        }
    }
    let delete = async |partition| {
        let request = DeleteGroup {
            stream: stream.clone(),
            uid: uid.clone(),
            partition,
            group: group.clone(),
        };
        broker.delete_group(request).await
    };
    let all: Vec<_> = shape.all().collect();
    let (first, others) = all.split_at(1);
    let mut existed = false;
    for some in std::iter::once(first).chain(others.chunks(AT_ONCE)) {
        let replies = futures_util::future::try_join_all(some.iter().map(|p| delete(*p))).await?;
        for reply in replies {
            match reply {
                DeleteGroupReply::Deleted { existed: this } => existed |= this,
                DeleteGroupReply::StreamGone => return Ok(GroupDeleted::StreamGone),
            }
        }
    }
    let mut cmd = redis::cmd("DEL");
    cmd.arg(Key::Group(stream, group))
        .arg(Key::Members(stream, group));
    existed |= number(broker.send(&cmd).await?)? > 0;
    let mut cmd = redis::cmd("PUBLISH");
    cmd.arg(Key::News(stream, group)).arg("deleted");
    broker.send(&cmd).await?;
    Ok(if existed {
        GroupDeleted::Deleted
    } else {
        GroupDeleted::NotFound
    })
}

/// Redis' own clock.
pub async fn server_time_ms(broker: &Broker) -> Result<u64, Failure> {
    let mut time = list(broker.send(&redis::cmd("TIME")).await?)?.into_iter();
    let mut part = || number(time.next().unwrap_or(Value::Nil));
    Ok(part()? * 1_000 + part()? / 1_000)
}
