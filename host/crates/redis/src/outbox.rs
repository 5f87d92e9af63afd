//! The way of messages between partitions, executed: append with a source, what waits in an outbox, and
//! dead letters that are moved or removed. Knows the order of a script's arguments and answers; must not
//! know when something is relayed.

use redis::Value;
use segmenter_core::entry::{self, Entry, RawEntry};
use segmenter_core::lease::Epoch;
use segmenter_core::limits;
use segmenter_core::names::StreamName;
use segmenter_core::port::{
    AppendFrom, AppendFromReply, Bury, BuryReply, Failure, LoadOutbox, LoadOutboxReply, Outgoing,
    Purge, PurgeReply, Redrive, RedriveReply, Relayed, RelayedReply, Sourced, Waiting,
};

use crate::broker::Broker;
use crate::convert::{self, id, list, number, odd, text};
use crate::execute::{LETTER_FIELDS_MAX, further, key_payload_further, placed};
use crate::key::Key;
use crate::script::Script;

impl Broker {
    pub(crate) async fn append_from(&self, r: AppendFrom) -> Result<AppendFromReply, Failure> {
        let place = self.place(&r.stream).await?;
        place.is_ours(&r.stream)?;
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::AppendFrom, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Meta(stream, partition),
                        Key::Log(stream, partition),
                        Key::From(stream, partition),
                    ],
                );
                cmd.arg(r.uid.as_str())
                    .arg(place.key(Key::LeasePrefix(stream, partition)))
                    .arg(r.source.as_str())
                    .arg(r.after.map(|stamp| stamp.to_string()).unwrap_or_default());
                match r.source.is_producer() {
                    true => cmd.arg(limits::PRODUCERS_MAX),
                    false => cmd.arg(""),
                };
                let bytes = r.messages.iter().map(|message| message.content.bytes());
                cmd.arg(bytes.max().unwrap_or(0)).arg(r.messages.len());
                let fields = |m: &Sourced| further(&m.content, m.only.as_ref());
                for run in r.messages.chunk_by(|a, b| fields(a) == fields(b)) {
                    cmd.arg(run.len()).arg(fields(&run[0]));
                    for message in run {
                        cmd.arg(message.stamp.to_string());
                        key_payload_further(cmd, &message.content, message.only.as_ref());
                    }
                }
            })
            .await?;
        appended_from(answer)
    }

    pub(crate) async fn load_outbox(&self, r: LoadOutbox) -> Result<LoadOutboxReply, Failure> {
        let place = self.place(&r.stream).await?;
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(place.key(Key::Outbox(&r.stream, r.partition, &r.group)))
            .arg(format!("({}", r.after))
            .arg("+")
            .arg("COUNT")
            .arg(r.count);
        let found = list(self.send(&cmd).await?)?;
        let waiting = found.into_iter().map(|value| {
            let raw = convert::entry(value)?;
            Ok(Waiting {
                id: raw.id,
                messages: outgoing(raw),
            })
        });
        Ok(LoadOutboxReply {
            waiting: waiting.collect::<Result<_, Failure>>()?,
        })
    }

    pub(crate) async fn relayed(&self, r: Relayed) -> Result<RelayedReply, Failure> {
        if r.entries.is_empty() {
            return Ok(RelayedReply { removed: 0 });
        }
        let place = self.place(&r.stream).await?;
        let mut cmd = redis::cmd("XDEL");
        cmd.arg(place.key(Key::Outbox(&r.stream, r.partition, &r.group)));
        for id in &r.entries {
            cmd.arg(id.to_string());
        }
        Ok(RelayedReply {
            removed: number(self.send(&cmd).await?)?,
        })
    }

    pub(crate) async fn purge(&self, r: Purge) -> Result<PurgeReply, Failure> {
        let place = self.place(&r.stream).await?;
        let answer = self
            .script(Script::DeadPurge, |cmd| {
                let lease = Key::Lease(&r.stream, r.partition, &r.group);
                let dead = Key::Dead(&r.stream, r.partition, &r.group);
                placed(cmd, &place, &[lease, dead]);
                for id in &r.letters {
                    cmd.arg(id.to_string());
                }
            })
            .await?;
        Ok(PurgeReply {
            removed: number(answer)?,
        })
    }

    pub(crate) async fn bury(&self, r: Bury) -> Result<BuryReply, Failure> {
        let place = self.place(&r.stream).await?;
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::OutboxBury, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Lease(stream, partition, &r.group),
                        Key::Outbox(stream, partition, &r.group),
                        Key::Dead(stream, partition, &r.group),
                    ],
                );
                cmd.arg(r.epoch.0)
                    .arg(&r.reason)
                    .arg(LETTER_FIELDS_MAX)
                    .arg(r.entries.len());
                for entry in &r.entries {
                    cmd.arg(entry.id.to_string()).arg(entry.stamps.len());
                    for stamp in &entry.stamps {
                        cmd.arg(stamp.to_string());
                    }
                }
            })
            .await?;
        match text(answer)?.as_str() {
            "buried" => Ok(BuryReply::Buried),
            "fenced" => Ok(BuryReply::Fenced),
            other => Err(odd("outbox_bury", &Value::SimpleString(other.to_owned()))),
        }
    }

    pub(crate) async fn redrive(&self, r: Redrive) -> Result<RedriveReply, Failure> {
        let place = self.place(&r.stream).await?;
        if r.letters.iter().any(|letter| letter.to == r.stream.stream) {
            place.is_ours(&r.stream)?;
        }
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::DeadRedrive, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Meta(stream, partition),
                        Key::Log(stream, partition),
                        Key::Lease(stream, partition, &r.group),
                        Key::Dead(stream, partition, &r.group),
                        Key::Outbox(stream, partition, &r.group),
                    ],
                );
                let source = r.source.as_ref();
                cmd.arg(r.uid.as_str())
                    .arg(Key::News(stream, &r.group))
                    .arg(source.map_or("", |source| source.key_field()))
                    .arg(source.map_or("", |source| source.payload_field()))
                    .arg(r.letters.len());
                for letter in &r.letters {
                    let only = if letter.only { r.group.as_str() } else { "" };
                    cmd.arg(letter.dead_id.to_string())
                        .arg(letter.to.as_str())
                        .arg(only)
                        .arg(u8::from(letter.emitted));
                }
            })
            .await?;
        match answer {
            Value::Array(parts) => {
                let mut parts = parts.into_iter();
                Ok(RedriveReply::Moved {
                    epoch: Epoch(number(parts.next().unwrap_or(Value::Nil))?),
                    letters: parts.map(id).collect::<Result<_, _>>()?,
                })
            }
            other => match text(other)?.as_str() {
                "gone" => Ok(RedriveReply::StreamGone),
                "nogroup" => Ok(RedriveReply::GroupGone),
                other => Err(odd("dead_redrive", &Value::SimpleString(other.to_owned()))),
            },
        }
    }
}

pub(crate) fn appended_from(answer: Value) -> Result<AppendFromReply, Failure> {
    match answer {
        Value::Array(ids) => {
            let ids = ids.into_iter().map(|value| match text(value)?.as_str() {
                "" => Ok(None),
                some => id(Value::SimpleString(some.to_owned())).map(Some),
            });
            let ids = ids.collect::<Result<_, Failure>>()?;
            Ok(AppendFromReply::Accepted { ids })
        }
        other => match text(other)?.as_str() {
            "gone" => Ok(AppendFromReply::StreamGone),
            "behind" => Ok(AppendFromReply::Behind),
            "crowded" => Ok(AppendFromReply::Crowded),
            other => Err(odd("append_from", &Value::SimpleString(other.to_owned()))),
        },
    }
}

/// An entry of an outbox: protocol, target, how many messages unless it is one, then the messages, each of
/// which begins with its key.
pub(crate) fn outgoing(raw: RawEntry) -> Result<Vec<Outgoing>, String> {
    let RawEntry { id, mut fields } = raw;
    let ours = fields.len() > 2 && fields[0].0 == b"protocol" && fields[1].0 == b"to";
    if !ours {
        return Err("it was put into the outbox by somebody else".to_owned());
    }
    let to = String::from_utf8_lossy(&fields[1].1).into_owned();
    let to: StreamName = to.parse().map_err(|e| format!("its target: {e}"))?;
    let several = fields[2].0 == b"n";
    let told = match several {
        true => String::from_utf8_lossy(&fields[2].1).parse().ok(),
        false => Some(1),
    };
    fields.drain(..2 + usize::from(several));
    let mut messages = Vec::new();
    while !fields.is_empty() {
        let next = fields
            .iter()
            .skip(1)
            .position(|(name, _)| several && name == b"k");
        let rest = fields.split_off(next.map_or(fields.len(), |at| at + 1));
        let message = std::mem::replace(&mut fields, rest);
        match entry::decode(
            RawEntry {
                id,
                fields: message,
            },
            usize::MAX,
        ) {
            Entry::Ours { content, only, .. } => messages.push(Outgoing {
                to: to.clone(),
                content,
                only,
            }),
            Entry::Foreign { why, .. } => return Err(why.to_string()),
        }
    }
    if told != Some(messages.len()) {
        return Err(format!(
            "it holds {} messages and says otherwise",
            messages.len()
        ));
    }
    Ok(messages)
}
